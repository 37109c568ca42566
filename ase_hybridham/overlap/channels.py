"""Which radial integrals there are between two atoms, and what can be asked of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Channel", "RadialFunctions", "channels_of"]


@dataclass(frozen=True)
class Channel:
    """One radial integral: of two shells, coupled to L."""

    row: int
    column: int
    l1: int
    l2: int
    L: int


def channels_of(row_degrees: Sequence[int], column_degrees: Sequence[int]) -> tuple[Channel, ...]:
    """All channels of two atoms, in order of the row shell, the column shell and L."""
    return tuple(
        Channel(s, t, l1, l2, L)
        for s, l1 in enumerate(row_degrees)
        for t, l2 in enumerate(column_degrees)
        for L in range(abs(l1 - l2), l1 + l2 + 1, 2)
    )


class RadialFunctions(Protocol):
    """Radial integrals between two atoms, with or without tables."""

    @property
    def channels(self) -> Sequence[Channel]:
        """Row shell, column shell and L of every integral."""

    def at(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """The integrals at distances in bohr, shape (n, n_channels)."""

    def with_slopes(self, distances: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The integrals and their derivatives along the distance, in 1/bohr, each of shape (n, n_channels)."""
