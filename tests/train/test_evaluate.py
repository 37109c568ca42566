"""The figures of an evaluation are those of the metrics, structure by structure."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ase_hybridham.errors import CheckpointError, FormatError
from ase_hybridham.model import Ensemble, TrainedModel, load_model
from ase_hybridham.solve import PREDICTED_THRESHOLD, band_error, band_path, eigenvalues, fermi_level
from ase_hybridham.store import DataSet
from ase_hybridham.symmetry import rotate_blocks, rotate_system
from ase_hybridham.system import AtomBasis, Basis
from ase_hybridham.train import evaluate, hamiltonian_error
from ase_hybridham.train.evaluate import evaluate_system
from ase_hybridham.train.report import distance_entries, orbital_entries
from ase_hybridham.train.rotations import rotation_error
from ase_hybridham.train.spectra import DENSITY, ReferenceSpectrum
from tests.model.networks import config, network, random_hamiltonian
from tests.train.synthetic import BASIS, SPLITS, atoms_of, spinful, system_of

STAGES = ["mean", "stage1", "hybrid"]
IRREPS = "4x0e+3x1o+2x2e"


@pytest.fixture(scope="module")
def model(run) -> TrainedModel:
    return load_model(run / "model.hham", "cpu")


@pytest.fixture
def data(data_set):
    with DataSet(data_set) as data:
        yield data


def test_errors_are_those_of_the_metrics(model, data):
    found = evaluate(model, data, SPLITS["test"], window=3.0)
    by_hand = {stage: [] for stage in STAGES}
    for row, name in zip(found.structures, SPLITS["test"], strict=True):
        system = data[name]
        assert row.name == name
        for stage in STAGES:
            predicted = model.predict(system.atoms, system.pairs, stage)
            error = hamiltonian_error(predicted, system.hamiltonian[0], system.overlap)
            assert row.hamiltonian[stage] == error
            by_hand[stage].append(error)
    assert found.stages == STAGES
    for stage, errors in by_hand.items():
        assert found.mae_all(stage) == pytest.approx(np.mean([e.mae for e in errors]))
        assert found.mae_cha(stage) == max(e.mae for e in errors)
        assert found.mean_of(stage, "onsite_mae") == pytest.approx(np.mean([e.onsite_mae for e in errors]))
    assert found.mae_all("hybrid") < found.mae_all("stage1") < found.mae_all("mean")


@pytest.mark.parametrize("threshold", [PREDICTED_THRESHOLD, 0.95])  # the second leaves out a few directions of S
def test_bands_are_compared_with_the_overlap_of_the_reference(model, data, monkeypatch, threshold):
    monkeypatch.setattr(sys.modules[ReferenceSpectrum.__module__], "PREDICTED_THRESHOLD", threshold)
    found = evaluate(model, data, ["e"], window=3.0)
    system = data["e"]
    k_points = band_path(system.atoms, npoints=24).kpts
    predicted = model.predict(system.atoms, system.pairs)
    other = replace(system, hamiltonian=(system.hamiltonian[0].with_values(predicted.values),))
    expected = band_error(
        eigenvalues(system, k_points),
        eigenvalues(other, k_points, overlap_threshold=threshold),
        reference_level=fermi_level(system, density=DENSITY),
        predicted_level=fermi_level(other, density=DENSITY, overlap_threshold=threshold),
        window=3.0,
    )
    assert found.structures[0].bands["hybrid"] == expected
    assert found.band_mean("hybrid") == pytest.approx(1000 * expected.mean)
    assert found.band_mean("hybrid", aligned=True) == pytest.approx(1000 * expected.aligned[1])
    assert expected.n_states > 10
    assert evaluate(model, data, ["e"], bands=False).band_mean("hybrid") is None


def test_keys(model, data):
    result = evaluate(model, data, SPLITS["test"]).to_dict()
    assert [entry["name"] for entry in result["structures"]] == SPLITS["test"]
    for key in ("mae_all_meV", "mae_cha_meV"):
        assert list(result[key]) == STAGES
        assert all(value > 0 for value in result[key].values())
    assert result["mae_all_meV"]["hybrid"] == evaluate(model, data, SPLITS["test"], bands=False).mae_all("hybrid")
    assert 0 <= result["rotation_meV"] < 1e-5
    assert result["structures"][0]["hamiltonian"]["stage1"]["mae_meV"] > 0
    assert 0 <= result["structures"][0]["hermiticity_meV"] < 1e-8


def test_the_heat_map_adds_up_and_the_worst_block_is_the_worst(model, data):
    found = evaluate(model, data, SPLITS["test"], bands=False)
    for stage in STAGES:
        entries = orbital_entries(found.orbital_map(stage))
        total = sum(entry["share"] * np.mean(entry["orbital_mae_meV"]) for entry in entries)
        assert total == pytest.approx(found.mae_all(stage), rel=1e-12)
        assert {(entry["pair"], entry["kind"]) for entry in entries} >= {("C-C", "onsite"), ("C-H", "hopping")}
        rms = {}
        for name in SPLITS["test"]:
            system = data[name]
            error = system.hamiltonian[0] - model.predict(system.atoms, system.pairs, stage)
            for p in range(len(system.pairs)):
                key = (name, int(system.pairs.i[p]), int(system.pairs.j[p]), *system.pairs.shifts[p].tolist())
                rms[key] = 1000 * np.sqrt((error.block(p) ** 2).mean())
        worst = found.worst(stage)
        assert worst.rms == pytest.approx(max(rms.values()))
        assert rms[worst.structure, *worst.atoms, *worst.shift] == pytest.approx(worst.rms)
        elements = sum(row["elements"] * row["mae_meV"] for row in distance_entries(found.decay(stage)))
        n_values = sum(len(data[name].hamiltonian[0].values) for name in SPLITS["test"])
        weighted = [found.structures[n].hamiltonian[stage].mae for n in range(2)]
        sizes = [len(data[name].hamiltonian[0].values) for name in SPLITS["test"]]
        assert elements / n_values == pytest.approx(np.average(weighted, weights=sizes))


def figures(model, system, k_points=((0.1, 0.2, 0), (0.3, 0.4, 0))) -> dict[str, float]:
    """What is told of one structure."""
    row = evaluate_system(model, system, "x", window=4.0, k_points=np.array(k_points))
    error, band, worst = row.hamiltonian["hybrid"], row.bands["hybrid"], row.worst["hybrid"]
    return {
        "mae": error.mae,
        "onsite": error.onsite_mae,
        "gauge_free": error.gauge_free_mae,
        "map": row.maps["hybrid"].mean(),
        "rms": error.rms,
        "shift": error.shift,
        "worst": worst.rms,
        "reference": worst.reference_rms,
        "fermi": row.levels["hybrid"].fermi,
        "band": band.mean,
        "spread": row.spreads["gauge_free"].spread.structure,
        "spread_error": row.spreads["gauge_free"].error,
    }


@pytest.fixture(scope="module")
def pair(model) -> Ensemble:
    """The trained network, and one with other weights."""
    return Ensemble([model, TrainedModel(network(BASIS, config(IRREPS, updates=1)))])


@pytest.mark.parametrize("seed", [0, 1])
def test_errors_do_not_know_the_order_of_atoms_nor_how_they_turn(pair, seed):
    rng, atoms = np.random.default_rng(seed), atoms_of(seed)
    here = figures(pair, system_of(atoms))
    permuted = figures(pair, system_of(atoms[rng.permutation(len(atoms))]))
    assert permuted == pytest.approx(here, rel=1e-6)
    turned = atoms.copy()
    Q = Rotation.random(rng=rng).as_matrix()
    turned.set_cell(atoms.cell.array @ Q.T, scale_atoms=True)
    there = figures(pair, system_of(turned))
    of_axes = {"mae", "onsite", "gauge_free", "map"}  # mean absolute elements depend on the axes
    assert {k: v for k, v in there.items() if k not in of_axes} == pytest.approx(
        {k: v for k, v in here.items() if k not in of_axes}, rel=1e-6
    )
    assert there["mae"] != pytest.approx(here["mae"], rel=1e-3)


def test_a_supercell_has_the_same_errors(pair):
    atoms = atoms_of(2)
    large = atoms.repeat((2, 1, 1))
    here, there = figures(pair, system_of(atoms)), figures(pair, system_of(large))
    meshes = {"fermi", "band"}  # of other k-points
    assert {k: v for k, v in there.items() if k not in meshes} == pytest.approx(
        {k: v for k, v in here.items() if k not in meshes}, rel=1e-6
    )


def test_an_ensemble_is_judged_by_its_mean(pair, data):
    found = evaluate(pair, data, SPLITS["test"], bands=False)
    alone = [evaluate(model, data, SPLITS["test"], bands=False).mae_all("hybrid") for model in pair.models]
    assert found.members() == pytest.approx(alone)
    for row, name in zip(found.structures, SPLITS["test"], strict=True):
        system = data[name]
        expected = hamiltonian_error(pair.predict(system.atoms, system.pairs), system.hamiltonian, system.overlap)
        assert row.hamiltonian["hybrid"].mae == pytest.approx(expected.mae)
        spread = pair.spread(system.atoms, system.pairs)
        np.testing.assert_allclose(row.spreads["raw"].spread.blocks, spread.blocks)
        assert row.spreads["raw"].error == pytest.approx(expected.rms)
    report = found.spreads()
    assert set(report) == {"raw", "gauge_free"}
    assert report["raw"].blocks.n == sum(len(data[name].pairs) for name in SPLITS["test"])
    assert evaluate(pair.models[0], data, ["e"], bands=False).spreads() == {}


def test_rotations_are_averaged_where_they_matter(model, data):
    assert evaluate(model, data, ["e"], bands=False, rotations=2).rotations == ()
    turning = TrainedModel(network(BASIS, config(IRREPS, frame="global", updates=1)))
    found = evaluate(turning, data, ["e"], bands=False, rotations=2)
    assert [row.rotations for row in found.rotations] == [1, 2]
    assert found.rotations[0].mae_all == pytest.approx(found.mae_all("hybrid"))


def test_stage1_alone(model, data):
    only = TrainedModel(network(BASIS, config(IRREPS)))
    only.cascade.has_stage2.fill_(False)
    result = evaluate(only, data, ["e"], bands=False)
    assert result.stages == ["mean", "stage1"]
    assert "hybrid" not in result.to_dict()["mae_all_meV"]


@pytest.mark.parametrize("frame", ["edge", "global"])
def test_rotation_error_is_measured(frame, data):
    """Of the frame that is not equivariant it is no rounding error."""
    model = TrainedModel(network(BASIS, config(IRREPS, frame=frame)))
    system = data["a"]
    error = rotation_error(model, system, seed=4)
    Q = Rotation.random(rng=np.random.default_rng(4)).as_matrix()
    turned = rotate_system(system, Q)
    difference = model.cascade.predict(turned.pairs).values
    difference = difference - rotate_blocks(model.cascade.predict(system.pairs), Q).values
    assert error == pytest.approx(1000 * np.abs(difference).max(), abs=1e-8)
    assert error < 1e-8 if frame == "edge" else error > 1.0


def test_without_overlap_bands_and_gauge_are_left_out(model):
    row = evaluate_system(model, replace(system_of(atoms_of(3)), overlap=None), "x")
    assert row.bands == {}
    assert row.hamiltonian["hybrid"].gauge_free_mae is None
    assert row.hamiltonian["hybrid"].mae > 0


def test_what_does_not_fit_is_refused(model, data):
    atoms = atoms_of(0)
    with pytest.raises(CheckpointError, match="x: expected a Hamiltonian of spin 'none', got spin 'spinor'"):
        evaluate_system(model, spinful(system_of(atoms)), "x")
    other = Basis.of(AtomBasis.from_degrees("C", [0, 1, 1], cutoff=1.6), AtomBasis.from_degrees("H", [0], cutoff=1.2))
    system = replace(system_of(atoms), hamiltonian=(random_hamiltonian(atoms, other),), overlap=None)
    with pytest.raises(CheckpointError, match="x: its orbitals are not those"):
        evaluate_system(model, system, "x")
    atoms.numbers[0] = 14
    silicon = Basis.of(*BASIS.atoms.values(), AtomBasis.from_degrees("Si", [0, 1], cutoff=1.6))
    system = replace(
        system_of(atoms_of(0)), atoms=atoms, hamiltonian=(random_hamiltonian(atoms, silicon),), overlap=None
    )
    with pytest.raises(CheckpointError, match="trained for H, C, the structure has Si"):
        evaluate_system(model, system, "x")
    broken = system_of(atoms_of(0))
    broken.hamiltonian[0].values[3] = np.nan
    with pytest.raises(FormatError, match="x: its Hamiltonian or overlap is not finite"):
        evaluate_system(model, broken, "x")
    with pytest.raises(ValueError, match="no structure to evaluate on"):
        evaluate(model, data, [])
