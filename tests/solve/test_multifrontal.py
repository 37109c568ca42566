"""The factorization against LAPACK, where there are many fronts: solutions, counts, kinds of numbers, memory."""

import tracemalloc

import numpy as np
import pytest
from scipy.linalg import eigh

from ase_hybridham.solve import multifrontal
from ase_hybridham.solve.dissection import Dissection, dissect
from ase_hybridham.solve.multifrontal import Multifrontal
from ase_hybridham.solve.pattern import BlockMatrix, Pattern
from ase_hybridham.solve.sparse import SparseProblem
from ase_hybridham.system import LCAOSystem
from tests.solve.sparse_systems import nanoribbon, repeated

GENERAL, GAMMA = [[0.13, 0.27, 0.31]], [[0.0, 0.0, 0.0]]
KINDS = ("float32", "float64", "complex64", "complex128")


def operators(system: LCAOSystem, k=GENERAL) -> tuple[Pattern, BlockMatrix, BlockMatrix]:
    """Pattern, H(k) and S(k); real where they are."""
    pencil = SparseProblem(system).pencil(k[0])
    return pencil.pattern, pencil.h, pencil.s


def random_hermitian(pattern: Pattern, kind: str, seed: int) -> BlockMatrix:
    """An indefinite matrix without a strong diagonal, so that pivots of two rows occur."""
    rng = np.random.default_rng(seed)
    dense = rng.normal(size=(pattern.n, pattern.n)) + 1j * rng.normal(size=(pattern.n, pattern.n))
    dense = dense + dense.conj().T
    np.fill_diagonal(dense, 0.0)
    rows = np.repeat(np.arange(pattern.n), np.diff(pattern.indptr))
    data = dense[rows, pattern.indices]
    return BlockMatrix(pattern, (data.real if kind.startswith("float") else data).astype(kind))


def long_cell(make_system, crystal) -> tuple[Pattern, Dissection]:
    many = crystal * (1, 1, 6)
    pattern = Pattern.of(make_system(many).overlap, many)
    return pattern, dissect(pattern, leaf=30, panel=17)


@pytest.mark.parametrize("kind", KINDS)
def test_solutions_and_signs_of_random_matrices(make_system, crystal, kind):
    pattern, dissection = long_cell(make_system, crystal)
    assert len(dissection.fronts) == 7
    engine, rng = Multifrontal(pattern, dissection), np.random.default_rng(0)
    n_twos = 0
    for seed in range(5):
        data = random_hermitian(pattern, kind, seed)
        factor = engine.factor(data)
        n_twos += sum(len(panel.twos) for front in factor.panels for panel in front)
        dense = data.csr().toarray().astype(np.result_type(kind, np.float64))
        values = np.linalg.eigvalsh(dense)
        assert factor.negative == (values < 0).sum()
        b = rng.normal(size=(pattern.n, 3)).astype(kind)
        x = factor.solve(b)
        assert x.dtype == kind
        condition = np.abs(values).max() / np.abs(values).min()
        tolerance = 30 * np.finfo(kind).eps * condition
        exact = np.linalg.solve(dense, b)
        assert np.abs(x - exact).max() < tolerance * np.abs(exact).max()
        assert factor.n_kept == dissection.n_kept
    assert n_twos > 50


def test_a_factor_does_not_depend_on_leaf_and_panel(make_system, crystal):
    pattern, _ = long_cell(make_system, crystal)
    data, b = random_hermitian(pattern, "complex128", 3), np.random.default_rng(1).normal(size=(pattern.n, 2))
    expected = np.linalg.solve(data.csr().toarray(), b)
    negative = set()
    for leaf, panel in [(10, 1), (10, 9), (50, 1000), (10**6, 30), (10**6, 10**6)]:
        factor = Multifrontal(pattern, dissect(pattern, leaf=leaf, panel=panel)).factor(data)
        np.testing.assert_allclose(factor.solve(b), expected, atol=1e-9 * np.abs(expected).max())
        negative.add(factor.negative)
    assert len(negative) == 1


