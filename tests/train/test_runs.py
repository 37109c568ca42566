"""What a run can start from, where its graphs may lie, how it ends early, and what it shows."""

import csv
import logging
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from safetensors.torch import load_file

from ase_hybridham import cli
from ase_hybridham.model import Coverage, load_model, read_metadata
from ase_hybridham.store import DataSet, append_systems, set_splits
from ase_hybridham.system import AtomBasis, Basis, PairList
from ase_hybridham.train import TrainConfig, train
from ase_hybridham.train.data import ReadOnce, domain_of, graphs_of
from ase_hybridham.train.log import bar_of
from ase_hybridham.train.loss import Loss
from ase_hybridham.train.phase import Phase, stage1_task
from ase_hybridham.train.warmstart import fit_missing, start
from tests.train.synthetic import BASIS, OPTIONS, atoms_of, system_of

SHORT = {"epochs": 2, "learning_rate": 1e-2, "warmup_steps": 2}
NONE = {"epochs": 0}


def configured(data: Path, output: Path, **changes: Any) -> TrainConfig:
    return TrainConfig(data=data, output=output, **{**OPTIONS, "phase1": SHORT, "phase2": SHORT, **changes})


def log_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def short_run(data_set, tmp_path_factory) -> Path:
    """Output folder of a run of four epochs."""
    return train(configured(data_set, tmp_path_factory.mktemp("runs") / "short"), progress=False).parent


