"""Checkpoints: the same numbers after a save, and one line for everything that is none."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, safe_open, save_file

from ase_hybridham import cli
from ase_hybridham.errors import CheckpointError
from ase_hybridham.model import (
    PairGraph,
    TargetScale,
    TrainedModel,
    convolution,
    find_model,
    load_model,
    read_metadata,
    save_model,
    select_device,
)
from ase_hybridham.system import AtomBasis, Basis, GaussianRadial, PairBlocks, PairList, Shell
from tests.model.networks import MIXED, config, network, structure
from tests.overlap.radial_data import openmx_basis

ATOMS = structure(MIXED, 3)
SMALL = Basis.of(
    AtomBasis("C", (Shell(0, "2s", GaussianRadial((1.0, 0.3), (0.5, 0.5))), Shell(1)), valence=4, cutoff=1.7),
    name="small",
)


def trained(*, dtype: str = "float64", hybrid: bool = True, **stage2: object) -> TrainedModel:
    cascade = network(settings=config(dtype=dtype, **stage2))
    cascade.has_stage2.fill_(hybrid)
    return TrainedModel(cascade, "openmx", {"data": {"code": "OpenMX", "k": [4, 4, 1]}}, {"valid_mae_meV": 1.5})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A small valid one."""
    path = tmp_path_factory.mktemp("model") / "small.hham"
    save_model(path, TrainedModel(network(SMALL, config("3x0e+2x1o+1x2e", updates=1, width=2, dtype="float32"))))
    return path


def refuses(path: Path, *words: str) -> None:
    """One line that names the file."""
    with pytest.raises(CheckpointError) as caught:
        load_model(path, "cpu")
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 400 + len(str(path))
    for word in words:
        assert word in message


def loads_or_refuses(path: Path) -> None:
    """Nothing but the one line is raised."""
    try:
        load_model(path, "cpu")
    except CheckpointError as error:
        message = str(error)
    else:
        return
    assert str(path) in message
    assert "\n" not in message


class TestRoundTrip:
    @pytest.mark.parametrize("hybrid", [True, False])
    @pytest.mark.parametrize("stage2", [{}, {"frame": "global", "invariants": "tuples", "lambda": 0.1}], ids=str)
    def test_same_hamiltonian_bit_for_bit(self, tmp_path, stage2, hybrid):
        model = trained(hybrid=hybrid, **stage2)
        save_model(tmp_path / "m.hham", model)
        loaded = load_model(tmp_path / "m.hham", "cpu")
        assert loaded.cascade.hybrid == hybrid
        np.testing.assert_array_equal(loaded.predict(ATOMS).values, model.predict(ATOMS).values)
        assert loaded.cascade.config == model.cascade.config
        assert loaded.basis == model.basis
        assert (loaded.potential_reference, loaded.provenance, loaded.metrics) == (
            model.potential_reference,
            model.provenance,
            model.metrics,
        )

    def test_single_precision_weights_predict_in_double(self, tmp_path):
        """float64 of float32 weights: equal to what the network gives when it is moved to float64 itself."""
        model = trained(dtype="float32")
        save_model(tmp_path / "m.hham", model)
        single = load_model(tmp_path / "m.hham", "cpu", "float32")
        np.testing.assert_array_equal(single.predict(ATOMS).values, model.predict(ATOMS).values)
        double = load_model(tmp_path / "m.hham", "cpu")
        assert double.cascade.dtype == torch.float64
        difference = np.abs(double.predict(ATOMS).values - model.predict(ATOMS).values).max()
        assert 0 < difference < 1e-3
        model.cascade.double()
        np.testing.assert_array_equal(double.predict(ATOMS).values, model.predict(ATOMS).values)

    def test_saved_again_it_is_the_same(self, tmp_path, checkpoint):
        save_model(tmp_path / "again.hham", load_model(checkpoint, "cpu", "float32"))
        assert read_metadata(tmp_path / "again.hham") == read_metadata(checkpoint)
        one, other = load_file(checkpoint), load_file(tmp_path / "again.hham")
        assert one.keys() == other.keys()
        assert all(one[name].equal(other[name]) for name in one)

    def test_radial_functions_travel(self, checkpoint):
        assert load_model(checkpoint, "cpu").basis == SMALL

    def test_loaded_networks_are_not_trained_by_accident(self, checkpoint):
        cascade = load_model(checkpoint, "cpu").cascade
        assert not cascade.training
        assert not any(p.requires_grad for p in cascade.parameters())

    def test_prediction_is_hermitian_on_the_pairs_of_the_basis(self, monkeypatch):
        """Whatever rounding does inside."""
        model = trained()
        h = model.predict(ATOMS)
        assert h.pairs.same_pairs(PairList.from_atoms(ATOMS, MIXED.cutoffs()))
        uneven = h.with_values(h.values + np.random.default_rng(0).normal(size=h.values.shape))
        monkeypatch.setattr(model.cascade, "predict", lambda *_: uneven)
        assert model.predict(ATOMS).hermiticity_error() == 0 < uneven.hermiticity_error()

    def test_on_a_device(self, checkpoint, device):
        loaded = load_model(checkpoint, device)
        assert loaded.cascade.device.type == device
        atoms = structure(SMALL, 1)
        expected = load_model(checkpoint, "cpu").predict(atoms).values
        np.testing.assert_allclose(loaded.predict(atoms).values, expected, atol=1e-10)

    def test_failed_write_leaves_the_old_file(self, tmp_path, checkpoint):
        path = tmp_path / "m.hham"
        path.write_bytes(checkpoint.read_bytes())
        with pytest.raises(TypeError, match="JSON"):
            save_model(path, TrainedModel(load_model(checkpoint).cascade, provenance={"no": object()}))
        assert path.read_bytes() == checkpoint.read_bytes()
        assert [p.name for p in tmp_path.iterdir()] == ["m.hham"]


