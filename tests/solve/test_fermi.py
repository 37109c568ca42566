"""Fermi level and electron counts: closed forms, inverse operations, meshes."""

import numpy as np
import pytest
from ase import Atoms

from ase_hybridham.solve import (
    count_electrons,
    eigenvalues,
    electrons_of,
    fermi_level,
    find_fermi_level,
    gamma_mesh,
    k_mesh,
    occupations,
)
from ase_hybridham.system import LCAOSystem


def test_level_of_a_flat_density_of_states_is_its_filled_fraction():
    energies = np.linspace(-2, 2, 4001).reshape(1, -1, 1)
    weights = np.full(4001, 1 / 4001)
    for smearing in ("fermi-dirac", "gaussian"):
        level = find_fermi_level(energies, weights, 0.5, 2, width=0.02, smearing=smearing)
        assert level == pytest.approx(-1.0, abs=1e-3)  # a quarter of the states; the spacing is 1e-3


@pytest.mark.parametrize("width", [0.0, 0.025, 0.1])
def test_level_of_an_insulator_is_in_the_middle_of_its_gap(width):
    energies = np.array([[[-5.0, -1.0, 3.0, 7.0], [-5.5, -1.5, 3.5, 6.0]]])
    assert find_fermi_level(energies, [0.5, 0.5], 4, 2, width=width) == pytest.approx(1.0, abs=1e-3)


def test_level_of_graphene_is_the_dirac_point_and_moves_with_charge(make_graphene):
    system = make_graphene(-2.7, None)
    assert fermi_level(system) == pytest.approx(0.0, abs=1e-6)
    assert fermi_level(system, electrons=2.1) > 0.1
    assert fermi_level(system, electrons=1.9) == pytest.approx(-fermi_level(system, electrons=2.1), abs=1e-6)


@pytest.mark.parametrize("smearing", ["fermi-dirac", "gaussian"])
def test_counting_up_to_the_level_gives_the_electrons_back(make_system, crystal, smearing):
    system = make_system(crystal)
    options = {"density": 1.5, "width": 0.1, "smearing": smearing}
    for electrons in (7.3, 12.0, 21.9):
        level = fermi_level(system, electrons=electrons, **options)
        assert count_electrons(system, level, **options) == pytest.approx(electrons, abs=1e-7)


def test_spin_kinds_hold_the_same_electrons(make_system, crystal):
    system = make_system(crystal)
    h, s = system.hamiltonian[0], system.overlap
    collinear = LCAOSystem(crystal, (h, h), s, spin="collinear")
    spinor = LCAOSystem(crystal, (h.to_spinor(),), s, spin="spinor")
    expected = fermi_level(system, density=1.5, electrons=20)
    assert fermi_level(collinear, density=1.5, electrons=20) == pytest.approx(expected, abs=1e-8)
    assert fermi_level(spinor, density=1.5, electrons=20) == pytest.approx(expected, abs=1e-8)


def test_electrons_come_from_the_argument_the_system_or_neutral_atoms(make_system, crystal):
    system = make_system(crystal)
    assert electrons_of(system) == 20  # two C, two S
    assert electrons_of(LCAOSystem(crystal, system.hamiltonian, electrons=19.0)) == 19
    assert electrons_of(system, 18) == 18


def test_unknown_or_impossible_electrons_are_errors(make_graphene):
    system = make_graphene(-2.7, None)
    with pytest.raises(ValueError, match=r"expected 0 to 4, .* got 5"):
        fermi_level(system, electrons=5)
    object.__setattr__(system.basis.atoms["C"], "valence", None)
    with pytest.raises(ValueError, match="valence of C is unknown"):
        fermi_level(system)
    with pytest.raises(ValueError, match="no Fermi level"):
        count_electrons(system)


def test_full_and_empty_bands_have_a_level_above_and_below_all_states():
    energies = np.array([[[-1.0, 1.0]]])
    assert find_fermi_level(energies, [1.0], 4, 2) > 1.0
    assert find_fermi_level(energies, [1.0], 0, 2) < -1.0


