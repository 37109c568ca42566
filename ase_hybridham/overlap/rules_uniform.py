"""The rules of SIESTA and ABACUS: sums over uniform meshes of r and k, as their Fourier transforms make them.

SIESTA (matel, radfft): dr = pi / 100 bohr, 1024 k up to 100 / bohr. R / r^l between the samples by a cubic spline, of
slope 0 at r = 0 and without curvature at the last sample.
ABACUS (NumericalRadial, TwoCenterBundle): dr = 0.02 bohr, k up to pi / dr in steps of pi / (twice the largest radius).
R between the samples by a spline whose ends are not knots.
Both then interpolate I_L(r) / r^L between 1024 or more distances, which changes S by 2e-9 at most and is left out.
Sums are trapezoids: integrands vanish at both ends.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from ase_hybridham.errors import OverlapError
from ase_hybridham.overlap.bessel import spherical_bessel
from ase_hybridham.overlap.quadrature import Quadrature, Rule
from ase_hybridham.system import SampledRadial, Shell

__all__ = ["ABACUS", "SIESTA"]

SIESTA_STEPS, SIESTA_LARGEST_K = 1024, 100.0
ABACUS_STEP = 0.02
SAME = 1e-6  # of the cutoff radius: a spline is wrong past its samples
AT_ONCE = 2**20  # Bessel functions


def _trapezoids(step: float, count: int) -> Quadrature:
    return Quadrature(np.linspace(0.0, step * (count - 1), count), np.full(count, step))


def _siesta_quadrature(shells: Sequence[Shell], reach: float) -> Quadrature:
    return _trapezoids(SIESTA_LARGEST_K / SIESTA_STEPS, SIESTA_STEPS)


def _siesta_values(shell: Shell, r: NDArray[np.float64]) -> NDArray[np.float64]:
    mesh, values = _sampled(shell).mesh, _sampled(shell).values
    reduced = np.empty_like(values)
    reduced[1:] = values[1:] / mesh[1:] ** shell.l
    # files have R / r^l; the parabola of slope 0 gives what is lost of it at r = 0
    reduced[0] = values[0] if shell.l == 0 else (4 * reduced[1] - reduced[2]) / 3
    return CubicSpline(mesh, reduced, bc_type=((1, 0.0), (2, 0.0)))(r) * r**shell.l


def _abacus_quadrature(shells: Sequence[Shell], reach: float) -> Quadrature:
    largest = max(_sampled(shell).cutoff for shell in shells)
    return _trapezoids(np.pi / (2 * largest), round(2 * largest / ABACUS_STEP))


def _abacus_values(shell: Shell, r: NDArray[np.float64]) -> NDArray[np.float64]:
    return CubicSpline(_sampled(shell).mesh, _sampled(shell).values)(r)


def _rule(
    quadrature: Callable[[Sequence[Shell], float], Quadrature],
    step: float,
    values: Callable[[Shell, NDArray[np.float64]], NDArray[np.float64]],
) -> Rule:
    """A rule whose sum over r has that step."""

    def transform(
        shells: Sequence[Shell], degrees: Sequence[int], power: int, quadrature: Quadrature
    ) -> NDArray[np.float64]:
        r = step * np.arange(1, 1 + max(_sampled(shell).cutoff for shell in shells) / step)
        weighted = np.zeros((len(shells), len(r)))
        for n, shell in enumerate(shells):
            if _sampled(shell).mesh[-1] < (1 - SAME) * _sampled(shell).cutoff:
                raise OverlapError(
                    f"radial functions: expected samples up to {_sampled(shell).cutoff:g} bohr, got them up to "
                    f"{_sampled(shell).mesh[-1]:g}; attach the basis files again"
                )
            inside = r < _sampled(shell).cutoff
            weighted[n, inside] = values(shell, r[inside]) * r[inside] ** (2 + power) * step
        out = np.empty((len(shells), len(quadrature.points)))
        few = max(AT_ONCE // (len(r) * (max(degrees) + 1)), 1)
        for part in (slice(start, start + few) for start in range(0, out.shape[1], few)):
            bessel = spherical_bessel(max(degrees), np.outer(r, quadrature.points[part]))
            for n, l in enumerate(degrees):
                out[n, part] = weighted[n] @ bessel[l]
        return out

    return Rule(quadrature, transform)


def _sampled(shell: Shell) -> SampledRadial:
    assert isinstance(shell.radial, SampledRadial)
    return shell.radial


SIESTA = _rule(_siesta_quadrature, np.pi / SIESTA_LARGEST_K, _siesta_values)
ABACUS = _rule(_abacus_quadrature, ABACUS_STEP, _abacus_values)
