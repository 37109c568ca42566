"""The basis files of SIESTA: <label>.ion.xml, which every run leaves for every species.

Of every orbital the file has n, l, zeta and R(r) / r^l at 500 radii, 12 digits, from 0 to the cutoff radius (SIESTA's
radial.f, basis_io.F). The functions are normalized. What precedes the orbitals quotes the pseudopotential's header,
any characters; what follows them, projectors and potentials, is of no use here: only the element <paos> is parsed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ase.data import chemical_symbols

from ase_hybridham.errors import FormatError
from ase_hybridham.io.basis_format import BasisFormat
from ase_hybridham.io.sampled import checked_samples
from ase_hybridham.io.siesta_orbitals import BOHR, LARGEST_L
from ase_hybridham.io.text import beginning, numbers_in
from ase_hybridham.system import AtomBasis, SampledRadial, Shell

__all__ = ["FORMAT", "read_siesta_ion"]

SUFFIX = ".ion.xml"
HEAD = 600  # bytes that hold symbol, label, z and valence
LARGEST = 2**24  # bytes, of which orbitals stand in the first; real files have 1 MB


@dataclass(frozen=True)
class _Orbital:
    n: int
    l: int
    zeta: int
    radial: SampledRadial

    @property
    def label(self) -> str:
        """As the shells of an .HSX are called."""
        return f"{self.n}{'spdfghi'[self.l]}{self.zeta}"


def read_siesta_ion(path: str | Path) -> AtomBasis:
    """The basis of one species; shells in SIESTA's order, that of .ORB_INDX.

    Raises
    ------
    FormatError
        If the file is damaged, or of a ghost or a mixed species.
    """
    text = beginning(path, LARGEST)
    head = text[:HEAD]
    number, valence = _field(path, head, "z"), _field(path, head, "valence")
    if not number.is_integer() or not 0 < number < len(chemical_symbols):
        raise FormatError(f"{path}: z: expected an atomic number, got {number:g}; ghosts and mixtures are not read")
    if not 0 <= valence <= number:
        raise FormatError(f"{path}: valence: expected electrons of {chemical_symbols[int(number)]}, got {valence:g}")
    orbitals = [_orbital(path, n, element) for n, element in enumerate(_orbital_elements(path, text), 1)]
    shells = tuple(Shell(one.l, one.label, one.radial) for one in orbitals)
    cutoff = BOHR * max(one.radial.cutoff for one in orbitals)
    return AtomBasis(chemical_symbols[int(number)], shells, valence, cutoff)


def _read(path: Path, atom: AtomBasis, name: str | None, settings: Mapping[str, Any]) -> AtomBasis:
    found = read_siesta_ion(path)
    if found.symbol != atom.symbol:
        raise FormatError(f"{path}: expected a basis of {atom.symbol}, got one of {found.symbol}")
    shells = found.shells
    if [s.l for s in shells] != list(atom.degrees):
        shells = tuple(sorted(shells, key=lambda shell: shell.l))  # as converters to DeepH's folders sort
    named = all(re.fullmatch(r"\d+[spdfghi]\d+", shell.label) for shell in atom.shells)
    if [s.l for s in shells] != list(atom.degrees) or (named and [s.label for s in shells] != _labels(atom)):
        raise FormatError(
            f"{path}: expected the shells {' '.join(_labels(atom))} of {atom.symbol}, "
            f"got {' '.join(_labels(found))}; give the files of the run that made H"
        )
    if atom.valence is not None and abs(atom.valence - (found.valence or 0)) > 1e-3:
        raise FormatError(f"{path}: expected {atom.valence:g} valence electrons, got {found.valence:g}")
    # H reaches further than S, by its projectors: pairs of the data are kept
    radius = max(atom.cutoff or 0.0, found.cutoff or 0.0)
    return replace(atom, shells=shells, valence=found.valence, cutoff=radius)


def _may_hold(path: Path, symbol: str, name: str | None) -> bool:
    if name is not None:
        return path.name.removesuffix(SUFFIX) == name.removesuffix(".xml").removesuffix(".ion")
    found = re.search(r"<symbol>\s*(\S+)\s*</symbol>", beginning(path, HEAD))
    return found is not None and found[1] == symbol


FORMAT = BasisFormat(
    "siesta",
    "SIESTA's <label>.ion.xml",
    lambda path: path.name.endswith(SUFFIX),
    _may_hold,
    _read,
    whole=read_siesta_ion,
)


def _labels(atom: AtomBasis) -> list[str]:
    return [shell.label or "spdfghi"[shell.l] for shell in atom.shells]


def _field(path: str | Path, text: str, name: str) -> float:
    found = re.search(rf"<{name}>([^<]*)</{name}>", text)
    value = numbers_in(f"{path}: {name}", found[1] if found else "")
    if len(value) != 1:
        raise FormatError(f"{path}: expected <{name}> with one number at the beginning; is it a .ion.xml of SIESTA?")
    return float(value[0])


def _orbital_elements(path: str | Path, text: str) -> list[ElementTree.Element]:
    start, end = text.find("<paos>"), text.find("</paos>")
    if not 0 <= start < end:
        raise FormatError(f"{path}: expected the orbitals between <paos> and </paos>; is the file cut?")
    try:
        found = ElementTree.fromstring(text[start : end + len("</paos>")]).findall("orbital")
    except ElementTree.ParseError as error:
        raise FormatError(f"{path}: is no XML ({error})") from None
    expected = _field(path, text[:HEAD], "norbs_nl")
    if len(found) != expected or not found:
        raise FormatError(f"{path}: expected {expected:g} orbitals, got {len(found)}")
    return found


def _orbital(path: str | Path, number: int, element: ElementTree.Element) -> _Orbital:
    where = f"{path}: orbital {number}"
    values = {
        **{key: element.get(key) for key in ("n", "l", "z")},
        **{key: element.findtext(f"radfunc/{key}") for key in ("npts", "delta", "cutoff", "data")},
    }
    numbers = {key: numbers_in(f"{where}: {key}", value or "") for key, value in values.items()}
    table = numbers.pop("data")
    if any(len(found) != 1 for found in numbers.values()):
        raise FormatError(f"{where}: expected one number each as n, l, z, npts, delta and cutoff")
    n, l, zeta, count, delta, cutoff = (float(found[0]) for found in numbers.values())
    if not all(x.is_integer() and 0 <= x < 100 for x in (n, l, zeta)) or l > LARGEST_L or len(table) != 2 * count:
        raise FormatError(
            f"{where}: expected n, l up to {LARGEST_L}, zeta and {count:g} rows of two numbers, "
            f"got {n:g}, {l:g}, {zeta:g} and {len(table)} numbers"
        )
    mesh, reduced = table[0::2], table[1::2]
    radial = checked_samples(where, mesh, reduced * mesh**l, cutoff, delta, rule="siesta", bohr=BOHR)
    return _Orbital(int(n), int(l), int(zeta), radial)
