"""H(R) of matrices on a k-mesh: M(R) = 1/N sum_k e^(-2 pi i k.R) M(k).

A mesh of N1 x N2 x N3 points sees R only modulo (N1, N2, N3): its supercell must be so wide that no two pairs of
the list share an image, and then what lies farther away than the list reaches must vanish. The first is checked
here; `largest_beyond` measures the second.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ase_hybridham.scf.box import Box
from ase_hybridham.system import Basis, PairBlocks, PairList, convert_orbitals

__all__ = ["blocks_from_mesh", "largest_beyond", "lattice_sum", "least_k_mesh"]


def least_k_mesh(box: Box, reach: float) -> NDArray[np.int64]:
    """Fewest k-points along each axis of the box for hoppings up to `reach` angstrom.

    The supercell is twice as wide as the reach: a pair of the list is nearer than all its images, and what the sum
    mixes into it lies beyond the reach.
    """
    least = np.ceil(2 * reach / box.heights - 1e-9).astype(np.int64)
    least[box.n_periodic :] = 1
    return least


def lattice_sum(
    matrices: NDArray, k_points: NDArray[np.float64], weights: NDArray[np.float64], shifts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """M(R) of a real operator, shape (n_shifts, n, n), in the unit of M(k).

    Parameters
    ----------
    matrices : array, shape (n_k, n, n)
        M(k) = sum_R e^(2 pi i k.R) M(R).
    k_points : array, shape (n_k, 3)
        Fractional: a whole mesh with its -k, or one of k and -k with the weight of both. M(-k) = M(k)*, so the sum
        is real.
    weights : array, shape (n_k,)
        With sum 1.
    shifts : array of int, shape (n_shifts, 3)
        R.
    """
    phases = weights * np.exp(-2j * np.pi * shifts @ k_points.T)
    n_orbitals = matrices.shape[-1]
    flat = matrices.reshape(len(k_points), -1)
    return (phases.real @ flat.real - phases.imag @ flat.imag).reshape(-1, n_orbitals, n_orbitals)


def blocks_from_mesh(
    matrices: NDArray,
    k_points: NDArray[np.float64],
    weights: NDArray[np.float64],
    mesh: Sequence[int] | NDArray[np.int64],
    pairs: PairList,
    basis: Basis,
    program: str,
    *,
    shifts: NDArray[np.int64] | None = None,
) -> PairBlocks:
    """The blocks of a real operator that a program gives on a k-mesh, hermitian.

    Parameters
    ----------
    matrices, k_points, weights
        As in `lattice_sum`; rows are atom after atom, in the orbital order of `program`.
    mesh : sequence of 3 int
        Points along each axis.
    pairs : PairList
    basis : Basis
        Shells in the program's order.
    program : str
        A key of `system.orbitals.ORBITAL_ORDERS`.
    shifts : array of int, shape (n_pairs, 3), optional
        R of each pair as the program counts it, where that differs: it may have moved atoms by lattice vectors.

    Raises
    ------
    ValueError
        If two pairs share an image: the mesh is too coarse for the list.
    """
    shifts = pairs.shifts if shifts is None else shifts
    _check_images(pairs, shifts, np.asarray(mesh))
    unique, which = np.unique(shifts, axis=0, return_inverse=True)
    elements = lattice_sum(matrices, k_points, weights, unique)
    sizes = basis.sizes(pairs.numbers)
    first = np.cumsum(sizes) - sizes
    stacks = {}
    for (z_i, z_j), rows in pairs.element_groups.items():
        a = first[pairs.i[rows]][:, None, None] + np.arange(basis[z_i].size)[:, None]
        b = first[pairs.j[rows]][:, None, None] + np.arange(basis[z_j].size)
        blocks = elements[which.ravel()[rows][:, None, None], a, b]
        stacks[z_i, z_j] = convert_orbitals(blocks, program, basis[z_i].degrees, basis[z_j].degrees)
    return PairBlocks.from_groups(pairs, basis, stacks).hermitian_part()


def largest_beyond(
    matrices: NDArray,
    k_points: NDArray[np.float64],
    weights: NDArray[np.float64],
    mesh: Sequence[int] | NDArray[np.int64],
    pairs: PairList,
    basis: Basis,
    *,
    shifts: NDArray[np.int64] | None = None,
) -> float:
    """Largest element of M(R) that the pair list leaves out, anywhere in the mesh's supercell.

    Zero up to rounding only if the pairs are all there, R counts in the direction of the phase, and atoms stand where
    the program has them. Arguments as in `blocks_from_mesh`.
    """
    mesh = np.asarray(mesh)
    shifts = pairs.shifts if shifts is None else shifts
    cells = np.stack(np.meshgrid(*(np.arange(n) for n in mesh), indexing="ij"), axis=-1).reshape(-1, 3)
    listed = np.zeros((len(cells), pairs.n_atoms, pairs.n_atoms), dtype=bool)
    listed[np.ravel_multi_index((shifts % mesh).T, mesh), pairs.i, pairs.j] = True
    sizes = basis.sizes(pairs.numbers)
    first = np.cumsum(sizes) - sizes
    largest = 0.0
    for cell, known in zip(cells, listed, strict=True):
        elements = np.abs(lattice_sum(matrices, k_points, weights, cell[None])[0])
        blocks = np.maximum.reduceat(np.maximum.reduceat(elements, first, axis=0), first, axis=1)
        largest = max(largest, float(blocks[~known].max(initial=0.0)))
    return largest


def _check_images(pairs: PairList, shifts: NDArray[np.int64], mesh: NDArray[np.int64]) -> None:
    images = np.column_stack([pairs.i, pairs.j, shifts % mesh])
    n_images = len(np.unique(images, axis=0))
    if n_images < len(pairs):
        raise ValueError(
            f"k-mesh {mesh.tolist()}: expected an image of its own for each of the {len(pairs)} pairs, got {n_images} "
            "images; take more k-points, or a shorter cutoff"
        )
