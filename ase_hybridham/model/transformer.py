"""Stage 2's body: the graph Transformer of Yin et al., Eq. 1-5 (arXiv:2401.00744).

It sees numbers only, one row per atom and one per pair (on-site pairs included); what the numbers
mean and how a correction is read out is the business of a frame (`model.frames`).
"""

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter, softmax

from ase_hybridham.model.config import Stage2Config
from ase_hybridham.model.convolution import GaussianBasis, smooth_envelope
from ase_hybridham.model.graph import PairGraph
from ase_hybridham.model.vocabulary import Vocabulary

__all__ = ["DensityInvariants", "GraphTransformer", "TupleInvariants"]

# exp of this is what a pair at the cutoff weighs in the softmax of its atom
NEGLIGIBLE = 1e-12
DENSITY_CHANNELS, DENSITY_LMAX = 8, 4
ANGLE_COPIES = 8


def _mlp(n_in: int, n_hidden: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, n_hidden), nn.SiLU(), nn.Linear(n_hidden, n_out))


class DensityInvariants(nn.Module):
    """Invariants of an atom's surroundings, smooth and independent of the order of neighbors.

    A_lm = sum_j g(d_ij, z_j) Y_lm, and all products sum_m A_lm A'_lm: by the addition theorem a sum over all
    pairs of neighbors with their angle, at the cost of one sum over neighbors.
    """

    pair_reach: Tensor

    def __init__(self, config: Stage2Config, vocabulary: Vocabulary, reach: float, lmax: int, n_neighbors: float):
        super().__init__()
        self.lmax, self.scale = min(lmax, DENSITY_LMAX), n_neighbors**-0.5
        self.register_buffer("pair_reach", vocabulary.pair_reach(reach), persistent=False)
        self.gaussians = GaussianBasis(config.n_gaussians, reach)
        self.radial = nn.Linear(config.n_gaussians, DENSITY_CHANNELS)
        self.species = nn.Embedding(vocabulary.n_species, DENSITY_CHANNELS)
        self.out = _mlp(DENSITY_CHANNELS**2 * (self.lmax + 1), 2 * config.width, config.width)

    def forward(self, graph: PairGraph) -> Tensor:
        """(N, width)."""
        i, j = graph.edge_index
        weight = self.radial(self.gaussians(graph.distance)) * self.species(graph.species)[j]
        envelope = smooth_envelope(graph.distance, self.pair_reach[graph.element_pair])
        weight = weight * (envelope[:, None] * self.scale)
        products = []
        for l in range(self.lmax + 1):
            # the middle row of the alignment is Y_l / sqrt(2l+1)
            harmonics = graph[f"align_{l}"][:, l] * (2 * l + 1) ** 0.5 if l else weight.new_ones(len(weight), 1)
            density = scatter(weight[:, :, None] * harmonics[:, None, :], i, dim=0, dim_size=graph.num_nodes)
            products.append(torch.bmm(density, density.transpose(1, 2)).flatten(1) / (2 * l + 1))
        return self.out(torch.cat(products, dim=1))


class TupleInvariants(nn.Module):
    """The paper's Eq. 2: neighbors taken two by two in order of distance, each tuple with its angle.

    Neither smooth nor unique where distances are equal; kept as the literal reading.
    """

    def __init__(self, config: Stage2Config, vocabulary: Vocabulary, reach: float, lmax: int, n_neighbors: float):
        super().__init__()
        self.gaussians = GaussianBasis(config.n_gaussians, reach)
        self.species = nn.Embedding(vocabulary.n_species, config.width)
        self.scale = n_neighbors**-0.5
        n_in = 2 * (config.width + config.n_gaussians) + ANGLE_COPIES
        self.out = _mlp(n_in, 2 * config.width, config.width)

    def forward(self, graph: PairGraph) -> Tensor:
        """(N, width)."""
        i, j = graph.edge_index
        by_distance = torch.argsort(graph.distance, stable=True)
        order = by_distance[torch.argsort(i[by_distance], stable=True)]
        degree = torch.bincount(i, minlength=graph.num_nodes)
        first = torch.cumsum(degree, 0) - degree
        rank = torch.arange(len(order), device=order.device) - first[i]  # i is sorted, as `order` is by i
        starts = torch.nonzero((rank % 2 == 0) & (rank + 1 < degree[i])).ravel()
        a, b = order[starts], order[starts + 1]
        # l = 1 harmonics are sqrt(3) (y, z, x)
        unit = graph["align_1"][:, 1]
        angle = (unit[a] * unit[b]).sum(1, keepdim=True).expand(-1, ANGLE_COPIES)
        neighbor = torch.cat([self.species(graph.species)[j], self.gaussians(graph.distance)], dim=1)
        tuples = self.out(torch.cat([neighbor[a], neighbor[b], angle], dim=1))
        return scatter(tuples, i[a], dim=0, dim_size=graph.num_nodes) * self.scale


