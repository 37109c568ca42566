"""The copy of its input that OpenMX appends to a .scfout: species, basis sets, settings.

Only there does the file say which elements and shells its matrices belong to. Keywords are case-insensitive, the
first of equal ones counts, a value may be followed by words and a comment; `X6.0-s2p2d1` is the file X6.0.pao, cutoff
radius 6.0 bohr, of which the first 2 s, 2 p and 1 d functions are taken.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from ase_hybridham.errors import FormatError
from ase_hybridham.system import AtomBasis, Basis, Shell

__all__ = ["BOHR", "InputCopy", "Species", "input_basis", "input_settings", "parse_input", "parse_species", "shells_of"]

BOHR = 0.529177249  # angstrom; OpenMX's own (openmx_common.h), not CODATA's

SHELLS = "spdfg"  # OpenMX knows no higher l
TRUE, FALSE = {"on", "yes", "true", ".true.", "ok"}, {"off", "no", "false", ".false.", "ng"}
# name in the provenance -> (keyword, OpenMX's default, kind)
SETTINGS: dict[str, tuple[str, Any, type]] = {
    "xc": ("scf.XcType", "LDA", str),
    "k_mesh": ("scf.Kgrid", [4, 4, 4], list),
    "energy_cutoff_Ry": ("scf.energycutoff", 150.0, float),
    "spin_orbit": ("scf.SpinOrbit.Coupling", False, bool),
    "hubbard_u": ("scf.Hubbard.U", False, bool),
    "data_path": ("DATA.PATH", None, Path),
    "1DFFT_energy_cutoff_Ry": ("1DFFT.EnergyCutoff", None, float),
    "1DFFT_k_points": ("1DFFT.NumGridK", None, float),
    "1DFFT_radial_points": ("1DFFT.NumGridR", None, float),
}


@dataclass(frozen=True)
class Species:
    """One line of <Definition.of.Atomic.Species.

    Parameters
    ----------
    symbol : str
        Chemical symbol, of the pseudopotential's name, else of the basis' name, else of the label.
    basis : str
        As written, e.g. ``"C6.0-s2p2d1"``.
    pseudopotential : str
    radius : float or None
        Cutoff radius in bohr; None where the file of the basis is not named after it.
    primitive, contracted : tuple of int
        Radial functions of every l; they differ only with orbital optimization ("s4>1"), where H has the contracted.
    """

    symbol: str
    basis: str
    pseudopotential: str
    radius: float | None
    primitive: tuple[int, ...]
    contracted: tuple[int, ...]

    @property
    def is_contracted(self) -> bool:
        """Whether the orbitals of the matrices were optimized."""
        return self.primitive != self.contracted

    def degrees(self, size: int) -> list[int] | None:
        """l of every shell of an atom with `size` orbitals in the matrices; None if the name says otherwise."""
        for counts in (self.primitive, self.contracted):
            degrees = [l for l, n in enumerate(counts) for _ in range(n)]
            if sum(2 * l + 1 for l in degrees) == size:
                return degrees
        return None


@dataclass(frozen=True, eq=False)
class InputCopy:
    """What the input says of the atoms.

    Parameters
    ----------
    words : dict
        Lower-case keyword -> the words after it.
    species : tuple of Species
        Of every atom.
    initial_electrons : array, shape (n_atoms,)
        Up and down electrons that the density starts from: the valence of a neutral atom. NaN if not given.
    """

    words: dict[str, list[str]]
    species: tuple[Species, ...]
    initial_electrons: NDArray[np.float64]


def parse_input(where: str | Path, text: str, n_atoms: int) -> InputCopy:
    """Read the text of an input file.

    Raises
    ------
    FormatError
        If it does not define a species for each of `n_atoms` atoms.
    """
    lines = [line.split("#", 1)[0].split() for line in text.splitlines()]
    words: dict[str, list[str]] = {}
    for line in lines:
        if line:
            words.setdefault(line[0].lower(), line[1:])
    species = {line[0]: parse_species(where, line) for line in _block(where, lines, "Definition.of.Atomic.Species")}
    atoms = _block(where, lines, "Atoms.SpeciesAndCoordinates")
    if len(atoms) != n_atoms:
        raise FormatError(
            f"{where}: copy of the input: expected {n_atoms} atoms in <Atoms.SpeciesAndCoordinates, got {len(atoms)}"
        )
    chosen = []
    electrons = np.full(n_atoms, np.nan)
    for n, line in enumerate(atoms):
        label = line[1] if len(line) > 1 else ""
        if line[0] != str(n + 1) or label not in species:
            known = ", ".join(species)
            raise FormatError(
                f"{where}: copy of the input: atom {n + 1}: expected its number and a species of {known}, "
                f"got {' '.join(line[:2])!r}"
            )
        chosen.append(species[label])
        if len(line) >= 7:
            electrons[n] = _number(where, label, line[5]) + _number(where, label, line[6])
    return InputCopy(words, tuple(chosen), electrons)


def input_basis(where: str | Path, copy: InputCopy, sizes: Sequence[int], electrons: float) -> Basis:
    """The basis of the atoms, with radii and valences where they are known.

    Valences are the initial electrons, if they are the same for all atoms of an element and add up to the electrons
    of the calculation.

    Parameters
    ----------
    copy : InputCopy
    sizes : sequence of int
        Orbitals of every atom in the matrices.
    electrons : float
        Valence electrons in the cell, without those that a charge took away.

    Raises
    ------
    FormatError
        If a basis name contradicts the number of orbitals, or atoms of one element differ in their shells.
    """
    charge = _setting(where, copy, "scf.system.charge", 0.0, float)
    found: dict[str, tuple[list[int], int]] = {}
    for atom, (species, size) in enumerate(zip(copy.species, sizes, strict=True)):
        degrees = species.degrees(int(size))
        if degrees is None:
            raise FormatError(f"{where}: atom {atom + 1}: has {size} orbitals, which {species.basis} does not give")
        known, first = found.setdefault(species.symbol, (degrees, atom))
        if known != degrees:
            raise FormatError(
                f"{where}: atom {atom + 1} ({species.symbol}) has the basis {species.basis}, atom {first + 1} "
                f"{copy.species[first].basis}; atoms of one element must have one basis"
            )
    valences = _valences(copy, electrons + charge)
    atoms = []
    for symbol in sorted(found, key=atomic_numbers.__getitem__):
        degrees = found[symbol][0]
        shells = shells_of([degrees.count(l) for l in range(len(SHELLS))])
        radii = [species.radius for species in copy.species if species.symbol == symbol]
        radius = None if None in radii else BOHR * max(r for r in radii if r is not None)
        atoms.append(AtomBasis(symbol, shells, valences.get(symbol), radius))
    names = sorted({species.basis for species in copy.species})
    return Basis.of(*atoms, name="/".join(names))


def input_settings(where: str | Path, copy: InputCopy) -> dict[str, Any]:
    """Functional, meshes, basis and pseudopotential names as plain JSON types.

    Raises
    ------
    FormatError
        If a value is not of the kind that its keyword wants.
    """
    values = {name: _setting(where, copy, *setting) for name, setting in SETTINGS.items()}
    bases: dict[str, set[str]] = {}
    for species in copy.species:
        bases.setdefault(species.symbol, set()).add(species.basis)
    return {
        **{name: value for name, value in values.items() if value is not None},
        "basis": {symbol: "/".join(sorted(names)) for symbol, names in bases.items()},
        "pseudopotentials": {species.symbol: species.pseudopotential for species in copy.species},
    }


def shells_of(counts: Sequence[int]) -> tuple[Shell, ...]:
    """The shells of `counts[l]` radial functions of every l, in OpenMX's order."""
    return tuple(Shell(l, f"{SHELLS[l]}{n + 1}") for l, count in enumerate(counts) for n in range(count))


