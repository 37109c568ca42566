"""Stage 1: the equivariant network (the function of DeepH-E3, Gong et al. 2023, doi:10.1038/s41467-023-38468-8).

Edge features stay in the frame of their edge from the first to the last layer; node features turn
in and out. On-site pairs live in the lab frame. Outputs are direct-sum components in the frame of the
edge, in units of the target's scale, and obey hermiticity and the selection rule by construction (but for
`readout: free`, which is for networks of other programs).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ase_hybridham.model.config import Stage1Config
from ase_hybridham.model.convolution import Convolution, GaussianBasis, smooth_envelope
from ase_hybridham.model.edgeframes import Chunk, EdgeFrames
from ase_hybridham.model.graph import PairGraph
from ase_hybridham.model.layout import FeatureLayout
from ase_hybridham.model.linear import DegreeLinear, OrderLinear, RowTypes, Typed, row_types
from ase_hybridham.model.norm import GraphNorm, LocalNorm
from ase_hybridham.model.readout import Readout
from ase_hybridham.model.vocabulary import Vocabulary

__all__ = ["Stage1", "Stage1Output"]

# without derivatives, edges pass in groups whose temporaries stay in the processor's cache
PREDICTION_EDGES = 3072


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


@dataclass
class _Geometry:
    """What every layer needs of the graph.

    Attributes
    ----------
    frames : EdgeFrames
    chunks : list of Chunk
        Ranges of atoms with their edges, evaluated one after the other.
    recompute : bool
        Whether chunks are evaluated again for the derivative instead of being remembered.
    radial : Tensor, shape (n_half, n_gaussians)
        Expanded distances of undirected pairs.
    envelope : Tensor, shape (n_half, 1)
    index : list over chunks of LongTensors, shape (2, .)
        i and j of every edge.
    half : list over chunks of LongTensors
        Undirected pair of every edge.
    species : RowTypes
    types : list over chunks of (RowTypes, RowTypes, RowTypes)
        Of edges: by the pair of elements, by element i, by element j.
    graph : LongTensor, shape (N,)
        Structure of every atom in a batch.
    n_graphs : int
    """

    frames: EdgeFrames
    chunks: list[Chunk]
    recompute: bool
    radial: Tensor
    envelope: Tensor
    index: list[Tensor]
    half: list[Tensor]
    species: RowTypes
    types: list[tuple[RowTypes, RowTypes, RowTypes]]
    graph: Tensor
    n_graphs: int

    def run(
        self, one: Callable[..., Tensor], *rows: Tensor, per_atom: bool = False, room: Tensor | None = None
    ) -> Tensor:
        """``one(number of the chunk, its rows)`` of every chunk, put together: a row per edge, or per atom.

        The result is written over `room`, which may be one of the rows, if it fits and no derivative is wanted.
        """
        if len(self.chunks) == 1 and not self.recompute:
            return one(0, *rows)
        sizes = [chunk.edges.stop - chunk.edges.start for chunk in self.chunks]
        parts = enumerate(zip(*(r.split(sizes) for r in rows), strict=True))
        if self.recompute:
            again = partial(checkpoint, one, use_reentrant=False, preserve_rng_state=False)
            return torch.cat([again(number, *part) for number, part in parts])
        out: Tensor | None = None
        for number, part in parts:
            result, chunk = one(number, *part), self.chunks[number]
            if out is None and room is not None and room.shape[1] == result.shape[1]:
                out = room
            if out is None:
                out = result.new_empty(len(self.graph) if per_atom else sum(sizes), result.shape[1])
            out[chunk.nodes if per_atom else chunk.edges] = result
        assert out is not None
        return out

    def turned(self, node: Tensor, layout: FeatureLayout, before: "_Turned") -> "_Turned":
        """Features of atoms in the frames of their edges, written over those of the block before if possible."""
        rows = self.frames.into(node[:, layout.multiplicities[0] :], layout.turning, room=before.rows)
        whole = len(self.chunks) == 1 or torch.is_grad_enabled()
        return _Turned(rows, (self.frames.reversed(rows),) if whole else ())

    def reverse(self, rows: Tensor, number: int) -> Tensor:
        """Rows of the reverse edges of a chunk."""
        return rows.index_select(0, self.chunks[number].frames.reverse)


@dataclass
class _Turned:
    """Features l > 0 of atom i of every edge, and of atom j: those of the reverse edge.

    Where edges pass in chunks, a chunk takes the latter when its turn comes, and `partner` is empty.
    """

    rows: Tensor
    partner: tuple[Tensor, ...]


class _Messages(nn.Module):
    """What node and edge updates share: the convolution with its radial weights."""

    def __init__(
        self, node: FeatureLayout, edge: FeatureLayout, out: FeatureLayout, c: Stage1Config, *, shortened: bool
    ) -> None:
        super().__init__()
        self.out = out
        self.convolution = Convolution(node, edge, out, c.n_gaussians, c.radial_width, c.gates, shortened=shortened)

    def hoppings(self, node: Tensor, turned: _Turned, weight: Tensor, geometry: _Geometry) -> Callable[..., Tensor]:
        """Messages of the hoppings of a chunk, as a function of its number and rows."""
        invariants = self.convolution.invariants(node)

        def of_chunk(number: int, node_i: Tensor, pair: Tensor, node_j: Tensor | None = None) -> Tensor:
            of_j = geometry.reverse(turned.rows, number) if node_j is None else node_j
            ends, half = geometry.index[number], geometry.half[number]
            return self.convolution.hoppings(node_i, of_j, pair, invariants, ends, weight, half)

        return of_chunk


class _NodeUpdate(_Messages):
    """Messages from all pairs of an atom, linear map, self connection, norm, skip."""

    def __init__(
        self, node: FeatureLayout, edge: FeatureLayout, out: FeatureLayout, vocabulary: Vocabulary, c: Stage1Config
    ) -> None:
        super().__init__(node, edge, out, c, shortened=True)
        muls, n_species = out.multiplicities, vocabulary.n_species
        self.post = DegreeLinear([out], muls)
        self.own = Typed([DegreeLinear([node], muls, bias=False) for _ in range(n_species)])
        self.skip = None if node == out else DegreeLinear([node], muls, bias=False)
        self.norm = LocalNorm(out, out.lab) if c.norm == "local" else GraphNorm(out)

    def forward(self, node: Tensor, turned: _Turned, edge: Tensor, onsite: Tensor, geometry: _Geometry) -> Tensor:
        hoppings = self.hoppings(node, turned, self.convolution.weights(geometry.radial) * geometry.envelope, geometry)

        def message(number: int, *rows: Tensor) -> Tensor:
            return geometry.chunks[number].frames.sum_out(hoppings(number, *rows), self.out)

        summed = geometry.run(message, turned.rows, edge, *turned.partner, per_atom=True)
        update, skip = self.update(summed, node, onsite, geometry.species)
        if isinstance(self.norm, GraphNorm):
            return self.norm.nodes(update, skip, geometry.graph, geometry.n_graphs)
        return self.norm(update, skip)

    def update(self, summed: Tensor, node: Tensor, onsite: Tensor, species: RowTypes) -> tuple[Tensor, Tensor]:
        """What messages from hoppings, summed, make of atoms, and what is added after the norm; (N, size) each."""
        summed = summed + self.convolution.onsites(node, onsite)
        skip = node if self.skip is None else self.skip([node])
        return self.post([summed]) + self.own([node], species), skip


class _EdgeUpdate(_Messages):
    """The same for pairs: their own convolution in place of the sum."""

    def __init__(
        self, node: FeatureLayout, edge: FeatureLayout, out: FeatureLayout, vocabulary: Vocabulary, c: Stage1Config
    ) -> None:
        super().__init__(node, edge, out, c, shortened=False)
        counts, muls = out.counts, out.multiplicities
        n_species, n_pairs = vocabulary.n_species, vocabulary.n_pairs
        self.joined = n_species == 1  # one map of both rows
        self.post = OrderLinear([out, edge] if self.joined else [out], counts)
        # a map for every pair of elements, or the sum of a map for element i and one for element j
        numbers = (n_pairs, 0, 0) if c.pair_maps == "separate" else (0, n_species, n_species)
        numbers = (0, 0, 0) if self.joined else numbers
        own = [Typed([OrderLinear([edge], counts, bias=False) for _ in range(n)]) for n in numbers]
        self.own, self.own_i, self.own_j = own
        self.onsite_post = DegreeLinear([out], muls)
        self.onsite_own = Typed([DegreeLinear([edge], muls, bias=False) for _ in range(vocabulary.n_species)])
        same = edge == out
        self.skip = None if same else OrderLinear([edge], counts, bias=False)
        self.onsite_skip = None if same else DegreeLinear([edge], muls, bias=False)
        self.norm: LocalNorm | GraphNorm
        if c.norm == "local":
            self.norm, self.onsite_norm = LocalNorm(out, out.edge), LocalNorm(out, out.lab)
        else:
            self.norm = GraphNorm(out)

    def forward(
        self, node: Tensor, turned: _Turned, edge: Tensor, onsite: Tensor, geometry: _Geometry, *, keep: bool
    ) -> tuple[Tensor, Tensor]:
        hoppings = self.hoppings(node, turned, self.convolution.weights(geometry.radial), geometry)

        def update(number: int, node_i: Tensor, pair: Tensor, *node_j: Tensor) -> Tensor:
            return self.hopping(hoppings(number, node_i, pair, *node_j), pair, geometry.types[number])

        reusable = not keep and isinstance(self.norm, LocalNorm)
        rows = geometry.run(update, turned.rows, edge, *turned.partner, room=edge if reusable else None)
        onsite_rows, onsite_skip = self.onsite(node, onsite, geometry.species)
        if isinstance(self.norm, LocalNorm):
            return rows, self.onsite_norm(onsite_rows, onsite_skip)
        skip = edge if self.skip is None else self.skip([edge])
        return self.norm.pairs(
            (rows, skip), (onsite_rows, onsite_skip), geometry.frames, geometry.graph, geometry.n_graphs
        )

    def hopping(self, message: Tensor, pair: Tensor, types: tuple[RowTypes, RowTypes, RowTypes]) -> Tensor:
        """What messages make of hoppings, (E, size); a norm over the whole graph is left to do."""
        rows = self.post([message, pair] if self.joined else [message])
        for own, of_type in zip((self.own, self.own_i, self.own_j), types, strict=True):
            if len(own.maps):
                rows = rows + own([pair], of_type)
        if isinstance(self.norm, GraphNorm):
            return rows
        return self.norm(rows, pair if self.skip is None else self.skip([pair]))

    def onsite(self, node: Tensor, onsite: Tensor, species: RowTypes) -> tuple[Tensor, Tensor]:
        """The same of on-site pairs before the norm, and what is added after it; (N, size) each."""
        rows = self.onsite_post([self.convolution.onsites(node, onsite)]) + self.onsite_own([onsite], species)
        return rows, onsite if self.onsite_skip is None else self.onsite_skip([onsite])


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

    Attributes
    ----------
    edges_per_chunk : int or None
        With derivatives: edges evaluated at a time, and again for the derivative, which saves memory.
    """

    pair_reach: Tensor

    def __init__(self, config: Stage1Config, vocabulary: Vocabulary, reach: float, n_neighbors: float) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        self.edges_per_chunk: int | None = None
        self.message_scale = n_neighbors**-0.5 if config.envelope else 1.0
        self.layout = config.layout
        self.layouts = config.layouts
        lmax = max(layout.lmax for layout in self.layouts[-1])
        if vocabulary.lmax > lmax and config.readout == "hermitian":
            raise ValueError(
                f"stage1.irreps: expected l up to {vocabulary.lmax} for the orbitals of this basis, got {config.irreps}"
            )
        n_scalars = config.n_embedding or self.layout.n_scalars
        scalars = FeatureLayout((n_scalars,))
        self.node_embedding = nn.Embedding(vocabulary.n_species, n_scalars)
        self.onsite_embedding = nn.Embedding(vocabulary.n_species, n_scalars)
        self.edge_embedding = GaussianBasis(n_scalars, config.edge_reach or reach)
        self.gaussians = GaussianBasis(config.n_gaussians, reach)
        self.register_buffer("pair_reach", vocabulary.pair_reach(reach), persistent=False)
        self.node_updates, self.edge_updates = nn.ModuleList(), nn.ModuleList()
        node = edge = scalars
        for new_node, new_edge in self.layouts:
            self.node_updates.append(_NodeUpdate(node, edge, new_node, vocabulary, config))
            self.edge_updates.append(_EdgeUpdate(new_node, edge, new_edge, vocabulary, config))
            node, edge = new_node, new_edge
        onsite = [vocabulary.targets[vocabulary.onsite_pair(s)] for s in range(vocabulary.n_species)]
        self.readout = Readout(
            vocabulary,
            [DegreeLinear([edge], t.onsite_multiplicities, scale=0.3) for t in onsite],
            [OrderLinear([edge], t.counts, scale=0.3) for t in vocabulary.targets],
            hermitian=config.readout == "hermitian",
        )

    @property
    def lmax(self) -> int:
        """Largest degree of the features that turn."""
        return max(layout.lmax for pair in self.layouts for layout in pair)

    @property
    def blocks(self) -> list[tuple[FeatureLayout, _NodeUpdate, _EdgeUpdate]]:
        """Features of atoms after every block, and the updates of atoms and of pairs."""
        layouts = (node for node, _ in self.layouts)
        updates = zip(layouts, self.node_updates, self.edge_updates, strict=True)
        return [(layout, cast(_NodeUpdate, node), cast(_EdgeUpdate, edge)) for layout, node, edge in updates]

    def forward(self, graph: PairGraph, *, features: bool = True) -> Stage1Output:
        """Features and scaled outputs of a graph.

        Parameters
        ----------
        graph : PairGraph
        features : bool
            Whether those of hoppings are kept after every block, for stage 2.
        """
        geometry = self._geometry(graph)
        node = self.node_embedding(graph.species)
        onsite = self.onsite_embedding(graph.species)
        edge = self.edge_embedding(graph.distance)
        turned = _Turned(edge[:, :0], (edge[:, :0],))  # there are only scalars
        nodes, edges, onsites = [], [], []
        for layout, update_node, update_edge in self.blocks:
            node = update_node(node, turned, edge, onsite, geometry)
            turned = geometry.turned(node, layout, turned)
            edge, onsite = update_edge(node, turned, edge, onsite, geometry, keep=features)
            nodes.append(node)
            edges += [edge] if features else []
            onsites.append(onsite)
        return Stage1Output(nodes, edges, onsites, *self._read_out(onsite, edge, geometry))

    def _read_out(self, onsite: Tensor, edge: Tensor, geometry: _Geometry) -> tuple[Tensor, Tensor]:
        readout, types = self.readout, [by_pair for by_pair, _, _ in geometry.types]
        node_out = readout.place("node", [onsite], geometry.species)
        edge_out = geometry.run(lambda number, rows: readout.place("edge", [rows], types[number]), edge)
        whole = geometry.frames.reversed(edge_out) if len(geometry.chunks) == 1 else None

        def symmetrized(number: int, rows: Tensor) -> Tensor:
            reverse = geometry.reverse(edge_out, number) if whole is None else whole
            return readout.symmetrized("edge", rows, reverse, types[number])

        node_out = readout.symmetrized("node", node_out, node_out, geometry.species)
        return node_out, geometry.run(symmetrized, edge_out) if readout.hermitian else edge_out

    def types(self, graph: PairGraph, edges: slice) -> tuple[RowTypes, RowTypes, RowTypes]:
        """Hoppings by the pair of elements, by element i, by element j."""
        n = self.vocabulary.n_species
        of_i, of_j = graph.species[graph.edge_index[:, edges]]
        return row_types(graph.element_pair[edges], n**2), row_types(of_i, n), row_types(of_j, n)

    def _geometry(self, graph: PairGraph) -> _Geometry:
        number = torch.arange(len(graph.reverse), device=graph.reverse.device)
        undirected, half = torch.unique(torch.minimum(number, graph.reverse), return_inverse=True)
        frames = graph.frames(self.lmax)
        recompute = torch.is_grad_enabled() and self.edges_per_chunk is not None
        if torch.is_grad_enabled():
            n_edges = self.edges_per_chunk or len(number)
        else:
            n_edges = PREDICTION_EDGES if graph.distance.device.type == "cpu" else len(number)
        chunks = frames.chunks(max(n_edges, 1))
        distance = graph.distance[undirected]
        if self.config.envelope:
            envelope = smooth_envelope(distance, self.pair_reach[graph.element_pair[undirected]])[:, None]
        else:
            envelope = torch.ones_like(distance)[:, None]
        graph_of = getattr(graph, "batch", None)
        return _Geometry(
            frames=frames,
            chunks=chunks,
            recompute=recompute,
            radial=self.gaussians(distance),
            envelope=envelope * self.message_scale,
            index=[graph.edge_index[:, chunk.edges] for chunk in chunks],
            half=[half[chunk.edges] for chunk in chunks],
            species=row_types(graph.species, self.vocabulary.n_species),
            types=[self.types(graph, chunk.edges) for chunk in chunks],
            graph=torch.zeros_like(graph.species) if graph_of is None else graph_of,
            n_graphs=1 if graph_of is None else graph.num_graphs,
        )
