"""examples/reproduce_paper: the driver does every run once, goes on where it was stopped, and its table is right."""

import csv
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

from ase_hybridham.io import write_deeph
from ase_hybridham.model import load_model, save_model
from ase_hybridham.store import DataSet
from ase_hybridham.train import TrainConfig
from tests.train.synthetic import OPTIONS, atoms_of, system_of

FOLDER = Path(__file__).parents[1] / "examples/reproduce_paper"
STUDIES = sorted([*FOLDER.glob("*.yaml"), *FOLDER.glob("public/*.yaml")])


@pytest.fixture(scope="module")
def modules() -> dict[str, ModuleType]:
    """The files of the example, which import each other by name."""
    sys.path.insert(0, str(FOLDER))
    try:
        import report
        import run
        import study
    finally:
        sys.path.remove(str(FOLDER))
    return {"run": run, "report": report, "study": study}


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """Structures with numbers, and one apart, in DeepH's layout; a small study of them."""
    folder = tmp_path_factory.mktemp("raw")
    for number in (0, 1, 2, 3, 7):
        write_deeph(system_of(atoms_of(number)), folder / f"layers/{number:03d}")
    write_deeph(system_of(atoms_of(20)), folder / "other")
    content = {
        "title": "layers",
        "data": {"folder": "layers", "valence": {"C": 4, "H": 1}, "tests": {"other": "other"}},
        "seconds": {"phase1": 0.6, "phase2": 0.5},
        "training": {
            "device": "cpu",
            **{key: {k: v for k, v in OPTIONS[key].items() if k != "epochs"} for key in OPTIONS if key != "device"},
        },
        "restart": {"learning_rate": 0.005},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(content))
    return folder


def words(raw: Path, *more: str) -> list[str]:
    return [str(raw / "small.yaml"), "--data", str(raw), "--work", str(raw / "work"), *more]


@pytest.fixture(scope="module")
def done(modules, raw) -> dict:
    """The whole table of one seed."""
    modules["run"].main(words(raw, "--seeds", "0", "--results", str(raw / "results.json"), "--json"))
    return json.loads((raw / "results.json").read_text())


def test_control_and_hybrid_start_from_the_same_stage_1(done, raw):
    rows = {row["variant"]: row for row in done["rows"]}
    assert list(rows) == ["stage1", "control", "edge", "global"]
    assert all(row["tests"].keys() == {"test", "other"} for row in rows.values())
    names = ("stage1-seed0", "stage1-seed0-more1", "edge-seed0", "global-seed0")
    start, more, *hybrids = (load_model(raw / f"work/small/{name}/model.hham") for name in names)
    for hybrid in hybrids:
        state = hybrid.cascade.stage1.state_dict()
        assert all((state[key] == tensor).all() for key, tensor in start.cascade.stage1.state_dict().items())
    assert [hybrid.cascade.config.stage2.frame for hybrid in hybrids] == ["edge", "global"]
    for model in (more, *hybrids):
        assert model.provenance["init"]["metrics"] == start.metrics
    log = (raw / "work/small" / names[1] / "log.csv").read_text()
    rates = [float(row["learning_rate"]) for row in csv.DictReader(log.splitlines())]
    assert 0 < max(rates) <= 0.005  # of `restart`
    assert rows["edge"]["epochs"]["phase1"] == rows["control"]["epochs"]["phase2"] == 0
    assert min(rows[key]["epochs"]["phase1"] for key in ("stage1", "control")) > 0


def test_what_is_done_is_not_done_again(done, modules, raw, monkeypatch, capsys):
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("trained again")

    with monkeypatch.context() as patch:
        patch.setattr(modules["run"], "train", refuse)
        modules["run"].main(words(raw, "--seeds", "0", "--latex", str(raw / "t.tex"), "--figure", str(raw / "t.png")))
        with pytest.raises(AssertionError, match="trained again"):
            modules["run"].main(words(raw, "--seeds", "1"))
    with pytest.raises(ValueError, match="stage1-seed0: holds a run with other options"):
        modules["run"].main(words(raw, "--seeds", "0", "--phase1", "1e6"))
    assert "| hybrid, frame: global |" in capsys.readouterr().out
    assert r"\begin{tabular}{lrrrrrr}" in (raw / "t.tex").read_text()
    assert (raw / "t.png").read_bytes().startswith(b"\x89PNG")


