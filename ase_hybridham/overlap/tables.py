"""Radial integrals by interpolation."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ase_hybridham.overlap.twocenter import Channel, RadialIntegrals
from ase_hybridham.system import AtomBasis

__all__ = ["RadialFunctions", "radial_functions"]


class RadialFunctions(Protocol):
    """Radial integrals between two atoms, with or without tables."""

    @property
    def channels(self) -> Sequence[Channel]:
        """Row shell, column shell and L of every integral."""

    def at(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """The integrals at distances in bohr, shape (n, n_channels)."""

    def with_slopes(self, distances: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The integrals and their derivatives along the distance, in 1/bohr, each of shape (n, n_channels)."""


def radial_functions(
    first: AtomBasis, second: AtomBasis, reach: float, accuracy: float | None = None
) -> RadialFunctions:
    """The radial integrals of the overlap between two atoms.

    Parameters
    ----------
    first, second : AtomBasis
        Every shell with a radial function, all of one rule, its settings and its bohr.
    reach : float
        Largest distance that will be asked for, bohr.
    accuracy : float, optional
        Largest error of an element that interpolation may add; 0: no interpolation.

    Raises
    ------
    OverlapError
        If a shell has no radial function, or the functions follow different rules, settings or bohr.
    """
    return RadialIntegrals.of_atoms(first, second, reach)
