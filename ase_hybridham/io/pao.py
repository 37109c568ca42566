"""The .pao files of OpenMX: radial functions of one element on a mesh.

X6.0-s2p2d1 is the file X6.0.pao, of which the first 2 s, 2 p and 1 d functions are taken as they stand; OpenMX does
not normalize them. A file is an input and the output of a program for atoms: keywords in front of values, and for
every l a section <pseudo.atomic.orbitals.L=l with rows of ln r, r in bohr, R of the first function, of the second, ...
(Read_PAO in OpenMX's SetPara_DFT.c). The contraction coefficients are history.
"""

import gzip
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from ase_hybridham.errors import FormatError
from ase_hybridham.io.basis_format import BasisFormat
from ase_hybridham.io.openmx_input import BOHR, SHELLS, parse_basis_name
from ase_hybridham.io.text import numbers_in
from ase_hybridham.overlap.rules_openmx import SETTINGS
from ase_hybridham.system import AtomBasis, SampledRadial

__all__ = ["Pao", "read_pao"]

SUFFIXES = (".pao", ".pao.gz")
LARGEST = 2**24  # bytes; real files have 2 MB
# setting of the rule -> entry of the provenance
INTEGRALS = {
    "energy_cutoff": "1DFFT_energy_cutoff_Ry",
    "k_points": "1DFFT_k_points",
    "radial_points": "1DFFT_radial_points",
}
# what real functions obey by far, and damaged ones may not
NORMS = (0.8, 1.25)  # of the 271 files of DFT_DATA13, elements have 0.86 to 1.04
JUMP = 0.15  # of the largest value, from the cubic through four neighbors; found 0.09, next to the cutoff radius
TAIL = 1e-6  # bohr^-3/2, past the cutoff radius
SAME_LOGARITHM = 1e-8  # r has 15 decimals
NEAR = 0.4  # of the cutoff radius; the last value is not far below, in orbitals near the nucleus at 0.59 of it
AFTER = 3  # rows of zeros past the last value that OpenMX's interpolation feels


@dataclass(frozen=True, eq=False)
class Pao:
    """Content of a .pao file.

    Parameters
    ----------
    symbol : str
        Chemical symbol.
    valence : float or None
        Valence electrons of the pseudopotential it was made for.
    cutoff : float
        Radius in bohr from which the functions are zero.
    mesh : array, shape (n,)
        r in bohr.
    functions : dict
        l -> R(r) of every function, bohr^-3/2, shape (n_functions, n).
    """

    symbol: str
    valence: float | None
    cutoff: float
    mesh: NDArray[np.float64]
    functions: dict[int, NDArray[np.float64]]


def read_pao(path: str | Path, counts: Sequence[int]) -> Pao:
    """The first `counts[l]` radial functions of every l of a .pao or .pao.gz, without rows that nothing depends on.

    Raises
    ------
    FormatError
        If the file is damaged, or has fewer functions.
    """
    lines = _text(path).splitlines()
    header = _keywords(lines)
    number = _value(path, header, "AtomSpecies")
    number = 1.0 if 0 < number < 1 else number  # fractional hydrogen
    if not number.is_integer() or not 0 < number < len(chemical_symbols):
        raise FormatError(f"{path}: AtomSpecies: expected an atomic number, got {number:g}")
    cutoff = _value(path, header, "radial.cutoff.pao")
    n_rows, n_columns = (_value(path, header, key) for key in ("grid.num.output", "PAO.Mul"))
    most = max(counts, default=0)
    if not 1 <= most <= n_columns:
        raise FormatError(
            f"{path}: expected {most} functions of an l, got {n_columns:g}; is it the file of this basis?"
        )
    sections = {l: _section(path, lines, l, n_rows, n_columns) for l, count in enumerate(counts) if count}
    mesh = next(iter(sections.values()))[1]
    functions = {l: section[2 : 2 + counts[l]] for l, section in sections.items()}
    for l, section in sections.items():
        if not np.array_equal(section[1], mesh):
            raise FormatError(f"{path}: the mesh of L={l} is another than that of L={next(iter(sections))}")
        _check_functions(path, l, mesh, functions[l], cutoff)
    alive = np.flatnonzero(np.any([(f != 0).any(axis=0) for f in functions.values()], axis=0))
    n = min(len(mesh), int(alive[-1]) + 1 + AFTER)
    valence = _value(path, header, "valence.electron") if "valence.electron" in header else None
    return Pao(chemical_symbols[int(number)], valence, cutoff, mesh[:n], {l: f[:, :n] for l, f in functions.items()})


def _text(path: str | Path) -> str:
    """The content of a file, plain or gzipped; comments may be in any alphabet."""
    path = Path(path)
    try:
        with path.open("rb") as raw:
            compressed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if compressed:
                with gzip.GzipFile(fileobj=raw) as file:
                    content = file.read(LARGEST + 1)
            else:
                content = raw.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(f"{path}: cannot be read ({error})") from None
    if len(content) > LARGEST:
        raise FormatError(f"{path}: expected at most {LARGEST >> 20} MB, got more; it is no .pao file")
    return content.decode("ascii", errors="replace")


def _keywords(lines: Sequence[str]) -> dict[str, str]:
    """Keyword in lower case -> the word after it, where it stands first."""
    words: dict[str, str] = {}
    for line in lines:
        first, *rest = line.split("#", 1)[0].split(maxsplit=2) or [""]
        if rest:
            words.setdefault(first.lower(), rest[0])
    return words


def _value(path: str | Path, header: Mapping[str, str], key: str) -> float:
    """The positive number of a keyword."""
    try:
        value = float(header[key.lower()])
    except KeyError:
        raise FormatError(f"{path}: {key} is missing; is it a .pao file of OpenMX?") from None
    except ValueError:
        value = np.nan
    if not 0 < value < 1e6:
        raise FormatError(f"{path}: {key}: expected a positive number, got {header[key.lower()]!r}")
    return value


