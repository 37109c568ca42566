"""Bands along a path, and how far two sets of bands are apart."""

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.dft.kpoints import BandPath
from ase.spectrum.band_structure import BandStructure
from numpy.typing import ArrayLike, NDArray

from ase_hybridham.solve.bloch import check_k_points
from ase_hybridham.solve.fermi import fermi_level
from ase_hybridham.solve.pencil import OVERLAP_THRESHOLD
from ase_hybridham.solve.states import Eigensolver
from ase_hybridham.solve.windowed import Solver, SparseSolver, energies_of, pick_solver
from ase_hybridham.system import LCAOSystem

__all__ = ["BandError", "Bands", "band_error", "band_path", "bands"]

GAP = 0.05  # eV: with less, the Fermi level is a better common zero than the valence maximum
STRAIN = 0.1  # how far (ASE's eps) a cell may be from a lattice whose special points are asked for by name


def band_path(atoms: Atoms, path: str | None = None, npoints: int = 100) -> BandPath:
    """A path through the special points of the cell, for its periodic directions only.

    Parameters
    ----------
    path : str, optional
        Special points as in ASE, ``"GMKG"``; by default the whole standard path. A slightly strained cell still
        knows the points of its parent lattice.
    npoints : int
        k-points along it.

    Raises
    ------
    ValueError
        If `path` names a point that the lattice does not have, or npoints < 1.
    """
    if npoints < 1 or path == "":
        raise ValueError(f"band path: expected at least one k-point, got {npoints} on path {path!r}")
    if not np.any(atoms.pbc):
        return BandPath(atoms.cell.complete(), np.zeros((1, 3)), {"G": np.zeros(3)}, "G")
    cell = atoms.cell.complete()
    for eps in (None, STRAIN) if path else (None,):
        options = {"npoints": npoints, "pbc": atoms.pbc} | ({"eps": eps} if eps else {})
        try:
            return cell.bandpath(path, **options)
        except (KeyError, RuntimeError, ValueError):
            continue
    known = ", ".join(sorted(cell.bandpath(npoints=0, pbc=atoms.pbc).special_points))
    raise ValueError(f"band path: expected a path through the special points {known}, got {path!r}")


def bands(
    system: LCAOSystem,
    path: BandPath | ArrayLike,
    *,
    reference: float | None = None,
    solver: Solver = "auto",
    overlap_threshold: float = OVERLAP_THRESHOLD,
    progress: bool = False,
) -> "Bands":
    """Band structure of a system, energies in eV as they are, (n_spins, n_k, n_bands).

    Parameters
    ----------
    system : LCAOSystem
    path : ase BandPath, or array of shape (n_k, 3)
        Fractional k-points.
    reference : float, optional
        Energy in eV that plots put at zero; by default the system's Fermi level, computed from the electron
        count if it is not stored. A solver without a center of its own looks around it.
    solver : Solver
        "dense": all bands, by LAPACK; "sparse": those near the reference, see `SparseSolver`; "auto": the first up to
        2500 orbitals.
    overlap_threshold : float
        As in `eigenvalues`: where S(k) is nearly singular the last energies are +inf.
    progress : bool
        Show a bar on stderr.

    Raises
    ------
    OverlapError, ValueError
        As `eigenvalues` and `fermi_level`.
    """
    path = as_path(system, path)
    picked, zero = picked_around(system, solver, reference, overlap_threshold)
    energies, first = energies_of(system, path.kpts, picked, overlap_threshold=overlap_threshold, progress=progress)
    return Bands(path, energies, zero, first)


class Bands(BandStructure):
    """ASE's band structure, and which bands it holds.

    Parameters
    ----------
    path, energies, reference
        As in ASE; energies in eV, (n_spins, n_k, n_bands), ascending; -inf and +inf where a state was not looked for,
        or does not exist.
    first_band : int
        Number of the first band, from 0.
    """

    def __init__(self, path: BandPath, energies: NDArray, reference: float = 0.0, first_band: int = 0) -> None:
        super().__init__(path, energies, reference=reference)
        self.first_band = first_band

    def subtract_reference(self) -> "Bands":
        """With the reference at zero."""
        return Bands(self.path, self.energies - self.reference, 0.0, self.first_band)


