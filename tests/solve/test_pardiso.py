"""MKL's PARDISO against the multifrontal engine; skipped where MKL is not installed."""

from importlib.metadata import PackageNotFoundError, version

import numpy as np
import pytest
from scipy.linalg import eigh

from ase_hybridham.solve import pardiso
from ase_hybridham.solve.pardiso import Pardiso
from ase_hybridham.solve.sparse import SparseProblem
from tests.solve.sparse_systems import nanoribbon, repeated

GENERAL, GAMMA = [0.13, 0.27, 0.0], [0.0, 0.0, 0.0]


def installed() -> bool:
    try:
        return bool(version("mkl"))
    except PackageNotFoundError:
        return False


needs_mkl = pytest.mark.skipif(not installed(), reason="MKL is not installed")
SYSTEMS = {
    "carbon": lambda make: repeated("bilayer_graphene_AB", 3, 3, 1),
    "spinors": lambda make: repeated("Bi_bismuthene_soc", 1, 4, 1),
    "one image": lambda make: make(nanoribbon(12)),
}


@needs_mkl
@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("single", [False, True], ids=["double", "single"])
@pytest.mark.parametrize("k", [GENERAL, GAMMA], ids=["general", "gamma"])
def test_states_are_those_of_lapack(make_system, name, single, k):
    problem = SparseProblem(SYSTEMS[name](make_system), Pardiso, single=single)
    pencil = problem.pencil(k)
    energies = eigh(pencil.h.csr().toarray(), pencil.s.csr().toarray(), eigvals_only=True)
    middle = 0.5 * (energies[29] + energies[30]) + 1e-3
    found = pencil.eigenpairs(10, middle)
    first = int((energies < found.energies[0] - 1e-6).sum())
    np.testing.assert_allclose(found.energies, energies[first : first + len(found.energies)], atol=1e-8)
    assert np.abs(found.residuals).max() < 1e-5
    counts = pencil.h.dtype == "float64"
    assert found.first_band == (first if counts else None)
    assert found.n_missing == (0 if counts else None)
    assert pencil.count(middle) == ((energies < middle).sum() if counts else None)


@needs_mkl
@pytest.mark.parametrize("k", [GENERAL, GAMMA], ids=["general", "gamma"])
def test_solutions_of_factors_that_live_together(make_system, k):
    pencil = SparseProblem(make_system(nanoribbon(8)), Pardiso).pencil(k)
    b = np.random.default_rng(0).normal(size=(pencil.pattern.n, 5)).astype(pencil.h.dtype)
    factors = [pencil.factor(sigma) for sigma in (-3.0, 0.0, 2.5)]
    for factor in factors:
        exact = np.linalg.solve(pencil.shifted(factor.sigma).csr().toarray(), b)
        np.testing.assert_allclose(factor.solve(b), exact, atol=1e-9 * np.abs(exact).max())
        assert factor.solve(b[:, :1]).shape == (pencil.pattern.n, 1)


@needs_mkl
def test_counts_of_real_matrices_are_those_of_lapack(make_system):
    pencil = SparseProblem(make_system(nanoribbon(10)), Pardiso).pencil(GAMMA)
    energies = eigh(pencil.h.csr().toarray(), pencil.s.csr().toarray(), eigvals_only=True)
    for energy in np.random.default_rng(0).uniform(energies[0] - 1, energies[-1] + 1, size=30):
        assert pencil.count(energy) == (energies < energy).sum()


def test_without_mkl_the_message_tells_how_to_get_it(make_graphene, monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(pardiso, "files", missing)
    pardiso._library.cache_clear()
    with pytest.raises(ImportError, match=r"expected MKL, found none; pip install 'ase-hybridham\[mkl\]'") as error:
        SparseProblem(make_graphene(-2.7, None), Pardiso)
    assert "\n" not in str(error.value)


def test_an_mkl_that_does_not_load_is_told(make_graphene, monkeypatch, tmp_path):
    class File:
        name, suffix = "libmkl_rt.so.9", ".9"

        def locate(self):
            return tmp_path / self.name

    monkeypatch.setattr(pardiso, "files", lambda name: [File()])
    pardiso._library.cache_clear()
    with pytest.raises(ImportError, match=r"expected MKL to load, got .*libmkl_rt.so.9.*pip install"):
        SparseProblem(make_graphene(-2.7, None), Pardiso)


@needs_mkl
def test_errors_of_pardiso_are_told(make_graphene, monkeypatch):
    pencil = SparseProblem(make_graphene(-2.7, None), Pardiso).pencil(GAMMA)
    for number, kind in ((-4, np.linalg.LinAlgError), (-2, MemoryError), (-1, RuntimeError)):
        monkeypatch.setattr(pardiso, "_call", lambda *args, number=number: number)
        with pytest.raises(kind):
            pencil.engine.factor(pencil.h)
