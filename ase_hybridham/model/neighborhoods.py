"""Parts of a structure that a network evaluates one after the other: some atoms with all their hoppings.

A part is a graph of its own, of these atoms and of those at the other ends, so that whatever works on the graph of a
structure works on it. Parts follow each other in the order of atoms; a process has some of them in a row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_hybridham.model.edgeframes import Chunk, EdgeFrames
from ase_hybridham.model.graph import PairGraph
from ase_hybridham.model.layout import FeatureLayout
from ase_hybridham.model.linear import RowTypes, row_types
from ase_hybridham.model.pairrows import PairRows
from ase_hybridham.model.vocabulary import Vocabulary
from ase_hybridham.symmetry import alignment_matrices
from ase_hybridham.system import PairList

__all__ = ["ALONE", "Neighborhood", "Processes", "Share"]


class Processes(Protocol):
    """The processes that share a prediction; `train.distributed.Workers` are some."""

    @property
    def rank(self) -> int:
        """Number of this one."""

    @property
    def size(self) -> int:
        """How many there are."""

    @property
    def n_local(self) -> int:
        """How many are on this machine."""

    def joined(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """The rows of all, of which each has so many, one process after the other."""

    def add_up(self, rows: Tensor) -> Tensor:
        """Sum over all."""

    def collected(self, rows: Tensor, counts: Sequence[int]) -> Iterator[Tensor]:
        """On the first process the rows of each; must be run through on all."""


class _Alone:
    """One process."""

    rank, size, n_local = 0, 1, 1

    def joined(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        return rows

    def add_up(self, rows: Tensor) -> Tensor:
        return rows

    def collected(self, rows: Tensor, counts: Sequence[int]) -> Iterator[Tensor]:
        yield rows


ALONE: Processes = _Alone()


@dataclass
class Neighborhood:
    """Some atoms with all their hoppings, and the atoms at their other ends.

    Parameters
    ----------
    graph : PairGraph
        Of these atoms, the own ones first.
    atoms : LongTensor
        What number each atom of the graph has in the structure.
    mine, edges, rows : slices
        The own atoms, their hoppings and all their pairs among those of the process.
    nodes : slice
        The own atoms among those of the structure.
    half : LongTensor, shape (n_hoppings,)
        Row of every hopping among the undirected ones of the process, `Share.first`.
    forward : BoolTensor, shape (n_hoppings,)
        Whether the undirected one is this, and not its reverse.
    """

    graph: PairGraph
    atoms: Tensor
    mine: slice
    edges: slice
    nodes: slice
    half: Tensor
    forward: Tensor

    @property
    def rows(self) -> slice:
        """See the class."""
        return slice(self.mine.start + self.edges.start, self.mine.stop + self.edges.stop)

    @property
    def n_own(self) -> int:
        """Number of own atoms."""
        return self.nodes.stop - self.nodes.start

    @property
    def ends(self) -> Tensor:
        """i and j of every hopping in the structure, shape (2, n_hoppings)."""
        return self.atoms[self.graph.edge_index]

    def frames(self, lmax: int) -> EdgeFrames:
        """Of the hoppings, anew, since what they keep is as large as features."""
        alignments = [self.graph[f"align_{l}"] for l in range(1, lmax + 1)]
        return EdgeFrames(alignments, self.graph.edge_index[0], self.half, self.n_own)

    def pair_rows(self, lmax: int) -> PairRows:
        """Of all pairs of the own atoms."""
        edges = slice(0, len(self.half))
        return PairRows(self.graph, Chunk(slice(0, self.n_own), edges, self.frames(lmax)))

    def ends_turned(self, frames: EdgeFrames, nodes: Tensor, layout: FeatureLayout) -> tuple[Tensor, Tensor]:
        """Features of atom i in the frame of every hopping, and of atom j in that of the reverse hopping.

        Parameters
        ----------
        frames : EdgeFrames
        nodes : Tensor, shape (N, size)
            Of all atoms of the structure, in the lab.
        layout : FeatureLayout
        """
        of_j = nodes.index_select(0, self.ends[1])
        return frames.into(nodes[self.nodes], layout), frames.reverse_ends(of_j, layout)


class Share:
    """The parts of a structure that a process has.

    Parameters
    ----------
    pairs : PairList
    vocabulary : Vocabulary
    lmax : int
        Of the frames.
    like : Tensor
        Of the network: its device and dtype.
    n_edges : int
        Hoppings of a part, unless one atom has more.
    processes : Processes
    scratch : str or Path, optional
        Folder for files that hold what is large, instead of memory. They vanish with what they hold.

    Attributes
    ----------
    parts : list of Neighborhood
    atoms : slice
        Of this process.
    n_atoms, n_half : lists over processes of int
        Atoms, and hoppings that come before their reverse.
    n_hoppings : int
        Of this process.
    first : array of int, shape (n_first,)
        Undirected hoppings of which this process has a direction, by the number of the one that comes first.
    species : LongTensor, shape (N,)
        Of all atoms.

    Raises
    ------
    ValueError
        If there are more processes than atoms.
    """

    def __init__(
        self,
        pairs: PairList,
        vocabulary: Vocabulary,
        lmax: int,
        like: Tensor,
        n_edges: int,
        processes: Processes,
        scratch: str | Path | None = None,
    ) -> None:
        self.pairs, self.vocabulary, self.processes, self.like, self.scratch = (
            pairs,
            vocabulary,
            processes,
            like,
            scratch,
        )
        size, number = processes.size, np.arange(pairs.n_hoppings)
        if size > pairs.n_atoms:
            raise ValueError(f"processes: expected at most one per atom, got {size} for {pairs.n_atoms} atoms")
        ends = np.searchsorted(pairs.i[pairs.hopping], np.arange(pairs.n_atoms + 1))  # where hoppings of atoms begin
        cuts = _cuts(ends, min(n_edges, -(-len(number) // size)), size)
        begins = (len(cuts) - 1) * np.arange(size + 1) // size  # first part of every process
        a, b = (int(begins[processes.rank + k]) for k in (0, 1))
        self.atoms, self.n_atoms = slice(int(cuts[a]), int(cuts[b])), np.diff(cuts[begins]).tolist()
        self._species = vocabulary.species_of(pairs.numbers)
        self.species = torch.from_numpy(self._species).to(like.device)
        density = np.bincount(self._species, minlength=vocabulary.n_species) / pairs.volume
        self._density = torch.from_numpy(density)[None].to(like)
        reverse, bounds = pairs.reverse[pairs.hopping] - pairs.n_atoms, ends[cuts[begins]]
        self.n_half = [int((number[x:y] < reverse[x:y]).sum()) for x, y in pairwise(bounds)]
        own = slice(*bounds[processes.rank : processes.rank + 2])
        self.first, half = np.unique(np.minimum(number[own], reverse[own]), return_inverse=True)
        self._shared = self._shared_with_others(number, reverse, bounds)
        self.n_hoppings = len(half)
        alignments = [self.room(self.n_hoppings, (2 * l + 1) ** 2) for l in range(1, lmax + 1)]
        self.parts = [
            self._part(slice(int(x), int(y)), slice(int(ends[x]), int(ends[y])), half, own.start, alignments)
            for x, y in pairwise(cuts[a : b + 1])
        ]

    def room(self, n: int, width: int) -> Tensor:
        """An array, shape (n, width), with any numbers in it."""
        if self.scratch is None or not n * width:
            return self.like.new_empty(n, width)
        with NamedTemporaryFile(dir=self.scratch, prefix="hybridham-") as file:
            flat = torch.from_file(file.name, shared=True, size=n * width, dtype=self.like.dtype)
        return flat.view(n, width)

    def of_all(self, rows: Tensor) -> Tensor:
        """Rows of all atoms of the structure from those of this process."""
        return self.processes.joined(rows, self.n_atoms)

    def summed(self, table: Tensor) -> Tensor:
        """Rows of `first` with what other processes have of them, written over the given ones."""
        if self._shared is not None:
            mine, places, n_shared = self._shared
            rows = table.new_zeros(n_shared, table.shape[1])
            rows[places] = table[mine]
            table[mine] = self.processes.add_up(rows)[places]
        return table

    def undirected(self, rows: slice) -> PairGraph:
        """Some rows of `first`, as far as scales of targets know them: one atom stands for all."""
        return self._graph(self.first[rows] + self.pairs.n_atoms, self.species[:1])

    def onsites(self) -> PairGraph:
        """The atoms of this process without hoppings."""
        return self._graph(np.empty(0, np.int64), self.species[self.atoms])

    def back_types(self, part: Neighborhood) -> RowTypes:
        """Pairs of elements of the reverse hoppings of those that are not `forward`."""
        n, t = self.vocabulary.n_species, part.graph.element_pair[~part.forward]
        return row_types(t % n * n + t // n, n**2)

    def _graph(self, rows: NDArray | slice, species: Tensor, edge_index: NDArray | None = None) -> PairGraph:
        """Of some pairs, without frames."""
        device, of_i, of_j = self.like.device, self._species[self.pairs.i[rows]], self._species[self.pairs.j[rows]]
        index = np.zeros((2, len(of_i)), dtype=np.int64) if edge_index is None else edge_index
        return PairGraph(
            species=species,
            edge_index=torch.from_numpy(index).to(device),
            element_pair=torch.from_numpy(of_i * self.vocabulary.n_species + of_j).to(device),
            distance=torch.from_numpy(self.pairs.distances[rows]).to(self.like),
            density=self._density,
            num_nodes=len(species),
        )

    def _part(self, nodes: slice, edges: slice, half: NDArray, start: int, alignments: list[Tensor]) -> Neighborhood:
        rows = slice(edges.start + self.pairs.n_atoms, edges.stop + self.pairs.n_atoms)
        i, j, n_own = self.pairs.i[rows] - nodes.start, self.pairs.j[rows], nodes.stop - nodes.start
        outside = (j < nodes.start) | (j >= nodes.stop)
        others, place = np.unique(j[outside], return_inverse=True)
        local = j - nodes.start
        local[outside] = n_own + place
        atoms = torch.from_numpy(np.concatenate([np.arange(nodes.start, nodes.stop), others])).to(self.like.device)
        graph = self._graph(rows, self.species[atoms], np.stack([i, local]))
        of_share = slice(edges.start - start, edges.stop - start)
        _, *matrices = alignment_matrices(self.pairs.vectors[rows], len(alignments))
        for l, (room, made) in enumerate(zip(alignments, matrices, strict=True), start=1):
            graph[f"align_{l}"] = room[of_share].view(made.shape).copy_(torch.from_numpy(made))
        half = half[of_share]
        forward = self.first[half] == np.arange(edges.start, edges.stop)
        both = (torch.from_numpy(each).to(self.like.device) for each in (half, forward))
        mine = slice(nodes.start - self.atoms.start, nodes.stop - self.atoms.start)
        return Neighborhood(graph, atoms, mine, of_share, nodes, *both)

    def _shared_with_others(
        self, number: NDArray, reverse: NDArray, bounds: NDArray
    ) -> tuple[Tensor, Tensor, int] | None:
        """Rows of `first` that two processes have, their places among all such hoppings, and how many these are."""
        if len(bounds) == 2:
            return None
        owner, other = (np.searchsorted(bounds[1:], each, side="right") for each in (number, reverse))
        shared = np.flatnonzero((owner != other) & (number < reverse))
        mine = np.flatnonzero(np.isin(self.first, shared, assume_unique=True))
        places = np.searchsorted(shared, self.first[mine])
        device = self.like.device
        return torch.from_numpy(mine).to(device), torch.from_numpy(places).to(device), len(shared)


def _cuts(ends: NDArray, n_edges: int, n_least: int) -> NDArray[np.int64]:
    """Atoms at which parts begin, and the end: as many as have no more than so many hoppings, at least one.

    `ends` holds the number of hoppings of all atoms before each, and of all.
    """
    cuts, n = [0], len(ends) - 1
    while cuts[-1] < n:
        start = cuts[-1]
        stop = int(np.searchsorted(ends, ends[start] + n_edges, side="right")) - 1
        left = n_least - len(cuts)  # parts that must follow
        cuts.append(max(start + 1, min(stop, n - left)))
    return np.array(cuts)
