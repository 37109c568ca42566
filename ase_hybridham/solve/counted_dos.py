"""How many states of a large system lie between energies, from counts alone: no state is computed for it.

A count is a factorization, and some dozen states cost as much as three or four. Where more states than that lie within
a width of the smearing, the density of states is cheaper from counts at the edges of bins.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ase_hybridham.solve.sparse import Pencil
from ase_hybridham.solve.windowed import SparseSolver, seconds_of_states
from ase_hybridham.system import LCAOSystem

__all__ = ["bin_edges", "counts_are_cheaper", "states_below"]

BINS = 5  # for each width


def bin_edges(low: float, high: float, width: float) -> NDArray[np.float64]:
    """Energies in eV at which states are counted, so near that a state is where it is to a tenth of the width."""
    return np.linspace(low, high, int(np.ceil(BINS * (high - low) / width)) + 1)


def states_below(
    solver: SparseSolver, system: LCAOSystem, k_points: NDArray, edges: NDArray[np.float64], *, progress: bool = False
) -> Iterator[list[NDArray[np.int64]]]:
    """Numbers of states below each energy, shape (n_edges,); a list of spins for every k-point.

    Parameters
    ----------
    solver : SparseSolver
        Its processes share the k-points.
    system : LCAOSystem
    k_points : array, shape (n_k, 3)
    edges : array, shape (n_edges,)
        eV, ascending.
    progress : bool
        Show a bar on stderr.

    Raises
    ------
    ValueError
        If the engine does not count.
    """
    every = solver.over(system, k_points, _Below(edges), n_counts=len(edges))
    yield from tqdm(every, total=len(k_points), desc="counts", leave=False, disable=None if progress else True)


def counts_are_cheaper(solver: SparseSolver, system: LCAOSystem, k_points: NDArray, edges: NDArray[np.float64]) -> bool:
    """Whether counts at all edges take less time than the states between them, by the costs that are told."""
    problem = solver.problem(system)
    pencil = problem.pencil(k_points[0])
    below, up_to = (_count(pencil, edge) for edge in edges[[0, -1]])
    counts = min(len(edges), 2 + (up_to - below) * int(np.ceil(np.log2(len(edges)))))
    return problem.cost_of_counts(counts).seconds < seconds_of_states(problem, up_to - below)


@dataclass(frozen=True, eq=False)
class _Below:
    """Counts of a pencil, none between edges that have as many states below."""

    edges: NDArray[np.float64]

    def __call__(self, solver: SparseSolver, pencil: Pencil) -> NDArray[np.int64]:
        below = np.zeros(len(self.edges), dtype=np.int64)
        last = len(below) - 1
        for end in (0, last):
            below[end] = _count(pencil, self.edges[end])
        intervals = [(0, last)]
        while intervals:
            low, high = intervals.pop()
            middle = (low + high) // 2
            if below[low] >= below[high]:
                below[low:high] = below[high]  # a count next to a state may be one too high
            elif middle > low:
                below[middle] = np.clip(_count(pencil, self.edges[middle]), below[low], below[high])
                intervals += [(low, middle), (middle, high)]
        return below


def _count(pencil: Pencil, energy: float) -> int:
    found = pencil.factor(float(energy), single=True).negative
    if found is None:
        raise ValueError("sparse solver: this engine does not count states; take another")
    return found
