"""How far may bands be wrong? What changes of H do to them, to first order.

A source of doubt gives samples of dH, such as what members of an ensemble say beyond their mean. Each moves a level by

    dE = <psi| dH |psi>

since S is computed and not predicted: of <psi| dH - E dS |psi> nothing else is left. Samples keep what the errors of
blocks have to do with each other, which an independent error of every block would lose. Levels that are nearly the same
move as the eigenvalues of dH between them say, whatever basis a solver has chosen there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.dft.kpoints import BandPath
from numpy.typing import ArrayLike, NDArray

from ase_hybridham.solve.bands import Bands, as_path, picked_around
from ase_hybridham.solve.bloch import BlochSum
from ase_hybridham.solve.pencil import OVERLAP_THRESHOLD
from ase_hybridham.solve.projection import weighted_bands
from ase_hybridham.solve.states import product, states_of
from ase_hybridham.solve.windowed import Solver
from ase_hybridham.system import LCAOSystem, PairBlocks

__all__ = ["NEAR", "BandErrors", "band_errors", "level_shifts"]

NEAR = 0.01  # eV between levels that are moved together: more than what dH of a good network does to them


@dataclass(frozen=True, eq=False)
class BandErrors:
    """Bands, and what every sample of dH does to them.

    Parameters
    ----------
    bands : Bands
        Of H itself, eV.
    shifts : array, shape (n_samples, n_spins, n_k, n_bands)
        dE in eV; 0 where there is no state.
    """

    bands: Bands
    shifts: NDArray[np.float64]

    def aligned(self, window: float) -> "BandErrors":
        """Without what a sample does to all states alike, its mean within so many eV of the bands' `reference`.

        Raises
        ------
        ValueError
            If no state is there.
        """
        near = np.abs(self.bands.energies - self.bands.reference) <= window
        if not near.any():
            raise ValueError(f"band errors: expected a state within {window:g} eV of the reference, got none; widen it")
        common = self.shifts[:, near].mean(axis=1)[:, None, None, None]
        return BandErrors(self.bands, np.where(np.isfinite(self.bands.energies), self.shifts - common, 0.0))

    @property
    def widths(self) -> NDArray[np.float64]:
        """Standard deviation of every level over samples whose mean is 0, eV, shape (n_spins, n_k, n_bands).

        Of an ensemble it is usually less than the error: its members err alike in part. docs/errorbars.md has factors.
        """
        return np.sqrt((self.shifts**2).sum(axis=0) / (len(self.shifts) - 1))


def band_errors(
    system: LCAOSystem,
    path: BandPath | ArrayLike,
    deviations: Sequence[Sequence[PairBlocks]],
    *,
    reference: float | None = None,
    solver: Solver = "auto",
    overlap_threshold: float = OVERLAP_THRESHOLD,
    progress: bool = False,
) -> BandErrors:
    """Bands of a system, and how samples of dH move them.

    Parameters
    ----------
    system, path, reference, overlap_threshold, progress
        As in `bands`.
    deviations : sequence of sequences of PairBlocks
        Samples of dH in eV, each for every spin an operator with the orbitals of H; their mean is 0. Those of an
        ensemble are `Ensemble.deviations`.
    solver
        As in `bands`: only states that it finds are moved.

    Raises
    ------
    OverlapError, ValueError
        As `bands`; if there are fewer than two samples, or one has other operators than H, or stands on other pairs.
    """
    if len(deviations) < 2:
        raise ValueError(f"band errors: expected two samples of dH or more, got {len(deviations)}")
    n_spins = len(system.hamiltonian)
    for sample in deviations:
        if len(sample) != n_spins or not all(np.isfinite(dh.values).all() for dh in sample):
            raise ValueError(f"band errors: expected {n_spins} finite operator(s) in a sample of dH, got {len(sample)}")
    path = as_path(system, path)
    picked, zero = picked_around(system, solver, reference, overlap_threshold)
    places = BlochSum(system.hamiltonian[0])
    sums = [[places.with_blocks(dh.hermitian_part()) for dh in sample] for sample in deviations]
    found = []
    for k, of_spins in zip(
        path.kpts,
        states_of(system, path.kpts, solver=picked, overlap_threshold=overlap_threshold, progress=progress),
        strict=True,
    ):
        found.append(
            [
                (states, _moved(states.energies, states.vectors, [sample[spin] for sample in sums], k))
                for spin, states in enumerate(of_spins)
            ]
        )
    infos = tuple({"sample": str(n)} for n in range(len(deviations)))
    table = weighted_bands(path, found, infos, zero)
    return BandErrors(table.bands, np.moveaxis(table.weights, 3, 0))


def level_shifts(energies: NDArray[np.float64], coupling: NDArray) -> NDArray[np.float64]:
    """What dH does to the levels of one k-point, to first order, shape (n_states,).

    Parameters
    ----------
    energies : array, shape (n_states,)
        Ascending; unit of `coupling`.
    coupling : array, shape (n_states, n_states)
        <m| dH |n>, Hermitian.
    """
    shifts = np.diag(coupling).real.copy()
    for group in np.split(np.arange(len(energies)), np.flatnonzero(np.diff(energies) > NEAR) + 1):
        if len(group) > 1:
            inside = coupling[np.ix_(group, group)] + np.diag(energies[group] - energies[group[0]])
            shifts[group] = np.linalg.eigvalsh(inside) - (energies[group] - energies[group[0]])
    return shifts


def _moved(energies: NDArray, vectors: NDArray, samples: Sequence[BlochSum], k: NDArray) -> NDArray[np.float64]:
    """Shifts of every sample, shape (n_states, n_samples)."""
    moved = np.empty((len(energies), len(samples)))
    for column, dh in zip(moved.T, samples, strict=True):
        column[:] = level_shifts(energies, vectors.conj().T @ product(dh, k, vectors))
    return moved
