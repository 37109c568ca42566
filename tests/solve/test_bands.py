"""Paths, band structures and their errors."""

import numpy as np
import pytest
from ase import Atoms

from ase_hybridham.solve import Bands, band_error, band_path, bands


def test_path_of_a_layer_stays_in_its_plane(make_graphene):
    system = make_graphene(-2.7, 0.1)
    path = band_path(system.atoms, "GMKG", npoints=31)
    assert len(path.kpts) == 31
    assert not path.kpts[:, 2].any()
    structure = bands(system, path)
    x, _, labels = structure.get_labels()
    assert structure.energies.shape == (1, 31, 2)
    assert labels == ["G", "M", "K", "G"]
    assert structure.reference == pytest.approx(0.0, abs=1e-6)  # the Dirac point, from the electron count
    at_K = int(np.argmin(np.abs(x - structure.get_labels()[1][2])))
    np.testing.assert_allclose(structure.energies[0, at_K], 0.0, atol=0.1)


def test_default_path_is_the_standard_one_and_k_points_serve_as_well(make_graphene):
    system = make_graphene(-2.7, None)
    path = band_path(system.atoms, npoints=20)
    structure = bands(system, path.kpts, reference=1.5)
    np.testing.assert_array_equal(structure.energies, bands(system, path).energies)
    assert structure.reference == 1.5


def test_molecule_has_one_k_point():
    path = band_path(Atoms("CO", [[0, 0, 0], [0, 0, 1.1]]))
    np.testing.assert_array_equal(path.kpts, [[0, 0, 0]])


def test_unknown_special_point_is_named(make_graphene):
    with pytest.raises(ValueError, match="expected a path through the special points G, K, M, got 'GXW'"):
        band_path(make_graphene(-2.7, None).atoms, "GXW")


def test_strained_layer_knows_the_points_of_the_hexagonal_one(make_graphene):
    atoms = make_graphene(-2.7, None).atoms
    exact = band_path(atoms, "GMK").special_points["K"]
    strained = np.array([[1.01, 0.004, 0], [0, 0.994, 0], [0, 0, 1]])
    atoms.set_cell(atoms.cell.array @ strained)
    np.testing.assert_allclose(band_path(atoms, "GMK").special_points["K"], exact)


def rigid_bands() -> np.ndarray:
    x = np.linspace(0, 1, 11)
    return np.stack([-2 + x, 1 + x**2, 3 - x], axis=1)[None]


def test_error_of_a_rigid_shift_vanishes_when_aligned():
    reference = rigid_bands()
    error = band_error(reference, reference + 0.2, reference_level=0.0, predicted_level=0.2)
    assert (error.max, error.mean) == (pytest.approx(0.2), pytest.approx(0.2))
    assert error.aligned_max == pytest.approx(0, abs=1e-12)
    assert error.aligned[2] == "valence maximum"
    assert error.n_states == 33


def test_gapped_bands_align_wherever_the_levels_are_in_their_gaps():
    reference = rigid_bands()
    error = band_error(reference, reference + 0.2, reference_level=-0.9, predicted_level=1.1)
    assert error.valence_max == pytest.approx(0, abs=1e-12)
    assert error.aligned == (error.valence_max, error.valence_mean, "valence maximum")
    assert error.aligned_mean == pytest.approx(1.8)  # Fermi levels in gaps say little


def test_metallic_bands_align_at_their_fermi_levels():
    reference = rigid_bands()
    error = band_error(reference, reference + 0.2, reference_level=1.5, predicted_level=1.75)
    assert error.valence_max is error.valence_mean is None
    assert error.aligned == (error.aligned_max, error.aligned_mean, "fermi level")
    assert error.aligned_mean == pytest.approx(0.05)


def test_a_gap_too_small_to_mean_anything_does_not_decide_the_alignment():
    reference = np.broadcast_to([-1.0, -0.98, 2.0], (1, 11, 3))
    error = band_error(reference, reference + 0.2, reference_level=-0.99, predicted_level=-0.74)
    assert error.aligned[2] == "fermi level"


def test_window_counts_the_references_states_around_its_level():
    reference = rigid_bands()
    predicted = reference.copy()
    predicted[0, :, 2] -= 1.5  # a band outside is wrong, and comes inside
    error = band_error(reference, predicted, reference_level=0.0, predicted_level=0.0, window=1.95)
    assert error.max == 0.0
    assert error.n_states == np.count_nonzero(np.abs(reference) <= 1.95) < 33
    with pytest.raises(ValueError, match="window: no state"):
        band_error(reference, predicted, reference_level=0.0, predicted_level=0.0, window=0.1)


def test_bands_of_another_shape_are_refused():
    reference = rigid_bands()
    with pytest.raises(ValueError, match="expected as many spins"):
        band_error(reference, reference[:, :, :2], reference_level=0.0, predicted_level=0.0)


def test_bands_without_their_reference_keep_their_numbers(make_graphene):
    path = band_path(make_graphene(-2.7, None).atoms, "GK", npoints=2)
    found = Bands(path, np.array([[[-np.inf, 1.0], [0.5, np.inf]]]), 0.5, 7).subtract_reference()
    assert (found.first_band, found.reference) == (7, 0.0)
    np.testing.assert_array_equal(found.energies, [[[-np.inf, 0.5], [0.0, np.inf]]])
