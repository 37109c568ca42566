"""The density of states from counts alone, against that of all states."""

import numpy as np
import pytest

from ase_hybridham.io import read_system
from ase_hybridham.solve import SparseSolver, density_of_states, windowed
from ase_hybridham.solve.counted_dos import bin_edges, counts_are_cheaper, states_below
from ase_hybridham.solve.dense import eigenvalues
from ase_hybridham.solve.sparse import SparseProblem
from ase_hybridham.solve.superlu import SuperLU
from ase_hybridham.system import LCAOSystem
from tests.solve.sparse_systems import GOLDEN, repeated
from tests.solve.test_singular import of_spin

NEAR = 2e-4  # eV, by which a factorization next to a state may move
K, W = np.array([[0.13, 0.27, 0.0], [0.0, 0.0, 0.0]]), np.array([0.75, 0.25])


@pytest.fixture(scope="module", params=["none", "collinear", "spinor"])
def system(request) -> LCAOSystem:
    return of_spin(repeated("bilayer_graphene_AB", 1, 2, 1), request.param)


@pytest.mark.parametrize("processes", [1, 2])
def test_as_many_states_as_lapack_has_are_below_every_energy(system, processes):
    energies, edges = eigenvalues(system, K), bin_edges(-25.0, 40.0, 0.5)
    found = list(states_below(SparseSolver(processes=processes), system, K, edges))
    for row, of_spins in enumerate(found):
        for e, below in zip(energies[:, row], of_spins, strict=True):
            surely, perhaps = ((e[:, None] < edges + shift).sum(axis=0) for shift in (-NEAR, NEAR))
            assert ((surely <= below) & (below <= perhaps)).all()
            assert (surely == perhaps).mean() > 0.98


@pytest.mark.parametrize("smearing", ["gaussian", "fermi-dirac"])
def test_the_density_is_that_of_all_states(system, smearing):
    grid = np.linspace(-28.0, 45.0, 1401)
    options = {"width": 0.3, "smearing": smearing}
    counted, every = (density_of_states(system, grid, K, W, solver=s, **options) for s in ("counts", "dense"))
    total, expected = counted.total().get_weights(), every.total().get_weights()
    for one, other in zip(counted, every, strict=True):
        assert one.info == other.info
    inside = np.cumsum(total), np.cumsum(expected)
    step = grid[1] - grid[0]
    # a state is moved by a tenth of the width at most
    assert np.abs(inside[0] - inside[1]).max() * step < 0.03 * expected.max()
    assert np.abs(total - expected).max() < 0.06 * expected.max()
    assert np.trapezoid(total, grid) == pytest.approx(np.trapezoid(expected, grid), rel=1e-3)


def test_where_no_state_is_nothing_is_counted(monkeypatch):
    system, shifts = repeated("bilayer_graphene_AB", 1, 2, 1), []
    counted = SparseProblem.pencil
    monkeypatch.setattr(SparseProblem, "pencil", lambda *a: _told(counted(*a), shifts))
    edges = bin_edges(-200.0, -30.0, 0.1)
    ((below,),) = states_below(SparseSolver(), system, K[:1], edges)
    assert not below.any()
    assert len(edges) > 1000
    assert len(shifts) == 2


def _told(pencil, shifts):
    factor = type(pencil).factor
    object.__setattr__(pencil, "factor", lambda e, **o: shifts.append(e) or factor(pencil, e, **o))
    return pencil


def test_counts_are_for_wide_bins_and_many_states(monkeypatch):
    """Both costs are those that are told; where LAPACK is not thought of."""
    system = repeated("bilayer_graphene_AB", 5, 5, 1)
    solver, edges = SparseSolver(), [bin_edges(-20.0, 20.0, width) for width in (20.0, 0.01)]
    assert [counts_are_cheaper(solver, system, K, some) for some in edges] == [True, False]
    monkeypatch.setattr(windowed, "DENSE_ORBITALS", 0)
    monkeypatch.setattr(windowed, "dense_cost", lambda *a, **o: SparseProblem(system).cost(50, 10**6))
    grid = np.linspace(-10.0, 10.0, 41)
    auto, counted = (density_of_states(system, grid, K[:1], width=20.0, solver=s) for s in ("auto", "counts"))
    np.testing.assert_array_equal(auto.get_all_weights(), counted.get_all_weights())


def test_counts_tell_no_parts():
    system, grid = read_system(GOLDEN / "graphene/deeph"), np.linspace(-1.0, 1.0, 21)
    with pytest.raises(ValueError, match="solver 'counts': tells how many states there are, not where"):
        density_of_states(system, grid, K, W, by=("l",), solver="counts")


def test_an_engine_that_does_not_count_is_refused():
    system, grid = repeated("bilayer_graphene_AB", 1, 2, 1), np.linspace(-4.0, -3.0, 21)

    class Silent(SuperLU):
        def factor(self, matrix):
            found = super().factor(matrix)
            found.__class__ = type("Silent", (type(found),), {"negative": None})
            return found

    with pytest.raises(ValueError, match="this engine does not count states"):
        list(states_below(SparseSolver(engine=Silent), system, K, grid))
