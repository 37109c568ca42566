"""DeepH-E3's convolution evaluated in the frame of every edge.

In its own frame an edge has only the m = 0 harmonics, and the tensor product with them is one
matrix per |m| (Passaro & Zitnick 2023). Gate and radial weight act on channels and are the same in
any frame.
"""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ase_hybridham.model.layout import FeatureLayout
from ase_hybridham.model.linear import DegreeLinear, OrderLinear, use_plain

__all__ = ["Convolution", "GaussianBasis", "RadialNetwork", "smooth_envelope"]

# e3nn's constants: activations times these have second moment 1 under a normal distribution.
SILU_SCALE = 1.6791767923989418
SIGMOID_SCALE = 1.8467055342154763
TANH_SCALE = 1.5937334472592695
NEGLIGIBLE = -40.0  # exp of it is below the rounding of 1

Gates = Literal["order", "channel"]


class GaussianBasis(nn.Module):
    """exp(-(d - c)^2 / (2 w^2)) with n centers on [0, reach] and w their spacing."""

    centers: Tensor

    def __init__(self, n: int, reach: float) -> None:
        super().__init__()
        self.register_buffer("centers", torch.linspace(0.0, reach, n, dtype=torch.float64), persistent=False)
        self.spacing = reach / (n - 1)

    def forward(self, distance: Tensor) -> Tensor:
        """(E,) angstrom -> (E, n)."""
        exponent = -0.5 * ((distance[:, None] - self.centers) / self.spacing) ** 2
        # far tails would be denormal numbers, with which every product is several times slower
        return torch.exp(exponent.clamp(min=NEGLIGIBLE)).masked_fill(exponent < NEGLIGIBLE, 0.0)


def smooth_envelope(distance: Tensor, reach: Tensor) -> Tensor:
    """1 at zero distance, 0 with two vanishing derivatives at the reach and beyond (Klicpera et al. 2020, p = 6).

    Distance and reach in angstrom, shape (E,) each.
    """
    x = (distance / reach).clamp(max=1.0)
    return 1.0 - 28.0 * x**6 + 48.0 * x**7 - 21.0 * x**8


class RadialNetwork(nn.Sequential):
    """Distances expanded in Gaussians -> weights of channels."""

    def __init__(self, n_gaussians: int, width: int, n_channels: int) -> None:
        super().__init__(
            nn.Linear(n_gaussians, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, n_channels)
        )


class _Gate(nn.Module):
    """Scalars times their own sigmoid (SiLU), all others times the sigmoid of a scalar of their own; 0o: tanh.

    Rows in: [l = 0, gates, then as in the rows out]. All that is multiplied by one sigmoid also shares a weight.

    Parameters
    ----------
    layout : FeatureLayout
        Of the rows out.
    segments : list of (int, int, int)
        Of the rows out behind l = 0: components that share a gate, channels, number of the first channel's gate.
    """

    scale: Tensor

    def __init__(self, layout: FeatureLayout, segments: list[tuple[int, int, int]]) -> None:
        super().__init__()
        self.n_scalars, self.n_first = layout.n_scalars, layout.multiplicities[0]
        self.segments = segments
        self.n_numbers = max([self.n_first, *(channels + number for _, channels, number in segments)])
        kinds = [self.n_scalars, self.n_first - self.n_scalars, self.n_numbers - self.n_first]
        scale = np.repeat([SILU_SCALE, TANH_SCALE, SIGMOID_SCALE], kinds)
        self.register_buffer("scale", torch.from_numpy(scale), persistent=False)

    @property
    def n_gates(self) -> int:
        """Scalars that only gate."""
        return self.n_numbers - self.n_first

    def forward(self, rows: Tensor, weight: Tensor, which: Tensor | None = None) -> Tensor:
        """Rows (n_rows, .) -> (n_rows, size), times rows `which` of the weights, or the only row of weights.

        Weights come with `scale`, which is cheaper before they are given to every edge.
        """
        if not use_plain():
            return _Gated.apply(rows, weight, which, self)
        w = weight if which is None else weight.index_select(0, which)
        factor = torch.sigmoid(rows[:, : self.n_numbers]) * w
        s, n = self.n_scalars, self.n_first
        parts = [rows[:, :s] * factor[:, :s], torch.tanh(rows[:, s:n]) * w[:, s:n]]
        others = rows[:, self.n_numbers :].split(
            [components * channels for components, channels, _ in self.segments], 1
        )
        for x, (components, channels, number) in zip(others, self.segments, strict=True):
            x = x.unflatten(1, (components, channels))
            parts.append((x * factor[:, None, number : number + channels]).flatten(1))
        return torch.cat(parts, dim=1)

    def split(self, rows: Tensor, start: int) -> list[Tensor]:
        """The segments of rows from a column on, (n_rows, components, channels) each, without copies."""
        out = []
        for components, channels, _ in self.segments:
            place = rows.storage_offset() + start
            out.append(rows.as_strided((len(rows), components, channels), (rows.stride(0), channels, 1), place))
            start += components * channels
        return out


