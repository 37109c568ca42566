"""Rotation of blocks and systems, on operators that are covariant by construction."""

import numpy as np
import pytest
from ase import Atoms
from scipy.spatial.transform import Rotation

from ase_hybridham.symmetry import (
    DirectSum,
    SpinorDirectSum,
    orbital_rotation,
    rotate_blocks,
    rotate_system,
    spherical_harmonics,
)
from ase_hybridham.system import LCAOSystem, PairBlocks, PairList
from tests.conftest import random_atoms


def two_centre(pairs, basis, *, spinor=False):
    """Every natural part along Y_J of the bond, with a smooth function of its length; on-site only J = 0."""
    kind = SpinorDirectSum if spinor else DirectSum
    stacks = {}
    for (a, b), rows in pairs.element_groups.items():
        direct = kind(basis[a].degrees, basis[b].degrees)
        Y = spherical_harmonics(pairs.vectors[rows], max(part.degree for part in direct.parts))
        h = np.zeros((len(rows), direct.size))
        for n, part in enumerate(direct.parts):
            if part.natural:
                strength = np.cos(n + a + 2 * b) * np.exp(-pairs.distances[rows])
                h[:, part.components] = strength[:, None] * Y[part.degree]
        stacks[a, b] = direct.to_blocks(h)
    return PairBlocks.from_groups(pairs, basis, stacks, spinor=spinor).hermitian_part()


def system_of(atoms, basis, spin):
    pairs = PairList.from_atoms(atoms, basis.cutoffs())
    overlap = two_centre(pairs, basis)
    hamiltonian = two_centre(pairs, basis, spinor=spin == "spinor")
    both = (hamiltonian, 2.0 * hamiltonian) if spin == "collinear" else (hamiltonian,)
    return LCAOSystem(atoms, both, overlap, spin, fermi_level=0.3, electrons=7.0)


def turned(atoms: Atoms, R) -> Atoms:
    return Atoms(atoms.numbers, atoms.positions @ R.T, cell=atoms.cell.array @ R.T, pbc=atoms.pbc)


@pytest.mark.parametrize("spin", ["none", "collinear", "spinor"])
@pytest.mark.parametrize("det", [1, -1])
@pytest.mark.parametrize("seed", range(3))
def test_system_of_rotated_atoms_is_the_rotated_system(mixed_basis, spin, det, seed):
    atoms = random_atoms(seed, pbc=((True, True, False), (True, True, True), (False, False, False))[seed])
    R = det * Rotation.random(random_state=seed).as_matrix()
    system = system_of(atoms, mixed_basis, spin)
    expected = system_of(turned(atoms, R), mixed_basis, spin)
    found = rotate_system(system, R)
    assert len(system.pairs) > len(atoms)
    assert np.abs(found.hamiltonian[0].values - system.hamiltonian[0].values).max() > 0.01
    for ours, theirs in zip(found.operators, expected.operators, strict=True):
        assert ours.values.dtype == theirs.values.dtype
        np.testing.assert_allclose(ours.values, theirs.values, atol=1e-12)
        np.testing.assert_allclose(ours.pairs.vectors, theirs.pairs.vectors, atol=1e-12)
        assert ours.pairs.same_pairs(theirs.pairs)
        assert ours.hermiticity_error() < 1e-13
    np.testing.assert_allclose(found.atoms.cell.array, expected.atoms.cell.array, atol=1e-12)
    np.testing.assert_allclose(found.atoms.positions, expected.atoms.positions, atol=1e-12)
    np.testing.assert_array_equal(found.atoms.pbc, atoms.pbc)
    assert (found.spin, found.fermi_level, found.electrons) == (spin, 0.3, 7.0)
    # vectors of the pairs are those of the rotated atoms
    again = PairList.from_indices(found.atoms, found.pairs.i, found.pairs.j, found.pairs.shifts)
    np.testing.assert_allclose(again.vectors, found.pairs.vectors, atol=1e-12)


@pytest.mark.parametrize("spinor", [False, True])
def test_rotations_compose(mixed_basis, spinor):
    pairs = PairList.from_atoms(random_atoms(4), mixed_basis.cutoffs())
    blocks = PairBlocks.zeros(pairs, mixed_basis, spinor=spinor, dtype=np.complex128)
    rng = np.random.default_rng(0)
    blocks.values[:] = rng.normal(size=blocks.values.shape) + 1j * rng.normal(size=blocks.values.shape)
    before = blocks.values.copy()
    A, B = Rotation.random(2, random_state=5).as_matrix()
    one, two = rotate_blocks(blocks, -A @ B), rotate_blocks(rotate_blocks(blocks, B), -A)
    np.testing.assert_allclose(one.values, two.values, atol=1e-12)
    back = rotate_blocks(one, (-A @ B).T)
    np.testing.assert_allclose(back.values, blocks.values, atol=1e-12)
    np.testing.assert_array_equal(blocks.values, before)


def test_rotation_keeps_the_tags_and_drops_what_it_cannot_turn(mixed_basis):
    atoms = random_atoms(0)
    atoms.set_tags(range(len(atoms)))
    atoms.info["name"] = "x"
    atoms.set_momenta(np.ones((len(atoms), 3)))
    found = rotate_system(system_of(atoms, mixed_basis, "none"), Rotation.random(random_state=0).as_matrix()).atoms
    np.testing.assert_array_equal(found.get_tags(), atoms.get_tags())
    assert found.info == {"name": "x"}
    assert not found.has("momenta")


def test_system_without_hamiltonian(mixed_basis):
    system = system_of(random_atoms(0), mixed_basis, "none")
    only_overlap = LCAOSystem(system.atoms, (), system.overlap)
    assert rotate_system(only_overlap, np.eye(3)).hamiltonian == ()


def test_orbital_rotation_of_an_atom_is_block_diagonal():
    R = Rotation.random(random_state=1).as_matrix()
    D = orbital_rotation([0, 1], R)
    axes = [1, 2, 0]
    np.testing.assert_allclose(D, np.block([[np.eye(1), np.zeros((1, 3))], [np.zeros((3, 1)), R[np.ix_(axes, axes)]]]))


@pytest.mark.parametrize("matrix", [2 * np.eye(3), np.eye(3)[:2], np.stack([np.eye(3)] * 2)])
def test_what_is_no_rotation_is_refused(mixed_basis, matrix):
    system = system_of(random_atoms(0), mixed_basis, "none")
    with pytest.raises(ValueError, match="rotation: expected"):
        rotate_system(system, matrix)
    with pytest.raises(ValueError, match="rotation: expected"):
        rotate_blocks(system.overlap, matrix)