def as_path(system: LCAOSystem, path: BandPath | ArrayLike) -> BandPath:
    """A path as it is, k-points of shape (n_k, 3) as one without names."""
    if isinstance(path, BandPath):
        return path
    return BandPath(system.atoms.cell.complete(), check_k_points(path))


def picked_around(
    system: LCAOSystem, solver: Solver, reference: float | None, overlap_threshold: float
) -> tuple[Eigensolver | None, float]:
    """The solver, and what plots put at zero, eV: as given, or the Fermi level, stored or computed; it looks there."""
    picked = pick_solver(system, solver, overlap_threshold)
    zero = system.fermi_level if reference is None else reference
    if zero is None:
        zero = fermi_level(system, solver=picked or "dense", overlap_threshold=overlap_threshold)
    return picked.around(zero) if isinstance(picked, SparseSolver) else picked, float(zero)


@dataclass(frozen=True)
class BandError:
    """Differences of two sets of bands, eV.

    Parameters
    ----------
    max, mean : float
        Largest and mean |predicted - reference| with both on their own zero of energy.
    aligned_max, aligned_mean : float
        The same with the Fermi levels put on each other.
    valence_max, valence_mean : float or None
        The same with the valence maxima put on each other, if the reference has a gap at these k-points: the place of
        the Fermi level in it means nothing.
    n_states : int
        States compared.
    """

    max: float
    mean: float
    aligned_max: float
    aligned_mean: float
    valence_max: float | None
    valence_mean: float | None
    n_states: int

    @property
    def aligned(self) -> tuple[float, float, str]:
        """Largest and mean difference, and at what: valence maxima where there is a gap, else Fermi levels."""
        if self.valence_max is None or self.valence_mean is None:
            return self.aligned_max, self.aligned_mean, "fermi level"
        return self.valence_max, self.valence_mean, "valence maximum"


def band_error(
    reference: ArrayLike,
    predicted: ArrayLike,
    *,
    reference_level: float,
    predicted_level: float,
    window: float | None = None,
) -> BandError:
    """Error of predicted bands at the same k-points, over the states near the reference's Fermi level.

    Bands are compared by their number, states that both have.

    Parameters
    ----------
    reference, predicted : arrays, shape (n_spins, n_k, n_bands)
        eV, ascending; +inf where there is no state (see `eigenvalues`).
    reference_level, predicted_level : float
        Fermi levels, eV.
    window : float, optional
        Only states of the reference within `window` eV of its Fermi level count; default all.

    Raises
    ------
    ValueError
        If the shapes differ or no state lies in the window.
    """
    theirs, ours = np.asarray(reference, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if theirs.shape != ours.shape or theirs.ndim != 3:
        raise ValueError(
            f"bands: expected as many spins, k-points and bands as the reference, {theirs.shape}, got {ours.shape}"
        )
    states = np.isfinite(theirs) & np.isfinite(ours)
    counted = states & (np.abs(theirs - reference_level) <= (np.inf if window is None else window))
    if not counted.any():
        raise ValueError(f"window: no state of the reference lies within {window} eV of its Fermi level; widen it")
    filled = theirs <= reference_level
    # a gap is there if every k-point of a spin has the same number of filled bands
    gapped = bool((filled.sum(axis=2) == filled.sum(axis=2)[:, :1]).all() and filled.any() and not filled.all())
    gapped = gapped and float(theirs[~filled].min() - theirs[filled].max()) > GAP

    def after(shift: float) -> tuple[float, float]:
        difference: NDArray = np.abs(ours[counted] - shift - theirs[counted])
        return float(difference.max()), float(difference.mean())

    largest, mean = after(0.0)
    aligned_max, aligned_mean = after(predicted_level - reference_level)
    valence_max, valence_mean = after(ours[filled & states].max() - theirs[filled].max()) if gapped else (None, None)
    return BandError(largest, mean, aligned_max, aligned_mean, valence_max, valence_mean, int(counted.sum()))
