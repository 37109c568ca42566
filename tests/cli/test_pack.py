"""hybridham pack: small checkpoints, whose rounding is measured and whose card is not typed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file, safe_open, save_file

from ase_hybridham.cli import pack
from ase_hybridham.model import Coverage, checkpoint, load_model, read_metadata
from ase_hybridham.store import DataSet, append_systems, set_splits
from ase_hybridham.system import Basis
from ase_hybridham.train import evaluate
from tests.train.synthetic import BASIS, SPLITS, atoms_of, system_of

WORDS = {
    "summary": "of a test",
    "method": "none",
    "data": "random",
    "training": "seconds",
    "license": "MIT",
    "limits": ["everything"],
}


@pytest.fixture
def ckpt(workplace) -> Path:
    return workplace / "run/model.hham"


def test_what_rounding_adds_is_measured(command_line, workplace, ckpt, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "BULK", 50)
    output, data = tmp_path / "small.hham", workplace / "data.h5"
    status, out, _ = command_line("pack", ckpt, "-o", output, "--data", data, "--json")
    result = json.loads(out)
    assert status == 0
    assert (result["structures"], result["precision"]) == (len(SPLITS["val"]), "float16")
    assert result["bytes"] == output.stat().st_size < result["bytes_before"] == ckpt.stat().st_size
    before, after = load_model(ckpt, "cpu"), load_model(output, "cpu")
    with DataSet(data) as opened:
        systems = [opened[name] for name in SPLITS["val"]]
    changes = [after.predict(s.atoms, s.pairs).values - before.predict(s.atoms, s.pairs).values for s in systems]
    assert result["added_mae_meV"] == pytest.approx(1e3 * np.mean([np.abs(c).mean() for c in changes]))
    assert result["added_max_meV"] == pytest.approx(1e3 * max(np.abs(c).max() for c in changes))
    assert 0 < result["added_mae_meV"] < 0.1 * result["mae_before_meV"]
    status, out, _ = command_line("pack", ckpt, "-o", output, "--data", data)
    assert out.startswith(f"{output}: 0.")
    assert f"at most {result['added_max_meV']:.3f}; error {result['mae_before_meV']:.4f} meV before" in out


def test_too_much_is_refused(command_line, workplace, ckpt, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "BULK", 50)
    monkeypatch.setattr(pack, "ROUNDING_SHARE", 1e-9)
    words = ["pack", ckpt, "-o", tmp_path / "small.hham", "--data", workplace / "data.h5"]
    status, out, messages = command_line(*words)
    assert (status, out, list(tmp_path.iterdir())) == (1, "", [])
    assert "rounding adds too much; take --precision float32" in messages
    assert command_line(*words, "--precision", "float32")[0] == 0


def test_errors_of_the_card_are_those_of_evaluate(command_line, workplace, ckpt, tmp_path):
    data = workplace / "data.h5"
    sets = [
        {"structures": "tests", "data": str(data)},
        {"structures": "one", "data": str(data), "split": "all", "names": "a"},
    ]
    (tmp_path / "card.yaml").write_text(yaml.safe_dump({**WORDS, "errors": sets}))
    words = ["pack", ckpt, "-o", tmp_path / "m.hham", "--precision", "float32", "--card", tmp_path / "card.yaml"]
    assert command_line(*words)[0] == 0
    card = load_model(tmp_path / "m.hham", "cpu").card
    assert (card.summary, card.limits) == ("of a test", ("everything",))
    tests, one = card.errors
    assert (tests.structures, tests.n, one.structures, one.n) == ("tests", len(SPLITS["test"]), "one", 1)
    with DataSet(data) as opened:
        expected = evaluate(load_model(ckpt, "cpu"), opened, SPLITS["test"], window=1.0)
    assert tests.mae == pytest.approx(expected.mae_all("hybrid"))
    assert tests.mae_worst == pytest.approx(expected.mae_cha("hybrid"))
    assert tests.gauge_free == pytest.approx(expected.mean_of("hybrid", "gauge_free_mae"))
    if all(row.bands for row in expected.structures):
        assert tests.bands_1eV == pytest.approx(expected.band_mean("hybrid", aligned=True))
    assert one.mae_worst == one.mae > 0


def test_a_checkpoint_of_an_older_version_is_told_what_it_met(command_line, workplace, ckpt, tmp_path):
    with safe_open(ckpt, framework="pt") as file:
        metadata = json.loads(file.metadata()["hybridham"])
    assert metadata.pop("coverage")
    metadata.pop("card")
    old, new = tmp_path / "old.hham", tmp_path / "new.hham"
    save_file(load_file(ckpt), old, metadata={"hybridham": json.dumps(metadata)})
    assert load_model(old, "cpu").cascade.domain.coverage is None
    assert command_line("pack", old, "-o", new, "--data", workplace / "data.h5")[0] == 0
    with DataSet(workplace / "data.h5") as data:
        expected = Coverage.of(data[name].pairs for name in SPLITS["train"])
    assert load_model(new, "cpu").cascade.domain.coverage == expected
    for bonds, filled in (
        (expected.bonds, expected),
        ({"C": ((2, 7),)}, None),
    ):  # one of these met more than the data hold
        five = replace(expected, atom_bonds=None, bonds=bonds)
        entries = json.dumps({**metadata, "coverage": five.to_dict()})
        save_file(load_file(ckpt), old, metadata={"hybridham": entries})
        assert command_line("pack", old, "-o", new, "--data", workplace / "data.h5")[0] == 0
        assert load_model(new, "cpu").cascade.domain.coverage == (filled or five)
    metadata["provenance"]["data"]["hash"] = "of other data"
    save_file(load_file(ckpt), old, metadata={"hybridham": json.dumps(metadata)})
    assert command_line("pack", old, "-o", new, "--data", workplace / "data.h5")[0] == 0
    assert read_metadata(new)["coverage"] is None


@pytest.mark.parametrize(
    ("atoms", "spin", "message"),
    [
        (
            BASIS.atoms.values(),
            "collinear",
            "expected spin 'none', which the model was trained for, got 'collinear'; take",
        ),
        (BASIS.atoms.values(), "spinor", "expected spin 'none', which the model was trained for, got 'spinor'; take"),
        (
            [replace(BASIS["C"], shells=BASIS["C"].shells[:1]), BASIS["H"]],
            "none",
            "expected C with shells [0, 1], which the model was trained for, got [0]; take data of that basis",
        ),
    ],
    ids=["collinear", "spinor", "shells"],
)
@pytest.mark.parametrize("by", ["--data", "--card"])
def test_data_of_another_kind_are_refused(command_line, ckpt, tmp_path, by, atoms, spin, message):
    data, card, output = tmp_path / "other.h5", tmp_path / "card.yaml", tmp_path / "m.hham"
    basis = Basis.of(*atoms, name="other")
    append_systems(data, [("a", system_of(atoms_of(0), basis, spin))])
    card.write_text(yaml.safe_dump({**WORDS, "errors": [{"structures": "x", "data": str(data), "split": "all"}]}))
    words = ["--data", data, "--split", "all"] if by == "--data" else ["--card", card]
    status, out, messages = command_line("pack", ckpt, "-o", output, *words)
    assert (status, out, messages.count("\n"), output.exists()) == (2, "", 1, False), messages
    assert f"{data}: {message}" in messages


def test_bad_input_is_one_line(command_line, workplace, ckpt, tmp_path):
    good, card = tmp_path / "m.hham", tmp_path / "card.yaml"
    shutil.copy(workplace / "data.h5", tmp_path / "data.h5")
    set_splits(tmp_path / "data.h5", {"train": ["a"], "val": []})
    for entries, message in (
        ([1, 2], "expected a mapping, got list"),
        ({**WORDS, "limits": []}, "entry limits: "),
        ({**WORDS, "color": "red"}, "entry color: "),
        ({**WORDS, "errors": [{"structures": "x"}]}, "entry data: Field required"),
        ({**WORDS, "errors": [3]}, "not a model card"),
        ({**WORDS, "errors": [{"structures": "x", "data": str(workplace / "data.h5"), "names": "z*"}]}, "no structure"),
    ):
        card.write_text(yaml.safe_dump(entries))
        status, out, messages = command_line("pack", ckpt, "-o", good, "--card", card)
        assert (status, out, messages.count("\n"), message in messages) == (2, "", 1, True), messages
    for words, message in (
        (["-o", tmp_path / "m.pt"], "m.pt: expected a name that ends in .hham"),
        (["-o", good, "--card", tmp_path / "none.yaml"], "none.yaml: No such file"),
        (["-o", good, "--data", tmp_path / "data.h5"], "split 'val' is empty"),
    ):
        status, out, messages = command_line("pack", ckpt, *words)
        assert (status, out, messages.count("\n"), message in messages) == (2, "", 1, True), messages
    assert not good.exists()
