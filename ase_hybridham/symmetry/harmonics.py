"""Real spherical harmonics of any degree.

Y_lm without Condon-Shortley sign, m = -l .. l: cos(m phi) for m > 0, sin(|m| phi) for m < 0, every
one with a positive factor (l = 1: y, z, x). 'Component' normalization: sum_m Y_lm(v)^2 = 2l+1, that is
sqrt(4 pi) times harmonics orthonormal on the sphere. Natural parity: Y_lm(-v) = (-1)^l Y_lm(v).
"""

from math import sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["spherical_harmonics"]


def spherical_harmonics(vectors: ArrayLike, lmax: int) -> list[NDArray[np.float64]]:
    """Harmonics of the directions of vectors, for l = 0 .. lmax.

    Parameters
    ----------
    vectors : array, shape (..., 3)
        x, y, z in any unit; only the direction counts.
    lmax : int
        Largest degree.

    Returns
    -------
    list of arrays, shape (..., 2l+1)
        m = -l .. l, with sum of squares 2l+1. A zero vector has Y_0 = 1 and Y_l = 0 for l > 0.

    Raises
    ------
    ValueError
        If `vectors` does not end in an axis of 3, or lmax is negative.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    if vectors.shape[-1:] != (3,):
        raise ValueError(f"vectors: expected shape (..., 3), got {vectors.shape}")
    if lmax < 0:
        raise ValueError(f"lmax: expected at least 0, got {lmax}")
    lengths = np.linalg.norm(vectors, axis=-1)
    has_direction = lengths > 0
    unit = vectors / np.where(has_direction, lengths, 1.0)[..., None]
    x, y, z = np.moveaxis(unit, -1, 0)

    out = [np.zeros((*z.shape, 2 * l + 1)) for l in range(lmax + 1)]
    # (x + iy)^m = sin(theta)^m e^{i m phi}; the rest of Y_lm is a polynomial in z, by recursion over l
    real, imaginary, top = np.ones_like(z), np.zeros_like(z), 1.0
    for m in range(lmax + 1):
        if m:
            real, imaginary = real * x - imaginary * y, real * y + imaginary * x
            top *= sqrt(3.0) if m == 1 else sqrt((2 * m + 1) / (2 * m))
        before, polynomial = np.zeros_like(z), np.full_like(z, top)
        for l in range(m, lmax + 1):
            if l > m:
                a = sqrt((4 * l * l - 1) / (l * l - m * m))
                b = sqrt(((l - 1) ** 2 - m * m) / (4 * (l - 1) ** 2 - 1))
                before, polynomial = polynomial, a * (z * polynomial - b * before)
            out[l][..., l + m] = polynomial * real
            if m:
                out[l][..., l - m] = polynomial * imaginary
    for harmonics in out[1:]:
        harmonics[~has_direction] = 0.0
    return out
