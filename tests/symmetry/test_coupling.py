"""Coupling tensors and the direct sum of blocks."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ase_hybridham.symmetry import (
    DirectSum,
    alignment_matrices,
    clebsch_gordan,
    orbital_rotation,
    polar_coupling,
    reverse_sign,
    spherical_harmonics,
    wigner_D,
)

TRIPLES = [(a, b, c) for a in range(5) for b in range(5) for c in range(abs(a - b), a + b + 1)]
SHELLS = [((0, 1, 2, 3, 4), (0, 1, 2, 3, 4)), ((0, 0, 1, 1, 2), (0, 0, 0, 1, 1, 2, 2)), ((4,), (1, 3, 0)), ((0,), (0,))]


def random_blocks(rng, shape, dtype=np.float64):
    real = rng.normal(size=shape)
    return (real + 1j * rng.normal(size=shape) if np.issubdtype(dtype, np.complexfloating) else real).astype(dtype)


@pytest.mark.parametrize(("l1", "l2", "l3"), TRIPLES)
def test_coupling_is_orthonormal_and_turns_with_its_arguments(l1, l2, l3):
    C = clebsch_gordan(l1, l2, l3)
    np.testing.assert_allclose(np.einsum("abm,abn->mn", C, C), np.eye(2 * l3 + 1), atol=1e-13)
    R = Rotation.random(random_state=l1 + 7 * l2 + 49 * l3).as_matrix()
    turned = np.einsum("abm,ap,bq->pqm", C, wigner_D(l1, R), wigner_D(l2, R))
    np.testing.assert_allclose(turned, C @ wigner_D(l3, R).T, atol=1e-13)


def test_coupling_is_complete():
    for l1, l2 in [(1, 2), (3, 4), (4, 4)]:
        total = sum(
            np.einsum("abm,cdm->abcd", clebsch_gordan(l1, l2, L), clebsch_gordan(l1, l2, L))
            for L in range(abs(l1 - l2), l1 + l2 + 1)
        )
        unit = np.einsum("ac,bd->abcd", np.eye(2 * l1 + 1), np.eye(2 * l2 + 1))
        np.testing.assert_allclose(total, unit, atol=1e-13)


def test_coupling_of_two_vectors():
    """1 x 1 -> 0 is the scalar product, 1 x 1 -> 1 the cross product, up to the known factors."""
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(2, 3))
    order = [1, 2, 0]  # y, z, x
    scalar = np.einsum("abm,a,b->m", clebsch_gordan(1, 1, 0), u[order], v[order])
    vector = np.einsum("abm,a,b->m", clebsch_gordan(1, 1, 1), u[order], v[order])
    np.testing.assert_allclose(scalar, u @ v / np.sqrt(3), atol=1e-14)
    np.testing.assert_allclose(vector, np.cross(u, v)[order] / np.sqrt(2), atol=1e-14)


@pytest.mark.parametrize("bad", [(1, 1, 3), (2, 0, 1), (-1, 1, 0)])
def test_triangle_rule(bad):
    with pytest.raises(ValueError, match="coupling: expected"):
        clebsch_gordan(*bad)


@pytest.mark.parametrize(("l1", "l2", "l3"), TRIPLES)
def test_polar_coupling_is_the_coupling_with_an_edge_in_its_frame(l1, l2, l3):
    """Swap as documented, multiply m by m, swap back: the same as the full tensor at m2 = 0."""
    C = clebsch_gordan(l1, l2, l3) / np.sqrt(2 * l3 + 1)
    c = polar_coupling(l1, l2, l3)
    x = np.random.default_rng(1).normal(size=2 * l1 + 1)
    expected = x @ C[:, l2, :]
    m = np.arange(1, min(l1, l3) + 1)
    stored = np.zeros(2 * l3 + 1)
    stored[l3], stored[l3 + m], stored[l3 - m] = c[0] * x[l1], c[m] * x[l1 + m], c[m] * x[l1 - m]
    if (l1 + l2 + l3) % 2 == 0:
        found = stored
    else:  # natural -> unnatural: undo z(+m) = -y(-m), z(-m) = y(+m)
        assert c[0] == 0
        found = np.array(stored)
        found[l3 + m], found[l3 - m] = stored[l3 - m], -stored[l3 + m]
        # unnatural (swapped) -> natural: the opposite sign
        swapped = np.array(x)
        swapped[l1 + m], swapped[l1 - m] = -x[l1 - m], x[l1 + m]
        natural = np.zeros(2 * l3 + 1)
        natural[l3 + m], natural[l3 - m] = -c[m] * swapped[l1 + m], -c[m] * swapped[l1 - m]
        np.testing.assert_allclose(natural, expected, atol=1e-14)
    np.testing.assert_allclose(found, expected, atol=1e-14)


@pytest.mark.parametrize(("rows", "columns"), SHELLS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(np.float64, 1e-13), (np.float32, 1e-5), (np.complex128, 1e-13), (np.complex64, 1e-5)],
)
def test_round_trip_keeps_blocks_norm_and_dtype(rows, columns, dtype, tolerance):
    direct = DirectSum(rows, columns)
    blocks = random_blocks(np.random.default_rng(2), (3, 2, *direct.shape), dtype)
    h = direct.to_sum(blocks)
    assert h.shape == (3, 2, direct.size)
    assert h.dtype == dtype
    back = direct.to_blocks(h)
    assert back.dtype == dtype
    np.testing.assert_allclose(back, blocks, atol=tolerance)
    np.testing.assert_allclose(np.linalg.norm(h, axis=-1), np.linalg.norm(blocks, axis=(-2, -1)), rtol=tolerance)
    np.testing.assert_allclose(direct.matrix @ h[0, 0], blocks[0, 0].ravel(), atol=tolerance)


@pytest.mark.parametrize(("rows", "columns"), SHELLS)
@pytest.mark.parametrize("det", [1, -1])
def test_every_part_turns_by_its_own_degree(rows, columns, det):
    direct = DirectSum(rows, columns)
    blocks = random_blocks(np.random.default_rng(3), (4, *direct.shape))
    R = det * Rotation.random(random_state=11).as_matrix()
    turned = direct.to_sum(orbital_rotation(rows, R) @ blocks @ orbital_rotation(columns, R).T)
    h = direct.to_sum(blocks)
    assert np.abs(turned - h).max() > 0.1 or direct.size == 1
    for part in direct.parts:
        parity = 1 if part.natural else det
        expected = parity * h[:, part.components] @ wigner_D(part.L, R).T
        np.testing.assert_allclose(turned[:, part.components], expected, atol=1e-12)


@pytest.mark.parametrize(("rows", "columns"), SHELLS)
def test_component_table_agrees_with_the_parts(rows, columns):
    direct = DirectSum(rows, columns)
    named = [
        (n, part.L, m, (part.l1 + part.l2 + part.L) % 2 == 0)
        for n, part in enumerate(direct.parts)
        for m in range(-part.L, part.L + 1)
    ]
    assert list(zip(direct.part_of, direct.degree, direct.order, direct.natural, strict=True)) == named
    assert [direct.parts[n].start + direct.parts[n].L + m for n, _, m, _ in named] == list(range(direct.size))
    order = [(part.row_shell, part.column_shell, part.L) for part in direct.parts]
    assert order == sorted(order)
    assert all((rows[p.row_shell], columns[p.column_shell]) == (p.l1, p.l2) for p in direct.parts)


@pytest.mark.parametrize(("rows", "columns"), SHELLS)
def test_partner_is_the_transposed_block(rows, columns):
    direct, reverse = DirectSum(rows, columns), DirectSum(columns, rows)
    blocks = random_blocks(np.random.default_rng(4), (5, *direct.shape), np.complex128)
    index, sign = direct.partner()
    found = reverse.to_sum(blocks.conj().swapaxes(-1, -2))
    np.testing.assert_allclose(found, sign * direct.to_sum(blocks)[:, index].conj(), atol=1e-13)


def test_partner_in_the_frames_of_the_edges_takes_the_reverse_sign_too():
    direct, reverse = DirectSum((0, 1, 2), (1, 3)), DirectSum((1, 3), (0, 1, 2))
    rng = np.random.default_rng(5)
    vectors = np.concatenate([rng.normal(size=(6, 3)), [[0, 0, 2.0], [0, 0, -2.0]]])
    blocks = random_blocks(rng, (8, *direct.shape))

    def in_frame(direct_sum, h, v):
        D = alignment_matrices(v, 5)
        turned = [np.einsum("eab,eb->ea", D[p.L], h[:, p.components]) for p in direct_sum.parts]
        return np.concatenate(turned, axis=1)

    there = in_frame(direct, direct.to_sum(blocks), vectors)
    back = in_frame(reverse, reverse.to_sum(blocks.swapaxes(-1, -2)), -vectors)
    index, sign = direct.partner()
    S = np.concatenate([reverse_sign(5)[part.L] for part in reverse.parts])
    np.testing.assert_allclose(back, S * sign * there[:, index], atol=1e-12)


def test_two_centre_blocks_have_only_natural_parts_along_the_bond():
    """The d_z2-p_z element along z is sigma: only m = 0, L = 1 and 3 of 2 x 1."""
    direct = DirectSum((2,), (1,))
    h = np.concatenate([(p.L == 1 or p.L == 3) * spherical_harmonics([0, 0, 1.0], p.L)[p.L] for p in direct.parts])
    block = direct.to_blocks(h)
    sigma, pi = block[2, 1], (block[1, 0], block[3, 2])  # (z2, z), (yz, y), (xz, x)
    assert abs(sigma) > 0.1
    assert pi[0] == pytest.approx(pi[1], abs=1e-14)
    block[2, 1] = block[1, 0] = block[3, 2] = 0
    np.testing.assert_allclose(block, 0, atol=1e-14)


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="direct sum: expected"):
        DirectSum((), (1,))
    with pytest.raises(ValueError, match="direct sum: expected"):
        DirectSum((1,), (-1, 2))
    direct = DirectSum((0, 1), (1,))
    with pytest.raises(ValueError, match=r"blocks: expected \(\.\.\., 4, 3\), got \(3, 4\)"):
        direct.to_sum(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="components: expected"):
        direct.to_blocks(np.zeros((4, 3)))