class TestFromAModel:
    def further(self, data_set: Path, folder: Path, base: Path, **changes: Any) -> TrainConfig:
        given = {"data": data_set, "output": folder, "init": str(base / "model.hham"), "device": "cpu", **changes}
        return TrainConfig(**given)

    def test_without_epochs_it_is_the_model(self, short_run, data_set, tmp_path):
        """With its network, which the options do not name."""
        path = train(self.further(data_set, tmp_path / "run", short_run, phase1=NONE, phase2=NONE), progress=False)
        mine, base = load_file(path), load_file(short_run / "model.hham")
        for name, tensor in base.items():
            assert torch.equal(mine[name], tensor), name
        metadata = read_metadata(path)
        assert metadata["hybrid"]
        assert metadata["provenance"]["init"]["metrics"]["phase2_valid_mae_meV"] > 0

    def test_it_goes_on_from_there(self, short_run, data_set, tmp_path):
        """Both stages; scales of the targets are what the weights have learned with."""
        config = self.further(data_set, tmp_path / "run", short_run, phase1=SHORT, phase2=SHORT)
        path = train(config, progress=False)
        before, after = log_of(short_run), log_of(tmp_path / "run")
        assert [row["epoch"] for row in after] == ["1", "2", "1", "2"]
        for old, new in zip(before[::2], after[::2], strict=True):  # first epochs of the phases
            assert float(new["train_mae_meV"]) < 0.98 * float(old["train_mae_meV"])
        assert float(after[-1]["best_mae_meV"]) < 0.95 * float(before[-1]["best_mae_meV"])
        mine, base = load_file(path), load_file(short_run / "model.hham")
        for name, tensor in base.items():
            if name.startswith(("scale1", "scale2")) or ".statistics." in name:
                assert torch.equal(mine[name], tensor), name
        with pytest.raises(ValueError, match="other data or options"):
            train(config.model_copy(update={"init": None}), resume=True, progress=False)

    def test_what_has_other_shapes_starts_anew(self, short_run, data_set, tmp_path, caplog):
        model = {**OPTIONS["model"], "stage2": {**OPTIONS["model"]["stage2"], "width": 12}}
        path = train(
            self.further(data_set, tmp_path / "run", short_run, model=model, phase1=NONE, phase2=NONE), progress=False
        )
        assert "tensors fit, the others start anew" in caplog.text
        mine, base = load_file(path), load_file(short_run / "model.hham")
        for name, tensor in base.items():
            if name.startswith(("stage1", "scale1")):
                assert torch.equal(mine[name], tensor), name
        assert not read_metadata(path)["hybrid"]

    def test_another_zero_of_the_cell_is_refused(self, short_run, data_set, tmp_path):
        config = self.further(data_set, tmp_path / "run", short_run, cell_zero={"C": 5.0}, phase1=NONE, phase2=NONE)
        with pytest.raises(ValueError, match="cell_zero: the model of init has other coefficients"):
            train(config, progress=False)

    def test_scales_can_be_given_up(self, short_run, data_set, tmp_path):
        """Scales that were fitted leave nothing behind."""
        model = {**OPTIONS["model"], "scale_targets": False}
        config = self.further(data_set, tmp_path / "run", short_run, model=model, phase1=NONE, phase2=NONE)
        scale = load_model(train(config, progress=False)).cascade.scale1
        assert not torch.cat([scale.mean.ravel(), scale.node_mean.ravel()]).any()
        assert (scale.node_sigma == 1).all()
        assert torch.isinf(scale.knots[:, 1:]).all()

    @pytest.mark.parametrize(
        ("atom", "message"),
        [
            (AtomBasis.from_degrees("C", [0, 0, 1], valence=4, cutoff=1.6), "C has shells [0, 1] within 1.6"),
            (AtomBasis.from_degrees("C", [0, 1], valence=4, cutoff=1.5), "1.5 in the data"),
            (AtomBasis.from_degrees("N", [0, 1], valence=5, cutoff=1.6), "knows C, H, the data have N"),
        ],
        ids=["shells", "radius", "element"],
    )
    def test_data_that_do_not_fit(self, atom, message, short_run):
        base = load_model(short_run / "model.hham", "cpu", "float32")
        domain = replace(base.cascade.domain, basis=Basis.of(atom, name="other"))
        with pytest.raises(ValueError, match="init: ") as caught:
            start(base.cascade.config, domain, base)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_radius_that_follows_from_pairs_is_the_same(self, short_run):
        """Of folders without radii the longest pair tells them: 3.1750 for 6 Bohr, 3.17506."""
        base = load_model(short_run / "model.hham", "cpu", "float32")
        known = base.cascade.domain
        atoms = [replace(a, cutoff=a.cutoff - 1e-4) for a in known.basis.atoms.values()]
        domain = replace(known, basis=Basis.of(*atoms, name="other"))
        cascade, same = start(base.cascade.config, domain, base)
        assert cascade.domain.basis == known.basis
        assert "stage1" in same

    def test_elements_that_the_data_lack_stay_known(self, short_run, tmp_path):
        systems = [("a", system_of(atoms_of(0)[:2])), ("d", system_of(atoms_of(1)[:2]))]
        append_systems(tmp_path / "d.h5", systems)
        set_splits(tmp_path / "d.h5", {"train": ["a"], "val": ["d"]})
        path = train(
            self.further(tmp_path / "d.h5", tmp_path / "run", short_run, phase1=SHORT, phase2=NONE), progress=False
        )
        assert list(load_model(path).basis.atoms) == list(BASIS.atoms)

    def test_elements_that_had_not_met_get_scales_in_both_stages(self, short_run, tmp_path):
        """Two H of the base are always farther apart than their orbitals reach, so its scales are next to nothing."""
        systems = []
        for seed, name in enumerate("abd"):
            atoms = atoms_of(seed)
            systems.append((name, system_of(atoms + Atoms("H", [atoms.positions[2] + [0.6, 0.5, 0.8 + 0.1 * seed]]))))
        append_systems(tmp_path / "d.h5", systems)
        set_splits(tmp_path / "d.h5", {"train": ["a", "b"], "val": ["d"]})
        config = self.further(tmp_path / "d.h5", tmp_path / "run", short_run, phase1=SHORT, phase2=SHORT)
        model, base = load_model(train(config, progress=False), "cpu"), load_model(short_run / "model.hham", "cpu")
        met = model.cascade.vocabulary.element_pairs.index((1, 1))
        for name in ("scale1", "scale2"):
            mine, before = getattr(model.cascade, name), getattr(base.cascade, name)
            assert before.knots[met, 0] == 0 < mine.knots[met, 0], name
            assert mine.log_sigma[met, 0, 3].max() > before.log_sigma[met, 0, 3].max() + 1, name
            others = torch.arange(len(mine.knots)) != met
            assert torch.equal(mine.log_sigma[others], before.log_sigma[others]), name
        assert not model.cascade.scale2.mean.any()

    def test_both_training_sets_count_as_met(self, short_run):
        """As long as no stage starts anew."""
        base = load_model(short_run / "model.hham", "cpu", "float32")
        config, known = base.cascade.config, base.cascade.domain
        atoms = atoms_of(0)
        atoms.set_cell([2.3, 2.8, 12.0])
        pairs = PairList.from_atoms(atoms, BASIS.cutoffs())
        domain = replace(known, coverage=Coverage.of([pairs]))
        both = known.coverage.union(domain.coverage)
        assert both not in (known.coverage, domain.coverage)
        wider = config.stage2.model_copy(update={"width": 12})
        for stage2, expected in ((config.stage2, both), (None, both), (wider, domain.coverage)):
            cascade, _ = start(config.model_copy(update={"stage2": stage2}), domain, base)
            assert cascade.domain.coverage == expected
        base.cascade.domain = replace(known, coverage=None)
        assert start(config, domain, base)[0].domain.coverage is None

    def test_longer_pairs_stretch_the_radial_functions(self, short_run, caplog):
        base = load_model(short_run / "model.hham", "cpu", "float32")
        domain = replace(base.cascade.domain, reach=base.cascade.domain.reach + 0.3)
        cascade, _ = start(base.cascade.config, domain, base)
        assert cascade.domain.reach == domain.reach
        assert "radial functions are stretched" in caplog.text

    def test_only_missing_scales_are_fitted(self, data_set):
        with DataSet(data_set) as data:
            cascade, _ = start(configured(data_set, Path("x")).model, domain_of(data, ["a", "b"]), None)
            graphs = graphs_of(data, ["a", "b"], cascade)
        scale = cascade.scale1
        scale.fit(graphs)
        expected = {name: tensor.clone() for name, tensor in scale.state_dict().items()}
        scale.mean[1] += 1.0
        known = scale.mean[1].clone()
        scale.knots[3], scale.mean[3] = 0.0, 7.0  # as if C had never met C
        fit_missing(scale, graphs)
        assert torch.equal(scale.mean[1], known)
        for name in ("knots", "mean", "log_sigma"):
            assert torch.equal(getattr(scale, name)[3], expected[name][3]), name


