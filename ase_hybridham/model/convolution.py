"""DeepH-E3's convolution evaluated in the frame of every edge.

In its own frame an edge has only the m = 0 harmonics, and the tensor product with them is one
matrix per |m| (Passaro & Zitnick 2023; `product_matrices` has the exact relation to tensor-product
weights). Gate and radial weight act on channels and are the same in any frame.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ase_hybridham.model.layout import Components, FeatureLayout
from ase_hybridham.model.linear import DegreeLinear, OrderLinear
from ase_hybridham.symmetry import polar_coupling

__all__ = ["Convolution", "GaussianBasis", "LocalNorm", "RadialNetwork", "product_matrices", "smooth_envelope"]

# e3nn's constants: activations times these have second moment 1 under a normal distribution.
SILU_SCALE = 1.6791767923989418
SIGMOID_SCALE = 1.8467055342154763


class GaussianBasis(nn.Module):
    """exp(-(d - c)^2 / (2 w^2)) with n centers on [0, reach] and w their spacing."""

    centers: Tensor

    def __init__(self, n: int, reach: float) -> None:
        super().__init__()
        self.register_buffer("centers", torch.linspace(0.0, reach, n, dtype=torch.float64), persistent=False)
        self.spacing = reach / (n - 1)

    def forward(self, distance: Tensor) -> Tensor:
        """(E,) angstrom -> (E, n)."""
        return torch.exp(-0.5 * ((distance[:, None] - self.centers) / self.spacing) ** 2)


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
    degree: Tensor
    channel: Tensor

    def __init__(self, layout: FeatureLayout, components: Components, eps: float = 1e-5) -> None:
        super().__init__()
        self.n_scalars = layout.multiplicities[0]
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(layout.n_channels))
        self.bias = nn.Parameter(torch.zeros(self.n_scalars))
        degree = layout.channel_degree[components.channel]
        average = np.eye(layout.lmax + 1)[degree]
        average /= average.sum(0)
        average[:, 1:] = 0.5 * (average[:, 1:] + average[:, :1])
        self.register_buffer("average", torch.from_numpy(average), persistent=False)
        self.register_buffer("degree", torch.from_numpy(layout.channel_degree), persistent=False)
        self.register_buffer("channel", torch.from_numpy(components.channel), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """(n_rows, size) -> (n_rows, size)."""
        scalars, others = rows.split([self.n_scalars, rows.shape[1] - self.n_scalars], dim=1)
        rows = torch.cat([scalars - scalars.mean(1, keepdim=True), others], dim=1)
        inverse = torch.rsqrt(rows.square() @ self.average + self.eps)
        factor = inverse.index_select(1, self.degree) * self.weight
        return torch.addcmul(self.padded_bias(rows.shape[1]), rows, factor.index_select(1, self.channel))

    def padded_bias(self, size: int) -> Tensor:
        """The bias of the scalars with zeros for all other components."""
        return nn.functional.pad(self.bias, (0, size - self.n_scalars))


class _Gate(nn.Module):
    """Scalars times their own sigmoid (SiLU), all others times a sigmoid of a scalar of their own.

    Parameters
    ----------
    n_scalars : int
    number : array of int, shape (size,)
        Which number multiplies each component: below n_scalars the scalars' own sigmoids, then the gates.
    """

    number: Tensor
    scale: Tensor

    def __init__(self, n_scalars: int, number: NDArray) -> None:
        super().__init__()
        self.n_scalars, self.n_gates = n_scalars, int(number.max()) + 1 - n_scalars
        scale = np.repeat([SILU_SCALE, SIGMOID_SCALE], [n_scalars, self.n_gates])
        self.register_buffer("scale", torch.from_numpy(scale), persistent=False)
        self.register_buffer("number", torch.from_numpy(number), persistent=False)

    def forward(self, rows: Tensor, weight: Tensor | None = None) -> Tensor:
        """Rows of [scalars, gates, others] -> rows of [scalars, others], times weights of the numbers."""
        n = self.n_scalars
        scalars, gates, others = rows.split([n, self.n_gates, rows.shape[1] - n - self.n_gates], dim=1)
        factor = torch.sigmoid(torch.cat([scalars, gates], dim=1)) * self.scale
        if weight is not None:
            factor = factor * weight
        return torch.cat([scalars, others], dim=1) * factor.index_select(1, self.number)


class Convolution(nn.Module):
    """Product with the edge's harmonics, gate, radial weight: hoppings in their frames, on-site pairs in the lab.

    In the frame of an edge every order of a channel has a gate and a radial weight of its own; DeepH-E3 has one
    for all orders of a channel, which is the special case of equal ones.

    Parameters
    ----------
    node, edge : FeatureLayout
        Of the inputs n_i, n_j and e_ij.
    out : FeatureLayout
    n_gaussians, radial_width : int
        Of the radial network.
    """

    def __init__(
        self, node: FeatureLayout, edge: FeatureLayout, out: FeatureLayout, n_gaussians: int, radial_width: int
    ) -> None:
        super().__init__()
        n_scalars = out.multiplicities[0]
        # the m = 0 components come first and are numbered by channel, so the scalars are the first numbers
        starts = np.cumsum([0, *out.counts])
        order = np.abs(out.edge.order)
        number = starts[order] + out.edge.channel - (out.n_channels - np.array(out.counts)[order])
        self.hopping_gate, self.onsite_gate = _Gate(n_scalars, number), _Gate(n_scalars, out.lab.channel)
        self.hopping = OrderLinear([node, node, edge], (out.counts[0] + self.hopping_gate.n_gates, *out.counts[1:]))
        self.onsite = DegreeLinear([node, edge], (n_scalars + self.onsite_gate.n_gates, *out.multiplicities[1:]))
        self.radial = RadialNetwork(n_gaussians, radial_width, n_scalars + self.hopping_gate.n_gates)

    def forward(
        self, node_i: Tensor, node_j: Tensor, edge: Tensor, node: Tensor, onsite: Tensor, radial: Tensor, half: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Messages of hoppings (E, size) and of on-site pairs (N, size).

        Parameters
        ----------
        node_i, node_j, edge : tensors, shape (E, .)
            In the frame of the edge.
        node, onsite : tensors, shape (N, .)
            Features of atoms and of their on-site pairs in the lab.
        radial : tensor, shape (n_half, n_gaussians)
            Expanded distances of undirected pairs.
        half : LongTensor, shape (E,)
            Undirected pair of each edge.
        """
        weight = self.radial(radial).index_select(0, half)
        hopping = self.hopping_gate(self.hopping([node_i, node_j, edge]), weight)
        return hopping, self.onsite_gate(self.onsite([node, onsite]))


