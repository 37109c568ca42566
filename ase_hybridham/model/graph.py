"""Structures as graphs: a node per atom, an edge per hopping, on-site pairs with their nodes.

Edges are sorted by i. Every edge has its own frame, whose z axis is the edge; targets stand in that
frame, where the network works.
"""

from collections.abc import Iterator, Sequence
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

__all__ = [
    "PairGraph",
    "blocks_from_components",
    "components_of",
    "empty_operators",
    "turn_components",
    "write_hermitian",
]


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
    operators = empty_operators(pairs, vocabulary)
    for start, components in ((0, nodes), (pairs.n_atoms, edges)):
        rows = np.arange(start, start + len(components))
        for index, blocks in _lab_blocks(components, rows, pairs, vocabulary):
            for operator, of_spin in zip(operators, blocks, strict=True):
                operator.values[operator.index(index)] = of_spin
    return operators


def write_hermitian(
    operators: Sequence[PairBlocks], components: Tensor, rows: NDArray[np.int64], vocabulary: Vocabulary
) -> None:
    """Write the blocks of components, as `blocks_from_components` takes them, of some pairs and of their reverse.

    Exactly Hermitian: on-site blocks are replaced by their Hermitian part.
    """
    pairs = operators[0].pairs
    for index, blocks in _lab_blocks(components, rows, pairs, vocabulary):
        for operator, of_spin in zip(operators, blocks, strict=True):
            adjoint = of_spin.conj().swapaxes(1, 2)
            onsite = pairs.reverse[index] == index
            if onsite.any():
                of_spin = np.where(onsite[:, None, None], 0.5 * (of_spin + adjoint), of_spin)
                adjoint = of_spin.conj().swapaxes(1, 2)
            operator.values[operator.index(index)] = of_spin
            operator.values[operator.index(pairs.reverse[index])] = adjoint


def empty_operators(
    pairs: PairList, vocabulary: Vocabulary, out: Sequence[NDArray] | None = None
) -> tuple[PairBlocks, ...]:
    """Operators of zeros, or over given arrays: as many as there are, of eV in double precision."""
    spinor, n = vocabulary.spin == "spinor", vocabulary.n_operators
    dtype = np.complex128 if spinor else np.float64
    if out is None:
        return tuple(PairBlocks.zeros(pairs, vocabulary.basis, spinor=spinor, dtype=dtype) for _ in range(n))
    if len(out) != n or any(values.dtype != dtype for values in out):
        got = ", ".join(str(values.dtype) for values in out)
        raise ValueError(f"out: expected {n} array(s) of {np.dtype(dtype)}, got {got}")
    return tuple(PairBlocks(pairs, vocabulary.basis, values, spinor) for values in out)


def _lab_blocks(
    components: Tensor, rows: NDArray[np.int64], pairs: PairList, vocabulary: Vocabulary
) -> Iterator[tuple[NDArray[np.int64], list[NDArray]]]:
    """Pairs of two elements with their blocks in the lab, (n, n_i, n_j) for every operator."""
    elements = np.column_stack([pairs.numbers[pairs.i[rows]], pairs.numbers[pairs.j[rows]]])
    kinds, kind = np.unique(elements, axis=0, return_inverse=True)
    for t, (a, b) in enumerate(kinds.tolist()):
        which = np.flatnonzero(kind.ravel() == t)
        direct_sum, index = vocabulary.direct_sum((a, b)), rows[which]
        picked = components[torch.from_numpy(which).to(components.device)].detach().double().cpu()
        frames = [torch.from_numpy(f) for f in alignment_matrices(pairs.vectors[index], vocabulary.lmax)]
        lab = turn_components(picked[:, : direct_sum.size], direct_sum, frames, back=True)
        blocks = direct_sum.to_blocks(lab.numpy())
        yield index, [blocks[:, spin] for spin in range(2)] if vocabulary.n_operators == 2 else [blocks]
