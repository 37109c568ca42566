"""Eigenvalues: closed forms, and everything that must not change them."""

import logging

import numpy as np
import pytest
from ase import Atoms
from ase.build import make_supercell
from threadpoolctl import threadpool_info, threadpool_limits

from ase_hybridham.errors import OverlapError
from ase_hybridham.solve import BlochSum, dense, eigenstates, eigenvalues
from ase_hybridham.system import LCAOSystem

K_POINTS = np.random.default_rng(0).uniform(-1, 1, size=(6, 3))


@pytest.mark.parametrize("overlap", [None, 0.13])
def test_graphene_with_one_orbital_has_the_textbook_bands(make_graphene, overlap):
    t, s = -2.7, overlap or 0.0
    k = K_POINTS * [1, 1, 0]
    a1, a2 = 2 * np.pi * k[:, 0], 2 * np.pi * k[:, 1]
    f = np.abs(1 + np.exp(1j * a1) + np.exp(-1j * a2))  # bonds to the cells 0, a1 and -a2
    expected = np.sort([t * f / (1 + s * f), -t * f / (1 - s * f)], axis=0).T
    np.testing.assert_allclose(eigenvalues(make_graphene(t, overlap), k)[0], expected, atol=1e-12)


def test_a_supercell_has_the_bands_of_its_cell_folded(make_system, crystal):
    # one supercell k-point holds the cell's k-points at k + (all reciprocal vectors of the supercell)
    P = np.array([[2, 0, 0], [1, 2, 0], [0, 0, 1]])
    supercell = make_supercell(crystal, P)
    k_super = np.array([0.17, -0.31, 0.23])
    shifts = np.array(np.meshgrid(range(8), range(8), range(1))).reshape(3, -1).T
    folded = np.linalg.solve(P, (k_super + shifts).T).T % 1  # k_cell = P^-1 k_super
    folded = np.unique(np.round(folded, 9), axis=0)
    assert len(folded) == 4
    expected = np.sort(eigenvalues(make_system(crystal), folded).ravel())
    np.testing.assert_allclose(eigenvalues(make_system(supercell), [k_super]).ravel(), expected, atol=1e-8)


def test_eigenvalues_do_not_depend_on_cell_choice(make_system, crystal):
    P = np.array([[1, 0, 0], [1, 1, 0], [0, -1, 1]])
    skewed = Atoms(crystal.numbers, crystal.positions, cell=P @ crystal.cell.array, pbc=True)
    expected = eigenvalues(make_system(crystal), K_POINTS)
    np.testing.assert_allclose(eigenvalues(make_system(skewed), K_POINTS @ P.T), expected, atol=1e-12)


def test_eigenvalues_do_not_depend_on_order_origin_or_images_of_the_atoms(make_system, crystal):
    expected = eigenvalues(make_system(crystal), K_POINTS)
    other = crystal[[2, 0, 3, 1]]
    other.positions += [0.3, -0.7, 1.1]
    other.positions[1] += [1, -2, 1] @ crystal.cell.array
    np.testing.assert_allclose(eigenvalues(make_system(other), K_POINTS), expected, atol=1e-12)


def test_time_reversal_and_reciprocal_vectors_leave_the_bands_alone(make_system, crystal):
    system = make_system(crystal)
    reciprocal_vector = np.array([3, -1, 2])
    expected = eigenvalues(system, K_POINTS)
    assert np.abs(np.diff(expected, axis=1)).max() > 1e-2  # the bands do depend on k
    np.testing.assert_allclose(eigenvalues(system, -K_POINTS), expected, atol=1e-12)
    np.testing.assert_allclose(eigenvalues(system, K_POINTS + reciprocal_vector), expected, atol=1e-12)


def test_real_arithmetic_where_phases_are_signs_changes_nothing(make_system, crystal):
    system = make_system(crystal)
    points = np.array([[0, 0, 0], [0.5, 0, 0], [0.5, -0.5, 1.5], [0.5, 0.25, 0]])  # the last is not such a point
    beside = eigenvalues(system, points + 1e-9)  # takes the complex road; bands are smooth
    np.testing.assert_allclose(eigenvalues(system, points), beside, atol=1e-6)


