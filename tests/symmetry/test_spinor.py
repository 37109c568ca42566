"""Blocks with spin: quaternion parts, time reversal, direct sum."""

import numpy as np
import pytest
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from ase_hybridham.symmetry import (
    DirectSum,
    MagneticDirectSum,
    SpinorDirectSum,
    orbital_rotation,
    quaternion_from_spinor,
    spin_rotation,
    spinor_from_quaternion,
    time_reversal_error,
    wigner_D,
)
from ase_hybridham.system import PairBlocks, PairList
from tests.conftest import random_atoms

PAULI = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
SHELLS = [((0, 1, 2, 4), (3, 1)), ((0, 0, 1, 1, 2), (0, 1, 2)), ((0,), (0,))]


def random_complex(rng, shape):
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def test_quaternion_parts_are_those_of_the_definition():
    h = random_complex(np.random.default_rng(0), (4, 3, 5))
    block = np.kron(np.eye(2), h[0]) + sum(1j * np.kron(PAULI[v], h[v + 1]) for v in range(3))
    np.testing.assert_allclose(spinor_from_quaternion(h), block, atol=1e-14)
    np.testing.assert_allclose(quaternion_from_spinor(block), h, atol=1e-14)
    with pytest.raises(ValueError, match="blocks: expected shape"):
        quaternion_from_spinor(np.zeros((4, 5)))


@pytest.mark.parametrize("seed", range(3))
def test_parts_are_real_under_time_reversal(seed):
    """H = U conj(H) U^T with U = i s_y on both atoms."""
    rng = np.random.default_rng(seed)
    block = random_complex(rng, (6, 10))
    U_i, U_j = (np.kron([[0, 1], [-1, 0]], np.eye(n)) for n in (3, 5))
    even = 0.5 * (block + U_i @ block.conj() @ U_j.T)
    assert np.abs(quaternion_from_spinor(block).imag).max() > 0.1
    np.testing.assert_allclose(quaternion_from_spinor(even), quaternion_from_spinor(block).real, atol=1e-14)
    np.testing.assert_allclose(spinor_from_quaternion(quaternion_from_spinor(block).real), even, atol=1e-14)


