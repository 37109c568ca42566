"""Orbitals that are linearly dependent, or nearly: no ghost bands, no crash, nothing else changed."""

import logging
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from ase_hybridham.errors import OverlapError
from ase_hybridham.solve import (
    OVERLAP_THRESHOLD,
    BlochSum,
    band_error,
    count_electrons,
    eigenstates,
    eigenvalues,
    fermi_level,
    find_fermi_level,
    k_mesh,
    occupations,
)
from ase_hybridham.solve.pencil import Factored, Projected, reduction
from ase_hybridham.system import AtomBasis, Basis, LCAOSystem, PairBlocks

GAMMA, HALF = [0.0, 0.0, 0.0], [0.5, 0.0, 0.5]  # real arithmetic; the others are complex
K_POINTS = np.array([GAMMA, HALF, [0.1, 0.2, 0.3], [0.31, -0.17, 0.45]])


def in_basis(system: LCAOSystem, basis: Basis, mixing: Mapping[str, NDArray]) -> LCAOSystem:
    """The system in orbitals that are combinations of its own: column b of a matrix is a new orbital."""

    def mixed(blocks: PairBlocks) -> PairBlocks:
        stacks = {}
        for (a, b), rows in blocks.pairs.element_groups.items():
            left, right = (mixing[system.basis[z].symbol] for z in (a, b))
            stacks[a, b] = left.T @ blocks.values[blocks.index(rows)] @ right
        return PairBlocks.from_groups(blocks.pairs, basis, stacks)

    return LCAOSystem(system.atoms, tuple(map(mixed, system.hamiltonian)), mixed(system.overlap))


def with_twins(system: LCAOSystem, delta: float) -> LCAOSystem:
    """The second s shell of sulfur becomes the first plus `delta` of what it was: the same space, unless delta = 0."""
    sulfur = np.eye(7)
    sulfur[:2, 1] = 1.0, delta
    return in_basis(system, system.basis, {"C": np.eye(4), "S": sulfur})


def without_twins(system: LCAOSystem) -> LCAOSystem:
    smaller = Basis.of(system.basis["C"], AtomBasis.from_degrees("S", [0, 2], valence=6, cutoff=2.4))
    return in_basis(system, smaller, {"C": np.eye(4), "S": np.delete(np.eye(7), 1, axis=1)})


def of_spin(system: LCAOSystem, spin: str) -> LCAOSystem:
    """The same physics; collinear spin with a field."""
    (h,), s = system.hamiltonian, system.overlap
    hamiltonians = {"none": (h,), "collinear": (h, h + 0.5 * s), "spinor": (h.to_spinor(),)}
    return LCAOSystem(system.atoms, hamiltonians[spin], s, spin=spin)


def noisy(system: LCAOSystem, size: float) -> LCAOSystem:
    (h,) = system.hamiltonian
    error = h.with_values(np.random.default_rng(1).normal(scale=size, size=h.values.shape)).hermitian_part()
    return LCAOSystem(system.atoms, (h + error,), system.overlap)


@pytest.mark.parametrize("spin", ["none", "collinear", "spinor"])
@pytest.mark.parametrize("delta", [0.0, 1e-6, 1e-4])  # smallest eigenvalues of S(k) 0, 3e-13, 3e-9
def test_dependent_orbitals_leave_the_bands_of_the_smaller_basis(make_system, crystal, spin, delta):
    system = make_system(crystal)
    found = eigenvalues(of_spin(with_twins(system, delta), spin), K_POINTS)
    expected = eigenvalues(of_spin(without_twins(system), spin), K_POINTS)
    n = expected.shape[2]
    assert found.shape[2] - n == (4 if spin == "spinor" else 2)  # two sulfur atoms
    np.testing.assert_array_equal(found[:, :, n:], np.inf)
    # what is left out turns by delta against the twin; energies are tens of eV
    np.testing.assert_allclose(found[:, :, :n], expected, atol=1e-9 + 50 * delta)


def test_bands_converge_to_those_of_the_smaller_basis(make_system, crystal):
    system = make_system(crystal)
    expected = eigenvalues(without_twins(system), K_POINTS)
    n, errors = expected.shape[2], []
    for delta in (1e-3, 1e-4, 1e-5):
        found = eigenvalues(with_twins(system, delta), K_POINTS)
        errors.append(np.abs(found[:, :, :n] - expected).max())
    assert errors[0] > 1e-5
    assert errors[1] < 0.2 * errors[0]
    assert errors[2] < 0.2 * errors[1]


