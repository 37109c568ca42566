"""The calculator, with a two-centre tight-binding model of carbon in the place of the network."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import graphene, make_supercell
from ase.calculators.calculator import CalculatorSetupError, PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.dft.dos import DOS
from ase.spectrum.band_structure import calculate_band_structure
from ase.units import Bohr

from ase_hybridham import HybridHamCalculator
from ase_hybridham.errors import CheckpointError, FormatError, OverlapError
from ase_hybridham.io import write_deeph
from ase_hybridham.solve import eigenvalues
from ase_hybridham.store import append_systems
from ase_hybridham.system import AtomBasis, Basis, GaussianRadial, LCAOSystem, PairBlocks, PairList, Shell

ELECTRONS = 4
# Goodwin's parameters for carbon, with one exponential for all integrals: eV, angstrom
ONSITE = np.diag([-2.99, 3.71, 3.71, 3.71])
SSS, SPS, PPS, PPP = -5.0, 4.7, 5.5, -1.55


def two_centre(pairs: PairList, onsite: np.ndarray, scale: float) -> np.ndarray:
    """Slater-Koster blocks (s, then p in our order y, z, x) of all pairs, flat."""
    d = pairs.distances[:, None]
    u = pairs.vectors[:, [1, 2, 0]] / np.where(d > 0, d, 1)
    blocks = np.zeros((len(pairs), 4, 4))
    blocks[:, 0, 0] = SSS
    blocks[:, 0, 1:], blocks[:, 1:, 0] = SPS * u, -SPS * u
    blocks[:, 1:, 1:] = PPP * np.eye(3) + (PPS - PPP) * u[:, :, None] * u[:, None, :]
    blocks *= scale * np.exp(-1.7 * (d[:, :, None] - 1.42)) * ((1 - (d / 4.0)[:, :, None] ** 2).clip(0) ** 2)
    blocks[pairs.onsite] = onsite
    return blocks.ravel()


class StandIn:
    """Stands in for a trained network: the same questions, a Hamiltonian one can check by hand."""

    potential_reference = "unknown"

    def __init__(self, *, orthogonal: bool = True) -> None:
        carbon = AtomBasis.from_degrees("C", [0, 1], valence=ELECTRONS, cutoff=2.0)
        self.basis = Basis.of(carbon, name="sp", orthogonal=orthogonal)
        self.provenance = {"model": "two-centre carbon"}
        self.evaluations = 0

    def predict(self, atoms: Atoms, pairs: PairList | None = None) -> PairBlocks:
        self.evaluations += 1
        assert atoms.calc is None
        pairs = PairList.from_atoms(atoms, self.basis.cutoffs()) if pairs is None else pairs
        return PairBlocks(pairs, self.basis, two_centre(pairs, ONSITE, 1.0))


class Ferromagnet(StandIn):
    """The same with an exchange field: up lies lower, in the p shell more than in the s shell."""

    def predict(self, atoms: Atoms, pairs: PairList | None = None) -> PairBlocks:
        raise AssertionError("a model of two operators is asked for both")

    def hamiltonian(self, atoms: Atoms, pairs: PairList | None = None) -> tuple[PairBlocks, ...]:
        mean, field = super().predict(atoms, pairs), np.diag([0.5, 3.0, 3.0, 3.0])
        values = two_centre(mean.pairs, field, 0.0)
        return mean.with_values(mean.values - values), mean.with_values(mean.values + values)


def some_overlap(atoms: Atoms, basis: Basis, pairs: PairList) -> PairBlocks:
    return PairBlocks(pairs, basis, two_centre(pairs, np.eye(4), -0.03))


def sheet(rattle: float = 0.0) -> Atoms:
    atoms = graphene(vacuum=6.0)
    atoms.pbc = (True, True, False)
    atoms.positions += np.random.default_rng(0).normal(scale=rattle, size=(2, 3)) if rattle else 0.0
    return atoms


def attached(atoms: Atoms, **options) -> Atoms:
    atoms.calc = HybridHamCalculator(StandIn(), **options)
    return atoms


def test_graphene_has_its_dirac_point_at_the_fermi_level():
    atoms = attached(sheet(), kpts=(12, 12, 1))
    structure = atoms.calc.band_structure("GMKG", npoints=40)
    x, ticks, _ = structure.get_labels()
    dirac = structure.energies[0, int(np.argmin(np.abs(x - ticks[2]))), 3:5]
    assert structure.reference == pytest.approx(atoms.calc.get_fermi_level())
    np.testing.assert_allclose(structure.energies[0].max(axis=0)[:3] < structure.reference, True)
    np.testing.assert_allclose(dirac, structure.reference, atol=0.05)  # the mesh, and npoints, miss K a little
    assert np.ptp(structure.energies) > 20


def test_getters_agree_with_each_other_and_with_the_system():
    atoms = attached(sheet(0.05), kpts=(4, 3, 1))
    calc = atoms.calc
    k, w = calc.get_ibz_k_points(), calc.get_k_point_weights()
    energies = np.array([calc.get_eigenvalues(kpt=n) for n in range(len(k))])
    filling = np.array([calc.get_occupation_numbers(kpt=n) for n in range(len(k))])
    np.testing.assert_array_equal(energies, eigenvalues(calc.get_system(), k)[0])
    assert calc.get_system().electrons == 2 * ELECTRONS
    assert np.einsum("kn,k->", filling, w) == pytest.approx(2 * ELECTRONS, abs=1e-6)
    assert (filling.min(), filling.max()) == (pytest.approx(0, abs=1e-6), pytest.approx(2, abs=1e-6))
    assert (calc.get_number_of_spins(), calc.get_number_of_bands(), calc.get_spin_polarized()) == (1, 8, False)


@pytest.mark.parametrize("kpts", [(4, 3, 1), [[0, 0, 0], [0.5, 0, 0]]])
def test_two_spins_are_those_of_two_operators_at_one_fermi_level(kpts):
    atoms = sheet(0.05)
    calc = atoms.calc = HybridHamCalculator(Ferromagnet(), kpts=(4, 3, 1))
    moment = atoms.get_magnetic_moment()
    calc.set(kpts=kpts)
    system, k, w = calc.get_system(), calc.get_ibz_k_points(), calc.get_k_point_weights()
    assert (system.spin, calc.get_number_of_spins(), calc.get_spin_polarized()) == ("collinear", 2, True)
    energies = np.array([[calc.get_eigenvalues(kpt=n, spin=s) for n in range(len(k))] for s in (0, 1)])
    for one, h in zip(energies, system.hamiltonian, strict=True):
        alone = LCAOSystem(system.atoms, (h,), system.overlap)
        np.testing.assert_array_equal(one, eigenvalues(alone, k)[0])
    assert np.abs(energies[0] - energies[1]).min() > 0.1
    filling = np.array([[calc.get_occupation_numbers(kpt=n, spin=s) for n in range(len(k))] for s in (0, 1)])
    assert (filling.min(), filling.max()) == (pytest.approx(0, abs=1e-6), pytest.approx(1, abs=1e-6))
    structure = calc.band_structure("GMKG", npoints=7)
    assert structure.energies.shape == (2, 7, 8)
    assert structure.reference == calc.get_fermi_level()
    # of the mesh, whatever the k-points of the eigenvalues are
    assert atoms.get_magnetic_moment() == pytest.approx(moment, abs=1e-12)
    assert 0.5 < moment < 2 * ELECTRONS
    if len(k) != 2:
        electrons = np.einsum("skn,k->s", filling, w)
        assert electrons.sum() == pytest.approx(2 * ELECTRONS, abs=1e-6)
        assert electrons[0] - electrons[1] == pytest.approx(moment, abs=1e-12)
    assert calc.model.evaluations == 1


def test_moment_costs_no_energy_and_follows_the_atoms():
    atoms = sheet()
    atoms.calc = HybridHamCalculator(Ferromagnet(), energy_calculator=LennardJones(), kpts=(4, 4, 1))
    first = atoms.get_magnetic_moment()
    atoms.get_potential_energy()
    change_positions(atoms)
    second = atoms.get_magnetic_moment()
    fresh = atoms.copy()
    fresh.calc = HybridHamCalculator(Ferromagnet(), kpts=(4, 4, 1))
    assert second == fresh.get_magnetic_moment() != first
    assert attached(sheet(), kpts=(2, 2, 1)).get_magnetic_moment() == 0


def test_ases_density_of_states_of_two_spins():
    atoms = sheet()
    atoms.calc = HybridHamCalculator(Ferromagnet(), kpts=(6, 6, 1))
    dos = DOS(atoms.calc, width=0.1, window=(-40, 0), npts=2000)
    filled = [np.trapezoid(dos.get_dos(spin=s), dos.get_energies()) for s in (0, 1)]
    assert sum(filled) == pytest.approx(2 * ELECTRONS, abs=0.1)
    assert filled[0] - filled[1] == pytest.approx(atoms.get_magnetic_moment(), abs=0.1)


def test_model_is_evaluated_once_for_a_geometry():
    atoms = attached(sheet(0.05))
    calc = atoms.calc
    calc.get_fermi_level()
    calc.set(kpts=(3, 3, 1))
    calc.get_fermi_level()
    calc.band_structure(npoints=5)
    calc.set(kpts=[[0, 0, 0], [0.5, 0, 0]], width=0.1, charge=0.2)
    assert calc.get_eigenvalues(kpt=1).shape == (8,)
    assert calc.get_system().electrons == pytest.approx(2 * ELECTRONS - 0.2)
    assert calc.model.evaluations == 1
    atoms.positions[0, 0] += 1e-6
    calc.get_fermi_level()
    assert calc.model.evaluations == 2


def change_positions(atoms):
    atoms.positions[0] += [0.1, 0.05, 0.0]


def change_cell(atoms):
    atoms.set_cell(atoms.cell * 1.03, scale_atoms=True)


def change_pbc(atoms):
    atoms.pbc = (True, False, False)


def change_atoms(atoms):
    del atoms[1]


@pytest.mark.parametrize("change", [change_positions, change_cell, change_pbc, change_atoms])
@pytest.mark.parametrize("ask_energy", [False, True])
@pytest.mark.filterwarnings("ignore:.*no total energy")
def test_no_result_is_older_than_the_atoms(change, ask_energy):
    atoms = attached(sheet(), kpts=(3, 3, 1))
    before = atoms.calc.get_fermi_level(), atoms.calc.band_structure(npoints=4).energies
    change(atoms)
    if ask_energy:
        atoms.get_potential_energy()
    fresh = attached(atoms.copy(), kpts=(3, 3, 1)).calc
    assert atoms.calc.band_structure(npoints=4).reference == fresh.get_fermi_level()
    assert atoms.calc.get_fermi_level() == fresh.get_fermi_level() != before[0]
    np.testing.assert_array_equal(atoms.calc.get_eigenvalues(0), fresh.get_eigenvalues(0))
    after = atoms.calc.band_structure(npoints=4).energies
    np.testing.assert_array_equal(after, fresh.band_structure(npoints=4).energies)
    assert len(atoms.calc.get_system().atoms) == len(atoms)


def test_one_calculator_serves_several_atoms_and_answers_for_the_last():
    one, two = sheet(), sheet(0.05)
    calc = HybridHamCalculator(StandIn(), energy_calculator=EMT(), kpts=(3, 3, 1))
    one.calc = two.calc = calc
    one.get_potential_energy()
    assert calc.get_fermi_level() == attached(sheet(), kpts=(3, 3, 1)).calc.get_fermi_level()
    two.get_potential_energy()
    assert calc.get_fermi_level() == attached(sheet(0.05), kpts=(3, 3, 1)).calc.get_fermi_level()


def test_permuted_wrapped_and_repeated_atoms_are_the_same_physics():
    atoms = sheet(0.05)
    atoms += Atoms("C", [[0.4, 0.3, 9.2]])
    k = [[0.13, 0.29, 0.0], [0.5, 0.0, 0.0]]
    expected = attached(atoms.copy(), kpts=k).calc
    other = atoms[[2, 0, 1]]
    other.positions += [0.3, -5.1, 0.2]
    other.wrap()
    moved = attached(other, kpts=k).calc
    np.testing.assert_allclose(moved.band_structure(k).energies, expected.band_structure(k).energies, atol=1e-10)
    single = attached(atoms.copy(), kpts=(4, 4, 1))
    double = attached(make_supercell(atoms, np.diag([2, 2, 1])), kpts=(2, 2, 1))
    assert double.calc.get_fermi_level() == pytest.approx(single.calc.get_fermi_level(), abs=1e-7)
    at_gamma = np.sort(
        single.calc.band_structure([[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0.5, 0.5, 0]]).energies.ravel()
    )
    np.testing.assert_allclose(double.calc.band_structure([[0, 0, 0]]).energies.ravel(), at_gamma, atol=1e-10)


def test_energy_is_nan_with_one_warning_and_forces_are_not_there():
    atoms = attached(sheet())
    with pytest.warns(UserWarning, match="no total energy.*energy_calculator="):
        assert np.isnan(atoms.get_potential_energy())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        change_positions(atoms)
        assert np.isnan(atoms.get_potential_energy())
    for ask in (atoms.get_forces, atoms.get_stress):
        with pytest.raises(PropertyNotImplementedError):
            ask()


def test_energy_calculator_supplies_energy_forces_and_stress():
    atoms, reference = attached(sheet(0.05), energy_calculator=LennardJones()), sheet(0.05)
    atoms.pbc = reference.pbc = True
    reference.calc = LennardJones()
    assert atoms.get_potential_energy() == reference.get_potential_energy() != 0.0
    np.testing.assert_array_equal(atoms.get_forces(), reference.get_forces())
    np.testing.assert_array_equal(atoms.get_stress(), reference.get_stress())
    assert atoms.calc.model.evaluations == 0  # relaxing costs no Hamiltonian
    atoms.calc.get_fermi_level()
    change_positions(atoms)
    change_positions(reference)
    np.testing.assert_array_equal(atoms.get_forces(), reference.get_forces())


@pytest.mark.filterwarnings("ignore:.*no total energy")
def test_ases_own_band_structure_function_works():
    atoms = attached(sheet(), kpts=(6, 6, 1))
    path = atoms.cell.bandpath("GMKG", npoints=12, pbc=atoms.pbc)
    own = atoms.calc.band_structure("GMKG", npoints=12)
    theirs = calculate_band_structure(atoms, path)
    np.testing.assert_array_equal(theirs.energies, own.energies)
    assert theirs.reference == own.reference
    assert theirs.get_labels()[2] == own.get_labels()[2] == ["G", "M", "K", "G"]
    assert atoms.calc.model.evaluations == 1


def test_fermi_level_comes_from_the_mesh_also_when_k_points_are_a_path():
    atoms = attached(sheet(), kpts=(6, 6, 1))
    level = atoms.calc.get_fermi_level()
    atoms.calc.set(kpts={"path": "GM", "npoints": 5})
    assert len(atoms.calc.get_ibz_k_points()) == 5
    assert atoms.calc.get_fermi_level() == level
    atoms.calc.set(kpts={"density": 1.3})  # 4 x 4, which misses the Dirac point
    other = atoms.calc.band_structure([[0, 0, 0]]).reference
    assert abs(other - level) > 1e-6
    assert atoms.calc.get_fermi_level() == other


def test_fermi_level_follows_what_is_set_together_with_a_path():
    calc = attached(sheet(), kpts=(6, 6, 1)).calc
    neutral = calc.get_fermi_level()
    calc.set(kpts={"path": "GM", "npoints": 5}, charge=0.5)
    charged = attached(sheet(), kpts=(6, 6, 1), charge=0.5).calc.get_fermi_level()
    assert calc.get_fermi_level() == pytest.approx(charged, abs=1e-12)
    assert abs(charged - neutral) > 0.1


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_copies_are_alive_and_independent(clone):
    atoms = attached(sheet(), kpts=(3, 3, 1))
    level = atoms.calc.get_fermi_level()
    twin = clone(atoms)
    assert twin.calc is not atoms.calc
    assert twin.calc.get_fermi_level() == level
    change_positions(twin)
    assert twin.calc.get_fermi_level() != level == atoms.calc.get_fermi_level()
    alone = clone(atoms.calc)
    assert alone.band_structure(npoints=3).reference == level
    assert alone.model.evaluations == 1


def test_spectrum_of_a_molecule():
    atoms = attached(Atoms("C2", [[0, 0, 0], [0, 0, 1.3]]))
    calc = atoms.calc
    assert len(calc.get_ibz_k_points()) == 1
    np.testing.assert_allclose(calc.band_structure().energies[0, 0], calc.get_eigenvalues(), atol=1e-12)
    assert calc.get_occupation_numbers().sum() == pytest.approx(2 * ELECTRONS)


def test_charge_moves_the_fermi_level():
    levels = [attached(sheet(), kpts=(6, 6, 1), charge=q).calc.get_fermi_level() for q in (-0.2, 0.0, 0.2)]
    assert levels == sorted(levels, reverse=True)
    assert levels[0] - levels[2] > 0.5


def test_overlap_of_gaussian_shells_is_computed():
    pytest.importorskip("pyscf")
    model = StandIn(orthogonal=False)
    exponent = 0.5  # bohr^-2
    gaussian = GaussianRadial((exponent,), (1.0,))
    carbon = AtomBasis("C", (Shell(0, "s", gaussian), Shell(1, "p", gaussian)), ELECTRONS, 2.0)
    model.basis = Basis.of(carbon)
    atoms = sheet(0.05)
    atoms.calc = HybridHamCalculator(model)
    overlap = atoms.calc.get_system().overlap
    np.testing.assert_allclose(overlap.block(0), np.eye(4), atol=1e-12)
    nearest = int(np.argmin(np.where(overlap.pairs.distances > 0, overlap.pairs.distances, np.inf)))
    expected = np.exp(-0.5 * exponent * (overlap.pairs.distances[nearest] / Bohr) ** 2)
    assert overlap.block(nearest)[0, 0] == pytest.approx(expected, rel=1e-6)  # ASE's bohr is not PySCF's
    change_positions(atoms)
    assert atoms.calc.get_system().overlap is not overlap


def test_missing_overlap_names_every_remedy():
    atoms = sheet()
    atoms.calc = HybridHamCalculator(StandIn(orthogonal=False))
    with pytest.raises(OverlapError, match=r"basis_dir= .*overlap= .*or a function"):
        atoms.calc.get_fermi_level()
    assert atoms.calc.model.evaluations == 0


def test_given_overlap_is_used_with_its_pairs_and_only_for_its_atoms(tmp_path):
    atoms = sheet(0.05)
    model = StandIn(orthogonal=False)
    by_function = attached(atoms.copy())
    by_function.calc = HybridHamCalculator(model, overlap=some_overlap)
    pairs = PairList.from_atoms(atoms, 3.0)  # not the model's own 4.0
    overlap = some_overlap(atoms, model.basis, pairs)
    atoms.calc = HybridHamCalculator(model, overlap=overlap)
    system = atoms.calc.get_system()
    assert system.pairs.same_pairs(pairs)
    assert len(by_function.calc.get_system().pairs) > len(pairs)
    write_deeph(system, tmp_path / "s")
    append_systems(tmp_path / "data.h5", [("a", system), ("b", system)])
    for source in (tmp_path / "s", f"{tmp_path}/data.h5:a"):
        from_file = sheet(0.05)
        from_file.calc = HybridHamCalculator(model, overlap=source)
        np.testing.assert_allclose(from_file.calc.get_eigenvalues(3), atoms.calc.get_eigenvalues(3), atol=1e-6)
    for change in (
        change_positions,
        change_cell,
        change_atoms,
        lambda a: a.positions.__iadd__([[0, 0, 0], [2.46, 0, 0]]),
    ):
        moved = sheet(0.05)
        moved.calc = HybridHamCalculator(model, overlap=overlap)
        moved.calc.get_fermi_level()
        change(moved)
        with pytest.raises(OverlapError, match="overlap: given for"):
            moved.calc.get_fermi_level()
    by_function.positions[0, 2] += 0.1
    by_function.calc.get_fermi_level()


def test_overlap_in_another_basis_or_from_nowhere_is_refused(tmp_path):
    atoms = sheet()
    other = Basis.of(AtomBasis.from_degrees("C", [0, 0, 1], cutoff=2.0))
    pairs = PairList.from_atoms(atoms, 3.0)
    atoms.calc = HybridHamCalculator(StandIn(orthogonal=False), overlap=PairBlocks.zeros(pairs, other))
    with pytest.raises(OverlapError, match="orbitals are not those of the model"):
        atoms.calc.get_fermi_level()
    for source in ("nothing", "nothing.h5:a"):
        with pytest.raises(FormatError, match="no such file"):
            HybridHamCalculator(StandIn(orthogonal=False), overlap=tmp_path / source)


def test_overlap_of_other_radial_functions_is_refused():
    atoms, model = sheet(), StandIn(orthogonal=False)

    def gaussians(exponent: float) -> Basis:
        shells = tuple(Shell(l, "", GaussianRadial((exponent,), (1.0,))) for l in (0, 1))
        return Basis.of(AtomBasis("C", shells, ELECTRONS, 2.0))

    model.basis = gaussians(0.5)
    overlap = some_overlap(atoms, gaussians(0.6), PairList.from_atoms(atoms, 3.0))
    atoms.calc = HybridHamCalculator(model, overlap=overlap)
    with pytest.raises(OverlapError, match="orbitals are not those of the model"):
        atoms.calc.get_fermi_level()


def given_overlap(cutoff: float) -> Atoms:
    atoms, model = sheet(0.05), StandIn(orthogonal=False)  # radii 2.0: pairs up to 4.0 angstrom
    overlap = some_overlap(atoms, model.basis, PairList.from_atoms(atoms, cutoff))
    atoms.calc = HybridHamCalculator(model, overlap=overlap)
    return atoms


def test_overlap_beyond_the_trained_range_is_refused():
    with pytest.raises(OverlapError, match=r"pair \(.*\): expected at most 4\.000 angstrom for C-C .*, got 4\.2"):
        given_overlap(4.5).calc.get_fermi_level()


def test_overlap_that_lacks_many_pairs_is_told(caplog):
    given_overlap(4.0).calc.get_fermi_level()
    assert not caplog.records
    given_overlap(3.0).calc.get_fermi_level()
    assert "pairs within the model's range are missing" in caplog.text


def without_atoms(atoms):
    del atoms[:]


def without_cell(atoms):
    atoms.pbc, atoms.cell = True, [[2.46, 0, 0], [-1.23, 2.13, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [(without_atoms, "at least one atom"), (without_cell, "axis 2 is periodic and has no vector")],
)
def test_structures_without_a_hamiltonian_are_refused(change, message):
    atoms = sheet()
    change(atoms)
    attached(atoms)
    for question in (atoms.calc.get_fermi_level, atoms.calc.band_structure, atoms.calc.get_system):
        with pytest.raises(ValueError, match=message):
            question()


def test_ases_density_of_states_counts_the_electrons():
    atoms = attached(sheet(), kpts=(6, 6, 1))
    dos = DOS(atoms.calc, width=0.1, window=(-40, 0), npts=2000)
    filled = np.trapezoid(dos.get_dos(), dos.get_energies())
    assert filled == pytest.approx(2 * ELECTRONS, abs=0.1)  # broadening carries a little over the Fermi level


def test_unknown_element_is_an_error_of_the_model():
    atoms = attached(Atoms("CO", [[0, 0, 0], [0, 0, 1.1]]))
    with pytest.raises(CheckpointError, match="expected atoms of C, got O"):
        atoms.calc.get_fermi_level()


def test_questions_without_atoms_and_senseless_parameters_are_errors():
    calc = HybridHamCalculator(StandIn())
    with pytest.raises(CalculatorSetupError, match=r"atoms.calc = "):
        calc.band_structure()
    with pytest.raises(CalculatorSetupError, match=r"atoms.calc = "):
        calc.get_potential_energy()
    with pytest.raises(ValueError, match="expected parameters kpts"):
        calc.set(smaering="gaussian")
    for kpts in ("dense", (1, 2), {"size": (2, 2, 2), "density": 3}, {"size": (2, 2, 2), "gamma": False}, {}, [[0, 0]]):
        with pytest.raises(ValueError, match="kpts: expected"):
            HybridHamCalculator(StandIn(), kpts=kpts)
    with pytest.raises(ValueError, match="three positive integers"):
        attached(sheet(), kpts=(2, 0, 1)).calc.get_fermi_level()
    with pytest.raises(ValueError, match="special points"):
        attached(sheet()).calc.band_structure("GXW")
    unknown = StandIn()
    unknown.basis = Basis.of(AtomBasis.from_degrees("C", [0, 1], cutoff=2.0), orthogonal=True)
    atoms = sheet()
    atoms.calc = HybridHamCalculator(unknown)
    with pytest.raises(ValueError, match="valence of C is unknown"):
        atoms.calc.get_fermi_level()
