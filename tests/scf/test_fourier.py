"""From matrices on a k-mesh to blocks: exact where the mesh allows it, refused where it does not."""

from functools import partial

import numpy as np
import pytest
from ase import Atoms

from ase_hybridham.io import read_system
from ase_hybridham.scf.box import Box
from ase_hybridham.scf.fourier import blocks_from_mesh, largest_beyond, least_k_mesh
from ase_hybridham.solve import BlochSum, gamma_mesh
from ase_hybridham.system import Basis, PairBlocks, PairList
from tests.conftest import random_atoms


def random_blocks(atoms: Atoms, basis: Basis, seed: int = 0) -> PairBlocks:
    pairs = PairList.from_atoms(atoms, basis.cutoffs())
    zeros = PairBlocks.zeros(pairs, basis)
    return zeros.with_values(np.random.default_rng(seed).normal(size=zeros.values.shape)).hermitian_part()


def mesh_of(blocks: PairBlocks, atoms: Atoms) -> np.ndarray:
    """Fewest k-points for the longest pair, along the cell of the atoms."""
    box = Box.of(atoms, 12.0, 0.0)
    return np.array(box.along_cell(least_k_mesh(box, blocks.pairs.distances.max())))


def sampled(blocks: PairBlocks, mesh: np.ndarray, *, time_reversal: bool = True) -> tuple:
    k_points, weights = gamma_mesh(mesh, time_reversal=time_reversal)
    return BlochSum(blocks).dense(k_points), k_points, weights, mesh, blocks.pairs, blocks.basis


@pytest.mark.parametrize("time_reversal", [True, False])
@pytest.mark.parametrize("pbc", [(1, 1, 1), (1, 1, 0), (0, 0, 1), (0, 0, 0)])
def test_blocks_come_back_from_the_mesh_that_their_range_needs(mixed_basis, pbc, time_reversal):
    for seed in range(2):
        atoms = random_atoms(seed, pbc=pbc)
        atoms.cell[~atoms.pbc] *= 4  # room for all atoms
        blocks = random_blocks(atoms, mixed_basis)
        arguments = sampled(blocks, mesh_of(blocks, atoms), time_reversal=time_reversal)
        again = blocks_from_mesh(*arguments, "house")
        np.testing.assert_allclose(again.values, blocks.values, atol=1e-12)
        assert largest_beyond(*arguments) < 1e-12


@pytest.mark.parametrize("name", ["graphene", "MoS2_monolayer", "CH4_molecule", "H2O_across_boundary"])
def test_blocks_of_openmx_come_back(golden, name):
    system = read_system(golden / "openmx" / name / "deeph")
    for blocks in system.operators:
        arguments = sampled(blocks, mesh_of(blocks, system.atoms))
        again = blocks_from_mesh(*arguments, "house")
        # their H is hermitian to 1e-8 eV only
        np.testing.assert_allclose(again.values, blocks.hermitian_part().values, atol=1e-12)


def test_a_program_that_moves_atoms_into_the_cell_counts_other_shifts(mixed_basis):
    atoms = random_atoms(3, pbc=(1, 1, 1))
    blocks = random_blocks(atoms, mixed_basis)
    inside = atoms.copy()
    inside.wrap(eps=0)
    moved = np.rint((atoms.positions - inside.positions) @ np.linalg.inv(atoms.cell.array)).astype(int)
    assert moved.any()
    pairs = blocks.pairs
    theirs = pairs.shifts + moved[pairs.j] - moved[pairs.i]
    listed, position = PairList.sorted_from_indices(inside, pairs.i, pairs.j, theirs)
    np.testing.assert_allclose(listed.vectors[position], pairs.vectors, atol=1e-12)
    zeros = PairBlocks.zeros(listed, mixed_basis)
    for rows in pairs.element_groups.values():
        zeros.values[zeros.index(position[rows])] = blocks.values[blocks.index(rows)]
    k_points, weights = gamma_mesh(mesh_of(blocks, atoms))
    arguments = (BlochSum(zeros).dense(k_points), k_points, weights, mesh_of(blocks, atoms), pairs, mixed_basis)
    again = blocks_from_mesh(*arguments, "house", shifts=theirs)
    np.testing.assert_allclose(again.values, blocks.values, atol=1e-12)
    assert largest_beyond(*arguments, shifts=theirs) < 1e-12
    assert largest_beyond(*arguments) > 0.1


def test_the_opposite_phase_shows_beyond_the_pairs(golden):
    system = read_system(golden / "openmx/graphene/deeph")
    matrices, *rest = sampled(system.overlap, mesh_of(system.overlap, system.atoms))
    assert largest_beyond(matrices, *rest) < 1e-12
    assert largest_beyond(matrices.conj(), *rest) > 5e-3


def test_what_a_shorter_list_leaves_out_is_found(mixed_basis):
    atoms = random_atoms(1, pbc=(True, True, True))
    blocks = random_blocks(atoms, mixed_basis)
    matrices, k_points, weights, mesh, pairs, basis = sampled(blocks, mesh_of(blocks, atoms))
    shorter = PairList.from_atoms(atoms, 3.0)
    largest = max(np.abs(blocks.block(p)).max() for p in np.flatnonzero(shorter.find(pairs) < 0))
    found = largest_beyond(matrices, k_points, weights, mesh, shorter, basis)
    assert found == pytest.approx(largest, abs=1e-12)


def test_pairs_that_share_an_image_are_refused(golden):
    system = read_system(golden / "openmx/graphene/deeph")
    mesh = mesh_of(system.overlap, system.atoms)
    make = partial(blocks_from_mesh, program="house")
    make(*sampled(system.overlap, mesh))
    for coarse in (np.array([3, 3, 1]), np.maximum(mesh - [2, 0, 0], 1)):
        with pytest.raises(ValueError, match=r"expected an image of its own for each of the 92 pairs"):
            make(*sampled(system.overlap, coarse))
