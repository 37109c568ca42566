"""Wigner matrices and the frames of edges."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ase_hybridham.symmetry import alignment_matrices, reverse_sign, spherical_harmonics, wigner_D

LMAX = 6
# values of up to 4 in sums of up to 13 terms; found 2e-14
ROUND_OFF = 1e-13


def rotations() -> np.ndarray:
    """Random ones, axis ones, and some a rounding error away from the poles of the Euler angles; half improper."""
    rng = np.random.default_rng(3)
    tiny = Rotation.from_rotvec(1e-9 * rng.normal(size=(10, 3)) ** 5).as_matrix()
    proper = np.concatenate(
        [
            Rotation.random(50, random_state=4).as_matrix(),
            Rotation.create_group("O").as_matrix(),
            tiny,
            tiny @ np.diag([-1.0, 1.0, -1.0]),
        ]
    )
    return np.concatenate([proper, -proper])


def edges() -> np.ndarray:
    """Random vectors, and some at any small distance of the two poles (not those within POLE of it)."""
    rng = np.random.default_rng(5)
    off = 10.0 ** rng.uniform(-8.9, -4, size=50)
    azimuth = rng.uniform(0, 2 * np.pi, size=50)
    near = np.stack([off * np.cos(azimuth), off * np.sin(azimuth), np.where(np.arange(50) % 2, 1.0, -1.0)], axis=1)
    return np.concatenate([rng.normal(size=(1000, 3)), near])


def vertical() -> np.ndarray:
    """At the poles, exactly or up to rounding."""
    return np.array([[x, y, z] for x, y in [(0, 0), (1e-16, -3e-17), (-1e-300, 0), (0, 2e-10)] for z in (3.0, -3.0)])


@pytest.mark.parametrize("l", range(LMAX + 1))
def test_wigner_turns_harmonics(l):
    R, v = rotations(), np.random.default_rng(0).normal(size=(20, 3))
    before = spherical_harmonics(v, l)[l]
    after = spherical_harmonics(np.einsum("rxy,ny->rnx", R, v), l)[l]
    np.testing.assert_allclose(np.einsum("rab,nb->rna", wigner_D(l, R), before), after, atol=ROUND_OFF)


@pytest.mark.parametrize("l", range(LMAX + 1))
def test_wigner_is_an_orthogonal_representation(l):
    R = rotations()
    D = wigner_D(l, R)
    unit = np.eye(2 * l + 1)
    np.testing.assert_allclose(D @ D.swapaxes(-1, -2), np.broadcast_to(unit, D.shape), atol=ROUND_OFF)
    np.testing.assert_allclose(wigner_D(l, R[:-1] @ R[1:]), D[:-1] @ D[1:], atol=ROUND_OFF)
    np.testing.assert_allclose(wigner_D(l, -np.eye(3)), (-1) ** l * unit, atol=ROUND_OFF)


@pytest.mark.parametrize("l", range(LMAX + 1))
def test_edge_frame_leaves_only_order_zero(l):
    v = edges()
    D = alignment_matrices(v, LMAX)[l]
    expected = np.zeros((len(v), 2 * l + 1))
    expected[:, l] = np.sqrt(2 * l + 1)
    found = np.einsum("eab,eb->ea", D, spherical_harmonics(v, l)[l])
    np.testing.assert_allclose(found, expected, atol=ROUND_OFF)
    np.testing.assert_allclose(D @ D.swapaxes(1, 2), np.broadcast_to(np.eye(2 * l + 1), D.shape), atol=ROUND_OFF)


def test_edge_frame_is_one_proper_rotation_for_all_degrees():
    v = np.concatenate([edges(), vertical()])
    D = alignment_matrices(v, LMAX)
    axes = [1, 2, 0]  # of y, z, x
    R = np.empty((len(v), 3, 3))
    R[np.ix_(range(len(v)), axes, axes)] = D[1]
    np.testing.assert_allclose(np.linalg.det(R), 1.0, atol=ROUND_OFF)
    for l in range(LMAX + 1):
        np.testing.assert_allclose(wigner_D(l, R), D[l], atol=ROUND_OFF)


@pytest.mark.parametrize("l", range(LMAX + 1))
def test_reverse_edge_differs_by_signs(l):
    v = np.concatenate([edges(), vertical()])
    forward, backward = alignment_matrices(v, l)[l], alignment_matrices(-v, l)[l]
    np.testing.assert_allclose(backward, reverse_sign(l)[l][:, None] * forward, atol=ROUND_OFF)


def test_reverse_edge_rule_survives_independent_rounding_of_the_two_vectors():
    """The two vectors of a vertical pair in a file: their azimuths are unrelated noise."""
    forward = alignment_matrices(np.array([[1e-16, 0, 3.3], [3e-17, -2e-16, -3.3]]), 4)
    backward = alignment_matrices(np.array([[0, 1e-16, -3.3], [1e-16, 1e-16, 3.3]]), 4)
    for there, back, sign in zip(forward, backward, reverse_sign(4), strict=True):
        np.testing.assert_allclose(back, sign[:, None] * there, atol=ROUND_OFF)


@pytest.mark.parametrize("l", range(LMAX + 1))
def test_vertical_edge_is_aligned_within_the_pole_rule(l):
    v = vertical()
    found = np.einsum("eab,eb->ea", alignment_matrices(v, l)[l], spherical_harmonics(v, l)[l])
    expected = np.sqrt(2 * l + 1) * (np.arange(-l, l + 1) == 0)
    # a vector 7e-11 off the axis is taken as vertical: an error of that size times l^2
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=7e-11 * 50)
    exact = np.column_stack([np.zeros((len(v), 2)), v[:, 2]])
    np.testing.assert_array_equal(alignment_matrices(v, l)[l], alignment_matrices(exact, l)[l])


def test_zero_vector_keeps_the_frame_of_the_lab():
    for l, D in enumerate(alignment_matrices(np.zeros((1, 3)), 4)):
        np.testing.assert_allclose(D[0], np.eye(2 * l + 1), atol=ROUND_OFF)


@pytest.mark.parametrize(
    "matrix", [np.diag([1.0, 1.0, 1.1]), np.eye(2), np.full((3, 3), np.nan), np.zeros((3, 3)), np.zeros(3)]
)
def test_a_matrix_that_is_no_rotation_is_refused(matrix):
    with pytest.raises(ValueError, match="rotation: expected"):
        wigner_D(1, matrix)


def test_wrong_vectors_are_refused():
    with pytest.raises(ValueError, match=r"vectors: expected shape \(E, 3\)"):
        alignment_matrices(np.zeros(3), 2)
