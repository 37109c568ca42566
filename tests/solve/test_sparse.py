"""States near an energy and counts of states, by either engine, against LAPACK."""

import logging

import numpy as np
import pytest
from scipy.linalg import LinAlgError, eigh

from ase_hybridham.errors import OverlapError
from ase_hybridham.solve import factor as factorization
from ase_hybridham.solve import sparse
from ase_hybridham.solve.multifrontal import Multifrontal
from ase_hybridham.solve.sparse import Eigenpairs, Pencil, SparseProblem
from ase_hybridham.solve.superlu import SuperLU
from ase_hybridham.system import LCAOSystem
from tests.solve.sparse_systems import nanoribbon, repeated

GENERAL, GAMMA, K = [0.13, 0.27, 0.0], [0.0, 0.0, 0.0], [1 / 3, 1 / 3, 0.0]
ENGINES = {"multifrontal": Multifrontal, "superlu": SuperLU}


@pytest.fixture(scope="module")
def bilayer() -> LCAOSystem:
    """36 atoms of a bilayer of graphene, where the two Dirac points fold onto Gamma."""
    return repeated("bilayer_graphene_AB", 3, 3, 1)


@pytest.fixture(scope="module")
def bismuthene() -> LCAOSystem:
    """Spinors."""
    return repeated("Bi_bismuthene_soc", 1, 4, 1)


def dense(pencil: Pencil) -> np.ndarray:
    h, s = (matrix.csr().toarray() for matrix in (pencil.h, pencil.s))
    return eigh(h, s, eigvals_only=True)


def check(found: Eigenpairs, pencil: Pencil, energies: np.ndarray, n_wanted: int, within: float) -> None:
    """Energies and vectors are right, none is missing in the window, and no multiplet is cut."""
    n = len(found.energies)
    assert n >= n_wanted
    assert found.first_band is not None
    expected = energies[found.first_band : found.first_band + n]
    np.testing.assert_allclose(found.energies, expected, atol=within)
    low, high = found.window
    np.testing.assert_array_equal(expected, energies[(energies > low) & (energies < high)])
    assert np.abs(energies[:, None] - found.window).min() > 1e-4
    h, s = pencil.h.csr(), pencil.s.csr()
    c = found.vectors
    np.testing.assert_allclose(c.conj().T @ (s @ c), np.eye(n), atol=1e-9)
    residuals = np.linalg.norm(h @ c - (s @ c) * found.energies, axis=0)
    np.testing.assert_allclose(residuals, found.residuals, atol=1e-9)
    assert residuals.max() < 1e-3


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("single", [False, True], ids=["double", "single"])
@pytest.mark.parametrize("k", [GENERAL, GAMMA], ids=["general", "gamma"])
def test_states_next_to_the_fermi_level_are_those_of_lapack(bilayer, engine, single, k):
    pencil = SparseProblem(bilayer, ENGINES[engine], single=single).pencil(k)
    assert (pencil.h.dtype == "complex128") == (k is GENERAL)
    energies = dense(pencil)
    middle = energies[71] + 0.01
    found = pencil.eigenpairs(20, middle)
    check(found, pencil, energies, 20, 1e-8)
    assert found.n_missing == 0 or (engine == "superlu" and found.n_counted is None)
    if engine == "multifrontal":
        assert found.n_counted == len(found.energies)


@pytest.mark.parametrize("k", [GAMMA, [0.5, 0.0, 0.0]])
def test_kramers_pairs_are_complete(bismuthene, k):
    pencil = SparseProblem(bismuthene).pencil(k)
    energies = dense(pencil)
    for sigma in (energies[39] + 0.02, energies[39] - 0.5):
        found = pencil.eigenpairs(15, sigma, block=4)
        check(found, pencil, energies, 15, 1e-8)
        assert found.n_missing == 0
        assert len(found.energies) % 2 == 0
        np.testing.assert_allclose(found.energies[::2], found.energies[1::2], atol=1e-5)


def test_counts_at_and_beside_energies(make_system):
    pencil = SparseProblem(make_system(nanoribbon(6))).pencil([0.0, 0.0, 0.2])
    energies = dense(pencil)
    rng = np.random.default_rng(0)
    for energy in rng.uniform(energies[0] - 1, energies[-1] + 1, size=25):
        assert pencil.count(energy) == (energies < energy).sum()
    for i in rng.integers(len(energies), size=8):
        for beside in (-1e-8, 1e-8):
            factor = pencil.factor(energies[i] + beside)
            assert factor.negative == (energies < factor.sigma).sum()
            assert abs(factor.sigma - energies[i]) < 1.1e-4


def test_a_shift_on_an_energy_is_moved_and_said(make_graphene):
    system = make_graphene(-2.7, None)  # H(Gamma) = [[0, -8.1], [-8.1, 0]]
    pencil = SparseProblem(system).pencil(GAMMA)
    factor = pencil.factor(8.1)
    assert 0 < factor.sigma - 8.1 < 2e-4
    assert factor.negative == 2
    assert pencil.count(0.0) == 1
    assert [pencil.count(energy) for energy in (-8.2, 8.2)] == [0, 2]


