"""Contracted Gaussians: transforms in closed form, and an integration in k that is exact to rounding.

int r^(2+p) j_L(kr) r^l e^(-a r^2) dr = sqrt(pi) n! k^L L_n^(L+1/2)(k^2/4a) e^(-k^2/4a) / (2^(L+2) a^(L+n+3/2)),
2n = l + p - L (NIST DLMF 10.22.51 with Laguerre polynomials for the confluent function). Letters: a, b primitives.
"""

from collections.abc import Sequence
from math import factorial, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import eval_genlaguerre, gamma

from ase_hybridham.errors import OverlapError
from ase_hybridham.overlap.quadrature import Quadrature, Rule
from ase_hybridham.system import GaussianRadial, Shell

__all__ = ["GAUSSIAN", "NEGLIGIBLE"]

# e^-55 = 1e-24 is negligible, with room for the powers of r or k of two g shells.
NEGLIGIBLE = 55.0
# Points of a Gauss-Legendre panel, good to rounding for a phase of PHASE radian over half of it.
NODES, PHASE = 64, 70.0
MOST = 2**17  # points


def _quadrature(shells: Sequence[Shell], reach: float) -> Quadrature:
    """Panels up to where the tightest shells end in k, narrow enough for the largest distance and the widest shell."""
    exponents = [exponent for shell in shells for exponent in _gaussian(shell).exponents]
    kmax = sqrt(2 * NEGLIGIBLE * max(exponents))
    reach = max(reach, 2 * sqrt(NEGLIGIBLE / min(exponents)))
    n = int(np.ceil(kmax * reach / (2 * PHASE)))
    if n * NODES > MOST:
        raise OverlapError(
            f"overlap: expected exponents within {(MOST / NODES * PHASE / NEGLIGIBLE) ** 2 / 2:.0e} of each other, "
            f"got {min(exponents):.2g} to {max(exponents):.2g} bohr^-2; use pseudopotentials and their basis"
        )
    z, weights = np.polynomial.legendre.leggauss(NODES)
    half = kmax / (2 * n)
    points = half * (2 * np.arange(n)[:, None] + 1 + z)
    return Quadrature(points.ravel(), np.tile(half * weights, n))


def _transform(
    shells: Sequence[Shell], degrees: Sequence[int], power: int, quadrature: Quadrature
) -> NDArray[np.float64]:
    k = quadrature.points
    out = np.zeros((len(shells), len(k)))
    for F, shell, L in zip(out, shells, degrees, strict=True):
        n, odd = divmod(shell.l + power - L, 2)
        if odd or n < 0:
            raise ValueError(f"transform of a Gaussian: expected L = l + power - 2n, got {L} of {shell.l} + {power}")
        factor = sqrt(np.pi) * factorial(n) / 2 ** (L + 2)
        for a, coefficient in zip(_gaussian(shell).exponents, contraction(shell), strict=True):
            t = k**2 / (4 * a)
            F += factor * coefficient / a ** (L + n + 1.5) * k**L * np.exp(-t) * eval_genlaguerre(n, L + 0.5, t)
    return out


def contraction(shell: Shell) -> NDArray[np.float64]:
    """Coefficients of r^l e^(-a r^2) in R, such that int R^2 r^2 dr = 1."""
    a = np.array(_gaussian(shell).exponents)
    half = shell.l + 1.5
    normalized = np.array(_gaussian(shell).coefficients) * np.sqrt(2 * (2 * a) ** half / gamma(half))
    norm = normalized @ (gamma(half) / (2 * np.add.outer(a, a) ** half)) @ normalized
    if not norm > 0:
        raise OverlapError(f"radial functions: the Gaussians of shell {shell.label or shell.l} cancel; check the basis")
    return normalized / np.sqrt(norm)


def _gaussian(shell: Shell) -> GaussianRadial:
    assert isinstance(shell.radial, GaussianRadial)
    return shell.radial


GAUSSIAN = Rule(_quadrature, _transform)
