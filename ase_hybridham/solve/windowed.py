"""Which solver a system needs, and the states of a window of energies as bands, DOS and unfolding take them.

`dense_states` finds all states by LAPACK. `SparseSolver` finds those near an energy, numbers them by a count of the
states below, and is the only one that fits from a few thousand orbitals on.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ase_hybridham.parallel import ordered_results
from ase_hybridham.solve.cost import dense_cost
from ase_hybridham.solve.dense import eigenvalues, warn_of
from ase_hybridham.solve.factor import Engine
from ase_hybridham.solve.memory import available_memory
from ase_hybridham.solve.multifrontal import Multifrontal
from ase_hybridham.solve.pattern import Pattern
from ase_hybridham.solve.pencil import OVERLAP_THRESHOLD, check_threshold
from ase_hybridham.solve.sparse import Pencil, SparseProblem
from ase_hybridham.solve.states import Eigensolver, Solved, rectangle
from ase_hybridham.system import LCAOSystem

__all__ = [
    "DENSE_ORBITALS",
    "N_STATES",
    "Solver",
    "SparseSolver",
    "check_solver",
    "energies_of",
    "pick_between",
    "pick_solver",
    "states_between",
]

Found = TypeVar("Found")
Solver = Literal["auto", "dense", "sparse"] | Eigensolver

DENSE_ORBITALS = 2500  # "auto" asks LAPACK up to here: 192 atoms of carbon, half a GB, seconds a k-point
N_STATES = 50  # +-1 eV of E_F in 1324 atoms of a bilayer of graphene
WORTH_TELLING = 10.0  # seconds
NARROW = 1e-3  # eV; a window that is not cut
SLICE = 120  # states of a window that are found from one factorization; more cost more orthogonalization than another

logger = logging.getLogger(__name__)


class SparseSolver:
    """States near an energy, by `SparseProblem`: an `Eigensolver`.

    Parameters
    ----------
    n_states : int, optional
        How many at a k-point, those nearest to the center; a few more, since multiplets come as a whole. By default 50,
        or a sixth of the orbitals.
    center : float, optional
        eV. What uses the solver puts it where it looks: bands at the Fermi level, a density of states in the middle of
        its energies.
    window : float, optional
        All states within so many eV of the center instead of a number of them.
    engine : function
        Pattern -> Engine.
    single : bool, optional
        Factorize in single precision, see `SparseProblem`; by default where double precision does not fit in memory.
    count : bool
        Compare the number of states with two counts, see `Pencil.eigenpairs`. Those in a `window` always are.
    processes : int
        k-points at the same time, each with one thread for linear algebra and a factorization of its own in memory.
    overlap_threshold : float, optional
        As in `eigenvalues`; by default that of what uses the solver.

    Raises
    ------
    ValueError
        If a number makes no sense.
    """

    def __init__(
        self,
        n_states: int | None = None,
        *,
        center: float | None = None,
        window: float | None = None,
        engine: Callable[[Pattern], Engine] = Multifrontal,
        single: bool | None = None,
        count: bool = True,
        processes: int = 1,
        overlap_threshold: float | None = None,
    ) -> None:
        if n_states is not None and not (n_states >= 1 and n_states == int(n_states)):
            raise ValueError(f"sparse solver: expected 1 state or more, got {n_states}")
        if center is not None and not np.isfinite(center):
            raise ValueError(f"sparse solver: expected a center in eV, got {center}")
        if window is not None and not (np.isfinite(window) and window > 0):
            raise ValueError(f"sparse solver: expected a window > 0 eV, got {window}")
        self.n_states, self.center, self.window = None if n_states is None else int(n_states), center, window
        if processes < 1:
            raise ValueError(f"sparse solver: expected 1 process or more, got {processes}")
        if overlap_threshold is not None:
            check_threshold(overlap_threshold)
        self.engine, self.single, self.count, self.processes = engine, single, count, processes
        self.overlap_threshold = overlap_threshold
        self._known: list[tuple[LCAOSystem, SparseProblem]] = []  # the last one; shared by copies

    def around(self, center: float, window: float | None = None) -> "SparseSolver":
        """The same with a center, and a window, where it has none."""
        center = center if self.center is None else self.center
        return self._with(center=center, window=window if self.window is None else self.window)

    def leaving_out(self, overlap_threshold: float | None) -> "SparseSolver":
        """The same with a threshold where it has none."""
        return self if self.overlap_threshold is not None else self._with(overlap_threshold=overlap_threshold)

    def _with(self, **changes: Any) -> "SparseSolver":
        other = SparseSolver()
        other.__dict__.update(self.__dict__ | changes)  # shares what is known of the system, which a pickle leaves out
        return other

    def problem(self, system: LCAOSystem) -> SparseProblem:
        """The system analyzed, once for all that is asked of it in a row.

        Raises
        ------
        OverlapError, ValueError
            As `SparseProblem`.
        """
        threshold = OVERLAP_THRESHOLD if self.overlap_threshold is None else self.overlap_threshold
        for known, problem in self._known:
            same = known.hamiltonian is system.hamiltonian and known.overlap is system.overlap
            if same and problem.overlap_threshold in (threshold, 0.0 if system.overlap is None else threshold):
                return problem
        problem = SparseProblem(system, self.engine, single=bool(self.single), overlap_threshold=threshold)
        self._known[:] = [(system, problem)]
        return problem

    def __call__(self, system: LCAOSystem, k_points: NDArray) -> Iterator[list[Solved]]:
        """See `Eigensolver`."""
        if self.center is None:
            raise ValueError("sparse solver: expected a center in eV, around which it looks, got none")
        yield from self.over(system, k_points, SparseSolver.solve)

    def over(
        self,
        system: LCAOSystem,
        k_points: NDArray,
        what: Callable[["SparseSolver", Pencil], Found],
        n_counts: int = 0,
    ) -> Iterator[list[Found]]:
        """What a function of a module finds, at every k-point for every spin, over the processes.

        Where it only counts, `n_counts` tells how often at most; in single precision.

        Raises
        ------
        WorkerError
            If a process ends from outside.
        """
        self._admit(system, len(k_points), n_counts)
        problem = self.problem(system)
        solver = self._with(single=problem.single)  # other processes do as this one
        dropped: list[tuple[float, int, int]] = []
        every = ordered_results(_AtK(solver, system, what), list(k_points), self.processes)
        for row, (_, (found, left_out)) in enumerate(every):
            if left_out is not None:
                dropped.append((*left_out, row))
            if dropped and row + 1 == len(k_points):  # nobody may ask for more
                warn_of(dropped, k_points, system.n_orbitals, problem.overlap_threshold)
            yield found

    def _admit(self, system: LCAOSystem, n_k: int, n_counts: int) -> None:
        """Tell what it will cost, and refuse what does not fit in memory.

        Raises
        ------
        ValueError
            If it does not fit in single precision either.
        """
        problem, n = self.problem(system), system.n_orbitals
        free, at_once = available_memory(), min(self.processes, max(n_k, 1))
        for single in (False, True) if self.single is None else (self.single,):
            problem.single = single
            if n_counts:
                cost = problem.cost_of_counts(n_counts, n_k)
            else:
                cost = problem.cost(self.wanted(n), n_k, count=self.count)
            if at_once * cost.bytes <= free:
                break
        else:
            raise ValueError(
                f"sparse solver: expected {at_once * cost.bytes / 2**30:.1f} GB of free memory for {n} orbitals, got "
                f"{free / 2**30:.1f}; ask for fewer {'processes' if at_once > 1 else 'states'}, or use more machines "
                "(docs/mpi.md)"
            )
        if cost.seconds > WORTH_TELLING:
            logger.info(
                "%d orbitals, %s at %d k-points%s: %s",
                n,
                f"{n_counts} counts or less" if n_counts else f"{self.wanted(n)} states or more",
                n_k,
                ", single precision" if single or n_counts else "",
                cost.describe(),
            )

    def __getstate__(self) -> dict[str, Any]:
        # what is known of a system takes more room than the system
        return {**self.__dict__, "_known": []}

    def wanted(self, n_orbitals: int) -> int:
        """States to look for at a k-point."""
        return min(N_STATES, max(n_orbitals // 6, 1)) if self.n_states is None else self.n_states

    def solve(self, pencil: Pencil) -> Solved:
        """The states of one pencil."""
        assert self.center is not None
        if self.window is not None:
            return states_between(pencil, self.center - self.window, self.center + self.window)
        found = pencil.eigenpairs(self.wanted(pencil.pattern.n), self.center, count=self.count)
        return Solved(found.energies, found.vectors, found.first_band)


@dataclass(frozen=True, eq=False)
class _AtK(Generic[Found]):
    """A function of a k-point, for other processes, which analyze the system once each."""

    solver: SparseSolver
    system: LCAOSystem
    what: Callable[[SparseSolver, Pencil], Found]

    def __call__(self, k: NDArray) -> tuple[list[Found], tuple[float, int] | None]:
        """With the smallest eigenvalue of S(k), and how many directions are left out, if some are."""
        problem, found, left_out = self.solver.problem(self.system), [], None
        for spin in range(len(self.system.hamiltonian)):
            pencil = problem.pencil(k, spin)
            found.append(self.what(self.solver, pencil))
            left_out = pencil.left_out
        return found, None if left_out is None else (left_out.smallest, left_out.vectors.shape[1])


def check_solver(solver: Solver) -> None:
    """Refuse what is no solver, as `pick_solver` does."""
    if not callable(solver) and solver not in ("auto", "dense", "sparse"):
        raise ValueError(f"solver: expected 'auto', 'dense', 'sparse' or a function, got {solver!r}")


def pick_solver(system: LCAOSystem, solver: Solver, overlap_threshold: float | None = None) -> Eigensolver | None:
    """The solver that a word means, None for LAPACK and all states; a solver is what it is.

    Parameters
    ----------
    system : LCAOSystem
    solver : Solver
    overlap_threshold : float, optional
        For a `SparseSolver` that has none of its own.

    Raises
    ------
    ValueError
        If the word is unknown.
    """
    if isinstance(solver, SparseSolver):
        return solver.leaving_out(overlap_threshold)
    check_solver(solver)
    if callable(solver):
        return solver
    if solver == "auto":
        return None if system.n_orbitals <= DENSE_ORBITALS else SparseSolver(overlap_threshold=overlap_threshold)
    if solver == "dense":
        need, free = dense_cost(system).bytes, available_memory()
        if need > free:
            raise ValueError(
                f"dense solver: expected {need / 2**30:.1f} GB of free memory for {system.n_orbitals} orbitals, got "
                f"{free / 2**30:.1f}; use solver 'sparse'"
            )
        return None
    return SparseSolver(overlap_threshold=overlap_threshold)


def pick_between(
    system: LCAOSystem,
    solver: Solver,
    low: float,
    high: float,
    k_points: NDArray,
    *,
    vectors: bool,
    overlap_threshold: float = OVERLAP_THRESHOLD,
) -> Eigensolver | None:
    """The solver of all states between two energies in eV; "auto" takes LAPACK where there are too many.

    Raises
    ------
    OverlapError, ValueError
        As `pick_solver` and `SparseProblem`.
    """
    picked = pick_solver(system, solver, overlap_threshold)
    if not isinstance(picked, SparseSolver):
        return picked
    picked = picked.around(0.5 * (low + high), 0.5 * (high - low))
    if solver == "auto" and len(k_points):
        problem, dense = picked.problem(system), dense_cost(system, vectors=vectors)
        pencil = problem.pencil(k_points[0])
        below, up_to = pencil.count(low), pencil.count(high)
        assert below is not None
        assert up_to is not None
        if dense.seconds < seconds_of_states(problem, up_to - below) and dense.bytes < available_memory():
            return None
    return picked


def seconds_of_states(problem: SparseProblem, n_states: int) -> float:
    """What all states of a window cost at a k-point, in slices."""
    slices = max(1, -(-n_states // SLICE))
    return slices * problem.cost(-(-n_states // slices), count=False).seconds


def energies_of(
    system: LCAOSystem,
    k_points: NDArray,
    solver: Eigensolver | None,
    *,
    overlap_threshold: float = OVERLAP_THRESHOLD,
    progress: bool = False,
) -> tuple[NDArray[np.float64], int]:
    """Energies in eV that a picked solver finds, as `rectangle` has them, and the number of the first band.

    Raises
    ------
    OverlapError, ValueError
        As `eigenvalues` and the solver.
    """
    if solver is None:
        return eigenvalues(system, k_points, overlap_threshold=overlap_threshold), 0
    found = []
    for of_spins in tqdm(
        solver(system, k_points), total=len(k_points), desc="k-points", leave=False, disable=None if progress else True
    ):
        found.append([(one.energies, one.first_band) for one in (Solved(*some) for some in of_spins)])
    energies, _, first = rectangle(found)
    return energies, first


def states_between(pencil: Pencil, low: float, high: float) -> Solved:
    """All states with energies from `low` to `high` in eV, as many as two counts say.

    Where there are many the window is cut in slices, each with a factorization of its own.

    Raises
    ------
    ValueError
        If the engine does not count.
    """
    edges = {energy: pencil.count(energy) for energy in (low, high)}
    if None in edges.values():
        raise ValueError(
            "sparse solver: this engine does not count states; ask for a number of states, or take another"
        )
    found = list(_slices(pencil, low, high, int(edges[low] or 0), int(edges[high] or 0)))
    empty = np.empty((pencil.pattern.n, 0), dtype=pencil.h.dtype)
    energies = np.concatenate([np.empty(0), *(some.energies for some in found)])
    return Solved(energies, np.hstack([empty, *(some.vectors for some in found)]), edges[low])


def _slices(pencil: Pencil, low: float, high: float, below: int, up_to: int) -> Iterator[Solved]:
    """Windows next to each other, the lowest first; `below`, `up_to`: states below their edges."""
    middle = 0.5 * (low + high)
    if up_to == below:
        return
    if up_to - below > SLICE and high - low > NARROW:
        count = pencil.count(middle)
        assert count is not None
        yield from _slices(pencil, low, middle, below, count)
        yield from _slices(pencil, middle, high, count, up_to)
        return
    yield _within(pencil, low, high, up_to - below)


def _within(pencil: Pencil, low: float, high: float, expected: int) -> Solved:
    for count in (False, True):  # with a count it looks for those that are missing
        found = pencil.eigenpairs(expected, 0.5 * (low + high), count=count)
        inside = (found.energies >= low) & (found.energies < high)
        if inside.sum() == expected:
            break
    else:
        logger.warning(
            "states from %.6f to %.6f eV: counted %d, found %d; take another window", low, high, expected, inside.sum()
        )
    return Solved(found.energies[inside], found.vectors[:, inside])
