"""The engine that runs GPAW: bands between the k-points of its mesh, every change that must not matter, refusals.

The golden data speak where GPAW is not installed.
"""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import SCFError
from scipy.spatial.transform import Rotation

from ase_hybridham.check.covariance import relative_residual, strongest_bonds
from ase_hybridham.scf import Engine, GPAWEngine
from ase_hybridham.scf.box import Box
from ase_hybridham.solve import count_electrons, eigenvalues
from ase_hybridham.store import DataSet
from ase_hybridham.symmetry import rotate_blocks
from ase_hybridham.system import LCAOSystem, PairBlocks, convert_orbitals

CASES = ["boron_nitride", "oxygen"]
FAST = GPAWEngine(basis="sz(dzp)", spacing=0.3, kpts=(3, 1, 1))


@pytest.fixture(params=CASES)
def case(request, golden) -> tuple[LCAOSystem, dict]:
    with DataSet(golden / f"gpaw/{request.param}.h5") as data:
        return data[request.param], json.loads((golden / f"gpaw/{request.param}.json").read_text())


def test_golden_bands_are_those_of_gpaw_alone(case):
    system, reference = case
    theirs = np.array(reference["eigenvalues"])
    ours = eigenvalues(system, reference["k_points"])
    low = theirs < reference["fermi_level"] + 5
    assert low.sum() > 20
    assert np.ptp(theirs[low]) > 10
    # the tails that the pair list cuts off; nearly dependent orbitals multiply them in the highest bands
    np.testing.assert_allclose(ours[low], theirs[low], atol=5e-7)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert system.provenance["scf_fermi_level_eV"] == pytest.approx(reference["fermi_level"], abs=1e-9)
    assert system.provenance["checked_band_error_eV"] < 5e-7


def test_golden_electrons_are_those_below_the_fermi_level(case):
    system, _ = case
    assert system.electrons in (8, 12)
    assert count_electrons(system) == pytest.approx(system.electrons, abs=1e-5)
    level = system.provenance["scf_fermi_level_eV"]  # another mesh, and wider occupations
    assert count_electrons(system, level, width=0.1) == pytest.approx(system.electrons, abs=1e-2)


def test_golden_overlaps_turn_with_the_bonds(case):
    system, _ = case
    overlap, basis = system.overlap, system.basis
    # what PAW adds to two-center integrals
    assert 1e-5 < relative_residual(strongest_bonds(overlap)) < 1e-2
    assert overlap.hermiticity_error() == 0
    wrong = {
        (a, b): convert_orbitals(blocks, "openmx", basis[a].degrees, basis[b].degrees)
        for (a, b), _, blocks in overlap.groups()
    }
    assert relative_residual(strongest_bonds(PairBlocks.from_groups(overlap.pairs, basis, wrong))) > 0.05


def test_golden_spins_differ(golden):
    with DataSet(golden / "gpaw/oxygen.h5") as data:
        system = data["oxygen"]
    assert system.spin == "collinear"
    up, down = system.hamiltonian
    assert 0.5 < np.abs(up.values - down.values).max() < 5


