"""In which frame stage 2 sees a pair, and how its correction is read out (Eq. 6).

`EdgeFrame`: in the frame of an edge every natural m = 0 component is an invariant, so is the norm over
+m and -m of a channel; the Transformer handles invariants only and the read-out multiplies covariant
features by its scalars. The stage is non-linear and exactly equivariant.
`GlobalFrame`: the paper's reading. Components in the lab frame go in, components come out; what
equivariance there is, is learned from rotated copies.
"""

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor, nn

from ase_hybridham.model.config import Stage2Config
from ase_hybridham.model.edgeframes import Chunk
from ase_hybridham.model.equivariant import Stage1Output
from ase_hybridham.model.graph import PairGraph, turn_components
from ase_hybridham.model.layout import FeatureLayout
from ase_hybridham.model.linear import DegreeLinear, OrderLinear, RowTypes, by_type, row_types
from ase_hybridham.model.pairrows import joined, run
from ase_hybridham.model.readout import Readout
from ase_hybridham.model.transformer import GroupInputs, Part
from ase_hybridham.model.vocabulary import Vocabulary
from ase_hybridham.symmetry import reverse_sign

__all__ = ["EdgeFrame", "Frame", "GlobalFrame"]

EPS = 1e-8


class _Invariants(nn.Module):
    """Invariant numbers of rows: the scalars (lab) or the m = 0 components (edge), and norms of the rest.

    Parameters
    ----------
    segments : list of (int, int)
        Components of which a norm is taken, and channels, of what follows the plain numbers.
    """

    def __init__(self, n_plain: int, segments: list[tuple[int, int]]) -> None:
        super().__init__()
        self.n_plain, self.segments = n_plain, segments
        self.size = n_plain + sum(channels for _, channels in segments)

    @classmethod
    def of_lab(cls, layout: FeatureLayout) -> "_Invariants":
        """Scalars, and a norm per channel of l > 0."""
        odd = layout.multiplicities[0] - layout.n_scalars
        others = [(2 * l + 1, n) for l, n in enumerate(layout.multiplicities) if l]
        return cls(layout.n_scalars, [(1, odd), *others] if odd else others)

    @classmethod
    def of_edge(cls, layout: FeatureLayout) -> "_Invariants":
        """Components m = 0, and a norm per channel and |m| > 0."""
        return cls(layout.counts[0], [(2, n) for n in layout.counts[1:]])

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Plain numbers and norms."""
        squares, start = [], self.n_plain
        for components, n in self.segments:
            parts = rows[:, start : start + components * n].square().split(n, dim=1)
            squares.append(reduce(torch.add, parts))
            start += components * n
        return rows[:, : self.n_plain], torch.sqrt(torch.cat([rows[:, :0], *squares], 1) + EPS)

    def parts(self, start: int, rows: Tensor) -> list[Part]:
        """Both as parts of a joined row from a column on."""
        plain, norms = self(rows)
        return [(start, plain), (start + self.n_plain, norms)]


class _OutputInvariants(nn.Module):
    """The same of stage 1's own output, in the direct sum: natural m = 0 components and norms per part and |m|."""

    sums: Tensor
    plain: Tensor

    def __init__(self, vocabulary: Vocabulary, *, onsite: bool) -> None:
        super().__init__()
        targets = [vocabulary.targets[vocabulary.onsite_pair(s)] for s in range(vocabulary.n_species)]
        numbers = []  # which sum every component belongs to
        plain = torch.zeros(len(targets if onsite else vocabulary.targets), vocabulary.size, dtype=torch.float64)
        for t, target in enumerate(targets if onsite else vocabulary.targets):
            direct_sum = target.direct_sum
            keys = list(zip(direct_sum.part_of, 0 * direct_sum.order if onsite else abs(direct_sum.order), strict=True))
            first = {key: k for k, key in enumerate(dict.fromkeys(keys))}
            numbers.append([first[key] for key in keys])
            invariant = direct_sum.natural & ((direct_sum.degree if onsite else direct_sum.order) == 0)
            plain[t, : direct_sum.size] = torch.from_numpy(invariant.astype(float))
        n_sums = 1 + max(max(of_type) for of_type in numbers)
        sums = torch.zeros(len(numbers), vocabulary.size, n_sums, dtype=torch.float64)
        for t, of_type in enumerate(numbers):
            sums[t, range(len(of_type)), of_type] = 1.0
        self.size = vocabulary.size + n_sums
        self.register_buffer("sums", sums, persistent=False)
        self.register_buffer("plain", plain, persistent=False)

    def forward(self, rows: Tensor, types: RowTypes) -> Tensor:
        def one(t: int, index: Tensor | None) -> Tensor:
            picked = rows if index is None else rows[index]
            norms = torch.sqrt(picked.square() @ self.sums[t] + EPS)
            return torch.cat([picked * self.plain[t], norms], dim=1)

        return by_type(one, len(rows), types)


