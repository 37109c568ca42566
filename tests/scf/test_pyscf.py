"""The embedded engine: against PySCF's own driver, under every change that must not matter, and its refusals."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import graphene
from ase.calculators.calculator import SCFError
from ase.units import Hartree
from scipy.spatial.transform import Rotation

from ase_hybridham.scf import Engine, PySCFEngine
from ase_hybridham.solve import eigenvalues
from ase_hybridham.symmetry import rotate_blocks
from ase_hybridham.system import AtomBasis, Basis, LCAOSystem, PairList

pytest.importorskip("pyscf")

K_POINTS = np.array([[0.11, 0.23, 0.0], [0.41, -0.17, 0.0], [1 / 3, 1 / 3, 0.0]])
# A coarse grid: what is compared shares it. 1 meV is the egg-box noise of a much finer one.
FAST = PySCFEngine(mesh=(20, 20, 90), kpts=(2, 2, 1), conv_tol=1e-6)


def layer(symbols: str = "CC", height: float = 12.0, seed: int = 0) -> Atoms:
    atoms = graphene(symbols, a=2.46)
    atoms.cell[2] = [0, 0, height]
    atoms.pbc = (True, True, False)
    atoms.rattle(0.04, seed=seed)
    return atoms


@pytest.fixture(scope="module")
def system() -> LCAOSystem:
    return FAST.run(layer())


def difference(first: LCAOSystem, second: LCAOSystem) -> np.ndarray:
    """Differences of the elements of H in eV."""
    return first.hamiltonian[0].values - second.hamiltonian[0].values


@pytest.mark.parametrize("xc", ["lda", "pbe"])
def test_eigenvalues_off_the_mesh_are_those_of_the_multigrid_driver(xc):
    from pyscf.pbc import dft

    # so warm that the entropy counts
    engine = replace(FAST, xc=xc, mesh=(24, 24, 80), potential_reference="cell_average", smearing=0.8)
    atoms = layer(height=9.0)
    ours = engine.run(atoms)
    cell = engine.pyscf_cell(atoms)
    driver = dft.KRKS(cell, cell.make_kpts([2, 2, 1]), xc={"lda": "lda,vwn", "pbe": "pbe,pbe"}[xc])
    driver = driver.multigrid_numint().smearing(sigma=engine.smearing / Hartree, method="fermi")
    driver.verbose, driver.conv_tol = 0, 1e-6
    driver.kernel()
    driver._chkfile.close()
    assert driver.converged
    theirs = np.array(driver.get_bands(cell.get_abs_kpts(K_POINTS))[0]) * Hartree
    np.testing.assert_allclose(eigenvalues(ours, K_POINTS)[0], theirs, atol=2e-4)
    np.testing.assert_allclose(ours.provenance["free_energy_eV"], driver.e_free * Hartree, atol=1e-3)


def test_the_engine_is_an_engine(system):
    assert isinstance(FAST, Engine)
    assert system.electrons == 8
    assert system.basis == FAST.basis_for(["C"])
    assert system.provenance["grid"] == [20, 20, 90]
    assert system.provenance["one_shot_k_mesh"] == [7, 7, 1]
    assert system.potential_reference == "vacuum"


def test_every_hopping_within_the_range_is_there_and_h_is_hermitian(system):
    assert system.pairs.same_pairs(PairList.from_atoms(layer(), 7.0))
    assert system.hamiltonian[0].hermiticity_error() == 0
    assert np.abs(system.hamiltonian[0].values).max() > 1


def test_a_denser_one_shot_mesh_changes_nothing(system):
    # what the shortest mesh mixes in lies beyond 7 angstrom, where hoppings are < 1e-7 eV
    assert np.abs(difference(replace(FAST, one_shot=(10, 10, 1)).run(layer()), system)).max() < 1e-6


def test_order_of_atoms_and_lattice_translations_change_nothing(system):
    atoms, order = layer()[[1, 0]], np.array([1, 0])
    moved = np.array([[2, -1, 0], [0, 3, 0]])
    atoms.positions += moved @ atoms.cell.array
    atoms.positions += [0, 0, 4.5]  # out of the cell, along the normal
    other = FAST.run(atoms)
    pairs = system.pairs
    i, j = order[pairs.i], order[pairs.j]
    again, place = PairList.sorted_from_indices(atoms, i, j, pairs.shifts + moved[i] - moved[j])
    assert again.same_pairs(other.pairs)
    blocks = np.concatenate([other.hamiltonian[0].block(p).ravel() for p in place])
    np.testing.assert_allclose(blocks, system.hamiltonian[0].values, atol=1e-6)
    assert other.fermi_level == pytest.approx(system.fermi_level, abs=1e-6)


@pytest.mark.parametrize("seed", range(2))
def test_h_turns_with_the_crystal(system, seed):
    rotation = Rotation.random(random_state=seed).as_matrix()
    atoms = layer()
    turned = Atoms(atoms.numbers, atoms.positions @ rotation.T, cell=atoms.cell.array @ rotation.T, pbc=atoms.pbc)
    after = FAST.run(turned).hamiltonian[0].values
    assert np.abs(after - system.hamiltonian[0].values).max() > 0.1
    np.testing.assert_allclose(after, rotate_blocks(system.hamiltonian[0], rotation).values, atol=1e-6)


@pytest.mark.parametrize("axes", [(0, 2, 1), (2, 1, 0), (1, 0, 2)])
def test_the_order_of_the_cell_vectors_changes_nothing(system, axes):
    atoms = layer()
    atoms.set_cell(atoms.cell.array[list(axes)])
    atoms.pbc = atoms.pbc[list(axes)]
    engine = replace(FAST, mesh=[FAST.mesh[a] for a in axes], kpts=[FAST.kpts[a] for a in axes])
    other = engine.run(atoms)
    np.testing.assert_allclose(eigenvalues(other, K_POINTS[:, axes]), eigenvalues(system, K_POINTS), atol=1e-6)
    assert other.provenance["grid"] == list(engine.mesh)


def test_a_left_handed_crystal_has_the_bands_of_the_right_handed_one():
    # sheared, so that the two would differ if k and R were mixed up
    atoms = Atoms("C2", [[0, 0, 0], [0.3, 0.4, 1.3]], cell=[[2.4, 0, 0], [0.4, 2.5, 0], [0.3, -0.2, 2.8]], pbc=True)
    engine = PySCFEngine(mesh=(16, 16, 16), kpts=(1, 1, 1), cutoff=4.0, conv_tol=1e-6)
    k_points = np.array([[0.1, 0.3, 0.4]])
    right = engine.run(atoms)
    assert right.potential_reference == "cell_average"
    atoms.set_cell(atoms.cell.array[[1, 0, 2]])
    left = engine.run(atoms)
    np.testing.assert_allclose(eigenvalues(left, k_points[:, [1, 0, 2]]), eigenvalues(right, k_points), atol=1e-6)


def test_a_supercell_has_the_hoppings_of_its_unit(system):
    double = layer() * (2, 1, 1)
    engine = replace(FAST, mesh=(40, 20, 90), kpts=(1, 2, 1))
    many = engine.run(double).hamiltonian[0]
    np.testing.assert_allclose(np.sort(many.values), np.sort(np.tile(system.hamiltonian[0].values, 2)), atol=1e-5)


def test_the_vacuum_level_does_not_depend_on_the_height_of_the_cell():
    # two layers and hydrogen: a dipole, and charges farther apart than half the cell
    polar, upper = layer(), layer(seed=1)
    upper.positions += [0.4, 0.9, 3.4]
    polar += upper + Atoms("H", [[0.4, 0.9, 4.5]])
    low, high = (
        replace(FAST, cutoff=7.0, mesh=(20, 20, n)).run(_as_high(polar, height)) for n, height in ((90, 12), (120, 16))
    )
    # 0.03 meV: the orbitals reach the edge of the lower box; with the cell average it is tens of meV
    np.testing.assert_allclose(difference(high, low), 0, atol=1e-4)
    assert low.fermi_level == pytest.approx(high.fermi_level, abs=1e-4)


def test_references_differ_by_a_multiple_of_s(system):
    average = replace(FAST, potential_reference="cell_average").run(layer())
    shift = average.fermi_level - system.fermi_level
    assert abs(shift) > 1
    np.testing.assert_allclose(difference(average, system), shift * system.overlap.values, atol=1e-5)


def test_a_cell_without_a_normal_vector_gets_the_vacuum(system):
    np.testing.assert_allclose(difference(FAST.run(_as_high(layer(), 0.0)), system), 0, atol=1e-9)


def test_molecules_have_the_vacuum_as_zero():
    water = Atoms("OH2", [[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]])
    engine = PySCFEngine(basis="gth-szv-molopt-sr", cutoff=6.0, vacuum=8.0, mesh=(54, 54, 54), conv_tol=1e-4)
    vacuum, average = engine.run(water), replace(engine, potential_reference="cell_average").run(water)
    shift = average.fermi_level - vacuum.fermi_level
    # the dipoles of the images polarize the water of the periodic box
    np.testing.assert_allclose(difference(average, vacuum), shift * vacuum.overlap.values, atol=0.05)
    assert -9 < eigenvalues(vacuum, [[0, 0, 0]])[0, 0, 3] < -5  # LDA's highest occupied level is near -7 eV


def test_graphene_has_its_fermi_level_at_the_dirac_point_and_the_work_function_of_the_basis():
    atoms = graphene(a=2.46)
    atoms.pbc = (True, True, False)
    system = PySCFEngine(xc="pbe").run(atoms)
    corner = eigenvalues(system, [[1 / 3, 1 / 3, 0]])[0, 0]
    np.testing.assert_allclose(corner[3:5], system.fermi_level, atol=1e-4)
    assert system.fermi_level == pytest.approx(-2.55, abs=0.01)  # PySCF's KRKS in the same basis, dimension=2


def test_little_memory_gives_the_same_result(system):
    np.testing.assert_allclose(difference(replace(FAST, memory=1e-9).run(layer()), system), 0, atol=1e-9)


def test_a_basis_may_be_given(system):
    given = replace(FAST, basis=FAST.basis_for(["C", "N"]))
    np.testing.assert_allclose(difference(given.run(layer()), system), 0, atol=1e-12)
    assert given.settings()["basis"] == "gth-szv-molopt-sr-short"


def test_settings_make_the_engine_again():
    settings = json.loads(json.dumps(FAST.settings()))
    assert PySCFEngine.from_settings(settings) == FAST
    for wrong in ({**settings, "engine": "gpaw"}, {**settings, "temperature": 1}):
        with pytest.raises(ValueError, match="settings: expected those of the engine pyscf"):
            PySCFEngine.from_settings(wrong)


def test_running_out_of_cycles_is_an_scf_error():
    with pytest.raises(SCFError, match=r"commutator .* after 1 cycles, expected < .*; raise max_cycles"):
        replace(FAST, max_cycles=1).run(layer())


@pytest.mark.parametrize(
    ("changes", "atoms", "message"),
    [
        ({}, layer("UC"), "no entry of U"),
        ({"basis": "sto-3g"}, layer(), "expected the name of a GTH basis"),
        ({"basis": "gth-nonsense"}, layer(), "PySCF has no entry of C"),
        ({"basis": Basis.of(AtomBasis.from_degrees("C", [1, 0], cutoff=3.0))}, layer(), "shells in ascending l"),
        ({"one_shot": (4, 4, 1)}, layer(), r"at least \[7, 7, 1\] k-points, got \[4, 4, 1\]"),
        ({}, layer(height=6.5), "axis 2 is 6.50 angstrom high, expected at least 7"),
        ({}, Atoms("C", pbc=True), "axis 0 is periodic and has no vector"),
        ({}, Atoms(), "at least one atom"),
        ({}, Atoms("C2", [[0, 0, 0], [0, 0, 0.1]]), "atoms 0 and 1 are 0.100 angstrom apart"),
        ({}, Atoms("C", [[0, 0, np.nan]]), "finite positions"),
        ({}, Atoms("C", magmoms=[2.0]), "neither spin nor charge"),
        ({"potential_reference": "vacuum"}, Atoms("C", cell=[3, 3, 3], pbc=True), "3 periodic axes"),
    ],
)
def test_what_cannot_be_computed_is_refused_in_one_line(changes, atoms, message):
    with pytest.raises(ValueError, match=message) as error:
        replace(FAST, **changes).run(atoms)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "wrong", [{"xc": "b3lyp"}, {"ke_cutoff": -1}, {"kpts": (4, 4)}, {"mesh": (0, 1, 1)}, {"potential_reference": "x"}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected"):
        PySCFEngine(**wrong)


def test_without_pyscf_the_install_line_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyscf.gto", None)
    with pytest.raises(ImportError, match=r"pip install ase-hybridham\[dft\]"):
        FAST.run(layer())


def _as_high(atoms: Atoms, height: float) -> Atoms:
    atoms = atoms.copy()
    atoms.cell[2] = [0, 0, height]
    return atoms
