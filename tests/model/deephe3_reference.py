"""DeepH-E3's function on e3nn's tensor product: slow, with its parameter names, to compare with.

Written from the description of its layers (golden/deephe3/README.md of the larger data), not from its code.
Vectors stand in e3nn's axis order, which makes m = -l .. l the order of every component (l = 1: y, z, x).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import e3nn
import numpy as np
import torch
from e3nn import o3
from e3nn.o3 import Irrep, Irreps
from torch import Tensor, nn

# e3nn 0.3.5 ships tables of 3j symbols in which these (and all permutations) have the opposite sign of later
# versions; up to l = 7, which f shells with spin reach
FLIPPED = {(1, l, l) for l in range(2, 8)} | {
    (3, 4, 6), (3, 5, 7), (4, 4, 5), (4, 5, 6), (4, 6, 7), (5, 5, 5), (5, 6, 6), (5, 7, 7)
}  # fmt: skip
SILU, SIGMOID, TANH = 1.6791767923989418, 1.8467055342154763, 1.5937334472592695
N_GAUSSIANS, WIDTH, EMBEDDING_REACH = 128, 64, 6.0


def sign(l1: int, l2: int, l3: int) -> int:
    """Sign of e3nn 0.3.5's 3j symbol against that of later versions."""
    return -1 if tuple(sorted((l1, l2, l3))) in FLIPPED else 1


def ordered(irreps: Irreps) -> Irreps:
    """Sorted by l, odd before even, equal ones merged."""
    return Irreps(sorted(irreps, key=lambda entry: (entry.ir.l, entry.ir.p))).simplify()


def reachable(irreps: Irreps, in1: Irreps, in2: Irreps) -> Irreps:
    """Those entries that some product of the inputs contains."""
    made = {ir for _, a in in1 for _, b in in2 for ir in a * b}
    return Irreps([entry for entry in irreps if entry.ir in made])


class SeparateWeights(nn.Module):
    """Tensor product with a matrix per path and factor."""

    def __init__(self, in1: Irreps, in2: Irreps, out: Irreps, normalization: str) -> None:
        super().__init__()
        old = normalization == "path035"
        instructions, signs = [], []
        for i1, (mul1, ir1) in enumerate(in1):
            for i2, (mul2, ir2) in enumerate(in2):
                for io, (mul, ir) in enumerate(out):
                    if ir in ir1 * ir2:
                        instructions.append((i1, i2, io, "uvw", True))
                        signs += [float(sign(ir1.l, ir2.l, ir.l)) if old else 1.0] * (mul1 * mul2 * mul)
        self.tp = o3.TensorProduct(
            in1,
            in2,
            out,
            instructions,
            internal_weights=False,
            shared_weights=True,
            path_normalization="path" if old else "element",
        )
        shapes = [(in1[i1].mul, in2[i2].mul, out[io].mul) for i1, i2, io, *_ in instructions]
        self.weights1 = nn.ParameterList([torch.randn(mul1, mul) for mul1, _, mul in shapes])
        self.weights2 = nn.ParameterList([torch.randn(mul2, mul) for _, mul2, mul in shapes])
        self.register_buffer("signs", torch.tensor(signs), persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        pairs = zip(self.weights1, self.weights2, strict=True)
        weights = torch.cat([(a[:, None] * b[None]).flatten() for a, b in pairs])
        return self.tp(x, y, weights * self.signs)


class Gate(nn.Module):
    """Scalars through silu (even) or tanh (odd), all others times the sigmoid of an even scalar of their own."""

    def __init__(self, out: Irreps) -> None:
        super().__init__()
        self.scalars = Irreps([e for e in out if e.ir.l == 0])
        self.gated = Irreps([e for e in out if e.ir.l > 0])
        gates = Irreps([(self.gated.num_irreps, "0e")])
        self.out = (self.scalars + self.gated).simplify()
        parts = [*self.scalars, *gates, *self.gated]
        place = sorted(range(len(parts)), key=lambda k: (parts[k].ir.l, parts[k].ir.p))
        self.irreps_in = Irreps([parts[k] for k in place]).simplify()
        starts = np.cumsum([0, *(parts[k].dim for k in place)])
        at = {k: slice(starts[n], starts[n + 1]) for n, k in enumerate(place)}
        self.slices = [at[k] for k in range(len(parts))]

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[:, s] for s in self.slices]
        n = len(self.scalars)
        out = [
            SILU * torch.nn.functional.silu(part) if entry.ir.p == 1 else TANH * torch.tanh(part)
            for part, entry in zip(parts, self.scalars, strict=False)
        ]
        gates, start = SIGMOID * torch.sigmoid(parts[n]), 0
        for part, entry in zip(parts[n + 1 :], self.gated, strict=True):
            gate = gates[:, start : start + entry.mul, None]
            out.append((part.unflatten(1, (entry.mul, entry.ir.dim)) * gate).flatten(1))
            start += entry.mul
        return torch.cat(out, dim=1)