class _GatedMap(nn.Module):
    """y = [(X P) * g] Q plus a map of g's source: g are scalars, one for all components that must turn together.

    P and Q are linear maps of the frame X stands in, so y turns as X does whatever function g is. Q and the rest
    start at zero: the cascade starts as stage 1.

    Parameters
    ----------
    squeeze, expand : OrderLinear or DegreeLinear
        P and Q.
    runs : list of int
        Between P and Q there are runs of `channels` components; which gates multiply each of them.
    channels : int
    width : int
        Of the invariant hidden row.
    n_invariant : int
        Output components that are invariants; they come first.
    """

    runs: Tensor

    def __init__(
        self,
        squeeze: OrderLinear | DegreeLinear,
        expand: OrderLinear | DegreeLinear,
        runs: list[int],
        channels: int,
        width: int,
        n_invariant: int,
    ) -> None:
        super().__init__()
        self.squeeze, self.expand, self.channels = squeeze, expand, channels
        self.gate = nn.Linear(width, channels * (1 + max(runs)))
        self.register_buffer("runs", torch.tensor(runs), persistent=False)
        self.invariant = _zero_linear(width, n_invariant)

    def forward(self, rows: list[Tensor]) -> Tensor:
        *features, hidden = rows
        gate = self.gate(hidden).unflatten(1, (-1, self.channels)).index_select(1, self.runs).flatten(1)
        out = self.expand([self.squeeze(features) * gate])
        return out + nn.functional.pad(self.invariant(hidden), (0, out.shape[1] - self.invariant.out_features))


