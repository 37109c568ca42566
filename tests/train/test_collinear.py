"""Training on collinear spin: one network, two operators."""

import csv
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ase_hybridham import HybridHamCalculator
from ase_hybridham.model import Cascade, ModelConfig, load_model
from ase_hybridham.solve import eigenvalues
from ase_hybridham.store import DataSet, append_systems, set_splits
from ase_hybridham.system import LCAOSystem
from ase_hybridham.train import TrainConfig, evaluate, evaluate_system, hamiltonian_error, majority_up, train
from ase_hybridham.train.data import domain_of, graphs_of
from ase_hybridham.train.phase import Phase, stage1_task
from tests.train.synthetic import BASIS, OPTIONS, SPLITS, atoms_of, system_of, write_data_set

SHORT = {"epochs": 25, "learning_rate": 2e-2, "warmup_steps": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data_set(tmp_path_factory.mktemp("collinear") / "spins.h5", spin="collinear")


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    config = TrainConfig(data=data, output=data.parent / "run", **OPTIONS | {"phase1": SHORT, "phase2": SHORT})
    train(config, progress=False)
    return data.parent / "run"


def exchanged(system: LCAOSystem) -> LCAOSystem:
    return replace(system, hamiltonian=system.hamiltonian[::-1])


def compensated(system: LCAOSystem) -> LCAOSystem:
    """The same mean, and moments of the two carbon atoms that cancel."""
    up, down = system.hamiltonian
    mean = 0.5 * (up + down)
    field = 0.0 * mean
    for p, sign in ((0, 1.0), (1, -1.0)):
        field.block(p)[:] = sign * np.eye(4)
    return replace(system, hamiltonian=(mean + field, mean - field))


def test_both_stages_lower_the_errors_of_operators_and_splitting(run, data):
    rows = list(csv.DictReader((run / "log.csv").read_text().splitlines()))
    for phase in ("phase1", "phase2"):
        errors = [float(row["train_mae_meV"]) for row in rows if row["phase"] == phase]
        assert errors[-1] < 0.95 * errors[0]
    with DataSet(data) as content:
        model = load_model(run / "model.hham", "cpu")
        found, known = evaluate(model, content, SPLITS["test"]), evaluate(model, content, SPLITS["train"])
    assert model.spin == "collinear"
    # three structures are few to learn from, so the test set is asked for little
    assert found.mae_all("stage1") < 0.9 * found.mae_all("mean")
    assert known.mae_all("hybrid") < 0.6 * known.mae_all("mean")
    assert known.mean_of("hybrid", "splitting_mae") < 0.6 * known.mean_of("mean", "splitting_mae")
    assert known.band_mean("hybrid", aligned=True) < 0.8 * known.band_mean("mean", aligned=True)
    # values of some eV in float64, in meV
    assert found.rotation_meV < 1e-9
    assert found.to_dict()["splitting_mae_meV"].keys() == {"mean", "stage1", "hybrid"}


def test_error_of_a_phase_is_that_of_the_metrics(data):
    """Both operators count alike."""
    with DataSet(data) as content:
        cascade = Cascade(ModelConfig(**OPTIONS["model"], dtype="float64"), domain_of(content, SPLITS["train"]))
        graphs, valid = (graphs_of(content, SPLITS[split], cascade) for split in ("train", "val"))
        cascade.scale1.fit(graphs)
        options = TrainConfig(data=data, **OPTIONS).phase1
        phase = Phase(options, cascade.stage1, stage1_task(cascade), cascade, graphs, valid, seed=0)
        reference = content["d"].hamiltonian
        expected = hamiltonian_error(cascade.hamiltonian(reference[0].pairs), reference)
    assert phase.error() == pytest.approx(expected.mae, rel=1e-10)


def test_errors_are_means_over_both_spins():
    system = system_of(atoms_of(0), spin="collinear")
    up, down = system.hamiltonian
    noise = np.random.default_rng(0).normal(size=(2, *up.values.shape))
    predicted = (up.with_values(up.values + noise[0]), down.with_values(down.values + 0.1 * noise[1]))
    error = hamiltonian_error(predicted, system.hamiltonian, system.overlap)
    assert error.mae == pytest.approx(500 * (np.abs(noise[0]).mean() + 0.1 * np.abs(noise[1]).mean()))
    assert error.splitting_mae == pytest.approx(1e3 * np.abs(noise[0] - 0.1 * noise[1]).mean())
    assert hamiltonian_error(up, down).splitting_mae is None
    # a shift of both is a gauge, of one of them it is physics
    S = system.overlap
    shifted = hamiltonian_error((up + 0.3 * S, down + 0.3 * S), (up, down), S)
    assert (shifted.gauge_free_mae, shifted.shift) == (pytest.approx(0, abs=1e-9), pytest.approx(300))
    split = hamiltonian_error((up + 0.3 * S, down), (up, down), S)
    assert (split.shift, split.gauge_free_mae) == (pytest.approx(150), pytest.approx(split.mae))


class TestMajority:
    """Which of the two spins is called up is no physics; the network needs one convention."""

    def test_up_is_the_spin_of_the_lower_levels(self):
        system = system_of(atoms_of(0), spin="collinear")
        for given in (system, replace(system, overlap=None)):
            assert majority_up(given) is given
            turned = majority_up(exchanged(given))
            assert turned.hamiltonian == given.hamiltonian
        levels = eigenvalues(system, [[0, 0, 0]])
        assert levels[0].sum() < levels[1].sum()
        none = compensated(system)
        assert majority_up(none) is none
        spinless = system_of(atoms_of(0))
        assert majority_up(spinless) is spinless

    def test_exchanged_spins_train_and_evaluate_the_same(self, data, tmp_path, caplog):
        with DataSet(data) as content:
            systems = {name: content[name] for name in content}
        mixed = [(n, exchanged(s) if n in "bf" else s) for n, s in systems.items()]
        append_systems(tmp_path / "mixed.h5", mixed)
        set_splits(tmp_path / "mixed.h5", SPLITS)
        with DataSet(data) as one, DataSet(tmp_path / "mixed.h5") as other, caplog.at_level(logging.INFO):
            cascade = Cascade(ModelConfig(**OPTIONS["model"]), domain_of(other, SPLITS["train"]))
            assert "up is the minority in 1 of 3 structures" in caplog.text
            for g, h in zip(
                graphs_of(one, SPLITS["train"], cascade), graphs_of(other, SPLITS["train"], cascade), strict=True
            ):
                np.testing.assert_array_equal(g.edge_target, h.edge_target)
                np.testing.assert_array_equal(g.node_target, h.node_target)

    def test_evaluation_follows_the_convention(self, run, data):
        model = load_model(run / "model.hham", "cpu")
        with DataSet(data) as content:
            system = content["e"]
        first, second = (evaluate_system(model, s, "e") for s in (system, exchanged(system)))
        assert first.hamiltonian == second.hamiltonian
        assert first.bands == second.bands

    def test_moments_that_cancel_are_told(self, data, tmp_path, caplog):
        with DataSet(data) as content:
            append_systems(tmp_path / "d.h5", [("a", content["a"]), ("b", compensated(content["b"]))])
        with DataSet(tmp_path / "d.h5") as content:
            domain_of(content, ["a"])
            assert not caplog.records
            domain_of(content, ["a", "b"])
        assert "in 1 of 2 structures the moments cancel (b, ...)" in caplog.text


def test_bands_of_the_calculator(run):
    """One electron a state, both spins filled to one level."""
    model, reference = load_model(run / "model.hham", "cpu"), system_of(atoms_of(3), spin="collinear")
    atoms = reference.atoms.copy()
    atoms.calc = HybridHamCalculator(model, overlap=reference.overlap, kpts=(3, 2, 1))
    system = atoms.calc.get_system()
    assert (system.spin, system.electrons) == ("collinear", BASIS.electrons(atoms.numbers))
    for found, expected in zip(system.hamiltonian, model.hamiltonian(atoms), strict=True):
        np.testing.assert_array_equal(found.values, expected.values)
    assert atoms.calc.get_number_of_spins() == 2
    assert np.abs(system.hamiltonian[0].values - system.hamiltonian[1].values).max() > 0.05