class _Block(nn.Module):
    """Attention over the pairs of an atom (Eq. 3-4) and update of the pairs (Eq. 5).

    Linear maps of joined features act on their parts, on atoms once per atom.
    """

    def __init__(self, config: Stage2Config) -> None:
        super().__init__()
        d = config.width
        self.n_heads, self.fused = config.n_heads, config.residual == "fused"
        self.query = nn.Linear(d, d, bias=False)
        self.key_value_node = nn.Linear(d, 2 * d, bias=False)
        self.key_value_edge = nn.Linear(d, 2 * d, bias=False)
        self.out = nn.Linear(d, d)
        self.node_norm, self.node_mlp = nn.LayerNorm(d), _mlp(d, 2 * d, d)
        self.edge_i, self.edge_j = nn.Linear(d, 2 * d, bias=False), nn.Linear(d, 2 * d, bias=False)
        self.edge_own, self.edge_out = nn.Linear(d, 2 * d), nn.Linear(2 * d, d)
        self.edge_norm = nn.LayerNorm(d)

    def forward(self, node: Tensor, edge: Tensor, i: Tensor, j: Tensor, log_envelope: Tensor) -> tuple[Tensor, Tensor]:
        heads = (len(i), self.n_heads, -1)
        key, value = (self.key_value_node(node)[j] + self.key_value_edge(edge)).chunk(2, dim=1)
        query = self.query(node)[i]
        score = (query * key).view(*heads).sum(2) * (node.shape[1] // self.n_heads) ** -0.5
        attention = softmax(score + log_envelope[:, None], i, num_nodes=len(node))
        mixed = scatter((value.view(*heads) * attention[:, :, None]).flatten(1), i, dim=0, dim_size=len(node))
        middle = self.node_norm(self.out(mixed) + node)
        node = middle + self.node_mlp(middle) if self.fused else self.node_mlp(middle)
        hidden = self.edge_i(node)[i] + self.edge_j(node)[j] + self.edge_own(edge)
        change = self.edge_out(nn.functional.silu(hidden))
        return node, self.edge_norm(edge + change) if self.fused else change


class GraphTransformer(nn.Module):
    """P groups of W blocks; features of stage 1 and invariants enter at the start of every group (Eq. 1).

    Parameters
    ----------
    config : Stage2Config
    vocabulary : Vocabulary
    node_inputs, edge_inputs, onsite_inputs : lists over groups of int
        Numbers that a frame gives for every atom, hopping and on-site pair.
    reach, n_neighbors : float
        As in `Stage1`.
    lmax : int
        Of the alignment matrices in the graph.
    """

    pair_reach: Tensor

    def __init__(
        self,
        config: Stage2Config,
        vocabulary: Vocabulary,
        node_inputs: list[int],
        edge_inputs: list[int],
        onsite_inputs: list[int],
        reach: float,
        n_neighbors: float,
        lmax: int,
    ) -> None:
        super().__init__()
        d = config.width
        self.config = config
        self.register_buffer("pair_reach", vocabulary.pair_reach(reach), persistent=False)
        self.node_embedding = nn.Embedding(vocabulary.n_species, d)
        self.onsite_embedding = nn.Embedding(vocabulary.n_species, d)
        self.pair_embedding = nn.Embedding(vocabulary.n_pairs, d)
        self.gaussians = GaussianBasis(config.n_gaussians, reach)
        self.distance = nn.Linear(config.n_gaussians, d)
        make = DensityInvariants if config.invariants == "density" else TupleInvariants
        self.invariants = make(config, vocabulary, reach, lmax, n_neighbors)
        self.node_maps = nn.ModuleList(nn.Linear(n, d, bias=False) for n in node_inputs)
        self.edge_maps = nn.ModuleList(nn.Linear(n, d, bias=False) for n in edge_inputs)
        self.onsite_maps = nn.ModuleList(nn.Linear(n, d, bias=False) for n in onsite_inputs)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.n_groups * config.n_blocks))

    def forward(
        self, graph: PairGraph, nodes: list[Tensor], edges: list[Tensor], onsites: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Rows of the on-site pairs (N, width) and of the hoppings (E, width).

        Parameters
        ----------
        nodes, edges, onsites : lists over groups of tensors
            What the frame gives for atoms, hoppings and on-site pairs.
        """
        c = self.config
        atoms = torch.arange(graph.num_nodes, device=graph.species.device)
        i, j = torch.cat([graph.edge_index[0], atoms]), torch.cat([graph.edge_index[1], atoms])
        envelope = smooth_envelope(graph.distance, self.pair_reach[graph.element_pair])
        envelope = torch.log(envelope.clamp(min=NEGLIGIBLE))
        log_envelope = torch.cat([envelope, envelope.new_zeros(len(atoms))])
        invariants = self.invariants(graph)
        node = self.node_embedding(graph.species)
        hopping = self.distance(self.gaussians(graph.distance)) + self.pair_embedding(graph.element_pair)
        edge = torch.cat([hopping, self.onsite_embedding(graph.species)])
        for p in range(c.n_groups):
            node = node + c.alpha * self.node_maps[p](nodes[p]) + c.beta * invariants
            edge = edge + c.lambda_ * torch.cat([self.edge_maps[p](edges[p]), self.onsite_maps[p](onsites[p])])
            for block in self.blocks[p * c.n_blocks : (p + 1) * c.n_blocks]:
                node, edge = block(node, edge, i, j, log_envelope)
        hopping, onsite = edge.split([len(envelope), len(atoms)])
        return onsite, hopping
