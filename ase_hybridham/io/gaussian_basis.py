"""Files of contracted Gaussians: those of CP2K (BASIS_MOLOPT, GTH_BASIS_SETS) and of NWChem (basissetexchange.org).

CP2K: a line with the element and the names of its basis; the number of sets; of every set a line ``n lmin lmax
exponents, contractions of every l``, then rows of an exponent and its coefficients. NWChem: of every shell a line
``C  SP``, then such rows; the file has no names, it is called by its own. Shells are sorted by l, as PySCF does.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from ase_hybridham.errors import FormatError
from ase_hybridham.io.basis_format import BasisFormat
from ase_hybridham.io.text import beginning, numbers_in, read_text
from ase_hybridham.system import AtomBasis, GaussianRadial, Shell

__all__ = ["FORMAT", "contracted_shells", "read_gaussian_basis"]

LETTERS = "SPDFGHI"
LARGEST = 2**24  # bytes; CP2K's largest file has 1 MB
END = 1e-8  # overlap of two equal s functions where pairs end
START = 2**16  # bytes in which the first element stands

# the words of a line that begins with an element, and the lines of numbers that follow
Section = tuple[list[str], list[str]]


def contracted_shells(l: int, table: NDArray[np.float64]) -> list[Shell]:
    """A shell for every contraction of a table, columns: exponents, coefficients of the first contraction, ..."""
    shells = []
    for column in table.T[1:]:
        # a primitive of weight zero belongs to the other contractions of the table only
        used = table[:, 0][column != 0], column[column != 0]
        shells.append(Shell(l, LETTERS[l].lower(), GaussianRadial(*(tuple(part.tolist()) for part in used))))
    return shells


def read_gaussian_basis(path: str | Path, symbol: str, name: str | None = None) -> tuple[Shell, ...]:
    """The shells of an element.

    Parameters
    ----------
    path : str or Path
        Of CP2K or NWChem.
    symbol : str
        Chemical symbol.
    name : str, optional
        One of those CP2K calls the basis, such as ``"DZVP-MOLOPT-SR-GTH"``; needed where the file has several.

    Raises
    ------
    FormatError
        If the file is damaged, or does not tell which basis is meant.
    """
    text = read_text(path)
    sections = [one for one in _sections(text) if one[0][0].upper() == symbol.upper()]
    if _is_nwchem(sections):
        first_words = {line.split()[0].upper() for line in text.splitlines() if line.strip()}
        if "BASIS" in first_words and "END" not in first_words:
            raise FormatError(f"{path}: expected END after the last shell; is the file cut?")
        shells = [shell for header, rows in sections for shell in _nwchem_shells(path, header, rows)]
    else:
        chosen = [one for one in sections if name is None or name.upper() in map(str.upper, one[0][1:])]
        if len(chosen) != 1:
            known = ", ".join(dict.fromkeys(header[1] for header, _ in sections if len(header) > 1)) or "none"
            wanted = f"a basis {name} of {symbol}" if name else f"one basis of {symbol}"
            raise FormatError(f"{path}: expected {wanted}, got {known}; name one, as in {symbol}=DZVP-MOLOPT-SR-GTH")
        shells = _cp2k_shells(f"{path}: {' '.join(chosen[0][0][:2])}", chosen[0][1])
    if not shells:
        raise FormatError(f"{path}: expected a basis of {symbol}, got no shells")
    return tuple(sorted(shells, key=lambda shell: shell.l))


def _read(path: Path, atom: AtomBasis, name: str | None, settings: Mapping[str, Any]) -> AtomBasis:
    found = read_gaussian_basis(path, atom.symbol, None if name is None or name == path.stem else name)
    if [shell.l for shell in found] != list(atom.degrees):
        ours, theirs = ("".join(LETTERS[shell.l] for shell in one).lower() for one in (atom.shells, found))
        raise FormatError(f"{path}: expected the shells {ours} of {atom.symbol}, got {theirs}; name the right basis")
    shells = tuple(replace(a, radial=b.radial) for a, b in zip(atom.shells, found, strict=True))
    # Gaussians end nowhere: the radius is that of the pairs, where they are known
    smallest = min(min(shell.radial.exponents) for shell in found if isinstance(shell.radial, GaussianRadial))
    radius = GaussianRadial.bohr * float(np.sqrt(-np.log(END) / (2 * smallest)))
    return replace(atom, shells=shells, cutoff=atom.cutoff or radius)


def _sniff(path: Path) -> bool:
    if path.stat().st_size > LARGEST:
        return False
    header, rows = next(iter(_sections(beginning(path, START))), ([""], []))
    if header[0].capitalize() not in atomic_numbers:
        return False
    numbers = r"\s*[-+.\d][-+.\dEeDd]*"
    if _is_nwchem([(header, rows)]):
        return bool(rows) and re.fullmatch(rf"({numbers}){{2,}}\s*", rows[0]) is not None
    return len(header) > 1 and len(rows) > 2 and bool(re.fullmatch(r"\s*\d+\s*", rows[0])) and len(rows[1].split()) > 4


def _may_hold(path: Path, symbol: str, name: str | None) -> bool:
    sections = [one for one in _sections(read_text(path)) if one[0][0].upper() == symbol.upper()]
    known = {word.upper() for header, _ in sections for word in header[1:]} | {path.stem.upper()}
    return bool(sections) and (name is None or name.upper() in known)


FORMAT = BasisFormat("gaussian", "Gaussian bases of CP2K or NWChem", _sniff, _may_hold, _read)


def _sections(text: str) -> list[Section]:
    """All that begins with a word, without comments."""
    found: list[Section] = []
    for line in text.splitlines():
        content = re.split("[#!]", line, maxsplit=1)[0].strip()
        first = content.split()[0].upper() if content else ""
        if first in ("", "BASIS", "END"):
            continue
        if first == "ECP":  # effective cores, to the end of the file
            break
        if content[0].isalpha():
            found.append((content.split(), []))
        elif found:
            found[-1][1].append(content)
    return found


def _is_nwchem(sections: Iterable[Section]) -> bool:
    return any(len(header) == 2 and set(header[1].upper()) <= set(LETTERS) for header, _ in sections)


def _nwchem_shells(path: str | Path, header: Sequence[str], rows: Sequence[str]) -> list[Shell]:
    where = f"{path}: {' '.join(header)}"
    letters = header[1].upper() if len(header) == 2 else ""
    if letters not in (*LETTERS, "SP"):
        raise FormatError(f"{where}: expected an element and S, P, ..., or SP")
    table = _table(where, rows)
    if letters == "SP":
        if table.shape[1] != 3:
            raise FormatError(f"{where}: expected rows of three numbers, got {table.shape[1]}")
        return [*contracted_shells(0, table[:, :2]), *contracted_shells(1, table[:, ::2])]
    return contracted_shells(LETTERS.index(letters), table)


def _cp2k_shells(where: str, rows: Sequence[str]) -> list[Shell]:
    shells, at = [], 1
    for _ in range(_integers(where, rows[:1], 1)[0]):
        _, least, most, n_exponents, *counts = _integers(where, rows[at : at + 1], 5)
        table = _table(where, rows[at + 1 : at + 1 + n_exponents])
        at += 1 + n_exponents
        if not 0 <= least <= most < len(LETTERS) or len(counts) != most - least + 1 or min(counts) < 0:
            raise FormatError(
                f"{where}: expected l up to {len(LETTERS) - 1} and contractions of each, got {rows[at - 1]}"
            )
        if table.shape != (n_exponents, 1 + sum(counts)):
            raise FormatError(
                f"{where}: expected {n_exponents} rows of {1 + sum(counts)} numbers, got {table.shape[0]} of "
                f"{table.shape[1]}"
            )
        ends = np.cumsum([1, *counts])
        for l, start, end in zip(range(least, most + 1), ends[:-1], ends[1:], strict=True):
            shells += contracted_shells(l, table[:, [0, *range(start, end)]])
    if at != len(rows):
        raise FormatError(f"{where}: expected {at} lines, got {len(rows)}")
    return shells


def _integers(where: str, rows: Sequence[str], least: int) -> list[int]:
    """The integers of one line, at least so many."""
    words = rows[0].split() if rows else []
    if len(words) < least or not all(re.fullmatch(r"-?\d{1,4}", word) for word in words):
        raise FormatError(f"{where}: expected a line of {least} or more integers, got {' '.join(words)[:60]!r}")
    return [int(word) for word in words]


def _table(where: str, rows: Sequence[str]) -> NDArray[np.float64]:
    """Exponents and coefficients, with something of every contraction left."""
    widths = {len(row.split()) for row in rows}
    if len(widths) != 1 or min(widths) < 2:
        raise FormatError(f"{where}: expected rows of an exponent and as many coefficients each")
    table = numbers_in(where, " ".join(rows).replace("D", "e").replace("d", "e")).reshape(len(rows), -1)
    if not np.isfinite(table).all() or (table[:, 0] <= 0).any() or not (table[:, 1:] != 0).any(axis=0).all():
        raise FormatError(f"{where}: expected exponents above 0 and coefficients that are not all 0")
    return table
