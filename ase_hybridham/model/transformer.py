"""Stage 2's body: the graph Transformer of Yin et al., Eq. 1-5 (arXiv:2401.00744).

It sees numbers only, one row per atom and one per pair (on-site pairs included); what the numbers
mean and how a correction is read out is the business of a frame (`model.frames`).

A linear map of joined features acts on its parts, on atoms once per atom. Nor are keys and values of pairs
ever made: q.(W e) = (W^T q).e, and sum_j a_j (W e_j) = W (sum_j a_j e_j), so that what remains per pair are
products with a few rows of its atom, for all pairs of an atom at once.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import cast

import torch
from torch import Tensor, nn

from ase_hybridham.model.config import Stage2Config
from ase_hybridham.model.convolution import GaussianBasis, smooth_envelope
from ase_hybridham.model.edgeframes import Chunk
from ase_hybridham.model.graph import PairGraph
from ase_hybridham.model.invariants import DensityInvariants, Statistics, TupleInvariants, mlp, sums_of
from ase_hybridham.model.pairrows import PairRows, joined, run
from ase_hybridham.model.vocabulary import Vocabulary

__all__ = ["GraphTransformer", "GroupInputs", "InputMap", "Part"]

# exp of this is what a pair at the cutoff weighs in the softmax of its atom
NEGLIGIBLE = 1e-12

# columns of a joined row: the first one, and the rows
Part = tuple[int, Tensor]


@dataclass
class GroupInputs:
    """What a frame tells the Transformer at the start of a group, as parts of joined rows.

    Attributes
    ----------
    nodes, onsite : lists of Part
        Of all atoms and of all on-site pairs, (N, .).
    ends : pair of lists of Part
        What all atoms, (N, .), tell the hoppings of which they are atom i, and atom j.
    hoppings : callable
        Chunk -> what else its hoppings are told, and what their reverse hoppings are, (n_hoppings, .).
    """

    nodes: list[Part]
    onsite: list[Part]
    ends: tuple[list[Part], list[Part]]
    hoppings: Callable[[Chunk], tuple[list[Part], list[Part]]]

    def joined(self, graph: PairGraph, chunk: Chunk) -> tuple[Tensor, Tensor, Tensor]:
        """All that atoms, hoppings and on-site pairs are told, of a graph that is one chunk."""
        (own, reverse), (i, j) = self.hoppings(chunk), graph.edge_index
        parts = [(start, rows[graph.reverse]) for start, rows in reverse]
        parts += [(start, rows[of]) for of, end in zip((i, j), self.ends, strict=True) for start, rows in end]
        kinds = (self.nodes, own + parts, self.onsite)
        nodes, edges, onsite = (torch.cat([rows for _, rows in sorted(kind, key=itemgetter(0))], 1) for kind in kinds)
        return nodes, edges, onsite


class InputMap(nn.Linear):
    """Linear map of joined rows that are given in parts, after taking off their mean and scaling them."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out, bias=False)
        self.statistics = Statistics(n_in)

    def forward(self, parts: list[Part], *, less_mean: bool = True) -> Tensor:  # type: ignore[override]
        """(n_rows, n_out); if the parts of a row come in several calls, one of them takes off the mean."""
        weight = self.weight / self.statistics.deviation
        out = -weight @ self.statistics.mean if less_mean else weight.new_zeros(1)
        for start, rows in parts:
            out = torch.addmm(out, rows, weight[:, start : start + rows.shape[1]].t())
        return out


