"""Density of states: sums, electrons, groups of orbitals, spin, tetrahedra, windows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ase_hybridham.io import read_system
from ase_hybridham.solve import (
    OrbitalGroups,
    bands,
    density_of_states,
    eigenvalues,
    fat_bands,
    fermi_level,
    k_mesh,
    spin_degeneracy,
    states_of,
    tetrahedron_dos,
    with_electrons,
)
from ase_hybridham.solve.occupations import smeared_delta
from ase_hybridham.solve.states import dense_states

SPINS = {
    "none": "openmx/graphene/deeph",
    "collinear": "openmx/O2_triplet_collinear/openmx.scfout.gz",
    "spinor": "openmx/Bi_bismuthene_soc/deeph",
}


@pytest.fixture(scope="module", params=SPINS)
def real(request, golden):
    """A system of OpenMX of every spin kind, and a small mesh for it."""
    system = with_electrons(read_system(golden / SPINS[request.param]))
    assert system.spin == request.param
    size = np.where(system.atoms.pbc, 3, 1) if request.param != "collinear" else (1, 1, 1)
    return system, *k_mesh(system.atoms, size, time_reversal=system.spin != "spinor")


def grid_to(system, k, level: float, width: float) -> np.ndarray:
    return np.arange(eigenvalues(system, k).min() - 12 * width, level, width / 8)


def test_integral_to_the_fermi_level_is_the_number_of_electrons(real):
    system, k, w = real
    level = fermi_level(system, k, w, width=0.3, smearing="gaussian")
    grid = np.linspace(grid_to(system, k, level, 0.3)[0], level, 4001)
    found = density_of_states(system, grid, k, w, width=0.3)
    count = np.trapezoid(found.total().get_weights(), grid)
    assert count == pytest.approx(system.electrons, abs=1e-3)  # the trapezoids end on a slope
    if system.spin == "collinear":
        up, down = (np.trapezoid(found.select(spin=spin).total().get_weights(), grid) for spin in ("up", "down"))
        assert up - down == pytest.approx(2, abs=0.01)  # the triplet of O2


def test_projections_add_up_to_the_density_of_states(real):
    system, k, w = real
    level = eigenvalues(system, k[:1]).mean()
    grid = np.linspace(level - 8, level + 8, 101)
    total = density_of_states(system, grid, k, w, width=0.3).total().get_weights()
    parts = density_of_states(system, grid, k, w, width=0.3, by=("index", "symbol", "l"))
    assert total.max() > 0.3
    np.testing.assert_allclose(parts.total().get_weights(), total, atol=1e-10)
    by_atom = parts.sum_by("index")
    assert len(by_atom) == len(system.atoms)
    np.testing.assert_allclose(sum(entry.get_weights() for entry in by_atom), total, atol=1e-10)
    shells = density_of_states(system, grid, k, w, width=0.3, by=("l",)).sum_by("l")
    for shell in parts.sum_by("l"):
        same = shells.select(l=shell.info["l"]).total()
        np.testing.assert_allclose(same.get_weights(), shell.get_weights(), atol=1e-10)


def test_populations_of_a_state_are_one_and_those_of_brute_force(make_system, crystal):
    system = make_system(crystal)
    k = np.array([[0.1, 0.2, 0.3]])
    ((states,),) = states_of(system, k)
    ((_, vectors, _),) = next(dense_states(system, k))
    S = np.zeros((len(vectors), len(vectors)), dtype=complex)  # straight from the blocks
    first = np.cumsum([0, *system.overlap.orbitals])
    for p, (i, j, R) in enumerate(zip(system.pairs.i, system.pairs.j, system.pairs.shifts, strict=True)):
        phase = np.exp(2j * np.pi * k[0] @ R)
        S[first[i] : first[i + 1], first[j] : first[j + 1]] += phase * system.overlap.block(p)
    np.testing.assert_allclose(states.dual, S @ vectors, atol=1e-12)
    groups = OrbitalGroups.of(system, ("symbol", "l"))
    assert groups.infos == tuple({"symbol": s, "l": l} for s, l in ("Cs", "Cp", "Ss", "Sd"))
    shares = groups.populations(states)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-12)
    sulfur_d = np.flatnonzero(groups.group == 3)
    assert len(sulfur_d) == 2 * 5
    expected = np.einsum("an,ab,bn->n", vectors.conj()[sulfur_d], S[sulfur_d], vectors).real
    np.testing.assert_allclose(shares[:, 3], expected, atol=1e-12)
    assert np.ptp(expected) > 0.3


def test_a_window_gives_the_same_density_inside(make_system, crystal):
    system = make_system(crystal)
    k, w = k_mesh(crystal, (2, 2, 1))
    low, high = np.quantile(eigenvalues(system, k), [0.3, 0.6])

    def window(system, k_points):
        for of_spins in dense_states(system, k_points):
            yield [(e[keep], c[:, keep]) for e, c, _ in of_spins for keep in [(e > low - 1) & (e < high + 1)]]

    grid = np.linspace(low, high, 50)
    options = {"by": ("symbol",), "width": 0.1}
    every, some = (density_of_states(system, grid, k, w, solver=s, **options) for s in ("dense", window))
    np.testing.assert_allclose(some.get_all_weights(), every.get_all_weights(), atol=1e-12)
    path = k[:3]
    fat = fat_bands(system, path, reference=0.0, solver=window)
    assert fat.weights.shape[2] < system.n_orbitals
    found = np.isfinite(fat.bands.energies)
    np.testing.assert_allclose(fat.weights.sum(axis=-1), found, atol=1e-12)  # none where there is no state


def test_fat_bands_are_the_bands_with_the_parts_of_the_density(make_system, crystal):
    system = make_system(crystal)
    k, w = k_mesh(crystal, (2, 1, 2))
    words = ["below", "below", "above", "above"]
    fat = fat_bands(system, k, by=["layer"], labels={"layer": words}, reference=0.4)
    plain = bands(system, k, reference=0.4)
    np.testing.assert_allclose(fat.bands.energies, plain.energies, atol=1e-10)
    assert (fat.bands.reference, fat.infos) == (0.4, ({"layer": "below"}, {"layer": "above"}))
    grid = np.linspace(-5, 5, 40)
    spectrum = fat.spectral_function(grid, width=0.2, smearing="fermi-dirac")
    assert spectrum.shape == (1, len(k), 2, 40)
    dos = density_of_states(
        system, grid, k, w, by=["index"], labels={"layer": words}, width=0.2, smearing="fermi-dirac"
    )
    below = dos[0].get_weights() + dos[1].get_weights()
    np.testing.assert_allclose(spin_degeneracy(system) * np.einsum("k,ke->e", w, spectrum[0, :, 0]), below, atol=1e-12)


@pytest.mark.parametrize("by", [(), ("symbol", "l")])
def test_tetrahedra_give_the_electrons_and_the_shape_of_graphene(make_graphene, by):
    system = make_graphene(-2.7, 0.1)
    grid = np.linspace(-9, 14, 300)
    found = tetrahedron_dos(system, grid, (13, 13, 1), by=by).total().get_weights()
    assert np.trapezoid(found, grid) == pytest.approx(4, abs=0.04)  # a flat tetrahedron lies between two energies
    assert found[np.abs(grid) < 0.2].max() < 0.05 < found.max()  # the Dirac point
    assert abs(grid[np.argmax(found * (grid < 0))] - -2.7 / 1.1) < 0.3  # van Hove
    smeared = density_of_states(system, grid, density=30, width=0.4).total().get_weights()
    assert np.abs(smeared - found).mean() < 0.03 * found.max()


@given(st.floats(0.01, 2), st.sampled_from(["gaussian", "fermi-dirac"]), st.floats(-3, 3))
@settings(max_examples=30, deadline=None)
def test_smeared_delta_is_the_slope_of_the_occupations(width, smearing, at):
    from ase_hybridham.solve import occupations

    x, h = at + width * np.linspace(-4, 4, 33), 1e-4 * width
    slope = [occupations([at], x + step, width=width, smearing=smearing) for step in (h, -h)]
    expected = (slope[0] - slope[1]) / (2 * h)
    np.testing.assert_allclose(smeared_delta(x, at, width=width, smearing=smearing), expected, atol=1e-5 / width)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"energies": [0.0, 1.0, 3.0]}, "evenly spaced grid; numpy.linspace makes one"),
        ({"energies": [1.0]}, "two finite numbers or more"),
        ({"energies": [0.0, np.nan]}, "two finite numbers or more"),
        ({"by": ["shell"]}, "a list of index, symbol, l, got"),
        ({"by": "symbol"}, "a list of index, symbol, l, got"),
        ({"labels": {"layer": ["1"]}}, "expected 2 words of 'layer', one an atom, got 1"),
        ({"width": 0.0}, "expected a width > 0 eV, got 0.0"),
        ({"smearing": "lorentz"}, "expected 'fermi-dirac' or 'gaussian', got 'lorentz'"),
    ],
)
def test_what_makes_no_sense_is_refused(make_graphene, options, message):
    arguments = {"energies": np.linspace(0, 1, 5), "density": 1.0} | options
    with pytest.raises(ValueError, match=message):
        density_of_states(make_graphene(-2.7, 0.1), **arguments)
