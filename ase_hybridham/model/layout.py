"""How features and targets lie in memory.

Rows in the lab frame (atoms, on-site pairs): degree l outermost, then order m = -l .. l, then channel.
Rows in the frame of their edge (hoppings): order outermost: m = 0 of every channel, then for m = 1, 2, ...
the +m and the -m components of every channel with l >= m. In the lab an equivariant linear map is one
matrix per l (`DegreeLinear`). In its own frame an edge has only the rotations about itself and the mirrors
through itself left, so there it is one matrix per |m| that serves +m and -m alike (`OrderLinear`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ase_hybridham.symmetry import DirectSum

__all__ = ["DegreeLinear", "FeatureLayout", "OrderLinear", "RowTypes", "TargetLayout", "Typed", "by_type"]

# Rows of each type: (type, indices), or (type, None) if all rows are of one type.
RowTypes = list[tuple[int, Tensor | None]]


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


@dataclass(frozen=True)
class TargetLayout:
    """Network outputs of one element pair, m outermost, and where they go in the direct sum.

    A natural part gives one output per m; an unnatural one has none at m = 0 (the selection rule: a local
    potential has a mirror plane through the bond) and is stored swapped, z(+m) = -y(-m), z(-m) = y(+m).
    """

    direct_sum: DirectSum

    @property
    def lmax(self) -> int:
        """Largest degree."""
        return int(self.direct_sum.degree.max())

    def _parts(self, m: int) -> list[int]:
        return [p for p, part in enumerate(self.direct_sum.parts) if m <= part.L and (m > 0 or part.natural)]

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Parts with outputs at m, for every m."""
        return tuple(len(self._parts(m)) for m in range(self.lmax + 1))

    @cached_property
    def natural_multiplicities(self) -> tuple[int, ...]:
        """Natural parts of every L: what an on-site block has."""
        return tuple(sum(part.L == L and part.natural for part in self.direct_sum.parts) for L in range(self.lmax + 1))

    @cached_property
    def scatter(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Index into the outputs and sign of every component of the direct sum; sign 0 where there is none."""
        index = np.zeros(self.direct_sum.size, dtype=np.int64)
        sign = np.zeros(self.direct_sum.size)
        start = 0
        for m in range(self.lmax + 1):
            parts = self._parts(m)
            for place, p in enumerate(parts):
                part = self.direct_sum.parts[p]
                center = part.start + part.L
                plus, minus = start + place, start + len(parts) + place
                if m == 0:
                    index[center], sign[center] = plus, 1.0
                elif part.natural:
                    index[center + m], sign[center + m] = plus, 1.0
                    index[center - m], sign[center - m] = minus, 1.0
                else:
                    index[center - m], sign[center - m] = plus, -1.0
                    index[center + m], sign[center + m] = minus, 1.0
            start += len(parts) * (1 if m == 0 else 2)
        return index, sign

    @cached_property
    def onsite_scatter(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The same for on-site outputs, lab rows of `natural_multiplicities`."""
        index = np.zeros(self.direct_sum.size, dtype=np.int64)
        sign = np.zeros(self.direct_sum.size)
        place = [0] * (self.lmax + 1)
        starts = np.cumsum([0, *FeatureLayout(self.natural_multiplicities).widths])
        for part in self.direct_sum.parts:
            if part.natural:
                channels = self.natural_multiplicities[part.L]
                index[part.components] = starts[part.L] + np.arange(2 * part.L + 1) * channels + place[part.L]
                sign[part.components] = 1.0
                place[part.L] += 1
        return index, sign


class _SegmentLinear(nn.Module):
    """One matrix per segment of a row, the same for all components (+m, -m; or m = -l .. l) of a segment.

    Parameters
    ----------
    inputs : list of lists of int
        Channels of the segments of every input; inputs are mixed side by side.
    outputs : tuple of int
        Channels of the output's segments.
    components : list of int
        Components of a segment.
    """

    def __init__(
        self, inputs: list[Sequence[int]], outputs: tuple[int, ...], components: list[int], bias: bool, scale: float
    ) -> None:
        super().__init__()
        self.outputs, self.components = outputs, components
        self.widths = [[n * c for n, c in zip(channels, components, strict=False)] for channels in inputs]
        self.weights = nn.ParameterList()
        for segment, n_out in enumerate(outputs):
            n_in = sum(channels[segment] for channels in inputs if segment < len(channels))
            self.weights.append(nn.Parameter(torch.randn(n_in, n_out) * (scale / max(n_in, 1) ** 0.5)))
        self.bias = nn.Parameter(torch.zeros(outputs[0])) if bias else None

    def forward(self, rows: list[Tensor]) -> Tensor:
        """Rows of the inputs, each (n_rows, size) -> (n_rows, output size)."""
        n_rows, out = len(rows[0]), []
        parts = [row.split(widths, dim=1) for row, widths in zip(rows, self.widths, strict=True)]
        for segment, (weight, n_out, n) in enumerate(zip(self.weights, self.outputs, self.components, strict=False)):
            if not weight.numel():
                out.append(rows[0].new_zeros(n_rows, n * n_out))
                continue
            present = [p[segment].reshape(n_rows * n, p[segment].shape[1] // n) for p in parts if segment < len(p)]
            joined = present[0] if len(present) == 1 else torch.cat(present, dim=1)
            # only the first segment (m = 0, or l = 0) is invariant and may have a bias
            bias = self.bias if segment == 0 else None
            product = joined @ weight if bias is None else torch.addmm(bias, joined, weight)
            out.append(product.view(n_rows, n * n_out))
        return torch.cat(out, dim=1)


class OrderLinear(_SegmentLinear):
    """Linear map of rows in the frames of their edges.

    Parameters
    ----------
    inputs : list of FeatureLayout
        Layouts of the inputs, which are mixed side by side.
    counts : tuple of int
        Output channels for every m.
    bias : bool
        On m = 0, which is invariant.
    scale : float
        Standard deviation of the weights is scale / sqrt(inputs); 0 gives a map that starts at zero.
    """

    def __init__(
        self, inputs: list[FeatureLayout], counts: tuple[int, ...], *, bias: bool = True, scale: float = 1.0
    ) -> None:
        longest = max(len(counts), *(len(layout.counts) for layout in inputs))
        super().__init__([layout.counts for layout in inputs], counts, [1] + [2] * (longest - 1), bias, scale)


class DegreeLinear(_SegmentLinear):
    """Linear map of rows in the lab frame, with a bias on the scalars.

    Parameters are those of `OrderLinear`, with the output channels of every l.
    """

    def __init__(
        self, inputs: list[FeatureLayout], multiplicities: tuple[int, ...], *, bias: bool = True, scale: float = 1.0
    ) -> None:
        longest = max(len(multiplicities), *(len(layout.multiplicities) for layout in inputs))
        components = [2 * l + 1 for l in range(longest)]
        super().__init__([layout.multiplicities for layout in inputs], multiplicities, components, bias, scale)


class Typed(nn.Module):
    """One map per row type (species, or pair of species).

    Parameters
    ----------
    maps : list of modules
        Map t takes the rows of type t; all have the same output size.
    """

    def __init__(self, maps: list[OrderLinear] | list[DegreeLinear]) -> None:
        super().__init__()
        self.maps = nn.ModuleList(maps)

    def forward(self, rows: list[Tensor], types: RowTypes) -> Tensor:
        """Rows of the inputs -> (n_rows, output size)."""
        return by_type(
            lambda t, index: self.maps[t](rows if index is None else [row[index] for row in rows]), len(rows[0]), types
        )


def by_type(one: Callable[[int, Tensor | None], Tensor], n_rows: int, types: RowTypes) -> Tensor:
    """Rows of every type from ``one(type, index)``, put together."""
    out: Tensor | None = None
    for t, index in types:
        part = one(t, index)
        if index is None:
            return part
        empty = part.new_zeros(n_rows, part.shape[1]) if out is None else out
        out = empty.index_copy(0, index, part)
    assert out is not None
    return out