def product_matrices(
    multiplicities: Sequence[int],
    out: Sequence[int],
    weights: Mapping[tuple[int, int, int], NDArray],
    *,
    unnatural_out: Sequence[int] = (),
    n_inputs: int = 3,
) -> list[NDArray]:
    """Matrices per m that equal e3nn's tensor product with the harmonics of the edge.

    A_m[l1 u, l3 w] = alpha sum_l2 sqrt(2 l2+1) c(l1, l2, l3; m) W_l2[u, w], with alpha^2 = (2 l3+1) / (sum of
    the multiplicities of all paths into l3): e3nn's normalization since 0.4.4 ("element").

    Parameters
    ----------
    multiplicities, out : sequences of int
        Of the natural irreps of one input and of the output.
    weights : mapping
        (l1, l2, l3) -> array, shape (n_inputs, multiplicities[l1], channels of l3); an odd sum leads to an
        unnatural l3.
    unnatural_out : sequence of int
        Multiplicities of the unnatural irreps of the output, by l.

    Returns
    -------
    list over m of arrays, shape (n_inputs * C_m, N_m)
        As `OrderLinear` holds them. Outputs are natural, then unnatural channels; the latter are swapped,
        z(+m) = -y(-m), z(-m) = y(+m), and have no m = 0 component, which the product does not reach.
    """
    columns = [(l3, 0, mul) for l3, mul in enumerate(out)] + [(l3, 1, mul) for l3, mul in enumerate(unnatural_out)]
    fan_in = dict.fromkeys(((l3, parity) for l3, parity, _ in columns), 0)
    for l1, l2, l3 in weights:
        fan_in[l3, (l1 + l2 + l3) % 2] += n_inputs * multiplicities[l1]
    matrices = []
    for m in range(min(len(multiplicities), max(len(out), len(unnatural_out)))):
        present = [(l3, parity, mul) for l3, parity, mul in columns if l3 >= m and (m or not parity)]
        rows = []
        for n in range(n_inputs):
            blocks = {
                (l1, l3, parity): np.zeros((multiplicities[l1], mul))
                for l1 in range(m, len(multiplicities))
                for l3, parity, mul in present
            }
            for (l1, l2, l3), weight in weights.items():
                key = (l1, l3, (l1 + l2 + l3) % 2)
                if key in blocks:
                    alpha = np.sqrt((2 * l3 + 1) / fan_in[key[1:]])
                    blocks[key] += alpha * np.sqrt(2 * l2 + 1) * polar_coupling(l1, l2, l3)[m] * weight[n]
            rows += [
                np.concatenate([blocks[l1, l3, parity] for l3, parity, _ in present], axis=1)
                for l1 in range(m, len(multiplicities))
            ]
        matrices.append(np.concatenate(rows))
    return matrices
