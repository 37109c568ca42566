"""Eigenstates k-point after k-point, from any solver, with what their populations need: S(k) c.

A solver may find all states (`dense_states`) or those of a window of energies (`windowed.SparseSolver`); whoever takes
the states does not ask which.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from ase_hybridham.solve.bloch import BlochSum, check_k_points
from ase_hybridham.solve.dense import eigenstates
from ase_hybridham.solve.pencil import OVERLAP_THRESHOLD
from ase_hybridham.system import LCAOSystem

__all__ = ["Eigensolver", "Solved", "States", "dense_states", "product", "rectangle", "states_of"]

BATCH_BYTES = 2**27  # of eigenvectors held at a time
FULL = 0.2  # share of S(k) that is filled, from which a dense product is faster


class Solved(NamedTuple):
    """What a solver found at a k-point, of one spin.

    energies : array, shape (n_states,)
        eV, ascending.
    vectors : array, shape (n_orbitals, n_states)
        c with c^dagger S(k) c = 1; orbitals ordered atom, spin, orbital.
    first_band : int or None
        Number of states below the first of these; None if it is not known.
    """

    energies: NDArray[np.float64]
    vectors: NDArray
    first_band: int | None = None


# (system, k-points of shape (n_k, 3)) -> for every k-point, in their order, for every spin: a Solved, or a tuple that
# makes one. The number of states may differ from one k-point to the next.
Eigensolver = Callable[[LCAOSystem, NDArray[np.float64]], Iterator[Sequence[tuple]]]


@dataclass(frozen=True, eq=False)
class States:
    """Eigenstates of one spin at one k-point.

    Parameters
    ----------
    energies : array, shape (n_states,)
        eV, ascending.
    vectors : array, shape (n_orbitals, n_states)
        c, with c^dagger S(k) c = 1.
    dual : array, shape (n_orbitals, n_states)
        S(k) c.
    first_band : int or None
        As in `Solved`.
    """

    energies: NDArray[np.float64]
    vectors: NDArray[np.complex128]
    dual: NDArray[np.complex128]
    first_band: int | None = None

    @property
    def populations(self) -> NDArray[np.float64]:
        """Mulliken's populations Re(c* S c) of the orbitals in every state, shape (n_orbitals, n_states); sums are 1.

        R. S. Mulliken, J. Chem. Phys. 23, 1833 (1955), https://doi.org/10.1063/1.1740588
        """
        return (self.vectors.conj() * self.dual).real


def states_of(
    system: LCAOSystem,
    k_points: ArrayLike,
    *,
    solver: Eigensolver | None = None,
    overlap_threshold: float = OVERLAP_THRESHOLD,
    progress: bool = False,
) -> Iterator[list[States]]:
    """For every k-point the states of every spin.

    Parameters
    ----------
    system : LCAOSystem
    k_points : array, shape (n_k, 3)
        Fractional.
    solver : Eigensolver, optional
        By default `dense_states`.
    overlap_threshold : float
        Of the default solver, see `eigenvalues`.
    progress : bool
        Show a bar on stderr.

    Raises
    ------
    OverlapError, ValueError
        As `eigenstates`.
    """
    k = check_k_points(k_points)
    solve = solver or partial(dense_states, overlap_threshold=overlap_threshold)
    overlap = None if system.overlap is None else BlochSum(system.overlap.hermitian_part(), system.spin == "spinor")
    with tqdm(total=len(k), desc="k-points", leave=False, disable=None if progress else True) as bar:
        for at, found in zip(k, solve(system, k), strict=True):
            yield [
                States(e, c, c if overlap is None else product(overlap, at, c), first)
                for e, c, first in (Solved(*one) for one in found)
            ]
            bar.update()


def rectangle(
    found: Sequence[Sequence[tuple[NDArray, int | None]]],
) -> tuple[NDArray[np.float64], NDArray[np.int64], int]:
    """Energies of every k-point and spin as one array, a band in a column.

    Parameters
    ----------
    found : for every k-point and spin (energies, first_band)

    Returns
    -------
    energies : array, shape (n_spins, n_k, n_bands)
        -inf and +inf where a state was not found and lies below and above those that were; so they ascend, and a
        Fermi level among them fills what it should.
    columns : array, shape (n_spins, n_k)
        Where the first state that was found is.
    first_band : int
        Number of the band in the first column; 0 if a first band is not known: then columns are no bands.
    """
    n_spins = max((len(of_spins) for of_spins in found), default=1)
    firsts = [first for of_spins in found for energies, first in of_spins if len(energies)]
    known = [first for first in firsts if first is not None]
    base = min(known, default=0) if len(known) == len(firsts) else 0
    columns = np.zeros((n_spins, len(found)), dtype=np.int64)
    ends = columns.copy()
    for row, of_spins in enumerate(found):
        for spin, (energies, first) in enumerate(of_spins):
            columns[spin, row] = max(first - base, 0) if first is not None and len(known) == len(firsts) else 0
            ends[spin, row] = columns[spin, row] + len(energies) if len(energies) else 0
    out = np.full((n_spins, len(found), int(ends.max(initial=0))), np.inf)
    for row, of_spins in enumerate(found):
        for spin, (energies, _) in enumerate(of_spins):
            column = columns[spin, row]
            out[spin, row, :column] = -np.inf
            out[spin, row, column : column + len(energies)] = energies
    return out, columns, base


def dense_states(
    system: LCAOSystem, k_points: NDArray, *, overlap_threshold: float = OVERLAP_THRESHOLD
) -> Iterator[list[Solved]]:
    """All states, by LAPACK: an `Eigensolver`."""
    batch = max(1, BATCH_BYTES // (16 * system.n_orbitals**2 * max(1, len(system.hamiltonian))))
    for start in range(0, len(k_points), batch):
        some = k_points[start : start + batch]
        energies, vectors = eigenstates(system, some, overlap_threshold=overlap_threshold)
        for row in range(len(some)):
            there = np.isfinite(energies[:, row])  # +inf: a direction that was left out
            yield [
                Solved(e[row, keep], c[row][:, keep], 0) for e, c, keep in zip(energies, vectors, there, strict=True)
            ]


def product(operator: BlochSum, k: NDArray, vectors: NDArray) -> NDArray:
    """M(k) c, shape (n_orbitals, n_states), for k of shape (3,)."""
    if len(operator.indices) > FULL * operator.n**2:
        return operator.dense(k[None])[0] @ vectors
    return next(operator.sparse(k[None])) @ vectors