def test_time_reversal_error_is_the_largest_violation(mixed_basis):
    pairs = PairList.from_atoms(random_atoms(1), mixed_basis.cutoffs())
    rng = np.random.default_rng(2)
    blocks = PairBlocks.zeros(pairs, mixed_basis, spinor=True, dtype=np.complex128)
    blocks.values[:] = random_complex(rng, blocks.values.shape)
    largest = 0.0
    for p in range(len(pairs)):
        n_i, n_j = (n // 2 for n in blocks.shape(p))
        U_i, U_j = (np.kron([[0, 1], [-1, 0]], np.eye(n)) for n in (n_i, n_j))
        largest = max(largest, np.abs(blocks.block(p) - U_i @ blocks.block(p).conj() @ U_j.T).max())
    assert time_reversal_error(blocks) == pytest.approx(largest, abs=1e-13)
    assert largest > 0.1
    with pytest.raises(ValueError, match="spinor"):
        time_reversal_error(PairBlocks.zeros(pairs, mixed_basis))


def test_spin_rotation_of_half_turns():
    """The quaternion has w = 0: it cannot be read from the antisymmetric part of the matrix."""
    for axis, signs in enumerate(([1, -1, -1], [-1, 1, -1], [-1, -1, 1])):
        U = spin_rotation(np.diag(signs).astype(float))
        np.testing.assert_allclose(np.vdot(U, U), 2, atol=1e-14)
        np.testing.assert_allclose(abs(np.vdot(PAULI[axis], U)), 2, atol=1e-14)


def test_spin_rotation_is_the_exponential_up_to_its_sign():
    rotvecs = np.concatenate([np.random.default_rng(3).normal(size=(20, 3)), np.pi * np.eye(3), 1e-9 * np.eye(3)])
    R = Rotation.from_rotvec(rotvecs).as_matrix()
    found = spin_rotation(R)
    for rotvec, U in zip(rotvecs, found, strict=True):
        exact = expm(-0.5j * np.tensordot(rotvec, PAULI, 1))
        sign = np.sign(np.vdot(exact, U).real)
        np.testing.assert_allclose(sign * U, exact, atol=1e-13)
    np.testing.assert_allclose(spin_rotation(-R), found, atol=1e-14)
    np.testing.assert_allclose(
        np.einsum("rst,vtu,rwu->rvsw", found, PAULI, found.conj()), np.einsum("rwv,wst->rvst", R, PAULI), atol=1e-13
    )


@pytest.mark.parametrize(("rows", "columns"), SHELLS)
def test_round_trip_keeps_blocks_and_norm(rows, columns):
    direct = SpinorDirectSum(rows, columns)
    blocks = random_complex(np.random.default_rng(4), (3, 2, *direct.shape))
    h = direct.to_sum(blocks)
    assert h.shape == (3, 2, direct.size)
    np.testing.assert_allclose(direct.to_blocks(h), blocks, atol=1e-13)
    np.testing.assert_allclose(np.linalg.norm(h, axis=-1), np.linalg.norm(blocks, axis=(-2, -1)), rtol=1e-13)
    # the direct sum of the part even under time reversal is real
    even = spinor_from_quaternion(quaternion_from_spinor(blocks).real)
    np.testing.assert_allclose(direct.to_sum(even), h.real, atol=1e-13)
    np.testing.assert_allclose(direct.to_blocks(h.real), even, atol=1e-13)


def test_spinless_block_is_the_spin_zero_part():
    rows, columns = (0, 1, 2), (1, 2)
    direct, orbital = SpinorDirectSum(rows, columns), DirectSum(rows, columns)
    block = np.random.default_rng(5).normal(size=orbital.shape)
    h = direct.to_sum(np.kron(np.eye(2), block))
    spin = np.array([part.spin for part in direct.parts])[direct.part_of]
    np.testing.assert_allclose(h[spin == 1], 0, atol=1e-14)
    np.testing.assert_allclose(h[spin == 0], np.sqrt(2) * orbital.to_sum(block), atol=1e-14)


@pytest.mark.parametrize(("rows", "columns"), SHELLS)
@pytest.mark.parametrize("det", [1, -1])
def test_every_part_turns_by_its_own_degree(rows, columns, det):
    direct = SpinorDirectSum(rows, columns)
    blocks = random_complex(np.random.default_rng(6), (3, *direct.shape))
    rotvec = np.array([0.3, -1.1, 0.7])
    R = det * Rotation.from_rotvec(rotvec).as_matrix()
    half = expm(-0.5j * np.tensordot(rotvec, PAULI, 1))  # independent of spin_rotation; an inversion adds nothing
    left, right = (np.kron(half, orbital_rotation(degrees, R)) for degrees in (rows, columns))
    turned = direct.to_sum(left @ blocks @ right.conj().T)
    h = direct.to_sum(blocks)
    assert np.abs(turned - h).max() > 0.1
    for part in direct.parts:
        parity = 1 if part.natural else det
        expected = parity * h[:, part.components] @ wigner_D(part.J, R).T
        np.testing.assert_allclose(turned[:, part.components], expected, atol=1e-12)


@pytest.mark.parametrize(("rows", "columns"), SHELLS)
def test_component_table_agrees_with_the_parts(rows, columns):
    direct = SpinorDirectSum(rows, columns)
    named = [(n, p.J, m, p.natural) for n, p in enumerate(direct.parts) for m in range(-p.J, p.J + 1)]
    assert list(zip(direct.part_of, direct.degree, direct.order, direct.natural, strict=True)) == named
    assert [direct.parts[n].start + direct.parts[n].J + m for n, _, m, _ in named] == list(range(direct.size))
    for part in direct.parts:
        assert abs(part.L - part.spin) <= part.J <= part.L + part.spin
        assert part.natural == ((part.l1 + part.l2 + part.J) % 2 == 0)


@pytest.mark.parametrize(("rows", "columns"), SHELLS)
def test_partner_is_the_adjoint_block(rows, columns):
    direct, reverse = SpinorDirectSum(rows, columns), SpinorDirectSum(columns, rows)
    blocks = random_complex(np.random.default_rng(7), (5, *direct.shape))
    index, sign = direct.partner()
    found = reverse.to_sum(blocks.conj().swapaxes(-1, -2))
    np.testing.assert_allclose(found, sign * direct.to_sum(blocks)[:, index].conj(), atol=1e-13)


@pytest.mark.parametrize(("rows", "columns"), SHELLS)
class TestMagneticDirectSum:
    """Any operator, as real numbers."""

    def test_round_trip_keeps_blocks_and_norm(self, rows, columns):
        direct = MagneticDirectSum(rows, columns)
        blocks = random_complex(np.random.default_rng(8), (3, 2, *direct.shape))
        h = direct.to_sum(blocks)
        assert h.shape == (3, 2, direct.size)
        assert h.dtype == np.float64
        np.testing.assert_allclose(direct.to_blocks(h), blocks, atol=1e-13)
        np.testing.assert_allclose(np.linalg.norm(h, axis=-1), np.linalg.norm(blocks, axis=(-2, -1)), rtol=1e-13)

    def test_second_half_is_magnetism(self, rows, columns):
        direct = MagneticDirectSum(rows, columns)
        blocks = random_complex(np.random.default_rng(9), (4, *direct.shape))
        U_i, U_j = (np.kron([[0, 1], [-1, 0]], np.eye(n // 2)) for n in direct.shape)
        flipped = direct.to_sum(U_i @ blocks.conj() @ U_j.T)
        h = direct.to_sum(blocks)
        sign = np.repeat([1.0, -1.0], direct.size // 2)
        assert np.abs(h).min(axis=0).max() > 0.1
        np.testing.assert_allclose(flipped, sign * h, atol=1e-13)

    @pytest.mark.parametrize("det", [1, -1])
    def test_every_part_turns_by_its_own_degree(self, rows, columns, det):
        direct = MagneticDirectSum(rows, columns)
        blocks = random_complex(np.random.default_rng(10), (3, *direct.shape))
        R = det * Rotation.random(random_state=1).as_matrix()
        left, right = (orbital_rotation(degrees, R, spinor=True) for degrees in (rows, columns))
        turned, h = direct.to_sum(left @ blocks @ right.conj().T), direct.to_sum(blocks)
        assert len(direct.parts) == 2 * len(direct.half.parts)
        for part in direct.parts:
            parity = 1 if part.natural else det
            expected = parity * h[:, part.components] @ wigner_D(part.J, R).T
            np.testing.assert_allclose(turned[:, part.components], expected, atol=1e-12)

    def test_partner_is_the_adjoint_block(self, rows, columns):
        direct, reverse = MagneticDirectSum(rows, columns), MagneticDirectSum(columns, rows)
        blocks = random_complex(np.random.default_rng(11), (5, *direct.shape))
        index, sign = direct.partner()
        found = reverse.to_sum(blocks.conj().swapaxes(-1, -2))
        np.testing.assert_allclose(found, sign * direct.to_sum(blocks)[:, index], atol=1e-13)

    def test_wrong_input_is_named(self, rows, columns):
        direct = MagneticDirectSum(rows, columns)
        with pytest.raises(ValueError, match="blocks: expected"):
            direct.to_sum(np.zeros((2, 1)))
        with pytest.raises(ValueError, match="components: expected"):
            direct.to_blocks(np.zeros(direct.size + 2))


def test_spin_orbit_of_a_shell_is_a_scalar():
    """L.s of a p shell, made from rotations of its orbitals, is one number in the J = 0 part of spin 1."""
    direct = SpinorDirectSum((1,), (1,))
    step = 1e-6
    generators = []
    for axis in np.eye(3):
        plus, minus = (wigner_D(1, Rotation.from_rotvec(s * step * axis).as_matrix()) for s in (1, -1))
        generators.append(1j * (plus - minus) / (2 * step))  # L_v = i dD/da
    spin_orbit = sum(np.kron(PAULI[v] / 2, generators[v]) for v in range(3))
    levels = np.linalg.eigvalsh(spin_orbit)
    np.testing.assert_allclose(levels, [-1, -1, 0.5, 0.5, 0.5, 0.5], atol=1e-9)  # j = 1/2 and 3/2
    h = direct.to_sum(spin_orbit)
    scalar = next(part for part in direct.parts if part.spin == 1 and part.J == 0).components
    assert abs(h[scalar].imag).max() < 1e-9
    np.testing.assert_allclose(np.abs(h[scalar]), np.linalg.norm(spin_orbit), atol=1e-9)


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="direct sum: expected"):
        SpinorDirectSum((), (1,))
    direct = SpinorDirectSum((0, 1), (1,))
    with pytest.raises(ValueError, match=r"blocks: expected \(\.\.\., 8, 6\)"):
        direct.to_sum(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="components: expected"):
        direct.to_blocks(np.zeros(12))
