"""Structures as graphs: a node per atom, an edge per hopping, on-site pairs with their nodes.

Edges are sorted by i. Every edge has its own frame, whose z axis is the edge; targets stand in that
frame, where the network works.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Data

from ase_hybridham.model.edgeframes import EdgeFrames
from ase_hybridham.model.vocabulary import Vocabulary
from ase_hybridham.symmetry import AnyDirectSum, alignment_matrices
from ase_hybridham.system import PairBlocks, PairList

__all__ = ["PairGraph", "blocks_from_components", "components_of", "turn_components"]


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
    density : Tensor, shape (1, n_species), 1/angstrom^3
        Atoms of each element by the volume of the cell.
    align_l : Tensors, shape (E, 2l+1, 2l+1), l = 1 .. lmax
        Edge frame <- lab.
    edge_target, node_target : Tensors, shape (E, size) and (N, size), eV
        Direct-sum components of hoppings (in the frame of the edge) and on-site blocks (lab), zero-padded;
        only in graphs made for training.
    edge_overlap, node_overlap : Tensors, of the same shapes
        The same of S, for each spin; only in graphs whose gauge is to be free.
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
        density = np.bincount(species, minlength=vocabulary.n_species) / pairs.volume
        graph = cls(
            species=torch.from_numpy(species),
            edge_index=torch.from_numpy(np.stack([i, j])),
            reverse=torch.from_numpy(pairs.reverse[pairs.hopping] - pairs.n_atoms),
            element_pair=torch.from_numpy(species[i] * vocabulary.n_species + species[j]),
            distance=torch.from_numpy(pairs.distances[pairs.hopping]).to(dtype),
            density=torch.from_numpy(density)[None].to(dtype),
            num_nodes=len(species),
        )
        frames = alignment_matrices(pairs.vectors[pairs.hopping], lmax)
        for l in range(1, lmax + 1):
            graph[f"align_{l}"] = torch.from_numpy(frames[l]).to(dtype)
        return graph

    @classmethod
    def with_targets(
        cls,
        hamiltonian: Sequence[PairBlocks],
        vocabulary: Vocabulary,
        lmax: int,
        dtype: torch.dtype = torch.float32,
        *,
        overlap: PairBlocks | None = None,
    ) -> "PairGraph":
        """The graph of the pairs of a Hamiltonian that carries it as target: one operator, or up and down.

        Given S on the same pairs, without spin, the graph carries that, too.
        """
        if len(hamiltonian) != vocabulary.n_operators:
            raise ValueError(f"hamiltonian: expected {vocabulary.n_operators} operator(s), got {len(hamiltonian)}")
        pairs = hamiltonian[0].pairs
        graph = cls.from_pairs(pairs, vocabulary, lmax, dtype)
        values = components_of(hamiltonian, vocabulary)
        graph.node_target, graph.edge_target = (values[rows].to(dtype) for rows in (pairs.onsite, pairs.hopping))
        if overlap is not None:
            spins = [overlap.to_spinor() if vocabulary.spin == "spinor" else overlap] * len(hamiltonian)
            values = components_of(spins, vocabulary)
            graph.node_overlap, graph.edge_overlap = (values[rows].to(dtype) for rows in (pairs.onsite, pairs.hopping))
        return graph

    def frames(self, lmax: int) -> "EdgeFrames":
        """The frames of the edges, ready to turn features."""
        alignments = [self[f"align_{l}"] for l in range(1, lmax + 1)]
        return EdgeFrames(alignments, self.edge_index[0], self.reverse, self.num_nodes)


def turn_components(
    components: Tensor, direct_sum: AnyDirectSum, frames: list[Tensor], *, back: bool = False
) -> Tensor:
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


def components_of(operators: Sequence[PairBlocks], vocabulary: Vocabulary) -> Tensor:
    """Direct-sum components, shape (n_pairs, size), float64: on-site in the lab, hoppings in the frames of the edges.

    Inverse of `blocks_from_components`.
    """
    pairs = operators[0].pairs
    frames = [torch.from_numpy(f) for f in alignment_matrices(pairs.vectors, vocabulary.lmax)]  # self pairs: the lab
    values = torch.zeros(len(pairs), vocabulary.size, dtype=torch.float64)
    for (elements, rows, blocks), *others in zip(*(h.groups() for h in operators), strict=True):
        direct_sum = vocabulary.direct_sum(elements)
        if others:
            blocks = np.stack([blocks, *(stack for _, _, stack in others)], axis=1)
        components = torch.from_numpy(np.ascontiguousarray(direct_sum.to_sum(blocks).real))
        values[rows, : direct_sum.size] = turn_components(components, direct_sum, [frame[rows] for frame in frames])
    return values


def blocks_from_components(
    nodes: Tensor, edges: Tensor, pairs: PairList, vocabulary: Vocabulary
) -> tuple[PairBlocks, ...]:
    """The operators of on-site components (lab) and hopping components (edge frames), eV: one, or up and down."""
    components = torch.cat([nodes, edges]).detach().double().cpu()
    frames = [torch.from_numpy(f) for f in alignment_matrices(pairs.vectors, vocabulary.lmax)]
    groups: list[dict[tuple[int, int], NDArray]] = [{} for _ in range(vocabulary.n_operators)]
    for elements, rows in pairs.element_groups.items():
        direct_sum = vocabulary.direct_sum(elements)
        picked = components[rows, : direct_sum.size]
        lab = turn_components(picked, direct_sum, [frame[rows] for frame in frames], back=True)
        blocks = direct_sum.to_blocks(lab.numpy())
        for spin, group in enumerate(groups):
            group[elements] = blocks[:, spin] if len(groups) > 1 else blocks
    spinor = vocabulary.spin == "spinor"
    return tuple(PairBlocks.from_groups(pairs, vocabulary.basis, group, spinor=spinor) for group in groups)
