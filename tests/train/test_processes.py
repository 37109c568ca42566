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

from ase_hybridham.train import PhaseConfig, TrainConfig, train
from ase_hybridham.train.distributed import Workers
from ase_hybridham.train.loop import enough_for
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
from ase_hybridham.train.phase import Phase

class PowerCut(Exception):
    pass

def refused(*args):
    raise AssertionError("a file is written by another process than the first")

def run_epoch(self, *args):
    if self.augment and self.epoch == 2:
        raise PowerCut
    return original(self, *args)

log.STATE_INTERVAL, original, Phase.run_epoch = 0.0, Phase.run_epoch, run_epoch
if os.environ["RANK"] != "0":
    log.written_atomically = loop.save_model = refused
try:
    train(TrainConfig.model_validate_json(Path(sys.argv[1]).read_text()), progress=False)
except PowerCut:
    sys.exit()
sys.exit("the run did not stop")
"""


def test_two_processes_are_one(data_set, tmp_path):
    """Steps of two structures and of one; turned copies; in phase 2 one goes on with what two began."""
    model = {**OPTIONS["model"], "dtype": "float64"}
    model["stage2"] = {**model["stage2"], "frame": "global"}
    # SOAP takes its first basis from one gradient, whose null space is rounding
    phase = {**PHASE, "epochs": 3, "batch_size": 2, "optimizer": "adamw"}
    changes = {"model": model, "phase1": {**phase, "clip": 0.5}, "phase2": {**phase, "ema": 0.5}}
    one = train(configured(data_set, tmp_path / "one", **changes), progress=False)
    config = configured(data_set, tmp_path / "two", **changes)
    (tmp_path / "worker.py").write_text(WORKER)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    python([*launcher, str(tmp_path / "worker.py"), write(config, tmp_path / "config.json")])
    assert [row[:2] for row in log_of(config.output)[-2:]] == [["phase2", "1"], ["phase2", "2"]]
    two = train(config, resume=True, progress=False)
    found, expected = load_file(two), load_file(one)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-8, msg=name)
    rows, others = log_of(two.parent)[1:], log_of(one.parent)[1:]
    assert len(rows) == len(others) == 6
    for mine, theirs in zip(rows, others, strict=True):
        assert mine[0] == theirs[0]
        assert [float(x) for x in mine[1:]] == pytest.approx([float(x) for x in theirs[1:]], rel=1e-5)


def test_no_process_is_idle(data_set, tmp_path):
    config = configured(data_set, tmp_path / "run", phase2={**PHASE, "batch_size": 3})
    enough_for(config, Workers(0, 1))
    with pytest.raises(ValueError, match=r"phase1\.batch_size: expected at least one .* each of 2 processes, got 1"):
        enough_for(config, Workers(0, 2))
    first = {**PHASE, "edges_per_batch": 9}
    enough_for(config.model_copy(update={"phase1": PhaseConfig(**first)}), Workers(0, 3))


@pytest.mark.parametrize("weights", [[1], [5, 1], [3, 3, 3], [9, 1, 1, 1], [1] * 7, [1, 9]], ids=str)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_shares_are_all_and_about_equal(weights, size):
    shares = [Workers(rank, size).share(weights) for rank in range(size)]
    assert [k for share in shares for k in range(len(weights))[share]] == list(range(len(weights)))
    loads = [sum(weights[share]) for share in shares]
    assert max(loads) <= sum(weights) / size + max(weights)
