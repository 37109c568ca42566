"""Random training structures are what they say."""

import numpy as np
import pytest
from ase.neighborlist import neighbor_list

from ase_hybridham.structures import random_graphene


@pytest.mark.parametrize("repeat", [(1, 1), (2, 1), (2, 3)])
@pytest.mark.parametrize("layers", [1, 2])
def test_every_atom_has_three_bonds_and_layers_are_apart(layers, repeat):
    atoms = random_graphene(np.random.default_rng(0), layers, repeat=repeat)
    assert len(atoms) == layers * np.prod(repeat) * 2
    i, distances = neighbor_list("id", atoms, 1.8)
    assert (np.bincount(i, minlength=len(atoms)) == 3).all()
    assert 1.2 < distances.min() < distances.max() < 1.65  # 1.42 with 1 % strain and displacements of 0.03
    z = np.sort(atoms.positions[:, 2]).reshape(layers, -1)
    assert (np.ptp(z, axis=1) < 0.25).all()
    if layers == 2:
        assert 3.1 < z[1].mean() - z[0].mean() < 3.7
    assert atoms.pbc.tolist() == [True, True, False]
    assert atoms.cell.lengths()[2] == 12.0


def test_without_strain_and_displacement_it_is_the_crystal():
    atoms = random_graphene(np.random.default_rng(1), strain=0.0, displacement=0.0, repeat=(2, 3))
    distances = neighbor_list("d", atoms, 1.6)
    np.testing.assert_allclose(distances, 2.46 / np.sqrt(3), rtol=1e-12)
    assert len(distances) == 3 * 12


def test_atoms_of_a_repeated_cell_move_independently():
    atoms = random_graphene(np.random.default_rng(2), repeat=(2, 2), strain=0.0, displacement=0.05)
    distances = neighbor_list("d", atoms, 1.7)
    assert len(np.unique(distances.round(6))) == 12  # bonds of 8 atoms; a repeated primitive cell has 3


def test_the_same_seed_gives_the_same_structure():
    first, second = (random_graphene(np.random.default_rng(3), 2).positions for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - random_graphene(np.random.default_rng(4), 2).positions).max() > 0.1
