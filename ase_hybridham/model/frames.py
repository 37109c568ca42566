"""In which frame stage 2 sees a pair, and how its correction is read out (Eq. 6).

`EdgeFrame`: in the frame of an edge every natural m = 0 component is an invariant, so is the norm over
+m and -m of a channel; the Transformer handles invariants only and the read-out multiplies covariant
features by its scalars. The stage is non-linear and exactly equivariant.
`GlobalFrame`: the paper's reading. Components in the lab frame go in, components come out; what
equivariance there is, is learned from rotated copies.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ase_hybridham.model.config import Stage2Config
from ase_hybridham.model.edgeframes import EdgeFrames
from ase_hybridham.model.equivariant import Stage1Output
from ase_hybridham.model.graph import PairGraph, turn_components
from ase_hybridham.model.layout import Components, FeatureLayout
from ase_hybridham.model.linear import DegreeLinear, OrderLinear, RowTypes, by_type, row_types
from ase_hybridham.model.readout import Readout
from ase_hybridham.model.vocabulary import Vocabulary
from ase_hybridham.symmetry import reverse_sign

__all__ = ["EdgeFrame", "Frame", "GlobalFrame"]

EPS = 1e-8


def _square_sums(rows: Tensor, index: Tensor, n: int) -> Tensor:
    """Norms over the components that share an index, shape (rows, n)."""
    return torch.sqrt(rows.new_zeros(len(rows), n).index_add(1, index, rows.square()) + EPS)


class _Invariants(nn.Module):
    """Invariant numbers of rows: the scalars (lab) or the m = 0 components (edge), and norms of the rest."""

    index: Tensor

    def __init__(self, layout: FeatureLayout, components: Components, n_plain: int) -> None:
        super().__init__()
        self.n_plain = n_plain
        keys = [
            (int(c), abs(int(m)) if components is layout.edge else 0)
            for c, m in zip(components.channel[n_plain:], components.order[n_plain:], strict=True)
        ]
        numbers = {key: k for k, key in enumerate(dict.fromkeys(keys))}
        self.n_norms = len(numbers)
        self.size = n_plain + self.n_norms
        self.register_buffer("index", torch.tensor([numbers[key] for key in keys], dtype=torch.long), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        plain, rest = rows.split([self.n_plain, rows.shape[1] - self.n_plain], dim=1)
        return torch.cat([plain, _square_sums(rest, self.index, self.n_norms)], dim=1)


class _OutputInvariants(nn.Module):
    """The same of stage 1's own output, in the direct sum: natural m = 0 components and norms per part and |m|."""

    index: Tensor
    plain: Tensor

    def __init__(self, vocabulary: Vocabulary, *, onsite: bool) -> None:
        super().__init__()
        targets = [vocabulary.targets[vocabulary.onsite_pair(s)] for s in range(vocabulary.n_species)]
        direct_sums = [t.direct_sum for t in (targets if onsite else vocabulary.targets)]
        index = torch.zeros(len(direct_sums), vocabulary.size, dtype=torch.long)
        plain = torch.zeros(len(direct_sums), vocabulary.size, dtype=torch.float64)
        self.n_norms = 0
        for t, direct_sum in enumerate(direct_sums):
            keys = [
                (int(part), 0 if onsite else abs(int(m)))
                for part, m in zip(direct_sum.part_of, direct_sum.order, strict=True)
            ]
            numbers = {key: k for k, key in enumerate(dict.fromkeys(keys))}
            index[t, : direct_sum.size] = torch.tensor([numbers[key] for key in keys])
            invariant = direct_sum.natural & ((direct_sum.degree if onsite else direct_sum.order) == 0)
            plain[t, : direct_sum.size] = torch.from_numpy(invariant.astype(float))
            self.n_norms = max(self.n_norms, len(numbers))
        self.size = vocabulary.size + self.n_norms
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("plain", plain, persistent=False)

    def forward(self, rows: Tensor, types: Tensor) -> Tensor:
        norms = rows.new_zeros(len(rows), self.n_norms).scatter_add(1, self.index[types], rows.square())
        return torch.cat([rows * self.plain[types], torch.sqrt(norms + EPS)], dim=1)


