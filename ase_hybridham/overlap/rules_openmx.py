"""OpenMX's rule: trapezoids in r and in k, and a local cubic interpolation between samples of R and of F.

With it overlaps agree with OpenMX's files to the noise of 1e-13 the program adds, on-site to 1e-10 (where OpenMX
sets r = 1e-10). Converged integrals of the same samples differ by 5e-8, another interpolation of R by 1e-5.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ase_hybridham.errors import OverlapError
from ase_hybridham.overlap.bessel import spherical_bessel
from ase_hybridham.overlap.quadrature import Quadrature, Rule
from ase_hybridham.system import SampledRadial, Shell

__all__ = ["OPENMX", "hermite"]

# Defaults of Input_std.c with what may be asked for instead; rydberg, intervals in k, intervals in r.
SETTINGS = {"energy_cutoff": (3600.0, 1.0, 1e5), "k_points": (900, 10, 10_000), "radial_points": (900, 10, 10_000)}
AT_ONCE = 2**20  # Bessel functions


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


def _settings(shells: Sequence[Shell]) -> tuple[float, int, int]:
    """kmax in 1/bohr, intervals in k, intervals in r."""
    given = dict(_sampled(shells[0]).settings)
    found = {}
    for name, (default, least, most) in SETTINGS.items():
        value = float(given.pop(name, default))
        if not least <= value <= most or (isinstance(default, int) and value != int(value)):
            raise OverlapError(
                f"radial functions: expected {name} of OpenMX's 1DFFT in {least:g} .. {most:g}, got {value:g}; "
                "attach the basis files again"
            )
        found[name] = value
    if given:
        raise OverlapError(
            f"radial functions: OpenMX's rule has no setting {next(iter(given))!r}, only {', '.join(SETTINGS)}"
        )
    return float(np.sqrt(found["energy_cutoff"])), int(found["k_points"]), int(found["radial_points"])


def _quadrature(shells: Sequence[Shell], reach: float) -> Quadrature:
    """Trapezoids from 1e-6 to kmax (Set_OLP_Kin.c), whatever the reach."""
    kmax, _, n = _settings(shells)
    points = 1e-6 + np.arange(n + 1) * (kmax - 1e-6) / n
    weights = np.full(n + 1, (kmax - 1e-6) / n)
    weights[[0, -1]] *= 0.5
    return Quadrature(points, weights)


def _transform(
    shells: Sequence[Shell], degrees: Sequence[int], power: int, quadrature: Quadrature
) -> NDArray[np.float64]:
    """Trapezoids in r on OpenMX's own table of k (FT_PAO.c), which is then interpolated like a radial function."""
    kmax, n_k, _ = _settings(shells)
    table = _table(tuple(shells), tuple(degrees), power)
    return hermite(np.arange(n_k) * kmax / n_k, table, quadrature.points)


@lru_cache(maxsize=64)
def _table(shells: tuple[Shell, ...], degrees: tuple[int, ...], power: int) -> NDArray[np.float64]:
    """F at multiples of kmax / n_k, shape (n_shells, n_k); kept, because every element occurs in many pairs."""
    kmax, n_k, n_r = _settings(shells)
    k = np.arange(n_k) * kmax / n_k
    grids = [(_sampled(shell).mesh[0], _sampled(shell).cutoff + 0.5) for shell in shells]
    out = np.empty((len(shells), n_k))
    lmax = max(degrees)
    step = max(AT_ONCE // (n_r * (lmax + 1)), 1)
    for start, stop in set(grids):
        r = np.linspace(start, stop, n_r + 1)
        weights = np.full(n_r + 1, r[1] - r[0]) * r ** (2 + power)
        weights[[0, -1]] *= 0.5
        mine = [n for n, grid in enumerate(grids) if grid == (start, stop)]
        values = {n: weights * hermite(_sampled(shells[n]).mesh, _sampled(shells[n]).values, r) for n in mine}
        for rows in (slice(a, a + step) for a in range(0, n_k, step)):
            bessel = spherical_bessel(lmax, np.outer(k[rows], r))
            for n in mine:
                out[n, rows] = bessel[degrees[n]] @ values[n]
    out.flags.writeable = False
    return out


def _sampled(shell: Shell) -> SampledRadial:
    assert isinstance(shell.radial, SampledRadial)
    return shell.radial


OPENMX = Rule(_quadrature, _transform)
