"""hybridham convert: other programs' files to a data set."""

import argparse
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_hybridham.cli.overlap_options import add_basis_arguments, parse_basis

if TYPE_CHECKING:
    from ase_hybridham.check import Finding
    from ase_hybridham.cli.reading import Reader, Reading, Task
    from ase_hybridham.cli.splits import Index
    from ase_hybridham.store import DataSet
    from ase_hybridham.system import LCAOSystem

logger = logging.getLogger(__name__)

EVERY = 30.0  # seconds between lines that tell how far the work is, where there is no bar
SAME_H = 4e-6  # eV; compact storage rounds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="*",
        metavar="SOURCE",
        type=Path,
        help="a structure, or a folder that holds structures at any depth; none with --basis-dir alone",
    )
    parser.add_argument("-o", "--output", required=True, type=Path, help="the data set; what it already holds stays")
    parser.add_argument("--format", help="format of the files, where it should not be recognised")
    parser.add_argument(
        "--valence",
        nargs="+",
        action="extend",
        default=[],
        metavar="ELEMENT=N",
        help="valence electrons, as in C=4 S=6",
    )
    add_basis_arguments(parser)
    parser.add_argument(
        "--split",
        metavar="SPEC",
        help="train=0.8,val=0.1,test=0.1 at random, or a JSON file that lists structures and splits",
    )
    parser.add_argument("--split-seed", type=int, default=0, metavar="N", help="seed of random splits (default 0)")
    parser.add_argument("--compact", action="store_true", help="float32, compressed: for data that travel")
    parser.add_argument("--no-check", action="store_true", help="take data that fail the checks of `hybridham check`")
    parser.add_argument("--keep-going", action="store_true", help="leave broken structures out; the status is then 1")
    parser.add_argument(
        "--processes", type=int, metavar="N", help="structures read at a time (default: the cores there are)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Convert, and tell what was done. A structure that the data set has already is not read again."""
    from ase_hybridham import __version__
    from ase_hybridham.cli.radial_functions import attach_to_data_set, misfits
    from ase_hybridham.cli.reading import Reader
    from ase_hybridham.cli.source import parse_valence
    from ase_hybridham.cli.splits import Index, parse_fractions
    from ase_hybridham.errors import FormatError
    from ase_hybridham.io.basis_files import find_basis_files
    from ase_hybridham.parallel import available_cores
    from ase_hybridham.store import DataSet, append_systems, random_splits, set_splits, set_valences

    processes = available_cores() if args.processes is None else args.processes
    if processes < 1:
        raise ValueError(f"--processes: expected at least 1, got {processes}")
    index = Index(args.split) if args.split and "=" not in args.split else None
    fractions = parse_fractions(args.split) if args.split and index is None else {}
    random_splits([], fractions)  # shares that make no sense are refused before the work
    names_of_bases = parse_basis(args.basis, args.basis_dir)
    if args.basis_dir is not None:
        find_basis_files(args.basis_dir)
    elif not args.sources:
        raise ValueError("SOURCE: expected at least one, or --basis-dir for a data set that is there")
    report = Report(keep_going=args.keep_going, checked=not args.no_check)
    reader = Reader(args.format, parse_valence(args.valence), check=not args.no_check)
    tasks = _tasks(args.sources, args.format, args.output, index, report)
    todo = _new(tasks, args.output, reader, processes, report)
    made_by = {"made_by": f"hybridham convert {__version__}"}
    with closing(_read(todo, reader, processes, report)) as systems:
        refused = report.refuse if args.keep_going else None
        added = append_systems(args.output, systems, compact=args.compact, provenance=made_by, refused=refused)
    if not args.output.exists():
        if not args.sources:
            raise FormatError(f"{args.output}: no such file; give a SOURCE to make it of")
        raise ValueError(f"{args.output}: not one structure could be read; {next(iter(report.failed.values()))}")
    attached = None
    if args.basis_dir is not None:
        attached = attach_to_data_set(args.output, args.basis_dir, names_of_bases)
    with DataSet(args.output) as data:
        names, splits = data.names, data.splits
        report.look_at(data)
        if attached is None:
            report.mixed += misfits(data, [task.name for task in todo if task.name in data])
        if args.split:
            sources = {name: str(data.head(name).provenance.get("source", "")) for name in names} if index else {}
            splits = index.splits(sources) if index else random_splits(names, fractions, args.split_seed)
    if report.found:
        set_valences(args.output, report.found)
    if args.split:
        set_splits(args.output, splits)
    result = {
        "output": str(args.output),
        "added": added,
        "already_there": report.already_there,
        "failed": report.failed,
        "structures": len(names),
        "splits": {split: len(chosen) for split, chosen in splits.items()},
        "in_no_split": len(names) - sum(map(len, splits.values())),
        "electrons_counted": report.counted,
        "valences_found": report.found,
        "radial_functions": None if attached is None else asdict(attached),
        "checks": report.checks(),
        "mixed": report.mixed,
    }
    print(json.dumps(result) if args.json else _summary(result))
    for message in [*report.messages(), *(attached.warnings if attached else ())]:
        print(message, file=sys.stderr)
    return 1 if report.failed else 0


class Report:
    """What was noticed on the way.

    Parameters
    ----------
    keep_going : bool
        Whether broken structures are collected in `failed` (name -> message) instead of ending the command.
    checked : bool
        Whether the data are checked.
    """

    def __init__(self, keep_going: bool, checked: bool) -> None:
        self.keep_going, self.checked = keep_going, checked
        self.already_there = 0
        self.failed: dict[str, str] = {}
        self.counted: dict[str, float] = {}
        self.found: dict[str, float] = {}
        self.unknown: set[str] = set()
        self.predicted: list[str] = []
        self.mixed: list[str] = []
        self.findings: dict[str, list[tuple[str, Finding]]] = {}
        self.logged: dict[str, list[str]] = {}

    def fail(self, name: str, message: str) -> None:
        """Remember that a structure is left out, or end the command."""
        from ase_hybridham.errors import FormatError

        if not self.keep_going:
            raise FormatError(message)
        self.failed[name] = message

    def refuse(self, name: str, error: ValueError) -> None:
        """Remember that a structure does not fit the others."""
        self.failed[name] = str(error)

    def note(self, name: str, reading: "Reading") -> None:
        """Remember where H and the electrons come from, and what the checks found."""
        system = reading.system
        assert system is not None
        if system.provenance.get("predicted"):
            self.predicted.append(name)
        if system.provenance.get("electrons") == "counted" and system.electrons is not None:
            self.counted[system.atoms.get_chemical_formula()] = system.electrons
        for finding in reading.report.findings if reading.report else ():
            if finding.verdict in ("note", "warning"):
                self.findings.setdefault(finding.name, []).append((name, finding))
        for kind, message in reading.logged.items():
            self.logged.setdefault(kind, []).append(message)

    def look_at(self, data: "DataSet") -> None:
        """Remember what only all structures of the data set together tell."""
        from ase_hybridham.cli.provenance import counted, mixed, provenance_counts

        heads = {name: data.head(name) for name in data}
        self.found = _valences(data, {name: head.electrons for name, head in heads.items()})
        self.unknown = {s for s, atom in data.basis.atoms.items() if atom.valence is None} - set(self.found)
        self.mixed = list(mixed(provenance_counts(head.provenance for head in heads.values())))
        n_compact = sum(head.compact for head in heads.values())
        if 0 < n_compact < len(heads):
            self.mixed.append(f"{n_compact} of {len(heads)} structures are stored in single precision")
        zeros = Counter[str](head.potential_reference for head in heads.values())
        if len(zeros) > 1:
            self.mixed.append(f"the structures differ in the zero of energy: {counted(zeros)}")
        self.mixed += [f"the same atoms: {_some(names)}" for names in _twins(data)]

    def checks(self) -> dict[str, Any] | None:
        """Plain JSON types: for every kind of finding the number of structures and the first of them."""
        if not self.checked:
            return None
        return {
            kind: {
                "verdict": found[0][1].verdict,
                "structures": len(found),
                "example": found[0][0],
                "message": found[0][1].message,
                "advice": found[0][1].advice,
            }
            for kind, found in self.findings.items()
        }

    def messages(self) -> list[str]:
        """One line for everything a person should know."""
        lines = [f"left out: {message}" for message in self.failed.values()]
        for kind, entry in (self.checks() or {}).items():
            advice = f"; {entry['advice']}" if entry["advice"] else ""
            finding = f"{kind}: {entry['message']} ({entry['example']}){advice}"
            lines.append(f"{entry['verdict']}, {_structures(entry['structures'])}: {finding}")
        lines += [f"{_structures(len(messages))}: {messages[0]}" for messages in self.logged.values()]
        lines += self.mixed
        if self.predicted:
            lines.append(f"H is what a network predicted, no DFT: {_some(self.predicted)}")
        if self.counted:
            counts = _some([f"{formula} {count:g}" for formula, count in sorted(self.counted.items())])
            lines.append(f"electrons counted up to the stored Fermi level and rounded: {counts}")
        if self.found:
            valences = " ".join(f"{symbol}={valence:g}" for symbol, valence in sorted(self.found.items()))
            lines.append(f"valences that follow from the electrons of all structures: {valences}")
        if self.unknown:
            lines.append(
                f"valence unknown, `hybridham train` refuses such data: make them again with "
                f"--valence {'=? '.join(sorted(self.unknown))}=?"
            )
        return lines


def _tasks(
    sources: Sequence[Path], format: str | None, output: Path, index: "Index | None", report: Report
) -> "list[Task]":
    """All structures of the sources."""
    from ase_hybridham.cli.naming import name_structures, source_of, structures_below
    from ase_hybridham.cli.reading import Task
    from ase_hybridham.errors import FormatError

    def unreadable(error: OSError) -> None:
        report.fail(str(error.filename), f"{error.filename}: {error.strerror}")

    if len(set(sources)) < len(sources):
        raise ValueError(f"{max(sources, key=sources.count)}: given twice")
    found: dict[Path, list[Path]] = {}
    for source in sources:
        try:
            found[source] = structures_below(source, format, unreadable)
        except FormatError as error:
            report.fail(str(source), str(error))
    paths = name_structures(found) if found else {}
    origins = {name: source_of(path, output) for name, path in paths.items()}
    ids = index.ids(origins) if index else {}
    electrons = {name: index.electrons.get(entry) for name, entry in ids.items()} if index else {}
    return [Task(name, path, origins[name], electrons.get(name)) for name, path in paths.items()]


def _new(tasks: "Sequence[Task]", output: Path, reader: "Reader", processes: int, report: Report) -> "list[Task]":
    """The tasks that the data set lacks; one of the same name from elsewhere must be the same structure."""
    from ase_hybridham.store import DataSet

    if not output.exists():
        return list(tasks)
    with DataSet(output) as data:
        sources = {name: data.head(name).provenance.get("source") for name in data}
        there = set(sources.values())
        todo = [task for task in tasks if task.source not in there]
        report.already_there = len(tasks) - len(todo)
        doubtful = [task for task in todo if task.name in sources]
        for task, reading in _results("comparing", doubtful, reader, processes):
            if reading.system is None:
                report.fail(task.name, reading.error)
            elif _is_same(reading.system, data[task.name]):
                report.already_there += 1
            else:
                known = sources[task.name] or "elsewhere"
                report.fail(
                    task.name,
                    f"{task.path}: {output} holds another structure named {task.name}, from {known}; convert both in "
                    "one command, which names them by their folders, or into another data set",
                )
    return [task for task in todo if task.name not in sources]


def _is_same(one: "LCAOSystem", other: "LCAOSystem") -> bool:
    import numpy as np

    return (
        one.spin == other.spin
        and one.pairs.same_pairs(other.pairs)
        and np.allclose(one.pairs.vectors, other.pairs.vectors, rtol=0, atol=1e-6)
        and all(
            a.values.shape == b.values.shape and np.allclose(a.values, b.values, rtol=1e-7, atol=SAME_H)
            for a, b in zip(one.hamiltonian, other.hamiltonian, strict=True)
        )
    )


def _read(
    tasks: "Sequence[Task]", reader: "Reader", processes: int, report: Report
) -> Generator[tuple[str, "LCAOSystem"], None, None]:
    for task, reading in _results("converting", tasks, reader, processes):
        if reading.system is None:
            report.fail(task.name, reading.error)
        else:
            yield task.name, reading.system
            if task.name not in report.failed:
                report.note(task.name, reading)


def _results(
    what: str, tasks: "Sequence[Task]", reader: "Reader", processes: int
) -> Iterator[tuple["Task", "Reading"]]:
    """Readings in order, with a bar or lines of the log."""
    from tqdm import tqdm

    from ase_hybridham.parallel import WorkerError, ordered_results

    told = time.monotonic()
    with tqdm(total=len(tasks), desc=what, unit="structure", disable=None) as bar:
        try:
            with closing(ordered_results(reader, tasks, processes)) as results:
                for number, (task, reading) in enumerate(results, 1):
                    yield task, reading
                    bar.update()
                    if bar.disable and time.monotonic() - told > EVERY:
                        logger.info("%s: %d of %d structures", what, number, len(tasks))
                        told = time.monotonic()
        except WorkerError as error:
            raise ChildProcessError(f"{error.item.path}: {error}") from None


def _valences(data: "DataSet", electrons: Mapping[str, float | None]) -> dict[str, float]:
    """The unknown valences that the electrons of the structures determine."""
    from ase_hybridham.solve import solve_valences

    known = {symbol: atom.valence for symbol, atom in data.basis.atoms.items() if atom.valence is not None}
    if len(known) == len(data.basis.atoms):
        return {}
    return solve_valences([(data.atoms(n).symbols.formula.count(), c) for n, c in electrons.items() if c], known)


def _twins(data: "DataSet") -> list[list[str]]:
    """Names of structures with the same atoms, which should not be in two splits."""
    found: dict[tuple[object, ...], list[str]] = {}
    for name in data:
        atoms = data.atoms(name)
        lengths = [array.round(4) + 0.0 for array in (atoms.get_positions(), atoms.cell.array)]  # 0.0: no -0
        found.setdefault((atoms.numbers.tobytes(), *(array.tobytes() for array in lengths)), []).append(name)
    return [names for names in found.values() if len(names) > 1]


def _structures(count: int) -> str:
    return f"{count} structure{'s' * (count != 1)}"


def _some(words: Sequence[str]) -> str:
    return ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")


def _summary(result: Mapping[str, Any]) -> str:
    line = f"{result['output']}: {_structures(result['added'])} added, {result['structures']} in all"
    if result["already_there"]:
        line += f", {result['already_there']} were there already"
    if result["failed"]:
        line += f", {len(result['failed'])} left out"
    if result["splits"]:
        line += "; " + ", ".join(f"{split} {count}" for split, count in result["splits"].items())
        if result["in_no_split"]:
            line += f", in no split {result['in_no_split']}"
    if functions := result["radial_functions"]:
        fit = "" if functions["error"] is None else f", which give the stored S to {functions['error']:.1e}"
        line += f"; radial functions of {', '.join(functions['elements'])}{fit}"
    return line
