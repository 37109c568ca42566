"""The periodic box of a calculation: lattice, positions, grid and k-meshes of a structure.

A plane-wave grid needs three lattice vectors. Axes that are not periodic get a vector at right
angles to all others, as long as the atoms' own cell is high there, or `vacuum` where the cell
has no vector; periodic axes come first, so that PySCF finds the normal of a layer last.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell
from ase.units import Bohr
from numpy.typing import NDArray

from ase_hybridham.system import PairList

__all__ = ["Box", "check_distances", "grid_sizes", "k_mesh_of_length", "shared_grids"]

SAME_CELL = 0.05
LEAST_DISTANCE = 0.3  # angstrom

# Grid points per wavelength above the least number (Nyquist): PySCF's own choice for graphene, 23 at 100 hartree.
GRID_MARGIN = 1.1
# Without large prime factors, a tenth to a fifth apart so that cells which differ by a small strain share one,
# and closed under doubling so that a supercell keeps the spacing.
GRID_SIZES = np.array(sorted(n * 2**power for n in (20, 24, 27, 30, 36) for power in range(8)))


@dataclass(frozen=True)
class Box:
    """Lattice and positions inside it.

    Parameters
    ----------
    lattice : array, shape (3, 3)
        Rows are right-handed lattice vectors, angstrom, periodic ones first.
    positions : array, shape (n_atoms, 3)
        Angstrom; inside the box along periodic axes, in its middle along the others.
    n_periodic : int
    axes : array of int, shape (3,)
        Axis of the atoms' cell that each lattice vector stands for.
    sign : int
        -1 if the lattice vectors are those of the cell reversed, else 1.
    wraps : array of int, shape (n_atoms, 3)
        Lattice vectors subtracted from each position, along the box' axes.
    """

    lattice: NDArray[np.float64]
    positions: NDArray[np.float64]
    n_periodic: int
    axes: NDArray[np.int64]
    sign: int
    wraps: NDArray[np.int64]

    @classmethod
    def of(cls, atoms: Atoms, vacuum: float, reach: float) -> "Box":
        """The box of a structure.

        Parameters
        ----------
        atoms : ase.Atoms
        vacuum : float
            Length in angstrom of the box along an axis that is not periodic and has no cell vector.
        reach : float
            Largest range of a hopping, angstrom: images across a vacuum must be farther apart.

        Raises
        ------
        ValueError
            If a position is not finite, a periodic axis has no cell vector, or the atoms do not fit.
        """
        if not (np.isfinite(atoms.get_positions()).all() and np.isfinite(atoms.cell.array).all()):
            raise ValueError("structure: expected finite positions and cell vectors")
        periodic = np.asarray(atoms.pbc)
        lengths = atoms.cell.lengths()
        if (periodic & (lengths == 0)).any():
            axis = int(np.flatnonzero(periodic & (lengths == 0))[0])
            raise ValueError(f"cell: axis {axis} is periodic and has no vector; set the cell or pbc")
        axes = np.argsort(~periodic, kind="stable")
        cell = complete_cell(atoms.cell.array)[axes]
        n_periodic = int(periodic.sum())
        if abs(np.linalg.det(cell)) < 1e-6:
            raise ValueError("cell: the vectors span no volume; set the cell")
        lattice = cell.copy()
        for n in range(n_periodic, 3):
            normal = _perpendicular(lattice[:n], cell[n])
            height = abs(cell[n] @ normal) if lengths[axes[n]] else vacuum
            lattice[n] = height * normal
        sign = 1
        if n_periodic == 0:
            lattice = np.eye(3) * max(np.linalg.norm(lattice, axis=1))  # the truncated Coulomb potential is a sphere's
            axes = np.arange(3)
        elif np.linalg.det(lattice) < 0 and n_periodic < 3:
            lattice[2] *= -1
        elif np.linalg.det(lattice) < 0:
            lattice, sign = -lattice, -1
        positions, wraps = _placed(atoms.get_positions(), lattice, n_periodic, reach, axes)
        return cls(lattice, positions, n_periodic, axes, sign, wraps)

    @property
    def heights(self) -> NDArray[np.float64]:
        """Distances between opposite faces, angstrom, shape (3,)."""
        return 1 / np.linalg.norm(np.linalg.inv(self.lattice), axis=0)

    def mesh(self, given: Sequence[int]) -> NDArray[np.int64]:
        """Numbers given along the axes of the atoms' cell, along the axes of the box."""
        return np.asarray(given, dtype=np.int64)[self.axes]

    def k_mesh(self, given: Sequence[int]) -> NDArray[np.int64]:
        """As `mesh`, with one point along axes that are not periodic."""
        numbers = self.mesh(given)
        numbers[self.n_periodic :] = 1
        return numbers

    def along_cell(self, numbers: NDArray[np.int64]) -> list[int]:
        """Numbers along the axes of the box, along the axes of the atoms' cell."""
        along = np.empty(3, dtype=np.int64)
        along[self.axes] = numbers
        return along.tolist()

    def shifts(self, i: NDArray, j: NDArray, shifts: NDArray) -> NDArray[np.int64]:
        """Lattice shifts of pairs of the atoms as shifts between the positions of the box."""
        return self.sign * shifts[:, self.axes] + self.wraps[j] - self.wraps[i]