def test_without_gpaw_the_error_says_how_to_get_it(monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "gpaw"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gpaw", None)
    with pytest.raises(ImportError, match="pip install gpaw"):
        FAST.basis_for("H")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xc": "b3lyp"}, "xc: expected pbe or lda"),
        ({"spin": "spinor"}, "spin: expected none or collinear"),
        ({"spacing": 0.0}, "spacing: expected a positive number"),
        ({"kpts": (3, 0, 1)}, "kpts: expected three positive integers"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(FAST, **change)


# ---- with GPAW


@pytest.fixture
def gpaw():
    return pytest.importorskip("gpaw")


def chain() -> Atoms:
    """Two elements, no symmetry, periodic along the third axis of a cell without vectors elsewhere."""
    cell = np.zeros((3, 3))
    cell[2] = [0.0, 0.0, 4.0]
    return Atoms("CH", [[0.0, 0.0, 0.3], [0.5, 0.3, 1.3]], cell=cell, pbc=(False, False, True))


ENGINE = replace(FAST, kpts=(1, 1, 3), vacuum=9.0)


@pytest.fixture(scope="module")
def system() -> LCAOSystem:
    pytest.importorskip("gpaw")
    return ENGINE.run(chain())


def test_the_engine_is_one(system):
    assert isinstance(FAST, Engine)
    assert json.loads(json.dumps(dict(system.provenance)))["engine"] == "gpaw"
    assert system.provenance["code"].startswith("GPAW ")
    assert set(system.provenance["paw_data_sets"]) == {"C", "H"}


def test_a_wire_has_bands_electrons_and_a_vacuum(system):
    assert (system.spin, system.electrons, system.potential_reference) == ("none", 5.0, "vacuum")
    assert system.provenance["checked_band_error_eV"] < 1e-5
    assert system.provenance["one_shot_k_mesh"][:2] == [1, 1]
    assert system.provenance["largest_beyond_S"] < 1e-6
    assert all(h.hermiticity_error() == 0 for h in system.operators)
    assert count_electrons(system) == pytest.approx(5, abs=1e-5)
    assert system.fermi_level == pytest.approx(system.provenance["scf_fermi_level_eV"], abs=0.5)


def test_radii_and_shells_are_those_of_the_orbitals(gpaw):
    basis = replace(FAST, basis="dzp").basis_for("CH")
    assert basis["C"].degrees == (0, 1, 0, 1, 2)  # grouped by zeta
    assert (basis["C"].valence, basis["H"].valence) == (4, 1)
    assert 3.0 < basis["C"].cutoff < 4.5
    assert replace(FAST, cutoff=5.0).basis_for("C")["C"].cutoff == 2.5


@pytest.mark.parametrize("implementation", ["default", "old"])
def test_moved_atoms_and_either_implementation_give_the_same(system, monkeypatch, gpaw, implementation):
    if implementation == "old":
        old = pytest.importorskip("gpaw.old.calculator")
        monkeypatch.setattr(gpaw, "GPAW", old.GPAW, raising=False)
    atoms = chain()
    atoms.positions[0] -= 2 * atoms.cell[2]
    atoms.positions[1] += atoms.cell[2]
    moved = ENGINE.run(atoms)
    wraps = np.array([[0, 0, -2], [0, 0, 1]])
    pairs = moved.pairs
    back = pairs.shifts + wraps[pairs.j] - wraps[pairs.i]
    original = {(i, j, *R): p for p, (i, j, R) in enumerate(zip(pairs.i, pairs.j, back.tolist(), strict=True))}
    order = [
        original[i, j, *R] for i, j, R in zip(system.pairs.i, system.pairs.j, system.pairs.shifts.tolist(), strict=True)
    ]
    for ours, theirs in zip(system.operators, moved.operators, strict=True):
        for p, q in enumerate(order):
            np.testing.assert_allclose(theirs.block(q), ours.block(p), atol=1e-5)


def test_an_atom_on_the_face_of_the_cell_is_where_gpaw_has_it(gpaw):
    # rounding puts it on one face in our box and on the opposite one in GPAW
    cell = np.array([[2.2, 0.0, 0.2], [0.0, 2.2, 0.1], [0.4, 0.3, 2.4]])
    corner = cell.T @ [0, 2, -1]
    atoms = Atoms("HC", np.array([[0, 0, 0], [1.1, 0.2, 0.1]]) + corner, cell=cell, pbc=True)
    box = Box.of(atoms, 12.0, 0.0)
    boxed = Atoms("HC", box.positions, cell=box.lattice, pbc=True)
    assert np.abs(boxed.get_scaled_positions(wrap=False) - boxed.get_scaled_positions()).max() > 0.5
    system = replace(FAST, kpts=(2, 2, 2)).run(atoms)
    assert system.provenance["largest_beyond_S"] < 1e-5
    assert system.provenance["checked_band_error_eV"] < 1e-4


def test_rotated_by_a_right_angle_it_is_the_same_hamiltonian(gpaw):
    # the grid turns along, so that it is no approximation
    atoms = Atoms("CH", [[4.0, 4.2, 1.3], [4.4, 4.7, 2.1]], cell=[8.2, 8.2, 8.2], pbc=False)
    turned = atoms.copy()
    rotation = Rotation.from_rotvec([0, 0, np.pi / 2]).as_matrix()
    turned.positions = atoms.positions @ rotation.T + [8.2, 0, 0]
    before, after = FAST.run(atoms), FAST.run(turned)
    assert before.potential_reference == "vacuum"
    for ours, theirs in zip(before.operators, after.operators, strict=True):
        expected = rotate_blocks(ours, rotation)
        assert np.abs(expected.values - ours.values).max() > 0.01
        np.testing.assert_allclose(theirs.values, expected.values, atol=1e-4)


def test_crystals_have_the_average_of_the_cell_as_zero(gpaw):
    atoms = Atoms("H", [[0.1, 0.2, 0.3]], cell=[2.2, 2.3, 2.4], pbc=True, magmoms=[1.0])
    system = replace(FAST, kpts=(2, 2, 2), spin="collinear").run(atoms)
    assert system.potential_reference == "cell_average"
    assert system.spin == "collinear"
    assert system.provenance["checked_band_error_eV"] < 1e-4


def test_a_cutoff_that_moves_bands_is_refused(gpaw):
    with pytest.raises(ValueError, match=r"expected GPAW's within 0.001 eV, got .* raise or remove the cutoff"):
        replace(ENGINE, cutoff=3.5).run(chain())


def test_what_cannot_be_treated_is_refused(gpaw):
    uranium, charged, near, thin, magnetic = chain(), chain(), chain(), chain(), chain()
    uranium.symbols = "UH"
    charged.set_initial_charges([1.0, 0.0])
    magnetic.set_initial_magnetic_moments([1.0, 0.0])
    near.positions[1] = near.positions[0] + 0.1
    for atoms, engine, message in [
        (uranium, ENGINE, "basis .* of U: Could not find"),
        (chain(), replace(ENGINE, basis="qzp"), "basis qzp of C: Could not find"),
        (charged, ENGINE, "neither charge"),
        (magnetic, ENGINE, "initial moments"),
        (near, ENGINE, "0.173 angstrom apart"),
        (thin, replace(ENGINE, vacuum=6.0), "raise the vacuum"),
        (chain(), replace(ENGINE, one_shot=(1, 1, 2)), "one_shot: hoppings up to"),
        (Atoms(), ENGINE, "at least one atom"),
    ]:
        with pytest.raises(ValueError, match=message):
            engine.run(atoms)
    with pytest.raises(ValueError, match="structure 2 of 2: structure: atoms 0 and 1"):
        ENGINE.for_structures([chain(), near])
    with pytest.raises(SCFError, match="raise max_cycles"):
        replace(ENGINE, max_cycles=2).run(chain())


def test_alike_cells_share_a_grid(gpaw):
    strained = chain()
    strained.set_cell(strained.cell * 1.04, scale_atoms=True)
    meshes = [engine.mesh for engine in ENGINE.for_structures([chain(), strained])]
    assert meshes[0] == meshes[1]
    assert all(n % 4 == 0 for n in meshes[0])