def test_eigenstates_solve_the_pencil_and_are_normalized(make_system, crystal):
    system = make_system(crystal)
    energies, states = eigenstates(system, K_POINTS)
    h, s = BlochSum(system.hamiltonian[0]).dense(K_POINTS), BlochSum(system.overlap).dense(K_POINTS)
    for e, c, hk, sk in zip(energies[0], states[0], h, s, strict=True):
        np.testing.assert_allclose(hk @ c, sk @ c * e, atol=1e-11)
        np.testing.assert_allclose(c.conj().T @ sk @ c, np.eye(len(e)), atol=1e-12)
    np.testing.assert_allclose(energies, eigenvalues(system, K_POINTS), atol=1e-12)


def test_batches_of_k_points_do_not_show(make_system, crystal, monkeypatch):
    system = make_system(crystal)
    expected = eigenstates(system, K_POINTS)
    monkeypatch.setattr(dense, "BATCH_BYTES", 2 * 16 * system.n_orbitals**2)  # three batches of two
    energies, states = eigenstates(system, K_POINTS)
    np.testing.assert_allclose(energies, expected[0], atol=1e-12)
    np.testing.assert_allclose(np.abs(states), np.abs(expected[1]), atol=1e-9)  # up to a phase
    assert eigenvalues(system, np.empty((0, 3))).shape == (1, 0, system.n_orbitals)


def test_spin_kinds_without_magnetism_agree(make_system, crystal):
    system = make_system(crystal)
    h, s = system.hamiltonian[0], system.overlap
    expected = eigenvalues(system, K_POINTS)[0]
    collinear = eigenvalues(LCAOSystem(crystal, (h, h + 0.5 * s), s, spin="collinear"), K_POINTS)
    np.testing.assert_allclose(collinear, [expected, expected + 0.5], atol=1e-11)
    spinor = eigenvalues(LCAOSystem(crystal, (h.to_spinor(),), s, spin="spinor"), K_POINTS)
    np.testing.assert_allclose(spinor[0], np.repeat(expected, 2, axis=1), atol=1e-11)


def test_threads_of_blas_are_the_callers_again_afterwards(make_system, crystal):
    def blas_threads() -> list[int]:
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        eigenvalues(make_system(crystal), K_POINTS)
        assert blas_threads() == before


def test_molecule_has_the_same_levels_at_every_k_point(make_system, crystal):
    crystal.pbc = False
    levels = eigenvalues(make_system(crystal), K_POINTS)
    np.testing.assert_allclose(levels, np.broadcast_to(levels[:, :1], levels.shape), atol=1e-12)


def test_missing_overlap_is_an_error_that_says_so(make_system, crystal):
    system = make_system(crystal)
    with pytest.raises(OverlapError, match="overlap: expected S"):
        eigenvalues(LCAOSystem(crystal, system.hamiltonian), K_POINTS)
    with pytest.raises(ValueError, match="expected a Hamiltonian"):
        eigenvalues(LCAOSystem(crystal, (), system.overlap), K_POINTS)


def test_indefinite_overlap_is_an_error_with_its_smallest_eigenvalue(make_graphene):
    system = make_graphene(-2.7, 0.4)  # 1 - 3 s < 0 at Gamma
    with pytest.raises(OverlapError, match=r"k = \[0.0, 0.0, 0.0\].*smallest eigenvalue is -2.00e-01.*cutoff"):
        eigenvalues(system, [[0, 0, 0]])


def test_numbers_that_are_not_finite_are_named(make_system, crystal):
    system = make_system(crystal)
    h = system.hamiltonian[0]
    h.block(5)[0, 1] = np.nan
    i, j, R = h.pairs.i[5], h.pairs.j[5], h.pairs.shifts[5].tolist()
    with pytest.raises(ValueError, match="Hamiltonian: expected finite numbers") as error:
        eigenvalues(system, K_POINTS)
    assert f"({i}, {j}, R={R})" in str(error.value)


def test_both_triangles_of_the_hamiltonian_count(make_system, crystal, caplog):
    system = make_system(crystal)
    expected = eigenvalues(system, K_POINTS)
    h = system.hamiltonian[0]
    skew = h.with_values(np.random.default_rng(3).normal(size=h.values.shape))
    skew = 0.01 * (skew - skew.adjoint())
    with caplog.at_level(logging.WARNING):
        moved = eigenvalues(LCAOSystem(crystal, (h + skew,), system.overlap), K_POINTS)
    np.testing.assert_allclose(moved, expected, atol=1e-12)
    assert "differs from its adjoint" in caplog.text
