"""hybridham check: what data show about themselves, with a verdict for every structure."""

import argparse
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_hybridham.cli.overlap_options import add_basis_arguments, parse_basis

if TYPE_CHECKING:
    from ase_hybridham.check import Finding, Report, Verdict
    from ase_hybridham.system import AtomBasis, LCAOSystem

logger = logging.getLogger(__name__)

EVERY = 30.0  # seconds between lines that tell how far the work is, where there is no bar
MOST_NAMED = 20  # structures that are named one by one
VERDICTS: "tuple[Verdict, ...]" = ("failed", "warning", "note", "ok", "skipped")
ZERO = "zero of energy"
POSITIVE_S, FROM_BASIS = "S(k) positive", "S from the basis"
SMALL_IS_BAD = (POSITIVE_S, "spin-orbit")  # of other checks the largest figure is the worst


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="a data set, data.h5:NAME, a structure, or a folder that holds structures at any depth",
    )
    parser.add_argument("--format", help="format of the files, where it should not be recognised")
    parser.add_argument(
        "--valence",
        nargs="+",
        action="extend",
        default=[],
        metavar="ELEMENT=N",
        help="valence electrons, as in C=4 S=6, for the count at the Fermi level",
    )
    add_basis_arguments(parser)
    parser.add_argument("--all", action="store_true", help="the table of every structure, not only of one")
    parser.add_argument(
        "--processes", type=int, metavar="N", help="structures read at a time (default: the cores there are)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


@dataclass(frozen=True)
class Result:
    """Of one structure: what the checks found, or why it cannot be read."""

    title: str = ""
    report: "Report | None" = None
    error: str = ""


@dataclass(frozen=True)
class Checker:
    """Reads and checks structures in any process; called with what `bands` would take.

    Parameters
    ----------
    format : str, optional
    valence : mapping
    basis_dir : str, optional
        Folder of basis files, to compute S from.
    names : mapping
        Chemical symbol -> its basis in that folder, where the source does not tell it.
    """

    format: str | None = None
    valence: Mapping[str, float] = field(default_factory=dict)
    basis_dir: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, source: str) -> Result:
        from ase_hybridham.check import check_system
        from ase_hybridham.cli.reading import told_electrons
        from ase_hybridham.errors import HybridHamError
        from ase_hybridham.io import read_system
        from ase_hybridham.store import names_data_set, read_structure

        try:
            stored = self.format is None and names_data_set(source)
            system = read_structure(source) if stored else read_system(source, self.format)
            if self.basis_dir is not None:
                system = _with_functions(system, self.basis_dir, self.names)
        except (HybridHamError, OSError) as error:
            return Result(error=" ".join(str(error).split()))
        system = told_electrons(system, self.valence)
        title = f"{system.atoms.symbols}, spin {system.spin}, {system.n_orbitals} orbitals"
        return Result(title, check_system(system))


def _with_functions(system: "LCAOSystem", folder: str, names: Mapping[str, str]) -> "LCAOSystem":
    """The system with radial functions of a folder; whether they fit is the question, so radii need not agree."""
    from ase_hybridham.io import with_radial_functions

    atoms = {symbol: replace(atom, cutoff=None) for symbol, atom in system.basis.atoms.items()}
    found = with_radial_functions(_with_atoms(system, atoms), folder, names)
    kept = {s: replace(a, shells=found.basis[s].shells) for s, a in system.basis.atoms.items()}
    return _with_atoms(system, kept)


def _with_atoms(system: "LCAOSystem", atoms: "Mapping[str, AtomBasis]") -> "LCAOSystem":
    basis = replace(system.basis, atoms=atoms)
    hamiltonian = tuple(replace(blocks, basis=basis) for blocks in system.hamiltonian)
    overlap = None if system.overlap is None else replace(system.overlap, basis=basis)
    return replace(system, hamiltonian=hamiltonian, overlap=overlap)


def run(args: argparse.Namespace) -> int:
    """Check every structure, and print a table or a summary."""
    from ase_hybridham.cli.source import parse_valence
    from ase_hybridham.errors import FormatError
    from ase_hybridham.parallel import available_cores

    processes = available_cores() if args.processes is None else args.processes
    if processes < 1:
        raise ValueError(f"--processes: expected at least 1, got {processes}")
    names = parse_basis(args.basis, args.basis_dir)
    checker = Checker(args.format, parse_valence(args.valence), args.basis_dir, names)
    sources = _structures(args.sources, args.format)
    results = dict(_results(checker, sources, processes))
    if all(result.error for result in results.values()):
        raise FormatError(next(iter(results.values())).error if results else "there is no structure to check")
    failed = [name for name, result in results.items() if result.report is None or result.report.failed]
    if args.json:
        print(json.dumps(_json(results, failed)))
    elif len(results) == 1 or args.all:
        print("\n\n".join("\n".join(_table(name, result)) for name, result in results.items()))
    if not args.json and len(results) > 1:
        print("\n".join(_summary(results, failed)))
    return 1 if failed else 0


