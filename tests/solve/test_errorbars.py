"""Error bars of bands: what small changes of H do to levels, against solving again."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.stats import unitary_group

from ase_hybridham.io import read_system
from ase_hybridham.solve import BandErrors, SparseSolver, band_errors, bands, eigenvalues
from ase_hybridham.solve.errorbars import NEAR, level_shifts
from ase_hybridham.symmetry import rotate_system
from ase_hybridham.system import LCAOSystem, PairBlocks

# general, Gamma and K, where levels are degenerate by symmetry
K = np.array([[0.13, 0.27, 0.0], [0.0, 0.0, 0.0], [1 / 3, 1 / 3, 0.0]])
SAMPLES = ["bilayer_graphene_AB", "MoS2_monolayer", "Bi_bismuthene_soc"]


def sample(golden, name: str) -> LCAOSystem:
    return read_system(golden / "openmx" / name / "deeph")


def noise(system: LCAOSystem, seed: int, size: float) -> PairBlocks:
    """Hermitian, shorter than H, of both signs."""
    h, rng = system.hamiltonian[0], np.random.default_rng(seed)
    values = rng.normal(size=len(h.values)) + (1j * rng.normal(size=len(h.values)) if h.spinor else 0.0)
    decay = np.repeat(np.exp(-h.pairs.distances), np.diff(h.offsets))
    return h.with_values(size * values * decay).hermitian_part()


def both_signs(dh: PairBlocks) -> list[tuple[PairBlocks]]:
    return [(dh,), (-1.0 * dh,)]


@pytest.mark.parametrize("name", SAMPLES)
def test_levels_move_as_those_of_the_changed_hamiltonian(golden, name):
    """To first order: the rest goes with the square of dH, also where levels are degenerate."""
    system = sample(golden, name)
    h, before = system.hamiltonian[0], eigenvalues(system, K)
    low = before < system.fermi_level + 5  # above, where S(k) is nearly singular, dH of 1e-4 eV moves levels by 0.1
    rest = {}
    for size in (1e-4, 1e-5):
        dh = noise(system, 3, size)
        found = band_errors(system, K, both_signs(dh))
        np.testing.assert_allclose(found.bands.energies, before, atol=1e-9)
        for sign, moved in zip((1, -1), found.shifts, strict=True):
            exact = eigenvalues(replace(system, hamiltonian=(h + sign * dh,)), K) - before
            exact, shifts = exact[low], moved[low]
            assert np.abs(exact).max() > 0.5 * size
            rest[size, sign] = np.abs(shifts - exact).max()
            assert rest[size, sign] < 0.02 * np.abs(exact).max()
        # two samples of opposite sign: the deviation of each is that of one of them by sqrt(2)
        np.testing.assert_allclose(found.widths, np.sqrt((found.shifts**2).sum(axis=0)), atol=1e-15)
    assert rest[1e-5, 1] < 0.02 * rest[1e-4, 1]


@pytest.mark.parametrize("seed", range(5))
def test_degenerate_levels_do_not_ask_which_basis_a_solver_chose(seed):
    rng = np.random.default_rng(seed)
    energies = np.repeat(np.cumsum(rng.uniform(5 * NEAR, 1, size=4)), [1, 2, 3, 2])
    dh = rng.normal(size=(8, 8)) + 1j * rng.normal(size=(8, 8))
    dh = 1e-3 * (dh + dh.conj().T)
    other = np.zeros((8, 8), dtype=complex)
    for start, end in ((0, 1), (1, 3), (3, 6), (6, 8)):
        n = end - start
        other[start:end, start:end] = unitary_group.rvs(n, random_state=seed) if n > 1 else 1j
    turned = other.conj().T @ dh @ other
    assert np.abs(np.diag(turned) - np.diag(dh)).max() > 1e-4
    found = level_shifts(energies, dh)
    np.testing.assert_allclose(level_shifts(energies, turned), found, atol=1e-13)
    exact = np.linalg.eigvalsh(np.diag(energies) + dh) - energies
    np.testing.assert_allclose(found, exact, atol=1e-3)
    assert np.abs(found).max() > 1e-3
    assert found.sum() == pytest.approx(np.trace(dh).real)


@pytest.mark.parametrize("name", ["bilayer_graphene_AB", "Bi_bismuthene_soc"])
def test_a_turned_system_has_the_same_error_bars(golden, name):
    system, turn = sample(golden, name), Rotation.from_rotvec([0.3, -0.7, 1.1]).as_matrix()
    dh = noise(system, 1, 1e-3)
    of_noise = rotate_system(replace(system, hamiltonian=(dh,)), turn).hamiltonian[0]
    found = [
        band_errors(one, K, both_signs(change), reference=0.0).widths
        for one, change in ((system, dh), (rotate_system(system, turn), of_noise))
    ]
    np.testing.assert_allclose(*found, atol=1e-9)
    assert found[0].max() > 1e-3


def test_no_doubt_no_width_and_a_common_shift_is_none(golden):
    system = sample(golden, "MoS2_monolayer")
    none = band_errors(system, K, both_signs(0.0 * system.hamiltonian[0]))
    assert not none.widths.any()
    shift = 5e-3 * system.overlap
    found = band_errors(system, K, both_signs(shift))
    np.testing.assert_allclose(found.shifts[0], 5e-3, atol=1e-12)
    np.testing.assert_allclose(found.widths, 5e-3 * np.sqrt(2), atol=1e-12)
    np.testing.assert_allclose(found.aligned(3.0).widths, 0.0, atol=1e-12)
    # what is left is what the rest says
    rest = noise(system, 2, 1e-3)
    both, alone = (band_errors(system, K, both_signs(dh)).aligned(3.0) for dh in (rest + shift, rest))
    np.testing.assert_allclose(both.shifts, alone.shifts, atol=1e-6)  # eigenvalues of groups are not linear
    near = np.abs(alone.bands.energies - alone.bands.reference) <= 3.0
    assert np.abs(alone.shifts[:, near].mean(axis=1)).max() < 1e-12 < np.abs(alone.shifts).max()


@pytest.mark.parametrize("name", SAMPLES)
def test_states_of_a_window_have_the_widths_of_all_states(golden, name):
    system, solver = sample(golden, name), SparseSolver(8)
    changes = both_signs(noise(system, 5, 1e-3))
    all_of, some = (band_errors(system, K, changes, solver=s, reference=-4.0) for s in ("dense", solver))
    found = np.isfinite(some.bands.energies)
    assert 3 * 8 <= found.sum() < all_of.bands.energies.size / 2
    assert not some.widths[~found].any()
    first = some.bands.first_band
    beside = all_of.widths[:, :, first : first + found.shape[2]]
    inside = np.zeros_like(found)  # groups at the ends of the window may go on outside of it
    inside[..., 1:-1] = found[..., 1:-1] & found[..., :-2] & found[..., 2:]
    near = np.abs(some.widths - beside)[inside]
    assert np.median(near) < 1e-8
    assert near.max() < 0.2 * beside.max()


def test_up_and_down_move_by_their_own_changes(golden):
    one = sample(golden, "graphene")
    h = one.hamiltonian[0]
    system = replace(one, hamiltonian=(h, 1.01 * h), spin="collinear")
    up, down = noise(one, 1, 1e-3), noise(one, 2, 1e-3)
    found = band_errors(system, K, [(up, down), (-1.0 * up, -1.0 * down)], reference=0.0)
    assert found.widths.shape == found.bands.energies.shape == (2, 3, one.n_orbitals)
    for spin, (operator, change) in enumerate(((h, up), (1.01 * h, down))):
        alone = band_errors(replace(one, hamiltonian=(operator,)), K, both_signs(change), reference=0.0)
        np.testing.assert_allclose(found.widths[spin], alone.widths[0], atol=1e-12)


def test_bands_are_those_without_error_bars(golden):
    system = sample(golden, "graphene")
    found, plain = band_errors(system, K, both_signs(noise(system, 0, 1e-3))), bands(system, K)
    assert isinstance(found, BandErrors)
    np.testing.assert_allclose(found.bands.energies, plain.energies, atol=1e-9)
    assert found.bands.reference == plain.reference


def test_what_does_not_fit_is_refused_in_a_line(golden):
    system, other = sample(golden, "graphene"), sample(golden, "bilayer_graphene_AB")
    h = system.hamiltonian[0]
    with pytest.raises(ValueError, match="two samples of dH or more, got 1"):
        band_errors(system, K, [(h,)])
    with pytest.raises(ValueError, match="expected 1 finite"):
        band_errors(system, K, [(h, h), (h, h)])
    with pytest.raises(ValueError, match="expected 1 finite"):
        band_errors(system, K, [(h,), (np.inf * h,)])
    with pytest.raises(ValueError, match="same pairs"):
        band_errors(system, K, both_signs(other.hamiltonian[0]))
    with pytest.raises(ValueError, match="a state within 1e-09 eV"):
        band_errors(system, K, both_signs(h), reference=100.0).aligned(1e-9)