def test_a_factorization_that_solves_wrongly_is_not_trusted(bilayer, monkeypatch):
    problem = SparseProblem(bilayer)
    pencil = problem.pencil(GENERAL)
    monkeypatch.setattr(factorization, "TRUSTED", {"f": 0.0, "d": 0.0})
    assert pencil.factor(0.0).sigma == 0.0  # in double precision, at last
    monkeypatch.setattr(factorization, "AT_LAST", 0.0)
    with pytest.raises(LinAlgError, match="expected a residual below"):
        pencil.count(0.0)


def test_solutions_of_single_precision_are_refined(bilayer):
    pencil = SparseProblem(bilayer, single=True).pencil(GENERAL)
    rng = np.random.default_rng(0)
    factor, b = pencil.factor(-3.0), rng.normal(size=(pencil.pattern.n, 3)) * [1e-60, 1.0, 1e60] + 0j
    b[:, 0] = 0.0
    exact = np.linalg.solve(pencil.shifted(-3.0).csr().toarray(), b)
    assert factor.single
    for mine, right in zip(factor.solve(b).T, exact.T, strict=True):
        np.testing.assert_allclose(mine, right, atol=1e-7 * np.abs(right).max())


@pytest.mark.parametrize("single", [False, True])
def test_a_factorization_that_was_released_is_made_again(bilayer, single):
    pencil = SparseProblem(bilayer, single=single).pencil(GENERAL)
    factor, b = pencil.factor(-3.0), np.eye(pencil.pattern.n, 3, dtype=complex)
    x, negative = factor.solve(b), factor.negative
    factor.release()
    assert factor._factorized is None
    assert factor.negative == negative
    np.testing.assert_array_equal(factor.solve(b), x)


def test_missing_states_are_looked_for_and_reported(bilayer, monkeypatch, caplog):
    pencil = SparseProblem(bilayer).pencil(GENERAL)
    counts = iter([25, 25])
    monkeypatch.setattr(Pencil, "_count_between", lambda *args: next(counts))
    with caplog.at_level(logging.INFO):
        found = pencil.eigenpairs(12, -3.0, block=4)
    assert found.n_counted == 25
    assert found.n_missing == 25 - len(found.energies) > 0
    assert "looking again" in caplog.text
    assert "counted 25; use larger blocks" in caplog.text


def test_one_vector_at_a_time_finds_multiplets_after_all(make_system, caplog):
    """Six equal molecules far apart: every level six times."""
    from ase import Atoms

    atoms = Atoms("CS" * 6, [[20.0 * i, 0.0, 1.4 * j] for i in range(6) for j in range(2)])
    pencil = SparseProblem(make_system(atoms)).pencil(GAMMA)
    energies = dense(pencil)
    sigma = 0.5 * (energies[17] + energies[18])
    found = pencil.eigenpairs(7, sigma, block=6)
    assert found.n_missing == 0
    assert len(found.energies) in (12, 18)
    few = pencil.eigenpairs(7, sigma, block=2)
    assert few.n_counted is not None
    if few.n_missing:
        assert "use larger blocks" in caplog.text
    else:
        assert len(few.energies) % 6 == 0


@pytest.mark.parametrize("n_wanted", [0, 230, 10**6])
def test_too_many_states_are_for_the_dense_solver(bilayer, n_wanted):
    with pytest.raises(ValueError, match=r"eigenpairs: expected 1 to 226 states of 468 orbitals, got"):
        SparseProblem(bilayer).pencil(GAMMA).eigenpairs(n_wanted, 0.0)


def test_lanczos_that_does_not_converge_says_so(bilayer, monkeypatch):
    monkeypatch.setattr(sparse, "MOST_VECTORS", 2)
    with pytest.raises(ValueError, match="expected errors below 1e-12 eV"):
        SparseProblem(bilayer).pencil(GENERAL).eigenpairs(20, -3.0, tolerance=1e-12)


def test_a_system_without_overlap_is_refused(make_graphene):
    system = make_graphene(-2.7, 0.1)
    with pytest.raises(OverlapError, match="expected S"):
        SparseProblem(LCAOSystem(system.atoms, system.hamiltonian))


def test_superlu_counts_unless_it_interchanged_rows(bilayer):
    pencil = SparseProblem(bilayer, SuperLU).pencil(GENERAL)
    energies = dense(pencil)
    rng = np.random.default_rng(0)
    for energy in rng.uniform(energies[0], energies[150], size=12):
        assert pencil.count(energy) == (energies < energy).sum()
    engine = SuperLU(pencil.pattern)
    factor = engine.factor(pencil.shifted(0.0))
    factor._lu = type("Interchanged", (), {"perm_r": np.array([0, 1]), "perm_c": np.array([1, 0])})
    assert factor.negative is None
    with pytest.raises(LinAlgError):
        engine.factor(pencil.h.minus(1.0, pencil.h))