def _valences(copy: InputCopy, electrons: float) -> dict[str, float]:
    by_element: dict[str, set[float]] = {}
    for species, count in zip(copy.species, copy.initial_electrons.tolist(), strict=True):
        by_element.setdefault(species.symbol, set()).add(round(count, 6))
    alike = all(len(counts) == 1 and min(counts) > 0 for counts in by_element.values())
    if alike and abs(copy.initial_electrons.sum() - electrons) < 1e-4:
        return {symbol: min(counts) for symbol, counts in by_element.items()}
    each = electrons / len(copy.species)
    if len(by_element) == 1 and each > 0 and abs(each - round(each)) < 1e-6:
        return {copy.species[0].symbol: float(round(each))}
    return {}


def parse_species(where: str | Path, line: list[str]) -> Species:
    """The species of the words label, basis, pseudopotential.

    Raises
    ------
    FormatError
        If a word is lacking, the basis is not written like C6.0-s2p2d1, or no element is named.
    """
    if len(line) < 3:
        raise FormatError(f"{where}: copy of the input: species {line[0]}: expected a basis and a pseudopotential")
    label, basis, pseudopotential = line[:3]
    if pseudopotential.upper() == "E":
        raise FormatError(f"{where}: species {label} is an empty atom (floating orbitals), which is not supported")
    if re.match(r"[A-Z][a-z]?\d+[A-Z]", pseudopotential):
        raise FormatError(f"{where}: species {label} is a virtual atom ({pseudopotential}), which is no element")
    file, primitive, contracted = parse_basis_name(f"{where}: species {label}", basis)
    named = re.match(r"[A-Z][a-z]?(\d+\.\d+)", file)  # Ni6, Fe55a_1, H075 are not named after their radius
    radius = float(named[1]) if named else 0.0
    return Species(
        _symbol(where, label, file, pseudopotential),
        basis,
        pseudopotential,
        radius if radius > 0 else None,
        primitive,
        contracted,
    )


