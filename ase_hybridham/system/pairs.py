"""Directed pairs of atoms within a range, for any periodicity.

Pair p connects atom i in cell 0 with atom j in the cell at R (three integers); its vector
is r_j + R.A - r_i. Order: the self pairs (i, i, 0) of all atoms first, then ascending
(i, j, R). Every pair has its reverse (j, i, -R) in the list.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell
from numpy.typing import ArrayLike, NDArray

__all__ = ["PairList", "count_pairs", "outside_of_radii", "pair_vectors"]

# A pair at exactly the cutoff must not be there in one direction only because of rounding.
CUTOFF_MARGIN = 1e-9
# Beyond these, in angstrom and in periodic images seen by one atom, units are mixed up; the search would take
# hours, or end the process by an integer overflow.
LARGEST_CUTOFF = 1e3
FARTHEST_ATOM = 1e5
MOST_IMAGES = 1e6
# The radii of other programs' files are fitted to the pairs there: a pair may be a little longer than two of them,
# and some pairs within them may be missing.
LONGER = 0.05  # angstrom
LACKING = 0.02  # of the pairs within the radii
SAME_RADIUS = 5e-4  # angstrom; half of the 1e-3 that two radii may differ by


@dataclass(frozen=True, eq=False)
class PairList:
    """The pairs of a structure.

    Parameters
    ----------
    numbers : array, shape (n_atoms,)
        Atomic numbers.
    i, j : arrays of int, shape (n_pairs,)
        Atoms of each pair.
    shifts : array of int, shape (n_pairs, 3)
        Lattice shift R of atom j.
    vectors : array, shape (n_pairs, 3)
        r_j + R.A - r_i in angstrom.
    reverse : array of int, shape (n_pairs,)
        Index of (j, i, -R).
    volume : float
        Of the cell, angstrom^3; infinite where the atoms have no cell in some direction.

    Use `from_atoms` or `from_indices`, which order and check.
    """

    numbers: NDArray[np.int64]
    i: NDArray[np.int64]
    j: NDArray[np.int64]
    shifts: NDArray[np.int64]
    vectors: NDArray[np.float64]
    reverse: NDArray[np.int64]
    volume: float = np.inf

    @classmethod
    def from_atoms(cls, atoms: Atoms, cutoff: float | Mapping[int, float]) -> "PairList":
        """All pairs within a range.

        Parameters
        ----------
        atoms : ase.Atoms
            Any pbc; positions may lie outside the cell.
        cutoff : float or mapping
            Largest distance in angstrom; or atomic number -> radius, then a pair reaches to the sum of two radii.

        Raises
        ------
        ValueError
            If the cutoff is not a positive number or far too large for the cell, an element has no radius, or
            positions or cell are not finite, or the cell is flat.
        """
        i, j, shifts, near = _within(atoms, cutoff)
        reverse = _reverse_index(i, j, shifts, len(atoms))
        keep = (near | near[reverse]) & (reverse >= 0)
        return cls.from_indices(atoms, i[keep], j[keep], shifts[keep])

    @classmethod
    def from_indices(cls, atoms: Atoms, i: ArrayLike, j: ArrayLike, shifts: ArrayLike) -> "PairList":
        """The pair list of given pairs in any order; self pairs that are lacking are added.

        Raises
        ------
        ValueError
            If a pair stands twice, lacks its reverse, or names an atom that is not there.
        """
        pairs, _ = cls.sorted_from_indices(atoms, i, j, shifts)
        return pairs

    @classmethod
    def sorted_from_indices(
        cls, atoms: Atoms, i: ArrayLike, j: ArrayLike, shifts: ArrayLike
    ) -> tuple["PairList", NDArray[np.int64]]:
        """The pair list of given pairs, and where each given pair went.

        Returns
        -------
        pairs : PairList
        position : array of int, shape (n_given,)
            Row of `pairs` that holds each given pair.
        """
        n_atoms = len(atoms)
        given_i, given_j = np.asarray(i, dtype=np.int64).ravel(), np.asarray(j, dtype=np.int64).ravel()
        given_r = np.asarray(shifts, dtype=np.int64).reshape(-1, 3)
        n_given = len(given_i)
        if not n_given == len(given_j) == len(given_r):
            raise ValueError(f"pairs: expected as many i, j and R, got {n_given}, {len(given_j)} and {len(given_r)}")
        if n_given and (min(given_i.min(), given_j.min()) < 0 or max(given_i.max(), given_j.max()) >= n_atoms):
            raise ValueError(f"pairs: expected atoms 0 to {n_atoms - 1}, got {given_i.min()} to {given_i.max()}")
        is_self = (given_i == given_j) & ~given_r.any(axis=1)
        lacking = np.flatnonzero(np.bincount(given_i[is_self], minlength=n_atoms) == 0)
        all_i, all_j = np.concatenate([given_i, lacking]), np.concatenate([given_j, lacking])
        all_r = np.concatenate([given_r, np.zeros((len(lacking), 3), dtype=np.int64)])
        forward, backward = _codes(all_i, all_j, all_r, n_atoms)
        key = forward.copy()
        key[forward == backward] -= np.iinfo(np.int64).max  # self pairs come first
        order = np.argsort(key)
        key, all_i, all_j, all_r = key[order], all_i[order], all_j[order], all_r[order]
        same = np.flatnonzero(key[1:] == key[:-1])
        if len(same):
            raise ValueError(f"pair {_name(all_i, all_j, all_r, int(same[0]))}: stands twice")
        reverse = np.arange(len(order))
        wanted = backward[order[n_atoms:]]
        reverse[n_atoms:] = n_atoms + np.searchsorted(key[n_atoms:], wanted).clip(max=max(len(wanted) - 1, 0))
        lonely = np.flatnonzero(key[reverse[n_atoms:]] != wanted)
        if len(lonely):
            raise ValueError(f"pair {_name(all_i, all_j, all_r, n_atoms + int(lonely[0]))}: its reverse is missing")
        position = np.empty(len(order), dtype=np.int64)
        position[order] = np.arange(len(order))
        vectors = pair_vectors(atoms, all_i, all_j, all_r)
        numbers, volume = atoms.get_atomic_numbers().astype(np.int64), float(atoms.cell.volume)
        pairs = cls(numbers, all_i, all_j, all_r, vectors, reverse, volume or np.inf)
        return pairs, position[:n_given]

    def __len__(self) -> int:
        return len(self.i)

    @property
    def n_atoms(self) -> int:
        """Number of atoms, which is the number of self pairs."""
        return len(self.numbers)

    @property
    def n_hoppings(self) -> int:
        """Number of pairs that are not self pairs."""
        return len(self) - self.n_atoms

    @property
    def onsite(self) -> slice:
        """Rows of the self pairs; pair n is atom n with itself."""
        return slice(0, self.n_atoms)

    @property
    def hopping(self) -> slice:
        """Rows of all other pairs."""
        return slice(self.n_atoms, len(self))

    @cached_property
    def distances(self) -> NDArray[np.float64]:
        """Lengths of the vectors, angstrom."""
        return np.linalg.norm(self.vectors, axis=1)

    @cached_property
    def element_groups(self) -> dict[tuple[int, int], NDArray[np.int64]]:
        """(atomic number of i, of j) -> rows of the pairs of those elements, ascending."""
        code = self.numbers[self.i] * 1000 + self.numbers[self.j]
        return {(int(c) // 1000, int(c) % 1000): np.flatnonzero(code == c) for c in np.unique(code)}

    def find(self, other: "PairList") -> NDArray[np.int64]:
        """Row in this list of every pair of `other`, shape (len(other),); -1 where it is not there."""
        n = len(self)
        if not n:
            return np.full(len(other), -1)
        i, j = np.concatenate([self.i, other.i]), np.concatenate([self.j, other.j])
        shifts = np.concatenate([self.shifts, other.shifts])
        code, _ = _codes(i, j, shifts, max(self.n_atoms, other.n_atoms))
        order = np.argsort(code[:n])
        place = order[np.searchsorted(code[:n], code[n:], sorter=order).clip(max=n - 1)]
        return np.where(code[place] == code[n:], place, -1)

    def same_pairs(self, other: "PairList") -> bool:
        """Whether both lists hold the same pairs of the same elements."""
        return (
            len(self) == len(other)
            and np.array_equal(self.numbers, other.numbers)
            and np.array_equal(_keys(self), _keys(other))
        )


def count_pairs(atoms: Atoms, cutoff: float | Mapping[int, float]) -> int:
    """How many directed pairs are within a range, self pairs included; see `PairList.from_atoms`, which lists them."""
    return len(atoms) + int(_within(atoms, cutoff)[3].sum())


def pair_vectors(atoms: Atoms, i: NDArray, j: NDArray, shifts: NDArray) -> NDArray[np.float64]:
    """r_j + R.A - r_i in angstrom, shape (n_pairs, 3)."""
    positions = atoms.get_positions()
    return positions[j] - positions[i] + shifts @ atoms.cell.array


def outside_of_radii(pairs: PairList, atoms: Atoms, radii: Mapping[int, float]) -> tuple[str | None, int, int]:
    """How a pair list differs from all pairs within orbital radii.

    Parameters
    ----------
    pairs : PairList
    atoms : ase.Atoms
        Whose pairs they are.
    radii : mapping
        Atomic number -> radius in angstrom, of every element of the atoms.

    Returns
    -------
    too_long : str or None
        The pair that exceeds its radii most, in words, if by more than 0.05 angstrom: radii are fitted to pairs.
    n_missing, n_expected : int
        Pairs within the radii that the list lacks, and all of them; counted a little inside, where rounded positions
        cannot decide. 0 missing unless they are more than 2 %.
    """
    radius = np.array([radii[z] for z in pairs.numbers.tolist()])
    reach = radius[pairs.i] + radius[pairs.j]
    p = int(np.argmax(pairs.distances - reach))
    too_long = None
    if pairs.distances[p] > reach[p] + LONGER:
        i, j = int(pairs.i[p]), int(pairs.j[p])
        too_long = (
            f"pair ({i}, {j}, R={pairs.shifts[p].tolist()}): expected at most {reach[p]:.3f} angstrom for "
            f"{atoms.symbols[i]}-{atoms.symbols[j]} (trained range), got {pairs.distances[p]:.3f}"
        )
    expected = PairList.from_atoms(atoms, {z: max(r - SAME_RADIUS, r / 2) for z, r in radii.items()})
    missing = int((pairs.find(expected) < 0).sum())
    return too_long, missing if missing > LACKING * len(expected) else 0, len(expected)


def _within(atoms: Atoms, cutoff: float | Mapping[int, float]) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """i, j, R of some pairs without self pairs, and which of them are within the range: all that are."""
    numbers = atoms.get_atomic_numbers()
    if isinstance(cutoff, Mapping):
        lacking = sorted(set(numbers.tolist()) - set(cutoff))
        if lacking:
            raise ValueError(f"cutoff: no radius for atomic number {lacking[0]}")
        radii = np.array([cutoff[z] for z in numbers.tolist()], dtype=float)
    else:
        radii = np.full(len(atoms), 0.5 * float(cutoff))
    if not ((radii > 0) & (radii <= 0.5 * LARGEST_CUTOFF)).all():
        raise ValueError(f"cutoff: expected angstrom, above 0 and up to {LARGEST_CUTOFF:g}, got {cutoff}")
    i, j, shifts = _neighbors(atoms, 2.0 * radii.max() * (1 + CUTOFF_MARGIN)) if len(atoms) else _no_pairs()
    distances = np.linalg.norm(pair_vectors(atoms, i, j, shifts), axis=1)
    return i, j, shifts, distances <= radii[i] + radii[j]


def _keys(pairs: PairList) -> NDArray[np.int64]:
    return np.column_stack([pairs.i, pairs.j, pairs.shifts])


def _name(i: NDArray, j: NDArray, shifts: NDArray, p: int) -> str:
    return f"({i[p]}, {j[p]}, R={shifts[p].tolist()})"


def _no_pairs() -> tuple[NDArray, NDArray, NDArray]:
    return np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 3), np.int64)


def _neighbors(atoms: Atoms, cutoff: float) -> tuple[NDArray, NDArray, NDArray]:
    """i, j, R of all pairs within the cutoff, without self pairs."""
    from vesin import NeighborList  # loads torch: most of a second that no reader of files needs

    box = complete_cell(atoms.cell.array)
    periodic = np.asarray(atoms.pbc) & atoms.cell.array.any(axis=1)
    _check_search(atoms.get_positions(), box, periodic, cutoff)
    # pairs between 1 angstrom and a smaller cutoff are dropped by the caller
    search = NeighborList(cutoff=max(cutoff, 1.0), full_list=True)
    i, j, shifts = search.compute(points=atoms.get_positions(), box=box, periodic=periodic, quantities="ijS")
    return i.astype(np.int64), j.astype(np.int64), np.asarray(shifts).astype(np.int64).reshape(-1, 3)


def _check_search(positions: NDArray, box: NDArray, periodic: NDArray, cutoff: float) -> None:
    if not (np.abs(positions) <= FARTHEST_ATOM).all():
        worst = np.abs(positions).max()
        raise ValueError(f"positions: expected within {FARTHEST_ATOM:g} angstrom of the origin, got {worst:g}")
    if not np.isfinite(box).all() or np.linalg.det(box / np.linalg.norm(box, axis=1)[:, None]) == 0:
        raise ValueError(f"cell: expected three independent vectors, got {box.tolist()}")
    heights = 1 / np.linalg.norm(np.linalg.inv(box), axis=0)
    images = np.prod(2 * cutoff / heights[periodic] + 1)
    if images > MOST_IMAGES:
        raise ValueError(f"cutoff: {cutoff:g} angstrom reaches {images:.0e} images of the cell; check cutoff and cell")


def _reverse_index(i: NDArray, j: NDArray, shifts: NDArray, n_atoms: int) -> NDArray[np.int64]:
    """Row of (j, i, -R) for every pair, -1 where it is missing."""
    if not len(i):
        return np.empty(0, np.int64)
    forward, backward = _codes(i, j, shifts, n_atoms)
    order = np.argsort(forward)
    row = order[np.searchsorted(forward, backward, sorter=order).clip(max=len(i) - 1)]
    return np.where(forward[row] == backward, row, -1)


def _codes(i: NDArray, j: NDArray, shifts: NDArray, n_atoms: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A number for each pair, ascending with (i, j, R), and that of its reverse; equal for self pairs only."""
    reach = max(-int(shifts.min(initial=0)), int(shifts.max(initial=0)))
    base = 2 * reach + 1
    if n_atoms**2 * base**3 >= 2**63:
        raise ValueError(f"pairs: lattice shifts up to {reach} are too far for {n_atoms} atoms; wrap them")
    # R as one number between -half and half
    cell = (shifts[:, 0] * base + shifts[:, 1]) * base + shifts[:, 2]
    half = (base**3 - 1) // 2
    return (i * n_atoms + j) * base**3 + half + cell, (j * n_atoms + i) * base**3 + half - cell
