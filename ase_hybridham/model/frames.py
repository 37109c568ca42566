"""In which frame stage 2 sees a pair, and how its correction is read out (Eq. 6).

`EdgeFrame`: in the frame of an edge every natural m = 0 component is an invariant, so is the norm over
+m and -m of a channel; the Transformer handles invariants only and the read-out multiplies covariant
features by its scalars. The stage is non-linear and exactly equivariant.
`globalframe.GlobalFrame`: the paper's reading.
"""

from functools import reduce

import torch
from torch import Tensor, nn

from ase_hybridham.model.config import Stage2Config
from ase_hybridham.model.edgeframes import Chunk, EdgeFrames
from ase_hybridham.model.equivariant import Stage1Output
from ase_hybridham.model.graph import PairGraph
from ase_hybridham.model.layout import FeatureLayout
from ase_hybridham.model.linear import DegreeLinear, OrderLinear, RowTypes, by_type, row_types
from ase_hybridham.model.pairrows import joined, run
from ase_hybridham.model.readout import Readout
from ase_hybridham.model.transformer import GroupInputs, Part
from ase_hybridham.model.vocabulary import Vocabulary
from ase_hybridham.symmetry import reverse_sign

__all__ = ["EdgeFrame", "Frame", "last_more", "zero_linear"]

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
        self.invariant = zero_linear(width, n_invariant)

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