def _edge_map(layout: FeatureLayout, counts: tuple[int, ...], width: int, channels: int) -> _GatedMap:
    """For hoppings: a gate per channel and |m|, the same for +m and -m; atom j stands in the reverse frame."""
    lmax = len(counts) - 1
    middle = FeatureLayout(tuple([0] * lmax + [channels]))  # `channels` at every m
    squeeze = OrderLinear([layout] * 3, middle.counts, bias=False, mirrored=2)
    runs = [(k + 1) // 2 for k in range(2 * lmax + 1)]
    return _GatedMap(squeeze, OrderLinear([middle], counts, bias=False, scale=0.0), runs, channels, width, counts[0])


def _node_map(layout: FeatureLayout, multiplicities: tuple[int, ...], width: int, channels: int) -> _GatedMap:
    """For on-site pairs: a gate per channel, the same for all m."""
    middle = FeatureLayout(tuple([channels] * len(multiplicities)))
    squeeze = DegreeLinear([layout] * 2, middle.multiplicities, bias=False)
    expand = DegreeLinear([middle], multiplicities, bias=False, scale=0.0)
    runs = [l for l in range(len(multiplicities)) for _ in range(2 * l + 1)]
    return _GatedMap(squeeze, expand, runs, channels, width, multiplicities[0])


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


def _last_more(size: int, more: int, n: int) -> list[int]:
    """So many sizes, the last one larger by `more`."""
    return [size + more * (k == n - 1) for k in range(n)]


class Frame(nn.Module):
    """What both frames share.

    Attributes
    ----------
    node_inputs, edge_inputs, onsite_inputs : lists over groups of int
        Numbers given to the Transformer for every atom, hopping and on-site pair.
    invariant : bool
        Whether these numbers are the same however a structure is turned.
    """

    invariant: bool
    node_inputs: list[int]
    edge_inputs: list[int]
    onsite_inputs: list[int]
    readout: Readout

    def __init__(self, config: Stage2Config, layout: FeatureLayout, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config, self.layout, self.vocabulary = config, layout, vocabulary
        d = config.width
        self.node_hidden = nn.Sequential(nn.Linear(d, 2 * d), nn.SiLU())
        self.edge_hidden = nn.Sequential(nn.Linear(d, 2 * d), nn.SiLU())

    def groups(self, graph: PairGraph, output: Stage1Output) -> list[GroupInputs]:
        """What the Transformer is told at the start of every group but, with `feature_shift`, the first."""
        shift, n = self.config.feature_shift, self.config.n_groups
        return [self.group(graph, output, p - shift, last=p == n - 1) for p in range(shift, n)]

    def group(self, graph: PairGraph, output: Stage1Output, block: int, *, last: bool) -> GroupInputs:
        """Inputs of one group from the features after a block; the last one is told stage 1's output, too."""
        raise NotImplementedError

    def onsite_out(self, output: Stage1Output, hidden: Tensor, species: RowTypes) -> Tensor:
        """Components of on-site blocks."""
        raise NotImplementedError

    def hopping_out(
        self, graph: PairGraph, output: Stage1Output, chunks: list[Chunk]
    ) -> Callable[[Chunk, Tensor, RowTypes], Tensor]:
        """Components of the hoppings of a chunk as a function of it, their hidden rows and types."""
        raise NotImplementedError

    def read_out(
        self,
        graph: PairGraph,
        output: Stage1Output,
        chunks: list[Chunk],
        onsite: Tensor,
        hopping: list[Tensor],
        *,
        again: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Corrections of on-site blocks (N, size) and hoppings (E, size), in units of the residual's scale.

        Parameters
        ----------
        graph : PairGraph
        output : Stage1Output
        chunks : list of Chunk
            All atoms, range by range.
        onsite : Tensor, shape (N, width)
            From the Transformer.
        hopping : list over chunks of tensors, shape (n_hoppings, width)
        again : bool
            Evaluate chunks a second time for the derivative instead of keeping what is in between.
        """
        species = row_types(graph.species, self.vocabulary.n_species)
        types = [row_types(graph.element_pair[chunk.edges], self.vocabulary.n_pairs) for chunk in chunks]
        one = self.hopping_out(graph, output, chunks)

        def of_chunk(chunk: Chunk, rows: Tensor, of_type: RowTypes) -> Tensor:
            return one(chunk, self.edge_hidden(rows), of_type)

        parts = [run(of_chunk, *each, again=again) for each in zip(chunks, hopping, types, strict=True)]
        node, edge = self.onsite_out(output, self.node_hidden(onsite), species), joined(parts)
        reverse = (edge.index_select(0, graph.reverse[chunk.edges]) for chunk in chunks)
        symmetrized = [self.readout.symmetrized("edge", *each) for each in zip(parts, reverse, types, strict=True)]
        return self.readout.symmetrized("node", node, node, species), joined(symmetrized)


class EdgeFrame(Frame):
    """Invariants in, gated covariant features out."""

    invariant = True
    partner_sign: Tensor

    def __init__(self, config: Stage2Config, layout: FeatureLayout, vocabulary: Vocabulary) -> None:
        super().__init__(config, layout, vocabulary)
        self.node_invariants, self.edge_invariants = _Invariants.of_lab(layout), _Invariants.of_edge(layout)
        self.turned_invariants = _Invariants.of_edge(layout.turning)
        self.node_output = _OutputInvariants(vocabulary, onsite=True)
        self.edge_output = _OutputInvariants(vocabulary, onsite=False)
        n, node, edge = config.n_groups - config.feature_shift, self.node_invariants.size, self.edge_invariants.size
        self.node_inputs = [node] * n
        self.edge_inputs = _last_more(3 * edge, self.edge_output.size, n)
        self.onsite_inputs = _last_more(2 * node, self.node_output.size, n)
        flips = reverse_sign(layout.lmax)
        sign = [flips[l][l] for l in layout.turning.channel_degree]
        self.register_buffer("partner_sign", torch.tensor(sign, dtype=torch.float64), persistent=False)
        width, channels = 2 * config.width, config.readout_channels
        onsite = [vocabulary.targets[vocabulary.onsite_pair(s)] for s in range(vocabulary.n_species)]
        self.readout = Readout(
            vocabulary,
            [_node_map(layout, t.natural_multiplicities, width, channels) for t in onsite],
            [_edge_map(layout, t.counts, width, channels) for t in vocabulary.targets],
        )

    def group(self, graph: PairGraph, output: Stage1Output, block: int, *, last: bool) -> GroupInputs:
        """Invariants of the features of atoms, of the pairs, of both atoms in the frame of the pair."""
        nodes, edges, onsite = output.nodes[block], output.edges[block], output.onsite[block]
        of_atoms, of_pairs, n_scalars = self.node_invariants, self.edge_invariants, self.layout.multiplicities[0]
        own, i, j, out = (k * of_pairs.size for k in range(4))  # first columns
        of_onsite = [*of_atoms.parts(0, onsite), *of_atoms.parts(of_atoms.size, nodes)]
        if last:
            species = row_types(graph.species, self.vocabulary.n_species)
            of_onsite.append((2 * of_atoms.size, self.node_output(output.node_out, species)))

        def hoppings(chunk: Chunk) -> tuple[list[Part], list[Part]]:
            # scalars look the same in every frame and are told once per atom
            turning = nodes[chunk.nodes, n_scalars:]
            plain, norms = self.turned_invariants(chunk.frames.into(turning, self.layout.turning))
            told = of_pairs.parts(own, edges[chunk.edges])
            told += [(i + n_scalars, plain), (i + of_pairs.n_plain, norms)]
            if last:
                types = row_types(graph.element_pair[chunk.edges], self.vocabulary.n_pairs)
                told.append((out, self.edge_output(output.edge_out[chunk.edges], types)))
            # of the reverse hopping this atom is j; m = 0 components differ by the sign (-1)^l
            return told, [(j + n_scalars, plain * self.partner_sign), (j + of_pairs.n_plain, norms)]

        scalars = nodes[:, :n_scalars]
        return GroupInputs(of_atoms.parts(0, nodes), of_onsite, ([(i, scalars)], [(j, scalars)]), hoppings)

    def onsite_out(self, output: Stage1Output, hidden: Tensor, species: RowTypes) -> Tensor:
        """Covariant features times scalars."""
        return self.readout.place("node", [output.onsite[-1], output.nodes[-1], hidden], species)

    def hopping_out(
        self, graph: PairGraph, output: Stage1Output, chunks: list[Chunk]
    ) -> Callable[[Chunk, Tensor, RowTypes], Tensor]:
        """Covariant features of the pair and of both atoms, times scalars."""
        nodes, edges = output.nodes[-1], output.edges[-1]
        of_i = joined([chunk.frames.into(nodes[chunk.nodes], self.layout) for chunk in chunks])

        def one(chunk: Chunk, hidden: Tensor, types: RowTypes) -> Tensor:
            of_j = of_i.index_select(0, graph.reverse[chunk.edges])
            return self.readout.place("edge", [edges[chunk.edges], of_i[chunk.edges], of_j, hidden], types)

        return one


class GlobalFrame(Frame):
    """Components of the lab frame in and out."""

    invariant = False

    def __init__(self, config: Stage2Config, layout: FeatureLayout, vocabulary: Vocabulary) -> None:
        super().__init__(config, layout, vocabulary)
        n = config.n_groups - config.feature_shift
        self.node_inputs = [layout.size] * n
        self.edge_inputs = _last_more(layout.size, vocabulary.size, n)
        self.onsite_inputs = list(self.edge_inputs)
        width = 2 * config.width
        self.readout = Readout(
            vocabulary,
            [_PlainMap(width, vocabulary.size) for _ in range(vocabulary.n_species)],
            [_PlainMap(width, vocabulary.size) for _ in range(vocabulary.n_pairs)],
            ordered=False,
        )

    def group(self, graph: PairGraph, output: Stage1Output, block: int, *, last: bool) -> GroupInputs:
        """Components of atoms, hoppings and on-site pairs in the lab."""
        onsite: list[Part] = [(0, output.onsite[block])]
        if last:
            onsite.append((self.layout.size, output.node_out))

        def hoppings(chunk: Chunk) -> tuple[list[Part], list[Part]]:
            edge: list[Part] = [(0, chunk.frames.to_lab(output.edges[block][chunk.edges], self.layout))]
            if last:
                types = row_types(graph.element_pair[chunk.edges], self.vocabulary.n_pairs)
                edge.append((self.layout.size, self._turn(output.edge_out[chunk.edges], chunk, types, back=True)))
            return edge, []

        return GroupInputs([(0, output.nodes[block])], onsite, ([], []), hoppings)

    def onsite_out(self, output: Stage1Output, hidden: Tensor, species: RowTypes) -> Tensor:
        """A linear map, without what the selection rule forbids."""
        return self.readout.allowed("node", self.readout.place("node", [hidden], species), species)

    def hopping_out(
        self, graph: PairGraph, output: Stage1Output, chunks: list[Chunk]
    ) -> Callable[[Chunk, Tensor, RowTypes], Tensor]:
        """The same, turned into the frames of the edges."""

        def one(chunk: Chunk, hidden: Tensor, types: RowTypes) -> Tensor:
            rows = self._turn(self.readout.place("edge", [hidden], types), chunk, types, back=False)
            return self.readout.allowed("edge", rows, types)

        return one

    def _turn(self, rows: Tensor, chunk: Chunk, types: RowTypes, *, back: bool) -> Tensor:
        """Direct-sum components of every element pair between the lab and the frames of the edges."""
        matrices = [rows.new_ones(len(rows), 1, 1), *chunk.frames.by_edge]

        def one(t: int, index: Tensor | None) -> Tensor:
            direct_sum = self.vocabulary.targets[t].direct_sum
            picked = rows if index is None else rows[index]
            frames_of = matrices if index is None else [matrix[index] for matrix in matrices]
            turned = turn_components(picked[:, : direct_sum.size], direct_sum, frames_of, back=back)
            return nn.functional.pad(turned, (0, rows.shape[1] - direct_sum.size))

        return by_type(one, len(rows), types)
