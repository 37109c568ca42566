"""Where S(k) is nearly singular the sparse solver leaves out what the dense one does: in counts, states and levels."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import LinAlgError

from ase_hybridham.errors import OverlapError
from ase_hybridham.io import read_system
from ase_hybridham.solve import (
    OVERLAP_THRESHOLD,
    BlochSum,
    SparseSolver,
    bands,
    count_electrons,
    density_of_states,
    eigenvalues,
    fermi_level,
    k_mesh,
)
from ase_hybridham.solve.multifrontal import Multifrontal
from ase_hybridham.solve.sparse import Pencil, SparseProblem
from ase_hybridham.solve.states import dense_states
from ase_hybridham.solve.superlu import SuperLU
from ase_hybridham.system import LCAOSystem, PairBlocks
from tests.solve.sparse_systems import GOLDEN, repeated
from tests.solve.test_counts import engine
from tests.solve.test_singular import GAMMA, in_basis, of_spin, with_twins

GENERAL = [0.13, 0.27, 0.0]
POINTS = {"general": GENERAL, "gamma": GAMMA}
NOISE = 1e-3  # eV, of elements of H
NEAR = 1e-8  # eV; energies differ by as much where directions differ by rounding


def redundant(system: LCAOSystem, delta: float = 1e-3) -> LCAOSystem:
    """The second p shell of carbon is the first and `delta` of what it was; S(k) has eigenvalues of delta^2 / 2."""
    twin = np.eye(13)
    twin[2:5, 5:8], twin[5:8, 5:8] = np.eye(3), delta * np.eye(3)
    return in_basis(system, system.basis, {"C": twin})


def noisy(system: LCAOSystem, size: float = NOISE) -> LCAOSystem:
    rng = np.random.default_rng(1)

    def spoiled(h: PairBlocks) -> PairBlocks:
        error = rng.normal(scale=size, size=h.values.shape)
        if np.iscomplexobj(h.values):
            error = error + 1j * rng.normal(scale=size, size=h.values.shape)
        return h + h.with_values(error).hermitian_part()

    return replace(system, hamiltonian=tuple(map(spoiled, system.hamiltonian)))


@pytest.fixture(scope="module")
def bilayer() -> LCAOSystem:
    """Eight atoms, 104 orbitals."""
    return replace(repeated("bilayer_graphene_AB", 1, 2, 1), electrons=32.0)


@pytest.fixture(scope="module", params=["none", "collinear", "spinor"])
def spoiled(request, bilayer) -> LCAOSystem:
    """24 directions of next to nothing, for spinors 48."""
    return noisy(replace(of_spin(redundant(bilayer), request.param), electrons=32.0))


def all_energies(system: LCAOSystem, k: list[float], spin: int = 0, **options: float) -> NDArray:
    energies = eigenvalues(system, [k], **options)[spin, 0]
    return energies[np.isfinite(energies)]


def check_counts(pencil: Pencil, energies: NDArray, n_shifts: int, seed: int = 0) -> None:
    """Half anywhere, half next to a state."""
    rng = np.random.default_rng(seed)
    anywhere = rng.uniform(energies[0] - 300, energies[-1] + 300, size=n_shifts // 4)
    among = rng.uniform(energies[0], energies[-1], size=n_shifts // 4)
    beside = rng.choice([-1, 1], n_shifts // 2) * 10 ** rng.uniform(-7, -2, size=n_shifts // 2)
    n_compared = 0
    for energy in np.concatenate([anywhere, among, rng.choice(energies, len(beside)) + beside]):
        try:
            factor = pencil.factor(energy)
        except LinAlgError:  # S is nearly singular above the threshold, too: that is told
            continue
        if np.abs(energies - factor.sigma).min() > NEAR:
            n_compared += 1
            assert factor.negative == (energies < factor.sigma).sum()
    assert n_compared > 0.8 * n_shifts


@pytest.mark.parametrize("k", POINTS)
@pytest.mark.parametrize("single", [False, True], ids=["double", "single"])
def test_no_count_is_wrong(spoiled, k, single):
    problem = SparseProblem(spoiled, engine, single=single)
    for spin in range(problem.n_spins):
        pencil, energies = problem.pencil(POINTS[k], spin), all_energies(spoiled, POINTS[k], spin)
        assert pencil.n_states == len(energies) == spoiled.n_orbitals * 10 // 13
        check_counts(pencil, energies, 40)


def test_counts_with_the_ghosts_are_others(spoiled):
    """What the tests here would see if nothing was left out."""
    energies = all_energies(spoiled, GENERAL)
    pencil = SparseProblem(spoiled, overlap_threshold=0.0).pencil(GENERAL)
    assert pencil.left_out is None
    assert pencil.count(energies[0] - 5) > 3


@pytest.mark.parametrize("k", POINTS)
@pytest.mark.parametrize("single", [False, True], ids=["double", "single"])
def test_states_are_those_of_lapack(spoiled, k, single):
    pencil = SparseProblem(spoiled, single=single).pencil(POINTS[k])
    energies = all_energies(spoiled, POINTS[k])
    found = pencil.eigenpairs(12, energies[len(energies) // 3] + 0.01)
    assert found.n_missing == 0
    assert len(found.energies) >= 12
    expected = energies[found.first_band :][: len(found.energies)]
    np.testing.assert_allclose(found.energies, expected, atol=1e-7)
    c, left_out = found.vectors, pencil.left_out.vectors
    np.testing.assert_allclose(c.conj().T @ pencil.s.product(c), np.eye(c.shape[1]), atol=1e-8)
    scale = np.linalg.norm(c, axis=0).max()
    assert np.abs(left_out.conj().T @ c).max() < 1e-9 * scale
    assert found.residuals.max() < 1e-3


def test_directions_are_those_of_the_dense_solver(spoiled):
    s = BlochSum(spoiled.overlap, spoiled.spin == "spinor").dense(np.array([GENERAL]))[0]
    values, vectors = np.linalg.eigh(s)
    few = values < OVERLAP_THRESHOLD
    found = SparseProblem(spoiled).pencil(GENERAL).left_out
    assert found.smallest == pytest.approx(values[0], rel=1e-6)
    expected = vectors[:, few] @ vectors[:, few].conj().T
    np.testing.assert_allclose(found.vectors @ found.vectors.conj().T, expected, atol=1e-9)


@pytest.mark.parametrize("n_states", [3, 12])
def test_fermi_level_and_electrons_are_those_of_all_states(spoiled, n_states):
    k, w = k_mesh(spoiled.atoms, (3, 2, 1), time_reversal=False)
    dense = fermi_level(spoiled, k, w, solver="dense")
    assert fermi_level(spoiled, k, w, solver=SparseSolver(n_states)) == pytest.approx(dense, abs=1e-6)
    with_ghosts = fermi_level(spoiled, k, w, solver=SparseSolver(n_states, overlap_threshold=0.0))
    assert with_ghosts < dense - 3.0
    level = dense + 0.3
    sparse, every = (count_electrons(spoiled, level, k, w, solver=s) for s in (SparseSolver(n_states), "dense"))
    assert sparse == pytest.approx(every, abs=1e-6)


@pytest.mark.parametrize("delta", [0.0, 1e-6, 1e-3])
def test_bands_and_densities_are_those_of_all_states(bilayer, delta):
    system, grid = noisy(redundant(bilayer, delta)), np.linspace(-6.0, -2.0, 21)
    some, every = (bands(system, [GAMMA, GENERAL], reference=-4.0, solver=s) for s in (SparseSolver(10), "dense"))
    there = np.isfinite(some.energies)
    expected = every.energies[:, :, some.first_band :][:, :, : there.shape[2]]
    np.testing.assert_allclose(some.energies[there], expected[there], atol=1e-6)
    sparse, dense = (density_of_states(system, grid, [GENERAL], by=("l",), solver=s) for s in ("sparse", "dense"))
    np.testing.assert_allclose(sparse.get_all_weights(), dense.get_all_weights(), atol=1e-5)


def test_electrons_that_do_not_fit_in_what_is_left_are_refused_as_by_the_dense_solver(bilayer):
    system, (k, w) = redundant(bilayer), k_mesh(bilayer.atoms, (1, 1, 1))
    told = []
    for solver in (SparseSolver(8), "dense"):
        with pytest.raises(ValueError, match="expected") as error:
            fermi_level(system, k, w, electrons=161.0, solver=solver)
        told.append(str(error.value))
        assert fermi_level(system, k, w, electrons=159.0, solver=solver) > 10.0
    assert told[0] == told[1]


@pytest.mark.parametrize("seed", range(8))
def test_any_redundant_basis(make_system, crystal, seed):
    """Combinations of shells that are nothing, nearly nothing, or above the threshold."""
    rng = np.random.default_rng(seed)
    system = make_system(crystal * (1, 1, 2))
    carbon, sulfur = np.eye(4), np.eye(7)
    sulfur[:2, 1] = 1.0, 10 ** rng.uniform(-7, -1)
    carbon[:, rng.integers(1, 4)] = [1.0, *(10 ** rng.uniform(-5, -1) * rng.normal(size=3))]
    mixed = noisy(in_basis(system, system.basis, {"C": carbon, "S": sulfur}), 1e-4)
    threshold = float(10 ** rng.uniform(-7, -3))
    for k in (rng.uniform(size=3).tolist(), GAMMA):
        energies = all_energies(mixed, k, overlap_threshold=threshold)
        pencil = SparseProblem(mixed, single=bool(seed % 2), overlap_threshold=threshold).pencil(k)
        assert pencil.n_states == len(energies)
        check_counts(pencil, energies, 20, seed)
        found = pencil.eigenpairs(6, float(energies[10]) + 0.01)
        assert found.n_missing in (0, None)
        expected = energies[found.first_band :][: len(found.energies)]
        np.testing.assert_allclose(found.energies, expected, atol=1e-6, rtol=1e-8)


@pytest.fixture
def factored(monkeypatch) -> list[np.dtype]:
    """Types of the matrices that are factorized."""
    types, factor = [], Multifrontal.factor
    monkeypatch.setattr(Multifrontal, "factor", lambda self, m: types.append(m.dtype) or factor(self, m))
    return types


def test_where_nothing_is_left_out_it_costs_a_factorization_in_single_precision(bilayer, factored):
    system = of_spin(bilayer, "collinear")
    problem = SparseProblem(system)
    for spin in (0, 1, 0):
        assert problem.pencil(GENERAL, spin).left_out is None
    assert problem.pencil(GAMMA).left_out is None
    assert factored == ["complex64", "float32"]
    SparseProblem(system, overlap_threshold=0.0).pencil([0.3, 0.1, 0.0])
    assert len(factored) == 2
    assert problem.cost(10).flops > SparseProblem(system, overlap_threshold=0.0).cost(10).flops


def test_a_threshold_next_to_an_eigenvalue_is_looked_at_in_double_precision(bilayer, factored):
    smallest = np.linalg.eigvalsh(BlochSum(bilayer.overlap).dense(np.array([GENERAL]))[0])[0]
    for factor, n_left_out in ((1 - 1e-5, 0), (1 + 1e-5, 1)):
        pencil = SparseProblem(bilayer, overlap_threshold=float(smallest * factor)).pencil(GENERAL)
        assert pencil.n_states == pencil.pattern.n - n_left_out
    assert "complex128" in factored


def test_an_overlap_that_is_negative_is_the_same_error_as_of_the_dense_solver(make_system, crystal):
    system = with_twins(make_system(crystal), 0.0)
    for atom in range(len(crystal)):
        block = system.overlap.block(atom)
        block[np.diag_indices(len(block))] -= 4e-4
    told = []
    for solver in ("sparse", "dense"):
        with pytest.raises(OverlapError, match=r"smallest eigenvalue is -4.00e-04") as error:
            bands(system, [[0.1, 0.2, 0.3]], reference=0.0, solver=solver)
        told.append(str(error.value))
        found = bands(system, [[0.1, 0.2, 0.3]], reference=0.0, solver=solver, overlap_threshold=1e-3)
        assert np.isfinite(found.energies).any()
    assert told[0] == told[1]


def test_an_overlap_of_nothing_is_an_error(bilayer):
    nothing = replace(bilayer, overlap=bilayer.overlap * 0.0)
    with pytest.raises(OverlapError, match="expected a positive definite matrix"):
        SparseProblem(nothing).pencil(GENERAL)


@pytest.mark.parametrize("k", POINTS)
def test_an_engine_that_may_not_count_finds_the_same_states(spoiled, k):
    pencil, energies = SparseProblem(spoiled, SuperLU).pencil(POINTS[k]), all_energies(spoiled, POINTS[k])
    middle = float(energies[20] + 0.01)
    found = pencil.eigenpairs(8, middle)
    nearest = np.abs(found.energies[:, None] - energies).argmin(axis=1)
    np.testing.assert_allclose(found.energies, energies[nearest], atol=1e-7)
    if found.first_band is not None:
        np.testing.assert_array_equal(nearest, found.first_band + np.arange(len(nearest)))
    assert pencil.count(middle) in (None, (energies < middle).sum())


@pytest.mark.parametrize("n_states", [1, 10, 20])
def test_cells_so_small_that_lapack_finds_all_states(n_states):
    system = replace(noisy(redundant(read_system(GOLDEN / "graphene/deeph"))), electrons=8.0)
    k, w = k_mesh(system.atoms, (3, 3, 1))
    levels = [fermi_level(system, k, w, solver=s) for s in (SparseSolver(n_states), "dense")]
    assert levels[0] == pytest.approx(levels[1], abs=1e-6)
    some, every = (bands(system, [GENERAL], reference=-4.0, solver=s) for s in (SparseSolver(n_states), "dense"))
    n = some.energies.shape[2]
    assert n >= n_states
    np.testing.assert_allclose(some.energies, every.energies[:, :, some.first_band : some.first_band + n], atol=1e-7)
    with pytest.raises(ValueError, match="expected 1 to 20 states of 26 orbitals, got 21; use the dense solver"):
        bands(system, [GENERAL], reference=-4.0, solver=SparseSolver(21))


def test_vectors_of_small_cells_are_those_of_lapack():
    system = noisy(redundant(read_system(GOLDEN / "graphene/deeph")))
    (one,) = next(SparseSolver(20, center=0.0)(system, np.array([GENERAL])))
    (other,) = next(dense_states(system, np.array([GENERAL])))
    s = BlochSum(system.overlap).dense(np.array([GENERAL]))[0]
    overlap = one.vectors.conj().T @ s @ other[1]
    np.testing.assert_allclose(np.abs(overlap), np.eye(20), atol=1e-6)
