"""Structures as graphs: a node per atom, an edge per hopping, on-site pairs with their nodes.

Edges are sorted by i. Every edge has its own frame, whose z axis is the edge; targets stand in that
frame, where the network works.
"""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Data

from ase_hybridham.errors import CheckpointError
from ase_hybridham.model.layout import FeatureLayout, RowTypes, TargetLayout
from ase_hybridham.symmetry import DirectSum, alignment_matrices, reverse_sign
from ase_hybridham.system import Basis, PairBlocks, PairList

__all__ = ["EdgeFrames", "PairGraph", "Vocabulary", "blocks_from_components", "row_types", "turn_components"]


class Vocabulary:
    """What the network's outputs mean: elements, pairs of elements, their direct sums.

    Parameters
    ----------
    basis : Basis
        Of the training set; its elements are the species, in order of atomic number.
    """

    def __init__(self, basis: Basis) -> None:
        self.basis = basis
        self.numbers = basis.numbers
        self.species = {z: s for s, z in enumerate(self.numbers)}
        # element pair t = n_species * species of i + species of j
        self.element_pairs = [(a, b) for a in self.numbers for b in self.numbers]
        self.targets = [TargetLayout(DirectSum(basis[a].degrees, basis[b].degrees)) for a, b in self.element_pairs]
        self.size = max(target.direct_sum.size for target in self.targets)
        self.lmax = max(target.lmax for target in self.targets)

    @property
    def n_species(self) -> int:
        """Number of elements."""
        return len(self.numbers)

    @property
    def n_pairs(self) -> int:
        """Number of ordered pairs of elements."""
        return len(self.element_pairs)

    def onsite_pair(self, species: int) -> int:
        """Element pair of an atom with itself."""
        return species * (self.n_species + 1)

    def reverse_pair(self, t: int) -> int:
        """Element pair (b, a) of element pair t = (a, b)."""
        return t % self.n_species * self.n_species + t // self.n_species

    def pair_reach(self, reach: float) -> Tensor:
        """Where messages end for every element pair, angstrom, float64: where its pairs end, at most at `reach`."""
        radii = [self.basis[z].cutoff or np.inf for z in self.numbers]
        return torch.tensor([[min(reach, a + b) for b in radii] for a in radii], dtype=torch.float64).ravel()

    def species_of(self, numbers: NDArray) -> NDArray[np.int64]:
        """Species of atomic numbers.

        Raises
        ------
        CheckpointError
            If the network does not know an element.
        """
        unknown = sorted(set(numbers.tolist()) - set(self.numbers))
        if unknown:
            known = ", ".join(chemical_symbols[z] for z in self.numbers)
            raise CheckpointError(
                f"model: trained for {known}, the structure has {chemical_symbols[unknown[0]]}; "
                "train on data with that element"
            )
        return np.array([self.species[int(z)] for z in numbers], dtype=np.int64)

    @cached_property
    def partner(self) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """For every element pair, index and sign that take the reverse edge's components (in its frame) to this one's.

        Padded to `size`; h_ij = (-1)^(l1+l2+L) S[L, m] h_ji with S of `reverse_sign`.
        """
        flips = reverse_sign(self.lmax)
        out = []
        for target in self.targets:
            reverse = DirectSum(target.direct_sum.columns, target.direct_sum.rows)
            index, sign = reverse.partner()
            flip = np.array(
                [flips[L][L + m] for L, m in zip(target.direct_sum.degree, target.direct_sum.order, strict=True)]
            )
            out.append((_padded(index, self.size, np.int64), _padded(sign * flip, self.size, np.float64)))
        return out

    @cached_property
    def onsite_partner(self) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """For every species, index and sign of the transposed on-site block."""
        out = []
        for s in range(self.n_species):
            index, sign = self.targets[self.onsite_pair(s)].direct_sum.partner()
            out.append((_padded(index, self.size, np.int64), _padded(sign, self.size, np.float64)))
        return out


def _padded(values: NDArray, size: int, dtype: Any) -> NDArray:
    return np.concatenate([values, np.zeros(size - len(values))]).astype(dtype)


