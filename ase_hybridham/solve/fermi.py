"""Fermi level, occupations, electron counts and the meshes they are summed on."""

from typing import Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import kpts2sizeandoffsets
from ase.dft.kpoints import monkhorst_pack
from numpy.typing import ArrayLike, NDArray
from scipy.special import erfc, expit

from ase_hybridham.solve.bloch import check_k_points
from ase_hybridham.solve.dense import eigenvalues
from ase_hybridham.solve.pencil import OVERLAP_THRESHOLD
from ase_hybridham.system import LCAOSystem

__all__ = [
    "Smearing",
    "count_electrons",
    "electrons_of",
    "fermi_level",
    "find_fermi_level",
    "gamma_mesh",
    "k_mesh",
    "mesh_density",
    "mesh_or_given",
    "occupations",
    "smeared_delta",
    "spin_degeneracy",
]

Smearing = Literal["fermi-dirac", "gaussian"]

# Orbitals -> k-points per 1/angstrom. Where the bands of a semimetal touch, a coarse mesh sees a gap and its middle: 5
# (15 x 15 for graphene) was up to 60 meV off for bilayers, 16 about 10 meV. One density for a cell and its repetitions
# gives meshes that fold onto each other, as long as LAPACK takes seconds.
MESH_DENSITIES = ((400, 16.0), (1000, 8.0))
MESH_DENSITY = 5.0  # of still more orbitals
WIDTH = 0.025  # eV, 290 K
# Electrons that do not count: within it the level of an insulator is undetermined and put into mid-gap.
ELECTRON_TOLERANCE = 1e-9


