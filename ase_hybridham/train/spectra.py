"""How far are bands, Fermi level and gap of a prediction from those of the reference, with the reference's S?"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_hybridham.solve import (
    OVERLAP_THRESHOLD,
    PREDICTED_THRESHOLD,
    BandError,
    band_error,
    band_errors,
    band_path,
    eigenvalues,
    electrons_of,
    find_fermi_level,
    k_mesh,
    mesh_density,
    spin_degeneracy,
)
from ase_hybridham.system import LCAOSystem, PairBlocks
from ase_hybridham.train.uncertainty import LevelSpread

__all__ = ["LevelError", "ReferenceSpectrum"]

BAND_POINTS = 24
# k-points per 1/angstrom of the mesh of Fermi levels: less than where the level itself is wanted, as prediction and
# reference are solved on the same one
DENSITY = 8.0
GAP = 0.05  # eV: less is no gap
# Two halves of the k-points must agree on a gap to this share of it: where bands meet between the points they do not.
HALVES = 0.2


@dataclass(frozen=True)
class LevelError:
    """Fermi level and gap.

    Parameters
    ----------
    fermi : float
        Fermi level of the prediction minus that of the reference, eV, both from the electrons on the same mesh.
    gap, reference_gap : float or None
        From the highest filled to the lowest empty state on path and mesh, eV, negative where bands overlap; None
        where the reference is a metal.
    """

    fermi: float
    gap: float | None
    reference_gap: float | None

    def to_dict(self) -> dict[str, float | None]:
        """Plain JSON types, keys with their unit."""
        return {f"{key}_eV": value for key, value in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class ReferenceSpectrum:
    """Eigenvalues of the reference on a path and on a mesh.

    Parameters
    ----------
    system : LCAOSystem
    path, mesh : arrays, shapes (n_path, 3) and (n_mesh, 3)
        Fractional k-points.
    weights : array, shape (n_mesh,)
    energies : array, shape (n_spins, n_path + n_mesh, n_bands)
        eV.
    level : float
        Fermi level, eV.
    """

    system: LCAOSystem
    path: NDArray[np.float64]
    mesh: NDArray[np.float64]
    weights: NDArray[np.float64]
    energies: NDArray[np.float64]
    level: float

    @classmethod
    def of(cls, system: LCAOSystem, k_points: ArrayLike | None = None) -> "ReferenceSpectrum":
        """Along `k_points`, by default the standard path of the cell, and on the mesh of its Fermi level."""
        path = np.asarray(band_path(system.atoms, npoints=BAND_POINTS).kpts if k_points is None else k_points)
        density = min(DENSITY, mesh_density(system.n_orbitals))
        mesh, weights = k_mesh(system.atoms, density=density, time_reversal=system.spin != "spinor")
        energies, level = _solve(system, path, mesh, weights, OVERLAP_THRESHOLD)
        return cls(system, path, mesh, weights, energies, level)

    def has_states(self, window: float) -> bool:
        """Whether the path meets a state within `window` eV of the Fermi level."""
        return bool((np.abs(self.energies[:, : len(self.path)] - self.level) <= window).any())

    def errors(self, predicted: Sequence[PairBlocks], window: float) -> tuple[BandError, LevelError]:
        """Errors of a Hermitian H on the pairs of the reference; of states within `window` eV of its Fermi level."""
        (bands,), level = self.errors_within(predicted, (window,))
        return bands, level

    def errors_within(
        self, predicted: Sequence[PairBlocks], windows: Sequence[float]
    ) -> tuple[list[BandError], LevelError]:
        """The same for several windows at the cost of one."""
        # the blocks must share one basis object's orbitals; radial functions do not matter here
        own = tuple(r.with_values(h.values) for r, h in zip(self.system.hamiltonian, predicted, strict=True))
        other = replace(self.system, hamiltonian=own, fermi_level=None)
        energies, level = _solve(other, self.path, self.mesh, self.weights, PREDICTED_THRESHOLD)
        n, levels = len(self.path), {"reference_level": self.level, "predicted_level": level}
        bands = [band_error(self.energies[:, :n], energies[:, :n], window=window, **levels) for window in windows]
        return bands, LevelError(level - self.level, *self._gaps(energies))

    def spread(self, members: Sequence[Sequence[PairBlocks]], window: float) -> LevelSpread | None:
        """Error bars of the mean of an ensemble on the path, and its errors: states within `window` eV of the level.

        None where there are fewer than two members.
        """
        if len(members) < 2:
            return None
        values = np.array([[h.values for h in operators] for operators in members])
        mean = values.mean(axis=0)
        own, *deviations = (
            tuple(h.with_values(some) for h, some in zip(self.system.hamiltonian, operators, strict=True))
            for operators in (mean, *(values - mean))
        )
        found = band_errors(
            replace(self.system, hamiltonian=own, fermi_level=None),
            self.path,
            deviations,
            reference=self.level,
            solver="dense",
            overlap_threshold=PREDICTED_THRESHOLD,
        )
        energies = found.bands.energies
        reference = self.energies[:, : len(self.path), : energies.shape[2]]
        near = (np.abs(reference - self.level) <= window) & np.isfinite(energies)
        errors, shifts = energies[near] - reference[near], found.shifts[:, near]
        shifts -= shifts.mean(axis=1)[:, None]
        widths = np.sqrt((shifts**2).sum(axis=0) / (len(members) - 1))
        return LevelSpread(1e3 * widths, 1e3 * (errors - errors.mean()))

    def _gaps(self, energies: NDArray) -> tuple[float | None, float | None]:
        """Of the prediction and of the reference, if it has one: every k-point has the same filled bands."""
        filled = self.energies <= self.level
        counts = filled.sum(axis=2)
        if (counts != counts[:, :1]).any() or not filled.any() or filled.all():
            return None, None
        ours, theirs = _gap(energies, filled), _gap(self.energies, filled)
        halves = [_gap(self.energies[:, n::2], filled[:, n::2]) for n in range(min(2, len(counts[0])))]
        resolved = theirs > GAP and max(halves) < (1 + HALVES) * theirs
        return (ours, theirs) if resolved else (None, None)


def _gap(energies: NDArray, filled: NDArray) -> float:
    return float(energies[~filled].min() - energies[filled].max())


def _solve(
    system: LCAOSystem, path: NDArray, mesh: NDArray, weights: NDArray, threshold: float
) -> tuple[NDArray, float]:
    """Eigenvalues on the path, then the mesh, and the Fermi level of the mesh."""
    energies = eigenvalues(system, np.concatenate([path, mesh]), overlap_threshold=threshold)
    level = find_fermi_level(energies[:, len(path) :], weights, electrons_of(system), spin_degeneracy(system))
    return energies, level
