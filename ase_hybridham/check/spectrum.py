"""Eigenvalues of H and S at a few k-points: what the checks of energies share."""

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from ase import Atoms
from numpy.linalg import eigvalsh
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ase_hybridham.solve import BlochSum, eigenvalues, find_fermi_level, k_mesh, occupations, spin_degeneracy
from ase_hybridham.system import LCAOSystem

__all__ = ["Spectrum", "overlap_points", "special_points"]

MOST_ORBITALS = 1500  # a dense eigenproblem of more takes longer than ten seconds
WORK = 6e7  # k-points times orbitals^3: a quarter of a second
MOST_K_POINTS = 150
DENSITIES = (16.0, 8.0, 5.0, 3.0, 2.0, 1.0, 0.5)  # k-points per 1/angstrom, the first that is within WORK
WIDTH = 0.1  # eV: smooths what a coarse mesh makes of a metal
GENERIC = np.array([0.137, 0.271, 0.389])


def special_points(atoms: Atoms) -> NDArray[np.float64]:
    """Gamma, a point on the zone boundary, a general point and its reverse, shape (4, 3), fractional."""
    periodic = np.asarray(atoms.pbc, dtype=float)
    generic = GENERIC * periodic
    return np.stack([np.zeros(3), 0.5 * periodic, generic, -generic])


def overlap_points(atoms: Atoms, most: float) -> NDArray[np.float64]:
    """Where S(k) may be smallest, shape (n_k, 3), fractional: Gamma, zone boundaries, the corners of hexagonal zones.

    Orbitals of neighbors with opposite phases add up to the least that is left of them. At least three points, at most
    `most`.
    """
    halves = list(product((0.0, 0.5), repeat=3))[::-1]
    corners = [(1 / 3, 1 / 3, z) for z in (0.0, 0.5)] + [(1 / 3, -1 / 3, z) for z in (0.0, 0.5)]
    points = np.array([(0.0, 0.0, 0.0), (0.5, 0.5, 0.5), GENERIC, *corners, *halves]) * np.asarray(atoms.pbc)
    _, first = np.unique(points.round(9), axis=0, return_index=True)
    return points[np.sort(first)[: int(max(3, most))]]


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The eigenvalues of a system, each set worked out when it is first asked for.

    Parameters
    ----------
    system : LCAOSystem
        With H, and S unless its basis is orthogonal.
    """

    system: LCAOSystem

    @cached_property
    def special(self) -> NDArray[np.float64]:
        """Eigenvalues in eV at `special_points`, shape (n_spins, 4, n_bands)."""
        return eigenvalues(self.system, special_points(self.system.atoms))

    @cached_property
    def smallest_overlap(self) -> tuple[float, NDArray[np.float64]]:
        """Smallest eigenvalue of S(k) at `overlap_points`, and the fractional k."""
        overlap = self.system.overlap
        if overlap is None:
            return 1.0, np.zeros(3)
        sums = BlochSum(overlap.with_values(overlap.values.real).hermitian_part())
        k_points = overlap_points(self.system.atoms, WORK / sums.n**3)
        with threadpool_limits(1, user_api="blas"):
            smallest = [float(eigvalsh(sums.dense(k[None])[0])[0]) for k in k_points]
        worst = int(np.argmin(smallest))
        return smallest[worst], k_points[worst]

    @cached_property
    def mesh(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """k-points and weights of as dense a mesh as a quarter of a second allows."""
        most = min(MOST_K_POINTS, max(1.0, WORK / self.system.n_orbitals**3))
        for density in DENSITIES:
            k, w = k_mesh(self.system.atoms, density=density, time_reversal=self.system.spin != "spinor")
            if len(k) <= most:
                break
        return k, w

    @cached_property
    def energies(self) -> NDArray[np.float64]:
        """Eigenvalues in eV on the mesh, shape (n_spins, n_k, n_bands)."""
        return eigenvalues(self.system, self.mesh[0])

    @property
    def capacity(self) -> float:
        """Electrons that all states hold."""
        return self.degeneracy * float(np.einsum("skn,k->", np.isfinite(self.energies), self.mesh[1]))

    @property
    def degeneracy(self) -> int:
        """Electrons a state holds."""
        return spin_degeneracy(self.system)

    def count(self, level: float, scale: float = 1.0) -> float:
        """Electrons up to a level in eV, of energies times `scale`."""
        filling = occupations(scale * self.energies, level, width=WIDTH)
        return self.degeneracy * float(np.einsum("skn,k->", filling, self.mesh[1]))

    def level(self, electrons: float) -> float:
        """Fermi level in eV of so many electrons."""
        return find_fermi_level(self.energies, self.mesh[1], electrons, self.degeneracy, width=WIDTH)