def k_mesh(
    atoms: Atoms, size: ArrayLike | None = None, *, density: float = MESH_DENSITY, time_reversal: bool = True
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A Monkhorst-Pack mesh that contains Gamma.

    Parameters
    ----------
    atoms : ase.Atoms
        One point along an axis that is not periodic.
    size : array of int, shape (3,), optional
        Points along each axis; by default from `density`.
    density : float
        Points per 1/angstrom (2 pi included, as in ASE).
    time_reversal : bool
        Keep one of k and -k, with the weight of both.

    Returns
    -------
    k_points, weights : arrays, shapes (n_k, 3) and (n_k,)
        Fractional; the weights sum to 1.
    """
    if size is None:
        if not (np.isfinite(density) and density > 0):
            raise ValueError(f"k-points: expected a density > 0 per 1/angstrom, got {density}")
        mesh, _ = kpts2sizeandoffsets(density=density, gamma=True, atoms=atoms)
    else:
        mesh = np.asarray(size)
        if mesh.shape != (3,) or (mesh < 1).any() or (mesh != np.rint(mesh)).any():
            raise ValueError(f"k-points: expected three positive integers, got {size}")
    return gamma_mesh(mesh, time_reversal=time_reversal)


def gamma_mesh(size: ArrayLike, *, time_reversal: bool = True) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mesh of `k_mesh` for numbers of points along the axes, shape (3,)."""
    mesh = np.asarray(size, dtype=np.int64)
    k_points = monkhorst_pack(mesh) + np.where(mesh % 2, 0.0, 0.5 / mesh)
    if not time_reversal:
        return k_points, np.full(len(k_points), 1 / len(k_points))
    # integer coordinates of k and -k on the mesh; the smaller of the two numbers stands for both
    grid = np.rint(k_points * mesh).astype(np.int64)
    number, opposite = (np.ravel_multi_index(tuple((sign * grid % mesh).T), tuple(mesh)) for sign in (1, -1))
    keep = number <= opposite
    weights = np.where(number == opposite, 1.0, 2.0)[keep]
    return k_points[keep], weights / weights.sum()


def mesh_density(n_orbitals: int) -> float:
    """Default density of the mesh of a system with so many orbitals, points per 1/angstrom."""
    return next((density for limit, density in MESH_DENSITIES if n_orbitals <= limit), MESH_DENSITY)


def occupations(
    energies: ArrayLike, level: float, *, width: float = WIDTH, smearing: Smearing = "fermi-dirac"
) -> NDArray[np.float64]:
    """Occupation from 0 to 1 of states at `energies` (eV, any shape) for a Fermi level (eV).

    Parameters
    ----------
    width : float
        k_B T, or sigma of the Gaussian, in eV; 0 is a step that is one half at the level.
    """
    _check_smearing(smearing)
    if not (np.isfinite(width) and width >= 0):
        raise ValueError(f"smearing: expected a width >= 0 eV, got {width}")
    below = level - np.asarray(energies, dtype=np.float64)
    if width == 0:
        return 0.5 * (1 + np.sign(below))
    return expit(below / width) if smearing == "fermi-dirac" else 0.5 * erfc(-below / width)


def smeared_delta(
    grid: ArrayLike, energies: ArrayLike, *, width: float = WIDTH, smearing: Smearing = "gaussian"
) -> NDArray[np.float64]:
    """Slope of `occupations` as the level passes states, in 1/eV: grid (any shape) against energies (broadcast), eV.

    So the integral of a density of states up to a level is the number of electrons that `occupations` fill in.

    Parameters
    ----------
    width : float
        eV: exp(-(x / width)^2) / (sqrt(pi) width), as in `ase.dft.dos.DOS`, or sech^2(x / 2 width) / 4 width.
    """
    _check_smearing(smearing)
    if not (np.isfinite(width) and width > 0):
        raise ValueError(f"smearing: expected a width > 0 eV, got {width}")
    x = (np.asarray(grid, dtype=np.float64) - np.asarray(energies, dtype=np.float64)) / width
    if smearing == "gaussian":
        return np.exp(-(x**2)) / (np.sqrt(np.pi) * width)
    filled = expit(x)
    return filled * (1 - filled) / width


def _check_smearing(smearing: str) -> None:
    if smearing not in ("fermi-dirac", "gaussian"):
        raise ValueError(f"smearing: expected 'fermi-dirac' or 'gaussian', got {smearing!r}")


def find_fermi_level(
    energies: NDArray,
    weights: ArrayLike,
    electrons: float,
    degeneracy: float,
    *,
    width: float = WIDTH,
    smearing: Smearing = "fermi-dirac",
) -> float:
    """The level in eV at which states hold a number of electrons; the middle of the gap for an insulator.

    Parameters
    ----------
    energies : array, shape (n_spins, n_k, n_bands)
        eV; +inf where there is no state (see `eigenvalues`).
    weights : array, shape (n_k,)
        Sum 1.
    degeneracy : float
        Electrons a state holds: see `spin_degeneracy`.

    Raises
    ------
    ValueError
        If the states cannot hold the electrons.
    """
    states = np.isfinite(energies)
    w = np.asarray(weights, dtype=np.float64)
    capacity = degeneracy * float(np.einsum("skn,k->", states, w))
    if not 0 <= electrons <= capacity + ELECTRON_TOLERANCE:
        raise ValueError(f"electrons: expected 0 to {capacity:g}, which the states can hold, got {electrons:g}")

    def excess(level: float) -> float:
        filling = occupations(energies, level, width=width, smearing=smearing)
        return degeneracy * float(np.einsum("skn,k->", filling, w)) - electrons

    margin = 1.0 + 50 * width
    tolerance = ELECTRON_TOLERANCE * max(1.0, electrons)

    def last_below(limit: float) -> float:
        """Supremum of the levels with excess < limit; the count only grows with the level."""
        low, high = float(energies.min()) - margin, float(energies[states].max()) + margin
        while (middle := 0.5 * (low + high)) not in (low, high):
            low, high = (middle, high) if excess(middle) < limit else (low, middle)
        return low

    return 0.5 * (last_below(-tolerance) + last_below(tolerance))


def spin_degeneracy(system: LCAOSystem) -> int:
    """Electrons that one eigenvalue of the system holds: 2 without spin, else 1."""
    return 2 if system.spin == "none" else 1


def electrons_of(system: LCAOSystem, electrons: float | None = None) -> float:
    """Valence electrons in the cell: as given, of the system, or of its neutral atoms.

    Raises
    ------
    ValueError
        If none of the three is known.
    """
    found = electrons if electrons is not None else system.electrons
    if found is None:
        found = system.basis.electrons(system.atoms.get_atomic_numbers())
    if found is None:
        unknown = sorted(symbol for symbol, atom in system.basis.atoms.items() if atom.valence is None)
        raise ValueError(f"electrons: the valence of {', '.join(unknown)} is unknown; give it, e.g. C=4")
    return float(found)


def fermi_level(
    system: LCAOSystem,
    k_points: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    *,
    electrons: float | None = None,
    density: float | None = None,
    width: float = WIDTH,
    smearing: Smearing = "fermi-dirac",
    overlap_threshold: float = OVERLAP_THRESHOLD,
) -> float:
    """Fermi level in eV from the electron count; the middle of the gap for an insulator.

    Parameters
    ----------
    system : LCAOSystem
    k_points, weights : arrays, shapes (n_k, 3) and (n_k,), optional
        By default the mesh of `k_mesh` at `density`; weights default to equal ones.
    density : float, optional
        By default `mesh_density` of the system's orbitals.
    electrons : float, optional
        By default what `electrons_of` finds.
    width, smearing
        As in `occupations`.
    overlap_threshold : float
        As in `eigenvalues`.

    Raises
    ------
    ValueError
        If the electrons are unknown or do not fit the bands.
    OverlapError
        As `eigenvalues`.
    """
    count = electrons_of(system, electrons)
    k, w = mesh_or_given(system, k_points, weights, density)
    energies = eigenvalues(system, k, overlap_threshold=overlap_threshold)
    return find_fermi_level(energies, w, count, spin_degeneracy(system), width=width, smearing=smearing)


def count_electrons(
    system: LCAOSystem,
    level: float | None = None,
    k_points: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    *,
    density: float | None = None,
    width: float = WIDTH,
    smearing: Smearing = "fermi-dirac",
    overlap_threshold: float = OVERLAP_THRESHOLD,
) -> float:
    """Electrons in the cell up to a level in eV, by default the system's own Fermi level; arguments as `fermi_level`.

    Raises
    ------
    ValueError
        If no level is given and the system has none.
    """
    at = system.fermi_level if level is None else level
    if at is None:
        raise ValueError("electrons: cannot be counted, this system has no Fermi level")
    k, w = mesh_or_given(system, k_points, weights, density)
    energies = eigenvalues(system, k, overlap_threshold=overlap_threshold)
    filling = occupations(energies, at, width=width, smearing=smearing)
    return spin_degeneracy(system) * float(np.einsum("skn,k->", filling, w))


def mesh_or_given(
    system: LCAOSystem, k_points: ArrayLike | None, weights: ArrayLike | None, density: float | None
) -> tuple[NDArray, NDArray]:
    """k-points and weights as given, or the default mesh: arguments of `fermi_level`."""
    if k_points is None:
        # only real H(R) promise e(k) = e(-k): a magnetic spinor system does not
        density = mesh_density(system.n_orbitals) if density is None else density
        return k_mesh(system.atoms, density=density, time_reversal=system.spin != "spinor")
    k = check_k_points(k_points)
    w = np.full(len(k), 1 / len(k)) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (len(k),) or abs(w.sum() - 1) > 1e-6:
        raise ValueError(f"weights: expected {len(k)} numbers with sum 1, got shape {w.shape}, sum {w.sum():g}")
    return k, w
