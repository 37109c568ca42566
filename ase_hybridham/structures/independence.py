"""How many atoms of a set of structures move against each other, and how near do they come?

An atom and its copy in the next cell move together. Of a network that has only seen small cells the second neighbors
never moved against each other, and there its error is large: what share of pairs can, is what this counts.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

__all__ = ["DistanceRow", "Independence", "independence"]

WIDTH = 0.5  # angstrom, of a row


@dataclass(frozen=True)
class DistanceRow:
    """Pairs of a range of distances.

    Parameters
    ----------
    start, end : float
        angstrom.
    n_pairs : int
        Directed pairs in all structures.
    independent : float
        Share of them whose atoms are not copies of one another.
    crystal : float or None
        The same share in the crystal's own cell; None if it has no pair there.
    """

    start: float
    end: float
    n_pairs: int
    independent: float
    crystal: float | None


@dataclass(frozen=True)
class Independence:
    """What a set of structures shows of displacements.

    Parameters
    ----------
    sizes : dict
        Atoms of a cell -> structures of that size.
    n_displacements : int
        Coordinates that differ from the crystal independently: three an atom, less three a structure.
    nearest : dict
        "C-Mo" -> smallest distance of these elements, angstrom; within the range of the rows.
    rows : tuple of DistanceRow
        Ascending, without empty ones.
    """

    sizes: dict[int, int]
    n_displacements: int
    nearest: dict[str, float]
    rows: tuple[DistanceRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "sizes": {str(size): count for size, count in self.sizes.items()}}


def independence(structures: Sequence[Atoms], crystal: Atoms, reach: float = 6.0) -> Independence:
    """Count pairs up to `reach` angstrom of structures that were made from `crystal`.

    Raises
    ------
    ValueError
        If there is no structure.
    """
    if not structures:
        raise ValueError("structures: expected some, got none")
    nearest: dict[str, float] = {}
    n_rows = int(np.ceil(reach / WIDTH))
    counts = np.zeros((2, n_rows), dtype=np.int64)
    for atoms in structures:
        rows, free, names, distances = _pairs(atoms, n_rows)
        counts += [np.bincount(rows, minlength=n_rows), np.bincount(rows[free], minlength=n_rows)]
        for name in np.unique(names):
            nearest[str(name)] = min(nearest.get(str(name), np.inf), float(distances[names == name].min()))
    rows, free, _, _ = _pairs(crystal, n_rows)
    own, own_free = np.bincount(rows, minlength=n_rows), np.bincount(rows[free], minlength=n_rows)
    sizes = [len(atoms) for atoms in structures]
    return Independence(
        sizes={size: sizes.count(size) for size in sorted(set(sizes))},
        n_displacements=sum(3 * (size - 1) for size in sizes),
        nearest=dict(sorted(nearest.items())),
        rows=tuple(
            DistanceRow(
                WIDTH * n,
                WIDTH * (n + 1),
                int(counts[0, n]),
                float(counts[1, n] / counts[0, n]),
                float(own_free[n] / own[n]) if own[n] else None,
            )
            for n in range(n_rows)
            if counts[0, n]
        ),
    )


def _pairs(
    atoms: Atoms, n_rows: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.str_], NDArray[np.float64]]:
    """Of every pair its row, whether its atoms are two, its elements, and its distance."""
    i, j, distances = neighbor_list("ijd", atoms, n_rows * WIDTH)
    symbols = np.array(atoms.get_chemical_symbols())
    first, second = np.sort([symbols[i], symbols[j]], axis=0)
    names = np.char.add(np.char.add(first, "-"), second)
    rows = np.minimum((distances / WIDTH).astype(np.int64), n_rows - 1)
    return rows, i != j, names, distances