class _Gated(torch.autograd.Function):
    """`_Gate` with its derivative."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, which: Tensor | None, gate: _Gate) -> Tensor:
        s, n = gate.n_scalars, gate.n_first
        w = weight if which is None else weight.index_select(0, which)
        factor = torch.sigmoid(rows[:, : gate.n_numbers]).mul_(w)
        out = rows.new_empty(len(rows), rows.shape[1] - gate.n_gates)
        torch.mul(rows[:, :s], factor[:, :s], out=out[:, :s])
        if n > s:
            torch.mul(torch.tanh(rows[:, s:n]), w[:, s:n], out=out[:, s:n])
        both = zip(gate.split(rows, gate.n_numbers), gate.split(out, n), gate.segments, strict=True)
        for x, y, (_, channels, number) in both:
            torch.mul(x, factor[:, None, number : number + channels], out=y)
        ctx.gate = gate
        ctx.save_for_backward(rows, weight, which)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (rows, weight, which), gate, d_out = ctx.saved_tensors, ctx.gate, grads[0].contiguous()
        s, n = gate.n_scalars, gate.n_first
        w = weight if which is None else weight.index_select(0, which)
        sigmoid = torch.sigmoid(rows[:, : gate.n_numbers])
        factor = sigmoid * w
        d_rows, d_factor, begun = torch.empty_like(rows), torch.empty_like(factor), n
        torch.mul(d_out[:, :n], rows[:, :n], out=d_factor[:, :n])
        splits = (gate.split(rows, gate.n_numbers), gate.split(d_out, n), gate.split(d_rows, gate.n_numbers))
        for x, dy, dx, (components, channels, number) in zip(*splits, gate.segments, strict=True):
            torch.mul(dy, factor[:, None, number : number + channels], out=dx)
            part = d_factor[:, number : number + channels]
            for c in range(components):
                if number >= begun and c == 0:  # the first with these gates
                    torch.mul(x[:, c], dy[:, c], out=part)
                else:
                    part.addcmul_(x[:, c], dy[:, c])
            begun = max(begun, number + channels)
        d_weight = d_factor * sigmoid
        torch.addcmul(d_factor, d_factor, sigmoid, value=-1.0, out=d_factor)
        torch.mul(d_factor, factor, out=d_rows[:, : gate.n_numbers])
        d_rows[:, :s].addcmul_(d_out[:, :s], factor[:, :s])
        if n > s:
            tanh = torch.tanh(rows[:, s:n])
            d_weight[:, s:n] = d_out[:, s:n] * tanh
            d_rows[:, s:n] = d_out[:, s:n] * (1 - tanh.square()) * w[:, s:n]
        if which is None:
            return d_rows, d_weight.sum(0, keepdim=True), None, None
        return d_rows, torch.zeros_like(weight).index_add_(0, which, d_weight), None, None


class Convolution(nn.Module):
    """Product with the edge's harmonics, gate, radial weight: hoppings in their frames, on-site pairs in the lab.

    Parameters
    ----------
    node, edge : FeatureLayout
        Of the inputs n_i, n_j and e_ij.
    out : FeatureLayout
    n_gaussians, radial_width : int
        Of the radial network.
    gates : {"order", "channel"}
        Whether every order |m| of a channel has a gate and a radial weight of its own, or all share one (DeepH-E3).
    shortened : bool
        Whether messages end with the largest order that the inputs have; else zeros follow.
    """

    def __init__(
        self,
        node: FeatureLayout,
        edge: FeatureLayout,
        out: FeatureLayout,
        n_gaussians: int,
        radial_width: int,
        gates: Gates,
        *,
        shortened: bool = False,
    ) -> None:
        super().__init__()
        muls, n_first = out.multiplicities, out.multiplicities[0]
        counts = out.counts[: 1 + max(node.lmax, edge.lmax)] if shortened else out.counts
        starts = np.cumsum([0, *counts])
        numbers = [int(starts[m]) if gates == "order" else out.n_channels - counts[m] for m in range(len(counts))]
        orders = [(1, counts[0] - n_first, n_first)] + [(2, counts[m], numbers[m]) for m in range(1, len(counts))]
        degrees = [(2 * l + 1, muls[l], sum(muls[:l])) for l in range(1, len(muls))]
        self.hopping_gate, self.onsite_gate = _Gate(out, orders), _Gate(out, degrees)
        self.n_node_scalars, n_invariant = node.multiplicities[0], counts[0] + self.hopping_gate.n_gates
        # n_j comes from the reverse edge: in its frame, which differs by the sign of -m and what weights absorb
        inputs, n_hopping = [node.turning, node.turning, edge], (n_invariant, *counts[1:])
        self.hopping = OrderLinear(inputs, n_hopping, bias=False, mirrored=1)
        self.scalars = nn.Linear(self.n_node_scalars, 2 * n_invariant)
        with torch.no_grad():  # one matrix as far as its size is concerned
            n_turning, n_all = len(self.hopping.weights[0]), len(self.hopping.weights[0]) + 2 * self.n_node_scalars
            self.hopping.weights[0].mul_((n_turning / n_all) ** 0.5)
            self.scalars.weight.normal_(std=n_all**-0.5)
            self.scalars.bias.zero_()
        self.onsite = DegreeLinear([node, edge], (n_first + self.onsite_gate.n_gates, *muls[1:]))
        self.radial = RadialNetwork(n_gaussians, radial_width, self.hopping_gate.n_numbers)
        self.onsite_weight = nn.Parameter(torch.ones(1, out.n_channels))

    def weights(self, gaussians: Tensor) -> Tensor:
        """What multiplies messages: the radial network's output for undirected pairs, (n_half, numbers)."""
        return self.radial(gaussians) * self.hopping_gate.scale

    def invariants(self, node: Tensor) -> tuple[Tensor, Tensor]:
        """What the scalars of atoms (N, size) give at m = 0 as atom i and as atom j of an edge, (N, .) each."""
        of_i, of_j = self.scalars(node[:, : self.n_node_scalars]).chunk(2, dim=1)
        return of_i, of_j

    def hoppings(
        self,
        node_i: Tensor,
        node_j: Tensor,
        edge: Tensor,
        invariants: tuple[Tensor, Tensor],
        ends: Tensor,
        weight: Tensor,
        half: Tensor,
    ) -> Tensor:
        """Messages of hoppings in their frames, (E, size).

        Parameters
        ----------
        node_i : Tensor, shape (E, .)
            Features l > 0 of atom i in the frame of the edge.
        node_j : Tensor, shape (E, .)
            Features l > 0 of atom j in the frame of the reverse edge.
        edge : Tensor, shape (E, .)
        invariants : tuple of two Tensors, shape (N, .)
            From the method of this name.
        ends : LongTensor, shape (2, E)
            i and j.
        weight : Tensor, shape (n_half, numbers)
            From `weights`, of undirected pairs.
        half : LongTensor, shape (E,)
            Undirected pair of each edge.
        """
        start = invariants[0].index_select(0, ends[0]) + invariants[1].index_select(0, ends[1])
        return self.hopping_gate(self.hopping([node_i, node_j, edge], start), weight, half)

    def onsites(self, node: Tensor, onsite: Tensor) -> Tensor:
        """The same of on-site pairs in the lab, (N, size)."""
        return self.onsite_gate(self.onsite([node, onsite]), self.onsite_weight * self.onsite_gate.scale)
