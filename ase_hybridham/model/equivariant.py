"""Stage 1: the equivariant network (the function of DeepH-E3, Gong et al. 2023, doi:10.1038/s41467-023-38468-8).

Edge features stay in the frame of their edge from the first to the last layer; node features turn
in and out. On-site pairs live in the lab frame. Outputs are direct-sum components in the frame of the
edge, in units of the target's scale, and obey hermiticity and the selection rule by construction.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ase_hybridham.model.config import Stage1Config
from ase_hybridham.model.convolution import Convolution, GaussianBasis, LocalNorm, smooth_envelope
from ase_hybridham.model.edgeframes import EdgeFrames
from ase_hybridham.model.graph import PairGraph
from ase_hybridham.model.layout import FeatureLayout
from ase_hybridham.model.linear import DegreeLinear, OrderLinear, RowTypes, Typed, row_types
from ase_hybridham.model.readout import HermitianReadout
from ase_hybridham.model.vocabulary import Vocabulary

__all__ = ["Stage1", "Stage1Output"]


@dataclass
class Stage1Output:
    """What stage 2 and the loss take from stage 1.

    Attributes
    ----------
    nodes, onsite : lists over blocks of tensors, shape (N, size)
        Features of atoms and of on-site pairs after every block, lab frame.
    edges : list over blocks of tensors, shape (E, size)
        Features of hoppings in the frame of the edge.
    node_out, edge_out : tensors, shape (N, .) and (E, .)
        Scaled direct-sum components.
    """

    nodes: list[Tensor]
    edges: list[Tensor]
    onsite: list[Tensor]
    node_out: Tensor
    edge_out: Tensor


class _NodeUpdate(nn.Module):
    """Messages from all pairs of an atom, linear map, self connection, norm, skip."""

    def __init__(
        self, node: FeatureLayout, edge: FeatureLayout, out: FeatureLayout, n_species: int, c: Stage1Config
    ) -> None:
        super().__init__()
        self.layout, self.out = node, out
        self.convolution = Convolution(node, edge, out, c.n_gaussians, c.radial_width)
        self.post = DegreeLinear([out], out.multiplicities)
        self.own = Typed([DegreeLinear([node], out.multiplicities, bias=False) for _ in range(n_species)])
        self.skip = None if node == out else DegreeLinear([node], out.multiplicities, bias=False)
        self.norm = LocalNorm(out, out.lab)

    def forward(
        self, node: Tensor, turned: tuple[Tensor, Tensor], edge: Tensor, onsite: Tensor, geometry: "_Geometry"
    ) -> Tensor:
        hopping, own = self.convolution(*turned, edge, node, onsite, geometry.radial, geometry.half)
        summed = geometry.frames.sum_out(hopping * geometry.envelope, self.out) + own
        update = self.norm(self.post([summed]) + self.own([node], geometry.species))
        return update + (node if self.skip is None else self.skip([node]))


class _EdgeUpdate(nn.Module):
    """The same for pairs: their own convolution in place of the sum."""

    def __init__(
        self, node: FeatureLayout, edge: FeatureLayout, out: FeatureLayout, vocabulary: Vocabulary, c: Stage1Config
    ):
        super().__init__()
        self.convolution = Convolution(node, edge, out, c.n_gaussians, c.radial_width)
        counts, muls = out.counts, out.multiplicities
        self.post, self.onsite_post = OrderLinear([out], counts), DegreeLinear([out], muls)
        self.own = Typed([OrderLinear([edge], counts, bias=False) for _ in range(vocabulary.n_pairs)])
        self.onsite_own = Typed([DegreeLinear([edge], muls, bias=False) for _ in range(vocabulary.n_species)])
        same = edge == out
        self.skip = None if same else OrderLinear([edge], counts, bias=False)
        self.onsite_skip = None if same else DegreeLinear([edge], muls, bias=False)
        self.norm, self.onsite_norm = LocalNorm(out, out.edge), LocalNorm(out, out.lab)

    def forward(
        self, node: Tensor, turned: tuple[Tensor, Tensor], edge: Tensor, onsite: Tensor, geometry: "_Geometry"
    ) -> tuple[Tensor, Tensor]:
        hopping, own = self.convolution(*turned, edge, node, onsite, geometry.radial, geometry.half)
        update = self.norm(self.post([hopping]) + self.own([edge], geometry.element_pairs))
        onsite_update = self.onsite_norm(self.onsite_post([own]) + self.onsite_own([onsite], geometry.species))
        new_edge = update + (edge if self.skip is None else self.skip([edge]))
        new_onsite = onsite_update + (onsite if self.onsite_skip is None else self.onsite_skip([onsite]))
        return new_edge, new_onsite


@dataclass
class _Geometry:
    """What every layer needs of the graph."""

    frames: EdgeFrames
    radial: Tensor
    half: Tensor
    envelope: Tensor
    species: RowTypes
    element_pairs: RowTypes


class Stage1(nn.Module):
    """The equivariant network.

    Parameters
    ----------
    config : Stage1Config
    vocabulary : Vocabulary
        Elements and direct sums.
    reach : float
        Longest pair in angstrom: where radial functions end. Messages vanish where the pairs of two elements end.
    n_neighbors : float
        Average number of pairs of an atom, by whose root sums of messages are divided.
    """

    pair_reach: Tensor

    def __init__(self, config: Stage1Config, vocabulary: Vocabulary, reach: float, n_neighbors: float) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        self.message_scale = n_neighbors**-0.5
        self.layout = FeatureLayout(config.multiplicities)
        if vocabulary.lmax > self.layout.lmax:
            raise ValueError(
                f"stage1.irreps: expected l up to {vocabulary.lmax} for the orbitals of this basis, got {config.irreps}"
            )
        scalars = FeatureLayout(self.layout.multiplicities[:1])
        n_scalars = scalars.n_channels
        self.node_embedding = nn.Embedding(vocabulary.n_species, n_scalars)
        self.onsite_embedding = nn.Embedding(vocabulary.n_species, n_scalars)
        self.edge_embedding = GaussianBasis(n_scalars, reach)
        self.gaussians = GaussianBasis(config.n_gaussians, reach)
        self.register_buffer("pair_reach", vocabulary.pair_reach(reach), persistent=False)
        self.node_updates, self.edge_updates = nn.ModuleList(), nn.ModuleList()
        for block in range(config.n_blocks):
            before = self.layout if block else scalars
            self.node_updates.append(_NodeUpdate(before, before, self.layout, vocabulary.n_species, config))
            self.edge_updates.append(_EdgeUpdate(self.layout, before, self.layout, vocabulary, config))
        edge_maps = [OrderLinear([self.layout], t.counts, scale=0.3) for t in vocabulary.targets]
        node_maps = [
            DegreeLinear([self.layout], vocabulary.targets[vocabulary.onsite_pair(s)].natural_multiplicities, scale=0.3)
            for s in range(vocabulary.n_species)
        ]
        self.readout = HermitianReadout(vocabulary, node_maps, edge_maps)

    def forward(self, graph: PairGraph) -> Stage1Output:
        """Features and scaled outputs of a graph."""
        geometry = self._geometry(graph)
        node = self.node_embedding(graph.species)
        onsite = self.onsite_embedding(graph.species)
        edge = self.edge_embedding(graph.distance)
        turned = (node[graph.edge_index[0]], node[graph.edge_index[1]])  # scalars turn into themselves
        nodes, edges, onsites = [], [], []
        for update_node, update_edge in zip(self.node_updates, self.edge_updates, strict=True):
            node = update_node(node, turned, edge, onsite, geometry)
            into = geometry.frames.into(node, self.layout)
            turned = (into, geometry.frames.partner(into, self.layout))
            edge, onsite = update_edge(node, turned, edge, onsite, geometry)
            nodes.append(node)
            edges.append(edge)
            onsites.append(onsite)
        node_out, edge_out = self.readout([onsite], [edge], geometry.species, geometry.element_pairs, graph.reverse)
        return Stage1Output(nodes, edges, onsites, node_out, edge_out)

    def _geometry(self, graph: PairGraph) -> _Geometry:
        number = torch.arange(len(graph.reverse), device=graph.reverse.device)
        undirected, half = torch.unique(torch.minimum(number, graph.reverse), return_inverse=True)
        return _Geometry(
            frames=graph.frames(self.layout.lmax),
            radial=self.gaussians(graph.distance[undirected]),
            half=half,
            envelope=smooth_envelope(graph.distance, self.pair_reach[graph.element_pair])[:, None] * self.message_scale,
            species=row_types(graph.species, self.vocabulary.n_species),
            element_pairs=row_types(graph.element_pair, self.vocabulary.n_pairs),
        )
