"""How many DFT calculations does `hybridham learn` save against picking at random?

    OMP_NUM_THREADS=1 python -m tests.benchmarks.learn_saves [DATA.h5] [--seeds N] [--epochs N] [--picture FILE]

Candidates and validation are the splits train and val of a data set (the one that ships with the package), so that DFT
has been done already and only its seconds are missing. Both ways start from the same structures and train networks of
the same seeds, stage 1 alone.
"""

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ase_hybridham import cli
from ase_hybridham.plot import plot_learning, save_figure
from ase_hybridham.store import DataSet
from ase_hybridham.system import LCAOSystem
from ase_hybridham.train import LearnConfig, Round, learn

SHIPPED = Path(cli.__file__).parents[1] / "data/demo_graphene.h5"
WAYS = ("spread", "random")
STAGE1 = {"irreps": "12x0e+8x1o+5x2e", "n_blocks": 2, "n_gaussians": 48, "radial_width": 32}


def rounds_of(way: str, seed: int, data: DataSet, options: Mapping[str, Any]) -> list[Round]:
    """What happened in a run."""

    def compute(todo: Mapping[str, Atoms]) -> Iterator[tuple[str, LCAOSystem, float]]:
        for name in todo:
            yield name, data[name], 0.0

    candidates, validation = ({name: data.atoms(name) for name in data.split(split)} for split in ("train", "val"))
    with tempfile.TemporaryDirectory() as folder:
        config = LearnConfig(candidates="", output=Path(folder, "run"), pick=way, seed=seed, goal_meV=1e-9, **options)
        return learn(config, candidates, compute, validation, progress=False).rounds


def main() -> None:
    """Print a table of validation errors, mean over members, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", default=SHIPPED)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--start", type=int, default=6)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--budget", type=int, default=24)
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--picture", metavar="FILE")
    arguments = parser.parse_args()
    phase = {"epochs": arguments.epochs, "learning_rate": 2e-2, "warmup_steps": 10}
    options = {name: getattr(arguments, name) for name in ("start", "batch", "budget", "members")}
    options["train"] = {"model": {"stage1": STAGE1, "stage2": None}, "phase1": phase, "device": "cpu"}
    curves: dict[str, list[list[Round]]] = {way: [] for way in WAYS}
    print(f"{'seed':>4}{'pick':>8}  validation MAE in meV, mean over members, at the number of structures (atoms)")
    with DataSet(arguments.data) as data:
        for seed in range(arguments.seeds):
            for way in WAYS:
                rounds = rounds_of(way, seed, data, options)
                curves[way].append(rounds)
                figures = (f"{np.mean(r.members_meV):7.2f} at {r.n_structures} ({r.n_atoms})" for r in rounds)
                print(f"{seed:4d}{way:>8}", *figures, flush=True)
    points = {}
    for way, runs in curves.items():
        means = [np.mean([np.mean(r.members_meV) for r in same]) for same in zip(*runs, strict=True)]
        points[way] = [(r.n_structures, float(mean)) for r, mean in zip(runs[0], means, strict=True)]
        print(f"mean{way:>8}", *(f"{mean:7.2f} at {n}" for n, mean in points[way]))
    if arguments.picture:
        save_figure(plot_learning(points), arguments.picture)


if __name__ == "__main__":
    main()