def per_channel(x: Tensor, weight: Tensor, irreps: Irreps) -> Tensor:
    """Every component times the weight of its channel; weights (channels,) or (rows, channels)."""
    dims = torch.tensor([entry.ir.dim for entry in irreps for _ in range(entry.mul)], device=x.device)
    return x * weight.repeat_interleave(dims, dim=-1)


class GraphNorm(nn.Module):
    """Layer norm with the statistics of the whole graph."""

    def __init__(self, irreps: Irreps) -> None:
        super().__init__()
        self.irreps = irreps
        self.weight = nn.Parameter(torch.ones(irreps.num_irreps))
        self.bias = nn.Parameter(torch.zeros(irreps.count("0e")))

    def forward(self, x: Tensor) -> Tensor:
        out, channel, scalar = [], 0, 0
        for (mul, ir), s in zip(self.irreps, self.irreps.slices(), strict=True):
            part = x[:, s].unflatten(1, (mul, ir.dim))
            part = part - part.mean((0, 1))
            if ir.l == 0:
                part = part / (part.square().mean().sqrt() + 1e-5)
            part = part * self.weight[channel : channel + mul, None]
            if ir == Irrep("0e"):
                part = part + self.bias[scalar : scalar + mul, None]
                scalar += mul
            channel += mul
            out.append(part.flatten(1))
        return torch.cat(out, dim=1)


class Gaussians(nn.Module):
    """exp(-(d - c)^2 / (2 w^2)), centers from 0 to the reach."""

    def __init__(self, n: int, reach: float) -> None:
        super().__init__()
        self.register_buffer("offsets", torch.linspace(0, reach, n))
        self.register_buffer("width", torch.full((n,), reach / (n - 1)))

    def forward(self, d: Tensor) -> Tensor:
        return torch.exp(-0.5 * ((d[:, None] - self.offsets) / self.width) ** 2)


