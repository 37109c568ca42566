"""Mean and spread of several networks."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ase_hybridham.calculator import HybridHamCalculator
from ase_hybridham.errors import CheckpointError
from ase_hybridham.model import Ensemble, TrainedModel
from ase_hybridham.model.ensemble import spread_of
from ase_hybridham.solve import band_errors
from ase_hybridham.system import LCAOSystem, PairBlocks, PairList
from tests.model.networks import CARBON, MIXED, config, network, random_hamiltonian, structure, turned, turned_pairs

ATOMS = structure(MIXED, 3)
PAIRS = PairList.from_atoms(ATOMS, MIXED.cutoffs())
SMALL = config("4x0e+3x1o+2x2e+1x3o+1x4e", updates=1)


@pytest.fixture(scope="module")
def models() -> list[TrainedModel]:
    return [TrainedModel(network(MIXED, SMALL, seed=seed), "vacuum", {"code": "x", "seed": seed}) for seed in range(3)]


def predictions(models, atoms=ATOMS, pairs=PAIRS) -> np.ndarray:
    return np.array([model.predict(atoms, pairs).values for model in models])


@pytest.mark.parametrize("stage", ["stage1", None])
def test_the_mean_is_predicted(models, stage):
    found = Ensemble(models).hamiltonian(ATOMS, stage=stage)[0]
    expected = [model.predict(ATOMS, PAIRS, stage).values for model in models]
    np.testing.assert_allclose(found.values, np.mean(expected, axis=0), atol=1e-12)
    assert found.hermiticity_error() < 1e-12
    assert np.abs(expected[0] - expected[1]).max() > 0.1


def test_spread_is_that_of_a_loop(models):
    H = predictions(models)
    deviation = H.std(axis=0, ddof=1)
    found = Ensemble(models).spread(ATOMS)
    blocks = models[0].predict(ATOMS, PAIRS).with_values(deviation)
    expected = [np.sqrt((blocks.block(p) ** 2).mean()) for p in range(len(PAIRS))]
    np.testing.assert_allclose(found.blocks, expected, rtol=1e-9)
    assert found.structure == pytest.approx(np.sqrt((deviation**2).mean()), rel=1e-9)


def test_real_and_imaginary_parts_count_separately():
    reference = random_hamiltonian(ATOMS, MIXED, spinor=True)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, len(reference.values)))
    others = [reference, reference.with_values(reference.values + 2 * noise[0] + 1j * noise[1])]
    # two numbers a and b have the standard deviation |a - b| / sqrt 2
    expected = np.sqrt((4 * (noise[0] ** 2).mean() + (noise[1] ** 2).mean()) / 2 / 2)
    assert spread_of([[h] for h in others]).structure == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(2))
def test_spread_does_not_turn_and_does_not_know_the_order_of_atoms(models, seed):
    ensemble, rng = Ensemble(models), np.random.default_rng(seed)
    here = ensemble.spread(ATOMS, PAIRS)
    Q = Rotation.random(rng=rng).as_matrix()
    there = ensemble.spread(turned(ATOMS, Q), turned_pairs(ATOMS, PAIRS, Q))
    np.testing.assert_allclose(there.blocks, here.blocks, rtol=1e-8)
    order = rng.permutation(len(ATOMS))
    permuted = ensemble.spread(ATOMS[order])
    np.testing.assert_allclose(np.sort(permuted.blocks), np.sort(here.blocks), rtol=1e-8)
    assert permuted.structure == pytest.approx(here.structure, rel=1e-9)
    assert here.blocks.std() > 0.1 * here.structure  # blocks differ


def test_a_shift_of_all_levels_is_no_spread(models):
    S, blocks = random_hamiltonian(ATOMS, MIXED, 1), random_hamiltonian(ATOMS, MIXED, 0)
    members = [[blocks.with_values(blocks.values + mu * S.values)] for mu in (-0.3, 0.1, 0.7)]
    assert spread_of(members).structure > 0.5
    assert spread_of(members, S).structure < 1e-12
    there = Ensemble(models).spread(ATOMS, PAIRS, overlap=S)
    assert there.structure < Ensemble(models).spread(ATOMS, PAIRS).structure


def test_up_and_down_count_alike():
    h, zero = random_hamiltonian(ATOMS, MIXED, 0), random_hamiltonian(ATOMS, MIXED, 1)
    alone = spread_of([[h], [zero]]).structure
    assert spread_of([[h, h], [zero, h]]).structure == pytest.approx(alone / np.sqrt(2))


def test_what_all_members_share_is_known(models):
    ensemble = Ensemble(models)
    assert ensemble.provenance == {"code": "x"}
    assert ensemble.potential_reference == "vacuum"
    assert (len(ensemble), ensemble.spin, ensemble.stages) == (3, "none", ("mean", "stage1", "hybrid"))
    other = Ensemble([models[0], replace(models[1], potential_reference="openmx")])
    assert other.potential_reference == "unknown"


def test_a_calculator_takes_an_ensemble(models):
    ensemble = Ensemble(models)
    calculator = HybridHamCalculator(ensemble, overlap=lambda atoms, basis, pairs: unit(atoms), atoms=ATOMS)
    assert np.array_equal(calculator.get_system().hamiltonian[0].values, ensemble.predict(ATOMS, PAIRS).values)


def unit(atoms):
    zero = 0.0 * random_hamiltonian(atoms, MIXED)
    for p in range(len(atoms)):
        zero.block(p)[:] = np.eye(zero.shape(p)[0])
    return zero


def test_what_does_not_fit_together_is_refused(models):
    with pytest.raises(ValueError, match="expected one model or more, got none"):
        Ensemble([])
    with pytest.raises(ValueError, match="ensemble of two models or more, got one"):
        Ensemble(models[:1]).spread(ATOMS)
    with pytest.raises(CheckpointError, match=r"model 1 has elements \['C', 'Mo', 'S'\], model 2 \['C'\]"):
        Ensemble([models[0], TrainedModel(network(CARBON, SMALL))])
    alone = TrainedModel(network(MIXED, SMALL))
    alone.cascade.has_stage2.fill_(False)
    with pytest.raises(CheckpointError, match="model 1 has a second stage True, model 3 False"):
        Ensemble([*models[:2], alone])


def test_deviations_are_from_the_mean_and_equal_members_have_no_error_bars(models):
    hamiltonian = Ensemble(models).hamiltonian(ATOMS, PAIRS)
    overlap = PairBlocks.zeros(PAIRS, hamiltonian[0].basis)
    for atom in range(PAIRS.n_atoms):
        overlap.block(atom)[:] = np.eye(overlap.shape(atom)[0])
    system = LCAOSystem(ATOMS, hamiltonian, overlap, fermi_level=0.0)
    found = Ensemble(models).deviations(system)
    expected = predictions(models) - hamiltonian[0].values
    np.testing.assert_allclose([dh.values for (dh,) in found], expected, atol=1e-12)
    k = [[0.1, 0.2, 0.3]]
    assert band_errors(system, k, found).widths.max() > 1e-3
    equal = Ensemble([models[0], models[0]]).deviations(system)
    assert not band_errors(system, k, equal).widths.any()