def _structures(sources: Sequence[str], format: str | None) -> dict[str, str]:
    """Name to print -> what to read."""
    from ase_hybridham.cli.naming import name_structures, structures_below
    from ase_hybridham.store import DataSet, names_data_set

    alone = len(set(sources)) == 1
    found: dict[str, str] = {}
    files: dict[Path, list[Path]] = {}
    for source in dict.fromkeys(sources):
        if format is None and names_data_set(source) and Path(source).exists():
            with DataSet(source) as data:
                found |= {name if alone else f"{source}:{name}": f"{source}:{name}" for name in data}
        elif format is None and names_data_set(source):
            found[source] = source
        else:
            files[Path(source)] = structures_below(Path(source), format)
    if files:
        found |= {name: str(path) for name, path in name_structures(files).items()}
    return found


def _results(checker: Checker, sources: Mapping[str, str], processes: int) -> Iterator[tuple[str, Result]]:
    """Results in order, with a bar or lines of the log."""
    from tqdm import tqdm

    from ase_hybridham.parallel import WorkerError, ordered_results

    told = time.monotonic()
    hidden = None if len(sources) > 1 else True
    with tqdm(total=len(sources), desc="checking", unit="structure", disable=hidden) as bar:
        try:
            with closing(ordered_results(checker, list(sources.values()), processes)) as results:
                for number, (name, (_, result)) in enumerate(zip(sources, results, strict=True), 1):
                    yield name, result
                    bar.update()
                    if bar.disable and time.monotonic() - told > EVERY:
                        logger.info("checking: %d of %d structures", number, len(sources))
                        told = time.monotonic()
        except WorkerError as error:
            raise ChildProcessError(f"{error.item}: {error}") from None


def _table(name: str, result: Result) -> Iterator[str]:
    if result.report is None:
        yield f"{name}: cannot be read: {result.error}"
        return
    yield f"{name}: {result.title}: {result.report.worst}"
    width = max(len(finding.name) for finding in result.report.findings)
    for finding in result.report.findings:
        yield f"  {finding.verdict:<7}  {finding.name:<{width}}  {finding.message}"
        if finding.advice:
            yield f"  {'':<7}  {'':<{width}}  -> {finding.advice}"


def _summary(results: Mapping[str, Result], failed: Sequence[str]) -> Iterator[str]:
    """For every check the verdicts and the structure that is worst, then the structures to look at."""
    yield f"{len(results)} structures, {len(failed)} failed"
    checks = _by_check(results)
    width = max((len(check) for check in checks), default=0)
    for check, found in checks.items():
        count = Counter(finding.verdict for _, finding in found)
        verdicts = ", ".join(f"{verdict} {count[verdict]}" for verdict in VERDICTS if count[verdict])
        name, worst = _worst(found)
        example = f"{worst.message}" if worst.verdict == "skipped" else f"worst {name}: {worst.message}"
        if check == ZERO:
            figures = [finding.figure for _, finding in found if finding.figure is not None]
            example = f"<H,S>/<S,S> from {min(figures):.3f} to {max(figures):.3f} eV" if figures else example
        yield f"  {check:<{width}}  {verdicts}; {example}"
    yield from _named([f"{name}: cannot be read: {r.error}" for name, r in results.items() if r.report is None])
    bad = [(name, r.report) for name, r in results.items() if r.report is not None and r.report.failed]
    yield from _named([f"{name}: {report.summary()}" for name, report in bad])


def _by_check(results: Mapping[str, Result]) -> "dict[str, list[tuple[str, Finding]]]":
    found: dict[str, list[tuple[str, Finding]]] = {}
    for name, result in results.items():
        for finding in result.report.findings if result.report else ():
            found.setdefault(finding.name, []).append((name, finding))
    return found


def _worst(found: "Sequence[tuple[str, Finding]]") -> "tuple[str, Finding]":
    """Of the worst verdict the one with the largest figure."""
    severity = min(VERDICTS.index(finding.verdict) for _, finding in found)
    same = [entry for entry in found if VERDICTS.index(entry[1].verdict) == severity]
    sign = -1 if same[0][1].name in SMALL_IS_BAD else 1
    return max(same, key=lambda entry: sign * abs(entry[1].figure or 0.0))


def _named(lines: Sequence[str]) -> Iterator[str]:
    yield from lines[:MOST_NAMED]
    if len(lines) > MOST_NAMED:
        yield f"and {len(lines) - MOST_NAMED} more; --all or --json names them"


def _json(results: Mapping[str, Result], failed: Sequence[str]) -> dict[str, Any]:
    readable = {name: result.report for name, result in results.items() if result.report is not None}
    overlaps = {name: _overlap_figures(report) for name, report in readable.items()}
    return {
        "overlap": _worst_figures(list(overlaps.values())),
        "structures": {name: {**report.to_dict(), "overlap": overlaps[name]} for name, report in readable.items()},
        "unreadable": {name: result.error for name, result in results.items() if result.report is None},
        "failed": list(failed),
    }


def _overlap_figures(report: "Report") -> dict[str, float | None]:
    """What S is worth: its difference from the integrals of the basis, and its smallest eigenvalue; null if unknown."""
    figures = {finding.name: finding.figure for finding in report.findings}
    return {"max_abs_error": figures.get(FROM_BASIS), "min_eigenvalue": figures.get(POSITIVE_S)}


def _worst_figures(figures: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    errors = [value for entry in figures if (value := entry["max_abs_error"]) is not None]
    eigenvalues = [value for entry in figures if (value := entry["min_eigenvalue"]) is not None]
    return {"max_abs_error": max(errors, default=None), "min_eigenvalue": min(eigenvalues, default=None)}
