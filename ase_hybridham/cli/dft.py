"""hybridham dft: run DFT on structures and store H and S in a data set."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase import Atoms

    from ase_hybridham.scf import Engine
    from ase_hybridham.store import DataSet
    from ase_hybridham.system import LCAOSystem

# engine -> its class in `scf`, and the library whose threads are to be limited
ENGINES = {
    "pyscf": ("PySCFEngine", "pyscf.pbc.gto"),
    "gpaw": ("GPAWEngine", "gpaw"),
    "openmx": ("OpenMXEngine", "numpy"),
}
# command line word -> parameter of the engine; what is not given is the engine's default
SETTINGS = {
    "xc": "xc",
    "basis": "basis",
    "cutoff": "cutoff",
    "ke": "ke_cutoff",
    "spacing": "spacing",
    "energy_cutoff": "energy_cutoff",
    "temperature": "temperature",
    "spin": "spin",
    "spin_orbit": "spin_orbit",
    "mesh": "mesh",
    "kpts": "kpts",
    "k_length": "k_length",
    "one_shot": "one_shot",
    "vacuum": "vacuum",
    "zero": "potential_reference",
    "max_cycles": "max_cycles",
}
# settings that the structures of one data set need not share
MAY_DIFFER = {"mesh", "kpts", "one_shot", "conv_tol", "max_cycles", "memory"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "structures",
        nargs="+",
        type=Path,
        metavar="STRUCTURES",
        help="files that ASE reads, each frame a structure named after the file (and the frame, if there are several)",
    )
    parser.add_argument(
        "-o", "--output", required=True, type=Path, help="the data set; structures it already holds are not run again"
    )
    parser.add_argument("--engine", default="pyscf", choices=ENGINES, help="the program that runs (default pyscf)")
    parser.add_argument("--xc", choices=["lda", "pbe"], help="functional (pyscf: lda; gpaw: pbe)")
    parser.add_argument("--basis", help="the engine's name of the orbitals (pyscf: gth-szv-molopt-sr-short; gpaw: dzp)")
    parser.add_argument("--cutoff", type=float, metavar="ANGSTROM", help="range of hoppings (default: the basis' own)")
    parser.add_argument("--ke", type=float, metavar="HARTREE", help="pyscf: cutoff of the grid (100)")
    parser.add_argument("--spacing", type=float, metavar="ANGSTROM", help="gpaw: spacing of the grid (0.2)")
    parser.add_argument("--energy-cutoff", type=float, metavar="RY", help="openmx: cutoff of the grid (200)")
    parser.add_argument("--temperature", type=float, metavar="K", help="of the occupations (openmx: 300)")
    parser.add_argument(
        "--spin", choices=["none", "collinear", "spinor"], help="openmx, gpaw: from the initial moments"
    )
    parser.add_argument("--spin-orbit", action="store_true", default=None, help="openmx: with --spin spinor")
    three: dict[str, Any] = {"type": int, "nargs": 3, "metavar": ("N1", "N2", "N3")}
    parser.add_argument("--mesh", **three, help="the grid itself")
    parser.add_argument("--kpts", **three, help="k-points of the self-consistency, the same for all structures")
    parser.add_argument(
        "--k-length",
        type=float,
        metavar="ANGSTROM",
        help="k-points times height of the cell, so that supercells get a mesh as dense (default 17)",
    )
    parser.add_argument("--one-shot", **three, help="k-points of the Fourier sum (default: as the range needs)")
    parser.add_argument("--vacuum", type=float, metavar="ANGSTROM", help="height of a cell that has none (default 12)")
    parser.add_argument("--zero", choices=["vacuum", "cell_average"], help="pyscf: zero of energy (vacuum if there is)")
    parser.add_argument("--max-cycles", type=int, metavar="N", help="give up after N cycles (pyscf: 50, gpaw: 200)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="structures at a time, one thread each")
    parser.add_argument("--compact", action="store_true", help="float32, compressed: for data that travel")
    parser.add_argument("--split", metavar="NAME", help="put these structures into a split, e.g. train")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Compute what the data set lacks. Each structure is stored when it is done: run again to resume."""
    from ase.calculators.calculator import CalculatorSetupError

    try:
        return _run(args)
    except CalculatorSetupError as error:
        raise ValueError(str(error)) from error


def _run(args: argparse.Namespace) -> int:
    from ase_hybridham import __version__
    from ase_hybridham.store import DataSet, append_systems, set_splits

    if args.jobs < 1:
        raise ValueError(f"--jobs: expected at least 1, got {args.jobs}")
    engine = _engine(args)
    structures = read_structures(args.structures)
    splits: dict[str, list[str]] = {}
    there: set[str] = set()
    if args.output.exists():
        with DataSet(args.output) as data:
            there, splits = set(data) & set(structures), dict(data.splits)
            _check_fits(data, structures, engine)
    _check_split(args.split, structures, splits)
    # the grids of all, not only of those left, so that a resumed run makes what one run makes
    engines = dict(zip(structures, engine.for_structures(list(structures.values())), strict=True))
    todo = {name: (engines[name], atoms) for name, atoms in structures.items() if name not in there}
    failed: dict[str, str] = {}
    seconds: dict[str, float] = {}
    made_by = {"made_by": f"hybridham dft {__version__}", "engine": engine.settings()}
    systems = computed(todo, args.jobs, failed, seconds)
    added = append_systems(args.output, systems, compact=args.compact, provenance=made_by)
    n_all = 0
    if args.output.exists():
        with DataSet(args.output) as data:
            n_all, done = len(data), [name for name in structures if name in data]
        if args.split:
            splits[args.split] = list(dict.fromkeys([*splits.get(args.split, []), *done]))
            set_splits(args.output, splits)
    result = {
        "output": str(args.output),
        "added": added,
        "already_there": len(there),
        "failed": failed,
        "structures": n_all,
        "splits": {split: len(names) for split, names in splits.items()},
        "cpu_s": round(sum(seconds.values()), 1),
        "engine": engine.settings(),
    }
    print(json.dumps(result) if args.json else _summary(result))
    for name, message in failed.items():
        print(f"hybridham dft: {name}: {message}", file=sys.stderr)
    return 1 if failed else 0


