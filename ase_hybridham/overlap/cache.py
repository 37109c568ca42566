"""Arrays kept on disk between runs: whole, right and of this machine's user, or not there.

HYBRIDHAM_CACHE names the folder ("off" or empty: nothing is kept); by default hybridham/tables in XDG_CACHE_HOME or
~/.cache. Whatever is wrong with folder or files, the caller computes again and is not troubled.
A file is the SHA-256 of key and content, then the content (numpy's npz).
"""

import io
import logging
import os
import zipfile
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ase_hybridham.files import written_atomically

__all__ = ["load_arrays", "save_arrays"]

LIMIT = 200 * 2**20  # bytes of all files
SUFFIX = ".table"

logger = logging.getLogger(__name__)


def load_arrays(key: str) -> dict[str, NDArray[np.float64]] | None:
    """What `save_arrays` kept under a key; None if nothing is there, or it is damaged."""
    folder = _folder()
    if folder is None:
        return None
    path = folder / f"{key}{SUFFIX}"
    try:
        if not path.is_file() or path.stat().st_size > LIMIT:
            return None
        content = path.read_bytes()
    except OSError as error:
        _warn_once(f"tables are not read from {folder}: {error}")
        return None
    if content[:32] != _checksum(key, content[32:]):
        logger.info("%s is damaged; computed again", path)
        return None
    try:
        with np.load(io.BytesIO(content[32:]), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile):  # another version of numpy, at worst
        return None


def save_arrays(key: str, arrays: Mapping[str, NDArray[np.float64]]) -> None:
    """Keep arrays under a key (a word of letters and digits); the oldest files beyond the limit are removed."""
    folder = _folder()
    if folder is None:
        return
    buffer = io.BytesIO()
    np.savez(buffer, **dict(arrays), allow_pickle=False)
    content = buffer.getvalue()
    if len(content) > LIMIT // 4:
        return
    try:
        with written_atomically(folder / f"{key}{SUFFIX}") as temporary:
            temporary.write_bytes(_checksum(key, content) + content)
        _remove_oldest(folder)
    except OSError as error:
        _warn_once(f"tables are not kept in {folder}: {error}; HYBRIDHAM_CACHE names another folder, or off")


def _folder() -> Path | None:
    named = os.environ.get("HYBRIDHAM_CACHE")
    if named is not None:
        return None if named.strip().lower() in ("", "off") else Path(named)
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or "")
        return (base if base.is_absolute() else Path.home() / ".cache") / "hybridham" / "tables"
    except RuntimeError:  # nobody's home
        return None


def _checksum(key: str, content: bytes) -> bytes:
    return sha256(key.encode() + content).digest()


def _remove_oldest(folder: Path) -> None:
    """Other processes may remove the same files at the same time."""
    files = []
    for path in folder.glob(f"*{SUFFIX}"):
        try:
            status = path.stat()
        except OSError:
            continue
        files.append((status.st_mtime, status.st_size, path))
    total = 0
    for _, size, path in sorted(files, reverse=True):
        total += size
        if total > LIMIT:
            path.unlink(missing_ok=True)


@cache
def _warn_once(message: str) -> None:
    logger.warning(message)