def zero_linear(n_in: int, n_out: int) -> nn.Linear:
    """A linear map that starts at zero."""
    linear = nn.Linear(n_in, n_out)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def last_more(size: int, more: int, n: int) -> list[int]:
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
        nodes, edges = output.nodes[block], output.edges[block]
        of_nodes, of_onsite = self.of_atoms(nodes, output.onsite[block])
        if last:
            species = row_types(graph.species, self.vocabulary.n_species)
            of_onsite = [*of_onsite, self.of_onsite_output(output.node_out, species)]

        def hoppings(chunk: Chunk) -> tuple[list[Part], list[Part]]:
            told = self.of_hoppings(edges[chunk.edges], chunk.frames)
            if last:
                types = row_types(graph.element_pair[chunk.edges], self.vocabulary.n_pairs)
                told = [*told, self.of_hopping_output(output.edge_out[chunk.edges], chunk.frames, types)]
            if not self.invariant:
                return told, []
            turned = chunk.frames.into(nodes[chunk.nodes, self.layout.multiplicities[0] :], self.layout.turning)
            as_i, as_j = self.of_ends(turned)
            return told + as_i, as_j  # of the reverse hopping this atom is j

        return GroupInputs(of_nodes, of_onsite, self.by_atoms(nodes), hoppings)

    def of_atoms(self, nodes: Tensor, onsite: Tensor) -> tuple[list[Part], list[Part]]:
        """What atoms and on-site pairs are told of their features."""
        raise NotImplementedError

    def by_atoms(self, nodes: Tensor) -> tuple[list[Part], list[Part]]:
        """What atoms tell all their hoppings, as i and as j."""
        return [], []

    def of_hoppings(self, edges: Tensor, frames: EdgeFrames) -> list[Part]:
        """What hoppings are told of their own features."""
        raise NotImplementedError

    def of_ends(self, turned: Tensor) -> tuple[list[Part], list[Part]]:
        """What features l > 0 of an atom, in the frame of a hopping of which it is atom i, tell that and its reverse.

        Only of a frame that is `invariant`.
        """
        raise NotImplementedError

    def of_onsite_output(self, node_out: Tensor, species: RowTypes) -> Part:
        """What on-site pairs are told of stage 1's output."""
        raise NotImplementedError

    def of_hopping_output(self, edge_out: Tensor, frames: EdgeFrames, types: RowTypes) -> Part:
        """What hoppings are told of stage 1's output."""
        raise NotImplementedError

    def onsite_out(self, nodes: Tensor, onsite: Tensor, hidden: Tensor, species: RowTypes) -> Tensor:
        """Components of on-site blocks."""
        raise NotImplementedError

    def hopping_out(
        self, edges: Tensor, ends: tuple[Tensor, ...], hidden: Tensor, frames: EdgeFrames, types: RowTypes
    ) -> Tensor:
        """Components of hoppings.

        Parameters
        ----------
        edges : Tensor, shape (n_hoppings, size)
        ends : two Tensors of that shape
            Features of atom i, and of atom j in the frame of the reverse hopping; none unless `invariant`.
        hidden : Tensor, shape (n_hoppings, 2 width)
            From the Transformer.
        frames : EdgeFrames
        types : RowTypes
        """
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
        nodes, edges = output.nodes[-1], output.edges[-1]
        of_i: Tensor | None = None
        if self.invariant:
            of_i = joined([chunk.frames.into(nodes[chunk.nodes], self.layout) for chunk in chunks])

        def of_chunk(chunk: Chunk, rows: Tensor, of_type: RowTypes) -> Tensor:
            both = () if of_i is None else (of_i[chunk.edges], of_i.index_select(0, graph.reverse[chunk.edges]))
            return self.hopping_out(edges[chunk.edges], both, self.edge_hidden(rows), chunk.frames, of_type)

        parts = [run(of_chunk, *each, again=again) for each in zip(chunks, hopping, types, strict=True)]
        node, edge = self.onsite_out(nodes, output.onsite[-1], self.node_hidden(onsite), species), joined(parts)
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
        self.edge_inputs = last_more(3 * edge, self.edge_output.size, n)
        self.onsite_inputs = last_more(2 * node, self.node_output.size, n)
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

    def of_atoms(self, nodes: Tensor, onsite: Tensor) -> tuple[list[Part], list[Part]]:
        """Invariants."""
        of_atoms = self.node_invariants
        return of_atoms.parts(0, nodes), [*of_atoms.parts(0, onsite), *of_atoms.parts(of_atoms.size, nodes)]

    def by_atoms(self, nodes: Tensor) -> tuple[list[Part], list[Part]]:
        """Scalars, which look the same in every frame."""
        size, scalars = self.edge_invariants.size, nodes[:, : self.layout.multiplicities[0]]
        return [(size, scalars)], [(2 * size, scalars)]

    def of_hoppings(self, edges: Tensor, frames: EdgeFrames) -> list[Part]:
        """Invariants; behind their columns are those of atom i, of atom j and of stage 1's output."""
        return self.edge_invariants.parts(0, edges)

    def of_ends(self, turned: Tensor) -> tuple[list[Part], list[Part]]:
        """Invariants; in the frame of the reverse hopping m = 0 components differ by the sign (-1)^l."""
        of_pairs, n_scalars = self.edge_invariants, self.layout.multiplicities[0]
        i, j = of_pairs.size, 2 * of_pairs.size
        plain, norms = self.turned_invariants(turned)
        as_i = [(i + n_scalars, plain), (i + of_pairs.n_plain, norms)]
        return as_i, [(j + n_scalars, plain * self.partner_sign), (j + of_pairs.n_plain, norms)]

    def of_onsite_output(self, node_out: Tensor, species: RowTypes) -> Part:
        """Invariants."""
        return 2 * self.node_invariants.size, self.node_output(node_out, species)

    def of_hopping_output(self, edge_out: Tensor, frames: EdgeFrames, types: RowTypes) -> Part:
        """Invariants."""
        return 3 * self.edge_invariants.size, self.edge_output(edge_out, types)

    def onsite_out(self, nodes: Tensor, onsite: Tensor, hidden: Tensor, species: RowTypes) -> Tensor:
        """Covariant features times scalars."""
        return self.readout.place("node", [onsite, nodes, hidden], species)

    def hopping_out(
        self, edges: Tensor, ends: tuple[Tensor, ...], hidden: Tensor, frames: EdgeFrames, types: RowTypes
    ) -> Tensor:
        """Covariant features of the pair and of both atoms, times scalars."""
        return self.readout.place("edge", [edges, *ends, hidden], types)