def _engine(args: argparse.Namespace) -> "Engine":
    """The engine with what the command line gives."""
    kind = getattr(import_module("ase_hybridham.scf"), ENGINES[args.engine][0])
    known = {word: name for word, name in SETTINGS.items() if name in kind.__dataclass_fields__}
    given: dict[str, Any] = {}
    for word in SETTINGS:
        value = getattr(args, word)
        if value is None:
            continue
        if word not in known:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in known)
            raise ValueError(
                f"--{word.replace('_', '-')}: not an option of the engine {args.engine}, which has {options}"
            )
        given[known[word]] = tuple(value) if isinstance(value, list) else value
    engine: Engine = kind(**given)
    return engine


def read_structures(files: list[Path]) -> dict[str, "Atoms"]:
    """Name -> structure, for every frame of the files."""
    import ase.io

    from ase_hybridham.errors import FormatError

    structures: dict[str, Atoms] = {}
    for file in files:
        if not file.exists():
            raise FormatError(f"{file}: no such file")
        try:
            frames = ase.io.read(file, ":")
        except Exception as error:  # ASE's many readers raise whatever they run into
            raise FormatError(f"{file}: not a structure that ASE reads ({error or type(error).__name__})") from error
        if not frames:
            raise FormatError(f"{file}: holds no structure")
        for n, atoms in enumerate(frames):
            name = file.stem if len(frames) == 1 else f"{file.stem}-{n:04d}"
            if name in structures:
                raise ValueError(f"{file}: there are two structures named {name}; rename a file")
            structures[name] = atoms
    return structures


def compute(engine: "Engine", atoms: "Atoms") -> tuple["LCAOSystem", float]:
    """The system of a structure and the CPU seconds it took, on one thread."""
    from threadpoolctl import threadpool_limits

    import_module(ENGINES[engine.name][1])  # libraries must be there to be limited
    begun = sum(os.times()[:4])  # of this process and of programs it runs
    with threadpool_limits(1):
        system = engine.run(atoms)
    return system, sum(os.times()[:4]) - begun


def computed(
    todo: Mapping[str, tuple["Engine", "Atoms"]], jobs: int, failed: dict[str, str], seconds: dict[str, float]
) -> Iterator[tuple[str, "LCAOSystem"]]:
    """The systems as they come; what does not converge goes to `failed`."""
    from ase.calculators.calculator import SCFError
    from tqdm import tqdm

    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=len(todo), desc="DFT", unit="structure", disable=None))
        for name, result in _results(todo, min(jobs, len(todo)), stack):
            try:
                system, seconds[name] = result()
            except SCFError as error:
                failed[name] = str(error)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            else:
                yield name, system
            bar.update()


def _results(todo: Mapping[str, tuple["Engine", "Atoms"]], jobs: int, stack: ExitStack) -> Iterator[tuple[str, Any]]:
    """For every structure its name and a function that returns the result or raises its error."""
    if jobs <= 1:
        for name, (engine, atoms) in todo.items():
            yield name, lambda engine=engine, atoms=atoms: compute(engine, atoms)
        return
    # spawned, not forked: the threads of numerical libraries do not survive a fork
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    stack.callback(pool.shutdown, cancel_futures=True)
    futures = {pool.submit(compute, engine, atoms): name for name, (engine, atoms) in todo.items()}
    for future in as_completed(futures):
        yield futures[future], future.result


def _check_fits(data: "DataSet", structures: Mapping[str, "Atoms"], engine: "Engine") -> None:
    """Refuse to mix settings, or other structures of the same names."""
    import numpy as np

    settings = engine.settings()
    known = data.provenance.get("engine", settings)
    for key, now in sorted(settings.items(), key=lambda item: item[0] != "engine"):
        if key not in MAY_DIFFER and known.get(key) != now:
            raise ValueError(f"{data.path}: was made with {key} {known.get(key)}, now {now}; choose another data set")
    for name in set(data) & set(structures):
        there, atoms = data.atoms(name), structures[name]
        same = (
            np.array_equal(there.numbers, atoms.numbers)
            and np.allclose(there.positions, atoms.positions, atol=1e-6)
            and np.allclose(there.cell.array, atoms.cell.array, atol=1e-6)
            and np.array_equal(there.pbc, atoms.pbc)
        )
        if not same:
            raise ValueError(
                f"{data.path}: holds another structure named {name}; rename the file, or choose another data set"
            )


def _check_split(split: str | None, structures: Mapping[str, "Atoms"], splits: Mapping[str, list[str]]) -> None:
    if split and "=" in split:
        raise ValueError(f"--split {split}: expected the name of one split, e.g. {split.split('=')[0] or 'train'}")
    for other, names in splits.items():
        taken = set(names) & set(structures)
        if split and other != split and taken:
            raise ValueError(f"--split {split}: {min(taken)} is already in the split {other}")


def _summary(result: Mapping[str, Any]) -> str:
    line = f"{result['output']}: {result['added']} structures added, {result['structures']} in all"
    if result["already_there"]:
        line += f", {result['already_there']} were there already"
    if result["failed"]:
        line += f", {len(result['failed'])} did not converge"
    if result["splits"]:
        line += "; " + ", ".join(f"{split} {count}" for split, count in result["splits"].items())
    return f"{line}; {result['cpu_s']} CPU s"
