"""The paper's table on data of your own: both phases over seeds, the fair control, and what every part is worth.

    python examples/reproduce_paper/run.py STUDY.yaml --data FOLDER [--seeds 0 1 2] [--variants edge global]

STUDY.yaml is one of those beside this file (README.md tells its keys), FOLDER holds the structures it names. All runs
are kept in --work: called again, this goes on where it was stopped, and adds what is new of seeds and variants. The
table goes to stdout (with --json one JSON object), the figures behind it to --results.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # its neighbors, however it is run

import report
from study import MAIN, VARIANTS, Study, Variant
from tqdm import tqdm

from ase_hybridham.files import written_atomically
from ase_hybridham.model import load_model, read_metadata
from ase_hybridham.store import DataSet, append_systems, set_splits
from ase_hybridham.train import TrainConfig, evaluate, train

FEW, MANY = 1, 4  # epochs of a probe: the difference is that of three, without reading and evaluation
PROBE_SIZE = 6
PLATEAU = 0.05  # stage 1 is there if as much time again gains less
FIGURES = ("onsite_mae", "hopping_mae", "gauge_free_mae")


class Runs:
    """The runs of a study; each is done once.

    Parameters
    ----------
    study : Study
    seconds : dict
        CPU time of `phase1` and `phase2`.
    start : Path, optional
        A trained stage 1 to begin with, the same for all seeds; it takes the place of phase 1.
    """

    def __init__(self, study: Study, seconds: dict[str, float], start: Path | None = None) -> None:
        self.study, self.seconds, self.start = study, seconds, start
        if start is not None:
            study.settings["training"]["model"]["stage1"] = read_metadata(start)["config"]["stage1"]
        self.costs_file = study.folder / "costs.json"
        self.costs = json.loads(self.costs_file.read_text()) if self.costs_file.exists() else {}

    def stage1(self, seed: int, rounds: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Stage 1 at its plateau, or after so many rounds of more training; and the control: one more."""
        if self.start is None:
            before = self.run(f"stage1-seed{seed}", seed, None, phase1=self.seconds["phase1"])
        else:
            before = self.run(f"stage1-seed{seed}", seed, None, {"init": str(self.start)})
        for number in range(1, rounds + 1):
            after = self.more(f"stage1-seed{seed}-more{number}", seed, before)
            if after["valid_meV"] > (1 - PLATEAU) * before["valid_meV"] or number == rounds:
                break
            before = after
        return before, after

    def more(self, name: str, seed: int, start: dict[str, Any]) -> dict[str, Any]:
        """Stage 1 trained on, as long as stage 2 is, with a rate of its own that again ends at zero."""
        changes = {"init": start["checkpoint"]}
        return self.run(name, seed, None, changes, phase1=self.seconds["phase2"], restart=True)

    def hybrid(self, key: str, seed: int, start: dict[str, Any]) -> dict[str, Any]:
        """A second stage on a stage 1."""
        variant = VARIANTS[key]
        if variant.own_stage1:
            return self.run(f"{key}-seed{seed}", seed, variant, **self.seconds)
        changes = {"init": start["checkpoint"]}
        return self.run(f"{key}-seed{seed}", seed, variant, changes, phase2=self.seconds["phase2"])

    def run(
        self,
        name: str,
        seed: int,
        variant: Variant | None,
        changes: dict[str, Any] | None = None,
        *,
        phase1: float = 0.0,
        phase2: float = 0.0,
        restart: bool = False,
    ) -> dict[str, Any]:
        """Train for so many CPU seconds and evaluate, unless that was done before."""
        folder = self.study.folder / name
        result = folder / "result.json"
        options = {**self.study.options(folder, seed, variant), **(changes or {})}
        if restart:
            options["phase1"] = {**options.get("phase1", {}), **self.study.settings.get("restart", {})}
        budget = {"phase1": phase1, "phase2": phase2}
        for phase, seconds in budget.items():
            epochs = max(1, round(seconds / self.cost(phase, options))) if seconds else 0
            options[phase] = {**options.get(phase, {}), "epochs": epochs}
        digest = digest_of(options)
        if result.exists():
            known = json.loads(result.read_text())
            if known.get("options") != digest:
                raise ValueError(f"{folder}: holds a run with other options; remove it, or choose another --work")
            return known
        with cpu_time(folder / "cpu_s"):
            path = train(TrainConfig(**options), resume=True)
        metrics = read_metadata(path)["metrics"]
        figures = {
            "name": name,
            "seed": seed,
            "options": digest,
            "checkpoint": str(path),
            "budget_s": {phase: seconds for phase, seconds in budget.items() if seconds},
            "epochs": {phase: options[phase]["epochs"] for phase in budget},
            "cpu_s": round(float((folder / "cpu_s").read_text()), 1),
            "valid_meV": metrics[f"phase{2 if phase2 else 1}_valid_mae_meV"],
            "tests": self.evaluate(path),
        }
        write_json(result, figures)
        return figures

    def cost(self, phase: str, options: dict[str, Any]) -> float:
        """CPU seconds of one epoch of a phase, measured on a few structures; kept, so that a run can be resumed."""
        key = json.dumps([phase, options["model"], options.get(phase)], sort_keys=True, default=str)
        if key not in self.costs:
            data, share = self.probe_data()
            spent = []
            for epochs in (FEW, MANY):
                short = {**options, "data": data, "output": self.study.folder / f"probe{epochs}"}
                short.pop("init", None)
                for other in ("phase1", "phase2"):
                    short[other] = {**options.get(other, {}), "epochs": epochs if other == phase else 0}
                for file in short["output"].glob("*"):
                    file.unlink()
                began = time.process_time()
                train(TrainConfig(**short), progress=False)
                spent.append(time.process_time() - began)
            self.costs[key] = max(spent[1] - spent[0], 1e-3) / (MANY - FEW) / share
            write_json(self.costs_file, self.costs)
        return self.costs[key]

    def probe_data(self) -> tuple[Path, float]:
        """A few structures of the training split, and their share of its hoppings."""
        path = self.study.folder / "probe.h5"
        with DataSet(self.study.data) as data:
            names, valid = data.split("train"), data.split("val")[:1]
            few = names[:: max(1, len(names) // PROBE_SIZE)][:PROBE_SIZE]
            if not path.exists():
                with written_atomically(path) as temporary:
                    temporary.unlink()
                    append_systems(temporary, [(name, data[name]) for name in [*few, *valid]])
                    set_splits(temporary, {"train": few, "val": valid})
            count = {name: data[name].pairs.n_hoppings for name in names}
        return path, sum(count[name] for name in few) / sum(count.values())

    def evaluate(self, path: Path) -> dict[str, dict[str, dict[str, float | None]]]:
        """Test -> stage -> errors in meV."""
        model, out = load_model(path), {}
        for test, (file, split) in self.study.tests.items():
            with DataSet(file) as data:
                names = data.names if split == "all" else data.split(split)
                errors = evaluate(model, data, names, bands=False, progress=True)
            out[test] = {
                stage: {
                    "mae_all": errors.mae_all(stage),
                    "mae_cha": errors.mae_cha(stage),
                    **{figure: errors.mean_of(stage, figure) for figure in FIGURES},
                }
                for stage in errors.stages
                if stage != "mean"
            }
        return out


@contextmanager
def cpu_time(path: Path) -> Iterator[None]:
    """Adds the CPU seconds of the block to a file, whatever ends it, so that those of a resumed run are known."""
    before = float(path.read_text()) if path.exists() else 0.0
    began = time.process_time()
    try:
        yield
    finally:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{before + time.process_time() - began:.3f}")


def digest_of(options: dict[str, Any]) -> str:
    """Tells whether two runs are the same, wherever they lie; what they start from counts by what it predicts."""
    kept = {key: value for key, value in options.items() if key not in ("data", "output", "init")}
    start = read_metadata(options["init"])["probe"] if "init" in options else None
    return hashlib.sha256(json.dumps([kept, start], sort_keys=True, default=str).encode()).hexdigest()[:16]


def write_json(path: Path, content: Any) -> None:
    with written_atomically(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def row_of(key: str, run: dict[str, Any], stage: str, tests: Sequence[str]) -> dict[str, Any]:
    """A run as it is kept beside the table: without paths, five digits."""
    kept = {name: run[name] for name in ("seed", "budget_s", "epochs", "cpu_s")}
    errors = {
        test: {figure: value and float(f"{value:.5g}") for figure, value in run["tests"][test][stage].items()}
        for test in tests
    }
    return {"variant": key, **kept, "valid_meV": float(f"{run['valid_meV']:.5g}"), "tests": errors}


def reproduce(study: Study, runs: Runs, seeds: Sequence[int], keys: Sequence[str], rounds: int) -> Iterator[dict]:
    """Rows of the table, as they come."""
    with tqdm(total=len(seeds) * (2 + len(keys)), desc=study.name, unit="run", disable=None) as bar:
        for seed in seeds:
            start, control = runs.stage1(seed, rounds)
            for key, run in (("stage1", start), ("control", control)):
                bar.update()
                yield row_of(key, run, "stage1", list(study.tests))
            for key in keys:
                run = runs.hybrid(key, seed, start)
                bar.update()
                if VARIANTS[key].own_stage1:
                    yield row_of(f"{key}-stage1", run, "stage1", list(study.tests))
                yield row_of(key, run, "hybrid", list(study.tests))


def curve(study: Study, runs: Runs, seconds: Sequence[float], seed: int) -> Iterator[dict]:
    """Stage 1 from nothing in so many CPU seconds, its rate annealed to each: what others are compared with."""
    for budget in seconds:
        run = runs.run(f"curve-{budget:g}-seed{seed}", seed, None, phase1=budget)
        yield row_of(f"curve-{budget:g}", run, "stage1", list(study.tests))


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path, metavar="STUDY.yaml")
    parser.add_argument("--data", type=Path, required=True, help="folder with the folders of structures")
    parser.add_argument("--work", type=Path, default=Path("reproduced"), help="runs are kept here")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="*", default=list(MAIN), choices=[*VARIANTS, "all"], metavar="VARIANT")
    parser.add_argument("--phase1", type=float, metavar="S", help="CPU seconds of phase 1 instead of the study's")
    parser.add_argument("--phase2", type=float, metavar="S", help="the same of phase 2, and of the control")
    parser.add_argument("--start", type=Path, metavar="CKPT", help="a stage 1 trained on the same split: no phase 1")
    parser.add_argument("--rounds", type=int, default=1, help="stage 1 is trained on at most so often for its plateau")
    parser.add_argument("--curve", type=float, nargs="+", metavar="S", help="instead: stage 1 in so many CPU seconds")
    parser.add_argument("--results", type=Path, help="JSON file of all rows; rows of other seeds in it are kept")
    parser.add_argument("--latex", type=Path, help="the table for a paper")
    parser.add_argument("--figure", type=Path, help="a picture of it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    args = arguments().parse_args(words)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    study = Study(args.study, args.data, args.work)
    study.convert()
    given = {"phase1": args.phase1, "phase2": args.phase2}
    seconds = {**study.settings["seconds"], **{k: v for k, v in given.items() if v is not None}}
    runs = Runs(study, seconds, args.start)
    keys = list(VARIANTS) if "all" in args.variants else args.variants
    results = args.results or study.folder / "results.json"
    rows = report.read(results)
    made = (
        curve(study, runs, args.curve, args.seeds[0])
        if args.curve
        else reproduce(study, runs, args.seeds, keys, args.rounds)
    )
    for row in made:
        rows = report.merged(rows, row)
        write_json(results, {"title": study.settings["title"], "rows": rows})
    table = report.Table(study.settings["title"], rows)
    if args.latex:
        args.latex.write_text(table.latex(), encoding="utf-8")
    if args.figure:
        table.figure(args.figure)
    print(json.dumps(table.to_dict()) if args.json else table.markdown())


if __name__ == "__main__":
    main()
