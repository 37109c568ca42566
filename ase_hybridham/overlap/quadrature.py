"""Spherical Bessel transforms F(k) = int r^2 j_l(kr) R(r) dr, by the rules of the programs that made R(r).

A two-center integral is a sum over k of products of two transforms. Which k, with which weights, and how R is read
between its samples is what a program's numbers depend on (at 1e-5 for OpenMX), so every program is one `Rule`.
All lengths in bohr.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import spherical_jn

from ase_hybridham.system import Radial, SampledRadial

__all__ = ["RULES", "Quadrature", "Rule", "hermite"]


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
        ``(radials, reach) -> Quadrature``: one for all `radials`, good for distances up to `reach`.
    transform : callable
        ``(radials, l, power, quadrature) -> F``, shape (n_radials, n_k): int r^(2 + power) j_l(kr) R(r) dr at the
        points of the quadrature. `power` is 0 but for matrix elements of the position; `l` need not be that of the
        shell then.
    """

    quadrature: Callable[[Sequence[Radial], float], Quadrature]
    transform: Callable[[Sequence[Radial], Sequence[int], int, Quadrature], NDArray[np.float64]]


def hermite(mesh: NDArray, values: NDArray, at: NDArray) -> NDArray[np.float64]:
    """OpenMX's local cubic interpolation (RadialF.c): slopes at the nodes from parabolas through three of them.

    Parameters
    ----------
    mesh : array, shape (n,)
        Ascending.
    values : array, shape (..., n)
    at : array, shape (m,)

    Returns
    -------
    array, shape (..., m)
        Zero past the last node; below the first its value, which is right for s functions only.
    """
    m = np.clip(np.searchsorted(mesh, at, side="left"), 2, len(mesh) - 1)
    last = m == len(mesh) - 1
    h1, h2 = mesh[m - 1] - mesh[m - 2], mesh[m] - mesh[m - 1]
    f1, f2, f3 = values[..., m - 2], values[..., m - 1], values[..., m]
    after = np.minimum(m + 1, len(mesh) - 1)
    h3 = np.where(last, -(h1 + h2), mesh[after] - mesh[m])
    f4 = np.where(last, f1, values[..., after])
    g1 = ((f3 - f2) * h1 / h2 + (f2 - f1) * h2 / h1) / (h1 + h2)
    g2 = ((f4 - f3) * h2 / h3 + (f3 - f2) * h3 / h2) / (h2 + h3)
    y1, y2 = (at - mesh[m - 1]) / h2, (at - mesh[m]) / h2
    out = y2**2 * (3 * f2 + h2 * g1 + (2 * f2 + h2 * g1) * y2) + y1**2 * (3 * f3 - h2 * g2 - (2 * f3 - h2 * g2) * y1)
    out = np.where(at > mesh[-1], 0.0, out)
    return np.where(at < mesh[0], values[..., :1], out)


def _openmx_settings(radials: Sequence[Radial]) -> tuple[float, int, int]:
    """kmax, intervals in k, intervals in r; OpenMX's defaults (Input_std.c) unless the input told others."""
    settings = dict(radials[0].settings) if isinstance(radials[0], SampledRadial) else {}
    kmax = float(np.sqrt(settings.get("energy_cutoff", 3600.0)))
    return kmax, int(settings.get("k_points", 900)), int(settings.get("radial_points", 900))


def _openmx_quadrature(radials: Sequence[Radial], reach: float) -> Quadrature:
    """Trapezoids from 1e-6 to kmax (Set_OLP_Kin.c), whatever the reach."""
    kmax, _, n = _openmx_settings(radials)
    points = 1e-6 + np.arange(n + 1) * (kmax - 1e-6) / n
    weights = np.full(n + 1, (kmax - 1e-6) / n)
    weights[[0, -1]] *= 0.5
    return Quadrature(points, weights)


def _openmx_transform(
    radials: Sequence[Radial], degrees: Sequence[int], power: int, quadrature: Quadrature
) -> NDArray[np.float64]:
    """Trapezoids in r on OpenMX's own table of k (FT_PAO.c), which is then interpolated like a radial function."""
    kmax, n_k, n_r = _openmx_settings(radials)
    table = np.arange(n_k) * kmax / n_k
    out = np.empty((len(radials), len(quadrature.points)))
    for l in sorted(set(degrees)):
        for n in np.flatnonzero(np.equal(degrees, l)):
            radial = radials[n]
            assert isinstance(radial, SampledRadial)
            r = np.linspace(radial.mesh[0], radial.cutoff + 0.5, n_r + 1)
            weights = np.full(n_r + 1, r[1] - r[0])
            weights[[0, -1]] *= 0.5
            f = hermite(radial.mesh, radial.values, r) * weights * r ** (2 + power)
            out[n] = hermite(table, spherical_jn(l, np.outer(table, r)) @ f, quadrature.points)
    return out


RULES = {"openmx": Rule(_openmx_quadrature, _openmx_transform)}
