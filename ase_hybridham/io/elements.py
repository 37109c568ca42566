"""The element that a program's label of an atom means."""

import re
from pathlib import Path

from ase.data import atomic_numbers

from ase_hybridham.errors import FormatError

__all__ = ["element_of"]


def element_of(where: str | Path, label: str) -> str:
    """The chemical symbol with which a label such as ``Fe2`` or ``C_pz`` begins.

    Raises
    ------
    FormatError
        If it begins with none; names `where`.
    """
    found = re.match(r"[A-Z][a-z]?", label)
    for symbol in (found[0], found[0][:1]) if found else ():
        if symbol in atomic_numbers and symbol != "X":
            return symbol
    raise FormatError(f"{where}: atom label {label!r}: expected one that begins with an element")