def parse_basis_name(where: str | Path, name: str) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    """File without suffix, and functions of every l before and after an optimization, of a name like C6.0-s2p2d1.

    Raises
    ------
    FormatError
        If it is not written like that.
    """
    file, _, shells = name.partition("-")
    counts = re.findall(rf"([{SHELLS}])(\d{{1,3}})(?:>(\d{{1,3}}))?", shells)
    rebuilt = "".join(f"{l}{n}" + (f">{c}" if c else "") for l, n, c in counts)
    letters = [l for l, *_ in counts]
    if not counts or rebuilt != shells or len(set(letters)) < len(letters):
        raise FormatError(f"{where}: expected a basis like C6.0-s2p2d1, got {name!r}")
    primitive = {l: int(n) for l, n, _ in counts}
    contracted = {l: int(c or n) for l, n, c in counts}
    return file, tuple(primitive.get(l, 0) for l in SHELLS), tuple(contracted.get(l, 0) for l in SHELLS)


def _symbol(where: str | Path, label: str, file: str, pseudopotential: str) -> str:
    """The element; a label may be any word, the names of files begin with the symbol by OpenMX's custom."""
    for name in (pseudopotential, file, label):
        match = re.match(r"([A-Z][a-z]?)(?![a-z])", name)
        if match and atomic_numbers.get(match[1]):  # X is number 0
            return match[1]
    raise FormatError(f"{where}: species {label}: no element in {pseudopotential!r}, {file!r} or {label!r}")


def _block(where: str | Path, lines: list[list[str]], name: str) -> list[list[str]]:
    """The lines between <name and name>."""
    keys = [line[0].lower() if line else "" for line in lines]
    try:
        start = keys.index(f"<{name.lower()}")
        end = keys.index(f"{name.lower()}>", start)
    except ValueError:
        raise FormatError(f"{where}: copy of the input: <{name} ... {name}> is missing") from None
    return [line for line in lines[start + 1 : end] if line]


def _setting(where: str | Path, copy: InputCopy, keyword: str, default: Any, kind: type) -> Any:
    words = copy.words.get(keyword.lower())
    if not words:
        return default
    if kind is bool:
        word = words[0].lower()
        if word not in TRUE | FALSE:
            raise FormatError(f"{where}: copy of the input: {keyword}: expected on or off, got {words[0]!r}")
        return word in TRUE
    if kind is list:
        return [int(_number(where, keyword, word)) for word in words[:3]]
    if kind is float:
        return _number(where, keyword, words[0])
    return Path(words[0]).name if kind is Path else words[0]  # a machine's folders are nobody's business


def _number(where: str | Path, name: str, word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = np.nan
    if not abs(value) < 1e9:
        raise FormatError(f"{where}: copy of the input: {name}: expected a number, got {word!r}")
    return value