class _GatedMap(nn.Module):
    """y = [(X P) * g] Q plus a map of g's source: g are scalars, one for all components that must turn together.

    P and Q are linear maps of the frame X stands in, so y turns as X does whatever function g is. Q and the rest
    start at zero: the cascade starts as stage 1.

    Parameters
    ----------
    squeeze, expand : OrderLinear or DegreeLinear
        P and Q.
    number : array of int, shape (components between P and Q,)
        Which gate multiplies each component.
    width : int
        Of the invariant hidden row.
    n_invariant : int
        Output components that are invariants; they come first.
    """

    number: Tensor

    def __init__(
        self,
        squeeze: OrderLinear | DegreeLinear,
        expand: OrderLinear | DegreeLinear,
        number: NDArray,
        width: int,
        n_invariant: int,
    ) -> None:
        super().__init__()
        self.squeeze, self.expand = squeeze, expand
        self.gate = nn.Linear(width, int(number.max()) + 1)
        self.register_buffer("number", torch.from_numpy(number), persistent=False)
        self.invariant = _zero_linear(width, n_invariant)

    def forward(self, rows: list[Tensor]) -> Tensor:
        *features, hidden = rows
        gated = self.squeeze(features) * self.gate(hidden).index_select(1, self.number)
        out = self.expand([gated])
        return out + nn.functional.pad(self.invariant(hidden), (0, out.shape[1] - self.invariant.out_features))


def _edge_map(layout: FeatureLayout, counts: tuple[int, ...], width: int, channels: int) -> _GatedMap:
    """For hoppings: a gate per channel and |m|, the same for +m and -m."""
    middle = FeatureLayout(tuple([0] * (len(counts) - 1) + [channels]))  # `channels` at every m
    number = np.abs(middle.edge.order) * channels + middle.edge.channel
    squeeze = OrderLinear([layout] * 3, middle.counts, bias=False)
    return _GatedMap(squeeze, OrderLinear([middle], counts, bias=False, scale=0.0), number, width, counts[0])


def _node_map(layout: FeatureLayout, multiplicities: tuple[int, ...], width: int, channels: int) -> _GatedMap:
    """For on-site pairs: a gate per channel, the same for all m."""
    middle = FeatureLayout(tuple([channels] * len(multiplicities)))
    squeeze = DegreeLinear([layout] * 2, middle.multiplicities, bias=False)
    expand = DegreeLinear([middle], multiplicities, bias=False, scale=0.0)
    return _GatedMap(squeeze, expand, middle.lab.channel, width, multiplicities[0])


def _zero_linear(n_in: int, n_out: int) -> nn.Linear:
    """A linear map that starts at zero."""
    linear = nn.Linear(n_in, n_out)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


class _PlainMap(nn.Module):
    """A linear map that starts at zero: what the global frame reads out."""

    def __init__(self, width: int, n_out: int) -> None:
        super().__init__()
        self.linear = _zero_linear(width, n_out)

    def forward(self, rows: list[Tensor]) -> Tensor:
        return self.linear(rows[0])