def test_occupations_are_one_half_at_the_level_and_symmetric_around_it():
    energies = np.linspace(-1, 1, 11)
    for smearing in ("fermi-dirac", "gaussian"):
        f = occupations(energies, 0.0, width=0.1, smearing=smearing)
        np.testing.assert_allclose(f + f[::-1], 1.0, atol=1e-14)
        assert f[5] == 0.5
        assert (np.diff(f) <= 0).all()
    np.testing.assert_array_equal(occupations(energies, 0.0, width=0), [1] * 5 + [0.5] + [0] * 5)
    with pytest.raises(ValueError, match="width >= 0"):
        occupations(energies, 0.0, width=-1)
    with pytest.raises(ValueError, match="smearing"):
        occupations(energies, 0.0, smearing="cold")


@pytest.mark.parametrize("size", [(4, 4, 1), (3, 5, 1), (4, 3, 2), (1, 1, 1), (2, 2, 2)])
def test_half_the_mesh_gives_the_sums_of_the_whole(make_system, crystal, size):
    system = make_system(crystal)
    whole, half = k_mesh(crystal, size, time_reversal=False), k_mesh(crystal, size)
    assert len(half[0]) <= len(whole[0]) // 2 + 4
    assert (np.abs(whole[0]).max(axis=1) < 1e-12).any()  # Gamma
    sums = [np.einsum("skn,k->n", eigenvalues(system, k) ** 2, w) for k, w in (whole, half)]
    np.testing.assert_allclose(sums[0], sums[1], atol=1e-12)
    assert half[1].sum() == pytest.approx(1)


def test_mesh_follows_density_and_periodicity():
    slab = Atoms("C", cell=[2.0, 4.0, 30.0], pbc=(True, True, False))
    k, _ = k_mesh(slab, density=3.0, time_reversal=False)
    assert len(np.unique(np.round(k[:, 0], 9))) == 2 * len(np.unique(np.round(k[:, 1], 9))) == 10
    assert not k[:, 2].any()
    for bad in ((0, 1, 1), (2, 2), (1.5, 1, 1)):
        with pytest.raises(ValueError, match="three positive integers"):
            k_mesh(slab, bad)
    with pytest.raises(ValueError, match="density > 0"):
        k_mesh(slab, density=0)


def test_weights_that_do_not_belong_to_the_k_points_are_refused(make_graphene):
    with pytest.raises(ValueError, match="weights: expected 2"):
        fermi_level(make_graphene(-2.7, None), [[0, 0, 0], [0.5, 0, 0]], [1.0])


@pytest.mark.parametrize("angle", [60.0, 120.0])
def test_coarse_meshes_of_hexagonal_cells_hold_the_corners(angle):
    for length in (100.0, 30.0, 17.0, 12.0, 4.0):
        cell = Atoms("C", cell=[length, length, 20.0, 90.0, 90.0, angle], pbc=(True, True, False))
        k, _ = k_mesh(cell, corners=True, time_reversal=False)
        corners = (
            [[1 / 3, 1 / 3, 0.0], [2 / 3, 2 / 3, 0.0]] if angle == 120 else [[1 / 3, 2 / 3, 0.0], [2 / 3, 1 / 3, 0.0]]
        )
        for corner in corners:
            off = k - corner
            nearest = np.abs(off - np.rint(off)).max(axis=1).min()
            assert nearest < 1e-12 or len(k) >= 36
    square = Atoms("C", cell=[30.0, 30.0, 20.0], pbc=(True, True, False))
    assert len(k_mesh(square, corners=True, time_reversal=False)[0]) == 4


@pytest.mark.parametrize("mesh", [(4, 4, 1), (5, 3, 2), (1, 1, 1)])
def test_mesh_and_weights_sum_as_the_whole_mesh(mesh):
    k_points, weights = gamma_mesh(mesh)
    shifts = np.random.default_rng(0).integers(-9, 9, size=(50, 3))
    shifts[0] = 0
    shifts[1] = mesh
    sums = np.cos(2 * np.pi * shifts @ k_points.T) @ weights
    np.testing.assert_allclose(sums, (shifts % mesh == 0).all(axis=1), atol=1e-12)
    assert len(k_points) <= np.prod(mesh) // 2 + 4
