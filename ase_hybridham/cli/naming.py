"""Which structures lie below the sources, and what a data set calls them."""

import errno
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from ase_hybridham.errors import FormatError
from ase_hybridham.io import format_of, formats

__all__ = ["name_structures", "only_structure", "source_of", "structures_below"]

logger = logging.getLogger(__name__)

COMPRESSED = (".gz", ".xz", ".bz2")


def structures_below(
    source: Path, format: str | None = None, unreadable: Callable[[OSError], None] | None = None
) -> list[Path]:
    """Paths of all structures in a file or folder, sorted; hidden ones and those seen before (links) are left out.

    Parameters
    ----------
    source : Path
    format : str, optional
        A key of `io.formats`; any without it.
    unreadable : callable, optional
        Gets the error of a folder that cannot be read; without it the error is raised.

    Raises
    ------
    FormatError
        If there is no structure.
    """
    if format is not None and format not in formats():
        raise ValueError(f"--format: expected one of {', '.join(formats())}, got {format!r}")
    candidates = [formats()[format]] if format else list(formats().values())
    found: list[Path] = []
    seen: dict[tuple[int, int], Path] = {}
    stack = [source]
    while stack:
        path = stack.pop()
        try:
            status = path.stat()
            known = next((one for one in candidates if one.sniff(path)), None)
            if known is None and not path.is_dir():
                continue
            first = seen.setdefault((status.st_dev, status.st_ino), path)
            if first is not path:
                logger.info("%s: the same as %s, which is taken", path, first)
            elif known is None:
                children = sorted(name for name in os.listdir(path) if not name.startswith("."))
                stack.extend(path / name for name in reversed(children))
            elif path == source or not (known.is_second and known.is_second(path)):
                found.append(path)
        except OSError as error:
            if path != source and error.errno in (errno.ENOENT, errno.ELOOP):  # a link to nothing
                continue
            if path == source and error.errno == errno.ENOENT:
                raise FormatError(f"{source}: no such file or folder") from None
            if unreadable is None:
                raise
            unreadable(error)
    if not found:
        if source.is_file() and any(one.sniff(source.parent) for one in candidates):
            raise FormatError(f"{source}: holds no structure, its folder does; give that")
        wanted = "; ".join(f"{f.name}: {f.description}" for f in formats().values() if format in (None, f.name))
        raise FormatError(f"{source}: holds no structure; looked for {wanted}")
    return found


def only_structure(source: str | Path) -> Path:
    """The structure that a path means: itself, or the only one below a folder that is none.

    Raises
    ------
    FormatError
        If a folder holds none, or several.
    """
    path = Path(source)
    if not path.is_dir() or format_of(path) is not None:
        return path
    found = structures_below(path)
    if len(found) > 1:
        raise FormatError(f"{source}: holds {len(found)} structures, such as {found[0]}; name one of them")
    return found[0]


def name_structures(found: Mapping[Path, Sequence[Path]]) -> dict[str, Path]:
    """Name -> path of all structures, each name once.

    A name is the path from the source if there is one, else from the folder that holds all sources; without its last
    part if that is the only structure of its folder (run1 for run1/openmx.scfout), else without the suffix of a file
    (run1/a for run1/a.scfout beside run1/b.scfout), or as it stands where two would be the same.

    Parameters
    ----------
    found : mapping
        Source -> its structures.

    Raises
    ------
    ValueError
        If a structure is below two sources.
    """
    absolute = {source: Path(os.path.abspath(source)) for source in found}
    source, root = next(iter(absolute.items()))
    if len(found) == 1 and root.is_dir() and source not in found[source]:
        if len(found[source]) == 1 and found[source][0].parent == source:
            return {root.name: found[source][0]}
    else:
        root = Path(os.path.commonpath([path.parent for path in absolute.values()]))
    paths: dict[PurePosixPath, Path] = {}
    for path in (path for below in found.values() for path in below):
        if paths.setdefault(PurePosixPath(_absolute(path).relative_to(root)), path) is not path:
            raise ValueError(f"{path}: given twice")
    inside = Counter(folder for relative in paths for folder in relative.parents)
    names = {relative: _short(relative, inside, path.is_file()) for relative, path in paths.items()}
    while len(set(names.values())) < len(names):
        count = Counter(names.values())
        names = {relative: name if count[name] == 1 else str(relative) for relative, name in names.items()}
    return {names[relative]: path for relative, path in paths.items()}


def source_of(path: Path, output: Path) -> str:
    """Where a structure comes from, seen from the folder of the data set: both may be moved together."""
    return Path(os.path.relpath(path, output.parent)).as_posix()


def _short(relative: PurePosixPath, inside: Mapping[PurePosixPath, int], is_file: bool) -> str:
    folder = relative.parent
    if folder.name and inside[folder] == 1:
        return str(folder)
    if not is_file:
        return str(relative)
    bare = relative.with_suffix("") if relative.suffix in COMPRESSED else relative
    return str(bare.with_suffix("") if bare.suffix[1:2].isalpha() else bare)  # 3.35 has no suffix


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))
