"""Spherical Bessel transforms F(k) = int r^2 j_l(kr) R(r) dr, by the rules of the programs that made R(r).

A two-center integral is a sum over k of products of two transforms. Which k, with which weights, and how R is read
between its samples is what a program's numbers depend on (at 1e-5 for OpenMX), so every program is one
`Rule` (see `rules`). All lengths in bohr.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ase_hybridham.overlap.channels import RadialFunctions
from ase_hybridham.system import AtomBasis, Shell

__all__ = ["Quadrature", "Rule"]


@dataclass(frozen=True, eq=False)
class Quadrature:
    """int f(k) dk = sum_n weights[n] f(points[n]), for k in 1/bohr.

    Parameters
    ----------
    points, weights : arrays, shape (n_k,)
    """

    points: NDArray[np.float64]
    weights: NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """How a program integrates.

    Parameters
    ----------
    quadrature : callable
        ``(shells, reach) -> Quadrature``: one for all `shells`, good for distances up to `reach`.
    transform : callable
        ``(shells, degrees, power, quadrature) -> F``, shape (n_shells, n_k): int r^(2 + power) j_l(kr) R(r) dr with
        l of `degrees` at the points of the quadrature. `power` is 0 and `degrees` those of the shells but for matrix
        elements of the position.
    integrals : callable, optional
        ``(first, second) -> RadialFunctions`` of the overlap, for rules that need no quadrature for it.
    """

    quadrature: Callable[[Sequence[Shell], float], Quadrature]
    transform: Callable[[Sequence[Shell], Sequence[int], int, Quadrature], NDArray[np.float64]]
    integrals: Callable[[AtomBasis, AtomBasis], RadialFunctions] | None = None
