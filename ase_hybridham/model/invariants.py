"""Eq. 2 of stage 2: invariants of the surroundings of an atom."""

import torch
from torch import Tensor, nn

from ase_hybridham.model.config import Stage2Config
from ase_hybridham.model.convolution import GaussianBasis, smooth_envelope
from ase_hybridham.model.graph import PairGraph
from ase_hybridham.model.vocabulary import Vocabulary

__all__ = ["DensityInvariants", "Statistics", "TupleInvariants", "mlp", "sums_of"]

# of all columns of rows together, which else say nothing and are left as they are; and of one column, against them:
# what hardly varies in training may elsewhere
LEAST_RMS, LEAST_DEVIATION = 1e-4, 0.1
DENSITY_CHANNELS, DENSITY_LMAX = 8, 4
ANGLE_COPIES = 8


def mlp(n_in: int, n_hidden: int, n_out: int) -> nn.Sequential:
    """Two linear maps with a SiLU in between."""
    return nn.Sequential(nn.Linear(n_in, n_hidden), nn.SiLU(), nn.Linear(n_hidden, n_out))


class Statistics(nn.Module):
    """Means and deviations of the columns of rows over a training set.

    Most of what surroundings say is the same in all structures like those of the training set; what differs is little,
    and would be learned late if it were not blown up to order 1.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n, dtype=torch.float64))
        self.register_buffer("deviation", torch.ones(n, dtype=torch.float64))

    @torch.no_grad()
    def fit(self, sums: Tensor, *, by_column: bool = True) -> None:
        """Set them from `sums_of` the training set; or no mean, and one deviation for all columns."""
        count, total, squares = sums
        mean, square = total / count, squares / count
        rms = square.mean().sqrt()
        if not rms > LEAST_RMS:  # nor for no rows at all
            return
        if by_column:
            self.mean.copy_(mean)
            self.deviation.copy_((square - mean.square()).clamp(min=0).sqrt().clamp(min=LEAST_DEVIATION * rms))
        else:
            self.deviation.fill_(rms)

    def forward(self, rows: Tensor) -> Tensor:
        """Rows (n_rows, n) less the mean, over the deviation."""
        return (rows - self.mean) / self.deviation


def sums_of(rows: Tensor) -> Tensor:
    """Of every column: count, sum, sum of squares; shape (3, n), double."""
    rows = rows.double()
    return torch.stack([rows.new_full(rows.shape[1:], len(rows)), rows.sum(0), rows.square().sum(0)])


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
        n_products = DENSITY_CHANNELS**2 * (self.lmax + 1)
        self.statistics = Statistics(n_products)
        self.out = mlp(n_products, 2 * config.width, config.width)

    def forward(self, graph: PairGraph) -> Tensor:
        """(N, width)."""
        return self.out(self.statistics(self.products(graph)))

    def products(self, graph: PairGraph) -> Tensor:
        """All products of channels and degrees, (N, n)."""
        i, j = graph.edge_index
        weight = self.radial(self.gaussians(graph.distance)) * self.species(graph.species).index_select(0, j)
        envelope = smooth_envelope(graph.distance, self.pair_reach[graph.element_pair])
        weight = weight * (envelope[:, None] * self.scale)
        products = []
        for l in range(self.lmax + 1):
            # the middle row of the alignment is Y_l / sqrt(2l+1)
            harmonics = graph[f"align_{l}"][:, l] * (2 * l + 1) ** 0.5 if l else weight.new_ones(len(weight), 1)
            terms = (weight[:, :, None] * harmonics[:, None, :]).flatten(1)
            density = terms.new_zeros(graph.num_nodes, terms.shape[1]).index_add(0, i, terms)
            density = density.view(graph.num_nodes, DENSITY_CHANNELS, 2 * l + 1)
            products.append(torch.bmm(density, density.transpose(1, 2)).flatten(1) / (2 * l + 1))
        return torch.cat(products, dim=1)


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
        self.out = mlp(n_in, 2 * config.width, config.width)

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
        neighbor = torch.cat([self.species(graph.species).index_select(0, j), self.gaussians(graph.distance)], dim=1)
        tuples = self.out(torch.cat([neighbor[a], neighbor[b], angle], dim=1))
        return tuples.new_zeros(graph.num_nodes, tuples.shape[1]).index_add(0, i[a], tuples) * self.scale
