"""A layer as a lattice of two vectors in the x, y plane, with the first along x, and atoms above it."""

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

__all__ = ["Sheet"]

VACUUM = 5.0  # angstrom, at least, above a layer that is given as a crystal periodic in three directions
HEXAGONAL = 1e-4  # relative, of lengths that count as equal


@dataclass(frozen=True)
class Sheet:
    """One layer, possibly several atoms thick.

    Parameters
    ----------
    numbers : array of int, shape (n,)
        Atomic numbers.
    lattice : array, shape (2, 2)
        Rows a = (ax, 0) and b = (bx, by) with ax, by > 0, angstrom.
    scaled : array, shape (n, 2)
        Positions in a and b.
    heights : array, shape (n,)
        Above the lowest atom, angstrom.
    """

    numbers: NDArray[np.int64]
    lattice: NDArray[np.float64]
    scaled: NDArray[np.float64]
    heights: NDArray[np.float64]

    @classmethod
    def of(cls, atoms: Atoms) -> "Sheet":
        """The layer of any cell with two periodic axes, turned as a whole; up is the side of the third cell vector.

        Of a cell with three periodic axes the layer lies in the plane of the first two.

        Raises
        ------
        ValueError
            If there are not two periodic axes, or no vacuum along the third, or no atoms.
        """
        pbc = np.asarray(atoms.pbc)
        if pbc.sum() < 2:
            raise ValueError(f"layer: expected two periodic axes, got pbc {pbc.tolist()}; set atoms.pbc")
        if not len(atoms):
            raise ValueError("layer: it holds no atom")
        plane = np.flatnonzero(pbc)[:2]
        (a, b), out = atoms.cell.array[plane], atoms.cell.array[3 - plane.sum()]
        normal = np.cross(a, b)
        area = np.linalg.norm(normal)
        if not area > 1e-3 or not np.isfinite(atoms.positions).all():
            raise ValueError("layer: expected finite positions and two independent cell vectors; set the cell")
        normal *= (-1.0 if normal @ out < 0 else 1.0) / area
        axes = np.array([a / np.linalg.norm(a), np.cross(normal, a) / np.linalg.norm(a), normal])
        lattice = np.array([a, b if np.cross(a, b) @ normal > 0 else -b]) @ axes[:2].T
        heights = atoms.positions @ normal
        if pbc.all():
            heights = _unwrapped(heights, float(abs(out @ normal)))
        # along a tilted third vector an image of an atom is moved in the plane, too
        inside = atoms.positions + np.outer((heights - atoms.positions @ normal) / (out @ normal or 1.0), out)
        scaled = inside @ axes[:2].T @ np.linalg.inv(lattice)
        return cls(atoms.numbers.astype(np.int64), lattice, scaled, heights - heights.min())

    @property
    def thickness(self) -> float:
        """Height of the highest atom, angstrom."""
        return float(self.heights.max())

    @property
    def area(self) -> float:
        """Of the cell, angstrom^2."""
        return float(np.linalg.det(self.lattice))

    @property
    def hexagonal(self) -> NDArray[np.int64] | None:
        """Integer rows that make of a and b two vectors of equal length at 60 degrees; None for other lattices."""
        a, b = self.lattice
        cosine = a @ b / (a @ a)
        if max(abs(b @ b / (a @ a) - 1), abs(abs(cosine) - 0.5)) > HEXAGONAL:
            return None
        return np.array([[1, 0], [0, 1] if cosine > 0 else [1, 1]])


def _unwrapped(heights: NDArray[np.float64], period: float) -> NDArray[np.float64]:
    """Heights of images that lie together: the largest gap becomes the vacuum."""
    inside = np.sort(heights % period)
    gaps = np.diff(np.append(inside, inside[0] + period))
    widest = int(np.argmax(gaps))
    if gaps[widest] < VACUUM:
        raise ValueError(
            f"layer: expected a vacuum of {VACUUM:g} A along the third axis, got {gaps[widest]:.2f}; cut out one layer"
        )
    start = inside[(widest + 1) % len(inside)]
    return start + (heights - start + 1e-9) % period - 1e-9
