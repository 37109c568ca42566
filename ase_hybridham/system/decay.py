"""How matrix elements fall off with distance: |M| in bins of distance, on-site apart, for every pair of elements."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from ase_hybridham.system.blocks import PairBlocks

__all__ = ["Decay", "DecayRow"]

BIN = 0.5  # angstrom
# |M| in tenths of a decade, the lowest with all below
LOWEST, PER_DECADE, N_SIZES = -12, 10, 160
BAND = (0.1, 0.5, 0.9)  # of the elements lie below these sizes


@dataclass(frozen=True)
class DecayRow:
    """The elements of one bin of distance.

    Parameters
    ----------
    start, end : float
        Angstrom; both 0 for on-site blocks.
    elements : int
    mean, largest : float
        Of |M|, in its unit.
    low, median, high : float
        10, 50 and 90 % of the elements are smaller, to a tenth of a decade.
    """

    start: float
    end: float
    elements: int
    mean: float
    largest: float
    low: float
    median: float
    high: float


@dataclass(frozen=True, eq=False)
class Decay:
    """Statistics of |M| against distance. The sum of two is that of all their structures.

    Parameters
    ----------
    pairs : mapping
        Pair of elements, as "C-H" -> its statistics.
    """

    pairs: Mapping[str, "_Statistics"] = field(default_factory=dict)

    @classmethod
    def of(cls, blocks: PairBlocks) -> "Decay":
        """The statistics of one operator; bin 0 is on-site, bin n from (n - 1) to n times 0.5 angstrom."""
        distances = blocks.pairs.distances
        bins = np.where(np.arange(len(distances)) < blocks.pairs.n_atoms, 0, 1 + (distances // BIN).astype(int))
        total = cls()
        for elements, rows, stack in blocks.groups():
            name = "-".join(sorted(chemical_symbols[z] for z in elements))
            total += cls({name: _Statistics.of(bins[rows], np.abs(stack).reshape(len(rows), -1))})
        return total

    def __add__(self, other: "Decay") -> "Decay":
        pairs = dict(self.pairs)
        for name, statistics in other.pairs.items():
            pairs[name] = pairs[name] + statistics if name in pairs else statistics
        return Decay(dict(sorted(pairs.items())))

    def rows(self, *element_pairs: str) -> list[DecayRow]:
        """The bins that hold elements, of these pairs of elements or of all, nearest first."""
        chosen = [self.pairs[name] for name in element_pairs or self.pairs]
        return sum(chosen[1:], chosen[0]).rows() if chosen else []


@dataclass(frozen=True, eq=False)
class _Statistics:
    """Of one pair of elements: numbers of elements, shape (n_bins, n_sizes); sums and largest of |M|, (n_bins,)."""

    counts: NDArray[np.int64]
    sums: NDArray[np.float64]
    largest: NDArray[np.float64]

    @classmethod
    def of(cls, bins: NDArray[np.int64], sizes: NDArray[np.float64]) -> "_Statistics":
        """Of blocks in these bins, with |M| of shape (n_blocks, n_elements)."""
        n_bins = int(bins.max()) + 1
        with np.errstate(divide="ignore"):
            place = np.clip((np.log10(sizes) - LOWEST) * PER_DECADE, 0, N_SIZES - 1).astype(np.int64)
        counts = np.bincount((bins[:, None] * N_SIZES + place).ravel(), minlength=n_bins * N_SIZES)
        largest = np.zeros(n_bins)
        np.maximum.at(largest, bins, sizes.max(axis=1))
        sums = np.bincount(bins, weights=sizes.sum(axis=1)).astype(np.float64)
        return cls(counts.reshape(n_bins, N_SIZES), sums, largest)

    def __add__(self, other: "_Statistics") -> "_Statistics":
        n_bins = max(len(self.sums), len(other.sums))
        (counts, sums, largest), theirs = self._padded(n_bins), other._padded(n_bins)
        return _Statistics(counts + theirs[0], sums + theirs[1], np.maximum(largest, theirs[2]))

    def _padded(self, n_bins: int) -> tuple[NDArray, NDArray, NDArray]:
        more = n_bins - len(self.sums)
        return np.pad(self.counts, ((0, more), (0, 0))), np.pad(self.sums, (0, more)), np.pad(self.largest, (0, more))

    def rows(self) -> list[DecayRow]:
        """One for every bin that holds elements."""
        table = []
        for at in np.flatnonzero(self.counts.any(axis=1)).tolist():
            n, largest = int(self.counts[at].sum()), float(self.largest[at])
            low, median, high = (min(size, largest) for size in _quantiles(self.counts[at]))
            mean = float(self.sums[at]) / n
            table.append(DecayRow(max(at - 1, 0) * BIN, at * BIN, n, mean, largest, low, median, high))
        return table


def _quantiles(counts: NDArray[np.int64]) -> list[float]:
    """Sizes below which shares of the elements lie, the middle of their tenth of a decade; 0 in the lowest."""
    below = np.cumsum(counts)
    places = np.searchsorted(below, np.array(BAND) * below[-1])
    return [10.0 ** (LOWEST + (place + 0.5) / PER_DECADE) if place else 0.0 for place in places.tolist()]
