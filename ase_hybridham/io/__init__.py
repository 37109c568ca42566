"""What did another program write? One file a format, one line of the registry each.

A new format is a module with a reader ``read_x(path) -> LCAOSystem`` and a `Format` that
recognises its files, and its line in `FORMATS`. A reader converts units, signs and orbital
order at its door; optional packages are imported inside the reader. Other packages add theirs
by an entry point of the group `PLUGINS`.
"""

from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from ase_hybridham.errors import FormatError
from ase_hybridham.io import abacus, deeph, deeph_dock, fhi_aims, openmx, siesta, wannier90
from ase_hybridham.io.basis_files import attach_radial_functions, with_radial_functions
from ase_hybridham.io.deeph import holds_blocks, read_deeph, read_deeph_atoms, write_deeph
from ase_hybridham.io.deeph_dock import read_deeph_dock, write_deeph_dock
from ase_hybridham.io.format import Format
from ase_hybridham.io.openmx import read_openmx, read_openmx_matrices
from ase_hybridham.io.openmx_band import BandReference, read_openmx_band
from ase_hybridham.system import LCAOSystem

__all__ = [
    "BandReference",
    "Format",
    "attach_radial_functions",
    "format_of",
    "formats",
    "holds_blocks",
    "read_deeph",
    "read_deeph_atoms",
    "read_deeph_dock",
    "read_openmx",
    "read_openmx_band",
    "read_openmx_matrices",
    "read_system",
    "with_radial_functions",
    "write_deeph",
    "write_deeph_dock",
]

# asked in this order; the first that recognises a path reads it
FORMATS = (
    deeph.FORMAT,
    deeph.SIESTA,
    deeph_dock.FORMAT,
    abacus.FORMAT,
    openmx.FORMAT,
    siesta.FORMAT,
    fhi_aims.FORMAT,
    wannier90.FORMAT,
)


PLUGINS = "ase_hybridham.formats"


@cache
def _known() -> tuple[Format, ...]:
    """All formats in the order in which they are asked."""
    added = sorted(entry_points(group=PLUGINS), key=lambda point: point.name)
    known = (*FORMATS, *(point.load() for point in added))
    names = [one.name for one in known]
    if len(set(names)) < len(names):
        raise ValueError(f"formats: {max(names, key=names.count)!r} is there twice; rename that of the entry point")
    return known


def formats() -> dict[str, Format]:
    """Name -> format, of all formats that can be read, those of installed plugins last."""
    return {known.name: known for known in _known()}


def format_of(path: str | Path) -> Format | None:
    """The format that recognises a file or folder; None if there is none. Opens as little as it can."""
    path = Path(path)
    return next((known for known in _known() if path.exists() and known.sniff(path)), None)


def read_system(path: str | Path, format: str | None = None) -> LCAOSystem:
    """The system that a file or folder of another program holds.

    Parameters
    ----------
    path : str or Path
    format : str, optional
        A key of `formats`; recognised from the path without it.

    Returns
    -------
    LCAOSystem
        H in eV, lengths in angstrom, float64, orbitals in the order of this package.

    Raises
    ------
    FormatError
        If nothing is there, no format fits, both of DeepH's layouts lie there and none is named, or the content is not
        what the format promises.
    ValueError
        If `format` is not a known name.
    """
    path = Path(path)
    if format is not None and format not in formats():
        raise ValueError(f"format: expected one of {', '.join(formats())}, got {format!r}")
    if not path.exists():
        raise FormatError(f"{path}: no such file or folder")
    known = format_of(path) if format is None else formats()[format]
    if known is None:
        described = "; ".join(f"{f.name}: {f.description}" for f in _known())
        raise FormatError(f"{path}: no known format ({described}); name one if it should be readable")
    if format is None:
        _refuse_two(path, known)
    return known.read(path)


def _refuse_two(path: Path, known: Format) -> None:
    """Which of two H in one folder is the newer one, nothing tells."""
    other = (f for f in _known() if f.sniff is not known.sniff and f.holds_blocks and f.holds_blocks(path))
    if second := next(other, None):
        raise FormatError(f"{path}: holds blocks of {known.name} and of {second.name}; name one of these formats")
