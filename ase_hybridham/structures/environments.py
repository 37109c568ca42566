"""Which atoms of a large structure have surroundings that a training set has not, and which small ones have them?

The distance of two atoms of one element is that of their fingerprints. Its unit is the 95 % quantile of the distance
from an atom of the training set to the nearest in another of its structures: what a set would not miss in its own.
Fingerprints know distances, not angles: a twist looks like all the slides that it is made of, whatever its angle.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from ase_hybridham.structures.coincidence import Twist
from ase_hybridham.structures.fingerprint import environment_fingerprints
from ase_hybridham.structures.twisted import twisted_stack, twists
from ase_hybridham.structures.variations import Variation, variations

__all__ = ["EnvironmentCoverage", "cover", "environment_coverage", "small_relative"]

WIDTH = 0.2  # angstrom
OWN = 0.95  # share of a set's own atoms that are nearer than the unit
MOST_TARGETS = 2000  # atoms of the structure that are to be covered; every k-th
CHUNK = 1000  # atoms at a time
POOL = 8  # candidates for each structure that is taken


@dataclass(frozen=True)
class EnvironmentCoverage:
    """How far the atoms of a structure are from those of a training set.

    Parameters
    ----------
    distances : array, shape (n_atoms,)
        To the nearest atom of the same element, in the unit of the module; inf for an element the set has not.
    n_structures, n_environments : int
        Of the set.
    """

    distances: NDArray[np.float64]
    n_structures: int
    n_environments: int

    @property
    def outside(self) -> float:
        """Share of atoms farther than 1."""
        return float((self.distances > 1).mean())

    @property
    def is_covered(self) -> bool:
        """Whether no more atoms are outside than of the set itself."""
        return self.outside <= 1 - OWN

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; a distance that is infinite is None."""
        worst = int(np.argmax(self.distances))
        largest = float(self.distances[worst])
        return {
            "structures": self.n_structures,
            "environments": self.n_environments,
            "median": _finite(float(np.median(self.distances))),
            "largest": _finite(largest),
            "worst_atom": worst,
            "outside": self.outside,
            "covered": self.is_covered,
        }


def environment_coverage(atoms: Atoms, training: Sequence[Atoms]) -> EnvironmentCoverage:
    """Distances from every atom of a structure to the nearest of a training set.

    Raises
    ------
    ValueError
        If the set has fewer than two structures, or they are all the same.
    """
    if len(training) < 2:
        raise ValueError(f"training set: expected at least 2 structures to compare with, got {len(training)}")
    if not len(atoms):
        raise ValueError("structure: it holds no atom")
    elements = sorted({symbol for one in [atoms, *training] for symbol in one.symbols})
    rows, owners, numbers = _environments(training, elements)
    spread = _nearest(rows, numbers, rows, numbers, owners, owners)
    unit = float(np.quantile(spread[np.isfinite(spread)], OWN)) if np.isfinite(spread).any() else 0.0
    if not unit > 1e-9:
        raise ValueError("training set: expected structures that differ, got copies of one; displace their atoms")
    own, _, own_numbers = _environments([atoms], elements)
    return EnvironmentCoverage(_nearest(own, own_numbers, rows, numbers) / unit, len(training), len(rows))


def small_relative(
    lower: Atoms, upper: Atoms | None = None, *, angle: float, max_atoms: int = 40, strain: float = 0.05
) -> Twist:
    """Of all cells of at most so many atoms that which is most like a twist: its angle and strain together.

    Of a small angle it is the cell of the layers without twist, of 21.8 degrees in graphene that twist itself.

    Raises
    ------
    ValueError
        If there is none.
    """
    found = twists(lower, upper, angle=angle, angle_tolerance=30.0, strain=strain, max_atoms=max_atoms)
    return min(found, key=lambda twist: round(np.radians(abs(twist.angle_error)) + twist.strain, 6))


def cover(
    atoms: Atoms,
    relative: Twist,
    lower: Atoms,
    upper: Atoms | None = None,
    *,
    n: int = 40,
    spacing: float = 3.35,
    variation: Variation | None = None,
    seed: int = 0,
) -> list[Atoms]:
    """Small slid, strained and displaced bilayers whose atoms have the surroundings of those of a large structure.

    Of eight times as many `variations` of the small cell, always the one is taken that brings the atoms of the large
    one nearest to what has been taken, on average.

    Parameters
    ----------
    atoms : ase.Atoms
        The twist.
    relative : Twist
        See `small_relative`.
    lower, upper : ase.Atoms
        As in `twisted_stack`.
    n : int
    spacing : float
        As in `twisted_stack`.
    variation : Variation, optional
        By default supercells of at least 8 atoms and up to 18, or of more if the small cell has more than 9.
    seed : int
    """
    if n < 2:
        raise ValueError(f"n: expected at least 2 structures, got {n}")
    crystal = twisted_stack(relative, lower, upper, spacing=spacing)
    size = len(crystal)
    most = max(18, 2 * size) if size <= 18 else size
    variation = variation or Variation(atoms=(max(8, size), most))
    pool = [made.atoms for made in variations(crystal, POOL * n, variation, seed=seed)]
    elements = sorted(set(atoms.get_chemical_symbols()) | set(crystal.get_chemical_symbols()))
    targets, _, numbers = _environments([atoms], elements)
    some = slice(None, None, -(-len(targets) // MOST_TARGETS))
    gaps = np.array(
        [
            _nearest(targets[some], numbers[some], rows, own)
            for rows, _, own in (_environments([one], elements) for one in pool)
        ]
    )
    gaps[~np.isfinite(gaps)] = 0.0  # an element that the small cell has not
    taken: list[int] = []
    nearest = np.full(gaps.shape[1], gaps.max() + 1.0)
    for _ in range(n):
        means = np.minimum(gaps, nearest).mean(axis=1)
        means[taken] = np.inf
        taken.append(int(np.argmin(means)))
        nearest = np.minimum(nearest, gaps[taken[-1]])
    return [pool[k] for k in taken]


def _environments(
    structures: Sequence[Atoms], elements: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Fingerprints of all atoms, the number of their structure, and their atomic numbers."""
    rows = [environment_fingerprints(one, elements, WIDTH) for one in structures]
    owners = np.repeat(np.arange(len(rows)), [len(one) for one in structures])
    return np.concatenate(rows), owners, np.concatenate([one.numbers for one in structures])


def _nearest(
    rows: NDArray[np.float64],
    numbers: NDArray[np.int64],
    others: NDArray[np.float64],
    their_numbers: NDArray[np.int64],
    owners: NDArray[np.int64] | None = None,
    their_owners: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """Distance to the nearest of the others with the same number and, if owners are given, another owner."""
    found = np.full(len(rows), np.inf)
    for number in np.unique(numbers):
        mine, theirs = np.flatnonzero(numbers == number), np.flatnonzero(their_numbers == number)
        for start in range(0, len(mine) if len(theirs) else 0, CHUNK):
            part = mine[start : start + CHUNK]
            apart = cdist(rows[part], others[theirs])
            if owners is not None and their_owners is not None:
                apart[owners[part, None] == their_owners[theirs]] = np.inf
            found[part] = apart.min(axis=1)
    return found


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