class PairGraph(Data):
    """Graph of one structure, or of several in a torch-geometric batch.

    Attributes
    ----------
    species : LongTensor, shape (N,)
    edge_index : LongTensor, shape (2, E)
        i and j of the hoppings, sorted by i.
    reverse : LongTensor, shape (E,)
    element_pair : LongTensor, shape (E,)
    distance : Tensor, shape (E,), angstrom
    align_l : Tensors, shape (E, 2l+1, 2l+1), l = 1 .. lmax
        Edge frame <- lab.
    edge_target, node_target : Tensors, shape (E, size) and (N, size), eV
        Direct-sum components of hoppings (in the frame of the edge) and on-site blocks (lab), zero-padded;
        only in graphs made for training.
    """

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        if key == "reverse":
            return self.distance.shape[0]
        return super().__inc__(key, value, *args, **kwargs)

    @classmethod
    def from_pairs(
        cls, pairs: PairList, vocabulary: Vocabulary, lmax: int, dtype: torch.dtype = torch.float32
    ) -> "PairGraph":
        """The graph of a pair list with the frames of its edges."""
        species = vocabulary.species_of(pairs.numbers)
        i, j = pairs.i[pairs.hopping], pairs.j[pairs.hopping]
        graph = cls(
            species=torch.from_numpy(species),
            edge_index=torch.from_numpy(np.stack([i, j])),
            reverse=torch.from_numpy(pairs.reverse[pairs.hopping] - pairs.n_atoms),
            element_pair=torch.from_numpy(species[i] * vocabulary.n_species + species[j]),
            distance=torch.from_numpy(pairs.distances[pairs.hopping]).to(dtype),
            num_nodes=len(species),
        )
        frames = alignment_matrices(pairs.vectors[pairs.hopping], lmax)
        for l in range(1, lmax + 1):
            graph[f"align_{l}"] = torch.from_numpy(frames[l]).to(dtype)
        return graph

    @classmethod
    def with_targets(
        cls, hamiltonian: PairBlocks, vocabulary: Vocabulary, lmax: int, dtype: torch.dtype = torch.float32
    ) -> "PairGraph":
        """The graph of an operator's pairs that carries the operator as target."""
        pairs = hamiltonian.pairs
        graph = cls.from_pairs(pairs, vocabulary, lmax, dtype)
        frames = [
            torch.from_numpy(f) for f in alignment_matrices(pairs.vectors, vocabulary.lmax)
        ]  # self pairs: the lab
        values = torch.zeros(len(pairs), vocabulary.size, dtype=torch.float64)
        for elements, rows, blocks in hamiltonian.groups():
            direct_sum = DirectSum(vocabulary.basis[elements[0]].degrees, vocabulary.basis[elements[1]].degrees)
            values[rows, : direct_sum.size] = turn_components(
                torch.from_numpy(direct_sum.to_sum(blocks)), direct_sum, [frame[rows] for frame in frames]
            )
        graph.node_target = values[pairs.onsite].to(dtype)
        graph.edge_target = values[pairs.hopping].to(dtype)
        return graph

    def frames(self, lmax: int) -> "EdgeFrames":
        """The frames of the edges, ready to turn features."""
        alignments = [self[f"align_{l}"] for l in range(1, lmax + 1)]
        return EdgeFrames(alignments, self.edge_index[0], self.reverse, self.num_nodes)


def turn_components(components: Tensor, direct_sum: DirectSum, frames: list[Tensor], *, back: bool = False) -> Tensor:
    """Direct-sum components, shape (E, size), of the lab in the frames (or back), L by L.

    `frames` are matrices of shape (E, 2L+1, 2L+1) for L = 0, 1, ...
    """
    columns, parts = [], []
    for L in range(int(direct_sum.degree.max()) + 1):
        index = torch.from_numpy(np.flatnonzero(direct_sum.degree == L)).to(components.device)
        if len(index):
            turn = frames[L] if back else frames[L].transpose(1, 2)
            part = components.index_select(1, index).unflatten(1, (-1, 2 * L + 1))
            parts.append(torch.bmm(part, turn).flatten(1))
            columns.append(index)
    return torch.cat(parts, dim=1).index_select(1, torch.argsort(torch.cat(columns)))


def blocks_from_components(nodes: Tensor, edges: Tensor, pairs: PairList, vocabulary: Vocabulary) -> PairBlocks:
    """Blocks of on-site components (lab) and hopping components (edge frames), eV."""
    components = torch.cat([nodes, edges]).detach().double().cpu()
    frames = [torch.from_numpy(f) for f in alignment_matrices(pairs.vectors, vocabulary.lmax)]
    groups: dict[tuple[int, int], NDArray] = {}
    for elements, rows in pairs.element_groups.items():
        direct_sum = DirectSum(vocabulary.basis[elements[0]].degrees, vocabulary.basis[elements[1]].degrees)
        picked = components[rows, : direct_sum.size]
        lab = turn_components(picked, direct_sum, [frame[rows] for frame in frames], back=True)
        groups[elements] = direct_sum.to_blocks(lab.numpy())
    return PairBlocks.from_groups(pairs, vocabulary.basis, groups)


