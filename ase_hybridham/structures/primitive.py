"""The primitive cell of a crystal, or of one layer of a stack, that a supercell repeats, exactly or nearly.

A translation t takes every atom next to one of the same element, and so the atoms to a permutation of them. The mean of
the vectors from atom to atom is then a lattice vector of the supercell divided by the number of atoms: displacements
cancel, and t is exact. The shortest independent translations, at most three, are a basis of their lattice.
"""

from itertools import product

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

__all__ = ["primitive_cell"]

TOLERANCE = 0.3  # angstrom
FLAT = 1e-3  # angstrom


def primitive_cell(atoms: Atoms, members: ArrayLike | None = None, *, tolerance: float = TOLERANCE) -> Atoms:
    """The smallest cell whose repetition gives the atoms; its sites are the mean positions of their copies.

    Parameters
    ----------
    atoms : ase.Atoms
        Periodic along one axis at least.
    members : array of int, optional
        Atoms that count, such as those of one layer; by default all.
    tolerance : float
        Largest distance between an atom, moved by a translation, and the next one of its element, angstrom.

    Returns
    -------
    ase.Atoms
        Its cell spans that of `atoms` by integers; axes that are not periodic are the same. One copy of the atoms, if
        they repeat nothing.

    Raises
    ------
    ValueError
        If there are no atoms, or no periodic axis.
    """
    chosen = np.arange(len(atoms)) if members is None else np.unique(np.asarray(members, dtype=np.int64))
    pbc = np.asarray(atoms.pbc, dtype=bool)
    if not len(chosen) or not pbc.any():
        raise ValueError(f"primitive cell: expected atoms and a periodic axis, got {len(chosen)} atoms, {pbc.tolist()}")
    some = atoms[chosen]
    cell = atoms.cell.complete().array
    reduced, _ = minkowski_reduce(cell, pbc)
    found = np.empty((0, 3))
    for vector in _candidates(some, reduced, pbc):
        exact = _translation(some, reduced, pbc, vector, tolerance)
        if exact is None or np.linalg.matrix_rank(np.vstack([found, exact]), tol=FLAT) == len(found):
            continue
        found = np.vstack([found, exact])
        if len(found) == pbc.sum():
            break
    basis = cell.copy()
    basis[pbc] = found
    if np.linalg.det(basis) * np.linalg.det(cell) < 0:
        basis[np.flatnonzero(pbc)[-1]] *= -1
    return _with_sites(some, basis, pbc, tolerance)


def _candidates(atoms: Atoms, cell: NDArray, pbc: NDArray[np.bool_]) -> NDArray:
    """Vectors between atoms of the rarest element, and lattice vectors, shortest first, shape (n, 3)."""
    kinds, counts = np.unique(atoms.numbers, return_counts=True)
    same = atoms.positions[atoms.numbers == kinds[np.argmin(counts)]]
    scaled = (same - same[0]) @ np.linalg.inv(cell)
    scaled[:, pbc] -= np.rint(scaled[:, pbc])
    images = np.array(list(product(*[(-1, 0, 1) if periodic else (0,) for periodic in pbc])))
    vectors = ((scaled[:, None] + images) @ cell).reshape(-1, 3)
    lengths = np.linalg.norm(vectors, axis=1)
    order = np.argsort(lengths, kind="stable")
    return vectors[order[lengths[order] > FLAT]]


def _translation(
    atoms: Atoms, cell: NDArray, pbc: NDArray[np.bool_], vector: NDArray, tolerance: float
) -> NDArray | None:
    """The exact translation near a vector, or None."""
    missed = _missed(atoms, cell, pbc, vector)
    if missed is None or np.linalg.norm(missed, axis=1).max() > 2 * tolerance:
        return None
    exact = vector + missed.mean(axis=0)
    missed = _missed(atoms, cell, pbc, exact)
    return exact if missed is not None and np.linalg.norm(missed, axis=1).max() <= tolerance else None


def _missed(atoms: Atoms, cell: NDArray, pbc: NDArray[np.bool_], vector: NDArray) -> NDArray | None:
    """From every atom, moved by a vector, to the next one of its element, shape (n, 3); None if two meet at one."""
    inverse, lengths = np.linalg.inv(cell), np.linalg.norm(cell, axis=1)
    found = np.empty((len(atoms), 3))

    def place(positions: NDArray) -> NDArray:
        scaled = positions @ inverse
        return np.where(pbc, scaled % 1.0 % 1.0, scaled) * lengths  # twice, since -1e-17 % 1 is 1

    for number in np.unique(atoms.numbers):
        rows = atoms.numbers == number
        positions = atoms.positions[rows]
        tree = cKDTree(place(positions), boxsize=np.where(pbc, lengths, 0.0))
        partner = tree.query(place(positions + vector))[1]
        if len(np.unique(partner)) < len(partner):
            return None
        step = (positions[partner] - positions - vector) @ inverse
        step[:, pbc] -= np.rint(step[:, pbc])
        found[rows] = step @ cell
    return found


def _with_sites(atoms: Atoms, cell: NDArray, pbc: NDArray[np.bool_], tolerance: float) -> Atoms:
    """One site for all atoms that lattice vectors of the cell connect, at their mean position."""
    inverse, left = np.linalg.inv(cell), np.arange(len(atoms))
    numbers, sites = [], []
    while len(left):
        first = left[0]
        step = (atoms.positions[left] - atoms.positions[first]) @ inverse
        step[:, pbc] -= np.rint(step[:, pbc])
        away = step @ cell
        copies = (np.linalg.norm(away, axis=1) <= tolerance) & (atoms.numbers[left] == atoms.numbers[first])
        numbers.append(atoms.numbers[first])
        sites.append(atoms.positions[first] + away[copies].mean(axis=0))
        left = left[~copies]
    return Atoms(numbers, sites, cell=cell, pbc=pbc)
