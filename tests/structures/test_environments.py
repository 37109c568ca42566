"""Coverage of a twist by a training set: real bilayers, what must be outside, and small cells that cover."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import graphene
from hypothesis import given, settings
from hypothesis import strategies as st

import ase_hybridham
from ase_hybridham.cli.source import load_structure
from ase_hybridham.structures import (
    cover,
    distance_fingerprint,
    environment_coverage,
    environment_fingerprints,
    small_relative,
    twisted_bilayer,
    twisted_stack,
    variations,
)
from tests.structures.crystals import boron_nitride, molybdenum_disulfide, phosphorene

LAYER = graphene(a=2.46)


@pytest.fixture(scope="module")
def openmx(golden_bilayers) -> list[Atoms]:
    return [load_structure(folder)[0] for folder in sorted(golden_bilayers.iterdir())]


def test_slid_bilayers_cover_a_twist_but_not_what_is_pressed_or_stretched(openmx):
    shipped = json.loads((Path(ase_hybridham.__file__).parent / "data/twisted_bilayer.json").read_text())
    twist = Atoms(shipped["numbers"], shipped["positions"], cell=shipped["cell"], pbc=(True, True, False))
    found = environment_coverage(twist, openmx)
    assert (found.n_structures, found.n_environments) == (24, sum(map(len, openmx)))
    assert found.is_covered
    assert 0 < found.distances.max() < 1
    stretched = twisted_bilayer(1, 2, layer=graphene(a=2.46 * 1.04))
    for strange in (twisted_bilayer(1, 2, spacing=2.8), twisted_bilayer(1, 2, spacing=4.3), stretched):
        found = environment_coverage(strange, openmx)
        assert not found.is_covered
        assert found.outside == 1
    monolayer = environment_coverage(graphene(a=2.46, vacuum=8.0) * (2, 2, 1), openmx)
    assert monolayer.outside == 1  # nothing above it


def test_a_single_atom_is_found(openmx):
    atoms = twisted_bilayer(2, 3)
    atoms.positions[17, 2] += 0.5
    found = environment_coverage(atoms, openmx)
    assert found.to_dict()["worst_atom"] == 17
    assert found.to_dict()["largest"] > 2
    assert 0 < found.outside < 0.2


def test_an_element_that_is_missing(openmx):
    found = environment_coverage(twisted_bilayer(1, 2, layer=molybdenum_disulfide(), spacing=2.9), openmx)
    assert found.to_dict() == {
        "structures": 24,
        "environments": sum(map(len, openmx)),
        "median": None,
        "largest": None,
        "worst_atom": 0,
        "outside": 1.0,
        "covered": False,
    }


def test_the_unit_is_the_sets_own_distance(openmx):
    """By brute force over all pairs of atoms of different structures."""
    rows = [environment_fingerprints(atoms, ["C"], 0.2) for atoms in openmx]
    nearest = [
        min(np.linalg.norm(row - other, axis=1).min() for m, other in enumerate(rows) if m != n)
        for n, own in enumerate(rows)
        for row in own
    ]
    twist = twisted_bilayer(1, 2)
    all_rows = np.concatenate(rows)
    expected = [np.linalg.norm(row - all_rows, axis=1).min() for row in environment_fingerprints(twist, ["C"], 0.2)]
    found = environment_coverage(twist, openmx).distances
    np.testing.assert_allclose(found, np.array(expected) / np.quantile(nearest, 0.95), rtol=1e-9)
    assert environment_coverage(openmx[3], openmx).distances.max() < 1e-7


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), angle=st.floats(0, 360), layer=st.sampled_from([boron_nitride, phosphorene]))
def test_fingerprints_know_no_frame_cell_or_order(seed, angle, layer):
    rng = np.random.default_rng(seed)
    atoms = layer() * (2, 1, 1)
    atoms.cell[2] = [0, 0, 20]
    atoms.positions += rng.normal(scale=0.05, size=(len(atoms), 3))
    elements = sorted(set(atoms.get_chemical_symbols()))
    order = rng.permutation(len(atoms))
    other = atoms[order]
    other.rotate(angle, rng.normal(size=3), rotate_cell=True)
    other.translate(rng.normal(size=3))
    expected = environment_fingerprints(atoms, elements)
    np.testing.assert_allclose(environment_fingerprints(other, elements), expected[order], atol=1e-9)
    doubled = environment_fingerprints(atoms * (1, 2, 1), elements)
    np.testing.assert_allclose(doubled, np.tile(expected, (2, 1)), atol=1e-9)
    moved = atoms.copy()
    moved.positions[0, 0] += 0.1
    assert np.abs(environment_fingerprints(moved, elements) - expected).max() > 1e-3
    np.testing.assert_allclose(distance_fingerprint(atoms, elements).sum(), expected.sum() / len(atoms), rtol=1e-12)


@pytest.mark.parametrize(("angle", "n_atoms", "expected"), [(1.05, 4, 0.0), (21.0, 28, 21.787), (59.0, 4, 60.0)])
def test_the_small_cell_most_like_a_twist(angle, n_atoms, expected):
    twist = small_relative(LAYER, angle=angle)
    assert (twist.n_atoms, twist.angle) == (n_atoms, pytest.approx(expected, abs=1e-3))
    assert twist.is_exact


def test_what_is_picked_covers_better_than_what_is_drawn():
    twist = twisted_bilayer(6, 7)
    relative = small_relative(LAYER, angle=5.09)
    made = cover(twist, relative, LAYER, n=6)
    drawn = [one.atoms for one, _ in zip(variations(twisted_stack(relative, LAYER), 48), range(6), strict=False)]
    target = environment_fingerprints(twist, ["C"], 0.2)
    means = []
    for structures in (made, drawn):
        rows = np.concatenate([environment_fingerprints(atoms, ["C"], 0.2) for atoms in structures])
        means.append(np.mean([np.linalg.norm(rows - row, axis=1).min() for row in target]))
    assert means[0] < 0.8 * means[1]
    assert len(made) == 6
    assert all(8 <= len(atoms) <= 18 for atoms in made)
    again = cover(twist, relative, LAYER, n=6)
    assert all((one.positions == other.positions).all() for one, other in zip(made, again, strict=True))


def test_small_cells_of_a_heterobilayer():
    layers = (LAYER, boron_nitride())
    relative = small_relative(*layers, angle=0)
    assert relative.n_atoms == 4
    made = cover(twisted_stack(relative, *layers), relative, *layers, n=3)
    assert all(set(atoms.symbols) == {"B", "C", "N"} for atoms in made)


def test_bad_input(openmx):
    twist = twisted_bilayer(1, 2)
    for atoms, training, message in [
        (twist, openmx[:1], "training set: expected at least 2 structures to compare with, got 1"),
        (twist, [openmx[0]] * 3, "training set: expected structures that differ, got copies of one; displace"),
        (Atoms(), openmx, "structure: it holds no atom"),
    ]:
        with pytest.raises(ValueError, match=message):
            environment_coverage(atoms, training)
    with pytest.raises(ValueError, match="n: expected at least 2 structures, got 1"):
        cover(twist, small_relative(LAYER, angle=0), LAYER, n=1)
