"""The Lanczos basis: orthonormal in S, complete multiplets, spaces that are exhausted, deflated blocks."""

import numpy as np
import pytest
from scipy.linalg import eigh

from ase_hybridham.solve.lanczos import BlockLanczos, rayleigh_ritz


def problem(energies: np.ndarray, kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """H and S with these eigenvalues; S has some that are small."""
    rng = np.random.default_rng(seed)
    n = len(energies)
    x = rng.normal(size=(2, n, n)) + (1j * rng.normal(size=(2, n, n)) if kind == "complex128" else 0)
    q = np.linalg.qr(x[0])[0]
    root = (q * np.geomspace(0.03, 2, n)) @ q.conj().T
    u = np.linalg.qr(x[1])[0]
    h = root @ (u * energies) @ u.conj().T @ root
    return 0.5 * (h + h.conj().T), root @ root


def run(h: np.ndarray, s: np.ndarray, sigma: float, block: int) -> BlockLanczos:
    return BlockLanczos(lambda b: np.linalg.solve(h - sigma * s, b), lambda x: s @ x, len(h), h.dtype, block)


def nearest(lanczos: BlockLanczos, h: np.ndarray, s: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    _, y, _ = lanczos.ritz()
    return rayleigh_ritz(h.__matmul__, s.__matmul__, lanczos.vectors(y[:, :n]))


@pytest.mark.parametrize("kind", ["float64", "complex128"])
@pytest.mark.parametrize("block", [1, 3, 8])
def test_energies_next_to_the_shift_are_those_of_lapack(kind, block):
    h, s = problem(np.random.default_rng(1).uniform(-20, 30, size=150), kind, 1)
    energies = eigh(h, s, eigvals_only=True)
    lanczos = run(h, s, 2.0, block)
    while lanczos.n_applied < 60 + 8 * block:
        lanczos.step()
    found, vectors, residuals = nearest(lanczos, h, s, 8)
    expected = np.sort(energies[np.argsort(np.abs(energies - 2.0))[:8]])
    np.testing.assert_allclose(found, expected, atol=1e-10)
    assert residuals.max() < 1e-7
    np.testing.assert_allclose(vectors.conj().T @ s @ vectors, np.eye(8), atol=1e-12)
    np.testing.assert_allclose(residuals, np.linalg.norm(h @ vectors - s @ vectors * found, axis=0), atol=1e-12)


def test_the_estimate_is_the_residual():
    h, s = problem(np.random.default_rng(3).uniform(-20, 30, size=120), "complex128", 3)
    lanczos = run(h, s, 0.0, 4)
    for _ in range(8):
        lanczos.step()
    theta, y, rest = lanczos.ritz()
    basis = lanczos._basis[:, : lanczos.n_basis]
    np.testing.assert_allclose(basis.conj().T @ s @ basis, np.eye(lanczos.n_basis), atol=1e-11)
    c = basis[:, : lanczos.n_applied] @ y
    off = np.linalg.solve(h, s @ c) - c * theta
    np.testing.assert_allclose(
        np.sqrt(np.einsum("na,na->a", off.conj(), s @ off).real), rest, atol=1e-9 * abs(theta[0])
    )
    assert rest.max() > 1e-3 * abs(theta[0])
    np.testing.assert_allclose(lanczos.vectors(y), np.linalg.solve(h, s @ c), atol=1e-8 * abs(theta[0]))


def test_a_block_finds_every_member_of_a_multiplet_and_one_vector_does_not():
    energies = np.concatenate([np.full(4, 0.3), np.full(4, -0.5), np.random.default_rng(0).uniform(2, 40, size=92)])
    h, s = problem(energies, "complex128", 5)
    found = {}
    for block in (1, 4):
        lanczos = run(h, s, 0.0, block)
        while lanczos.n_applied < 24:
            lanczos.step()
        found[block] = nearest(lanczos, h, s, 8)[0]
    np.testing.assert_allclose(found[4], np.sort(energies[:8]), atol=1e-8)
    assert np.abs(found[1] - np.sort(energies[:8])).max() > 0.1


def test_random_vectors_bring_up_what_was_missed():
    energies = np.concatenate([np.full(6, 0.3), np.random.default_rng(0).uniform(2, 40, size=74)])
    h, s = problem(energies, "float64", 2)
    lanczos = run(h, s, 0.0, 3)
    for _ in range(8):
        lanczos.step()
    assert (np.abs(nearest(lanczos, h, s, 6)[0] - 0.3) < 1e-6).sum() == 3
    lanczos.add_random()
    for _ in range(3):
        lanczos.step()
    np.testing.assert_allclose(nearest(lanczos, h, s, 6)[0], 0.3, atol=1e-8)


def test_an_exhausted_space_gives_all_states():
    energies = np.repeat([-1.0, 0.5, 2.0, 7.0], 5)  # four different ones: a block spans at most four times itself
    h, s = problem(energies, "complex128", 4)
    lanczos = run(h, s, 0.0, 2)
    for _ in range(30):
        lanczos.step()
    assert lanczos.n_applied == lanczos.n_basis == 20
    np.testing.assert_allclose(nearest(lanczos, h, s, 20)[0], energies, atol=1e-8)


def test_noise_of_a_singular_overlap_adds_no_more_vectors_than_there_are():
    energies = np.random.default_rng(2).uniform(-20, 30, size=44)
    h, s = problem(energies, "complex128", 2)
    mixing = np.eye(44)
    mixing[:12, 12:24] = np.eye(12)
    mixing[12:24, 12:24] *= 1e-6  # S down to 1e-13
    h, s = mixing.T @ h @ mixing, mixing.T @ s @ mixing
    lanczos = run(h, s, 2.0, 8)
    for _ in range(20):
        lanczos.step()
        assert lanczos.n_basis <= 44
    assert lanczos.n_basis > 24
