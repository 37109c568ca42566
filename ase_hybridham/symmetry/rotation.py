"""Rotation of operators and of whole systems.

The atoms turn, the orbitals stay along the axes of the lab: block (i, j, R) becomes D_i H D_j^dagger.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import block_diag

from ase_hybridham.symmetry.spinor import spin_rotation
from ase_hybridham.symmetry.wigner import wigner_D
from ase_hybridham.system import LCAOSystem, PairBlocks, PairList

__all__ = ["orbital_rotation", "rotate_blocks", "rotate_system"]


def orbital_rotation(degrees: Iterable[int], rotation: ArrayLike, *, spinor: bool = False) -> NDArray:
    """Matrix that turns the orbitals of an atom.

    Parameters
    ----------
    degrees : iterable of int
        l of its shells.
    rotation : array, shape (3, 3)
        Orthogonal, proper or not.
    spinor : bool
        Whether orbitals carry a spin: kron(D^(1/2), D), spin-major.

    Returns
    -------
    array, shape (n, n), or (2 n, 2 n) and complex for spinors
    """
    D = block_diag(*(wigner_D(l, rotation) for l in degrees))
    return np.kron(spin_rotation(rotation), D) if spinor else D


def rotate_blocks(blocks: PairBlocks, rotation: ArrayLike) -> PairBlocks:
    """The operator of the rotated structure, on pairs whose vectors are rotated.

    Parameters
    ----------
    blocks : PairBlocks
        With spin or without.
    rotation : array, shape (3, 3)
        Orthogonal, proper or not, on column vectors.

    Raises
    ------
    ValueError
        If the matrix is not orthogonal.
    """
    return _rotated_blocks(blocks, _rotated_pairs(blocks.pairs, rotation), rotation)


def rotate_system(system: LCAOSystem, rotation: ArrayLike) -> LCAOSystem:
    """The rotated system: cell, positions, H and S; energies do not change.

    Parameters
    ----------
    system : LCAOSystem
    rotation : array, shape (3, 3)
        Orthogonal, proper or not, on column vectors.

    Returns
    -------
    LCAOSystem
        Its atoms keep numbers, pbc, tags and info, but no calculator, momenta, moments or constraints.

    Raises
    ------
    ValueError
        If the matrix is not orthogonal.
    """
    pairs = _rotated_pairs(system.pairs, rotation)
    R, old = np.asarray(rotation, dtype=float), system.atoms
    atoms = Atoms(
        old.numbers,
        positions=old.get_positions() @ R.T,
        cell=old.cell.array @ R.T,
        pbc=old.pbc,
        tags=old.get_tags(),
        info=old.info,
    )
    return replace(
        system,
        atoms=atoms,
        hamiltonian=tuple(_rotated_blocks(h, pairs, rotation) for h in system.hamiltonian),
        overlap=None if system.overlap is None else _rotated_blocks(system.overlap, pairs, rotation),
    )


def _rotated_pairs(pairs: PairList, rotation: ArrayLike) -> PairList:
    R = np.asarray(rotation, dtype=float)
    if R.shape != (3, 3):
        raise ValueError(f"rotation: expected shape (3, 3), got {R.shape}")
    return replace(pairs, vectors=pairs.vectors @ R.T)


def _rotated_blocks(blocks: PairBlocks, pairs: PairList, rotation: ArrayLike) -> PairBlocks:
    D = {
        z: orbital_rotation(blocks.basis[z].degrees, rotation, spinor=blocks.spinor)
        for z in np.unique(pairs.numbers).tolist()
    }
    stacks = {(a, b): D[a] @ stack @ D[b].conj().T for (a, b), _, stack in blocks.groups()}
    return PairBlocks.from_groups(pairs, blocks.basis, stacks, spinor=blocks.spinor)
