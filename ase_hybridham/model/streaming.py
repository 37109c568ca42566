"""H of a structure part by part, so that memory is that of a few rows per pair, and processes can share it.

All parts pass through a layer before the next one begins. Between layers there are the features of atoms, those of
hoppings and the rows of stage 2; its groups run as soon as the block of stage 1 is done whose features they are told,
so that only the last ones exist. What a pass over the parts can do with the features of atoms in the frames of their
hoppings is done at once: the update of hoppings, what stage 2 is told of them, and the messages of the next block.
Atom j of a hopping is turned where it is needed, by the frame of the hopping itself: processes exchange features of
atoms, which are few, and the outputs of hoppings that two of them have a direction of.
Outputs stand once for both directions of a hopping: H is Hermitian, whatever the rounding.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ase_hybridham.model.convolution import Convolution, smooth_envelope
from ase_hybridham.model.edgeframes import EdgeFrames
from ase_hybridham.model.equivariant import Stage1
from ase_hybridham.model.frames import Frame
from ase_hybridham.model.layout import FeatureLayout
from ase_hybridham.model.linear import RowTypes, row_types
from ase_hybridham.model.neighborhoods import Neighborhood, Share
from ase_hybridham.model.norm import GraphNorm, LocalNorm
from ase_hybridham.model.readout import Readout
from ase_hybridham.model.transformer import GraphTransformer

__all__ = ["Correction", "Features", "Output"]

ROWS = 8192  # of a table at a time

Tick = Callable[[], object]
Tell = Callable[[int, Tensor, tuple[Tensor, Tensor], EdgeFrames], None]


class Output:
    """Rows of the direct sum: of on-site pairs (n_atoms, size), and of the undirected hoppings of a share."""

    def __init__(self, share: Share, readout: Readout) -> None:
        self.share, self.readout = share, readout
        self.hopping = share.room(len(share.first), readout.size).zero_()
        self.onsite = share.like.new_zeros(share.atoms.stop - share.atoms.start, readout.size)

    def add(self, part: Neighborhood, rows: Tensor) -> None:
        """Half of what a network says of the hoppings of a part; the other half comes with their reverse."""
        back = self.readout.mirrored("edge", rows[~part.forward], self.share.back_types(part))
        for which, halves in ((part.forward, rows[part.forward]), (~part.forward, back)):
            self.hopping.index_add_(0, part.half[which], halves, alpha=0.5)

    def of(self, part: Neighborhood) -> Tensor:
        """The rows of the hoppings of a part."""
        rows = self.hopping.index_select(0, part.half)
        t = row_types(part.graph.element_pair[~part.forward], self.share.vocabulary.n_pairs)
        rows[~part.forward] = self.readout.mirrored("edge", rows[~part.forward], t)
        return rows


class Features:
    """Stage 1 on the parts of a share.

    Parameters
    ----------
    stage1 : Stage1
        With local norms and a Hermitian read-out.
    share : Share
    tick : callable
        Called after every part of a pass.

    Attributes
    ----------
    node : Tensor, shape (N, size)
        Features of all atoms after the last block.
    onsite : Tensor, shape (n_atoms, size)
        Of the on-site pairs of the share.
    edges : Tensor, shape (n_hoppings, size)
        Of the hoppings of the share.
    """

    def __init__(self, stage1: Stage1, share: Share, tick: Tick) -> None:
        self.stage1, self.share, self.tick = stage1, share, tick
        self.species = row_types(share.species[share.atoms], share.vocabulary.n_species)
        self.node = stage1.node_embedding(share.species)
        self.onsite = stage1.onsite_embedding(share.species[share.atoms])
        self.edges = torch.cat([stage1.edge_embedding(part.graph.distance) for part in share.parts])

    def run(self, correction: "Correction | None") -> Output:
        """All blocks, of which a second stage is told where there is one, and the output."""
        stage1, summed = self.stage1, self._first_messages()
        output = Output(self.share, stage1.readout)
        for block, (layout, of_nodes, of_edges) in enumerate(stage1.blocks):
            rows = of_nodes.update(summed, self.node[self.share.atoms], self.onsite, self.species)
            self.node = self.share.of_all(_normed(of_nodes.norm, *rows))
            rows = of_edges.onsite(self.node[self.share.atoms], self.onsite, self.species)
            self.onsite = _normed(of_edges.onsite_norm, *rows)
            tell = None if correction is None else correction.told(block, self.node, self.onsite)
            summed = self._pass(block, layout, tell, output)
            if correction is not None:
                correction.after(block)
        onsite = stage1.readout.place("node", [self.onsite], self.species)
        output.onsite = stage1.readout.symmetrized("node", onsite, onsite, self.species)
        self.share.summed(output.hopping)
        return output

    def _first_messages(self) -> Tensor:
        """Of the first block, where all are scalars, summed; (n_atoms, size)."""
        (_, update, _), *_ = self.stage1.blocks
        summed = []
        message = self._messages(update.convolution, enveloped=True)
        for part in self.share.parts:
            frames, edge = part.frames(self.stage1.lmax), self.edges[part.edges]
            summed.append(frames.sum_out(message(part, edge[:, :0], edge[:, :0], edge), update.out))
            self.tick()
        return torch.cat(summed)

    def _pass(self, block: int, layout: FeatureLayout, tell: Tell | None, output: Output) -> Tensor:
        """Update of hoppings, and the summed messages of the next block; or the output, after the last one."""
        stage1, summed = self.stage1, []
        update, following = stage1.blocks[block][2], None
        if block + 1 < len(stage1.blocks):
            following = stage1.blocks[block + 1][1]
        edges, message = self.edges, self._messages(update.convolution, enveloped=False)
        if edges.shape[1] != update.out.size:
            self.edges = self.share.room(len(edges), update.out.size)
        next_message = None if following is None else self._messages(following.convolution, enveloped=True)
        for k, part in enumerate(self.share.parts):
            types = stage1.types(part.graph, slice(None))
            frames = part.frames(stage1.lmax)
            ends = part.ends_turned(frames, self.node[:, layout.multiplicities[0] :], layout.turning)
            edge = update.hopping(message(part, *ends, edges[part.edges]), edges[part.edges], types)
            self.edges[part.edges] = edge
            if tell is not None:
                tell(k, edge, ends, frames)
            if following is not None and next_message is not None:
                summed.append(frames.sum_out(next_message(part, *ends, edge), following.out))
            else:
                output.add(part, stage1.readout.place("edge", [edge], types[0]))
            self.tick()
        return torch.cat(summed) if summed else self.node[:0]

    def _messages(self, convolution: Convolution, *, enveloped: bool) -> Callable[..., Tensor]:
        """Messages of the hoppings of a part from features of their ends and their own."""
        stage1, invariants, weights = self.stage1, convolution.invariants(self.node), []
        for start in range(0, max(len(self.share.first), 1), ROWS):
            graph = self.share.undirected(slice(start, start + ROWS))
            weight = convolution.weights(stage1.gaussians(graph.distance))
            if enveloped:
                envelope = graph.distance.new_ones(len(graph.distance))
                if stage1.config.envelope:
                    envelope = smooth_envelope(graph.distance, stage1.pair_reach[graph.element_pair])
                weight = weight * (envelope * stage1.message_scale)[:, None]
            weights.append(weight)
        table = torch.cat(weights)

        def of_part(part: Neighborhood, of_i: Tensor, of_j: Tensor, edge: Tensor) -> Tensor:
            return convolution.hoppings(of_i, of_j, edge, invariants, part.ends, table, part.half)

        return of_part


def _normed(norm: LocalNorm | GraphNorm, rows: Tensor, skip: Tensor) -> Tensor:
    assert isinstance(norm, LocalNorm)
    out: Tensor = norm(rows, skip)
    return out


class Correction:
    """Stage 2 on the parts of a share.

    Parameters
    ----------
    transformer : GraphTransformer
    frame : Frame
    share : Share
    tick : callable
        Called after every part of a pass.
    """

    def __init__(self, transformer: GraphTransformer, frame: Frame, share: Share, tick: Tick) -> None:
        self.transformer, self.frame, self.share, self.tick = transformer, frame, share, tick
        self.n_groups, self.shift = frame.config.n_groups, frame.config.feature_shift
        graphs = [part.graph for part in share.parts]
        self.pairs = [part.pair_rows(frame.layout.lmax) for part in share.parts]
        both = list(zip(graphs, self.pairs, strict=True))
        self.biases = [transformer.bias(*each) for each in both]
        self.edges = share.room(sum(len(pairs.i) for pairs in self.pairs), frame.config.width)  # and on-site pairs
        for part, each in zip(share.parts, both, strict=True):
            self.edges[part.rows] = transformer.first(*each)
        invariants = [transformer.invariants(part.graph)[: part.n_own] for part in share.parts]
        self.invariants = frame.config.beta * torch.cat(invariants)
        self.node = transformer.node_embedding(share.species)
        self.of_nodes = torch.zeros_like(self.invariants)  # what atoms are told at the start of the next group
        for group in range(min(self.shift, self.n_groups - 1)):
            self._run(group)

    def told(self, block: int, node: Tensor, onsite: Tensor) -> Tell | None:
        """Take in features of atoms (N, size) and on-site pairs (n_atoms, size) after a block of stage 1.

        Returns what takes in those of the hoppings of a part: its number, their features, those of both ends as
        `Neighborhood.ends_turned` gives them without l = 0, and their frames. None if no group is told of this block.
        """
        if block + self.shift >= self.n_groups:
            return None
        node_map, edge_map, onsite_map = self.transformer.input_maps[block]
        of_nodes, of_onsite = self.frame.of_atoms(node[self.share.atoms], onsite)
        self.of_nodes = self.frame.config.alpha * node_map(of_nodes)
        onsite_rows = onsite_map(of_onsite)
        by_atoms = [edge_map(parts, less_mean=False) for parts in self.frame.by_atoms(node) if parts]

        def tell(k: int, edge: Tensor, ends: tuple[Tensor, Tensor], frames: EdgeFrames) -> None:
            told = self.frame.of_hoppings(edge, frames)
            if self.frame.invariant:
                told += self.frame.of_ends(ends[0])[0] + self.frame.of_ends(ends[1])[1]
            rows, part = edge_map(told), self.share.parts[k]
            for of_atoms, atoms in zip(by_atoms, part.ends if by_atoms else (), strict=True):
                rows = rows + of_atoms.index_select(0, atoms)
            self._add(k, onsite_rows[part.mine], rows)

        return tell

    def after(self, block: int) -> None:
        """Go on as far as the features up to a block allow."""
        if block + self.shift < self.n_groups - 1:
            self._run(block + self.shift)

    def run(self, features: Features, output: Output) -> Output:
        """The last group, which is told the output of stage 1, too, and what is read out."""
        frame, share = self.frame, self.share
        if self.n_groups > self.shift:
            _, edge_map, onsite_map = self.transformer.input_maps[-1]
            onsite = onsite_map([frame.of_onsite_output(output.onsite, features.species)], less_mean=False)
            for k, part in enumerate(share.parts):
                told = frame.of_hopping_output(output.of(part), part.frames(frame.layout.lmax), self._types(part))
                self._add(k, onsite[part.mine], edge_map([told], less_mean=False))
        self._run(self.n_groups - 1)
        change = Output(share, frame.readout)
        for k, part in enumerate(share.parts):
            frames = part.frames(frame.layout.lmax)
            ends = part.ends_turned(frames, features.node, frame.layout) if frame.invariant else ()
            hidden = frame.edge_hidden(self.edges[part.rows].index_select(0, self.pairs[k].hopping))
            edge = features.edges[part.edges]
            change.add(part, frame.hopping_out(edge, ends, hidden, frames, self._types(part)))
            self.tick()
        both = zip(share.parts, self.pairs, strict=True)
        onsite = torch.cat([self.edges[part.rows].index_select(0, pairs.onsite) for part, pairs in both])
        hidden = frame.node_hidden(onsite)
        rows = frame.onsite_out(features.node[share.atoms], features.onsite, hidden, features.species)
        change.onsite = frame.readout.symmetrized("node", rows, rows, features.species)
        share.summed(change.hopping)
        return change

    def _run(self, group: int) -> None:
        """The blocks of a group."""
        share = self.share
        self.node = share.of_all(self.node[share.atoms] + self.invariants + self.of_nodes)
        for block in self.transformer.groups[group]:
            mixed = []
            for part, pairs, bias in zip(share.parts, self.pairs, self.biases, strict=True):
                mixed.append(block.attend(pairs, self.node[part.atoms], self.edges[part.rows], bias))
                self.tick()
            self.node = share.of_all(block.nodes(self.node[share.atoms], torch.cat(mixed)))
            of_i, of_j = block.ends(self.node)
            for part, pairs in zip(share.parts, self.pairs, strict=True):
                edge = self.edges[part.rows]
                edge.copy_(block.update(pairs, of_i[part.atoms], of_j[part.atoms], edge))

    def _add(self, k: int, onsite: Tensor, hoppings: Tensor) -> None:
        """What the pairs of a part are told."""
        rows = self.pairs[k].merged(onsite, hoppings)
        self.edges[self.share.parts[k].rows].add_(rows, alpha=self.frame.config.lambda_)

    def _types(self, part: Neighborhood) -> RowTypes:
        return row_types(part.graph.element_pair, self.share.vocabulary.n_pairs)