def test_killed_driver_goes_on_from_a_given_stage_1(done, modules, raw):
    start = raw / "work/small/stage1-seed0/model.hham"
    more = f"--seeds 2 --variants --start {start} --phase2 1.5 --results {raw / 'again.json'}"
    given = words(raw, *more.split())
    code = f"""
import os, sys
sys.path.insert(0, {str(FOLDER)!r})
import run
from ase_hybridham.train import log
from ase_hybridham.train.phase import Phase
log.STATE_INTERVAL = 0
original, steps = Phase.run_epoch, []
def run_epoch(self, *args):
    steps.append(0)
    if len(steps) > run.FEW + run.MANY + 1:
        os.kill(os.getpid(), 9)
    return original(self, *args)
Phase.run_epoch = run_epoch
run.main({given!r})
"""
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parents[1])}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert ended.returncode == -9
    assert (raw / "work/small/stage1-seed2-more1/state.pt").exists()
    modules["run"].main(given)
    rows = {row["variant"]: row for row in json.loads((raw / "again.json").read_text())["rows"]}
    assert list(rows) == ["stage1", "control"]
    assert rows["stage1"]["tests"] == next(row["tests"] for row in done["rows"] if row["variant"] == "stage1")


def rows_of(**errors: list[float]) -> list[dict]:
    return [
        {
            "variant": variant,
            "seed": seed,
            "cpu_s": 60.0,
            "valid_meV": value,
            "tests": {"test": {"mae_all": value, "mae_cha": 2 * value}},
        }
        for variant, values in errors.items()
        for seed, value in enumerate(values)
    ]


def test_table_has_means_deviations_and_ratios_to_the_control(modules):
    rows = rows_of(edge=[0.6, 1.2], stage1=[2.0, 4.0], control=[1.0, 3.0])
    table = modules["report"].Table("title", rows)
    assert table.cells() == (
        ["meV", "test MAE_all", "MAE_cha", "/ control"],
        [
            ["stage 1", "3.00 ± 1.41", "6.00 ± 2.83", "1.67"],
            ["stage 1, trained on for as long", "2.00 ± 1.41", "4.00 ± 2.83", "1.00"],
            ["hybrid, frame: edge", "0.900 ± 0.424", "1.80 ± 0.85", "0.50"],
        ],
    )
    assert table.plateau() == pytest.approx(0.375)
    assert "2 seeds, 6 CPU minutes; as much time again lowers stage 1's validation error by 38 %" in table.markdown()
    assert table.to_dict()["means"]["edge"]["test"]["mae_cha"] == pytest.approx(1.8)
    again = modules["report"].merged(rows, rows_of(edge=[5.0])[0])
    assert len(again) == len(rows)
    assert modules["report"].Table("", again).values("edge", "test", "mae_all") == {0: 5.0, 1: 1.2}


def test_splits_by_number_and_by_shares(modules):
    splits_of = modules["study"].splits_of
    names = [f"{n:03d}" for n in range(16)]
    splits = splits_of(names, "id % 8", 4)
    assert splits == {"train": names[:3] + names[4:5], "val": ["007", "015"], "test": ["003", "011"]}
    shares = splits_of(names, {"train": 0.5, "val": 0.25, "test": 0.25})
    assert [len(shares[kind]) for kind in ("train", "val", "test")] == [8, 4, 4]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_variant_of_every_study_is_a_configuration(path, modules, tmp_path):
    study = modules["study"].Study(path, tmp_path, tmp_path)
    for variant in [None, *modules["study"].VARIANTS.values()]:
        options = study.options(tmp_path, 0, variant)
        config = TrainConfig(**options)
        assert (config.model.stage2 is None) == (variant is None)
    restart = {**options["phase1"], **study.settings["restart"]}
    assert TrainConfig(**{**options, "phase1": restart}).phase1.learning_rate < config.phase1.learning_rate
    assert np.isfinite(list(study.settings["seconds"].values())).all()


def test_results_in_the_repository_are_readable(modules):
    for path in (FOLDER / "results").glob("*.json"):
        rows = modules["report"].read(path)
        assert rows, path
        assert path.stat().st_size < 500_000


def test_error_bars_of_bands_are_measured(trained_bilayers, tmp_path, capsys, monkeypatch):
    import torch

    folder, first = trained_bilayers[0], trained_bilayers[0] / "runs/bilayers/model.hham"
    model = load_model(first, device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.cascade.parameters():
            weight.mul_(1 + 0.01 * torch.randn_like(weight))
    save_model(tmp_path / "second.hham", model)
    data, picture = folder / "bilayers.h5", tmp_path / "errors.png"
    words = [first, tmp_path / "second.hham", "--data", f"{data}:test", "--training", f"{data}:train", "--npoints", 3]
    monkeypatch.setattr("sys.argv", ["error_bars.py", *map(str, words), "-o", str(picture)])
    runpy.run_path(str(FOLDER / "error_bars.py"), run_name="__main__")
    found = re.search(r"^bilayers.h5:test +(\d+) +(\d+)  width +(\S+)  error +(\S+)  factor", capsys.readouterr().out)
    with DataSet(data) as opened:
        assert int(found[1]) == len(opened.split("test"))
    assert int(found[2]) > 10
    assert float(found[3]) > 0.1
    assert picture.read_bytes().startswith(b"\x89PNG")
