"""Norms of features: each row by itself, or by statistics of the whole graph as in DeepH-E3."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ase_hybridham.model.edgeframes import EdgeFrames
from ase_hybridham.model.layout import Components, FeatureLayout
from ase_hybridham.model.linear import use_plain

__all__ = ["GraphNorm", "LocalNorm"]


class LocalNorm(nn.Module):
    """Norm of each row by itself: layer norm of the scalars, and every l > 0 over the rms of itself and the scalars.

    Without statistics over the graph, a prediction depends on nothing beyond the receptive field. Where a degree
    vanishes by symmetry, as in every ideal crystal, its own rms alone would make a feature of rounding noise (seen: H
    of ideal graphene that turns with the cell to 0.2 eV only).

    Parameters
    ----------
    layout : FeatureLayout
    components : Components
        `layout.lab` or `layout.edge`: where the rows stand.
    """

    average: Tensor
    spread: Tensor
    channel: Tensor

    def __init__(self, layout: FeatureLayout, components: Components, eps: float = 1e-5) -> None:
        super().__init__()
        self.n_scalars = layout.n_scalars
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(layout.n_channels))
        self.bias = nn.Parameter(torch.zeros(self.n_scalars))
        degree = layout.channel_degree[components.channel]
        average = np.eye(layout.lmax + 1)[degree]
        spread = average.T.copy()
        average /= np.maximum(average.sum(0), 1.0)
        average[:, 1:] = 0.5 * (average[:, 1:] + average[:, :1])
        self.register_buffer("average", torch.from_numpy(average), persistent=False)
        self.register_buffer("spread", torch.from_numpy(spread), persistent=False)
        self.register_buffer("channel", torch.from_numpy(components.channel), persistent=False)

    def forward(self, rows: Tensor, skip: Tensor) -> Tensor:
        """The norm of rows (n_rows, size) added to others of the same shape."""
        scale = self.spread * self.weight.index_select(0, self.channel)
        if not use_plain():
            return _Normalize.apply(rows, skip, scale, self.bias, self)
        scalars, others = rows.split([self.n_scalars, rows.shape[1] - self.n_scalars], dim=1)
        rows = torch.cat([scalars - scalars.mean(1, keepdim=True), others], dim=1)
        inverse = torch.rsqrt(rows.square() @ self.average + self.eps)
        bias = nn.functional.pad(self.bias, (0, rows.shape[1] - self.n_scalars))
        return skip + rows * (inverse @ scale) + bias


class _Normalize(torch.autograd.Function):
    """`LocalNorm` with its derivative: sums over components of one degree are thin matrix products."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, skip: Tensor, scale: Tensor, bias: Tensor, norm: LocalNorm) -> Tensor:
        n = norm.n_scalars
        rows = rows.clone()
        rows[:, :n] -= rows[:, :n].mean(1, keepdim=True)
        inverse = torch.mm(rows.square(), norm.average).add_(norm.eps).rsqrt_()
        out = torch.mm(inverse, scale).mul_(rows).add_(skip)
        out[:, :n] += bias
        ctx.norm = norm
        ctx.save_for_backward(rows, inverse, scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (rows, inverse, scale), norm = ctx.saved_tensors, ctx.norm
        d_out, n = grads[0], norm.n_scalars
        product = d_out * rows
        d_scale = torch.mm(inverse.t(), product) * norm.spread
        d_square = torch.mm(product, scale.t()).mul_(inverse.pow(3)).neg_()
        d_rows = torch.mm(inverse, scale, out=product).mul_(d_out)
        d_rows.addcmul_(rows, torch.mm(d_square, norm.average.t()))
        d_rows[:, :n] -= d_rows[:, :n].mean(1, keepdim=True)
        return d_rows, d_out, d_scale, d_out[:, :n].sum(0), None


class GraphNorm(nn.Module):
    """DeepH-E3's norm: statistics over all rows of a structure.

    The mean over rows and channels of every irrep, a vector in the lab, is subtracted; scalars are divided by their
    rms, others are not. A prediction depends, weakly, on atoms however far away.

    Parameters
    ----------
    layout : FeatureLayout
    """

    EPS = 1e-5
    lab_average: Tensor
    lab_spread: Tensor
    lab_channel: Tensor
    edge_average: Tensor
    edge_spread: Tensor
    edge_channel: Tensor

    def __init__(self, layout: FeatureLayout) -> None:
        super().__init__()
        self.layout = layout
        self.weight = nn.Parameter(torch.ones(layout.n_channels))
        self.bias = nn.Parameter(torch.zeros(layout.n_scalars))
        # one channel for every irrep
        self.means = FeatureLayout(*(tuple(min(n, 1) for n in part) for part in (layout.natural, layout.unnatural)))
        irreps = {key: k for k, key in enumerate(_irreps(self.means))}
        number = np.array([irreps[key] for key in _irreps(layout)])  # of every channel
        for name, rows, means in (("lab", layout.lab, self.means.lab), ("edge", layout.edge, self.means.edge)):
            same = number[rows.channel][:, None] == means.channel[None, :]
            spread = (same & (rows.order[:, None] == means.order[None, :])).T.astype(float)
            self.register_buffer(f"{name}_spread", torch.from_numpy(spread), persistent=False)
            average = (spread / spread.sum(1, keepdims=True)).T.copy()
            self.register_buffer(f"{name}_average", torch.from_numpy(average), persistent=False)
            self.register_buffer(f"{name}_channel", torch.from_numpy(rows.channel), persistent=False)

    def nodes(self, rows: Tensor, skip: Tensor, graph: Tensor, n_graphs: int) -> Tensor:
        """Normalized rows of atoms (N, size) plus `skip`; `graph` (N,) says to which structure an atom belongs."""
        count = torch.bincount(graph, minlength=n_graphs).to(rows)
        mean = rows.new_zeros(n_graphs, self.means.size).index_add(0, graph, rows @ self.lab_average) / count[:, None]
        rows = torch.addmm(rows, mean[graph], self.lab_spread, alpha=-1.0)
        scale = self._scale(self._squares(rows, graph, n_graphs) / count[:, None])
        return self._scaled(rows, skip, scale, graph, self.lab_channel)

    def pairs(
        self,
        hopping: tuple[Tensor, Tensor],
        onsite: tuple[Tensor, Tensor],
        frames: EdgeFrames,
        graph: Tensor,
        n_graphs: int,
    ) -> tuple[Tensor, Tensor]:
        """The same for hoppings (E, size) in their frames and on-site pairs (N, size): (rows, skip) each."""
        edges, nodes, of_edge = hopping[0], onsite[0], graph[frames.center]
        count = (torch.bincount(of_edge, minlength=n_graphs) + torch.bincount(graph, minlength=n_graphs)).to(edges)
        summed = frames.sum_out(edges @ self.edge_average, self.means) + nodes @ self.lab_average
        mean = edges.new_zeros(n_graphs, self.means.size).index_add(0, graph, summed) / count[:, None]
        edges = torch.addmm(edges, frames.into(mean[graph], self.means), self.edge_spread, alpha=-1.0)
        nodes = torch.addmm(nodes, mean[graph], self.lab_spread, alpha=-1.0)
        square = self._squares(edges, of_edge, n_graphs) + self._squares(nodes, graph, n_graphs)
        scale = self._scale(square / count[:, None])
        return (
            self._scaled(edges, hopping[1], scale, of_edge, self.edge_channel),
            self._scaled(nodes, onsite[1], scale, graph, self.lab_channel),
        )

    def _squares(self, rows: Tensor, graph: Tensor, n_graphs: int) -> Tensor:
        """Sums over rows of the mean square of 0e and 0o channels, (n_graphs, 2)."""
        s, n = self.layout.n_scalars, self.layout.multiplicities[0]
        both = torch.stack([rows[:, a:b].square().sum(1) / max(b - a, 1) for a, b in ((0, s), (s, n))], dim=1)
        return both.new_zeros(n_graphs, 2).index_add(0, graph, both)

    def _scale(self, square: Tensor) -> Tensor:
        """What multiplies the channels of every structure, (n_graphs, n_channels)."""
        s, n = self.layout.n_scalars, self.layout.multiplicities[0]
        # pseudoscalars of flat structures vanish, where a root has no derivative
        inverse = 1.0 / (torch.sqrt(square.clamp(min=torch.finfo(square.dtype).tiny)) + self.EPS)
        others = inverse.new_ones(len(inverse), self.layout.n_channels - n)
        return torch.cat([inverse[:, :1].expand(-1, s), inverse[:, 1:].expand(-1, n - s), others], 1) * self.weight

    def _scaled(self, rows: Tensor, skip: Tensor, scale: Tensor, graph: Tensor, channel: Tensor) -> Tensor:
        factor = scale.index_select(1, channel)
        bias = nn.functional.pad(self.bias, (0, rows.shape[1] - len(self.bias)))
        return torch.addcmul(skip + bias, rows, factor if len(factor) == 1 else factor[graph])


def _irreps(layout: FeatureLayout) -> list[tuple[int, bool]]:
    """l and parity of every channel."""
    return list(zip(layout.channel_degree.tolist(), layout.channel_natural.tolist(), strict=True))
