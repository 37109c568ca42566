"""Fermi level and gap against closed forms: a chain of two levels."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms

from ase_hybridham.solve import eigenvalues, fermi_level
from ase_hybridham.system import AtomBasis, Basis, LCAOSystem, PairBlocks, PairList
from ase_hybridham.train.spectra import DENSITY, ReferenceSpectrum
from tests.train.synthetic import atoms_of, system_of

CHAIN = Basis.of(AtomBasis.from_degrees("H", [0], valence=1, cutoff=0.6))


def chain(gap: float, hopping: float = 0.5, center: float = -2.0) -> LCAOSystem:
    """Two levels per cell with equal hoppings to both neighbors: the gap is that of the levels, at the zone's edge."""
    atoms = Atoms("HH", [(0, 0, 0), (1, 0, 0)], cell=(2, 9, 9), pbc=(True, False, False))
    pairs = PairList.from_atoms(atoms, CHAIN.cutoffs())
    h, s = PairBlocks.zeros(pairs, CHAIN), PairBlocks.zeros(pairs, CHAIN)
    h.values[pairs.n_atoms :] = hopping
    h.values[: pairs.n_atoms] = center - gap / 2, center + gap / 2
    s.values[: pairs.n_atoms] = 1.0
    return LCAOSystem(atoms, (h,), s, electrons=2.0)


def test_gap_and_fermi_level_of_a_chain():
    reference = ReferenceSpectrum.of(chain(0.8))
    assert reference.level == pytest.approx(-2.0)
    _, level = reference.errors(chain(0.5, center=-1.9).hamiltonian, 3.0)
    assert level.reference_gap == pytest.approx(0.8, abs=1e-6)
    assert level.gap == pytest.approx(0.5, abs=1e-6)
    assert level.fermi == pytest.approx(0.1)
    assert set(level.to_dict()) == {"fermi_eV", "gap_eV", "reference_gap_eV"}


def test_a_metal_has_no_gap():
    _, level = ReferenceSpectrum.of(chain(0.0)).errors(chain(0.3).hamiltonian, 3.0)
    assert (level.gap, level.reference_gap) == (None, None)


def test_a_gap_that_only_the_mesh_sees_is_none():
    """Bands that meet between the k-points of the mesh: the nearest of them lies in one half of the points."""
    gapless = chain(0.0)
    reference = ReferenceSpectrum.of(gapless, np.zeros((1, 3)))
    away = reference.mesh[np.abs(np.abs(reference.mesh[:, 0]) - 0.5) > 1e-6]
    energies, n = -2 + np.array([-1, 1]) * np.cos(np.pi * away[:, :1]), len(away)
    partial = replace(reference, mesh=away, path=away[:0], weights=np.full(n, 1 / n), energies=energies[None])
    assert np.ptp(energies, axis=1).min() > 0.05
    assert partial._gaps(energies[None]) == (None, None)


def test_bands_that_overlap_are_a_negative_gap():
    """Two bands of width 1.6 eV, 1.5 eV apart at every k-point, where the reference has two levels."""
    flat = chain(1.5, hopping=0.0)
    wide = Basis.of(AtomBasis.from_degrees("H", [0], valence=1, cutoff=1.1))  # own images are 2 angstrom away
    pairs = PairList.from_atoms(flat.atoms, wide.cutoffs())
    h, s = (operator.on_pairs(pairs) for operator in (flat.hamiltonian[0], flat.overlap))
    dispersed = h.with_values(np.where(np.isclose(pairs.distances, 2.0), 0.4, h.values))
    reference = ReferenceSpectrum.of(replace(flat, hamiltonian=(h,), overlap=s))
    _, level = reference.errors((dispersed,), 3.0)
    assert level.reference_gap == pytest.approx(1.5)
    assert level.gap == pytest.approx(-0.1, abs=1e-6)


def test_the_level_is_that_of_the_solver():
    system = system_of(atoms_of(2))
    reference = ReferenceSpectrum.of(system)
    assert reference.level == fermi_level(system, density=DENSITY)
    assert len(reference.path) == 24
    assert len(ReferenceSpectrum.of(system, np.zeros((1, 3))).path) == 1


def test_a_shift_of_all_levels_is_a_shift_of_the_fermi_level():
    system = system_of(atoms_of(2))
    shifted = system.hamiltonian[0] + 0.2 * system.overlap
    bands, level = ReferenceSpectrum.of(system).errors((shifted,), 3.0)
    assert level.fermi == pytest.approx(0.2, abs=1e-6)
    assert bands.mean == pytest.approx(0.2, abs=1e-6)
    assert bands.aligned[1] < 1e-6


def test_whether_the_window_holds_a_state():
    reference = ReferenceSpectrum.of(chain(0.8))
    assert reference.has_states(0.5)
    assert not replace(reference, level=100.0).has_states(0.5)


def test_error_bars_of_a_chain():
    """Members have gaps of 0.7 and 0.9 eV, the reference one of 0.6."""
    reference = ReferenceSpectrum.of(chain(0.6))
    found = reference.spread([chain(gap).hamiltonian for gap in (0.7, 0.9)], 3.0)
    slope = eigenvalues(chain(0.801), reference.path) - eigenvalues(chain(0.799), reference.path)
    np.testing.assert_allclose(found.widths, 1e3 * np.abs(slope.ravel()) * 50 * np.sqrt(2), rtol=1e-4)
    errors = eigenvalues(chain(0.8), reference.path) - eigenvalues(chain(0.6), reference.path)
    np.testing.assert_allclose(found.errors, 1e3 * errors.ravel(), atol=1e-6)  # up as much as down
    assert found.widths.max() > 50
    moved = [chain(0.8, center=center).hamiltonian for center in (-1.9, -1.8)]  # both alike, as all levels
    np.testing.assert_allclose(reference.spread(moved, 3.0).widths, 0.0, atol=1e-6)
    np.testing.assert_allclose(reference.spread(moved, 3.0).errors, found.errors, atol=1e-6)
    assert reference.spread(moved[:1], 3.0) is None
