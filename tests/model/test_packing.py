"""Checkpoints of rounded weights, and their cards."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, safe_open, save_file

from ase_hybridham import cli
from ase_hybridham.errors import CheckpointError
from ase_hybridham.model import CardErrors, ModelCard, TrainedModel, load_model, read_metadata, save_model
from tests.model.networks import CARBON, config, network, structure

WIDE = config("32x0e+24x1o+12x2e", updates=2, dtype="float32", width=8)
ATOMS = structure(CARBON, 2)
ERRORS = {"mae": 0.1, "mae_worst": 0.2, "gauge_free": None, "bands_1eV": 3.0, "bands_2eV": 4.0, "fermi": 1.0}
CARD = ModelCard(
    summary="of carbon",
    method="some DFT",
    data="chains",
    training="an hour",
    license="MIT",
    limits=("other elements", "fast atoms"),
    errors=(CardErrors(structures="chains, test split", n=7, **ERRORS),),
)


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    """With some weights that are large enough to be rounded."""
    return TrainedModel(network(CARBON, WIDE), "openmx", {"data": {}}, {}, CARD)


@pytest.fixture(scope="module")
def half(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("half") / "half.hham"
    save_model(path, model, "float16")
    return path


def test_only_large_weights_are_rounded(model, half):
    tensors, weights = load_file(half), dict(model.cascade.named_parameters())
    rounded = {name for name, tensor in tensors.items() if tensor.dtype == torch.float16}
    assert rounded == {name for name, weight in weights.items() if weight.numel() >= 4000}
    assert 0 < len(rounded) < len(weights)
    for name, tensor in model.cascade.state_dict().items():
        if name in rounded:
            torch.testing.assert_close(tensors[name].float(), tensor, rtol=2**-11, atol=2**-24)
            assert not tensors[name].float().equal(tensor)
        else:
            assert tensors[name].equal(tensor)


def test_the_file_is_smaller_and_predicts_nearly_the_same(model, half, tmp_path):
    save_model(tmp_path / "whole.hham", model)
    assert half.stat().st_size < 0.75 * (tmp_path / "whole.hham").stat().st_size
    whole, rounded = (load_model(path, "cpu").predict(ATOMS).values for path in (tmp_path / "whole.hham", half))
    difference = np.abs(rounded - whole).max()
    assert 0 < difference < 1e-3 * np.abs(whole).max()


def test_packed_again_it_is_the_same(half, tmp_path):
    save_model(tmp_path / "again.hham", load_model(half, "cpu"), "float16")
    one, other = load_file(half), load_file(tmp_path / "again.hham")
    assert all(one[name].equal(other[name]) and one[name].dtype == other[name].dtype for name in one)
    assert read_metadata(half)["card"] == read_metadata(tmp_path / "again.hham")["card"]


def test_double_becomes_single(tmp_path):
    double = TrainedModel(network(CARBON, config(updates=1, dtype="float64")))
    save_model(tmp_path / "m.hham", double, "float32")
    assert {t.dtype for t in load_file(tmp_path / "m.hham").values()} == {torch.float32, torch.bool}
    difference = load_model(tmp_path / "m.hham", "cpu").predict(ATOMS).values - double.predict(ATOMS).values
    assert 0 < np.abs(difference).max() < 1e-4


def test_what_float16_cannot_hold_is_refused(tmp_path):
    model = TrainedModel(network(CARBON, WIDE))
    name, weight = max(model.cascade.named_parameters(), key=lambda item: item[1].numel())
    with torch.no_grad():
        weight.view(-1)[3] = 1e5
    with pytest.raises(ValueError, match=rf"{name}: has weights too large for float16; store float32"):
        save_model(tmp_path / "m.hham", model, "float16")
    assert not list(tmp_path.iterdir())
    save_model(tmp_path / "m.hham", model, "float32")
    with pytest.raises(ValueError, match="precision: expected float32 or float16, got 'float8'"):
        save_model(tmp_path / "m.hham", model, "float8")


class TestCard:
    def test_it_travels(self, half):
        assert load_model(half, "cpu").card == CARD

    def test_info_prints_it(self, half, capsys):
        assert cli.main(["info", str(half)]) == 0
        text = capsys.readouterr().out
        for line in ("summary: of carbon", "not for: other elements", "not for: fast atoms", "license: MIT"):
            assert f"\n{line}\n" in text
        head, row = text.splitlines()[-2:]
        assert head.split() == ["n", "H", "worst", "gauge-free", "bands", "1", "eV", "bands", "2", "eV", "E_F"]
        assert row.split() == ["chains,", "test", "split", "7", "0.100", "0.200", "-", "3.00", "4.00", "1.00"]
        assert cli.main(["info", str(half), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["card"] == CARD.model_dump(mode="json")

    @pytest.mark.parametrize("change", [{"mae": -1}, {"mae": float("nan")}, {"more": 1}, {"n": 0}])
    def test_errors_make_sense(self, change):
        with pytest.raises(ValidationError):
            CardErrors(**{"structures": "x", "n": 1, **ERRORS, **change})

    @pytest.mark.parametrize("card", [{"summary": "x"}, [1], CARD.model_dump(mode="json") | {"limits": []}])
    def test_a_damaged_one_is_one_line(self, half, tmp_path, card):
        with safe_open(half, framework="pt") as file:
            metadata = json.loads(file.metadata()["hybridham"])
        save_file(load_file(half), tmp_path / "m.hham", metadata={"hybridham": json.dumps(metadata | {"card": card})})
        with pytest.raises(CheckpointError, match="damaged checkpoint") as caught:
            load_model(tmp_path / "m.hham", "cpu")
        assert "\n" not in str(caught.value)
