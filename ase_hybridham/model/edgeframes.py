"""Turning features of atoms into the frames of their edges, and messages back.

All edges of an atom turn its features at once: for every order m one matrix product of the rows m of their
alignment matrices, side by side for all l, with the atom's features as a block-diagonal matrix.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ase_hybridham.model.layout import FeatureLayout
from ase_hybridham.model.linear import use_plain
from ase_hybridham.symmetry import reverse_sign

__all__ = ["EdgeFrames"]


@dataclass
class _Spread:
    """Where the features of an atom stand in the block-diagonal matrices, one per |m|.

    Parameters
    ----------
    source, place : LongTensors
        Component of a lab row, and its place among the elements of all matrices.
    gather : LongTensor, shape (size, lmax + 1)
        All places of every component; where it has fewer, one place behind the last.
    shapes : list of (int, int)
        Of the matrix of every |m|: orders of all l >= max(m, 1), channels with such l.
    swapped : list of Tensor or None
        For every |m|, 1 where a channel is unnatural.
    """

    source: Tensor
    place: Tensor
    gather: Tensor
    shapes: list[tuple[int, int]]
    swapped: list[Tensor] | None


class EdgeFrames:
    """The frames of all edges of some atoms.

    Parameters
    ----------
    alignments : list of tensors, shape (E, 2l+1, 2l+1), l = 1 .. lmax
        Edge frame <- lab.
    center : LongTensor, shape (E,)
        i, ascending.
    reverse : LongTensor, shape (E,)
    n_nodes : int
    """

    def __init__(self, alignments: list[Tensor], center: Tensor, reverse: Tensor, n_nodes: int) -> None:
        self.by_edge, self.center, self.reverse, self.n_nodes = alignments, center, reverse, n_nodes
        degree = torch.bincount(center, minlength=n_nodes)
        self.first = torch.cumsum(degree, 0) - degree
        self.width = int(degree.max()) if len(center) else 0
        self.dense = len(center) == n_nodes * self.width
        number = torch.arange(len(center), device=center.device)
        self.slot = center * self.width + number - self.first[center]
        # edges of padded rows; what stands for a missing one does not matter, its matrices are zero
        self.padding = number.new_zeros(n_nodes * self.width).index_copy(0, self.slot, number)
        self.parts: list[Chunk] = []
        self._rows: list[Tensor] | None = None
        self._mask: Tensor | None = None
        self._spreads: dict[FeatureLayout, _Spread] = {}
        self._signs: dict[FeatureLayout, Tensor] = {}

    def into(self, nodes: Tensor, layout: FeatureLayout, room: Tensor | None = None) -> Tensor:
        """Features of atom i in the frame of every edge, (N, size) -> (E, size).

        Written over `room` if that fits, the atoms pass in chunks and no derivative is wanted.
        """
        if self.parts and torch.is_grad_enabled():
            return torch.cat([part.frames.into(nodes[part.nodes], layout) for part in self.parts])
        if self.parts:
            shape = (len(self.center), layout.size)
            out = nodes.new_empty(shape) if room is None or room.shape != shape else room
            for part in self.parts:
                out[part.edges] = part.frames.into(nodes[part.nodes], layout)
            return out
        return self._into(nodes, layout) if self._plain() else _Into.apply(nodes, self, layout)

    def sum_out(self, messages: Tensor, layout: FeatureLayout) -> Tensor:
        """Sum over the edges of every atom of messages turned back to the lab, (E, size) -> (N, size).

        Messages may end with any order |m|; higher ones count as zero.
        """
        if self.parts:
            split = messages.split([part.edges.stop - part.edges.start for part in self.parts])
            both = zip(self.parts, split, strict=True)
            return torch.cat([part.frames.sum_out(rows, layout) for part, rows in both])
        return self._sum_out(messages, layout) if self._plain() else _SumOut.apply(messages, self, layout)

    def _plain(self) -> bool:
        """The hand-written derivatives take the frames as given."""
        return use_plain() or any(alignment.requires_grad for alignment in self.by_edge)

    def reversed(self, rows: Tensor) -> Tensor:
        """Rows of the reverse edges, (E, size) -> (E, size)."""
        return rows.index_select(0, self.reverse) if use_plain() else _Reversed.apply(rows, self.reverse)

    def partner(self, turned: Tensor, layout: FeatureLayout) -> Tensor:
        """Features of atom j in the frame of every edge, from `into`: D(ij) = S D(ji)."""
        return self.reversed(turned) * self._sign(layout, turned)

    def reverse_ends(self, ends: Tensor, layout: FeatureLayout) -> Tensor:
        """Features of atom j in the frame of the reverse edge, from those in the lab, (E, size) -> (E, size)."""
        return self.to_edge(ends, layout) * self._sign(layout, ends)

    def _sign(self, layout: FeatureLayout, like: Tensor) -> Tensor:
        if layout not in self._signs:
            flips, natural = reverse_sign(layout.lmax), layout.channel_natural[layout.edge.channel]
            degree, order = layout.channel_degree[layout.edge.channel], layout.edge.order
            signed = np.where(natural, order, -order)  # unnatural channels are stored swapped
            sign = [flips[l][l + m] for l, m in zip(degree, signed, strict=True)]
            self._signs[layout] = torch.tensor(sign, dtype=like.dtype, device=like.device)
        return self._signs[layout]

    def to_lab(self, rows: Tensor, layout: FeatureLayout) -> Tensor:
        """Features of edges in the lab, (E, size) -> (E, size)."""
        index, sign = (torch.from_numpy(a).to(rows.device) for a in layout.edge_to_lab)
        parts = list((rows.index_select(1, index) * sign.to(rows)).split(layout.widths, dim=1))
        for l, mul in enumerate(layout.multiplicities[1:], start=1):
            columns = parts[l].unflatten(1, (2 * l + 1, mul))
            parts[l] = torch.bmm(self.by_edge[l - 1].transpose(1, 2), columns).flatten(1)
        return torch.cat(parts, dim=1)

    def to_edge(self, rows: Tensor, layout: FeatureLayout) -> Tensor:
        """Inverse of `to_lab`; for atoms of which few edges are here, else `into` is faster."""
        index, sign = (torch.from_numpy(a).to(rows.device) for a in layout.edge_to_lab)
        parts = list(rows.split(layout.widths, dim=1))
        for l, mul in enumerate(layout.multiplicities[1:], start=1):
            parts[l] = torch.bmm(self.by_edge[l - 1], parts[l].unflatten(1, (2 * l + 1, mul))).flatten(1)
        return (torch.cat(parts, dim=1) * sign.to(rows)).index_select(1, torch.argsort(index))

    def chunks(self, n_edges: int) -> list["Chunk"]:
        """Ranges of atoms with at most so many edges (or one atom), each with frames of its own.

        From then on these frames turn range by range, too, so that matrices exist once.
        """
        degree = torch.bincount(self.center, minlength=self.n_nodes).cpu().numpy()
        ends = np.concatenate([[0], np.cumsum(degree)])
        if ends[-1] <= n_edges:
            return [Chunk(slice(0, self.n_nodes), slice(0, int(ends[-1])), self)]
        chunks, start = [], 0
        while start < self.n_nodes:
            stop = max(start + 1, int(np.searchsorted(ends, ends[start] + n_edges, side="right")) - 1)
            edges = slice(int(ends[start]), int(ends[stop]))
            center = self.center[edges] - start
            frames = EdgeFrames([a[edges] for a in self.by_edge], center, self.reverse[edges], stop - start)
            chunks.append(Chunk(slice(start, stop), edges, frames))
            start = stop
        self.parts = chunks
        return chunks

    @property
    def rows(self) -> list[Tensor]:
        """Rows m = 0, 1, -1, 2, -2, ... of the alignments of all l >= max(|m|, 1), padded: (N, width, orders)."""
        if self._rows is None:
            self._rows = []
            for k in range(2 * len(self.by_edge) + 1):
                m = (k + 1) // 2 if k % 2 else -(k // 2)
                parts = [a[:, l + m] for l, a in enumerate(self.by_edge, start=1) if l >= abs(m)]
                self._rows.append(self._pad(torch.cat(parts, 1)))
        return self._rows

    def _pad(self, rows: Tensor) -> Tensor:
        """(E, n) -> (N, width, n), zeros where an atom has fewer edges."""
        if not self.dense:
            rows = rows.new_zeros(self.n_nodes * self.width, rows.shape[1]).index_copy(0, self.slot, rows)
        return rows.view(self.n_nodes, self.width, rows.shape[1])

    def _spread(self, layout: FeatureLayout, like: Tensor) -> _Spread:
        if layout not in self._spreads:
            self._spreads[layout] = _spread_of(layout, like)
        return self._spreads[layout]

    def _blocks(self, nodes: Tensor, layout: FeatureLayout) -> list[Tensor]:
        """Features of atoms as block-diagonal matrices, (N, orders, channels) for every |m|."""
        spread = self._spread(layout, nodes)
        sizes = [a * b for a, b in spread.shapes]
        flat = nodes.new_zeros(len(nodes), sum(sizes))
        flat = flat.index_copy(1, spread.place, nodes.index_select(1, spread.source))
        return [part.unflatten(1, shape) for part, shape in zip(flat.split(sizes, 1), spread.shapes, strict=True)]

    def _into(self, nodes: Tensor, layout: FeatureLayout, n_orders: int | None = None) -> Tensor:
        if layout.lmax == 0:
            return nodes.index_select(0, self.center)
        n, swapped = layout.multiplicities[0], self._spread(layout, nodes).swapped
        parts = [nodes[:, None, :n].expand(-1, self.width, -1)]
        for m, block in enumerate(self._blocks(nodes, layout)[:n_orders]):
            for own, other, sign in _signed(m):
                if swapped is None or m == 0:
                    parts.append(torch.bmm(self.rows[own][..., : block.shape[1]], block))
                else:
                    straight, crossed = block * (1 - swapped[m]), block * (sign * swapped[m])
                    both = torch.cat([self.rows[k][..., : block.shape[1]] for k in (own, other)], 2)
                    parts.append(torch.bmm(both, torch.cat([straight, crossed], 1)))
        out = torch.cat(parts, dim=2).flatten(0, 1)
        return out if self.dense else out.index_select(0, self.slot)

    def _sum_out(self, messages: Tensor, layout: FeatureLayout) -> Tensor:
        if layout.lmax == 0:
            return messages.new_zeros(self.n_nodes, layout.size).index_add(0, self.center, messages)
        spread, n = self._spread(layout, messages), layout.multiplicities[0]
        if not self.dense:
            messages = messages.index_select(0, self.padding)
        padded = messages.view(self.n_nodes, self.width, messages.shape[1])
        parts, start = [], n
        for m, (orders, channels) in enumerate(spread.shapes):
            if start == messages.shape[1]:
                parts.append(messages.new_zeros(self.n_nodes, orders * channels))
                continue
            total: Tensor | None = None
            for own, other, sign in _signed(m):
                here = padded[..., start : start + channels]
                start += channels
                product = torch.bmm(self.rows[own][..., :orders].transpose(1, 2), here)
                if spread.swapped is not None and m > 0:
                    crossed = torch.bmm(self.rows[other][..., :orders].transpose(1, 2), here)
                    product = torch.lerp(product, sign * crossed, spread.swapped[m].expand_as(product))
                total = product if total is None else total + product
            assert total is not None
            parts.append(total.flatten(1))
        parts.append(messages.new_zeros(self.n_nodes, 1))
        others = torch.cat(parts, 1).index_select(1, spread.gather.ravel()).unflatten(1, spread.gather.shape).sum(2)
        scalars = torch.bmm(self.mask, padded[..., :n])[:, 0]
        return torch.cat([scalars, others[:, n:]], 1)

    @property
    def mask(self) -> Tensor:
        """1 where a padded row is an edge, (N, 1, width)."""
        if self._mask is None:
            ones = torch.ones(len(self.center), 1, dtype=self.by_edge[0].dtype, device=self.center.device)
            self._mask = self._pad(ones).transpose(1, 2)
        return self._mask


def _signed(m: int) -> list[tuple[int, int, float]]:
    """Positions in `EdgeFrames.rows` of +m and of -m, each with that of the other and its sign if swapped."""
    return [(0, 0, 1.0)] if m == 0 else [(2 * m - 1, 2 * m, -1.0), (2 * m, 2 * m - 1, 1.0)]


@dataclass
class Chunk:
    """A range of atoms with all their edges.

    Parameters
    ----------
    nodes, edges : slice
    frames : EdgeFrames
        Of these edges; `reverse` points into all edges.
    """

    nodes: slice
    edges: slice
    frames: EdgeFrames


def _spread_of(layout: FeatureLayout, like: Tensor) -> _Spread:
    """Component ((l, m'), c) of an atom stands in row (l, m') and column c of the matrices of all |m| <= l."""
    degree, shapes, source, place, total = layout.channel_degree, [], [], [], 0
    l_of, order_of = degree[layout.lab.channel], layout.lab.order
    for m in range(layout.lmax + 1):
        lowest = max(m, 1)
        rows = sum(2 * l + 1 for l in range(lowest, layout.lmax + 1))
        channels = sum(layout.multiplicities[lowest:])
        picked = np.flatnonzero(l_of >= lowest)
        row = l_of[picked] ** 2 - lowest**2 + l_of[picked] + order_of[picked]
        column = layout.lab.channel[picked] - (layout.n_channels - channels)
        source.append(picked)
        place.append(total + row * channels + column)
        shapes.append((rows, channels))
        total += rows * channels
    swapped = None
    if not layout.channel_natural.all():
        unnatural = torch.from_numpy(~layout.channel_natural).to(like)
        swapped = [unnatural[layout.n_channels - channels :] for _, channels in shapes]
    gather = np.full((layout.size, layout.lmax + 1), total)
    for m, (components, places) in enumerate(zip(source, place, strict=True)):
        gather[components, m] = places
    a, b, c = (torch.from_numpy(t).to(like.device) for t in (np.concatenate(source), np.concatenate(place), gather))
    return _Spread(a, b, c, shapes, swapped)


class _Into(torch.autograd.Function):
    """Turning in; its adjoint is turning out and summing."""

    @staticmethod
    def forward(ctx: Any, nodes: Tensor, frames: EdgeFrames, layout: FeatureLayout) -> Tensor:
        ctx.frames, ctx.layout = frames, layout
        return frames._into(nodes, layout)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return ctx.frames._sum_out(grads[0], ctx.layout), None, None


class _SumOut(torch.autograd.Function):
    """Turning out and summing; its adjoint is turning in."""

    @staticmethod
    def forward(ctx: Any, messages: Tensor, frames: EdgeFrames, layout: FeatureLayout) -> Tensor:
        ctx.frames, ctx.layout = frames, layout
        ctx.n_orders = layout.widths_by_order.index(messages.shape[1]) + 1
        return frames._sum_out(messages, layout)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return ctx.frames._into(grads[0], ctx.layout, ctx.n_orders), None, None


class _Reversed(torch.autograd.Function):
    """Rows of the reverse edges: a permutation that is its own inverse, so no row is added to another."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, reverse: Tensor) -> Tensor:
        ctx.save_for_backward(reverse)
        return rows.index_select(0, reverse)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0].index_select(0, ctx.saved_tensors[0]), None
