"""The atoms that a program's file tells of: elements by their labels, a cell that has a volume."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from ase_hybridham.errors import FormatError

__all__ = ["checked_atoms", "element_of", "has_volume"]

SMALLEST_CELL = 1e-8  # angstrom^3


def has_volume(cell: NDArray[np.float64]) -> bool:
    """Whether three vectors, shape (3, 3) in angstrom, are finite and independent."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(SMALLEST_CELL <= abs(np.linalg.det(cell)) < np.inf)


def checked_atoms(
    where: str | Path,
    elements: Sequence[str] | NDArray[np.int64],
    positions: NDArray[np.float64],
    cell: NDArray[np.float64],
) -> Atoms:
    """Atoms, periodic along no axis; the pairs tell which are.

    Parameters
    ----------
    where : str or Path
        Names the file in messages.
    elements : sequence of str or array of int, shape (n_atoms,)
    positions : array, shape (n_atoms, 3)
        Angstrom.
    cell : array, shape (3, 3)
        Vectors as rows, angstrom.

    Raises
    ------
    FormatError
        If the vectors are dependent, or a number is not finite.
    """
    if not has_volume(cell) or not np.isfinite(positions).all():
        raise FormatError(f"{where}: expected three independent lattice vectors and finite positions")
    return Atoms(elements, positions, cell=cell)


def element_of(where: str | Path, label: str) -> str:
    """The chemical symbol with which a label such as ``Fe2`` or ``C_pz`` begins.

    Raises
    ------
    FormatError
        If it begins with none; names `where`.
    """
    found = re.match(r"[A-Z][a-z]?", label)
    for symbol in (found[0], found[0][:1]) if found else ():
        if symbol in atomic_numbers and symbol != "X":
            return symbol
    raise FormatError(f"{where}: atom label {label!r}: expected one that begins with an element")
