"""The Fermi level of systems of which not all states are known: by counts of those below.

The level fills as many states as there are electrons. A count says how many lie below an energy, whatever they are, so
only those near the level are computed: between them every state has its number, those below are full, those above
empty. What is found is as exact as with all states: it stops when the states that nobody has seen are farther from the
level than the smearing reaches.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigvalsh
from tqdm import tqdm

from ase_hybridham.solve.occupations import Smearing, find_fermi_level, spin_degeneracy
from ase_hybridham.solve.sparse import Eigenpairs, Pencil
from ase_hybridham.solve.states import rectangle
from ase_hybridham.solve.windowed import SparseSolver
from ase_hybridham.system import LCAOSystem

__all__ = ["counted_energies", "counted_fermi_level", "energy_with"]

REACH = 20.0  # widths from the level within which states must be known: the rest is full or empty to 2e-9
MORE = 16  # states that are asked for where some lack
ROUNDS = 20
FINEST = 1e-6  # eV; a level of more states than are wanted in between


def counted_fermi_level(
    solver: SparseSolver,
    system: LCAOSystem,
    k_points: NDArray,
    weights: NDArray,
    electrons: float,
    *,
    width: float,
    smearing: Smearing,
) -> tuple[NDArray[np.float64], int, float]:
    """Energies as `rectangle` has them, number of the first band, and the Fermi level in eV.

    Arguments are those of `fermi_level`, and a solver whose `n_states` are looked at first, around its center or where
    counts find that many.

    Raises
    ------
    ValueError
        If the states cannot hold the electrons, or the engine does not count.
    """
    degeneracy, n_spins = spin_degeneracy(system), len(system.hamiltonian)
    most = degeneracy * n_spins * system.n_orbitals
    if not 0 < electrons < most:
        raise ValueError(f"electrons: expected more than 0 and less than {most}, got {electrons:g}")
    if solver.center is None:
        below, near = round(electrons / (degeneracy * n_spins)), max(1, solver.wanted(system.n_orbitals) // 4)
        pencil = solver.problem(system).pencil(k_points[0])
        least = min(below - near, pencil.n_states)
        solver = solver.around(energy_with(pencil, least, below + near, local_level(system, below)))

    def level_of(energies: NDArray, first: int) -> float:
        rest = electrons - degeneracy * n_spins * first
        full, sure = (degeneracy * float(np.einsum("skn,k->", energies < edge, weights)) for edge in (np.inf, -1e300))
        if not sure < rest < full:
            return -np.inf if rest <= sure else np.inf
        return find_fermi_level(energies, weights, rest, degeneracy, width=width, smearing=smearing)

    energies, first, level = _around_level(solver, system, k_points, level_of, REACH * width)
    if not np.isfinite(level):  # all states are known and hold no more, as directions of S(k) are left out
        every = np.concatenate([np.full((*energies.shape[:2], first), -np.inf), energies], axis=2)
        level = find_fermi_level(every, weights, electrons, degeneracy, width=width, smearing=smearing)
    return energies, first, level


def counted_energies(
    solver: SparseSolver, system: LCAOSystem, k_points: NDArray, level: float, *, width: float
) -> tuple[NDArray[np.float64], int]:
    """Energies, as `rectangle` has them, of all states neither full nor empty at a level; number of the first band."""
    return _around_level(solver.around(level), system, k_points, lambda *_: level, REACH * width)[:2]


def _around_level(
    solver: SparseSolver, system: LCAOSystem, k_points: NDArray, level_of: Callable[[NDArray, int], float], reach: float
) -> tuple[NDArray[np.float64], int, float]:
    """States at all k-points, until those that are not known lie farther from the level than `reach` (eV)."""
    assert solver.center is not None
    problem = solver.problem(system)
    at_k = solver.over(system, k_points, _near)
    known = list(tqdm(at_k, total=len(k_points), desc="k-points of the Fermi level", leave=False, disable=None))
    for _ in range(ROUNDS):
        energies, _, first = rectangle([[(some.energies, some.first) for some in of_spins] for of_spins in known])
        level = level_of(energies, first)
        short = [
            (row, spin, up)
            for row, of_spins in enumerate(known)
            for spin, some in enumerate(of_spins)
            for up in (False, True)
            if some.ends_before(level, reach, up=up)
        ]
        if not short:
            return energies, first, level
        for row, spin, up in short:
            known[row][spin] = known[row][spin].extended(problem.pencil(k_points[row], spin), up=up)
    raise ValueError(
        f"Fermi level: expected all states within {reach:g} eV of it after {ROUNDS} rounds; ask for more states, a "
        "smaller width, or use the dense solver"
    )


def energy_with(pencil: Pencil, least: int, most: int, start: float, step: float = 1.0) -> float:
    """An energy in eV with at least and at most so many states below it, by counts from a first guess on.

    Raises
    ------
    ValueError
        If the engine does not count.
    """
    low = high = None  # energies with too few, and too many, and how many
    energy = start
    while True:
        count = pencil.count(energy)
        if count is None:
            raise ValueError("Fermi level: this engine does not count states; take another, or the dense solver")
        if least <= count <= most:
            return energy
        if count < least:
            low = energy, count
        else:
            high = energy, count
        if low is None or high is None:
            energy, step = energy + (step if high is None else -step), 2 * step
            continue
        if high[0] - low[0] < FINEST:
            return high[0]
        share = (0.5 * (least + most) - low[1]) / (high[1] - low[1])
        energy = low[0] + float(np.clip(share, 0.1, 0.9)) * (high[0] - low[0])


def local_level(system: LCAOSystem, below: int) -> float:
    """A first guess in eV: the level that so many states of the on-site blocks alone have."""
    spin = 2 if system.spin == "spinor" else 1
    h, s, levels = system.hamiltonian[0], system.overlap, []
    for atom in range(h.pairs.n_atoms):
        on_site = h.block(atom)
        on_site = 0.5 * (on_site + on_site.conj().T)
        levels.append(eigvalsh(on_site, None if s is None else np.kron(np.eye(spin), s.block(atom))))
    return float(np.sort(np.concatenate(levels))[max(below - 1, 0)])


def _near(solver: SparseSolver, pencil: Pencil) -> "_Known":
    assert solver.center is not None
    found = pencil.eigenpairs(solver.wanted(pencil.pattern.n), solver.center, count=solver.count)
    return _Known.of(found, pencil.n_states)


@dataclass(frozen=True, eq=False)
class _Known:
    """States one above the other without a gap in their numbers.

    Parameters
    ----------
    energies : array, shape (n,)
    first : int
        Number of states below.
    low, high : float
        Between these energies there is no other.
    n_states : int
        Of all energies.
    """

    energies: NDArray[np.float64]
    first: int
    low: float
    high: float
    n_states: int

    @classmethod
    def of(cls, found: Eigenpairs, n_states: int) -> "_Known":
        assert found.first_band is not None
        return cls(found.energies, found.first_band, *found.window, n_states)

    @property
    def end(self) -> int:
        """Number of the first state above."""
        return self.first + len(self.energies)

    def ends_before(self, level: float, reach: float, *, up: bool) -> bool:
        """Whether states that are not known could matter at a level."""
        if up:
            return self.end < self.n_states and not self.high > level + reach
        return self.first > 0 and not self.low < level - reach

    def extended(self, pencil: Pencil, *, up: bool) -> "_Known":
        """With at least one more state above or below."""
        if up:
            energy = energy_with(pencil, self.end + 1, self.end + MORE // 2, self.high)
        else:
            energy = energy_with(pencil, self.first - MORE // 2, self.first - 1, self.low)
        wanted = MORE
        while True:
            more = _Known.of(pencil.eigenpairs(wanted, energy, count=False), self.n_states)
            if more.first <= self.end and more.end >= self.first:
                break
            wanted *= 2
        lower, upper = (self, more) if up else (more, self)
        kept = upper.energies[max(lower.end - upper.first, 0) :]
        low, high = min(self.low, more.low), max(self.high, more.high)
        return _Known(np.concatenate([lower.energies, kept]), lower.first, low, high, self.n_states)
