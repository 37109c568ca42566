"""The basis files of ABACUS: Ga_gga_9au_60Ry_2s2p2d.orb, numerical atomic orbitals.

A header, then of every function its type, l and number, and R at equal steps from r = 0 to the cutoff radius, four a
line (ABACUS's read_abacus_orb, which normalizes them). Shells are ordered by l, then number.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from ase.units import Bohr
from numpy.typing import NDArray
from scipy.integrate import simpson

from ase_hybridham.errors import FormatError
from ase_hybridham.io.basis_format import BasisFormat
from ase_hybridham.io.sampled import checked_samples
from ase_hybridham.io.text import beginning, numbers_in
from ase_hybridham.system import AtomBasis, SampledRadial, Shell

__all__ = ["FORMAT", "read_abacus_orb"]

SUFFIX = ".orb"
ELEMENT = r"^Element\s+(\S+)\s*$"
HEAD = 600  # bytes that hold the element
LARGEST = 2**24  # bytes; real files have 0.2 MB
LARGEST_L = 6


def read_abacus_orb(path: str | Path) -> AtomBasis:
    """The basis of one element; shells by l, then number.

    Raises
    ------
    FormatError
        If the file is damaged.
    """
    header, *sections = re.split(r"^\s*Type\s+L\s+N\s*$", beginning(path, LARGEST), flags=re.MULTILINE)
    symbol = _word(path, header, ELEMENT, "Element")
    if symbol not in atomic_numbers:
        raise FormatError(f"{path}: Element: expected a chemical symbol, got {symbol!r}")
    cutoff, step, count = (
        float(_word(path, header, rf"^{words}\s+(\d{{1,6}}(?:\.\d{{1,9}})?)\s*$", words))
        for words in (r"Radius Cutoff\(a\.u\.\)", "dr", "Mesh")
    )
    told = [int(n) for n in re.findall(r"^Number of [A-Z]orbital-->\s+(\d{1,3})\s*$", header, flags=re.MULTILINE)]
    functions: dict[tuple[int, int], SampledRadial] = {}
    for section in sections:
        numbers = numbers_in(f"{path}: a function", section)
        if len(numbers) != 3 + count or not all(x.is_integer() and 0 <= x < 100 for x in numbers[:3].tolist()):
            raise FormatError(
                f"{path}: expected type, l, number and {count:g} values of each function, got {len(numbers)} numbers"
            )
        l, n = int(numbers[1]), int(numbers[2])
        if l > LARGEST_L or (l, n) in functions:
            raise FormatError(f"{path}: expected every function once, l up to {LARGEST_L}, got l = {l}, number {n}")
        functions[l, n] = _radial(f"{path}: function {n + 1} of l = {l}", numbers[3:], cutoff, step)
    if sorted(functions) != [(l, n) for l, number in enumerate(told) for n in range(number)] or not functions:
        raise FormatError(
            f"{path}: expected {told} functions of l = 0, 1, ..., got those of l, number {list(functions)}"
        )
    shells = tuple(Shell(l, f"{n + 1}{'spdfghi'[l]}", functions[l, n]) for l, n in sorted(functions))
    return AtomBasis(symbol, shells, None, Bohr * cutoff)


def _radial(where: str, values: NDArray[np.float64], cutoff: float, step: float) -> SampledRadial:
    mesh = np.linspace(0.0, step * (len(values) - 1), len(values))
    with np.errstate(all="ignore"):  # what is no number is refused below
        values = values / float(np.sqrt(simpson((mesh * values) ** 2, dx=step)))
    # ase's bohr, by which the reader of ABACUS's logs converts its lengths
    return checked_samples(where, mesh, values, cutoff, step, rule="abacus", bohr=Bohr)


def _read(path: Path, atom: AtomBasis, name: str | None, settings: Mapping[str, Any]) -> AtomBasis:
    found = read_abacus_orb(path)
    if found.symbol != atom.symbol:
        raise FormatError(f"{path}: expected a basis of {atom.symbol}, got one of {found.symbol}")
    if found.degrees != atom.degrees:
        ours, theirs = ("".join("spdfghi"[l] for l in one.degrees) for one in (atom, found))
        raise FormatError(
            f"{path}: expected the shells {ours} of {atom.symbol}, got {theirs}; give the file of the run"
        )
    shells = tuple(replace(a, radial=b.radial) for a, b in zip(atom.shells, found.shells, strict=True))
    # H reaches further than S, by its projectors: pairs of the data are kept
    return replace(atom, shells=shells, cutoff=max(atom.cutoff or 0.0, found.cutoff or 0.0))


def _may_hold(path: Path, symbol: str, name: str | None) -> bool:
    if name is not None:
        return path.name.removesuffix(SUFFIX) == name.removesuffix(SUFFIX)
    found = re.search(ELEMENT, beginning(path, HEAD), flags=re.MULTILINE)
    return found is not None and found[1] == symbol


FORMAT = BasisFormat(
    "abacus", "ABACUS's .orb", lambda path: path.name.endswith(SUFFIX), _may_hold, _read, whole=read_abacus_orb
)


def _word(path: str | Path, header: str, pattern: str, what: str) -> str:
    found = re.search(pattern, header, flags=re.MULTILINE)
    if found is None:
        raise FormatError(f"{path}: expected {what.replace(chr(92), '')} in its header; is it a .orb of ABACUS?")
    return found[1]