class Frame(nn.Module):
    """What both frames share.

    Attributes
    ----------
    node_inputs, edge_inputs, onsite_inputs : lists over groups of int
        Numbers given to the Transformer for every atom, hopping and on-site pair.
    """

    node_inputs: list[int]
    edge_inputs: list[int]
    onsite_inputs: list[int]

    def __init__(self, config: Stage2Config, layout: FeatureLayout, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config, self.layout, self.vocabulary = config, layout, vocabulary
        d = config.width
        self.node_hidden = nn.Sequential(nn.Linear(d, 2 * d), nn.SiLU())
        self.edge_hidden = nn.Sequential(nn.Linear(d, 2 * d), nn.SiLU())

    def inputs(
        self, graph: PairGraph, output: Stage1Output, frames: EdgeFrames
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """What the Transformer is told of atoms, hoppings and on-site pairs, for every group."""
        nodes, edges, onsites = [], [], []
        for p in range(self.config.n_groups):
            block = p - self.config.feature_shift
            if block < 0:  # the literal reading feeds embeddings first, which say no more than the own ones
                like, n, e = output.node_out, len(output.node_out), len(output.edge_out)
                node, edge, onsite = (
                    like.new_zeros(n, self.node_inputs[p]),
                    like.new_zeros(e, self.edge_inputs[p]),
                    like.new_zeros(n, self.onsite_inputs[p]),
                )
            else:
                last = p == self.config.n_groups - 1
                node, edge, onsite = self.group_inputs(graph, output, frames, block, last)
            nodes.append(node)
            edges.append(edge)
            onsites.append(onsite)
        return nodes, edges, onsites

    def group_inputs(
        self, graph: PairGraph, output: Stage1Output, frames: EdgeFrames, block: int, last: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs of one group from the features after a block; the last one is told stage 1's output, too."""
        raise NotImplementedError

    def read_out(
        self,
        graph: PairGraph,
        output: Stage1Output,
        frames: EdgeFrames,
        onsite: Tensor,
        hopping: Tensor,
        types: tuple[RowTypes, RowTypes],
    ) -> tuple[Tensor, Tensor]:
        """Corrections of on-site blocks (N, size) and hoppings (E, size), in units of the residual's scale."""
        raise NotImplementedError


class EdgeFrame(Frame):
    """Invariants in, gated covariant features out."""

    partner_sign: Tensor

    def __init__(self, config: Stage2Config, layout: FeatureLayout, vocabulary: Vocabulary) -> None:
        super().__init__(config, layout, vocabulary)
        lab_scalars, edge_scalars = layout.n_scalars, layout.counts[0]
        self.node_invariants = _Invariants(layout, layout.lab, lab_scalars)
        self.edge_invariants = _Invariants(layout, layout.edge, edge_scalars)
        self.node_output = _OutputInvariants(vocabulary, onsite=True)
        self.edge_output = _OutputInvariants(vocabulary, onsite=False)
        n, last = config.n_groups, config.n_groups - 1
        node, edge = self.node_invariants.size, self.edge_invariants.size
        self.node_inputs = [node] * n
        self.edge_inputs = [3 * edge + (self.edge_output.size if p == last else 0) for p in range(n)]
        self.onsite_inputs = [2 * node + (self.node_output.size if p == last else 0) for p in range(n)]
        flips = reverse_sign(layout.lmax)
        sign = [flips[l][l] for l in layout.channel_degree] + [1.0] * self.edge_invariants.n_norms
        self.register_buffer("partner_sign", torch.tensor(sign, dtype=torch.float64), persistent=False)
        width, channels = 2 * config.width, config.readout_channels
        onsite = [vocabulary.targets[vocabulary.onsite_pair(s)] for s in range(vocabulary.n_species)]
        self.readout = Readout(
            vocabulary,
            [_node_map(layout, t.natural_multiplicities, width, channels) for t in onsite],
            [_edge_map(layout, t.counts, width, channels) for t in vocabulary.targets],
        )

    def group_inputs(
        self, graph: PairGraph, output: Stage1Output, frames: EdgeFrames, block: int, last: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Invariants of the features of atoms, of both atoms in the frame of the edge, of the pairs."""
        node = self.node_invariants(output.nodes[block])
        of_i = self.edge_invariants(frames.into(output.nodes[block], self.layout))
        # those of atom j differ from the reverse edge's by the sign (-1)^l of m = 0 components
        of_j = of_i.index_select(0, graph.reverse) * self.partner_sign
        edge = [self.edge_invariants(output.edges[block]), of_i, of_j]
        onsite = [self.node_invariants(output.onsite[block]), node]
        if last:
            edge.append(self.edge_output(output.edge_out, graph.element_pair))
            onsite.append(self.node_output(output.node_out, graph.species))
        return node, torch.cat(edge, dim=1), torch.cat(onsite, dim=1)

    def read_out(
        self,
        graph: PairGraph,
        output: Stage1Output,
        frames: EdgeFrames,
        onsite: Tensor,
        hopping: Tensor,
        types: tuple[RowTypes, RowTypes],
    ) -> tuple[Tensor, Tensor]:
        into = frames.into(output.nodes[-1], self.layout)
        edge_rows = [output.edges[-1], into, frames.partner(into, self.layout), self.edge_hidden(hopping)]
        node_rows = [output.onsite[-1], output.nodes[-1], self.node_hidden(onsite)]
        return self.readout(node_rows, edge_rows, *types, graph.reverse)


class GlobalFrame(Frame):
    """Components of the lab frame in and out."""

    def __init__(self, config: Stage2Config, layout: FeatureLayout, vocabulary: Vocabulary) -> None:
        super().__init__(config, layout, vocabulary)
        n = config.n_groups
        self.node_inputs = [layout.size] * n
        self.edge_inputs = [layout.size] * (n - 1) + [layout.size + vocabulary.size]
        self.onsite_inputs = list(self.edge_inputs)
        width = 2 * config.width
        self.readout = Readout(
            vocabulary,
            [_PlainMap(width, vocabulary.size) for _ in range(vocabulary.n_species)],
            [_PlainMap(width, vocabulary.size) for _ in range(vocabulary.n_pairs)],
            ordered=False,
        )

    def group_inputs(
        self, graph: PairGraph, output: Stage1Output, frames: EdgeFrames, block: int, last: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Components of atoms, hoppings and on-site pairs in the lab."""
        edge, onsite = [frames.to_lab(output.edges[block], self.layout)], [output.onsite[block]]
        if last:
            types = row_types(graph.element_pair, self.vocabulary.n_pairs)
            edge.append(self._turn(output.edge_out, frames, types, back=True))
            onsite.append(output.node_out)
        return output.nodes[block], torch.cat(edge, dim=1), torch.cat(onsite, dim=1)

    def read_out(
        self,
        graph: PairGraph,
        output: Stage1Output,
        frames: EdgeFrames,
        onsite: Tensor,
        hopping: Tensor,
        types: tuple[RowTypes, RowTypes],
    ) -> tuple[Tensor, Tensor]:
        node_out = self.readout.place("node", [self.node_hidden(onsite)], types[0])
        edge_out = self.readout.place("edge", [self.edge_hidden(hopping)], types[1])
        node_out = self.readout.allowed("node", node_out, types[0])
        edge_out = self.readout.allowed("edge", self._turn(edge_out, frames, types[1], back=False), types[1])
        edge_reverse = edge_out.index_select(0, graph.reverse)
        node_out = self.readout.symmetrized("node", node_out, node_out, types[0])
        return node_out, self.readout.symmetrized("edge", edge_out, edge_reverse, types[1])

    def _turn(self, rows: Tensor, frames: EdgeFrames, types: RowTypes, *, back: bool) -> Tensor:
        """Direct-sum components of every element pair between the lab and the frames of the edges."""
        matrices = [rows.new_ones(len(rows), 1, 1), *frames.by_edge]

        def one(t: int, index: Tensor | None) -> Tensor:
            direct_sum = self.vocabulary.targets[t].direct_sum
            picked = rows if index is None else rows[index]
            frames_of = matrices if index is None else [matrix[index] for matrix in matrices]
            turned = turn_components(picked[:, : direct_sum.size], direct_sum, frames_of, back=back)
            return nn.functional.pad(turned, (0, rows.shape[1] - direct_sum.size))

        return by_type(one, len(rows), types)
