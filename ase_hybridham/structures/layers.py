"""Which atoms form a layer? Connected by bonds, and extended in one plane.

Letters: d period of the stack along the normal, angstrom; none where the structure is not periodic that way.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.neighborlist import natural_cutoffs, neighbor_list
from numpy.typing import NDArray

__all__ = ["Layers", "layers_of", "without_vacuum"]

BOND = 1.2  # times the sum of the covalent radii
VACUUM = 7.0  # angstrom without an atom; layers in a crystal are half as far apart
SAME = 1e-3  # angstrom


@dataclass(frozen=True)
class Layers:
    """The layers of a structure, from the lowest to the highest along the normal.

    Parameters
    ----------
    members : tuple of arrays of int
        Indices of the atoms of every layer.
    positions : tuple of arrays, shape (n, 3)
        Of these atoms, put together along the bonds, whatever images of them the structure has; angstrom.
    stack : array of int
        Number of the period in which that layer lies; 0 where there is no period.
    normal : array, shape (3,)
    lattice : array, shape (2, 3)
        Two lattice vectors in the plane, angstrom.
    period : float or None
        d.
    """

    members: tuple[NDArray[np.int64], ...]
    positions: tuple[NDArray[np.float64], ...]
    stack: NDArray[np.int64]
    normal: NDArray[np.float64]
    lattice: NDArray[np.float64]
    period: float | None

    @property
    def n_gaps(self) -> int:
        """Distances between neighboring layers that can change."""
        return len(self.members) - (self.period is None)


def layers_of(atoms: Atoms) -> Layers | None:
    """The layers of a structure; None if it does not consist of layers.

    Every atom must belong to a layer, and all layers to one plane: a molecule on a sheet is no layered structure.
    """
    parts = list(_components(atoms))
    spans = [_plane(vectors) for _, _, vectors in parts]
    normals = [np.cross(*span) for span in spans if span is not None]
    if not parts or len(normals) < len(parts):
        return None
    normal = normals[0] / np.linalg.norm(normals[0])
    normal *= np.sign(normal[np.argmax(np.abs(normal))])
    if any(np.linalg.norm(np.cross(other, normal)) > 1e-6 * np.linalg.norm(other) for other in normals):
        return None
    period = _period(atoms.cell.array[np.asarray(atoms.pbc)] @ normal)
    heights = np.array([positions.mean(axis=0) @ normal for _, positions, _ in parts])
    stack, inside = (np.zeros(len(parts)), heights) if period is None else np.divmod(heights, period)
    assert spans[0] is not None
    order = np.argsort(inside, kind="stable")
    members, positions = (tuple(parts[n][k] for n in order) for k in (0, 1))
    return Layers(members, positions, stack[order].astype(np.int64), normal, spans[0], period)


def without_vacuum(atoms: Atoms) -> Atoms:
    """A copy that is not periodic along axes on which there is vacuum, its atoms on one side of that.

    Codes of plane waves and many files call a slab periodic in all directions.
    """
    made = atoms.copy()
    made.calc = None
    cell, scaled, pbc = made.cell.complete(), made.get_scaled_positions(wrap=False), made.pbc.copy()
    for axis in np.flatnonzero(pbc):
        height = cell.volume / np.linalg.norm(np.cross(cell[axis - 2], cell[axis - 1]))
        inside = np.sort(scaled[:, axis] % 1.0)
        gaps = np.diff(inside, append=inside[0] + 1.0)
        last = int(np.argmax(gaps))
        if gaps[last] * height > VACUUM:
            pbc[axis] = False
            above = (scaled[:, axis] % 1.0 > inside[last]).astype(float)
            made.positions += np.outer(scaled[:, axis] % 1.0 - above - scaled[:, axis], cell[axis])
    made.pbc = pbc
    return made


def _components(atoms: Atoms) -> Iterable[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]]:
    """Of everything that bonds connect: atoms, positions put together, lattice vectors that lead back to an atom."""
    first, second, shifts = neighbor_list("ijS", atoms, natural_cutoffs(atoms, mult=BOND))
    bonds: dict[int, list[tuple[int, NDArray[np.int64]]]] = {n: [] for n in range(len(atoms))}
    for i, j, shift in zip(first.tolist(), second.tolist(), shifts, strict=True):
        bonds[i].append((j, shift))
    left = dict.fromkeys(range(len(atoms)))
    while left:
        start = next(iter(left))
        del left[start]
        cells, waiting = {start: np.zeros(3, dtype=np.int64)}, deque([start])
        loops = set()
        while waiting:
            i = waiting.popleft()
            for j, shift in bonds[i]:
                place = cells[i] + shift
                if j not in cells:
                    cells[j] = place
                    waiting.append(j)
                    del left[j]
                elif (loop := tuple((place - cells[j]).tolist())) != (0, 0, 0):
                    loops.add(loop)
        members = np.array(sorted(cells))
        moved = atoms.positions[members] + np.array([cells[n] for n in members.tolist()]) @ atoms.cell.array
        yield members, moved, np.array(sorted(loops), dtype=float).reshape(-1, 3) @ atoms.cell.array


def _plane(vectors: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Two of the vectors that span all of them; None if they span no plane."""
    if np.linalg.matrix_rank(vectors, tol=SAME) != 2:
        return None
    others = np.linalg.norm(np.cross(vectors[0], vectors), axis=1)
    return vectors[[0, int(np.argmax(others > SAME * np.linalg.norm(vectors[0])))]]


def _period(heights: NDArray[np.float64]) -> float | None:
    """Greatest common divisor of the heights of lattice vectors above the plane."""
    period = 0.0
    for height in np.abs(heights):
        while height > SAME:
            period, height = height, period % height if period else 0.0
    return float(period) or None
