"""How features and targets lie in memory.

Rows in the lab frame (atoms, on-site pairs): degree l outermost, then order m = -l .. l, then channel.
Rows in the frame of their edge (hoppings): order outermost: m = 0 of every channel, then for m = 1, 2, ...
the +m and the -m components of every channel with l >= m. In the lab an equivariant linear map is one
matrix per l (`DegreeLinear`). In its own frame an edge has only the rotations about itself and the mirrors
through itself left, so there it is one matrix per |m| that serves +m and -m alike (`OrderLinear`).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["Components", "FeatureLayout"]


@dataclass(frozen=True)
class FeatureLayout:
    """Natural irreps, m outermost.

    Parameters
    ----------
    multiplicities : tuple of int
        Channels of l = 0, 1, ...
    """

    multiplicities: tuple[int, ...]

    @property
    def lmax(self) -> int:
        """Largest degree."""
        return len(self.multiplicities) - 1

    @property
    def n_channels(self) -> int:
        """Channels of all degrees."""
        return sum(self.multiplicities)

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Channels with l >= m, for every m."""
        return tuple(sum(self.multiplicities[m:]) for m in range(self.lmax + 1))

    @cached_property
    def widths(self) -> list[int]:
        """Components of every l, which is how rows in the lab are split."""
        return [mul * (2 * l + 1) for l, mul in enumerate(self.multiplicities)]

    @property
    def size(self) -> int:
        """Components."""
        return sum(self.widths)

    @cached_property
    def channel_degree(self) -> NDArray[np.int64]:
        """l of every channel, shape (n_channels,); channels are ordered by l."""
        return np.repeat(np.arange(self.lmax + 1), self.multiplicities)

    @cached_property
    def lab(self) -> "Components":
        """The components of a row in the lab frame."""
        channel, order, first = [], [], 0
        for l, mul in enumerate(self.multiplicities):
            channel.append(np.tile(np.arange(first, first + mul), 2 * l + 1))
            order.append(np.repeat(np.arange(-l, l + 1), mul))
            first += mul
        return Components(np.concatenate(channel), np.concatenate(order))

    @cached_property
    def edge(self) -> "Components":
        """The components of a row in the frame of its edge."""
        channel, order = [], []
        for m, count in enumerate(self.counts):
            for signed in (0,) if m == 0 else (m, -m):
                channel.append(np.arange(self.n_channels - count, self.n_channels))
                order.append(np.full(count, signed))
        return Components(np.concatenate(channel), np.concatenate(order))

    @cached_property
    def edge_to_lab(self) -> NDArray[np.int64]:
        """Index that takes the components of an edge row to those of a lab row, shape (size,)."""
        place = {key: k for k, key in enumerate(zip(self.edge.channel, self.edge.order, strict=True))}
        return np.array([place[key] for key in zip(self.lab.channel, self.lab.order, strict=True)])


@dataclass(frozen=True, eq=False)
class Components:
    """Channel and order m of every component of a row, shape (size,) each."""

    channel: NDArray[np.int64]
    order: NDArray[np.int64]
