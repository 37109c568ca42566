"""H(R) of a potential: Fock matrices on a k-mesh, and their Fourier sum.

H(R) = 1/N sum_k e^(-2 pi i k.R) H(k), R along the lattice vectors only: PySCF's Bloch sums carry
no phase for the place inside the cell. The mesh's supercell must be at least twice as wide as
the range of a hopping; then a pair of the list is nearer than all its aliases, and what the sum
mixes into it lies beyond the range.
"""

from typing import Any

import numpy as np
from ase.units import Hartree
from numpy.typing import NDArray

from ase_hybridham.scf.box import Box
from ase_hybridham.scf.grid import GridOrbitals
from ase_hybridham.scf.loop import bare_matrices
from ase_hybridham.solve import gamma_mesh
from ase_hybridham.system import Basis, PairBlocks, PairList, convert_orbitals

__all__ = ["hoppings", "least_k_mesh"]


def least_k_mesh(box: Box, reach: float) -> NDArray[np.int64]:
    """Fewest k-points along each axis of the box for hoppings up to `reach` angstrom."""
    least = np.ceil(2 * reach / box.heights - 1e-9).astype(np.int64)
    least[box.n_periodic :] = 1
    return least


def hoppings(
    cell: Any, box: Box, pairs: PairList, basis: Basis, mesh: NDArray[np.int64], potential: NDArray[np.float64]
) -> PairBlocks:
    """H(R) in eV.

    Parameters
    ----------
    cell : pyscf Cell
        Of the box.
    box : Box
    pairs : PairList
        Of the structure.
    basis : Basis
        In the shell order of the cell.
    mesh : array of int, shape (3,)
        At least `least_k_mesh`.
    potential : array, shape (n_grid,)
        Hartree.
    """
    k_points, weights = gamma_mesh(mesh)
    absolute = cell.get_abs_kpts(k_points)
    matrices = bare_matrices(cell, absolute) + GridOrbitals(cell, absolute, memory=0.0).matrix(potential)
    shifts, which = np.unique(box.shifts(pairs.i, pairs.j, pairs.shifts), axis=0, return_inverse=True)
    # k and -k together: H(-k) = H(k)*, so the sum is real
    phases = weights * np.exp(-2j * np.pi * shifts @ k_points.T)
    n_orbitals = matrices.shape[1]
    flat = matrices.reshape(len(k_points), -1)
    elements = (phases.real @ flat.real - phases.imag @ flat.imag).reshape(-1, n_orbitals, n_orbitals) * Hartree
    sizes = basis.sizes(pairs.numbers)
    first = np.cumsum(sizes) - sizes
    stacks = {}
    for (z_i, z_j), rows in pairs.element_groups.items():
        a = first[pairs.i[rows]][:, None, None] + np.arange(basis[z_i].size)[:, None]
        b = first[pairs.j[rows]][:, None, None] + np.arange(basis[z_j].size)
        blocks = elements[which.ravel()[rows][:, None, None], a, b]
        stacks[z_i, z_j] = convert_orbitals(blocks, "pyscf", basis[z_i].degrees, basis[z_j].degrees)
    return PairBlocks.from_groups(pairs, basis, stacks).hermitian_part()
