"""Spherical Bessel functions of all degrees at once are those of SciPy."""

import numpy as np
import pytest
from scipy.special import spherical_jn

from ase_hybridham.overlap.bessel import LARGEST, derivatives, spherical_bessel

# 0, the smallest numbers, both sides of x = l where series and recurrence meet, and far out
X = np.concatenate([[0.0, 1e-12, 1e-5, 1e-3], np.arange(1.0, 17), np.arange(1.0, 17) + 1e-9, np.linspace(0, 900, 9000)])


@pytest.mark.parametrize("lmax", [0, 1, 4, LARGEST])
def test_every_degree_is_that_of_scipy(lmax):
    found = spherical_bessel(lmax, X.reshape(2, -1))
    assert found.shape == (lmax + 1, 2, len(X) // 2)
    for l in range(lmax + 1):
        np.testing.assert_allclose(found[l].ravel(), spherical_jn(l, X), atol=2e-15)


def test_small_arguments_keep_their_digits():
    x = np.array([1e-3, 0.1, 1.0, 3.0])
    for l, found in enumerate(spherical_bessel(6, x)):
        np.testing.assert_allclose(found, spherical_jn(l, x), rtol=1e-12)


def test_derivatives_of_both_orders():
    first = derivatives(spherical_bessel(8, X))
    for l in range(8):
        np.testing.assert_allclose(first[l], spherical_jn(l, X, derivative=True), atol=3e-15)
    second = derivatives(first)
    x = X[100:]
    for l in range(7):
        # j'' + 2 j' / x + (1 - l(l+1) / x^2) j = 0
        expected = -2 / x * first[l, 100:] - (1 - l * (l + 1) / x**2) * spherical_jn(l, x)
        np.testing.assert_allclose(second[l, 100:], expected, atol=1e-13)


def test_degrees_beyond_the_series_are_refused():
    with pytest.raises(ValueError, match="expected degrees of 0 to 16, got 17"):
        spherical_bessel(17, X)
