"""hybridham evaluate: a table, or JSON with the keys that scripts rely on."""

import json

import numpy as np
import pytest

from ase_hybridham.model import load_model
from ase_hybridham.store import DataSet, set_splits
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


def test_the_table_fits_on_a_screen_and_tells_where_errors_are(command_line, workplace, expected):
    words = ["evaluate", workplace / "run/model.hham", workplace / "data.h5", "--noise", "0.5"]
    lines = command_line(*words)[1].splitlines()
    assert len(lines) < 32
    assert max(map(len, lines)) < 120
    text = "\n".join(lines)
    worst = expected.worst("hybrid")
    assert f"worst block: {worst.structure} " in text
    assert f"rms {worst.rms:.3g} of {worst.reference_rms:.0f}" in text
    assert "label noise 0.5 meV (--noise): no network errs less" in text
    entries = expected.to_dict()["orbitals"]["hybrid"]
    largest = max(max(map(max, entry["shell_mae_meV"])) for entry in entries)
    first = lines[next(n for n, line in enumerate(lines) if "largest MAE by shells" in line) + 1]
    assert first.split()[-1] == f"{largest:.3f}"
    assert float(first.split()[-2]) > 0  # stage 1 beside
    distances = lines[next(n for n, line in enumerate(lines) if "distance, A" in line) + 1]
    assert distances.split()[1] == f"{expected.decay('hybrid').rows()[0].mean:.3f}"


def test_an_ensemble(command_line, workplace, expected):
    model = workplace / "run/model.hham"
    status, out, _ = command_line("evaluate", model, model, workplace / "data.h5", "--no-bands")
    assert status == 0
    mae = f"{expected.mae_all('hybrid'):.3f}"
    assert f"ensemble of 2, MAE all of each: {mae} {mae}" in out
    row = next(line.split() for line in out.splitlines() if line.split()[0] == "gauge-free" and "-" in line.split()[3:])
    assert row[1] == "0.000"  # no spread, no correlation
    assert row[3:] == ["-"] * 4
    result = json.loads(command_line("evaluate", model, model, workplace / "data.h5", "--no-bands", "--json")[1])
    assert result["models"] == [str(model)] * 2
    assert len(result["members_mae_all_meV"]) == 2
    assert result["spread"]["raw"]["spread_meV"] == 0
    assert result["spread"]["raw"]["error_meV"] > 0


def test_a_picture(command_line, workplace, tmp_path):
    words = ["evaluate", workplace / "run/model.hham", workplace / "data.h5", "--no-bands"]
    assert command_line(*words, "-o", tmp_path / "errors.png")[0] == 0
    assert (tmp_path / "errors.png").read_bytes()[:4] == b"\x89PNG"


def test_rotations_of_an_equivariant_network_are_pointless(command_line, workplace):
    words = ["evaluate", workplace / "run/model.hham", workplace / "data.h5", "--no-bands", "--rotations", "2"]
    status, out, err = command_line(*words)
    assert status == 0
    assert "rotations " not in out
    assert "averaging changes nothing: this model is exactly equivariant" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--window", "0"], "--window: expected an energy > 0 eV, got 0"),
        (["--rotations", "-1"], "--rotations: expected a number of rotations, got -1"),
        (["--noise", "-1"], "--noise -1: expected an MAE above 0 in meV, or a data set"),
        (["--noise", "nothing.h5"], "--noise nothing.h5: expected an MAE above 0"),
        (["-o", "errors.doc"], "errors.doc: expected a suffix of"),
        (["--split", "none"], "no split 'none'"),
    ],
)
def test_bad_input(command_line, workplace, words, message):
    status, out, err = command_line("evaluate", workplace / "run/model.hham", workplace / "data.h5", *words)
    assert (status, out) == (2, "")
    assert message in err


@pytest.mark.parametrize("words", [[], ["--noise", "0.5"]], ids=str)
def test_a_split_without_structures(command_line, workplace, tmp_path, words):
    path = tmp_path / "data.h5"
    path.write_bytes((workplace / "data.h5").read_bytes())
    set_splits(path, {"train": ["a"], "test": []})
    status, out, err = command_line("evaluate", workplace / "run/model.hham", path, *words)
    assert (status, out) == (2, "")
    assert "no structure to evaluate on; choose another --split" in err


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
    assert "bands" not in out


def test_named_model(command_line, workplace, monkeypatch):
    monkeypatch.setenv("HYBRIDHAM_MODELS", str(workplace / "run"))
    assert command_line("evaluate", "model", workplace / "data.h5", "--no-bands")[0] == 0
