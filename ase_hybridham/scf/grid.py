"""Orbitals on the real-space grid: the density of orbital coefficients, and the matrix of a potential.

Bloch sums phi_k(r) = sum_T e^(ik.T) phi(r - T) are kept for all k where they fit the memory
allowed, else evaluated again, block of grid points by block. Letters: k k-point, g grid point,
a b orbitals, n band.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["GridOrbitals"]

BLOCK = 8192
# Points where every orbital is smaller (bohr^-3/2) are left out; they hold < 1e-3 meV of any matrix element.
LEAST_ORBITAL = 1e-5
# PySCF's precision of lattice sums of orbitals on the grid: 1e-4 leaves out images smaller than 1e-7 bohr^-3/2, which
# halves the cost and moves H by less than 1e-4 meV.
ORBITAL_PRECISION = 1e-4


class GridOrbitals:
    """The orbitals of a cell on its grid.

    Parameters
    ----------
    cell : pyscf Cell
        `cell.mesh` is the grid.
    k_points : array, shape (n_k, 3)
        In bohr^-1.
    memory : float
        GB (1e9 bytes) that the values may take.
    """

    def __init__(self, cell: Any, k_points: NDArray[np.float64], memory: float) -> None:
        self._cell = cell.copy()
        self._cell.precision = ORBITAL_PRECISION
        self._k_points = k_points
        self._points = cell.get_uniform_grids(cell.mesh, wrap_around=False)
        self.n_grid = len(self._points)
        self.volume_element = cell.vol / self.n_grid
        self._kept: list[tuple[NDArray, NDArray]] | None = None
        if 16 * self.n_grid * cell.nao * len(k_points) <= 1e9 * memory:
            self._kept = list(self._evaluated())

    def density(self, coefficients: list[NDArray]) -> NDArray[np.float64]:
        """sum_k sum_n |phi_k C_kn|^2, shape (n_grid,), bohr^-3.

        Parameters
        ----------
        coefficients : list over k of arrays, shape (n_orbitals, n_bands)
            Multiplied with the root of weight times occupation.
        """
        total = np.zeros(self.n_grid)
        for points, values in self._blocks():
            for orbitals, c in zip(values, coefficients, strict=True):
                waves = orbitals @ c
                total[points] += np.einsum("gn,gn->g", waves.real, waves.real)
                total[points] += np.einsum("gn,gn->g", waves.imag, waves.imag)
        return total

    def matrix(self, potential: NDArray[np.float64]) -> NDArray[np.complex128]:
        """<a|V|b> of a potential of shape (n_grid,) at every k, shape (n_k, n_orbitals, n_orbitals)."""
        total = np.zeros((len(self._k_points), self._cell.nao, self._cell.nao), dtype=complex)
        for points, values in self._blocks():
            weights = potential[points, None] * self.volume_element
            for k, orbitals in enumerate(values):
                total[k] += orbitals.conj().T @ (weights * orbitals)
        return np.asarray(0.5 * (total + total.conj().transpose(0, 2, 1)))

    def _blocks(self) -> Iterator[tuple[NDArray, NDArray]]:
        return iter(self._kept) if self._kept is not None else self._evaluated()

    def _evaluated(self) -> Iterator[tuple[NDArray, NDArray]]:
        """Grid points and values of shape (n_k, n_points, n_orbitals), block by block."""
        for start in range(0, self.n_grid, BLOCK):
            block = self._points[start : start + BLOCK]
            values = np.asarray(self._cell.pbc_eval_gto("GTOval_sph", block, kpts=self._k_points))
            near = np.flatnonzero((np.abs(values) > LEAST_ORBITAL).any(axis=(0, 2)))
            yield start + near, values[:, near].astype(complex)
