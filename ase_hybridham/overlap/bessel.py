"""Spherical Bessel functions of many degrees at once: one sine, one cosine, then recurrence."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["derivatives", "spherical_bessel"]

LARGEST = 16
TERMS = 28  # of the power series, enough for x <= l <= LARGEST


def spherical_bessel(lmax: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """j_l(x) for l = 0 .. lmax.

    Parameters
    ----------
    lmax : int
        At most 16.
    x : array, shape (...)
        0 or more.

    Returns
    -------
    array, shape (lmax + 1, ...)
        Absolute error below 2e-15. The recurrence from l - 1 and l - 2 is stable for x > l (NIST DLMF 10.51);
        below, the power series (10.53.1).
    """
    if not 0 <= lmax <= LARGEST:
        raise ValueError(f"Bessel functions: expected degrees of 0 to {LARGEST}, got {lmax}")
    out = np.empty((lmax + 1, *x.shape))
    np.copyto(out[0], np.where(x > 0, np.sin(x) / np.where(x > 0, x, 1.0), 1.0))
    inverse = 1 / np.maximum(x, 1.0)  # the series replaces what this makes of smaller x
    if lmax:
        out[1] = (out[0] - np.cos(x)) * inverse
    for l in range(2, lmax + 1):
        np.multiply(inverse, out[l - 1], out=out[l])
        out[l] *= 2 * l - 1
        out[l] -= out[l - 2]
    order = np.flatnonzero(x.ravel() <= lmax)
    small = x.ravel()[order]
    flat = out.reshape(lmax + 1, -1)
    for l in range(1, lmax + 1):
        which = small <= l
        flat[l, order[which]] = _series(l, small[which])
    return out


def derivatives(bessel: NDArray[np.float64]) -> NDArray[np.float64]:
    """d j_l / dx for l = 0 .. lmax - 1 from j_l for l = 0 .. lmax; applied again, the second derivatives."""
    out = np.empty_like(bessel[:-1])
    np.negative(bessel[1], out=out[0])
    for l in range(1, len(out)):
        out[l] = (l * bessel[l - 1] - (l + 1) * bessel[l + 1]) / (2 * l + 1)
    return out


def _series(l: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """x^l / (2l+1)!! sum_n (-x^2 / 2)^n / (n! (2l+3)(2l+5) .. (2l+2n+1))."""
    square, total = -0.5 * x**2, np.ones_like(x)
    for n in range(TERMS, 0, -1):
        total = 1 + square / (n * (2 * l + 2 * n + 1)) * total
    return x**l / np.prod(np.arange(1.0, 2 * l + 2, 2)) * total