class TestMemory:
    def test_graphs_on_disk_change_nothing(self, short_run, data_set, tmp_path):
        path = train(configured(data_set, tmp_path / "run", memory_GB=2e-5), progress=False)  # a structure and a half
        assert path.read_bytes() == (short_run / "model.hham").read_bytes()

    def test_a_structure_is_read_once(self, data_set, monkeypatch):
        read = []
        original = DataSet._system
        monkeypatch.setattr(DataSet, "_system", lambda self, group: read.append(group.name) or original(self, group))
        with ReadOnce(data_set) as data:
            cascade, _ = start(configured(data_set, Path("x")).model, domain_of(data, ["a", "b"]), None)
            graphs_of(data, ["a", "b"], cascade)
            assert len(read) == 2
            assert data._kept == {}


class TestEnds:
    def stopped(self, config: TrainConfig, n_losses: int, error: Any, monkeypatch: pytest.MonkeyPatch) -> str:
        """What the command line says of a run whose loss fails at some step."""
        done = []
        original = Loss.__call__

        def loss(self: Loss, *args: Any) -> Any:
            done.append(0)
            if len(done) > n_losses:
                if isinstance(error, float):
                    return error * original(self, *args)
                raise error
            return original(self, *args)

        config.output.parent.mkdir(exist_ok=True)
        path = config.output.parent / "config.yaml"
        path.write_text(config.model_dump_json(by_alias=True), encoding="utf-8")
        shown = StringIO()
        with monkeypatch.context() as patch:
            patch.setattr(Loss, "__call__", loss)
            patch.setattr(sys, "stderr", shown)
            status = cli.main(["train", str(path)])
        assert status == (2 if isinstance(error, float) else 130)
        return [line for line in shown.getvalue().splitlines() if line.startswith("hybridham train: ")][-1]

    def test_interrupted(self, short_run, data_set, tmp_path, monkeypatch):
        """In the second epoch of phase 2, and gone on with."""
        config = configured(data_set, tmp_path / "run")
        line = self.stopped(config, 10, KeyboardInterrupt(), monkeypatch)
        assert f"phase2, interrupted in epoch 2; {config.output}/model.hham has epoch 1, " in line
        model = load_model(config.output / "model.hham")
        assert model.cascade.hybrid
        assert f"{model.metrics['phase2_valid_mae_meV']:.2f} meV" in line
        path = train(config, resume=True, progress=False)
        assert path.read_bytes() == (short_run / "model.hham").read_bytes()

    def test_not_finite(self, data_set, tmp_path, monkeypatch):
        config = configured(data_set, tmp_path / "run")
        line = self.stopped(config, 4, float("nan"), monkeypatch)
        assert "phase1, epoch 2: the loss is not finite; lower the learning rate" in line
        assert "model.hham has epoch 1" in line
        assert not load_model(config.output / "model.hham").cascade.hybrid

    def test_before_there_is_anything(self, data_set, tmp_path, monkeypatch):
        config = configured(data_set, tmp_path / "run")
        line = self.stopped(config, 1, KeyboardInterrupt(), monkeypatch)
        assert line == "hybridham train: phase1, interrupted in epoch 1"
        assert not (config.output / "model.hham").exists()

    def test_without_progress(self, data_set, tmp_path):
        """With a rate of nothing there is none after the first epoch."""
        phase = {"epochs": 9, "learning_rate": 1e-12, "stop_after": 2}
        train(configured(data_set, tmp_path / "run", phase1=phase, phase2=NONE), progress=False)
        assert [row["epoch"] for row in log_of(tmp_path / "run")] == ["1", "2", "3"]


