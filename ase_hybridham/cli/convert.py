"""hybridham convert: other programs' files to a data set."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase_hybridham.store import DataSet
    from ase_hybridham.system import LCAOSystem

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        type=Path,
        help="a structure, or a folder that holds structures at any depth",
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
    parser.add_argument(
        "--split",
        metavar="SPEC",
        help="train=0.8,val=0.1,test=0.1 at random, or a JSON file that lists structures and splits",
    )
    parser.add_argument("--split-seed", type=int, default=0, metavar="N", help="seed of random splits (default 0)")
    parser.add_argument("--compact", action="store_true", help="float32, compressed: for data that travel")
    parser.add_argument("--keep-going", action="store_true", help="leave broken structures out; the status is then 1")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Convert, and tell what was done. A structure whose name the data set has already is not read again."""
    from ase_hybridham import __version__
    from ase_hybridham.cli.source import parse_valence
    from ase_hybridham.store import DataSet, append_systems, random_splits, set_splits, set_valences

    index = Index(args.split) if args.split and "=" not in args.split else None
    fractions = _fractions(args.split) if args.split and index is None else {}
    random_splits([], fractions)  # shares that make no sense are refused before the work
    paths = _structures(args.sources, args.format)
    there: set[str] = set()
    if args.output.exists():
        with DataSet(args.output) as data:
            there = set(data)
    todo = {name: path for name, path in paths.items() if name not in there}
    report = Report(keep_going=args.keep_going)
    systems = _read(todo, args.format, parse_valence(args.valence), index, report)
    made_by = {"made_by": f"hybridham convert {__version__}"}
    added = append_systems(args.output, systems, compact=args.compact, provenance=made_by)
    if not args.output.exists():
        raise ValueError(f"{args.output}: not one structure could be read; {next(iter(report.failed.values()))}")
    with DataSet(args.output) as data:
        names, splits = data.names, data.splits
        report.found = _valences(data)
        report.unknown = {s for s, atom in data.basis.atoms.items() if atom.valence is None} - set(report.found)
    if report.found:
        set_valences(args.output, report.found)
    if args.split:
        splits = index.splits(names) if index else random_splits(names, fractions, args.split_seed)
        set_splits(args.output, splits)
    result = {
        "output": str(args.output),
        "added": added,
        "already_there": len(paths) - len(todo),
        "failed": report.failed,
        "structures": len(names),
        "splits": {split: len(chosen) for split, chosen in splits.items()},
        "electrons_counted": report.counted,
        "valences_found": report.found,
    }
    if args.json:
        print(json.dumps(result))
    else:
        print(_summary(result))
    for message in report.messages():
        print(message, file=sys.stderr)
    return 1 if report.failed else 0


class Report:
    """What was noticed while reading.

    Parameters
    ----------
    keep_going : bool
        Whether broken structures are collected in `failed` (name -> message) instead of ending the command.
    """

    def __init__(self, keep_going: bool) -> None:
        self.keep_going = keep_going
        self.failed: dict[str, str] = {}
        self.counted: dict[str, float] = {}
        self.found: dict[str, float] = {}
        self.unknown: set[str] = set()
        self.predicted: list[str] = []

    def note(self, name: str, system: "LCAOSystem") -> None:
        """Remember where H and the electrons come from."""
        if system.provenance.get("predicted"):
            self.predicted.append(name)
        if system.provenance.get("electrons") == "counted" and system.electrons is not None:
            self.counted[system.atoms.get_chemical_formula()] = system.electrons

    def messages(self) -> list[str]:
        """One line for everything a person should know."""
        lines = [f"left out: {message}" for message in self.failed.values()]
        if self.predicted:
            lines.append(f"H is what a network predicted, no DFT: {', '.join(self.predicted)}")
        if self.counted:
            counts = ", ".join(f"{formula} {count:g}" for formula, count in sorted(self.counted.items()))
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