def _section(path: str | Path, lines: Sequence[str], l: int, n_rows: float, n_columns: float) -> NDArray[np.float64]:
    """Columns of the section of an l, shape (2 + n_columns, n_rows): ln r, r, R of every function."""
    name = f"pseudo.atomic.orbitals.L={l}"
    words = [line.strip().lower() for line in lines]
    try:
        start = words.index(f"<{name}".lower())
        end = words.index(f"{name}>".lower(), start)
    except ValueError:
        raise FormatError(f"{path}: <{name} ... {name}> is missing; is the file complete?") from None
    numbers = numbers_in(f"{path}: {name}", "\n".join(lines[start + 1 : end]))
    if len(numbers) != n_rows * (2 + n_columns):
        raise FormatError(
            f"{path}: {name}: expected {n_rows:g} rows of {2 + n_columns:g} numbers, got {len(numbers)} numbers"
        )
    columns = numbers.reshape(int(n_rows), -1).T
    x, r = columns[:2]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        fits = (r > 0).all() and (np.abs(x - np.log(r)) < SAME_LOGARITHM).all() and (np.diff(r) > 0).all()
    if not fits or len(r) < 2 * AFTER:
        raise FormatError(f"{path}: {name}: expected rows of ln r, r and functions, r ascending; is the file damaged?")
    return columns


def _check_functions(
    path: str | Path, l: int, mesh: NDArray[np.float64], functions: NDArray[np.float64], cutoff: float
) -> None:
    """Refuse what no radial function is: not finite, not normalized at all, with jumps, past its cutoff radius."""
    for n, values in enumerate(functions):
        with np.errstate(invalid="ignore", over="ignore"):
            norm = np.trapezoid(values**2 * mesh**2, mesh)
            middle = (4 * (values[1:-3] + values[3:-1]) - values[:-4] - values[4:]) / 6
            jump = np.abs(values[2:-2] - middle).max() / np.abs(values).max()
        reach = mesh[np.flatnonzero(np.abs(values) > TAIL)][-1:]
        if not (NORMS[0] < norm < NORMS[1] and jump < JUMP):
            wrong = f"its norm is {norm:.3g}, its largest jump {jump:.2g} of its largest value"
        elif not NEAR * cutoff <= reach[0] <= cutoff:
            wrong = f"its last value is at {reach[0]:.3f} bohr, the cutoff radius at {cutoff:.3f}"
        else:
            continue
        raise FormatError(f"{path}: L={l}, function {n + 1}: {wrong}; is the file damaged?")


def _sniff(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz")[: -len(".pao")]


def _may_hold(path: Path, symbol: str, name: str | None) -> bool:
    """By OpenMX's custom: a file begins with the symbol of its element, a basis with the name of its file."""
    stem = _stem(path)
    if name is not None:
        return stem == name.partition("-")[0]
    return stem.startswith(symbol) and not stem[len(symbol) :][:1].islower()


def _read(path: Path, atom: AtomBasis, name: str | None, settings: Mapping[str, Any]) -> AtomBasis:
    """The shells of an atom with their functions."""
    counts = [atom.degrees.count(l) for l in range(max(atom.degrees) + 1)]
    if name is not None and "-" in name:
        _check_name(path, atom.symbol, name, counts)
    pao = read_pao(path, counts)
    if pao.symbol != atom.symbol:
        raise FormatError(f"{path}: expected functions of {atom.symbol}, got those of {pao.symbol}")
    told = _integral_settings(path, settings)
    shells = []
    for n, shell in enumerate(atom.shells):
        column = atom.degrees[:n].count(shell.l)
        radial = SampledRadial(pao.mesh, pao.functions[shell.l][column], pao.cutoff, "openmx", BOHR, told)
        shells.append(replace(shell, label=shell.label or f"{SHELLS[shell.l]}{column + 1}", radial=radial))
    valence = pao.valence if atom.valence is None else atom.valence
    return replace(atom, shells=tuple(shells), valence=valence, cutoff=pao.cutoff * BOHR)


def _integral_settings(path: Path, settings: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    """Settings of the rule that differ from OpenMX's defaults."""
    told = []
    for key, entry in INTEGRALS.items():
        default, least, most = SETTINGS[key]
        value = settings.get(entry, default)
        if not isinstance(value, (int, float)) or not least <= value <= most:
            raise FormatError(
                f"{path}: {entry} of the calculation: expected a number from {least:g} to {most:g}, got {value!r}"
            )
        if value != default:
            told.append((key, float(value)))
    return tuple(told)


def _check_name(path: Path, symbol: str, name: str, counts: Sequence[int]) -> None:
    """Refuse a name whose functions are not those of the shells."""
    if "/" in name:
        raise FormatError(
            f"{path}: atoms of {symbol} have the bases {name} in one calculation; S of two bases of one element "
            "cannot be computed"
        )
    _, primitive, contracted = parse_basis_name(path, name)
    if primitive != contracted:
        raise FormatError(
            f"{path}: the orbitals of {name} are optimized, and the file has them before that; S cannot be computed"
        )
    if list(primitive[: len(counts)]) != list(counts) or any(primitive[len(counts) :]):
        shells = "".join(f"{SHELLS[l]}{n}" for l, n in enumerate(counts) if n)
        raise FormatError(f"{path}: the shells of {symbol} are {shells}, {name} has others; name the right basis")


FORMAT = BasisFormat("openmx", ".pao or .pao.gz", _sniff, _may_hold, _read, tuple(INTEGRALS.values()))
