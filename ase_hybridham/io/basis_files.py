"""Which files of a folder hold the radial functions of a basis? One line of `BASIS_FORMATS` for every kind of them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ase_hybridham.errors import FormatError
from ase_hybridham.io import abacus_orb, gaussian_basis, pao, siesta_ion
from ase_hybridham.io.basis_format import BasisFormat
from ase_hybridham.system import AtomBasis, Basis, LCAOSystem

__all__ = [
    "BASIS_FORMATS",
    "attach_radial_functions",
    "basis_names",
    "find_basis_files",
    "integral_settings",
    "whole_bases",
    "with_radial_functions",
]

SAME_RADIUS = 2e-3  # angstrom; radii fitted to pairs are rounded up to 0.001

# asked in this order; the first that recognises a file reads it
BASIS_FORMATS: tuple[BasisFormat, ...] = (
    pao.FORMAT,
    siesta_ion.FORMAT,
    abacus_orb.FORMAT,
    gaussian_basis.FORMAT,
)


def attach_radial_functions(
    basis: Basis,
    folder: str | Path,
    names: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Basis:
    """The basis with the radial functions of its shells, from a folder of basis files.

    Parameters
    ----------
    basis : Basis
        Not orthogonal.
    folder : str or Path
        With the files of its elements, and perhaps of others; or one file.
    names : mapping, optional
        Chemical symbol -> name of the basis, as in ``{"C": "C6.0-s2p2d1"}``. Without a name, the only file of the
        element, and of it the first functions of every l.
    settings : mapping, optional
        Provenance of a system: the program's settings of its integrals, where they differ from its defaults.

    Returns
    -------
    Basis
        The same shells. Valences that were unknown, and all cutoff radii, are those of the files.

    Raises
    ------
    FormatError
        If there is no file of an element, or several and no name, or a file is damaged or does not fit the shells,
        the cutoff radius or the name.
    ValueError
        If the basis is orthogonal.
    """
    if basis.orthogonal:
        raise ValueError(f"basis {basis.name}: its orbitals are orthonormal, S = 1 needs no radial functions")
    folder, names = Path(folder), dict(names or {})
    files = find_basis_files(folder)
    found: dict[str, AtomBasis] = {}
    files_of: dict[str, Path] = {}
    for symbol, atom in basis.atoms.items():
        path, known = _file_of(folder, files, symbol, names.get(symbol))
        found[symbol] = known.read(path, atom, names.get(symbol), settings or {})
        files_of[symbol] = path
    _check_radii(basis, found, files_of)
    return replace(basis, atoms=found)


def with_radial_functions(system: LCAOSystem, folder: str | Path, names: Mapping[str, str] | None = None) -> LCAOSystem:
    """The system with the radial functions of its basis; names and settings that are not given are its provenance's.

    Raises
    ------
    FormatError, ValueError
        As `attach_radial_functions`.
    """
    basis = attach_radial_functions(
        system.basis, folder, {**basis_names(system.provenance), **(names or {})}, system.provenance
    )
    operators = [replace(blocks, basis=basis) for blocks in system.operators]
    n = len(system.hamiltonian)
    overlap = None if system.overlap is None else operators[n]
    return replace(system, hamiltonian=tuple(operators[:n]), overlap=overlap)


def basis_names(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Chemical symbol -> name of the basis, of those that a provenance tells."""
    names = provenance.get("basis")
    return dict(names) if isinstance(names, Mapping) else {}


def integral_settings(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a provenance that some format of basis files looks at."""
    return {key: provenance[key] for one in BASIS_FORMATS for key in one.settings if key in provenance}


def find_basis_files(folder: str | Path) -> dict[Path, BasisFormat]:
    """The basis files of a folder, or the file that is given; of a file and its compressed twin one.

    Raises
    ------
    FormatError
        If there are none.
    """
    folder = Path(folder)
    try:
        paths = [folder] if folder.is_file() else sorted(folder.iterdir())
    except OSError as error:
        raise FormatError(f"{folder}: expected a folder of basis files ({error.strerror})") from None
    files: dict[str, tuple[Path, BasisFormat]] = {}
    for path in paths:
        known = next((one for one in BASIS_FORMATS if path.is_file() and one.sniff(path)), None)
        if known:
            files.setdefault(path.name.removesuffix(".gz"), (path, known))
    if not files:
        wanted = "; ".join(f"{one.name}: {one.description}" for one in BASIS_FORMATS)
        raise FormatError(f"{folder}: holds no basis files; looked for {wanted}")
    return dict(files.values())


def whole_bases(folder: str | Path, symbols: Iterable[str], names: Mapping[str, str]) -> dict[str, AtomBasis]:
    """Chemical symbol -> basis, of those elements whose file in a folder holds one basis and no other functions.

    Parameters
    ----------
    folder : str or Path
    symbols : iterable of str
    names : mapping
        As of `attach_radial_functions`.

    Raises
    ------
    FormatError
        If there are no basis files, several of an element without a name, or one is damaged or of another element.
    """
    files, found = find_basis_files(folder), {}
    for symbol in symbols:
        if any(known.whole and known.may_hold(path, symbol, names.get(symbol)) for path, known in files.items()):
            path, known = _file_of(Path(folder), files, symbol, names.get(symbol))
            if known.whole:
                found[symbol] = known.whole(path)
                if found[symbol].symbol != symbol:
                    raise FormatError(f"{path}: expected a basis of {symbol}, got one of {found[symbol].symbol}")
    return found


def _file_of(
    folder: Path, files: Mapping[Path, BasisFormat], symbol: str, name: str | None
) -> tuple[Path, BasisFormat]:
    """The file of an element, and its kind."""
    fitting = [path for path, known in files.items() if known.may_hold(path, symbol, name)]
    if len(fitting) == 1:
        return fitting[0], files[fitting[0]]
    if fitting:
        raise FormatError(
            f"{folder}: {' and '.join(path.name for path in fitting[:3])} are of {symbol}; name one, as in "
            f"{symbol}={Path(fitting[0].name.removesuffix('.gz')).stem}"
        )
    others = [path.name for path, known in files.items() if known.may_hold(path, symbol, None)]
    wanted = f"the file of {name}" if name else f"a basis file of {symbol}"
    held = f"only {', '.join(others[:3])} of {symbol}" if others else f"none of {symbol}"
    raise FormatError(f"{folder}: expected {wanted}, got {held}; give the folder the calculation was made with")


def _check_radii(basis: Basis, found: Mapping[str, AtomBasis], files: Mapping[str, Path]) -> None:
    """Refuse functions that end before the pairs of the basis do.

    Radii that were fitted to pairs may be too large for one element if they are too small for another.
    """
    excess = {s: atom.cutoff - (found[s].cutoff or 0.0) for s, atom in basis.atoms.items() if atom.cutoff is not None}
    symbol = max(excess, key=excess.__getitem__, default="")
    if symbol and excess[symbol] > SAME_RADIUS and min(excess.values()) > -SAME_RADIUS:
        ours, theirs = basis[symbol].cutoff, found[symbol].cutoff
        raise FormatError(
            f"{files[symbol]}: expected functions that reach {ours:.3f} angstrom, as the pairs of {symbol} do, got "
            f"{theirs:.3f}; give the file the calculation was made with"
        )