@pytest.mark.parametrize("delta", [1e-2, 0.1, 1.0])  # smallest eigenvalues of S(k) from 3e-5
def test_what_is_above_the_threshold_is_not_touched(make_system, crystal, delta, caplog):
    system = make_system(crystal)
    found = eigenvalues(with_twins(system, delta), K_POINTS)
    np.testing.assert_allclose(found, eigenvalues(system, K_POINTS), atol=1e-8)
    assert not caplog.records


def test_errors_of_H_make_ghost_bands_that_projection_removes(make_system, crystal):
    system = make_system(crystal)
    expected = eigenvalues(without_twins(system), K_POINTS)[0]
    n, error = expected.shape[1], 1e-3  # eV
    spoiled = noisy(with_twins(system, 1e-3), error)  # smallest eigenvalue 3e-7
    ghosts = eigenvalues(spoiled, K_POINTS, overlap_threshold=0.0)[0]
    assert ghosts[:, 0].min() < expected.min() - 100  # far below every band, and it takes two electrons
    assert np.abs(ghosts[:, :n] - expected).max() > 1
    found = eigenvalues(spoiled, K_POINTS)[0]
    np.testing.assert_allclose(found[:, :n], expected, atol=50 * error)


def test_eigenvectors_are_orthonormal_where_there_are_states_and_else_zero(make_system, crystal):
    system = with_twins(make_system(crystal), 1e-5)
    energies, states = eigenstates(system, K_POINTS)
    np.testing.assert_allclose(energies, eigenvalues(system, K_POINTS), atol=1e-10)
    h, s = BlochSum(system.hamiltonian[0]).dense(K_POINTS), BlochSum(system.overlap).dense(K_POINTS)
    for e, c, hk, sk in zip(energies[0], states[0], h, s, strict=True):
        kept = np.isfinite(e)
        assert kept.sum() == system.n_orbitals - 2
        np.testing.assert_array_equal(c[:, ~kept], 0)
        c = c[:, kept]
        np.testing.assert_allclose(c.conj().T @ sk @ c, np.eye(kept.sum()), atol=1e-9)
        np.testing.assert_allclose(c.conj().T @ hk @ c, np.diag(e[kept]), atol=1e-8)


def test_real_arithmetic_projects_as_complex_does(make_system, crystal):
    system = with_twins(make_system(crystal), 1e-5)
    real = eigenvalues(system, [GAMMA, HALF])
    beside = eigenvalues(system, np.array([GAMMA, HALF]) + 1e-9)
    assert np.isinf(real).sum() == 4
    np.testing.assert_allclose(real, beside, atol=1e-6)


# graphene with one orbital: S(k) is 1 - s |f(k)| and 1 + s |f(k)|, |f| = 3 at Gamma and less elsewhere


def test_only_the_k_points_that_need_it_lose_a_state(make_graphene, caplog):
    t, s = -2.7, (1 - 1e-7) / 3
    k = np.array([[0.3, 0.1, 0], GAMMA, [0.5, 0, 0], [1.0, 2.0, 0], [1 / 3, 1 / 3, 0]])
    f = np.abs(1 + np.exp(2j * np.pi * k[:, 0]) + np.exp(-2j * np.pi * k[:, 1]))
    expected = np.column_stack([t * f / (1 + s * f), -t * f / (1 - s * f)])
    expected[[1, 3], 1] = np.inf
    with caplog.at_level(logging.WARNING):
        found = eigenvalues(make_graphene(t, s), k)
    np.testing.assert_allclose(found[0], expected, atol=1e-9)
    (record,) = caplog.records
    assert record.getMessage() == (
        "overlap: smallest eigenvalue of S(k) 1.0e-07 at k = [0.0, 0.0, 0.0], below the threshold 1e-05: "
        "1 direction of 2 projected out, at 2 of 5 k-points"
    )


