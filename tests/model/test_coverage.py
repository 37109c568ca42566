"""What a network has met in training, and what is told of structures that are otherwise."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, graphene, molecule

from ase_hybridham.model import Coverage, TrainedModel, load_model, save_model
from ase_hybridham.structures import random_graphene
from ase_hybridham.system import PairList
from tests.model.networks import CARBON, MIXED, config, network, structure

RADIUS = {6: 3.1, 1: 2.0, 8: 2.0}


def bilayer(seed: int, spacing: float, **options: object) -> Atoms:
    return random_graphene(np.random.default_rng(seed), 2, spacing=(spacing, spacing), **options)


def pairs_of(atoms: Atoms) -> PairList:
    return PairList.from_atoms(atoms, RADIUS)


@pytest.fixture(scope="module")
def bilayers() -> Coverage:
    """Of bilayers 3.2 to 3.6 A apart."""
    return Coverage.of(pairs_of(bilayer(seed, 3.2 + 0.05 * seed, displacement=0.01)) for seed in range(9))


def test_what_was_met_is_not_told(bilayers):
    for seed in range(9):
        assert bilayers.outside(pairs_of(bilayer(seed, 3.2 + 0.05 * seed, displacement=0.01))) == []
    assert bilayers.outside(pairs_of(bilayer(20, 3.4, displacement=0.0))) == []


@pytest.mark.parametrize(
    ("atoms", "words"),
    [
        (bilayer(0, 2.7, displacement=0.0), ["A to the next fragment, not 3."]),
        (bilayer(0, 4.1, displacement=0.0), ["A to the next fragment, not 3."]),
        (graphene(a=2.35, vacuum=8.0), ["C-C bonds of 1.357 A on average, not 1.4", "atoms within reach"]),
        (random_graphene(np.random.default_rng(0), 3, spacing=(3.35, 3.35), height=20.0), ["atoms within reach"]),
        (bulk("C"), ["C-C bonds of 1.546 A", "C (atom 0) with 4 bonds, not 3", "atoms within reach"]),
        (Atoms("C2", [(0, 0, 0), (0, 0, 1.0)]), ["C-C at 1.00 A (atoms 0 and 1), where none is below 1.3"]),
        (
            Atoms("C2", [(0, 0, 0), (0, 0, 1.95)]),
            ["C-C at 1.95 A (atoms 0 and 1), where none is between 1.45 and 2.43"],
        ),
        (Atoms("C"), ["C (atom 0) with 0 bonds, not 3", "C (atom 0) with 0 atoms within reach"]),
    ],
    ids=["close", "far", "compressed", "three layers", "diamond", "short", "in a gap", "alone"],
)
def test_what_was_not_is_told_with_the_atoms(bilayers, atoms, words):
    told = bilayers.outside(pairs_of(atoms))
    for word in words:
        assert any(word in line for line in told), told


def test_the_worst_atom_is_named(bilayers):
    atoms = graphene(size=(4, 4, 1), a=2.46, vacuum=8.0)
    neighbor = int(np.argsort(atoms.get_distances(7, range(len(atoms)), mic=True))[1])
    del atoms[7]
    (line,) = [line for line in bilayers.outside(pairs_of(atoms)) if "bonds" in line]
    with_two = [n for n, count in enumerate(np.bincount(bonds(atoms)[0])) if count == 2]
    assert line in {f"C (atom {n}) with 2 bonds, not 3" for n in with_two}
    assert neighbor - (neighbor > 7) in with_two


def bonds(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    pairs = pairs_of(atoms)
    near = (pairs.distances > 0) & (pairs.distances < 1.8)
    return pairs.i[near], pairs.j[near]


def with_a_bump(atoms: Atoms, breathing: float) -> Atoms:
    """The neighbors of atom 0 come nearer to it by a length, and farther from all others."""
    start, end = bonds(atoms)
    for neighbor in end[start == 0]:
        step = atoms.get_distance(0, neighbor, mic=True, vector=True)
        atoms.positions[neighbor] -= breathing * step / np.linalg.norm(step)
    return atoms


@pytest.mark.parametrize("breathing", [0.12, -0.12])
def test_one_atom_with_short_or_long_bonds_is_told(breathing):
    sheet = graphene(size=(4, 4, 1), a=2.46, vacuum=8.0)
    rng = np.random.default_rng(0)
    met = []
    for _ in range(20):  # bonds of any length, but hardly three short ones at one atom
        met.append(sheet.copy())
        met[-1].positions += rng.normal(scale=0.04, size=(len(sheet), 3))
    coverage = Coverage.of(map(pairs_of, met))
    assert not any("mean bond" in line for atoms in met for line in coverage.outside(pairs_of(atoms)))
    ((low, high),) = coverage.atom_bonds["C"]
    assert 1.32 < low < 1.42 < high < 1.52
    mean = np.sqrt(2.46**2 / 3) - breathing
    atoms = with_a_bump(sheet, breathing)
    assert coverage.outside(pairs_of(atoms)) == [
        f"C (atom 0) with {mean:.3g} A as its mean bond, not {low:.3g} to {high:.3g}"
    ]


def test_an_older_checkpoint_does_not_know_the_bonds_of_single_atoms(bilayers):
    entries = bilayers.to_dict()
    assert entries.pop("atom_bonds")
    older = Coverage.from_dict(json.loads(json.dumps(entries)))
    assert older.atom_bonds is None
    assert older.to_dict() == entries
    told = bilayers.outside(pairs_of(bulk("C")))
    assert older.outside(pairs_of(bulk("C"))) == [line for line in told if "mean bond" not in line] != told
    del entries["bonds"]
    with pytest.raises(KeyError, match="bonds"):
        Coverage.from_dict(entries)


def test_every_pair_of_elements_has_its_own_ranges():
    water, methane = molecule("H2O"), molecule("CH4")
    coverage = Coverage.of(map(pairs_of, (water, methane)))
    assert set(coverage.distances) == {"H-O", "H-H", "C-H"}
    oh, ch = water.get_distance(0, 1), methane.get_distance(0, 1)
    assert coverage.bond_length["H-O"] == ((pytest.approx(oh, abs=1e-3),) * 2,)
    assert (coverage.bonds["O"], coverage.bonds["C"], coverage.bonds["H"]) == (((2, 2),), ((4, 4),), ((1, 1),))
    assert coverage.atom_bonds["O"] == coverage.bond_length["H-O"]
    assert coverage.atom_bonds["H"] == ((pytest.approx(oh, abs=1e-3), pytest.approx(ch, abs=1e-3)),)
    assert not coverage.separation  # both are of one piece
    water.set_distance(0, 1, oh + 0.2, fix=0)
    assert any("H-O at" in line for line in coverage.outside(pairs_of(water)))


def test_ranges_hold_every_pair_and_no_gap():
    coverage = Coverage.of(pairs_of(bilayer(seed, 3.3)) for seed in range(3))
    spans = np.array(coverage.distances["C-C"])
    assert (spans[:, 1] >= spans[:, 0]).all()
    assert (spans[1:, 0] - spans[:-1, 1] > 0.1).all()
    for seed in range(3):
        d = pairs_of(bilayer(seed, 3.3)).distances
        d = d[d > 0]
        assert (((d[:, None] > spans[:, 0] - 1e-3) & (d[:, None] < spans[:, 1] + 1e-3)).sum(1) == 1).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_union_is_that_of_both_sets(seed, bilayers):
    rng = np.random.default_rng(seed)
    few = [molecule(name) for name in ("H2O", "CH4", "C2H4", "CH3OH", "C6H6", "CO2")]
    few += [bilayer(seed, 3.0), bulk("C")]
    for atoms in few:
        atoms.rattle(0.05, rng=rng)
    pairs = [pairs_of(few[n]) for n in rng.permutation(len(few))]
    first, second, both = Coverage.of(pairs[:4]), Coverage.of(pairs[4:]), Coverage.of(pairs)
    assert both not in (first, second)
    assert first.union(second) == second.union(first) == both
    assert first.union(both) == both
    assert first.union(replace(second, atom_bonds=None)) == replace(both, atom_bonds=None)


def test_it_survives_json(bilayers):
    assert Coverage.from_dict(json.loads(json.dumps(bilayers.to_dict()))) == bilayers


def test_the_pairs_of_a_molecule_or_of_nothing_do_no_harm():
    assert Coverage.of([]).outside(pairs_of(molecule("C60"))) == []
    assert Coverage.of([pairs_of(molecule("C60"))]).outside(pairs_of(Atoms())) == []


class TestOfAModel:
    @pytest.fixture
    def model(self, tmp_path, bilayers) -> TrainedModel:
        """Loaded from a checkpoint that knows bilayers."""
        cascade = network(CARBON, config("3x0e+2x1o+1x2e", updates=1, width=2))
        coverage = Coverage.of(PairList.from_atoms(bilayer(s, 3.4), CARBON.cutoffs()) for s in range(3))
        object.__setattr__(cascade.domain, "coverage", coverage)
        save_model(tmp_path / "m.hham", TrainedModel(cascade))
        return load_model(tmp_path / "m.hham", "cpu")

    def test_it_warns_in_one_line_and_once(self, model, caplog):
        with caplog.at_level(logging.WARNING, "ase_hybridham"):
            model.predict(bilayer(1, 3.4))
            assert not caplog.messages
            model.predict(bulk("C"))
            model.predict(bulk("C"))
        (message,) = caplog.messages
        assert message.startswith("model: not trained for C-C at 1.55 A (atoms 0 and 1), where none is between 1.4")
        assert message.endswith(", and 4 more; expect larger errors (said once)")

    def test_one_can_ask(self, model):
        assert model.outside(bilayer(1, 3.4)) == []
        assert any("4 bonds" in line for line in model.outside(bulk("C")))

    def test_a_checkpoint_without_it_says_nothing(self, caplog):
        model = TrainedModel(network())
        model.predict(structure(MIXED, 3))
        assert model.outside(structure(MIXED, 3)) == []
        assert not caplog.messages
