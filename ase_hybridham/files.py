"""Files that are whole or not there: written under a temporary name, then renamed."""

import os
import re
import socket
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["written_atomically"]


@contextmanager
def written_atomically(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends without an error.

    What a process that was killed left there is removed by the next one that writes `path` on the same machine.

    Raises
    ------
    OSError
        If the folder cannot be written; the message names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    ours = f".{path.name}.{zlib.crc32(socket.gethostname().encode()):08x}-"
    _remove_abandoned(path.parent, ours, path.suffix)
    handle, name = tempfile.mkstemp(prefix=f"{ours}{os.getpid()}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp's 0600 would make results unreadable to the group
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_abandoned(folder: Path, ours: str, suffix: str) -> None:
    """Remove the temporaries of this machine's processes that are no more."""
    left = re.compile(rf"{re.escape(ours)}(\d+)\.\w+{re.escape(suffix)}")
    for name in os.listdir(folder):
        found = left.fullmatch(name)
        if found and not _is_running(int(found[1])):
            (folder / name).unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # somebody else's
    return True
