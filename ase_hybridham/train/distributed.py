"""Several processes that train one network on shares of every batch, or share a prediction, as `torchrun` starts them.

In training every process has the whole data set and the same weights. Of a batch it evaluates its own structures; what
the network says of them goes to all, so that each has the loss of the whole batch, and with the gradients of its own
share. Their sum is the gradient that one process would have, whatever the loss is.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ase_hybridham.model import select_device

__all__ = ["ALONE", "Workers", "workers"]


CPU = torch.device("cpu")


@dataclass(frozen=True)
class Workers:
    """The processes of a run, and which of them this one is.

    Parameters
    ----------
    rank, size : int
        Rank 0 alone writes files and talks.
    device : torch.device
    """

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    @property
    def n_local(self) -> int:
        """How many of the processes are on this machine."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if self.size > 1 else 1

    def share(self, weights: Sequence[int]) -> slice:
        """This process's part of things in a row, whose weights are about the same for all."""
        if self.size == 1:
            return slice(0, len(weights))
        middles = np.cumsum(weights) - 0.5 * np.asarray(weights)
        owners = np.minimum(middles * self.size // max(sum(weights), 1), self.size - 1)
        return slice(*(int(cut) for cut in np.searchsorted(owners, [self.rank, self.rank + 1])))

    def whole(self, rows: Tensor, start: int, n_rows: int) -> Tensor:
        """Rows of all processes, shape (n_rows, ...); those of this one, from `start` on, keep their gradient."""
        if self.size == 1:
            return rows
        full = rows.new_zeros(n_rows, *rows.shape[1:])
        full[start : start + len(rows)] = rows.detach()
        dist.all_reduce(full)
        return torch.cat([full[:start], rows, full[start + len(rows) :]])

    def joined(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """The rows of all processes, of which each has so many, one process after the other."""
        if self.size == 1:
            return rows
        parts = [rows.new_empty(count, *rows.shape[1:]) for count in counts]
        for source, part in enumerate(parts):
            dist.broadcast(part.copy_(rows) if source == self.rank else part, src=source)
        return torch.cat(parts)

    def add_up(self, rows: Tensor) -> Tensor:
        """Sum over all processes, written over the rows."""
        if self.size > 1:
            dist.all_reduce(rows)
        return rows

    def collected(self, rows: Tensor, counts: Sequence[int]) -> Iterator[Tensor]:
        """On the first process the rows of each, one after the other; must be run through on all."""
        if not self.first:
            dist.send(rows.contiguous(), dst=0)
            return
        yield rows
        for source in range(1, self.size):
            part = rows.new_empty(counts[source], *rows.shape[1:])
            dist.recv(part, src=source)
            yield part

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their sums over all processes; one that is missing counts as 0."""
        if self.size == 1:
            return
        parameters = list(parameters)
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).ravel() for p in parameters])
        dist.all_reduce(flat)
        for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            p.grad = part.view_as(p)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Numbers summed over all processes."""
        if self.size == 1:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        return [float(value) for value in summed]

    def agree(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the tensors of the first."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)


ALONE = Workers()


@contextmanager
def workers(device: str) -> Iterator[Workers]:
    """The processes that `torchrun` started, connected while the block runs; without it this one alone.

    Parameters
    ----------
    device : str
        As `select_device` takes it. Of several accelerators each process takes the one of its local rank.

    Raises
    ------
    ValueError
        If the device is not there.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Workers(device=select_device(device))
        return
    kind = select_device(device).type
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    own = select_device(f"cuda:{os.environ['LOCAL_RANK']}" if kind == "cuda" else kind)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield Workers(dist.get_rank(), size, own)
    finally:
        dist.destroy_process_group()
