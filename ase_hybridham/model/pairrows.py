"""Rows of all pairs of an atom side by side: its on-site pair, then its hoppings."""

from collections.abc import Callable
from typing import TypeVar, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ase_hybridham.model.edgeframes import Chunk
from ase_hybridham.model.graph import PairGraph

__all__ = ["PairRows", "joined", "run"]

T = TypeVar("T")


class PairRows:
    """The rows of a range of atoms, (n_rows, .), sorted by atom.

    Parameters
    ----------
    graph : PairGraph
    chunk : Chunk
        The atoms with their hoppings.

    Attributes
    ----------
    i, j : LongTensors, shape (n_rows,)
        Atoms of every pair: i counts from the first atom of the range, j from the first one of the graph.
    onsite, hopping : LongTensors
        Rows of the on-site pairs and of the hoppings.
    padding : LongTensor, shape (n_atoms, width)
        Rows of every atom; where it has fewer than `width` pairs, its on-site row again.
    missing : BoolTensor, shape (n_atoms, width)
        Where that is so.
    """

    def __init__(self, graph: PairGraph, chunk: Chunk) -> None:
        self.chunk = chunk
        i, j = graph.edge_index[:, chunk.edges]
        i = i - chunk.nodes.start
        atoms = torch.arange(chunk.nodes.stop - chunk.nodes.start, device=i.device)
        number = torch.arange(len(i), device=i.device)
        count = torch.bincount(i, minlength=len(atoms)) + 1
        self.onsite, self.hopping = torch.cumsum(count, 0) - count, number + i + 1
        places = torch.cat([self.onsite, self.hopping])
        self.order = torch.empty_like(places).index_copy(0, places, torch.arange(len(places), device=i.device))
        self.i, self.j = self.merged(atoms, i), self.merged(atoms + chunk.nodes.start, j)
        slot = torch.arange(int(count.max()), device=i.device)
        self.missing = slot >= count[:, None]
        self.padding = self.onsite[:, None] + slot.masked_fill(self.missing, 0)
        self.dense = not bool(self.missing.any())

    def merged(self, onsite: Tensor, hopping: Tensor) -> Tensor:
        """Rows of on-site pairs and of hoppings put in order."""
        return torch.cat([onsite, hopping]).index_select(0, self.order)

    def padded(self, rows: Tensor) -> Tensor:
        """(n_rows, n) -> (n_atoms, width, n)."""
        if not self.dense:
            rows = rows.index_select(0, self.padding.ravel())
        return rows.view(*self.padding.shape, rows.shape[1])


def run(one: Callable[..., T], *arguments: object, again: bool) -> T:
    """``one(*arguments)``, evaluated a second time for the derivative if `again`, which saves memory."""
    if again:
        return cast(T, checkpoint(one, *arguments, use_reentrant=False, preserve_rng_state=False))
    return one(*arguments)


def joined(parts: list[Tensor]) -> Tensor:
    """Rows of all chunks."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)
