"""Collinear spin by the command line: triplet molecules from PySCF, from training to bands."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ase_hybridham import cli
from ase_hybridham.model import load_model
from ase_hybridham.solve import eigenvalues
from ase_hybridham.store import DataSet, set_splits

TRAINING = """
model:
  stage1: {irreps: 12x0e+8x1o+6x2e+3x3o+2x4e, n_blocks: 1, n_gaussians: 16, radial_width: 8}
  stage2: {width: 8, n_groups: 1, n_blocks: 1, n_heads: 2, readout_channels: 4}
phase1: {epochs: 10, learning_rate: 0.03, warmup_steps: 5}
phase2: {epochs: 1, learning_rate: 0.005, warmup_steps: 10}
"""
MOLECULE = "ch2-03"


@pytest.fixture(scope="module")
def data(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The triplets, few of them for training."""
    path = tmp_path_factory.mktemp("data") / "triplets.h5"
    shutil.copy(golden / "pyscf/triplets.h5", path)
    train = [f"ch2-{n:02d}" for n in (0, 1, 2, 4, 5, 6, 8)]
    set_splits(path, {"train": train, "val": ["ch2-07"], "test": [MOLECULE]})
    return path


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triplets")
    (folder / "train.yaml").write_text(f"data: {data}\noutput: {folder / 'run'}\n{TRAINING}")
    assert cli.main(["train", str(folder / "train.yaml")]) == 0
    return folder / "run/model.hham"


def test_the_data_are_triplets_with_up_as_the_majority(data):
    """Two electrons more up than down, in an unrestricted calculation of real molecules."""
    with DataSet(data) as content:
        assert content.spin == "collinear"
        for name in ("o2-00", MOLECULE):
            system = content[name]
            filled = (eigenvalues(system, [[0, 0, 0]])[:, 0] < system.fermi_level).sum(axis=1)
            assert filled[0] - filled[1] == 2
            assert filled.sum() == system.electrons


def test_errors_of_operators_and_splitting(command_line: Callable, model, data):
    status, out, _ = command_line("evaluate", model, data, "--json")
    result = json.loads(out)
    assert status == 0
    for key in ("mae_all_meV", "splitting_mae_meV"):
        # seconds of training
        assert result[key]["hybrid"] < 0.5 * result[key]["mean"]
    assert result["splitting_mae_meV"]["mean"] > 10
    # of some tens of eV, in float64
    assert result["rotation_meV"] < 1e-8
    status, out, _ = command_line("evaluate", model, data, "--no-bands")
    assert status == 0
    assert "spin splitting" in out


def test_predicted_operators_are_written_and_have_two_sets_of_bands(command_line: Callable, model, data, tmp_path):
    status, out, _ = command_line("predict", model, f"{data}:{MOLECULE}", "-o", tmp_path / "p.h5", "--json")
    assert (status, json.loads(out)["spin"]) == (0, "collinear")
    with DataSet(tmp_path / "p.h5") as written, DataSet(data) as content:
        system, reference = written[MOLECULE], content[MOLECULE]
    expected = load_model(model, "cpu").hamiltonian(reference.atoms, reference.pairs)
    for found, h in zip(system.hamiltonian, expected, strict=True):
        np.testing.assert_allclose(found.values, h.values, atol=1e-12)
    words = ("bands", f"{tmp_path}/p.h5:{MOLECULE}", "--reference", f"{data}:{MOLECULE}", "--json")
    status, out, _ = command_line(*words, "-o", tmp_path / "bands.png")
    result = json.loads(out)
    assert status == 0
    levels = np.array(result["eigenvalues_eV"])
    np.testing.assert_allclose(levels, eigenvalues(system, [[0, 0, 0]]), atol=1e-9)
    assert levels.shape == (2, 1, 23)
    assert result["states"] == 46
    assert result["reference"]["mean_eV"] == pytest.approx(
        np.abs(levels - eigenvalues(reference, [[0, 0, 0]])).mean(), rel=1e-6
    )
    assert (tmp_path / "bands.png").stat().st_size > 5000


def test_bands_of_a_checkpoint(command_line: Callable, model, data, tmp_path, monkeypatch):
    """S comes from the Gaussians in the checkpoint; the summary says how many spins there are."""
    pytest.importorskip("pyscf")
    monkeypatch.chdir(tmp_path)
    with DataSet(data) as content:
        content.atoms(MOLECULE).write("molecule.xyz")
    status, out, _ = command_line("bands", model, "molecule.xyz")
    assert status == 0
    assert "23 bands x 2 spins at 1 k-points" in out


def test_info_and_refusals_are_one_line(command_line: Callable, model, data, tmp_path):
    status, out, _ = command_line("info", model)
    assert (status, "spin collinear" in out) == (0, True)
    folder = tmp_path / "folder"
    with DataSet(data) as content:
        boxed = content.atoms(MOLECULE)
    boxed.set_cell([12, 12, 12])
    boxed.write(tmp_path / "boxed.json")
    status, out, err = command_line("predict", model, tmp_path / "boxed.json", "--format", "deeph", "-o", folder)
    assert (status, out, folder.exists()) == (2, "", False)
    assert err.count("\n") == 1
    assert "cannot hold the collinear spin" in err
