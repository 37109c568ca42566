"""Both phases learn, and a run that was stopped ends as if it had not been."""

import copy
import csv
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ase_hybridham.errors import CheckpointError, FormatError
from ase_hybridham.model import Cascade, load_model, read_metadata
from ase_hybridham.store import DataSet, append_systems, set_splits
from ase_hybridham.train import PhaseConfig, TrainConfig, evaluate, log, train
from ase_hybridham.train.data import domain_of, graphs_of
from ase_hybridham.train.loss import Loss
from ase_hybridham.train.phase import Phase, stage1_task
from tests.train.synthetic import OPTIONS, SPLITS, atoms_of, system_of, write_data_set

SHORT = {"epochs": 2, "learning_rate": 1e-2, "warmup_steps": 2}
# every part of the training state that a resumed run must bring back
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "plateau, averaged weights": {
        "phase1": {**SHORT, "schedule": "plateau", "patience": 1, "ema": 0.5, "batch_size": 2},
        "phase2": {**SHORT, "schedule": "plateau", "ema": 0.5, "weight_decay": 0.1, "clip": 0.1},
    },
    "soap": {
        "phase1": {**SHORT, "optimizer": "soap", "refresh": 2, "ema": 0.5},
        "phase2": {**SHORT, "optimizer": "soap", "refresh": 1},
    },
    "global frame": {"model": {**OPTIONS["model"], "stage2": {**OPTIONS["model"]["stage2"], "frame": "global"}}},
}


def options(data: Path, output: Path, **changes: Any) -> TrainConfig:
    short = {**OPTIONS, "phase1": SHORT, "phase2": SHORT}
    return TrainConfig(data=data, output=output, **{**short, **changes})


def log_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def without_seconds(folder: Path) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in log_of(folder)]


@pytest.fixture(scope="module")
def whole(data_set, tmp_path_factory) -> dict[str, Path]:
    """Runs that nothing stopped."""
    folders = {}
    for name, changes in VARIANTS.items():
        folders[name] = tmp_path_factory.mktemp("whole") / "run"
        train(options(data_set, folders[name], **changes), progress=False)
    return folders


class PowerCutError(Exception):
    """What no code expects."""


