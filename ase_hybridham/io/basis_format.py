"""What a kind of basis files is: how its files are found and read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase_hybridham.system import AtomBasis

__all__ = ["BasisFormat"]


@dataclass(frozen=True)
class BasisFormat:
    """Files of radial functions.

    Parameters
    ----------
    name : str
        Of the program, for messages.
    description : str
        What the files are, for messages.
    sniff : callable
        Whether a file is of this kind; by its name, or its first bytes. Folders may hold hundreds.
    may_hold : callable
        ``may_hold(path, symbol, name)``: whether such a file may hold the basis of an element; `name` is what the
        basis is called, as in C6.0-s2p2d1, None where nobody knows. By the name of the file where that tells.
    read : callable
        ``read(path, atom, name, settings)``: the `AtomBasis` with radial functions, and what else the file tells;
        raises FormatError if the file does not fit `atom` or the name. `settings` is the provenance of a system.
    settings : tuple of str
        Entries of a provenance that `read` looks at: a program's settings of its integrals.
    whole : callable, optional
        ``whole(path) -> AtomBasis``, for files that hold the functions of one basis and no others.
    """

    name: str
    description: str
    sniff: Callable[[Path], bool]
    may_hold: Callable[[Path, str, str | None], bool]
    read: Callable[[Path, AtomBasis, str | None, Mapping[str, Any]], AtomBasis]
    settings: tuple[str, ...] = ()
    whole: Callable[[Path], AtomBasis] | None = None
