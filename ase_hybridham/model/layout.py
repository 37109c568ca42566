"""How features lie in memory.

Rows in the lab frame (atoms, on-site pairs): degree l outermost, then order m = -l .. l, then channel.
Rows in the frame of their edge (hoppings): order outermost: m = 0 of every channel, then for m = 1, 2, ...
the +m and the -m components of every channel with l >= m. In the lab an equivariant linear map is one
matrix per l (`DegreeLinear`). In its own frame an edge has only the rotations about itself and the mirrors
through itself left, so there it is one matrix per |m| that serves +m and -m alike (`OrderLinear`).
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

__all__ = ["Components", "FeatureLayout"]


@dataclass(frozen=True)
class FeatureLayout:
    """Irreps of rows of features; inside every l the natural ones, parity (-1)^l, come before the others.

    In the frame of an edge unnatural channels are stored swapped, z(+m) = -y(-m), z(-m) = y(+m), z(0) = y(0): there
    the mirrors through the edge act on them as on natural ones for m >= 1, and one matrix per |m| may mix both.

    Parameters
    ----------
    natural : tuple of int
        Channels of l = 0, 1, ...
    unnatural : tuple of int
        Channels of 0o, 1e, 2o, ...
    """

    natural: tuple[int, ...]
    unnatural: tuple[int, ...] = ()

    @cached_property
    def multiplicities(self) -> tuple[int, ...]:
        """Channels of l = 0, 1, ..., natural or not."""
        return tuple(a + b for a, b in zip_longest(self.natural, self.unnatural, fillvalue=0))

    @property
    def n_scalars(self) -> int:
        """Invariant channels, 0e: the first ones."""
        return self.natural[0] if self.natural else 0

    @cached_property
    def turning(self) -> "FeatureLayout":
        """Without l = 0, which looks the same in every frame."""
        return FeatureLayout((0, *self.natural[1:]), (0, *self.unnatural[1:]) if self.unnatural else ())

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
        """Channels with l >= m, for every m; they are the last ones."""
        return tuple(sum(self.multiplicities[m:]) for m in range(self.lmax + 1))

    @cached_property
    def channel_natural(self) -> NDArray[np.bool_]:
        """Whether each channel has parity (-1)^l, shape (n_channels,)."""
        both = zip_longest(self.natural, self.unnatural, fillvalue=0)
        return np.concatenate([np.repeat([True, False], pair) for pair in both])

    @cached_property
    def widths(self) -> list[int]:
        """Components of every l, which is how rows in the lab are split."""
        return [mul * (2 * l + 1) for l, mul in enumerate(self.multiplicities)]

    @cached_property
    def widths_by_order(self) -> list[int]:
        """Components with |m| <= 0, 1, ..., of a row in the frame of its edge."""
        return np.cumsum([count if m == 0 else 2 * count for m, count in enumerate(self.counts)]).tolist()

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
    def edge_to_lab(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """For every component of a lab row, which component of an edge row it is, and its sign; shape (size,) each."""
        place = {key: k for k, key in enumerate(zip(self.edge.channel, self.edge.order, strict=True))}
        natural = self.channel_natural[self.lab.channel]
        order = np.where(natural, self.lab.order, -self.lab.order)
        index = np.array([place[key] for key in zip(self.lab.channel, order, strict=True)])
        return index, np.where(~natural & (self.lab.order < 0), -1.0, 1.0)


@dataclass(frozen=True, eq=False)
class Components:
    """Channel and order m of every component of a row, shape (size,) each."""

    channel: NDArray[np.int64]
    order: NDArray[np.int64]
