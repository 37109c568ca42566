"""Runs that are killed, and runs of several processes, end like one that nothing disturbed in one process."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ase_hybridham.train import TrainConfig, train
from ase_hybridham.train.distributed import Workers
from tests.train.synthetic import OPTIONS

ROOT = Path(__file__).parents[2]
PHASE = {"epochs": 5, "learning_rate": 1e-2, "warmup_steps": 2}


def configured(data: Path, output: Path, **changes: Any) -> TrainConfig:
    return TrainConfig(data=data, output=output, **{**OPTIONS, "phase1": PHASE, "phase2": PHASE, **changes})


def write(config: TrainConfig, path: Path) -> str:
    path.write_text(config.model_dump_json(by_alias=True), encoding="utf-8")
    return str(path)


def python(arguments: list[str]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def log_of(folder: Path) -> list[list[str]]:
    with (folder / "log.csv").open(newline="") as file:
        return [row[:-1] for row in csv.reader(file)]  # without seconds


KILLER = """
import os, random, signal, sys, time
from pathlib import Path
from ase_hybridham.train import TrainConfig, log, train

config = TrainConfig.model_validate_json(Path(sys.argv[1]).read_text())
log.STATE_INTERVAL = 0.0
rows = config.output / "log.csv"
random.seed(int(sys.argv[2]))

def started():
    child = os.fork()
    if child == 0:
        train(config, resume=True, progress=False)
        os._exit(0)
    return child

for n_rows in (0, 2, 4, 6, 8):  # of ten: the last kill has two epochs to hit
    child = started()
    while rows.exists() is False or rows.read_text().count("\\n") < 1 + n_rows:
        time.sleep(0.001)
    time.sleep(random.uniform(0.0, 0.03))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), n_rows
_, status = os.waitpid(started(), 0)
assert status == 0
"""


def test_killed_at_any_moment(data_set, tmp_path):
    """Averaged weights, SOAP, a schedule that looks back, steps of random size; nothing left behind."""
    changes = {
        "phase1": {**PHASE, "ema": 0.5, "optimizer": "soap", "refresh": 3, "edges_per_batch": 60},
        "phase2": {**PHASE, "ema": 0.5, "optimizer": "soap", "schedule": "plateau", "patience": 1, "revert_after": 1},
    }
    whole = train(configured(data_set, tmp_path / "whole", **changes), progress=False)
    config = configured(data_set, tmp_path / "killed", **changes)
    python(["-c", KILLER, write(config, tmp_path / "config.json"), "0"])
    assert (tmp_path / "killed/model.hham").read_bytes() == whole.read_bytes()
    assert log_of(tmp_path / "killed") == log_of(tmp_path / "whole")
    assert {path.name for path in (tmp_path / "killed").iterdir()} == {"model.hham", "log.csv", "state.pt"}


WORKER = """
import os, sys
from pathlib import Path
from ase_hybridham.train import TrainConfig, log, loop, train

if os.environ["RANK"] != "0":
    def refused(*args):
        raise AssertionError("a file is written by another process than the first")
    log.written_atomically = loop.save_model = refused
whole, first = (TrainConfig.model_validate_json(Path(path).read_text()) for path in sys.argv[1:])
train(whole, progress=False)
class PowerCut(Exception):
    pass
def stop(*args):
    raise PowerCut
loop._Run._prepare_phase2 = stop
try:
    train(first, progress=False)
except PowerCut:
    pass
"""


def test_two_processes_are_one(data_set, tmp_path):
    """Steps of two structures and of one; turned copies; what two began one goes on with."""
    model = {**OPTIONS["model"], "dtype": "float64"}
    model["stage2"] = {**model["stage2"], "frame": "global"}
    phase = {**PHASE, "epochs": 3, "batch_size": 2}
    changes = {"model": model, "phase1": {**phase, "clip": 0.5}, "phase2": {**phase, "ema": 0.5}}
    one = train(configured(data_set, tmp_path / "one", **changes), progress=False)
    two, begun = (configured(data_set, tmp_path / name, **changes) for name in ("two", "begun"))
    (tmp_path / "worker.py").write_text(WORKER)
    files = [write(two, tmp_path / "two.json"), write(begun, tmp_path / "begun.json")]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    python([*launcher, str(tmp_path / "worker.py"), *files])
    resumed = train(begun, resume=True, progress=False)
    expected = load_file(one)
    for path in (two.output / "model.hham", resumed):
        found = load_file(path)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-8, msg=name)
        assert len(log_of(path.parent)) == 7
    for mine, theirs in zip(log_of(two.output)[1:], log_of(one.parent)[1:], strict=True):
        assert [float(x) for x in mine[1:]] == pytest.approx([float(x) for x in theirs[1:]], rel=1e-5)


@pytest.mark.parametrize("weights", [[1], [5, 1], [3, 3, 3], [9, 1, 1, 1], [1] * 7, [1, 9]], ids=str)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_shares_are_all_and_about_equal(weights, size):
    shares = [Workers(rank, size).share(weights) for rank in range(size)]
    assert [k for share in shares for k in range(len(weights))[share]] == list(range(len(weights)))
    loads = [sum(weights[share]) for share in shares]
    assert max(loads) <= sum(weights) / size + max(weights)