class TestDamage:
    @settings(
        max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(data=st.data())
    def test_truncated(self, checkpoint, tmp_path, data):
        content = checkpoint.read_bytes()
        header = 8 + int.from_bytes(content[:8], "little")
        end = data.draw(st.integers(0, header + 50) | st.integers(0, len(content) - 1))
        path = tmp_path / "cut.hham"
        path.write_bytes(content[:end])
        refuses(path)

    @settings(
        max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(data=st.data())
    def test_changed_byte_in_the_header(self, checkpoint, tmp_path, data):
        """It loads to the same network or is refused in one line."""
        content = bytearray(checkpoint.read_bytes())
        header = 8 + int.from_bytes(content[:8], "little")
        place = data.draw(st.integers(0, header - 1))
        content[place] = data.draw(st.integers(0, 255))
        path = tmp_path / "changed.hham"
        path.write_bytes(content)
        loads_or_refuses(path)

    @settings(
        max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(data=st.data())
    def test_senseless_metadata(self, checkpoint, tmp_path, data):
        """Any entry replaced by any JSON."""
        metadata = read_metadata(checkpoint)
        key = data.draw(st.sampled_from(["config", "basis", "reach", "n_neighbors"]))
        json_values = st.recursive(
            st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=3),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=5,
        )
        if key in ("config", "basis") and data.draw(st.booleans()):
            inner = data.draw(st.sampled_from(sorted(metadata[key])))
            metadata[key][inner] = data.draw(json_values)
        else:
            metadata[key] = data.draw(json_values)
        path = tmp_path / "odd.hham"
        save_file(load_file(checkpoint), path, {"hybridham": json.dumps(metadata)})
        loads_or_refuses(path)

    @pytest.mark.parametrize("entry", ["potential_reference", "provenance", "metrics", "basis", "config", "reach"])
    def test_entry_missing(self, checkpoint, tmp_path, entry):
        metadata = read_metadata(checkpoint)
        del metadata[entry]
        save_file(load_file(checkpoint), tmp_path / "m.hham", {"hybridham": json.dumps(metadata)})
        refuses(tmp_path / "m.hham", entry)

    @pytest.mark.parametrize("metadata", ["[1, 2]", "null", "3", '"text"'])
    def test_metadata_of_another_kind(self, checkpoint, tmp_path, metadata):
        save_file(load_file(checkpoint), tmp_path / "m.hham", {"hybridham": metadata})
        refuses(tmp_path / "m.hham", "damaged")

    def test_other_schema(self, checkpoint, tmp_path):
        metadata = read_metadata(checkpoint) | {"schema": 99}
        save_file(load_file(checkpoint), tmp_path / "m.hham", {"hybridham": json.dumps(metadata)})
        refuses(tmp_path / "m.hham", "schema 2", "99")

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("name", ["stage1.node_embedding.weight", "scale1.mean"])
    def test_not_finite(self, checkpoint, tmp_path, name, value):
        self.write_changed(checkpoint, tmp_path, name, value)
        refuses(tmp_path / "m.hham", name)

    def test_knots_may_be_infinite_but_not_nan(self, checkpoint, tmp_path):
        self.write_changed(checkpoint, tmp_path, "scale1.knots", np.nan)
        refuses(tmp_path / "m.hham", "scale1.knots")

    def write_changed(self, checkpoint: Path, folder: Path, name: str, value: float) -> None:
        tensors = load_file(checkpoint)
        tensors[name].view(-1)[0] = value
        with safe_open(checkpoint, "pt") as file:
            save_file(tensors, folder / "m.hham", file.metadata())

    @pytest.mark.parametrize("change", ["missing", "surplus", "shape", "kind"])
    def test_tensors_that_do_not_fit(self, checkpoint, tmp_path, change):
        tensors = load_file(checkpoint)
        name = "stage1.node_updates.0.post.weights.0"
        if change == "missing":
            del tensors[name]
        elif change == "surplus":
            name = "stage3.weight"
            tensors[name] = torch.zeros(2)
        elif change == "shape":
            tensors[name] = tensors[name][:1].contiguous()
        else:
            name = "config"
        with safe_open(checkpoint, "pt") as file:
            metadata = file.metadata()
        if change == "kind":
            metadata["hybridham"] = metadata["hybridham"].replace("2x1o", "3x1o")
            name = "size mismatch"
        save_file(tensors, tmp_path / "m.hham", metadata)
        refuses(tmp_path / "m.hham", name)

    @pytest.mark.parametrize("content", ["empty", "text", "pickle", "torch", "other safetensors", "zeros"])
    def test_other_files(self, tmp_path, content):
        path = tmp_path / "m.hham"
        if content == "other safetensors":
            save_file({"weight": torch.zeros(3)}, path)
        elif content == "torch":
            torch.save({"weight": torch.zeros(3)}, path)
        else:
            path.write_bytes(
                {"empty": b"", "text": b"phase1: 3\n" * 40, "pickle": pickle.dumps(Bomb()), "zeros": bytes(100)}[
                    content
                ]
            )
        refuses(path, "not a checkpoint")
        assert not Bomb.exploded


class Bomb:
    """Executes something when it is unpickled."""

    exploded = False

    def __reduce__(self):
        return Bomb.explode, ()

    @staticmethod
    def explode() -> None:
        Bomb.exploded = True


class TestNames:
    def test_path(self, checkpoint, monkeypatch):
        assert find_model(checkpoint) == checkpoint
        monkeypatch.chdir(checkpoint.parent)
        assert find_model("small.hham") == Path("small.hham")

    def test_name_in_the_folder_of_models(self, checkpoint, monkeypatch, tmp_path):
        monkeypatch.setenv("HYBRIDHAM_MODELS", str(checkpoint.parent))
        monkeypatch.chdir(tmp_path)
        assert find_model("small") == checkpoint
        assert load_model("small", "cpu").basis == SMALL

    def test_unknown_name(self, checkpoint, monkeypatch):
        monkeypatch.setenv("HYBRIDHAM_MODELS", str(checkpoint.parent))
        with pytest.raises(CheckpointError, match=r"large.*known.*small.*HYBRIDHAM_MODELS"):
            find_model("large")
        monkeypatch.setenv("HYBRIDHAM_MODELS", str(checkpoint.parent / "nowhere"))
        with pytest.raises(CheckpointError, match=r"small.*HYBRIDHAM_MODELS"):
            find_model("small")

    @pytest.mark.parametrize("name", ["no/such.hham", "missing.hham", "runs/model"])
    def test_missing_file(self, name, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(CheckpointError, match=f"{name}: no such"):
            find_model(name)

    def test_folder(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"expected a \.hham file, got a folder"):
            find_model(tmp_path)


class TestDevice:
    def test_auto(self):
        assert select_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")

    @pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "cpu:x"])
    def test_what_is_not_there(self, name):
        with pytest.raises(ValueError, match="device: expected auto, cpu"):
            select_device(name)


def test_radial_functions_are_kept_and_a_changed_digit_is_noticed(tmp_path):
    """A file has no checksum of its metadata, and S would be another."""
    basis, path = openmx_basis("H"), tmp_path / "model.hham"
    save_model(path, TrainedModel(network(basis, config("3x0e+2x1o+1x2e", updates=1, width=2, dtype="float32"))))
    assert load_model(path, "cpu").basis == basis
    content = path.read_bytes()
    at = content.index(json.dumps(basis.to_dict()["atoms"][0]["meshes"][0])[1:-1].encode()) + 1000
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    refuses(path, "damaged checkpoint")


def test_a_checkpoint_of_another_function_is_refused(tmp_path, monkeypatch):
    """Weights that fit in shape but not in meaning would give wrong numbers without a word."""
    path = tmp_path / "model.hham"
    save_model(path, trained())
    load_model(path, "cpu")
    monkeypatch.setattr(convolution, "SIGMOID_SCALE", 1.0)
    with pytest.raises(CheckpointError, match="another version"):
        load_model(path, "cpu")


def test_neighbors_that_never_met_in_training_are_refused():
    """Their hoppings would come out as nothing, without a word."""
    model = trained()
    alone = Atoms("C2", [(0, 0, 0), (0, 0, 1.4)])
    pairs = PairList.from_atoms(alone, MIXED.cutoffs())
    h = PairBlocks.zeros(pairs, MIXED)
    graph = PairGraph.with_targets((h,), model.cascade.vocabulary, model.cascade.lmax, torch.float64)
    model.cascade.scale1 = TargetScale(model.cascade.vocabulary)
    model.cascade.scale1.fit([graph])
    assert np.isfinite(model.predict(alone).values).all()
    far = Atoms("CS", [(0, 0, 0), (0, 0, 30)])
    assert len(model.predict(far).pairs) == 2
    with pytest.raises(CheckpointError, match="C-S pair"):
        model.predict(Atoms("CS", [(0, 0, 0), (0, 0, 1.6)]))


@pytest.mark.parametrize(
    "changes",
    [
        {"basis": None},
        {"basis": {"name": "", "orthogonal": False, "atoms": "C"}},
        {"basis": {"name": "", "orthogonal": False, "atoms": [{"symbol": "H", "valence": 1, "shells": [{"l": 9}]}]}},
        {"basis": {"name": "", "orthogonal": False, "atoms": [{"symbol": "H", "valence": 1, "shells": [1]}]}},
        {"provenance": [1]},
    ],
)
def test_metadata_that_make_no_sense_are_one_line(tmp_path, capsys, changes):
    path = tmp_path / "model.hham"
    save_model(path, TrainedModel(network(openmx_basis("H"), config("3x0e+2x1o+1x2e", updates=1, width=2))))
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = json.loads(file.metadata()["hybridham"])
    save_file(tensors, path, metadata={"hybridham": json.dumps(metadata | changes)})
    refuses(path, "damaged checkpoint")
    assert cli.main(["info", str(path)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert f"hybridham info: {path}: damaged checkpoint (" in err
