"""Real spherical harmonics: explicit formulas, scipy, the addition theorem."""

import numpy as np
import pytest
from numpy.polynomial.legendre import Legendre
from scipy import special

from ase_hybridham.symmetry import spherical_harmonics


def directions(seed: int, n: int = 50) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, 3))
    return vectors / np.linalg.norm(vectors, axis=1)[:, None]


def test_harmonics_up_to_d_are_the_textbook_polynomials():
    v = directions(0)
    x, y, z = v.T
    s3, s15, s5 = np.sqrt([3.0, 15.0, 5.0])
    expected = [
        [np.ones_like(x)],
        [s3 * y, s3 * z, s3 * x],
        [s15 * x * y, s15 * y * z, s5 * (3 * z * z - 1) / 2, s15 * x * z, s15 * (x * x - y * y) / 2],
    ]
    for found, columns in zip(spherical_harmonics(3.7 * v, 2), expected, strict=True):
        np.testing.assert_allclose(found, np.stack(columns, axis=-1), atol=1e-14)


@pytest.mark.parametrize("l", range(9))
def test_harmonics_are_scipys_without_condon_shortley(l):
    v = directions(1)
    theta, phi = np.arccos(v[:, 2]), np.arctan2(v[:, 1], v[:, 0])
    found = spherical_harmonics(v, l)[l]
    for m in range(-l, l + 1):
        associated = (-1) ** abs(m) * special.lpmv(abs(m), l, np.cos(theta))  # lpmv carries Condon-Shortley
        norm = np.sqrt((2 * l + 1) * special.gamma(l - abs(m) + 1) / special.gamma(l + abs(m) + 1))
        angular = np.sqrt(2) * (np.cos(m * phi) if m > 0 else np.sin(-m * phi)) if m else 1.0
        np.testing.assert_allclose(found[:, l + m], norm * associated * angular, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_addition_theorem(seed):
    u, v = directions(seed), directions(seed + 10)
    for l, (a, b) in enumerate(zip(spherical_harmonics(u, 10), spherical_harmonics(v, 10), strict=True)):
        legendre = (2 * l + 1) * Legendre.basis(l)(np.sum(u * v, axis=1))
        np.testing.assert_allclose(np.sum(a * b, axis=1), legendre, atol=1e-12)


def test_zero_vector_has_only_the_scalar_and_others_are_untouched():
    vectors = np.array([[[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]], [[1e-100, 0.0, 0.0], [1.0, 2.0, 3.0]]])
    found = spherical_harmonics(vectors, 4)
    assert [part.shape for part in found] == [(2, 2, 2 * l + 1) for l in range(5)]
    np.testing.assert_array_equal(found[0], 1.0)
    for l in range(1, 5):
        np.testing.assert_array_equal(found[l][0, 0], 0.0)
        np.testing.assert_allclose(np.sum(found[l] ** 2, axis=-1)[[0, 1, 1], [1, 0, 1]], 2 * l + 1, rtol=1e-13)


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"vectors: expected shape \(\.\.\., 3\)"):
        spherical_harmonics(np.zeros((4, 2)), 2)
    with pytest.raises(ValueError, match="lmax"):
        spherical_harmonics(np.zeros((4, 3)), -1)
