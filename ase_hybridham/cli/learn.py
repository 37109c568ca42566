"""hybridham learn: DFT where networks disagree, until the error is small enough."""

import argparse
import json
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase import Atoms

    from ase_hybridham.scf import Engine
    from ase_hybridham.system import LCAOSystem
    from ase_hybridham.train import Learned, Round

HEAD = f"{'round':>5}{'structures':>11}{'atoms':>7}{'val MAE':>9}{'spread':>8}{'largest':>9}{'DFT s':>8}{'train s':>9}"
STOPPED = {
    "goal": "the goal is reached",
    "budget": "the budget is spent; raise it and --resume to go on",
    "candidates": "all candidates are computed; make more with `hybridham sample`",
}
PICTURE = "learn.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG.yaml", help="options; all of them are listed in docs/learn.md")
    parser.add_argument("override", nargs="*", metavar="key=value", help="goes before the file: budget=60")
    parser.add_argument("--resume", action="store_true", help="go on where a stopped run of the same options stood")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="structures computed at a time (1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Pick, compute, train, round by round. Status 1 if the goal was not reached."""
    from ase.calculators.calculator import CalculatorSetupError

    from ase_hybridham import __version__
    from ase_hybridham.cli.dft import read_structures
    from ase_hybridham.train import LearnConfig, learn, read_options

    if args.jobs < 1:
        raise ValueError(f"--jobs: expected at least 1, got {args.jobs}")
    config = read_options(LearnConfig, args.config, args.override)
    candidates = read_structures([config.candidates])
    validation = None if config.validation is None else read_structures([config.validation])
    engine = _engine(config.dft)
    structures = {**candidates, **(validation or {})}
    rounds: list[Round] = []

    def tell(done: "Round") -> None:
        rounds.append(done)
        _draw(rounds, config.goal_meV, config.output / PICTURE)
        if not args.json:
            print(*([HEAD] if len(rounds) == 1 else []), _row(len(rounds), done), sep="\n", flush=True)

    try:
        # the grids of all, so that they do not depend on what is picked
        engines = dict(zip(structures, engine.for_structures(list(structures.values())), strict=True))
        learned = learn(
            config,
            candidates,
            lambda todo: _computed(todo, engines, args.jobs),
            validation,
            provenance={"made_by": f"hybridham learn {__version__}", "engine": engine.settings()},
            resume=args.resume,
            tell=tell,
        )
    except CalculatorSetupError as error:
        raise ValueError(str(error)) from error
    print(json.dumps(learned.to_dict()) if args.json else _summary(learned))
    return 0 if learned.stopped == "goal" else 1


def _engine(settings: Mapping[str, Any]) -> "Engine":
    """The engine that the option dft describes."""
    from ase_hybridham.cli.dft import ENGINES

    given = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    name = given.pop("engine", "pyscf")
    if name not in ENGINES:
        raise ValueError(f"dft.engine: expected one of {', '.join(ENGINES)}, got {name!r}")
    kind = getattr(import_module("ase_hybridham.scf"), ENGINES[name][0])
    unknown = sorted(set(given) - set(kind.__dataclass_fields__))
    if unknown:
        known = ", ".join(kind.__dataclass_fields__)
        raise ValueError(f"dft.{unknown[0]}: not a setting of the engine {name}, which has {known}")
    try:
        engine: Engine = kind(**given)
    except TypeError as error:  # a word where a number belongs
        raise ValueError(f"dft: {error}") from error
    return engine


def _computed(
    todo: Mapping[str, "Atoms"], engines: Mapping[str, "Engine"], jobs: int
) -> Iterator[tuple[str, "LCAOSystem | None", float]]:
    """As `learn` takes it, by what `hybridham dft` does."""
    from ase_hybridham.cli.dft import computed

    failed: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for name, system in computed({name: (engines[name], atoms) for name, atoms in todo.items()}, jobs, failed, seconds):
        yield name, system, seconds[name]
    for name in failed:
        yield name, None, 0.0


def _draw(rounds: list["Round"], goal: float, path: Path) -> None:
    from ase_hybridham.plot import plot_learning, save_figure

    points = [(done.n_structures, done.mae_meV) for done in rounds]
    save_figure(plot_learning({"model": points}, goal=goal), path)


def _row(number: int, done: "Round") -> str:
    spreads = [f"{s:.2f}" if s is not None else "-" for s in (done.spread_meV, done.largest_spread_meV)]
    return (
        f"{number:5d}{done.n_structures:11d}{done.n_atoms:7d}{done.mae_meV:9.2f}{spreads[0]:>8}{spreads[1]:>9}"
        f"{done.dft_s:8.1f}{done.train_s:9.1f}"
    )


def _summary(learned: "Learned") -> str:
    lines = [f"errors in meV, CPU s; {STOPPED[learned.stopped]}"]
    if learned.failed:
        lines.append(f"did not converge and left out: {', '.join(learned.failed)}")
    return "\n".join([*lines, str(learned.model)])