@pytest.mark.parametrize("below", [1e-7, 5e-6])
def test_an_eigenvalue_that_noise_made_negative_is_left_out(make_graphene, below):
    found = eigenvalues(make_graphene(-2.7, (1 + below) / 3), [GAMMA])
    np.testing.assert_allclose(found[0, 0], [-2.7 * 3 / 2, np.inf], atol=1e-4)


def test_a_negative_eigenvalue_beyond_the_threshold_is_an_error_unless_the_threshold_covers_it(make_graphene):
    system = make_graphene(-2.7, (1 + 4e-4) / 3)
    for options in ({}, {"overlap_threshold": 0.0}, {"overlap_threshold": 1e-4}):
        with pytest.raises(OverlapError, match=r"smallest eigenvalue is -4.00e-04"):
            eigenvalues(system, [GAMMA], **options)
    assert np.isinf(eigenvalues(system, [GAMMA], overlap_threshold=1e-3)[0, 0, 1])


def test_an_overlap_of_nothing_is_an_error(make_graphene):
    system = make_graphene(-2.7, 0.1)
    nothing = LCAOSystem(system.atoms, system.hamiltonian, system.overlap * 0.0)
    with pytest.raises(OverlapError, match="expected a positive definite matrix"):
        eigenvalues(nothing, [GAMMA])


@pytest.mark.parametrize("threshold", [-1e-5, np.nan, np.inf])
def test_a_threshold_is_not_negative(make_graphene, threshold):
    with pytest.raises(ValueError, match="overlap threshold: expected a number >= 0"):
        eigenvalues(make_graphene(-2.7, 0.1), [GAMMA], overlap_threshold=threshold)


@pytest.mark.parametrize("width", [0.0, 0.025])
def test_states_that_are_not_there_hold_no_electrons(make_graphene, width):
    system = make_graphene(-2.7, (1 - 1e-7) / 3)
    k, w = k_mesh(system.atoms, (6, 6, 1))
    energies = eigenvalues(system, k)
    assert np.isinf(energies).sum() == 1
    level = fermi_level(system, k, w, electrons=2, width=0.025)
    assert count_electrons(system, level, k, w, width=0.025) == pytest.approx(2, abs=1e-8)
    filling = occupations(energies, level, width=width)
    assert filling[np.isinf(energies)] == 0
    with pytest.raises(ValueError, match=r"expected 0 to 3.94"):  # 4 without Gamma's, whose weight is 1 / 36
        find_fermi_level(energies, w, 3.95, 2)
    full = 4 - 2 * float(w[np.isinf(energies[0, :, 1])].sum())
    assert np.isfinite(find_fermi_level(energies, w, full, 2))


def test_band_errors_compare_what_both_have():
    theirs = np.array([[[-1.0, 0.5, 3.0, np.inf], [-1.0, 0.5, 3.0, 9.0]]])
    ours = np.array([[[-1.0, 0.6, np.inf, np.inf], [-1.0, 0.5, 3.0, np.inf]]])
    error = band_error(theirs, ours, reference_level=0.0, predicted_level=0.0)
    assert error.n_states == 5
    assert error.max == error.valence_max == pytest.approx(0.1)


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("seed", range(5))
def test_the_estimate_finds_every_smallest_eigenvalue_below_the_threshold(dtype, seed):
    rng = np.random.default_rng(seed)
    for smallest in (0.0, 1e-12, 1e-7, 0.5e-5, 0.99e-5, 1.01e-5, 1e-4):
        n = int(rng.integers(2, 60))
        m = rng.normal(size=(n, n)) + (1j * rng.normal(size=(n, n)) if dtype is complex else 0)
        vectors = np.linalg.qr(m)[0]
        if seed % 2:  # directions of two or three orbitals, as twins make them
            vectors = np.linalg.qr(np.eye(n, dtype=dtype) + 0.1 * (rng.random((n, n)) < 1 / n))[0]
        values = np.concatenate([[smallest], rng.uniform(0.01, 3, size=n - 1)])
        found = reduction((vectors * values) @ vectors.conj().T, OVERLAP_THRESHOLD)
        if smallest < OVERLAP_THRESHOLD:
            assert isinstance(found, Projected)
            assert found.n_dropped == 1
            assert found.smallest == pytest.approx(smallest, abs=1e-14, rel=1e-6)
        else:
            assert isinstance(found, Factored)
