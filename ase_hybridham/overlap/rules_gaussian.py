"""Contracted Gaussians: transforms and radial integrals in closed form.

B_nL(a, k) = int r^(L+2+2n) e^(-a r^2) j_L(kr) dr
           = sqrt(pi) n! k^L L_n^(L+1/2)(k^2/4a) e^(-k^2/4a) / (2^(L+2) a^(L+n+3/2))
(NIST DLMF 10.22.51 with Laguerre polynomials for the confluent function) is the transform of a primitive, and, with
r and k exchanged and 1/4a + 1/4b for a, the integral over a product of two. Letters: a, b primitives; n its power.
"""

from collections.abc import Callable, Sequence
from math import factorial, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import eval_genlaguerre, gamma

from ase_hybridham.errors import OverlapError
from ase_hybridham.overlap.channels import channels_of
from ase_hybridham.overlap.quadrature import Quadrature, Rule
from ase_hybridham.system import AtomBasis, GaussianRadial, Shell

__all__ = ["GAUSSIAN", "GaussianIntegrals", "gaussian_radius"]

# e^-55 = 1e-24 is negligible, with room for the powers of r or k of two g shells.
NEGLIGIBLE = 55.0
# Points of a Gauss-Legendre panel, good to rounding for a phase of PHASE radian over half of it.
NODES, PHASE = 64, 70.0
MOST = 2**17  # points
SMALLEST, LARGEST = 1e-6, 1e12  # exponents, far beyond those of any basis
MOST_PRIMITIVES = 200  # of a contraction; the work grows with their square
CANCELLED = 1e-12  # of the norm, which rounding at 1e-16 then decides
AT_ONCE = 2**18  # exponentials


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
        for a, coefficient in zip(_gaussian(shell).exponents, contraction(shell), strict=True):
            F += coefficient * _bessel_integral(n, L, np.array(a), k)
    return out


class GaussianIntegrals:
    """I_L(r) of all channels between two atoms, times (2/pi) and the phase (see `twocenter`); exact.

    Parameters
    ----------
    first, second : AtomBasis
        Every shell a contraction of Gaussians.
    """

    def __init__(self, first: AtomBasis, second: AtomBasis) -> None:
        self.channels = channels_of(first.degrees, second.degrees)
        self.reach = gaussian_radius(first) + gaussian_radius(second)
        self._products = {
            (s, t): _product(one, other) for s, one in enumerate(first.shells) for t, other in enumerate(second.shells)
        }

    def at(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """The integrals at distances in bohr, shape (n, n_channels)."""
        return self._sums(distances, _bessel_integral)

    def with_slopes(self, distances: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The integrals and their derivatives along the distance, in 1/bohr, each of shape (n, n_channels)."""
        return self.at(distances), self._sums(distances, _bessel_slope)

    def _sums(self, distances: NDArray[np.float64], integral: Callable[..., NDArray]) -> NDArray[np.float64]:
        """Over the products of primitives of every channel."""
        out = np.zeros((len(distances), len(self.channels)))
        for column, c in zip(out.T, self.channels, strict=True):
            width, coefficients = self._products[c.row, c.column]
            phase = (-1) ** ((c.l1 - c.l2 - c.L) // 2) * 2 / np.pi
            step = max(AT_ONCE // len(width), 1)
            for part in (slice(start, start + step) for start in range(0, len(out), step)):
                values = integral((c.l1 + c.l2 - c.L) // 2, c.L, width, distances[part, None])
                column[part] = phase * (values @ coefficients)
        out[distances > self.reach] = 0.0
        return out


def _product(one: Shell, other: Shell) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """F_1 F_2 = sum coefficient k^(l1 + l2) e^(-width k^2): widths and coefficients, one a pair of primitives."""
    (a, f), (b, g) = (_transformed(shell) for shell in (one, other))
    return np.add.outer(0.25 / a, 0.25 / b).ravel(), np.multiply.outer(f, g).ravel()


def _transformed(shell: Shell) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """F = sum coefficient k^l e^(-k^2/4a): exponents a and coefficients."""
    a = np.array(_gaussian(shell).exponents)
    return a, contraction(shell) * sqrt(np.pi) / (2 ** (shell.l + 2) * a ** (shell.l + 1.5))


def _bessel_integral(n: int, L: int, a: NDArray[np.float64], k: NDArray[np.float64]) -> NDArray[np.float64]:
    """B_nL(a, k)."""
    t = k**2 / (4 * a)
    factor = sqrt(np.pi) * factorial(n) / (2 ** (L + 2) * a ** (L + n + 1.5))
    return factor * k**L * np.exp(-t) * eval_genlaguerre(n, L + 0.5, t)


def _bessel_slope(n: int, L: int, a: NDArray[np.float64], k: NDArray[np.float64]) -> NDArray[np.float64]:
    """d B_nL / dk, for (2L+1) j_L' = L j_(L-1) - (L+1) j_(L+1)."""
    above = (L + 1) * _bessel_integral(n, L + 1, a, k)
    below = L * _bessel_integral(n + 1, L - 1, a, k) if L else 0.0
    return (below - above) / (2 * L + 1)


def gaussian_radius(atom: AtomBasis) -> float:
    """Half of a distance in bohr where two such atoms' overlaps have ended, by more than 1e-16."""
    return sqrt(NEGLIGIBLE / min(exponent for shell in atom.shells for exponent in _gaussian(shell).exponents))


def contraction(shell: Shell) -> NDArray[np.float64]:
    """Coefficients of r^l e^(-a r^2) in R, such that int R^2 r^2 dr = 1."""
    a = np.array(_gaussian(shell).exponents)
    if len(a) > MOST_PRIMITIVES:
        raise OverlapError(f"radial functions: expected at most {MOST_PRIMITIVES} Gaussians a shell, got {len(a)}")
    if not (a.min() >= SMALLEST and a.max() <= LARGEST):
        raise OverlapError(
            f"radial functions: expected exponents of {SMALLEST:g} to {LARGEST:g} bohr^-2, got {a.min():.3g} to "
            f"{a.max():.3g}; check the basis"
        )
    half = shell.l + 1.5
    overlaps = gamma(half) / (2 * np.add.outer(a, a) ** half)
    with np.errstate(over="ignore", invalid="ignore"):  # what is no number is refused
        normalized = np.array(_gaussian(shell).coefficients) * np.sqrt(2 * (2 * a) ** half / gamma(half))
        norm, largest = (f @ overlaps @ f for f in (normalized, np.abs(normalized)))
    if not CANCELLED * largest < norm < np.inf:
        raise OverlapError(f"radial functions: the Gaussians of shell {shell.label or shell.l} cancel; check the basis")
    return normalized / np.sqrt(norm)


def _gaussian(shell: Shell) -> GaussianRadial:
    assert isinstance(shell.radial, GaussianRadial)
    return shell.radial


GAUSSIAN = Rule(_quadrature, _transform, GaussianIntegrals)