def train_until(config: TrainConfig, n_steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends in the middle of a step of the optimizer, counted over both phases."""
    done = 0
    original = Loss.__call__

    def loss(self: Loss, *args: Any) -> Any:
        nonlocal done
        done += 1
        if done > n_steps:
            raise PowerCutError
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Loss, "__call__", loss)
        with pytest.raises(PowerCutError):
            train(config, progress=False)


class TestLearning:
    def test_errors_fall_in_both_phases(self, run):
        rows = log_of(run)
        assert [(row["phase"], row["epoch"]) for row in rows] == [
            (p, str(e)) for p in ("phase1", "phase2") for e in range(1, 9)
        ]
        for rows_of_phase in (rows[:8], rows[8:]):
            losses = [float(row["loss"]) for row in rows_of_phase]
            best = [float(row["best_mae_meV"]) for row in rows_of_phase]
            assert losses[-1] < losses[0]
            assert best[-1] < best[0]
            assert best[-1] == min(float(row["valid_mae_meV"]) for row in rows_of_phase)
        assert float(rows[-1]["best_mae_meV"]) < 0.98 * float(rows[7]["best_mae_meV"])
        assert float(rows[-1]["learning_rate"]) < float(rows[-2]["learning_rate"])
        assert sorted(float(row["seconds"]) for row in rows) == [float(row["seconds"]) for row in rows]

    def test_logged_error_is_that_of_the_checkpoint(self, run, data_set):
        """MAE_all on the validation split, float32 against float64."""
        model = load_model(run / "model.hham", "cpu")
        with DataSet(data_set) as data:
            found = evaluate(model, data, SPLITS["val"], bands=False)
        for phase, stage in (("phase1", "stage1"), ("phase2", "hybrid")):
            assert model.metrics[f"{phase}_valid_mae_meV"] == pytest.approx(found.mae_all(stage), abs=2e-3)
            last = [row for row in log_of(run) if row["phase"] == phase][-1]
            assert float(last["best_mae_meV"]) == pytest.approx(found.mae_all(stage), abs=2e-3)

    def test_checkpoint_knows_where_it_comes_from(self, run, data_set):
        metadata = read_metadata(run / "model.hham")
        with DataSet(data_set) as data:
            assert metadata["provenance"]["data"]["hash"] == data.content_hash()
        assert metadata["provenance"]["data"]["n_train"] == 3
        assert metadata["provenance"]["training"]["phase1"]["epochs"] == 8
        assert metadata["provenance"]["structure"] == {"code": "none"}
        assert metadata["potential_reference"] == "vacuum"
        assert metadata["hybrid"]

    def test_mixed_zeros_of_energy_are_unknown(self, tmp_path):
        systems = [("a", system_of(atoms_of(0))), ("d", replace(system_of(atoms_of(1)), potential_reference="openmx"))]
        systems.append(("b", replace(system_of(atoms_of(2)), potential_reference="openmx")))
        append_systems(tmp_path / "d.h5", systems)
        set_splits(tmp_path / "d.h5", {"train": ["a", "b"], "val": ["d"]})
        path = train(
            options(tmp_path / "d.h5", tmp_path / "run", phase1={"epochs": 0}, phase2={"epochs": 0}), progress=False
        )
        assert read_metadata(path)["potential_reference"] == "unknown"

    def test_phase2_leaves_stage1_alone(self, whole, data_set, tmp_path):
        first = train(options(data_set, tmp_path / "one", phase2={"epochs": 0}), progress=False)
        one, both = load_file(first), load_file(whole["default"] / "model.hham")
        assert not read_metadata(first)["hybrid"]
        for name, tensor in one.items():
            if name.startswith(("stage1.", "scale1.")):
                assert torch.equal(tensor, both[name]), name
        changed = [name for name in both if name.startswith("stage2.") and not torch.equal(one[name], both[name])]
        assert len(changed) > 50

    def test_without_epochs_the_mean_remains(self, data_set, tmp_path):
        path = train(options(data_set, tmp_path / "run", phase1={"epochs": 0}, phase2={"epochs": 0}), progress=False)
        assert np.isfinite(load_model(path).predict(atoms_of(7)).values).all()
        assert log_of(tmp_path / "run") == []

    def test_seed_decides(self, whole, data_set, tmp_path):
        same = train(options(data_set, tmp_path / "same"), progress=False)
        assert same.read_bytes() == (whole["default"] / "model.hham").read_bytes()
        other = train(options(data_set, tmp_path / "other", seed=1), progress=False)
        name = "stage1.node_updates.0.post.weights.0"
        assert not torch.equal(load_file(other)[name], load_file(same)[name])

    def test_global_frame_is_trained_on_turned_copies(self, data_set, tmp_path, monkeypatch):
        calls = []
        monkeypatch.setattr("ase_hybridham.train.phase.rotated", lambda batch, *_: calls.append(1) or batch)
        train(options(data_set, tmp_path / "edge"), progress=False)
        assert not calls
        train(options(data_set, tmp_path / "global", **VARIANTS["global frame"]), progress=False)
        assert len(calls) == 2 * 3  # phase 2 only: epochs times structures

    @pytest.mark.parametrize("changes", [{"loss": "mse"}, {"onsite_weight": 0.0}, {"beta_meV": 100.0}], ids=str)
    def test_losses(self, changes, data_set, tmp_path):
        phase = {"epochs": 3, "learning_rate": 1e-2, "warmup_steps": 1, **changes}
        train(options(data_set, tmp_path / "run", phase1=phase, phase2={"epochs": 0}), progress=False)
        losses = [float(row["loss"]) for row in log_of(tmp_path / "run")]
        assert losses[-1] < losses[0]

    def test_on_a_device(self, data_set, tmp_path, device, whole):
        path = train(options(data_set, tmp_path / "run", device=device), progress=False)
        one, other = (read_metadata(p)["metrics"] for p in (path, whole["default"] / "model.hham"))
        assert one["phase2_valid_mae_meV"] == pytest.approx(other["phase2_valid_mae_meV"], rel=0.05)


class TestPhase:
    @pytest.fixture
    def cascade(self, data_set) -> tuple[Cascade, list, list]:
        torch.manual_seed(0)
        with DataSet(data_set) as data:
            cascade = Cascade(options(data_set, Path("x")).model, domain_of(data, SPLITS["train"]))
            graphs, valid = (graphs_of(data, SPLITS[split], cascade) for split in ("train", "val"))
        cascade.scale1.fit(graphs)
        return cascade, graphs, valid

    def phase(self, parts: tuple[Cascade, list, list], **changes: Any) -> Phase:
        cascade, graphs, valid = parts
        config = PhaseConfig(**{**SHORT, "epochs": 6, **changes})
        return Phase(config, cascade.stage1, stage1_task(cascade), cascade, graphs, valid, seed=0)

    def test_best_epoch_is_kept(self, cascade, monkeypatch):
        phase = self.phase(cascade)
        errors = iter([4.0, 2.0, 3.0, float("nan"), 2.5])
        monkeypatch.setattr(phase, "error", lambda: next(errors))
        seen = []
        for _ in range(5):
            phase.run_epoch()
            seen.append({name: tensor.clone() for name, tensor in phase.module.state_dict().items()})
        assert phase.best_error == 2.0
        phase.keep_best()
        for name, tensor in phase.module.state_dict().items():
            assert torch.equal(tensor, seen[1][name])
        weight = "node_updates.0.post.weights.0"
        assert not torch.equal(seen[1][weight], seen[4][weight])

    def test_state_brings_everything_back(self, cascade):
        """A halved rate, too."""
        changes = {"schedule": "plateau", "patience": 1, "ema": 0.5}
        first = self.phase(cascade, **changes)
        first.run_epoch()
        for _ in range(3):
            first.rate.observe(1e9)
        state = copy.deepcopy(first.state())
        expected = first.run_epoch()
        second = self.phase(cascade, **changes)
        second.restore(state)
        assert second.run_epoch() == expected
        assert second.optimizer.param_groups[0]["lr"] == first.optimizer.param_groups[0]["lr"] == 5e-3
        assert second.best_error == first.best_error

    def test_averaged_weights_are_the_result_and_not_what_is_trained(self, cascade):
        start = {name: tensor.clone() for name, tensor in cascade[0].stage1.state_dict().items()}
        plain = self.phase(cascade)
        plain.run_epoch()
        trained = {name: tensor.clone() for name, tensor in plain.module.state_dict().items()}
        plain.module.load_state_dict(start)
        averaged = self.phase(cascade, ema=0.9)
        _, _, error = averaged.run_epoch()
        for name, tensor in averaged.module.state_dict().items():
            assert torch.equal(tensor, trained[name]), name
        averaged.keep_best()
        weight = "node_updates.0.post.weights.0"
        assert not torch.equal(averaged.module.state_dict()[weight], trained[weight])
        assert averaged.error() == pytest.approx(error)

    def test_loss_is_that_of_the_elements_of_the_blocks(self, cascade, data_set):
        """Direct sums are orthonormal: mse is the mean square error of H. Padding of smaller blocks does not count."""
        _, graphs, _ = cascade
        with DataSet(data_set) as data:
            h = data["a"].hamiltonian[0]
        phase, graph = self.phase(cascade, loss="mse"), graphs[0]
        counts = phase.loss.elements(graph)
        n_onsite = h.offsets[h.pairs.n_atoms]
        assert counts == (n_onsite, len(h.values) - n_onsite)
        loss = float(phase.loss(graph.node_target, graph.edge_target, graph))
        assert loss == pytest.approx((h.values**2).mean(), rel=1e-5)
        heavy = self.phase(cascade, loss="mse", onsite_weight=1e9)
        loss = float(heavy.loss(graph.node_target, graph.edge_target, graph))
        assert loss == pytest.approx((h.values[:n_onsite] ** 2).mean(), rel=1e-5)

    def test_a_loss_that_explodes(self, cascade):
        phase = self.phase(cascade, learning_rate=1e30, warmup_steps=0)
        with pytest.raises(ValueError, match="epoch 1: the loss is not finite; lower the learning rate"):
            phase.run_epoch()


class TestResume:
    @pytest.mark.parametrize("n_steps", [1, 4, 6, 10])
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_stopped_run_ends_the_same(self, variant, n_steps, whole, data_set, tmp_path, monkeypatch):
        """Stopped in the first epoch, the second, between the phases, in the second phase."""
        config = options(data_set, tmp_path / "run", **VARIANTS[variant])
        if variant.startswith("plateau"):
            n_steps = n_steps * 2 // 3  # steps of two structures in phase 1
        monkeypatch.setattr(log, "STATE_INTERVAL", 0.0)
        train_until(config, n_steps, monkeypatch)
        path = train(config, resume=True, progress=False)
        assert path.read_bytes() == (whole[variant] / "model.hham").read_bytes()
        assert without_seconds(tmp_path / "run") == without_seconds(whole[variant])

    def test_states_are_written_now_and_then(self, whole, data_set, tmp_path, monkeypatch):
        """Epochs that no state knows are run again, and stand in the log once."""
        monkeypatch.setattr(log, "STATE_INTERVAL", 1e9)
        config = options(data_set, tmp_path / "run")
        train_until(config, 10, monkeypatch)  # in phase 2's second epoch; the only state is that of phase 1's end
        assert [row["phase"] for row in log_of(tmp_path / "run")] == ["phase1", "phase1", "phase2"]
        assert read_metadata(tmp_path / "run/model.hham")["hybrid"] is False
        path = train(config, resume=True, progress=False)
        assert path.read_bytes() == (whole["default"] / "model.hham").read_bytes()
        assert without_seconds(tmp_path / "run") == without_seconds(whole["default"])

    def test_killed_process(self, whole, data_set, tmp_path):
        """SIGKILL while an epoch runs: no handler, no flush."""
        config = options(data_set, tmp_path / "run")
        (tmp_path / "config.json").write_text(config.model_dump_json(by_alias=True))
        script = (
            "import os, signal, sys\n"
            "from pathlib import Path\n"
            "from ase_hybridham.train import TrainConfig, log, train\n"
            "from ase_hybridham.train.loss import Loss\n"
            "config = TrainConfig.model_validate_json(Path(sys.argv[1]).read_text())\n"
            "log.STATE_INTERVAL, original, done = 0.0, Loss.__call__, []\n"
            "def loss(self, *args):\n"
            "    done.append(1)\n"
            "    if len(done) > 4: os.kill(os.getpid(), signal.SIGKILL)\n"
            "    return original(self, *args)\n"
            "Loss.__call__ = loss\n"
            "train(config, progress=False)\n"
        )
        command = [sys.executable, "-c", script, str(tmp_path / "config.json")]
        killed = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
        assert len(log_of(tmp_path / "run")) == 1
        path = train(config, resume=True, progress=False)
        assert path.read_bytes() == (whole["default"] / "model.hham").read_bytes()
        assert without_seconds(tmp_path / "run") == without_seconds(whole["default"])

    def test_finished_run_is_done(self, whole, data_set, tmp_path):
        folder = tmp_path / "run"
        shutil.copytree(whole["default"], folder)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        train(options(data_set, folder), resume=True, progress=False)
        assert (folder / "model.hham").read_bytes() == before["model.hham"]
        assert (folder / "log.csv").read_bytes() == before["log.csv"]

    def test_nothing_to_resume_is_a_start(self, whole, data_set, tmp_path):
        path = train(options(data_set, tmp_path / "run"), resume=True, progress=False)
        assert path.read_bytes() == (whole["default"] / "model.hham").read_bytes()

    def test_device_and_place_may_change(self, whole, data_set, tmp_path):
        shutil.copytree(whole["default"], tmp_path / "moved")
        shutil.copyfile(data_set, tmp_path / "copy.h5")
        train(options(tmp_path / "copy.h5", tmp_path / "moved", device="auto"), resume=True, progress=False)

    def test_other_options_are_refused(self, whole, data_set, tmp_path):
        shutil.copytree(whole["default"], tmp_path / "run")
        with pytest.raises(ValueError, match=r"state\.pt: the run was started with other data or options"):
            train(options(data_set, tmp_path / "run", seed=5), resume=True, progress=False)

    def test_other_data_are_refused(self, whole, tmp_path):
        shutil.copytree(whole["default"], tmp_path / "run")
        data = write_data_set(tmp_path / "d.h5")
        append_systems(data, [("g", system_of(atoms_of(9)))])
        with pytest.raises(ValueError, match="other data or options"):
            train(options(data, tmp_path / "run"), resume=True, progress=False)

    @pytest.mark.parametrize("left", ["state.pt", "model.hham"])
    def test_used_folder_is_refused(self, left, whole, data_set, tmp_path):
        (tmp_path / "run").mkdir()
        shutil.copy(whole["default"] / left, tmp_path / "run")
        with pytest.raises(ValueError, match=r"run: holds a run already; go on with --resume"):
            train(options(data_set, tmp_path / "run"), progress=False)
        assert [path.name for path in (tmp_path / "run").iterdir()] == [left]

    @pytest.mark.parametrize("content", [b"", b"no state", "cut", "foreign"])
    def test_damaged_state(self, content, whole, data_set, tmp_path):
        shutil.copytree(whole["default"], tmp_path / "run")
        state = tmp_path / "run/state.pt"
        if content == "cut":
            state.write_bytes(state.read_bytes()[:-200])
        elif content == "foreign":
            torch.save({"model": torch.zeros(3)}, state)
        else:
            state.write_bytes(content)
        with pytest.raises(ValueError, match=r"state\.pt: not a training state") as caught:
            train(options(data_set, tmp_path / "run"), resume=True, progress=False)
        assert "\n" not in str(caught.value)

    def test_state_of_another_network(self, whole, data_set, tmp_path):
        """As another version of the package might have left it."""
        shutil.copytree(whole["default"], tmp_path / "run")
        path = tmp_path / "run/state.pt"
        state = torch.load(path, weights_only=True)
        del state["phases"]["phase1"]["module"]["node_updates.0.post.weights.0"]
        torch.save(state, path)
        with pytest.raises(ValueError, match=r"state\.pt: the state of another network"):
            train(options(data_set, tmp_path / "run"), resume=True, progress=False)


class TestBadData:
    def refused(self, path: Path, folder: Path, kind: type[Exception], message: str) -> None:
        with pytest.raises(kind, match=message) as caught:
            train(options(path, folder / "run"), progress=False)
        assert "\n" not in str(caught.value)
        assert not (folder / "run/model.hham").exists()

    @pytest.mark.parametrize(
        ("splits", "message"),
        [
            ({"train": ["a", "b"]}, "no split 'val'"),
            ({"val": ["a", "b"]}, "no split 'train'"),
            ({"train": ["a"], "val": []}, "the split 'val' is empty"),
            ({"train": [], "val": ["a"]}, "the training split is empty"),
        ],
        ids=str,
    )
    def test_splits(self, splits, message, tmp_path):
        self.refused(write_data_set(tmp_path / "d.h5", splits), tmp_path, ValueError, message)

    @pytest.mark.parametrize("name", ["a", "d"])
    def test_not_finite(self, name, tmp_path):
        """Also where only the validation split is hit."""
        system = system_of(atoms_of(0))
        values = system.hamiltonian[0].values.copy()
        values[3] = np.nan
        systems = [(n, system_of(atoms_of(k))) for k, n in enumerate("abcd") if n != name]
        systems.append((name, replace(system, hamiltonian=(system.hamiltonian[0].with_values(values),))))
        append_systems(tmp_path / "d.h5", systems)
        set_splits(tmp_path / "d.h5", {"train": ["a", "b", "c"], "val": ["d"]})
        self.refused(tmp_path / "d.h5", tmp_path, FormatError, f"structure {name} is not finite")

    def test_element_of_the_validation_split_alone(self, tmp_path):
        append_systems(tmp_path / "d.h5", [("a", system_of(atoms_of(0)[:2])), ("d", system_of(atoms_of(1)))])
        set_splits(tmp_path / "d.h5", {"train": ["a"], "val": ["d"]})
        self.refused(tmp_path / "d.h5", tmp_path, CheckpointError, "trained for C, the structure has H")

    def test_irreps_too_small_for_the_basis(self, data_set, tmp_path):
        model = {"stage1": {"irreps": "4x0e+2x1o"}}
        with pytest.raises(ValueError, match=r"stage1\.irreps: expected l up to 2"):
            train(options(data_set, tmp_path / "run", model=model), progress=False)

    def test_single_structure(self, tmp_path):
        """Enough to run, if not to learn much."""
        path = write_data_set(tmp_path / "d.h5", {"train": ["a"], "val": ["b"]})
        assert train(options(path, tmp_path / "run"), progress=False).exists()
