"""The primitive cell that a supercell or a layer repeats."""

import time

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, graphene, make_supercell, mx2
from hypothesis import given, settings
from hypothesis import strategies as st

from ase_hybridham.structures import layers_of, primitive_cell, twisted_bilayer

UNITS = {
    "graphene": graphene(a=2.46, vacuum=5),
    "MoS2": mx2(vacuum=6),  # two atoms above each other
    "silicon": bulk("Si"),
    "salt": bulk("NaCl", "rocksalt", a=5.6),
}


def spans(cell, other) -> bool:
    found = np.asarray(other) @ np.linalg.inv(cell)
    return bool(np.abs(found - np.rint(found)).max() < 1e-6)


@pytest.mark.parametrize("name", UNITS)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=5, deadline=None)
def test_any_supercell_leads_back_to_its_unit(name, seed):
    rng, unit = np.random.default_rng(seed), UNITS[name]
    matrix = np.eye(3, dtype=int)
    periodic = np.flatnonzero(unit.pbc)
    while abs(round(np.linalg.det(matrix))) in (0, 1) or abs(round(np.linalg.det(matrix))) > 12:
        matrix[np.ix_(periodic, periodic)] = rng.integers(-2, 4, size=(len(periodic),) * 2)
    atoms = make_supercell(unit, matrix)
    atoms.positions += rng.normal(scale=0.02, size=(len(atoms), 3))
    atoms = atoms[rng.permutation(len(atoms))]
    found = primitive_cell(atoms)
    assert sorted(found.numbers) == sorted(unit.numbers)
    assert spans(found.cell, atoms.cell.complete())
    assert abs(np.linalg.det(found.cell)) == pytest.approx(abs(np.linalg.det(unit.cell.complete())), rel=1e-6)
    np.testing.assert_array_equal(found.pbc, unit.pbc)


def test_each_layer_of_a_twisted_bilayer_has_its_own_cell():
    atoms = twisted_bilayer(2, 3)
    atoms.positions += np.random.default_rng(0).normal(scale=0.02, size=(len(atoms), 3))
    lower, upper = (primitive_cell(atoms, layer) for layer in layers_of(atoms).members)
    assert len(lower) == len(upper) == 2
    angle = [np.degrees(np.arctan2(*cell.cell.array[0, 1::-1])) for cell in (lower, upper)]
    assert (angle[0] - angle[1]) % 60 == pytest.approx(13.174, abs=1e-3)
    assert np.linalg.norm(upper.cell.array[:2], axis=1) == pytest.approx([2.46, 2.46], abs=1e-3)
    assert len(primitive_cell(atoms)) == len(atoms)  # the whole repeats nothing


def test_what_is_displaced_farther_than_the_tolerance_is_another_crystal():
    atoms = UNITS["graphene"].repeat((2, 1, 1))
    atoms.positions[0, 2] += 0.25
    assert len(primitive_cell(atoms)) == 2
    assert len(primitive_cell(atoms, tolerance=0.1)) == 4


def test_thousands_of_atoms_take_seconds():
    atoms = twisted_bilayer(15, 16)
    start = time.process_time()
    found = primitive_cell(atoms, np.arange(len(atoms) // 2))
    assert len(atoms) == 2884
    assert len(found) == 2
    assert time.process_time() - start < 5


def test_a_molecule_or_no_atom_has_no_primitive_cell():
    with pytest.raises(ValueError, match="expected atoms and a periodic axis, got 1 atoms"):
        primitive_cell(Atoms("C"))
    with pytest.raises(ValueError, match="expected atoms and a periodic axis, got 0 atoms"):
        primitive_cell(UNITS["graphene"], [])