class EdgeFrames:
    """Turns node features into the frames of their edges and sums messages back.

    The edges of a node are padded to the largest number of neighbors, so that turning is one matrix product
    per l and node (shape (neighbors (2l+1), 2l+1)) instead of thousands of tiny ones.

    Parameters
    ----------
    alignments : list of tensors, shape (E, 2l+1, 2l+1), l = 1 .. lmax
    center : LongTensor, shape (E,)
        i, ascending.
    reverse : LongTensor, shape (E,)
    n_nodes : int
    """

    def __init__(self, alignments: list[Tensor], center: Tensor, reverse: Tensor, n_nodes: int) -> None:
        degree = torch.bincount(center, minlength=n_nodes)
        self.n_nodes, self.n_edges, self.reverse = n_nodes, len(center), reverse
        self.width = int(degree.max()) if len(center) else 0
        self.dense = self.n_edges == n_nodes * self.width
        first = torch.cumsum(degree, 0) - degree
        self.slot = center * self.width + torch.arange(len(center), device=center.device) - first[center]
        self.by_edge = alignments
        self.alignments = [self._pad(a.flatten(1)).view(n_nodes, -1, a.shape[-1]) for a in alignments]
        self.signs: dict[FeatureLayout, Tensor] = {}
        self.indices: dict[FeatureLayout, tuple[Tensor, Tensor]] = {}

    def _pad(self, rows: Tensor) -> Tensor:
        """(E, n) -> (n_nodes, width, n), zeros where a node has fewer edges."""
        if not self.dense:
            rows = rows.new_zeros(self.n_nodes * self.width, rows.shape[1]).index_copy(0, self.slot, rows)
        return rows.view(self.n_nodes, self.width, rows.shape[1])

    def _index(self, layout: FeatureLayout, device: torch.device) -> tuple[Tensor, Tensor]:
        """Edge row -> lab row of components, and back."""
        if layout not in self.indices:
            to_lab = torch.from_numpy(layout.edge_to_lab).to(device)
            self.indices[layout] = (to_lab, torch.argsort(to_lab))
        return self.indices[layout]

    def into(self, nodes: Tensor, layout: FeatureLayout) -> Tensor:
        """Features of atom i in the frame of every edge, (N, size) -> (E, size)."""
        _, to_edge = self._index(layout, nodes.device)
        parts = []
        for l, part in enumerate(nodes.split(layout.widths, dim=1)):
            if l == 0:
                parts.append(part[:, None].expand(-1, self.width, -1))
            else:
                turned = torch.bmm(self.alignments[l - 1], part.unflatten(1, (2 * l + 1, -1)))
                parts.append(turned.view(self.n_nodes, self.width, layout.widths[l]))
        out = torch.cat(parts, dim=2).flatten(0, 1)
        if not self.dense:
            out = out.index_select(0, self.slot)
        return out.index_select(1, to_edge)

    def partner(self, turned: Tensor, layout: FeatureLayout) -> Tensor:
        """Features of atom j in the frame of every edge, from `into`: D(ij) = S D(ji)."""
        if layout not in self.signs:
            flips = reverse_sign(layout.lmax)
            degree = layout.channel_degree[layout.edge.channel]
            sign = [flips[l][l + m] for l, m in zip(degree, layout.edge.order, strict=True)]
            self.signs[layout] = torch.tensor(sign, dtype=turned.dtype, device=turned.device)
        return turned.index_select(0, self.reverse) * self.signs[layout]

    def to_lab(self, rows: Tensor, layout: FeatureLayout) -> Tensor:
        """Features of edges in the lab, (E, size) -> (E, size)."""
        to_lab, _ = self._index(layout, rows.device)
        parts = list(rows.index_select(1, to_lab).split(layout.widths, dim=1))
        for l, mul in enumerate(layout.multiplicities[1:], start=1):
            columns = parts[l].unflatten(1, (2 * l + 1, mul))
            parts[l] = torch.bmm(self.by_edge[l - 1].transpose(1, 2), columns).flatten(1)
        return torch.cat(parts, dim=1)

    def sum_out(self, messages: Tensor, layout: FeatureLayout) -> Tensor:
        """Sum over the edges of every node of messages turned back to the lab, (E, size) -> (N, size)."""
        to_lab, _ = self._index(layout, messages.device)
        padded = self._pad(messages.index_select(1, to_lab))
        parts = []
        for l, part in enumerate(padded.split(layout.widths, dim=2)):
            if l == 0:
                parts.append(part.sum(1))
            else:
                columns = part.reshape(self.n_nodes, self.width * (2 * l + 1), layout.multiplicities[l])
                parts.append(torch.bmm(self.alignments[l - 1].transpose(1, 2), columns).flatten(1))
        return torch.cat(parts, dim=1)


def row_types(types: Tensor, n_types: int) -> RowTypes:
    """Rows of every type that occurs; with no rows at all they count as of type 0."""
    if n_types == 1 or not len(types):
        return [(0, None)]
    return [(int(t), torch.nonzero(types == t).ravel()) for t in torch.unique(types)]
