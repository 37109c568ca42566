"""H(R) of a potential: Fock matrices on a k-mesh, and their Fourier sum.

R along the lattice vectors only: PySCF's Bloch sums carry no phase for the place inside the cell.
"""

from typing import Any

import numpy as np
from ase.units import Hartree
from numpy.typing import NDArray

from ase_hybridham.scf.box import Box
from ase_hybridham.scf.fourier import blocks_from_mesh
from ase_hybridham.scf.grid import GridOrbitals
from ase_hybridham.scf.loop import bare_matrices
from ase_hybridham.solve import gamma_mesh
from ase_hybridham.system import Basis, PairBlocks, PairList

__all__ = ["hoppings"]


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
        At least `fourier.least_k_mesh`.
    potential : array, shape (n_grid,)
        Hartree.
    """
    k_points, weights = gamma_mesh(mesh)
    absolute = cell.get_abs_kpts(k_points)
    matrices = bare_matrices(cell, absolute) + GridOrbitals(cell, absolute, memory=0.0).matrix(potential)
    shifts = box.shifts(pairs.i, pairs.j, pairs.shifts)
    return blocks_from_mesh(matrices * Hartree, k_points, weights, mesh, pairs, basis, "pyscf", shifts=shifts)
