"""Bands, Fermi level, DOS and unfolding from states near an energy, against all states by LAPACK."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from ase.spectrum.band_structure import BandStructure

from ase_hybridham import parallel
from ase_hybridham.io import read_system
from ase_hybridham.solve import (
    SiteMap,
    SparseSolver,
    band_path,
    bands,
    count_electrons,
    density_of_states,
    eigenvalues,
    fat_bands,
    fermi_level,
    k_mesh,
    unfold,
    windowed,
    with_electrons,
)
from ase_hybridham.solve.cost import Cost
from ase_hybridham.solve.counting import energy_with, local_level
from ase_hybridham.solve.sparse import SparseProblem
from ase_hybridham.solve.states import rectangle
from ase_hybridham.solve.superlu import SuperLU
from ase_hybridham.solve.windowed import states_between
from ase_hybridham.structures import primitive_cell
from ase_hybridham.system import LCAOSystem
from tests.solve.sparse_systems import GOLDEN, repeated
from tests.solve.test_singular import in_basis

K = np.array([[0.0, 0.0, 0.0], [0.13, 0.27, 0.0], [1 / 3, 1 / 3, 0.0]])
SYSTEMS = {
    "semimetal": ("bilayer_graphene_AB", (2, 2, 1)),
    "semiconductor": ("MoS2_monolayer", (2, 2, 1)),
    "spinor": ("Bi_bismuthene_soc", (1, 2, 1)),
}


def supercell(kind: str) -> LCAOSystem:
    name, times = SYSTEMS[kind]
    electrons = with_electrons(read_system(GOLDEN / name / "deeph")).electrons
    return replace(repeated(name, *times), electrons=electrons * np.prod(times))


@pytest.fixture(scope="module", params=SYSTEMS)
def system(request) -> LCAOSystem:
    return supercell(request.param)


@pytest.fixture(scope="module", params=["semimetal", "semiconductor"])
def collinear(request) -> LCAOSystem:
    """Two spins, a volt apart: a magnetic metal."""
    system = supercell(request.param)
    (h,) = system.hamiltonian
    return replace(system, hamiltonian=(h, h + system.overlap * 1.0), spin="collinear")


@pytest.mark.parametrize("width", [0.025, 0.2, 0.001])
@pytest.mark.parametrize("n_states", [1, 20])
def test_fermi_level_is_that_of_all_states(system, width, n_states):
    k, w = k_mesh(system.atoms, (3, 3, 1), time_reversal=system.spin != "spinor")
    sparse, dense = (
        fermi_level(system, k, w, width=width, solver=s) for s in (SparseSolver(n_states, count=False), "dense")
    )
    assert sparse == pytest.approx(dense, abs=1e-6)


@pytest.mark.parametrize("charge", [-1.0, 0.37, 2.0])
def test_fermi_level_of_two_spins_and_of_charged_cells(collinear, charge):
    k, w = k_mesh(collinear.atoms, (2, 2, 1))
    sparse, dense = (
        fermi_level(collinear, k, w, electrons=collinear.electrons - charge, solver=s)
        for s in (SparseSolver(10, count=False), "dense")
    )
    assert sparse == pytest.approx(dense, abs=1e-6)


def test_electrons_below_a_level_are_those_of_all_states(system):
    k, w = k_mesh(system.atoms, (2, 2, 1))
    level = fermi_level(system, k, w, solver="dense") + 0.1
    sparse, dense = (count_electrons(system, level, k, w, solver=s) for s in (SparseSolver(4), "dense"))
    assert sparse == pytest.approx(dense, abs=1e-6)


def test_a_fermi_level_in_a_wide_gap_needs_the_states_on_both_sides():
    system = replace(repeated("MoS2_monolayer", 2, 2, 1), electrons=104.0)
    s = system.overlap
    widened = replace(system, hamiltonian=(system.hamiltonian[0] * 4.0 + s * 3.0,))  # a gap of 6 eV
    k, w = k_mesh(system.atoms, (2, 2, 1))
    sparse, dense = (fermi_level(widened, k, w, solver=s) for s in (SparseSolver(3, count=False), "dense"))
    assert sparse == pytest.approx(dense, abs=1e-6)


def test_levels_with_no_or_too_many_electrons_are_refused(system):
    for electrons in (0.0, 1e5):
        with pytest.raises(ValueError, match="electrons: expected more than 0 and less than"):
            fermi_level(system, K, electrons=electrons, solver="sparse")


def test_an_engine_that_does_not_count_is_told(system):
    class Silent(SuperLU):
        def factor(self, data):
            found = super().factor(data)
            found.negative = None
            return found

    silent = SparseSolver(10, engine=Silent)
    with pytest.raises(ValueError, match="this engine does not count states"):
        fermi_level(system, K, solver=silent)
    with pytest.raises(ValueError, match="this engine does not count states"):
        density_of_states(system, [-5.0, -4.0], K, solver=silent)


def test_bands_have_their_numbers(system):
    every = bands(system, K, reference=0.0, solver="dense")
    level = fermi_level(system, K, solver="dense")
    found = bands(system, K, reference=level, solver=SparseSolver(12))
    assert isinstance(found, BandStructure)
    assert found.reference == level
    first = found.first_band
    assert first > 0
    expected = every.energies[:, :, first : first + found.energies.shape[2]]
    there = np.isfinite(found.energies)
    assert (there.sum(axis=2) >= 12).all()
    np.testing.assert_allclose(found.energies[there], expected[there], atol=1e-8)
    assert (
        np.diff(np.nan_to_num(found.energies, posinf=1e9, neginf=-1e9), axis=2) >= 0
    ).all()  # full below, empty above
    below, above = (np.isinf(found.energies) & (side * found.energies > 0) for side in (-1, 1))
    assert expected[below].max(initial=-1e9) < level < expected[above].min(initial=1e9)


def test_bands_with_missing_states_are_drawn(system, tmp_path):
    path = band_path(system.atoms, npoints=8)
    found = bands(system, path, reference=-4.0, solver=SparseSolver(center=-4.0, window=1.0))
    assert np.isinf(found.energies).any()
    found.plot(filename=str(tmp_path / "bands.png"))
    assert (tmp_path / "bands.png").stat().st_size > 1000


def test_a_window_holds_all_of_its_states(system, monkeypatch):
    monkeypatch.setattr(windowed, "SLICE", 7)
    pencil = SparseProblem(system).pencil(K[1])
    energies = eigenvalues(system, K[1:2])[0, 0]
    for low, high in ((-8.0, -4.0), (-4.5, -4.4), (-90.0, -80.0)):
        found = states_between(pencil, low, high)
        inside = (energies >= low) & (energies < high)
        assert found.first_band == (energies < low).sum()
        np.testing.assert_allclose(found.energies, energies[inside], atol=1e-8)
        assert found.vectors.shape == (len(energies), inside.sum())


@pytest.mark.parametrize("smearing", ["gaussian", "fermi-dirac"])
def test_density_of_states_is_that_of_all_states(system, smearing):
    grid = np.linspace(-5.0, -4.0, 21)
    options = {"by": ("symbol",), "width": 0.03, "smearing": smearing}
    sparse, dense = (density_of_states(system, grid, K, solver=s, **options) for s in ("sparse", "dense"))
    assert [one.info for one in sparse] == [one.info for one in dense]
    np.testing.assert_allclose(sparse.get_all_weights(), dense.get_all_weights(), atol=1e-7)


def test_fat_bands_are_those_of_all_states(system):
    options = {"by": ("symbol", "l"), "reference": -4.5}
    some, every = (fat_bands(system, K, solver=s, **options) for s in (SparseSolver(8), "dense"))
    first, there = some.bands.first_band, np.isfinite(some.bands.energies)
    every_weight = every.weights[:, :, first : first + there.shape[2]]
    # members of a multiplet may be mixed: what a multiplet holds is the same
    energies = np.where(there, some.bands.energies, 0.0).round(4)
    for s, k in np.ndindex(*there.shape[:2]):
        for energy in np.unique(energies[s, k, there[s, k]]):
            level = there[s, k] & (energies[s, k] == energy)
            np.testing.assert_allclose(some.weights[s, k, level].sum(0), every_weight[s, k, level].sum(0), atol=1e-6)
    assert (some.weights[~there] == 0).all()


def test_unfolded_weights_are_those_of_all_states():
    system = repeated("bilayer_graphene_AB", 3, 3, 1)
    sites = SiteMap.of(system.atoms, primitive_cell(system.atoms))
    functions = [
        unfold(system, sites, K, reference=-4.0, solver=s).spectral_function(np.linspace(-4.5, -3.5, 11), width=0.02)
        for s in (SparseSolver(window=1.0), "dense")
    ]
    np.testing.assert_allclose(*functions, atol=1e-8)


def test_large_systems_take_the_sparse_solver(system, monkeypatch):
    options = {"reference": -4.0}
    assert bands(system, K[:1], **options).energies.shape[2] == system.n_orbitals
    monkeypatch.setattr(windowed, "DENSE_ORBITALS", system.n_orbitals - 1)
    found = bands(system, K[:1], **options)
    assert min(windowed.N_STATES, system.n_orbitals // 6) <= found.energies.shape[2] < system.n_orbitals


def test_k_points_over_processes_give_the_same(monkeypatch):
    system = replace(repeated("bilayer_graphene_AB", 1, 2, 1), electrons=32.0)
    monkeypatch.setattr(parallel, "START_UP", 0.0)
    one, two = (bands(system, K, reference=-4.0, solver=SparseSolver(6, processes=n)) for n in (1, 2))
    assert one.first_band == two.first_band
    np.testing.assert_array_equal(one.energies, two.energies)


def test_what_does_not_fit_in_memory_is_refused_or_done_in_single_precision(system, monkeypatch):
    options = {"reference": -4.0}
    exact = bands(system, K, solver=SparseSolver(8), **options).energies
    # of cells as small as these both take the same
    monkeypatch.setattr(SparseProblem, "cost", lambda self, *_, **__: Cost(1.0, 2000 - 1000 * self.single, 1.0))
    monkeypatch.setattr(windowed, "available_memory", lambda: 1000)
    solver = SparseSolver(8)
    np.testing.assert_allclose(bands(system, K, solver=solver, **options).energies, exact, atol=1e-7)
    assert solver.problem(system).single
    for other in (SparseSolver(8, single=False), "dense"):
        with pytest.raises(ValueError, match=r"solver: expected .* GB of free memory"):
            bands(system, K, solver=other, **options)
    monkeypatch.setattr(windowed, "available_memory", lambda: 999)
    with pytest.raises(ValueError, match="ask for fewer states"):
        bands(system, K, solver=SparseSolver(8), **options)


def test_directions_that_are_left_out_are_told_as_by_the_dense_solver(caplog):
    system = repeated("bilayer_graphene_AB", 1, 2, 1)
    twin = np.eye(13)
    twin[2:5, 5:8], twin[5:8, 5:8] = np.eye(3), 1e-3 * np.eye(3)  # the second p shell is nearly the first
    mixed = [in_basis(system, system.basis, {"C": mixing}) for mixing in (np.eye(13), twin)]
    k, w = np.array([[0.13, 0.27, 0.0]]), np.ones(1)  # of two the smallest eigenvalues may be equal
    asked = [
        lambda one, solver: bands(one, K, reference=-4.0, solver=solver),
        lambda one, solver: fermi_level(one, k, w, electrons=32.0, solver=solver),
        lambda one, solver: density_of_states(one, np.linspace(-5, -3, 11), k, w, solver=solver),
    ]
    for ask in asked:
        for one, told in zip(mixed, (0, 1), strict=True):
            messages = []
            for solver in (SparseSolver(8), "dense"):
                caplog.clear()
                ask(one, solver)
                messages.append([message for message in caplog.messages if "projected out" in message])
            assert len(messages[0]) == told
            assert messages[0] == messages[1]


def test_costs_are_told_before_it_starts(system, monkeypatch, caplog):
    monkeypatch.setattr(windowed, "WORTH_TELLING", 0.0)
    with caplog.at_level("INFO", logger="ase_hybridham.solve.windowed"):
        states = SparseSolver(8, center=-4.0)(system, K)
        assert not caplog.messages
        next(states)
    (told,) = caplog.messages
    assert f"{system.n_orbitals} orbitals, 8 states or more at 3 k-points: about" in told


def test_a_wide_density_of_states_is_that_of_lapack(system, monkeypatch):
    monkeypatch.setattr(windowed, "DENSE_ORBITALS", 10)
    assert windowed.pick_between(system, "auto", -34.5, 25.5, K, vectors=False) is None
    assert isinstance(windowed.pick_between(system, "sparse", -34.5, 25.5, K, vectors=False), SparseSolver)
    monkeypatch.setattr(windowed, "dense_cost", lambda *_, **__: Cost(1.0, 1, 1e9))
    assert isinstance(windowed.pick_between(system, "auto", -34.5, 25.5, K, vectors=False), SparseSolver)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda system: bands(system, K, solver="lapack"), "solver: expected 'auto', 'dense', 'sparse' or a function"),
        (lambda system: SparseSolver(processes=0), "expected 1 process or more"),
        (lambda system: SparseSolver(0), "expected 1 state or more, got 0"),
        (lambda system: SparseSolver(2.5), "expected 1 state or more, got 2.5"),
        (lambda system: SparseSolver(center=np.nan), "expected a center in eV, got nan"),
        (lambda system: SparseSolver(window=-1.0), "expected a window > 0 eV"),
        (lambda system: list(SparseSolver()(system, K)), "expected a center in eV"),
        (lambda system: bands(system, K, solver=SparseSolver(1000), reference=0.0), "use the dense solver"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(system, call, message):
    with pytest.raises(ValueError, match=message) as error:
        call(system)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("start", [-200.0, -5.0, 60.0])
def test_an_energy_with_so_many_states_below(system, start):
    pencil = SparseProblem(system).pencil(K[0])
    energies = eigenvalues(system, K[:1])[0, 0]
    for least, most in ((30, 34), (1, 2), (0, 0), (system.n_orbitals, system.n_orbitals)):
        energy = energy_with(pencil, least, most, start)
        assert least <= (energies < energy).sum() <= most


def test_a_multiplet_across_the_count_that_is_wanted_ends_the_search():
    class Steps:
        def count(self, energy):
            return 10 if energy > 0.3 else 4

    assert energy_with(Steps(), 6, 8, -1.0) == pytest.approx(0.3, abs=1e-5)


def test_the_first_guess_is_near_the_level(system):
    below = round(system.electrons / (1 if system.spin == "spinor" else 2))
    level = fermi_level(system, K, solver="dense")
    assert abs(local_level(system, below) - level) < 10.0


def test_bands_of_different_numbers_meet_in_their_columns():
    e = partial(np.array, dtype=float)
    energies, columns, first = rectangle([[(e([1, 2]), 5)], [(e([0, 1, 3]), 4)], [(e([]), 6)]])
    inf = np.inf
    assert first == 4
    np.testing.assert_array_equal(columns, [[1, 0, 2]])
    np.testing.assert_array_equal(energies, [[[-inf, 1, 2], [0, 1, 3], [-inf, -inf, inf]]])
    energies, _, first = rectangle([[(e([1, 2]), None)], [(e([0, 1, 3]), 4)]])
    assert first == 0
    np.testing.assert_array_equal(energies, [[[1, 2, inf], [0, 1, 3]]])
    assert rectangle([])[0].shape == (1, 0, 0)