def test_a_jump_is_taken_back(data_set, monkeypatch, caplog):
    """Weights, their average and the optimizer are those of the best epoch."""
    options = {**SHORT, "epochs": 9, "revert_after": 2, "ema": 0.5, "optimizer": "soap"}
    config = configured(data_set, Path("x"), phase1=options)
    with DataSet(data_set) as data:
        cascade, _ = start(config.model, domain_of(data, ["a", "b"]), None)
        graphs, valid = (graphs_of(data, names, cascade) for names in (["a", "b"], ["d"]))
    cascade.scale1.fit(graphs)
    phase = Phase(config.phase1, cascade.stage1, stage1_task(cascade), cascade, graphs, valid, seed=0)
    errors = iter([4.0, 9.0, 9.0, 3.9])
    monkeypatch.setattr(phase, "error", lambda: next(errors))
    phase.run_epoch()
    steps = [state["step"] for state in phase.optimizer.state_dict()["state"].values()]
    best = {name: tensor.clone() for name, tensor in phase.best.items()}
    phase.run_epoch()
    rate = phase.optimizer.param_groups[0]["lr"]
    assert not torch.equal(
        phase.module.state_dict()["node_updates.0.post.weights.0"], best["node_updates.0.post.weights.0"]
    )
    phase.run_epoch()
    assert "epoch 3: 9.00 meV is more than twice the best error, 4.00 meV; back to epoch 1" in caplog.text
    for name, tensor in phase.module.state_dict().items():
        assert torch.equal(tensor, best[name]), name
    for average, parameter in zip(phase.average.average, phase.parameters, strict=True):
        assert torch.equal(average, parameter)
    assert [state["step"] for state in phase.optimizer.state_dict()["state"].values()] == steps
    phase.run_epoch()
    assert phase.best_error == 3.9
    assert phase.optimizer.param_groups[0]["lr"] < 0.8 * rate


