"""Structures as VASP writes them (POSCAR), kept as they stand.

Line 1 a comment; 2 one scale, or three for x, y, z, or minus the volume of the cell; 3 to 5 lattice vectors; 6
elements and 7 how many atoms of each, where an element may come again (``C H C`` / ``1 4 2``); perhaps ``Selective
dynamics``; ``Direct`` or ``Cartesian``; a position a line. Order of atoms and coordinates outside [0, 1) stay: blocks
of matrix elements refer to them.
"""

import re
from itertools import groupby

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from ase_hybridham.errors import FormatError
from ase_hybridham.io.atoms import checked_atoms

__all__ = ["format_poscar", "parse_poscar"]


def parse_poscar(where: str, text: str) -> Atoms:
    """The atoms of a POSCAR, periodic along all axes.

    Parameters
    ----------
    where : str
        Names the file in messages.
    text : str

    Raises
    ------
    FormatError
        If a line is not what it must be; the message names it.
    """
    lines = text.splitlines()
    if len(lines) < 8:
        raise FormatError(f"{where}: expected at least 8 lines of a POSCAR, got {len(lines)}")
    scale = _scale(where, lines)
    cell = np.array([_numbers(where, lines, n, 3) for n in (2, 3, 4)])
    symbols = _symbols(where, lines)
    n = 7 + (lines[7].strip()[:1] in ("S", "s"))  # selective dynamics
    if len(lines) < n + 1 + len(symbols):
        raise FormatError(f"{where}: expected {len(symbols)} positions after line {n + 1}, got {len(lines) - n - 1}")
    coordinates = np.array([_numbers(where, lines, n + 1 + atom, 3) for atom in range(len(symbols))])
    factor = _factor(where, scale, cell)
    cell = cell * factor
    mode = lines[n].strip()[:1].lower()
    if mode not in ("c", "k", "d"):
        raise FormatError(f"{where}: line {n + 1}: expected Direct or Cartesian, got {lines[n].strip()!r}")
    positions = coordinates @ cell if mode == "d" else coordinates * factor
    atoms = checked_atoms(where, symbols, positions, cell)
    atoms.pbc = True
    return atoms


def format_poscar(atoms: Atoms, comment: str) -> str:
    """The text of a POSCAR with Cartesian positions; `parse_poscar` gives the same numbers back."""
    groups = [(symbol, len(list(group))) for symbol, group in groupby(atoms.get_chemical_symbols())]
    lines = [comment, "1.0"]
    lines += [_row(vector) for vector in atoms.cell.array]
    lines += ["  ".join(symbol for symbol, _ in groups), "  ".join(str(count) for _, count in groups), "Cartesian"]
    lines += [_row(position) for position in atoms.get_positions()]
    return "\n".join(lines) + "\n"


def _row(vector: NDArray[np.float64]) -> str:
    return "  ".join(repr(float(x)) for x in vector)


def _numbers(where: str, lines: list[str], n: int, count: int) -> NDArray[np.float64]:
    """The first numbers of a line; what follows them (an element, flags) does not matter."""
    try:
        numbers = np.array(lines[n].split()[:count], dtype=float)
    except ValueError:
        numbers = np.empty(0)
    if len(numbers) != count or not np.isfinite(numbers).all():
        expected = "a finite number" if count == 1 else f"{count} finite numbers"
        raise FormatError(f"{where}: line {n + 1}: expected {expected}, got {lines[n].strip()!r}")
    return numbers


def _scale(where: str, lines: list[str]) -> NDArray[np.float64]:
    try:
        return _numbers(where, lines, 1, 3)
    except FormatError:
        return _numbers(where, lines, 1, 1)  # and perhaps a comment


def _symbols(where: str, lines: list[str]) -> list[str]:
    """The element of every atom; what VASP puts after an element, as in Mo_pv, is left out."""
    elements = [re.split("[_/]", word)[0] for word in lines[5].split()]
    unknown = [element for element in elements if element not in atomic_numbers or element == "X"]
    if unknown or not elements:
        raise FormatError(f"{where}: line 6: expected chemical symbols, got {lines[5].strip()!r}")
    counts = lines[6].split()
    if len(counts) != len(elements) or not all(re.fullmatch("[0-9]{1,9}", word) and int(word) for word in counts):
        raise FormatError(f"{where}: line 7: expected {len(elements)} numbers of atoms, got {lines[6].strip()!r}")
    if sum(map(int, counts)) > len(lines):
        raise FormatError(f"{where}: expected {sum(map(int, counts))} positions, got {max(len(lines) - 8, 0)}")
    return [element for element, count in zip(elements, counts, strict=True) for _ in range(int(count))]


def _factor(where: str, scale: NDArray[np.float64], cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """What x, y and z are multiplied with."""
    if len(scale) == 1 and scale[0] < 0:
        volume = abs(np.linalg.det(cell))
        if not volume > 0:
            raise FormatError(f"{where}: the lattice vectors are linearly dependent")
        return np.full(3, (-scale[0] / volume) ** (1 / 3))
    if not (scale > 0).all():
        shown = " ".join(f"{x:g}" for x in scale)
        raise FormatError(f"{where}: line 2: expected one scale or three, above 0, or minus the volume, got {shown}")
    return np.broadcast_to(scale, 3)
