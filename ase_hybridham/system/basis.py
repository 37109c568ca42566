"""Localized basis sets: shells of an atom, atoms of a basis. Knows nothing of a structure.

Inside a shell the orbitals are the real spherical harmonics m = -l .. l without the
Condon-Shortley sign (l = 1: y, z, x); see `system.orbitals` for other programs' orders.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import ArrayLike, NDArray

from ase_hybridham.system.radial import Radial, radial_from_dict, radial_to_dict

__all__ = ["AtomBasis", "Basis", "Shell"]


@dataclass(frozen=True)
class Shell:
    """One radial function with its 2l+1 orbitals.

    Parameters
    ----------
    l : int
        Angular momentum.
    label : str
        For people, e.g. ``"2p"``.
    radial : GaussianRadial or SampledRadial, optional
        The radial function, needed only where overlaps are computed.
    """

    l: int
    label: str = ""
    radial: Radial | None = None

    def __post_init__(self) -> None:
        if self.l < 0:
            raise ValueError(f"shell: expected l >= 0, got {self.l}")

    @property
    def size(self) -> int:
        """Number of orbitals, 2l+1."""
        return 2 * self.l + 1


@dataclass(frozen=True)
class AtomBasis:
    """The shells of one element.

    Parameters
    ----------
    symbol : str
        Chemical symbol.
    shells : tuple of Shell
        In the order of the orbitals.
    valence : float, optional
        Valence electrons of the neutral atom (of its pseudopotential), never the atomic number.
    cutoff : float, optional
        Radius in angstrom beyond which the orbitals vanish: a hopping exists for distances up to the
        sum of two cutoffs.
    """

    symbol: str
    shells: tuple[Shell, ...]
    valence: float | None = None
    cutoff: float | None = None

    def __post_init__(self) -> None:
        if self.symbol not in atomic_numbers:
            raise ValueError(f"basis: unknown element {self.symbol!r}")
        if not self.shells:
            raise ValueError(f"basis of {self.symbol}: expected at least one shell")
        if self.cutoff is not None and not self.cutoff > 0:
            raise ValueError(f"basis of {self.symbol}: expected cutoff > 0 angstrom, got {self.cutoff}")

    @classmethod
    def from_degrees(
        cls, symbol: str, degrees: Iterable[int], valence: float | None = None, cutoff: float | None = None
    ) -> "AtomBasis":
        """An atom basis known only by the l of its shells, e.g. ``[0, 0, 1, 1, 2]``."""
        return cls(symbol, tuple(Shell(int(l)) for l in degrees), valence, cutoff)

    @property
    def number(self) -> int:
        """Atomic number."""
        return int(atomic_numbers[self.symbol])

    @property
    def degrees(self) -> tuple[int, ...]:
        """Angular momentum l of every shell."""
        return tuple(shell.l for shell in self.shells)

    @property
    def size(self) -> int:
        """Number of orbitals."""
        return sum(shell.size for shell in self.shells)

    @property
    def has_radial_functions(self) -> bool:
        """Whether every shell carries its radial function."""
        return all(shell.radial is not None for shell in self.shells)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Orbitals of every shell."""
        ends = np.cumsum([0, *(shell.size for shell in self.shells)])
        return tuple(slice(int(a), int(b)) for a, b in pairwise(ends))


