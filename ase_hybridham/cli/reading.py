"""One structure of another program's files: read, checked, with its electrons. Runs in any process."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from ase_hybridham.check import Report, check_system
from ase_hybridham.errors import FormatError, HybridHamError
from ase_hybridham.io import read_system
from ase_hybridham.solve import with_electrons
from ase_hybridham.system import LCAOSystem

__all__ = ["Reader", "Reading", "Task", "told_electrons"]


@dataclass(frozen=True)
class Task:
    """What to read.

    Parameters
    ----------
    name : str
        In the data set.
    path : Path
    source : str
        The path that the provenance keeps.
    electrons : float, optional
        Of the structure, where a list tells.
    """

    name: str
    path: Path
    source: str
    electrons: float | None = None


@dataclass(frozen=True)
class Reading:
    """What came of it.

    Parameters
    ----------
    system : LCAOSystem, optional
        None if it could not be read, or was refused.
    report : Report, optional
        What the checks found.
    logged : mapping
        Warnings of the log: the first of each kind.
    error : str
        Why there is no system.
    """

    system: LCAOSystem | None = None
    report: Report | None = None
    logged: Mapping[str, str] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class Reader:
    """Reads structures; calling it with a `Task` gives a `Reading`.

    Parameters
    ----------
    format : str, optional
        A key of `io.formats`, where it should not be recognised.
    valence : mapping
        Chemical symbol -> valence electrons.
    check : bool
        Whether data that fail a check are refused.
    """

    format: str | None = None
    valence: Mapping[str, float] = field(default_factory=dict)
    check: bool = True

    def __call__(self, task: Task) -> Reading:
        try:
            with _warnings_collected() as logged:
                return replace(self._read(task), logged=logged)
        except HybridHamError as error:
            return Reading(error=str(error))
        except MemoryError:
            return Reading(error=f"{task.path}: not enough memory to read it; use fewer --processes")

    def _read(self, task: Task) -> Reading:
        system = read_system(task.path, self.format)
        if not system.hamiltonian:
            raise FormatError(f"{task.path}: expected a Hamiltonian, got the overlap alone; was only S computed?")
        needed = {symbol: count for symbol, count in self.valence.items() if symbol in system.basis}
        report = check_system(told_electrons(system, needed, task.electrons)) if self.check else None
        if report is not None and report.failed:
            raise FormatError(f"{task.path}: {report.summary()}; --no-check takes the data as they are")
        try:
            system = with_electrons(system, needed, task.electrons)
        except ValueError as error:
            raise FormatError(f"{task.path}: {error}") from error
        provenance = {**system.provenance, "source": task.source}
        # new blocks: those that were checked carry indices larger than their values
        blocks = [replace(operator) for operator in system.operators]
        n = len(system.hamiltonian)
        overlap = None if system.overlap is None else blocks[n]
        slim = replace(system, hamiltonian=tuple(blocks[:n]), overlap=overlap, provenance=provenance)
        return Reading(slim, report)


def told_electrons(system: LCAOSystem, valence: Mapping[str, float], electrons: float | None = None) -> LCAOSystem:
    """The system with the electrons that a person tells, given or by valences of all its elements, for the checks."""
    if electrons is None and set(system.atoms.symbols) <= set(valence):
        electrons = sum(valence[symbol] for symbol in system.atoms.symbols)
    if electrons is None:
        return system
    provenance = {key: value for key, value in system.provenance.items() if key != "electrons"}
    return replace(system, electrons=electrons, provenance=provenance)


class _Collector(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.logged: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.logged.setdefault(str(record.msg), record.getMessage())


@contextmanager
def _warnings_collected() -> Iterator[dict[str, str]]:
    """Kind -> first message of the warnings that the package logs meanwhile, which are not shown."""
    handler = _Collector(logging.WARNING)
    logger = logging.getLogger("ase_hybridham")
    shown = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield handler.logged
    finally:
        logger.removeHandler(handler)
        logger.propagate = shown
