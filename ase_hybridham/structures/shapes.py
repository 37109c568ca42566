"""Which supercells of a crystal are compact, and differ in shape?

Sublattices are listed by their Hermite normal forms; those whose reduced cells have equal lengths and angles are one
shape. Thin cells are left out: along a short vector neighbors are copies of each other and move together.
"""

from collections.abc import Iterator
from itertools import product

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce
from numpy.typing import NDArray

__all__ = ["supercell_shapes"]

ROUNDING = 1e-3  # angstrom^2, of scalar products of cell vectors that count as equal


def supercell_shapes(atoms: Atoms, least: int, most: int, thinnest: float = 2.0) -> list[NDArray[np.int64]]:
    """Matrices P that make compact supercells with cell vectors P A, smallest first.

    Parameters
    ----------
    atoms : ase.Atoms
        Repeated along its periodic axes; a molecule has itself as the only shape, whatever its size.
    least, most : int
        Atoms of the supercell.
    thinnest : float
        Largest ratio of two lengths of the reduced cell. Where all cells of a size are thinner, the least thin counts.

    Returns
    -------
    list of arrays, shape (3, 3), det > 0

    Raises
    ------
    ValueError
        If there is none of this size.
    """
    n_atoms, periodic = len(atoms), np.asarray(atoms.pbc)
    if not periodic.any():
        return [np.eye(3, dtype=np.int64)]
    sizes = range(max(1, -(-least // n_atoms)), most // n_atoms + 1)
    if not sizes:
        fix = n_atoms * -(-least // n_atoms)
        raise ValueError(f"atoms: no cell of {least} to {most} is a multiple of the {n_atoms} given; allow {fix}")
    shapes: list[NDArray[np.int64]] = []
    for size in sizes:
        found: dict[tuple[int, ...], tuple[float, NDArray[np.int64]]] = {}
        for form in _hermite_forms(size, periodic):
            cell, change = minkowski_reduce(form @ atoms.cell.array, periodic)
            matrix = change @ form
            if np.linalg.det(matrix) < 0:
                axis = int(np.flatnonzero(periodic)[0])
                matrix[axis], cell[axis] = -matrix[axis], -cell[axis]
            vectors = cell[periodic]
            key = tuple(np.round(_form(vectors) / ROUNDING).astype(int).tolist())
            lengths = np.linalg.norm(vectors, axis=1)
            found.setdefault(key, (float(lengths.max() / lengths.min()), matrix))
        compact = [matrix for ratio, matrix in found.values() if ratio <= thinnest * (1 + 1e-6)]
        shapes += compact or [min(found.values(), key=lambda item: item[0])[1]]
    return shapes


def _hermite_forms(size: int, periodic: NDArray[np.bool_]) -> Iterator[NDArray[np.int64]]:
    """One matrix for every sublattice of index `size` along the periodic axes."""
    axes = np.flatnonzero(periodic)
    divisors = [n for n in range(1, size + 1) if size % n == 0]
    for diagonal in product(divisors, repeat=len(axes)):
        if np.prod(diagonal) != size:
            continue
        above = [(row, column) for column in range(len(axes)) for row in range(column)]
        for values in product(*(range(diagonal[column]) for _, column in above)):
            matrix = np.eye(3, dtype=np.int64)
            matrix[axes, axes] = diagonal
            for (row, column), value in zip(above, values, strict=True):
                matrix[axes[row], axes[column]] = value
            yield matrix


def _form(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared lengths, ascending, and sizes of scalar products: those of all reduced cells of one shape."""
    gram = vectors @ vectors.T
    products = np.abs(gram[np.triu_indices(len(gram), 1)])
    return np.concatenate([np.sort(np.diag(gram)), np.sort(products)])
