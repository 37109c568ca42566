"""hybridham evaluate: a table, or JSON with the keys that scripts rely on."""

import json

import numpy as np
import pytest

from ase_hybridham.model import load_model
from ase_hybridham.store import DataSet
from ase_hybridham.train import evaluate
from tests.train.synthetic import SPLITS


@pytest.fixture(scope="module")
def expected(workplace):
    with DataSet(workplace / "data.h5") as data:
        return evaluate(load_model(workplace / "run/model.hham", "cpu"), data, SPLITS["test"])


def test_json(command_line, workplace, expected):
    status, out, _ = command_line("evaluate", workplace / "run/model.hham", workplace / "data.h5", "--json")
    result = json.loads(out)
    assert status == 0
    assert [entry["name"] for entry in result["structures"]] == SPLITS["test"]
    assert result["mae_all_meV"]["stage1"] == expected.mae_all("stage1")
    assert result["mae_all_meV"]["hybrid"] == expected.mae_all("hybrid")
    assert result["mae_cha_meV"]["hybrid"] == expected.mae_cha("hybrid")
    assert 0 <= result["rotation_meV"] < 1e-5
    of_structures = [entry["hamiltonian"]["hybrid"]["mae_meV"] for entry in result["structures"]]
    assert np.mean(of_structures) == pytest.approx(result["mae_all_meV"]["hybrid"])
    assert max(of_structures) == result["mae_cha_meV"]["hybrid"]


def test_table(command_line, workplace, expected):
    status, out, _ = command_line("evaluate", workplace / "run/model.hham", workplace / "data.h5", "--device", "cpu")
    assert status == 0
    assert out.startswith("2 structures, errors in meV; bands within 2 eV of E_F\n")
    assert [word for word in ("training mean", "stage 1", "hybrid") if word in out.splitlines()[1]]
    row = next(line for line in out.splitlines() if "MAE all" in line)
    figures = [f"{expected.mae_all(stage):.3f}" for stage in ("mean", "stage1", "hybrid")]
    assert row.split()[2:] == figures
    assert "bands, aligned" in out
    assert "rotation error" in out.splitlines()[-1]


def test_options(command_line, workplace):
    words = ["evaluate", workplace / "run/model.hham", workplace / "data.h5", "--json"]
    everything = json.loads(command_line(*words, "--split", "all", "--no-bands")[1])
    assert [entry["name"] for entry in everything["structures"]] == list("abcdef")
    assert everything["structures"][0]["bands_eV"] == {}
    assert everything["band_mean_meV"]["hybrid"] is None
    narrow = json.loads(command_line(*words, "--split", "val", "--window", "0.7")[1])
    assert [entry["name"] for entry in narrow["structures"]] == SPLITS["val"]
    assert narrow["window_eV"] == 0.7


def test_no_bands_in_the_table(command_line, workplace):
    status, out, _ = command_line("evaluate", workplace / "run/model.hham", workplace / "data.h5", "--no-bands")
    assert status == 0
    assert "bands, aligned" not in out


def test_named_model(command_line, workplace, monkeypatch):
    monkeypatch.setenv("HYBRIDHAM_MODELS", str(workplace / "run"))
    assert command_line("evaluate", "model", workplace / "data.h5", "--no-bands")[0] == 0