@dataclass(frozen=True)
class Basis:
    """Element -> `AtomBasis`.

    Parameters
    ----------
    atoms : mapping of str to AtomBasis
        Keyed by chemical symbol.
    name : str
        For people, e.g. ``"C6.0-s2p2d1"``.
    orthogonal : bool
        True if the orbitals are orthonormal by definition (Wannier functions), so that S = 1.
    """

    atoms: Mapping[str, AtomBasis]
    name: str = ""
    orthogonal: bool = False
    _by_number: dict[int, AtomBasis] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        for symbol, atom in self.atoms.items():
            if atom.symbol != symbol:
                raise ValueError(f"basis: the entry of {symbol} describes {atom.symbol}")
            self._by_number[atom.number] = atom

    @classmethod
    def of(cls, *atoms: AtomBasis, name: str = "", orthogonal: bool = False) -> "Basis":
        """The basis of the given elements."""
        return cls({atom.symbol: atom for atom in atoms}, name, orthogonal)

    def __getitem__(self, element: str | int) -> AtomBasis:
        """The atom basis of a chemical symbol or an atomic number."""
        found = self.atoms.get(element) if isinstance(element, str) else self._by_number.get(int(element))
        if found is None:
            symbol = element if isinstance(element, str) else chemical_symbols[int(element)]
            raise KeyError(f"basis {self.name or 'of this system'}: no element {symbol}, only {', '.join(self.atoms)}")
        return found

    def __contains__(self, element: str | int) -> bool:
        return element in (self.atoms if isinstance(element, str) else self._by_number)

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """Atomic numbers, ascending."""
        return tuple(sorted(self._by_number))

    def sizes(self, numbers: ArrayLike) -> NDArray[np.int64]:
        """Orbitals of each atom, shape (n_atoms,), for atomic numbers of that shape."""
        elements, which = np.unique(np.asarray(numbers, dtype=np.int64), return_inverse=True)
        return np.array([self[int(z)].size for z in elements], dtype=np.int64)[which.ravel()]

    def electrons(self, numbers: ArrayLike) -> float | None:
        """Valence electrons of neutral atoms with these atomic numbers; None if a valence is unknown."""
        valences = [self[int(z)].valence for z in np.asarray(numbers)]
        return None if None in valences else float(sum(v for v in valences if v is not None))

    def with_valences(self, valence: Mapping[str, float]) -> "Basis":
        """The basis with these valences; elements that are not named keep theirs."""
        atoms = {s: replace(atom, valence=valence.get(s, atom.valence)) for s, atom in self.atoms.items()}
        return replace(self, atoms=atoms)

    def cutoffs(self) -> dict[int, float]:
        """Orbital radius in angstrom of every atomic number.

        Raises
        ------
        ValueError
            If an element has none.
        """
        missing = [symbol for symbol, atom in self.atoms.items() if atom.cutoff is None]
        if missing:
            raise ValueError(f"basis {self.name}: no cutoff radius for {', '.join(missing)}; give a cutoff")
        return {atom.number: float(atom.cutoff) for atom in self.atoms.values() if atom.cutoff is not None}

    def has_radial_functions(self) -> bool:
        """Whether every shell carries its radial function."""
        return all(atom.has_radial_functions for atom in self.atoms.values())

    def same_orbitals(self, other: "Basis") -> bool:
        """Whether the elements both know have the same shells, so that blocks can be compared."""
        common = set(self.atoms) & set(other.atoms)
        return all(self.atoms[s].degrees == other.atoms[s].degrees for s in common)

    def merged(self, other: "Basis") -> "Basis":
        """The basis that knows the elements of both.

        Raises
        ------
        ValueError
            If an element is in both with different shells, or one basis is orthogonal and the other not.
        """
        if self.orthogonal != other.orthogonal:
            raise ValueError("bases: one is orthogonal, the other is not")
        atoms = dict(self.atoms)
        for symbol, atom in other.atoms.items():
            atoms[symbol] = _merged_atom(atoms[symbol], atom) if symbol in atoms else atom
        return Basis(atoms, self.name or other.name, self.orthogonal)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; inverse of `from_dict`."""
        return {
            "name": self.name,
            "orthogonal": self.orthogonal,
            "atoms": [_atom_to_dict(atom) for atom in self.atoms.values()],
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "Basis":
        """The basis that `to_dict` described."""
        atoms = [_atom_from_dict(atom) for atom in entry["atoms"]]
        return cls.of(*atoms, name=entry["name"], orthogonal=entry["orthogonal"])


def _merged_atom(first: AtomBasis, second: AtomBasis) -> AtomBasis:
    """One description of two of the same element: what one leaves open, the other may tell; a cutoff is the larger."""
    if first.degrees != second.degrees:
        raise ValueError(
            f"basis of {first.symbol}: shells with l = {first.degrees} in one source, {second.degrees} in another"
        )
    if None not in (first.valence, second.valence) and first.valence != second.valence:
        raise ValueError(f"valence of {first.symbol}: {first.valence} in one source, {second.valence} in another")
    pairs = list(zip(first.shells, second.shells, strict=True))
    if any(None not in (a.radial, b.radial) and a.radial != b.radial for a, b in pairs):
        raise ValueError(f"basis of {first.symbol}: two sources have different radial functions")
    shells = tuple(replace(a, label=a.label or b.label, radial=a.radial or b.radial) for a, b in pairs)
    cutoffs = [c for c in (first.cutoff, second.cutoff) if c is not None]
    valence = first.valence if first.valence is not None else second.valence
    return AtomBasis(first.symbol, shells, valence, max(cutoffs, default=None))


def _atom_to_dict(atom: AtomBasis) -> dict[str, Any]:
    meshes: list[str] = []
    shells = [
        {"l": shell.l, "label": shell.label, **(radial_to_dict(shell.radial, meshes) if shell.radial else {})}
        for shell in atom.shells
    ]
    entry = {"symbol": atom.symbol, "valence": atom.valence, "cutoff": atom.cutoff, "shells": shells}
    return entry | ({"meshes": meshes} if meshes else {})


def _atom_from_dict(entry: Mapping[str, Any]) -> AtomBasis:
    meshes = entry.get("meshes", [])
    shells = [Shell(int(s["l"]), s.get("label", ""), radial_from_dict(s, meshes)) for s in entry["shells"]]
    return AtomBasis(entry["symbol"], tuple(shells), entry["valence"], entry["cutoff"])