class EquiConv(nn.Module):
    """Product with the harmonics, gate, radial weight."""

    def __init__(self, in1: Irreps, sh: Irreps, out: Irreps, normalization: str) -> None:
        super().__init__()
        self.nonlin = Gate(reachable(out, in1, sh))
        self.out = self.nonlin.out
        self.tp = SeparateWeights(in1, sh, self.nonlin.irreps_in, normalization)
        layers = [nn.Linear(N_GAUSSIANS, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU()]
        self.fc = nn.Sequential(*layers, nn.Linear(WIDTH, self.out.num_irreps))

    def forward(self, x: Tensor, sh: Tensor, radial: Tensor) -> Tensor:
        return per_channel(self.nonlin(self.tp(x, sh)), self.fc(radial), self.out)


class Skip(nn.Module):
    """Nothing, or a linear map where the irreps change."""

    def __init__(self, before: Irreps, after: Irreps, path: str) -> None:
        super().__init__()
        self.sc = None if before == after else o3.Linear(before, after, path_normalization=path)

    def forward(self, x: Tensor) -> Tensor:
        return x if self.sc is None else self.sc(x)


class Update(nn.Module):
    """Of nodes (`in1` is node, node, edge; the middle of `pre` is what passes lin_pre) or of edges."""

    def __init__(self, pre: Irreps, in1: Irreps, sh: Irreps, out: Irreps, n_types: int, normalization: str) -> None:
        super().__init__()
        path = "path" if normalization == "path035" else "element"
        self.lin_pre = o3.Linear(pre, pre, biases=True, path_normalization=path)
        self.conv = EquiConv(in1, sh, out, normalization)
        self.out = self.conv.out
        self.lin_post = o3.Linear(self.out, self.out, biases=True, path_normalization=path)
        self.sc = o3.FullyConnectedTensorProduct(pre, Irreps([(n_types, "0e")]), self.out, path_normalization=path)
        self.norm = GraphNorm(self.out)
        self.skip_connect = Skip(pre, self.out, path)


class NodeUpdate(Update):
    def forward(self, node: Tensor, edge: Tensor, index: Tensor, sh: Tensor, radial: Tensor, one_hot: Tensor) -> Tensor:
        own, pre = self.sc(node, one_hot), self.lin_pre(node)
        message = self.conv(torch.cat([pre[index[0]], pre[index[1]], edge], dim=1), sh, radial)
        summed = message.new_zeros(len(node), message.shape[1]).index_add(0, index[0], message)
        return self.norm(self.lin_post(summed) + own) + self.skip_connect(node)


class EdgeUpdate(Update):
    def forward(self, node: Tensor, edge: Tensor, index: Tensor, sh: Tensor, radial: Tensor, one_hot: Tensor) -> Tensor:
        own, pre = self.sc(edge, one_hot), self.lin_pre(edge)
        message = self.conv(torch.cat([node[index[0]], node[index[1]], pre], dim=1), sh, radial)
        return self.norm(self.lin_post(message) + own) + self.skip_connect(edge)


@dataclass
class ReferenceOutput:
    """Features after every block, and the direct sum (n_edges, dim of irreps_out_edge)."""

    nodes: list[Tensor]
    edges: list[Tensor]
    out: Tensor


class DeepHE3Reference(nn.Module):
    """The whole network; parameters are the arguments with which DeepH-E3 builds its own.

    `normalization` is "path035" (signs and path normalization of e3nn 0.3.5) or "element" (e3nn 0.6).
    """

    def __init__(
        self,
        *,
        num_species: int,
        irreps_embed_node: str,
        irreps_edge_init: str,
        irreps_sh: str,
        irreps_mid_node: str,
        irreps_post_node: str,
        irreps_out_node: str,
        irreps_mid_edge: str,
        irreps_post_edge: str,
        irreps_out_edge: str,
        num_block: int,
        r_max: float,
        normalization: str = "path035",
    ) -> None:
        super().__init__()
        path = "path" if normalization == "path035" else "element"
        self.normalization, self.n_species, self.sh = normalization, num_species, Irreps(irreps_sh)
        node, edge = Irreps(irreps_embed_node), Irreps(irreps_edge_init)
        self.embedding = o3.Linear(Irreps([(num_species, "0e")]), node, path_normalization=path)
        self.basis = Gaussians(N_GAUSSIANS, r_max)
        self.distance_expansion = Gaussians(edge.dim, EMBEDDING_REACH)
        self.node_update_blocks, self.edge_update_blocks = nn.ModuleList(), nn.ModuleList()
        for block in range(num_block):
            last = block == num_block - 1
            node_out = Irreps(irreps_post_node if last else irreps_mid_node)
            edge_out = Irreps(irreps_post_edge if last else irreps_mid_edge)
            update = NodeUpdate(node, node + node + edge, self.sh, node_out, num_species, normalization)
            node = update.out
            self.node_update_blocks.append(update)
            update = EdgeUpdate(edge, node + node + edge, self.sh, edge_out, num_species**2, normalization)
            edge = update.out
            self.edge_update_blocks.append(update)
        self.lin_node = o3.Linear(node, Irreps(irreps_out_node), biases=True, path_normalization=path)
        self.lin_edge = o3.Linear(edge, Irreps(irreps_out_edge), biases=True, path_normalization=path)

    def forward(self, species: Tensor, index: Tensor, vectors: Tensor) -> ReferenceOutput:
        """Species (N,), edges (2, E) with self edges, their vectors (E, 3) in angstrom (x, y, z)."""
        dtype = self.basis.offsets.dtype
        vectors = vectors.to(dtype)
        distance = vectors.norm(dim=1)
        sh = o3.spherical_harmonics(self.sh, vectors[:, [1, 2, 0]], normalize=True, normalization="component")
        radial = self.basis(distance)
        one_hot = nn.functional.one_hot(species, self.n_species).to(dtype)
        pair = nn.functional.one_hot(self.n_species * species[index[0]] + species[index[1]], self.n_species**2)
        node, edge = self.embedding(one_hot), self.distance_expansion(distance)
        nodes, edges = [], []
        for node_update, edge_update in zip(self.node_update_blocks, self.edge_update_blocks, strict=True):
            node = node_update(node, edge, index, sh, radial, one_hot)
            edge = edge_update(node, edge, index, sh, radial, pair.to(dtype))
            nodes.append(node)
            edges.append(edge)
        return ReferenceOutput(nodes, edges, self.lin_edge(edge))


def reference_of(
    arguments: Mapping[str, object], normalization: str = "path035", *, optimize: bool = False
) -> DeepHE3Reference:
    """A network in float64 (`.float()` makes it single precision); `optimize` has e3nn compile it, as by default."""
    dtype, defaults = torch.get_default_dtype(), e3nn.get_optimization_defaults()
    torch.set_default_dtype(torch.float64)  # e3nn makes its tables in it
    if not optimize:
        e3nn.set_optimization_defaults(jit_script_fx=False, optimize_einsums=False)
    try:
        return DeepHE3Reference(**arguments, normalization=normalization)
    finally:
        torch.set_default_dtype(dtype)
        e3nn.set_optimization_defaults(**defaults)


def make_reference(
    arguments: Mapping[str, object], seed: int, normalization: str = "path035", *, optimize: bool = False
) -> DeepHE3Reference:
    """A random network in float64; biases, norms and radial nets are perturbed, so that none is trivial."""
    torch.manual_seed(seed)
    net = reference_of(arguments, normalization, optimize=optimize)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "bias" in name or "norm" in name or ".fc." in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return net