class TestPrecision:
    def test_bf16_rounds_stage2_and_nothing_else(self, short_run, data_set, tmp_path):
        path = train(configured(data_set, tmp_path / "run", precision="bf16"), progress=False)
        mine, exact = ([float(row["loss"]) for row in log_of(folder)] for folder in (tmp_path / "run", short_run))
        assert mine[:2] == exact[:2]  # no TF32 on a CPU
        assert mine[2:] == pytest.approx(exact[2:], rel=0.1)
        assert mine[2:] != exact[2:]
        tensors = load_file(path)
        assert tensors["stage1.node_updates.0.post.weights.0"].dtype == torch.float32
        model = load_model(path)
        with DataSet(data_set) as data:
            error = np.abs(model.predict(data.atoms("d")).values - data["d"].hamiltonian[0].values).mean()
        assert 1e3 * error == pytest.approx(model.metrics["phase2_valid_mae_meV"], rel=1e-3)  # validated as it predicts

    @pytest.mark.parametrize(("precision", "expected"), [("tf32", True), ("bf16", True), ("float32", False)])
    def test_tf32_is_for_the_run_alone(self, precision, expected, data_set, tmp_path, monkeypatch):
        seen = []
        matmul = torch.backends.cuda.matmul
        monkeypatch.setattr("ase_hybridham.train.loop.domain_of", lambda *_: seen.append(matmul.allow_tf32) or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(configured(data_set, tmp_path / "run", precision=precision), progress=False)
        assert seen == [expected]
        assert not matmul.allow_tf32


class TestShown:
    def phase_shown(self) -> None:
        with bar_of("phase1", 2, 22, progress=True) as bar:
            for epoch in range(2, 22):
                bar.within(epoch, 0.5)
                bar.after(epoch + 1, 3.0, 2.0, 1.0)

    def test_on_a_terminal(self, monkeypatch):
        class Terminal(StringIO):
            def isatty(self) -> bool:
                return True

        shown = Terminal()
        monkeypatch.setattr(sys, "stderr", shown)
        self.phase_shown()
        last = shown.getvalue().split("\r")[-1]
        assert last.startswith("phase1: 100%|")
        assert "| 22/22 epochs [00:00<00:00, train 3.00  valid 2.00  best 1.00 meV]" in last

    def test_in_a_file(self, monkeypatch, caplog):
        monkeypatch.setattr(sys, "stderr", StringIO())
        with caplog.at_level(logging.INFO, "ase_hybridham"):
            self.phase_shown()
        assert sys.stderr.getvalue() == ""
        assert len(caplog.messages) == 10
        assert caplog.messages[0].startswith("phase1  epoch 3 of 22  train 3.00  valid 2.00  best 1.00 meV  00:0")
        assert caplog.messages[0].endswith(" left")

    def test_tensorboard_is_not_there(self, data_set, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
        with pytest.raises(ImportError, match=r"tensorboard: not installed; pip install tensorboard") as caught:
            train(configured(data_set, tmp_path / "run", tensorboard=True), progress=False)
        assert "\n" not in str(caught.value)

    def test_tensorboard(self, data_set, tmp_path):
        pytest.importorskip("tensorboard")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        train(configured(data_set, tmp_path / "run", tensorboard=True, phase2=NONE), progress=False)
        events = EventAccumulator(str(tmp_path / "run/tensorboard"))
        events.Reload()
        shown = [event.value for event in events.Scalars("phase1/valid_mae_meV")]
        assert shown == pytest.approx([float(row["valid_mae_meV"]) for row in log_of(tmp_path / "run")], rel=1e-4)