class Index:
    """A JSON file that says which structure is for what.

    Parameters
    ----------
    path : str
        Either a list of objects with `id`, `split` and perhaps `valence_electrons`, or an object
        split -> list of names. An id is the name of a structure or its end after a slash.
    """

    def __init__(self, path: str) -> None:
        from ase_hybridham.errors import FormatError

        self.path = path
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise FormatError(f"{path}: not JSON ({error}); expected a list of structures with their splits") from None
        try:
            if isinstance(content, dict):
                content = [{"id": name, "split": split} for split, names in content.items() for name in names]
            self.split = {str(entry["id"]): str(entry["split"]) for entry in content}
            electrons = {str(entry["id"]): entry.get("valence_electrons") for entry in content}
            self.electrons = {name: float(count) for name, count in electrons.items() if count is not None}
        except (TypeError, KeyError, ValueError, AttributeError):
            raise FormatError(f"{path}: expected a list of objects with id and split, or split -> names") from None

    def id_of(self, name: str) -> str | None:
        """The id that means this structure."""
        parts = name.split("/")
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        return next((end for end in ends if end in self.split), None)

    def splits(self, names: list[str]) -> dict[str, list[str]]:
        """Split -> the structures of a data set that belong to it."""
        found: dict[str, list[str]] = {split: [] for split in dict.fromkeys(self.split.values())}
        for name in names:
            entry = self.id_of(name)
            if entry is not None:
                found[self.split[entry]].append(name)
        if not any(found.values()):
            raise ValueError(
                f"{self.path}: lists none of the structures, such as {names[0]}; its ids must be their names"
            )
        return found


def _fractions(spec: str) -> dict[str, float]:
    try:
        return {split.strip(): float(share) for split, share in (part.split("=") for part in spec.split(","))}
    except ValueError:
        raise ValueError(f"--split: expected train=0.8,val=0.1,test=0.1 or a JSON file, got {spec!r}") from None


def _structures(sources: list[Path], format: str | None) -> dict[str, Path]:
    """Name -> path of all structures.

    Names are relative to the source if there is one, else to the folder that holds them all.
    """
    if len(set(sources)) < len(sources):
        raise ValueError(f"{max(sources, key=sources.count)}: given twice")
    found = {source: list(_below(source, format)) or [source] for source in sources}
    absolute = {source: Path(os.path.abspath(source)) for source in sources}
    root = (
        absolute[sources[0]] if len(sources) == 1 else Path(os.path.commonpath([p.parent for p in absolute.values()]))
    )
    names: dict[str, Path] = {}
    for source, paths in found.items():
        for path in paths:
            relative = Path(os.path.abspath(path)).relative_to(root).as_posix()
            name = absolute[source].name if relative == "." else relative
            if names.setdefault(name, path) is not path:
                raise ValueError(f"{path}: given twice")
    return names


def _below(source: Path, format: str | None) -> Iterator[Path]:
    from ase_hybridham.io import format_of, formats

    known = formats().get(format) if format else None
    if known.sniff(source) if known else format_of(source):
        yield source
    elif source.is_dir():
        for child in sorted(source.iterdir()):
            if not child.name.startswith("."):
                yield from _below(child, format)


def _read(
    paths: Mapping[str, Path], format: str | None, valence: Mapping[str, float], index: Index | None, report: Report
) -> Iterator[tuple[str, "LCAOSystem"]]:
    from tqdm import tqdm

    from ase_hybridham.errors import FormatError, HybridHamError
    from ase_hybridham.io import read_system
    from ase_hybridham.solve import with_electrons

    for name, path in tqdm(paths.items(), desc="converting", unit="structure", disable=None):
        electrons = index.electrons.get(index.id_of(name) or "") if index else None
        try:
            system = read_system(path, format)
            needed = {symbol: count for symbol, count in valence.items() if symbol in system.basis}
            try:
                system = with_electrons(system, needed, electrons)
            except ValueError as error:
                raise FormatError(f"{path}: {error}") from error
        except HybridHamError as error:
            if not report.keep_going:
                raise
            report.failed[name] = str(error)
            continue
        report.note(name, system)
        yield name, system


def _valences(data: "DataSet") -> dict[str, float]:
    """The unknown valences that the electrons of the structures determine."""
    from ase_hybridham.solve import solve_valences

    known = {symbol: atom.valence for symbol, atom in data.basis.atoms.items() if atom.valence is not None}
    if len(known) == len(data.basis.atoms):
        return {}
    counts = {name: data.electrons(name) for name in data}
    return solve_valences([(data.atoms(n).symbols.formula.count(), c) for n, c in counts.items() if c], known)


def _summary(result: Mapping[str, Any]) -> str:
    line = f"{result['output']}: {result['added']} structures added, {result['structures']} in all"
    if result["already_there"]:
        line += f", {result['already_there']} were there already"
    if result["splits"]:
        line += "; " + ", ".join(f"{split} {count}" for split, count in result["splits"].items())
    return line