def grid_sizes(lattice: NDArray[np.float64], ke_cutoff: float) -> NDArray[np.int64]:
    """Points of the real-space grid along each lattice vector for a kinetic energy cutoff.

    Parameters
    ----------
    lattice : array, shape (3, 3)
        Angstrom.
    ke_cutoff : float
        Hartree, of the plane waves that carry the density.

    Returns
    -------
    array of int, shape (3,)
        The nearest (in ratio) of `GRID_SIZES`, so that a small strain rarely changes it.
    """
    wanted = GRID_MARGIN * np.linalg.norm(lattice / Bohr, axis=1) * np.sqrt(2 * ke_cutoff) / np.pi
    return GRID_SIZES[np.abs(np.log(GRID_SIZES[:, None] / wanted)).argmin(axis=0)]


def k_mesh_of_length(box: Box, length: float) -> NDArray[np.int64]:
    """k-points along each axis such that number times height of the cell is about `length`.

    Multiples of three get one point more: a mesh that holds the corner of the hexagonal zone puts
    weight on graphene's Dirac point and converges slowly.

    Parameters
    ----------
    box : Box
    length : float
        Angstrom.

    Returns
    -------
    array of int, shape (3,)
        1 along axes that are not periodic.
    """
    numbers = np.maximum(np.rint(length / box.heights).astype(np.int64), 1)
    numbers += numbers % 3 == 0
    numbers[box.n_periodic :] = 1
    return numbers


def shared_grids(
    structures: Sequence[Atoms], box_of: Callable[[Atoms], Box], grid_of: Callable[[Box], NDArray[np.int64]]
) -> list[tuple[int, ...]]:
    """A grid for each structure, along its cell vectors; cells that differ by at most 5 % share the first one's.

    A grid that jumps with the cell would show as noise between the structures of a data set.

    Parameters
    ----------
    structures : sequence of ase.Atoms
    box_of : callable
        The box of a structure; raises ValueError for one that cannot be treated.
    grid_of : callable
        The grid that a box would get by itself, along its axes.

    Raises
    ------
    ValueError
        If one of them cannot be treated; the message names it by its number.
    """
    grids: list[tuple[NDArray[np.float64], list[int]]] = []
    for n, atoms in enumerate(structures):
        try:
            box = box_of(atoms)
        except ValueError as error:
            raise ValueError(f"structure {n + 1} of {len(structures)}: {error}") from None
        alike = [grid for lattice, grid in grids if _same_cell(lattice, box.lattice)]
        grids.append((box.lattice, alike[0] if alike else box.along_cell(grid_of(box))))
    return [tuple(grid) for _, grid in grids]


def check_distances(atoms: Atoms) -> None:
    """Refuse a structure without atoms, or with atoms on top of each other.

    Raises
    ------
    ValueError
        If there is no atom, or two are nearer than 0.3 angstrom.
    """
    if not len(atoms):
        raise ValueError("structure: expected at least one atom, got none")
    if not (np.isfinite(atoms.get_positions()).all() and np.isfinite(atoms.cell.array).all()):
        raise ValueError("structure: expected finite positions and cell vectors")
    near = PairList.from_atoms(atoms, LEAST_DISTANCE)
    if near.n_hoppings:
        i, j, distance = near.i[len(atoms)], near.j[len(atoms)], near.distances[len(atoms)]
        raise ValueError(
            f"structure: atoms {i} and {j} are {distance:.3f} angstrom apart, expected at least {LEAST_DISTANCE}; "
            "check positions and cell"
        )


def _same_cell(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    change = np.linalg.norm(first - second, axis=1) / np.linalg.norm(first, axis=1)
    return bool(change.max() < SAME_CELL)


def _perpendicular(others: NDArray[np.float64], preferred: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vector at right angles to `others` in the plane of them and `preferred`."""
    directions, _ = np.linalg.qr(others.T) if len(others) else (np.zeros((3, 0)), None)
    rest = preferred - directions @ (directions.T @ preferred)
    return rest / np.linalg.norm(rest)


def _placed(
    positions: NDArray[np.float64], lattice: NDArray[np.float64], n_periodic: int, reach: float, axes: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    scaled = positions @ np.linalg.inv(lattice)
    wraps = np.floor(scaled).astype(np.int64)
    wraps[:, n_periodic:] = 0
    scaled = scaled - wraps
    for n in range(n_periodic, 3):
        height, extent = np.linalg.norm(lattice[n]), np.ptp(scaled[:, n]) * np.linalg.norm(lattice[n])
        if extent + reach > height + 1e-9:
            raise ValueError(
                f"cell: axis {axes[n]} is {height:.2f} angstrom high, expected at least {extent + reach:.2f} "
                f"(atoms {extent:.2f}, range of a hopping {reach:.2f}); raise the vacuum"
            )
        scaled[:, n] += 0.5 - 0.5 * (scaled[:, n].min() + scaled[:, n].max())
    return scaled @ lattice, wraps
