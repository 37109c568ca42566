"""What a reader tells the registry about its format."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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
    """

    name: str
    description: str
    sniff: Callable[[Path], bool]
    read: Callable[[Path], LCAOSystem]
