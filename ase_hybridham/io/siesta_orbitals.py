"""The shells of SIESTA's species, and the table <label>.ORB_INDX that lists the orbitals of all atoms."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ase_hybridham.errors import FormatError

__all__ = ["BOHR", "Species", "read_orbital_table", "whole_shells"]

BOHR = 0.529177210903  # angstrom, SIESTA 5's
LARGEST_L = 6


@dataclass
class Species:
    """One kind of atom.

    Parameters
    ----------
    label : str
    shells : list of tuple
        (n, l, zeta) of each.
    valence : float, optional
    radius : float, optional
        Of its longest orbital, angstrom.
    """

    label: str
    shells: list[tuple[int, int, int]]
    valence: float | None = None
    radius: float | None = None


def read_orbital_table(path: Path) -> tuple[NDArray[np.int64], list[Species]]:
    """Kind of every atom, counted from 0, and the species, of an .ORB_INDX file.

    Raises
    ------
    FormatError
        If it is missing or no such table, or an orbital stands where SIESTA has none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        size = int(lines[0].split()[0])
        rows = [line.split() for line in lines[1:] if line.strip() and line.split()[0] != "io"][:size]
        table = [(int(r[1]), int(r[2]), r[3], int(r[5]), int(r[6]), int(r[7]), int(r[8]), float(r[11])) for r in rows]
    except (OSError, UnicodeDecodeError, ValueError, IndexError) as error:
        raise FormatError(f"{path}: expected the orbital table of SIESTA ({error})") from None
    species: dict[int, Species] = {}
    kinds: list[int] = []
    at = 0
    while at < len(table):
        atom, kind, label, *_ = table[at]
        end = next((n for n in range(at, len(table)) if table[n][0] != atom), len(table))
        orbitals = np.array([(n, l, zeta) for _, _, _, n, l, _, zeta, _ in table[at:end]])
        shells = whole_shells(path, label, orbitals)
        orders = [m for _, _, _, _, _, m, _, _ in table[at:end]]
        radius = BOHR * max(entry[-1] for entry in table[at:end])
        one = species.setdefault(kind, Species(label, shells, None, radius))
        if (
            one.shells != shells
            or orders != [m for _, l, _ in shells for m in range(-l, l + 1)]
            or atom != len(kinds) + 1
        ):
            raise FormatError(f"{path}: atom {atom}: expected whole shells, m = -l to l, the same for one species")
        kinds.append(kind)
        at = end
    if len(table) != size or not kinds or sorted(species) != list(range(1, len(species) + 1)):
        raise FormatError(f"{path}: expected {size} orbitals of species 1, 2, ..., got {len(table)}")
    return np.array(kinds) - 1, [species[n] for n in sorted(species)]


def whole_shells(path: Path, label: str, orbitals: NDArray) -> list[tuple[int, int, int]]:
    """The shells of the orbitals of a species, of which 2l+1 equal ones stand together.

    Parameters
    ----------
    path, label
        Name file and species in messages.
    orbitals : array of int, shape (n_orbitals, 3)
        n, l, zeta.

    Raises
    ------
    FormatError
        If there are none, or they are not whole shells.
    """
    shells, at = [], 0
    while at < len(orbitals):
        n, l, zeta = map(int, orbitals[at])
        if (
            not 0 <= l <= LARGEST_L
            or (orbitals[at : at + 2 * l + 1] != orbitals[at]).any()
            or at + 2 * l + 1 > len(orbitals)
        ):
            raise FormatError(f"{path}: species {label!r}: orbital {at + 1}: expected a whole shell, got l = {l}")
        shells.append((n, l, zeta))
        at += 2 * l + 1
    if not shells:
        raise FormatError(f"{path}: species {label!r} has no orbitals")
    return shells
