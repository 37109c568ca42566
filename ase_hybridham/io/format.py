"""What a format tells the registry: how its files are recognised, read and written."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms

from ase_hybridham.system import LCAOSystem

__all__ = ["Format"]


@dataclass(frozen=True)
class Format:
    """A file format of Hamiltonians.

    Parameters
    ----------
    name : str
        What a person types.
    description : str
        What the files are, for messages.
    sniff : callable
        Whether an existing path looks like this format, even if parts are missing; reads next to nothing.
    read : callable
        The system at a path; raises FormatError.
    read_atoms : callable, optional
        The atoms alone, where a structure may lack all blocks (a folder made for a prediction).
    holds_blocks : callable, optional
        Whether a path has H or S, where it may lack both.
    write : callable, optional
        ``write(system, path, predicted=...)``: what `read` gives back; `predicted` says that a network made H.
    check_target : callable, optional
        ``check_target(path, atoms)``: the ValueError of `write` for a prediction of these atoms, before long work.
    is_second : callable, optional
        Whether beside a path that is recognised lies another that tells the same: in a folder both are one structure.
    """

    name: str
    description: str
    sniff: Callable[[Path], bool]
    read: Callable[[Path], LCAOSystem]
    read_atoms: Callable[[Path], Atoms] | None = None
    holds_blocks: Callable[[Path], bool] | None = None
    write: Callable[..., None] | None = None
    check_target: Callable[[Path, Atoms], None] | None = None
    is_second: Callable[[Path], bool] | None = None
