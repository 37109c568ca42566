"""Graphs of a split, in memory or on disk, and batches of them."""

import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Batch

from ase_hybridham.model import PairGraph
from ase_hybridham.train.distributed import ALONE, Workers

__all__ = ["Budget", "Graphs", "Step", "batches", "n_hoppings", "steps_of"]

ALIGNMENT = 64  # bytes, of tensors in the file


class Budget:
    """Memory that graphs may take together; the others lie in files without a name.

    Such files vanish with the process, however it ends.

    Parameters
    ----------
    n_bytes : float
        Infinite by default.
    folder : Path, optional
        Of the files; the system's own by default.
    """

    def __init__(self, n_bytes: float = float("inf"), folder: Path | None = None) -> None:
        self.left, self.folder = n_bytes, folder


@dataclass(frozen=True)
class _Stored:
    """Where a graph lies in the file, and what it consists of."""

    offset: int
    n_bytes: int
    device: torch.device
    tensors: tuple[tuple[str, torch.dtype, torch.Size, int], ...]
    n_atoms: int


class Graphs(Sequence[PairGraph]):
    """Graphs in memory while the budget lasts, then on disk; what is read from there is a copy.

    Parameters
    ----------
    graphs : iterable of PairGraph
    budget : Budget, optional
        Shared by all that are given it.
    """

    def __init__(self, graphs: Iterable[PairGraph] = (), budget: Budget | None = None) -> None:
        self.budget = Budget() if budget is None else budget
        self._items: list[PairGraph | _Stored] = []
        self._file: int | None = None
        self._end = 0
        for graph in graphs:
            self.append(graph)

    @property
    def on_disk(self) -> bool:
        """Whether some are."""
        return self._file is not None

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        item = self._items[index]
        return self._read(item) if isinstance(item, _Stored) else item

    def append(self, graph: PairGraph) -> None:
        """Add a graph."""
        self._items.append(graph)
        self._settle(len(self) - 1)

    def __setitem__(self, index: int, graph: PairGraph) -> None:
        """Put a graph in the place of one."""
        old = self._items[index]
        if not isinstance(old, _Stored):
            self.budget.left += n_bytes_of(old)
        self._items[index] = graph
        self._settle(index)

    def _settle(self, index: int) -> None:
        """Keep a new graph in memory or on disk."""
        graph = self._items[index]
        assert not isinstance(graph, _Stored)
        needed = n_bytes_of(graph)
        if needed <= self.budget.left:
            self.budget.left -= needed
        else:
            self._items[index] = self._write(graph)

    def _write(self, graph: PairGraph) -> _Stored:
        if self._file is None:
            self._file, name = tempfile.mkstemp(dir=self.budget.folder)
            weakref.finalize(self, os.close, self._file)
            os.unlink(name)
        start, place, tensors = self._end, 0, []
        for key, value in _tensors(graph).items():
            tensors.append((key, value.dtype, value.shape, place))
            content = memoryview(value.detach().cpu().contiguous().numpy().tobytes())
            n_written = 0
            while n_written < len(content):  # one call takes 2 GB at most
                n_written += os.pwrite(self._file, content[n_written:], start + place + n_written)
            place += -(-value.nbytes // ALIGNMENT) * ALIGNMENT
        self._end += place
        os.truncate(self._file, self._end)
        return _Stored(start, place, graph.distance.device, tuple(tensors), graph.num_nodes)

    def _read(self, stored: _Stored) -> PairGraph:
        assert self._file is not None
        content, n_read = memoryview(bytearray(stored.n_bytes)), 0
        while n_read < stored.n_bytes:  # one call gives 2 GB at most
            got = os.preadv(self._file, [content[n_read:]], stored.offset + n_read)
            if not got:
                raise OSError("the file of the graphs on disk is shorter than it was; is the disk full?")
            n_read += got
        graph = PairGraph(num_nodes=stored.n_atoms)
        for key, dtype, shape, place in stored.tensors:
            size = shape.numel()
            empty = torch.empty(0, dtype=dtype)
            flat = torch.frombuffer(content, dtype=dtype, count=size, offset=place) if size else empty
            graph[key] = flat.view(shape)
        return graph.to(stored.device)


def n_bytes_of(graph: PairGraph) -> int:
    """Memory that the tensors of a graph take."""
    return sum(value.nbytes for value in _tensors(graph).values())


def _tensors(graph: PairGraph) -> dict[str, Tensor]:
    """All that a graph holds besides its number of atoms."""
    return {key: graph[key] for key in graph.keys() if isinstance(graph[key], Tensor)}  # noqa: SIM118


def n_hoppings(graphs: Sequence[PairGraph]) -> list[int]:
    """Hoppings of every graph."""
    return [len(graph.distance) for graph in graphs]


def steps_of(
    sizes: Sequence[int],
    batch_size: int = 1,
    edges_per_batch: int | None = None,
    rng: np.random.Generator | None = None,
) -> list[NDArray[np.int64]]:
    """Which structures come together in the steps of an epoch, in random order if a generator is given.

    Parameters
    ----------
    sizes : sequence of int
        Hoppings of every structure.
    batch_size : int
        Structures in a step.
    edges_per_batch : int, optional
        Instead: a step takes structures as long as they have no more hoppings than that; one at least.
    """
    order = np.arange(len(sizes)) if rng is None else rng.permutation(len(sizes))
    if edges_per_batch is None:
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    cuts, n_edges = [], 0
    for place, k in enumerate(order):
        n_edges += sizes[k]
        if place and n_edges > edges_per_batch:
            cuts.append(place)
            n_edges = sizes[k]
    return np.split(order, cuts)


@dataclass(frozen=True)
class Step:
    """A batch, and this process's share of it.

    Parameters
    ----------
    whole : PairGraph
    part : PairGraph or None
        `whole` where one process has it all, None where nothing is left for this one.
    share : slice
        Structures of `whole` that are in `part`.
    """

    whole: PairGraph
    part: PairGraph | None
    share: slice


def batches(
    graphs: Sequence[PairGraph], steps: Sequence[NDArray[np.int64]], sizes: Sequence[int], group: Workers = ALONE
) -> Iterator[Step]:
    """The batches of some steps; graphs on disk are read while the step before is worked on."""

    def load(step: NDArray[np.int64]) -> Step:
        members = [graphs[int(k)] for k in step]
        share = group.share([sizes[k] for k in step])
        whole = Batch.from_data_list(members)
        if group.size == 1:
            return Step(whole, whole, share)
        return Step(whole, Batch.from_data_list(members[share]) if members[share] else None, share)

    if not (isinstance(graphs, Graphs) and graphs.on_disk):
        yield from map(load, steps)
        return
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(load, steps[0]) if len(steps) else None
        for following in [*steps[1:], None]:
            assert coming is not None
            step = coming.result()
            coming = pool.submit(load, following) if following is not None else None
            yield step