class _Block(nn.Module):
    """Attention over the pairs of an atom (Eq. 3-4) and update of the pairs (Eq. 5)."""

    def __init__(self, config: Stage2Config) -> None:
        super().__init__()
        d = config.width
        self.n_heads, self.fused = config.n_heads, config.residual == "fused"
        self.query = nn.Linear(d, d, bias=False)
        self.key_value_node = nn.Linear(d, 2 * d, bias=False)
        self.key_value_edge = nn.Linear(d, 2 * d, bias=False)
        self.out = nn.Linear(d, d)
        self.node_norm, self.node_mlp = nn.LayerNorm(d), mlp(d, 2 * d, d)
        self.edge_i, self.edge_j = nn.Linear(d, 2 * d, bias=False), nn.Linear(d, 2 * d, bias=False)
        self.edge_own, self.edge_out = nn.Linear(d, 2 * d), nn.Linear(2 * d, d)
        self.edge_norm = nn.LayerNorm(d) if self.fused else None

    def forward(
        self, ranges: list[PairRows], node: Tensor, edges: list[Tensor], biases: list[Tensor], *, again: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """Rows of atoms (N, width), and of the pairs of every range of atoms (n_rows, width)."""
        both = list(zip(ranges, edges, biases, strict=True))
        mixed = [run(self.attend, pairs, node, edge, bias, again=again) for pairs, edge, bias in both]
        node = self.nodes(node, joined(mixed))
        of_i, of_j = self.ends(node)
        return node, [run(self.update, pairs, of_i, of_j, edge, again=again) for pairs, edge, _ in both]

    def attend(self, pairs: PairRows, node: Tensor, edge: Tensor, bias: Tensor) -> Tensor:
        """Mean values of the pairs of every atom of a range (n_atoms, width).

        Parameters
        ----------
        pairs : PairRows
        node : Tensor, shape (N, width)
            Of all atoms.
        edge : Tensor, shape (n_rows, width)
        bias : Tensor, shape (n_atoms, 1, pairs of an atom)
            Of the scores.
        """
        own, (n, width) = node[pairs.chunk.nodes], pairs.padding.shape
        told = (node.index_select(0, pairs.j[pairs.padding.ravel()]).view(n, width, -1), pairs.padded(edge))
        # (key or value, head, numbers of the head, width)
        weights = [
            linear.weight.view(2, self.n_heads, -1, node.shape[1])
            for linear in (self.key_value_node, self.key_value_edge)
        ]
        query = self.query(own).view(n, self.n_heads, -1).transpose(0, 1)
        query = query * query.shape[2] ** -0.5
        score = bias
        for rows, weight in zip(told, weights, strict=True):
            score = score + torch.bmm(torch.bmm(query, weight[0]).transpose(0, 1), rows.transpose(1, 2))
        attention = torch.softmax(score, dim=2)
        means = (torch.bmm(attention, rows).transpose(0, 1) for rows in told)
        values = [torch.bmm(mean, weight[1].transpose(1, 2)) for mean, weight in zip(means, weights, strict=True)]
        return (values[0] + values[1]).transpose(0, 1).flatten(1)

    def nodes(self, node: Tensor, mixed: Tensor) -> Tensor:
        """Eq. 4."""
        middle = self.node_norm(self.out(mixed) + node)
        return middle + self.node_mlp(middle) if self.fused else self.node_mlp(middle)

    def ends(self, node: Tensor) -> tuple[Tensor, Tensor]:
        """What atoms say in Eq. 5 as i and as j."""
        return nn.functional.linear(node, self.edge_i.weight, self.edge_own.bias), self.edge_j(node)

    def update(self, pairs: PairRows, of_i: Tensor, of_j: Tensor, edge: Tensor) -> Tensor:
        """Eq. 5 for the pairs of a range of atoms."""
        hidden = of_i[pairs.chunk.nodes].index_select(0, pairs.i) + of_j.index_select(0, pairs.j)
        hidden = torch.addmm(hidden, edge, self.edge_own.weight.t())
        change = self.edge_out(nn.functional.silu(hidden))
        return change if self.edge_norm is None else self.edge_norm(edge + change)


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
        self.node_maps = nn.ModuleList(InputMap(n, d) for n in node_inputs)
        self.edge_maps = nn.ModuleList(InputMap(n, d) for n in edge_inputs)
        self.onsite_maps = nn.ModuleList(InputMap(n, d) for n in onsite_inputs)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.n_groups * config.n_blocks))

    @property
    def input_maps(self) -> list[tuple[InputMap, ...]]:
        """Of atoms, hoppings and on-site pairs in every group that is told anything."""
        groups = zip(self.node_maps, self.edge_maps, self.onsite_maps, strict=True)
        return [tuple(cast(InputMap, linear) for linear in kinds) for kinds in groups]

    @property
    def groups(self) -> list[list[_Block]]:
        """The blocks of every group."""
        blocks, n = [cast(_Block, block) for block in self.blocks], self.config.n_blocks
        return [blocks[start : start + n] for start in range(0, len(blocks), n)]

    def fit_inputs(self, examples: Iterable[tuple[PairGraph, list[tuple[Tensor, ...]]]], *, by_column: bool) -> None:
        """Set the statistics of what goes in, over graphs with the joined rows of every group.

        Parameters
        ----------
        examples : iterable of (PairGraph, list over groups of tuples of tensors)
        by_column : bool
            False if components turn with the structure: none of them must be singled out.
        """
        statistics = of_maps = [linear.statistics for kinds in self.input_maps for linear in kinds]
        if isinstance(self.invariants, DensityInvariants):
            statistics = [*of_maps, self.invariants.statistics]
        sums: list[Tensor] = []
        for graph, groups in examples:
            rows = [rows for kinds in groups for rows in kinds]
            if isinstance(self.invariants, DensityInvariants):
                rows.append(self.invariants.products(graph))
            new = [sums_of(each) for each in rows]
            sums = [a + b for a, b in zip(sums, new, strict=True)] if sums else new
        for each, total in zip(statistics, sums, strict=True):
            each.fit(total, by_column=by_column or each not in of_maps)

    def forward(
        self, graph: PairGraph, ranges: list[PairRows], told: list[GroupInputs], *, again: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """Rows of the on-site pairs (N, width), and of the hoppings of every range of atoms (n_hoppings, width).

        Parameters
        ----------
        graph : PairGraph
        ranges : list of PairRows
            All atoms, range by range.
        told : list of GroupInputs
            Of all groups, or of all but the first ones.
        again : bool
            Evaluate ranges a second time for the derivative instead of keeping what is in between.
        """
        c = self.config
        invariants = c.beta * self.invariants(graph)
        biases = [self.bias(graph, pairs) for pairs in ranges]
        node = self.node_embedding(graph.species)
        edges = [self.first(graph, pairs) for pairs in ranges]
        for p, blocks in enumerate(self.groups):
            node = node + invariants
            if (k := p - c.n_groups + len(told)) >= 0:
                node = node + c.alpha * self.node_maps[k](told[k].nodes)
                rows = self._told(graph, ranges, told[k], k, again=again)
                edges = [edge + c.lambda_ * row for edge, row in zip(edges, rows, strict=True)]
            for block in blocks:
                node, edges = block(ranges, node, edges, biases, again=again)
        onsite = joined([edge.index_select(0, pairs.onsite) for pairs, edge in zip(ranges, edges, strict=True)])
        return onsite, [edge.index_select(0, pairs.hopping) for pairs, edge in zip(ranges, edges, strict=True)]

    def bias(self, graph: PairGraph, pairs: PairRows) -> Tensor:
        """Logarithm of the weight of every pair in the softmax of its atom, (n_atoms, 1, pairs of an atom)."""
        hoppings = pairs.chunk.edges
        envelope = smooth_envelope(graph.distance[hoppings], self.pair_reach[graph.element_pair[hoppings]])
        bias = torch.log(envelope.clamp(min=NEGLIGIBLE))[:, None]
        bias = pairs.padded(pairs.merged(bias.new_zeros(len(pairs.onsite), 1), bias))
        return bias.masked_fill(pairs.missing[:, :, None], -torch.inf).transpose(1, 2)

    def first(self, graph: PairGraph, pairs: PairRows) -> Tensor:
        """The rows of pairs before the first group."""
        atoms, hoppings = pairs.chunk.nodes, pairs.chunk.edges
        hopping = self.distance(self.gaussians(graph.distance[hoppings]))
        hopping = hopping + self.pair_embedding(graph.element_pair[hoppings])
        return pairs.merged(self.onsite_embedding(graph.species[atoms]), hopping)

    def _told(
        self, graph: PairGraph, ranges: list[PairRows], inputs: GroupInputs, k: int, *, again: bool
    ) -> list[Tensor]:
        """What the pairs of every range are told of stage 1."""
        edge_map, (i, j) = self.edge_maps[k], graph.edge_index
        of_i, of_j = (edge_map(parts, less_mean=False) if parts else None for parts in inputs.ends)

        def hoppings(pairs: PairRows) -> list[Tensor]:
            """To the hoppings, and to their reverse hoppings."""
            own, reverse = inputs.hoppings(pairs.chunk)
            return [edge_map(own), *([edge_map(reverse, less_mean=False)] if reverse else [])]

        told = [run(hoppings, pairs, again=again) for pairs in ranges]
        onsite = self.onsite_maps[k](inputs.onsite)
        reverse = joined([rest[0] for _, *rest in told]) if len(told[0]) > 1 else None
        out = []
        for pairs, (rows, *_) in zip(ranges, told, strict=True):
            edges = pairs.chunk.edges
            if reverse is not None:
                rows = rows + reverse.index_select(0, graph.reverse[edges])
            for end, atoms in ((of_i, i), (of_j, j)):
                rows = rows if end is None else rows + end.index_select(0, atoms[edges])
            out.append(pairs.merged(onsite[pairs.chunk.nodes], rows))
        return out