def test_only_one_triangle_is_read_and_arguments_stay_as_they_are(make_system, crystal):
    pattern, dissection = long_cell(make_system, crystal)
    data = random_hermitian(pattern, "complex128", 2)
    rank = np.empty(len(pattern.sizes), dtype=int)
    rank[dissection.order] = np.arange(len(rank))
    atom = np.repeat(np.arange(len(rank)), pattern.sizes)
    rows = np.repeat(np.arange(pattern.n), np.diff(pattern.indptr))
    earlier = rank[atom[pattern.indices]] < rank[atom[rows]]
    spoilt = np.where(earlier, np.nan, data.values)
    b = np.random.default_rng(0).normal(size=(pattern.n, 1))
    kept = spoilt.copy(), b.copy()
    engine = Multifrontal(pattern, dissection)
    np.testing.assert_array_equal(engine.factor(BlockMatrix(pattern, spoilt)).solve(b), engine.factor(data).solve(b))
    np.testing.assert_array_equal(spoilt, kept[0])
    np.testing.assert_array_equal(b, kept[1])


CELLS = {  # and how many shifts
    "nanoribbon": (lambda make: make(nanoribbon(12)), 40),
    "1 x 14 graphene": (lambda make: repeated("graphene", 1, 14, 1), 15),
    "MoS2, 9 x 1": (lambda make: repeated("MoS2_monolayer", 9, 1, 1), 15),
    "bismuthene spinors, 1 x 5": (lambda make: repeated("Bi_bismuthene_soc", 1, 5, 1), 15),
}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("k", [GENERAL, GAMMA], ids=["general", "gamma"])
def test_counts_are_those_of_lapack(make_system, name, k):
    make, n_shifts = CELLS[name]
    system = make(make_system)
    pattern, h, s = operators(system, k)
    values = eigh(h.csr().toarray(), s.csr().toarray(), eigvals_only=True)
    engine = Multifrontal(pattern, dissect(pattern, leaf=int(6 * pattern.sizes.max()), panel=60))
    assert len(engine.dissection.fronts) >= 3
    rng = np.random.default_rng(0)
    occupied = values[: len(values) // 2]
    shifts = np.concatenate([rng.uniform(occupied[0] - 1, occupied[-1], n_shifts - 5), rng.choice(occupied, 5) + 1e-6])
    for shift in shifts:
        assert engine.factor(h.minus(shift, s)).negative == (values < shift).sum()
    safe = [shift for shift in shifts if np.abs(values - shift).min() > 1e-4][:10]
    kind = "complex64" if h.dtype == "complex128" else "float32"
    single = [engine.factor(h.minus(shift, s).astype(kind)) for shift in safe]
    assert [factor.negative for factor in single] == [(values < shift).sum() for shift in safe]
    assert len(safe) > 5


def test_peak_of_memory_is_what_the_dissection_tells():
    pattern, h, s = operators(repeated("Bi_bismuthene_soc", 1, 10, 1))
    dissection = dissect(pattern, leaf=200, panel=100)
    engine, data = Multifrontal(pattern, dissection), h.minus(0.1, s)
    assert len(dissection.fronts) >= 7
    tracemalloc.start()
    try:
        factor = engine.factor(data)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak == pytest.approx(16 * dissection.n_peak, rel=0.2)
    assert kept == pytest.approx(16 * factor.n_kept, rel=0.1)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_singular_matrix_and_numbers_that_are_none_are_refused(make_system, crystal, value):
    pattern, dissection = long_cell(make_system, crystal)
    with pytest.raises(np.linalg.LinAlgError, match="pivot"):
        Multifrontal(pattern, dissection).factor(BlockMatrix(pattern, np.full(pattern.n_entries, value)))


def test_single_precision_has_no_numbers_whose_products_are_denormal(monkeypatch):
    """A long cell, far from whose diagonal the factor of S is next to nothing."""
    _, _, s = operators(repeated("bilayer_graphene_AB", 1, 24, 1))
    shifted = s.plus_diagonal(-1e-5).astype(np.dtype("complex64"))

    cut = multifrontal.TINY

    def smallest(tiny: float) -> float:
        monkeypatch.setattr(multifrontal, "TINY", tiny)
        factor = Multifrontal(s.pattern).factor(shifted)
        assert factor.negative == 0
        parts = np.concatenate([np.abs(p.coupling.T.view(np.float32)).ravel() for ps in factor.panels for p in ps])
        return float(parts[parts > 0].min())

    assert smallest(0.0) < 1e-19
    assert smallest(cut) >= cut
