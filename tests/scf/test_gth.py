"""GTH bases as our nouns, and the functionals on the grid."""

import numpy as np
import pytest
from ase.build import bulk

from ase_hybridham.overlap import overlap_from_basis
from ase_hybridham.scf.gth import gth_basis, shell_occupations
from ase_hybridham.scf.potential import DensityFunctional
from ase_hybridham.solve import BlochSum, k_mesh
from ase_hybridham.system import PairList

pytest.importorskip("pyscf")


def test_the_short_basis_differs_in_the_smallest_exponent_of_carbon_only():
    plain, short = (gth_basis(name, "CN", "pbe") for name in ("gth-szv-molopt-sr", "gth-szv-molopt-sr-short"))
    assert plain["N"].shells == short["N"].shells
    for before, after in zip(plain["C"].shells, short["C"].shells, strict=True):
        assert before.radial.coefficients == after.radial.coefficients
        assert before.radial.exponents[:-1] == after.radial.exponents[:-1]
        assert before.radial.exponents[-1] == pytest.approx(0.128, abs=1e-3)
        assert after.radial.exponents[-1] == 0.20
    assert (short["C"].cutoff, short["N"].cutoff) == (3.5, 4.5)


def test_radii_of_diffuse_functions_leave_the_overlap_positive():
    """With 4.5 angstrom for lithium the smallest eigenvalue of S(k) was -4e-4; with all pairs it is 0.03."""
    crystal = bulk("LiF", "rocksalt", 4.03)
    basis = gth_basis("gth-szv-molopt-sr-short", ["Li", "F"], "lda")
    assert (basis["Li"].cutoff, basis["F"].cutoff) == (6.0, 4.5)

    def smallest(scale: float) -> float:
        radii = {z: scale * r for z, r in basis.cutoffs().items()}
        overlap = overlap_from_basis(crystal, basis, PairList.from_atoms(crystal, radii))
        return min(np.linalg.eigvalsh(s)[0] for s in BlochSum(overlap).dense(k_mesh(crystal, (4, 4, 4))[0]))

    assert smallest(1.0) == pytest.approx(smallest(1.4), abs=1e-3)
    assert smallest(1.0) > 0.025
    assert smallest(4.5 / 6) < 0


@pytest.mark.parametrize(("symbol", "degrees", "valence"), [("C", (0, 0, 1, 1, 2), 4), ("H", (0, 0, 1), 1)])
def test_every_contraction_of_a_table_is_a_shell(symbol, degrees, valence):
    atom = gth_basis("gth-dzvp-molopt-sr", [symbol], "lda")[symbol]
    assert atom.degrees == degrees
    assert atom.valence == valence


def test_free_atoms_hold_their_valence_electrons():
    for symbol in ("H", "B", "C", "S", "Mo"):
        atom = gth_basis("gth-dzvp-molopt-sr", [symbol], "pbe")[symbol]
        occupations = shell_occupations(atom, "pbe")
        assert sum(occupations) == atom.valence
        assert all(0 <= n <= 2 * shell.size for n, shell in zip(occupations, atom.shells, strict=True))


@pytest.mark.parametrize("name", ["lda,vwn", "pbe,pbe"])
def test_the_potential_is_the_derivative_of_the_energy(name):
    rng = np.random.default_rng(0)
    lattice, mesh = np.array([[6.0, 0, 0], [1.0, 5.0, 0], [0, 0.5, 7.0]]), np.array([15, 15, 16])
    functional = DensityFunctional(name, lattice, mesh)
    grid = np.stack(np.meshgrid(*(np.arange(n) / n for n in mesh), indexing="ij"), axis=-1).reshape(-1, 3)
    waves = 2 * np.pi * grid @ rng.integers(-1, 2, size=(3, 4))
    density = np.exp(np.cos(waves).sum(axis=1) * 0.4 - 2)
    change = np.cos(waves[:, 0] + 1) * density
    step = 1e-4

    def energy(of: np.ndarray) -> float:
        return of @ functional(of)[0]

    slope = (energy(density + step * change) - energy(density - step * change)) / (2 * step)
    assert abs(slope) > 1
    np.testing.assert_allclose(functional(density)[1] @ change, slope, rtol=1e-6)
