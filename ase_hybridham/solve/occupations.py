"""How far states at some energies are filled, and the level up to which they hold the electrons."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erfc, expit

from ase_hybridham.system import LCAOSystem

__all__ = [
    "WIDTH",
    "Smearing",
    "check_smearing",
    "check_width",
    "find_fermi_level",
    "occupations",
    "smeared_delta",
    "spin_degeneracy",
]

Smearing = Literal["fermi-dirac", "gaussian"]

WIDTH = 0.025  # eV, 290 K
# Electrons that do not count: within it the level of an insulator is undetermined and put into mid-gap.
ELECTRON_TOLERANCE = 1e-9


def occupations(
    energies: ArrayLike, level: float, *, width: float = WIDTH, smearing: Smearing = "fermi-dirac"
) -> NDArray[np.float64]:
    """Occupation from 0 to 1 of states at `energies` (eV, any shape) for a Fermi level (eV).

    Parameters
    ----------
    width : float
        k_B T, or sigma of the Gaussian, in eV; 0 is a step that is one half at the level.
    """
    check_smearing(smearing)
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
    check_width(width, smearing)
    x = (np.asarray(grid, dtype=np.float64) - np.asarray(energies, dtype=np.float64)) / width
    if smearing == "gaussian":
        return np.exp(-(x**2)) / (np.sqrt(np.pi) * width)
    filled = expit(x)
    return filled * (1 - filled) / width


def check_smearing(smearing: str) -> None:
    """ValueError for an unknown one."""
    if smearing not in ("fermi-dirac", "gaussian"):
        raise ValueError(f"smearing: expected 'fermi-dirac' or 'gaussian', got {smearing!r}")


def check_width(width: float, smearing: str) -> None:
    """ValueError for one that does not smear, or an unknown smearing."""
    check_smearing(smearing)
    if not (np.isfinite(width) and width > 0):
        raise ValueError(f"smearing: expected a width > 0 eV, got {width}")


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
        eV; +inf where there is no state (see `eigenvalues`), -inf where one is full, wherever it lies.
    weights : array, shape (n_k,)
        Sum 1.
    degeneracy : float
        Electrons a state holds: see `spin_degeneracy`.

    Raises
    ------
    ValueError
        If the states cannot hold the electrons.
    """
    states = energies[np.isfinite(energies)]
    w = np.asarray(weights, dtype=np.float64)
    capacity = degeneracy * float(np.einsum("skn,k->", energies < np.inf, w))
    if not 0 <= electrons <= capacity + ELECTRON_TOLERANCE:
        raise ValueError(f"electrons: expected 0 to {capacity:g}, which the states can hold, got {electrons:g}")

    def excess(level: float) -> float:
        filling = occupations(energies, level, width=width, smearing=smearing)
        return degeneracy * float(np.einsum("skn,k->", filling, w)) - electrons

    margin = 1.0 + 50 * width
    tolerance = ELECTRON_TOLERANCE * max(1.0, electrons)

    def last_below(limit: float) -> float:
        """Supremum of the levels with excess < limit; the count only grows with the level."""
        low, high = float(states.min()) - margin, float(states.max()) + margin
        while (middle := 0.5 * (low + high)) not in (low, high):
            low, high = (middle, high) if excess(middle) < limit else (low, middle)
        return low

    return 0.5 * (last_below(-tolerance) + last_below(tolerance))


def spin_degeneracy(system: LCAOSystem) -> int:
    """Electrons that one eigenvalue of the system holds: 2 without spin, else 1."""
    return 2 if system.spin == "none" else 1
