"""Position, gradient and kinetic energy: against PySCF, OpenMX, each other, and under motions of the structure."""

import numpy as np
import pytest
from ase import Atoms
from ase.units import Hartree
from scipy.spatial.transform import Rotation

from ase_hybridham.errors import OverlapError
from ase_hybridham.io import read_openmx, read_openmx_matrices
from ase_hybridham.io.openmx_band import HARTREE as HARTREE_OF_OPENMX
from ase_hybridham.overlap import (
    kinetic_from_basis,
    momentum_from_basis,
    overlap_from_basis,
    overlap_gradient,
    position_from_basis,
)
from ase_hybridham.solve import BlochSum
from ase_hybridham.symmetry import rotate_blocks
from ase_hybridham.system import AtomBasis, Basis, GaussianRadial, PairBlocks, PairList, Shell, convert_orbitals
from tests.overlap.radial_data import openmx_basis

ENDS = 1e-11  # where tails of Gaussians are taken as zero
# samples and the kinetic energy printed in their .out, hartree
PRINTED = {"graphene": 8.367272854413, "H2O_across_boundary": 12.857172023577, "O2_triplet_collinear": 22.049601679287}


def shell(l: int, *exponents: float) -> Shell:
    coefficients = tuple((-0.5) ** n + 0.1 * l for n in range(len(exponents)))
    return Shell(l, radial=GaussianRadial(exponents, coefficients))


# up to g, and an element whose shells are out of order in l
BASIS = Basis.of(
    AtomBasis("C", (shell(0, 2.0, 0.7, 0.5), shell(1, 1.5, 0.6), shell(2, 0.8)), cutoff=2.2),
    AtomBasis("Mo", (shell(0, 0.9, 6.0), shell(1, 0.8), shell(3, 0.9, 0.7), shell(4, 1.1)), cutoff=2.4),
    AtomBasis("S", (shell(2, 1.0), shell(0, 0.4)), cutoff=2.0),
    name="mixed",
)


def structure(seed: int, pbc: tuple[bool, bool, bool] = (True, True, False)) -> Atoms:
    """C, Mo, S in turn, some outside of a skew cell that is smaller than the range of the pairs."""
    rng = np.random.default_rng(seed)
    cell = np.diag([3.6, 4.1, 9.5]) + rng.normal(scale=0.3, size=(3, 3))
    return Atoms("CMoSCMo", rng.uniform(-0.5, 1.4, size=(5, 3)) * [1, 1, 0.4] @ cell, cell=cell, pbc=pbc)


def largest_difference(ours: PairBlocks, theirs: PairBlocks) -> float:
    return float(np.abs(ours.values - theirs.values).max())


def per_element(blocks: PairBlocks, of_pairs: np.ndarray) -> np.ndarray:
    """A number of every pair, for all elements of its block."""
    return np.repeat(of_pairs, np.diff(blocks.offsets))


def test_pyscf_has_the_same_integrals_up_to_g_shells():
    gto = pytest.importorskip("pyscf.gto")
    from ase_hybridham.scf.gth import gaussian_shells

    bohr = GaussianRadial.bohr
    basis = Basis.of(BASIS["C"], BASIS["Mo"])
    atoms = Atoms("CMoC", np.random.default_rng(0).normal(scale=1.2, size=(3, 3)))
    pairs = PairList.from_indices(atoms, *np.divmod(np.arange(9), 3), np.zeros((9, 3)))
    molecule = gto.M(
        atom=list(zip(atoms.get_chemical_symbols(), atoms.positions / bohr, strict=True)),
        basis={atom.symbol: gaussian_shells(atom) for atom in basis.atoms.values()},
        unit="bohr",
        spin=None,
        verbose=0,
    )
    ends = np.cumsum([0, *basis.sizes(atoms.numbers)])

    def theirs(p: int, table: np.ndarray) -> np.ndarray:
        i, j = pairs.i[p], pairs.j[p]
        block = table[ends[i] : ends[i + 1], ends[j] : ends[j + 1]]
        return convert_orbitals(block, "pyscf", *(basis[atoms.symbols[n]].degrees for n in (i, j)))

    kinetic, gradient = molecule.intor("int1e_kin") * Hartree, -molecule.intor("int1e_ipovlp") / bohr
    found = kinetic_from_basis(atoms, basis, pairs), *momentum_from_basis(atoms, basis, pairs, accuracy=0)
    for ours, table in zip(found, [kinetic, *gradient], strict=True):
        for p in range(len(pairs)):
            np.testing.assert_allclose(ours.block(p), theirs(p, table), atol=1e-11)
    for origin in ("atom", "cell"):
        found = position_from_basis(atoms, basis, pairs, origin=origin)
        for p in range(len(pairs)):
            where = atoms.positions[pairs.i[p]] if origin == "atom" else np.zeros(3)
            with molecule.with_common_orig(where / bohr):
                tables = molecule.intor("int1e_r") * bohr
            for ours, table in zip(found, tables, strict=True):
                np.testing.assert_allclose(ours.block(p), theirs(p, table), atol=1e-11)


@pytest.mark.parametrize("sample", PRINTED)
def test_openmx_has_the_same_matrices_on_its_grid(golden, sample):
    path = golden / "openmx" / sample / "openmx.scfout.gz"
    system = read_openmx(path)
    basis = openmx_basis(system.basis.atoms)
    matrices = read_openmx_matrices(path, ["position", "momentum"])
    # its grid of 150 Ry, whose error in a position at 1200 Ry is 1.3e-6; gradients feel where orbitals are cut off
    for ours, theirs in zip(position_from_basis(system.atoms, basis, system.pairs), matrices["position"], strict=True):
        assert largest_difference(ours, theirs) < 5e-5 < 0.2 < np.abs(theirs.values).max()
    for ours, theirs in zip(momentum_from_basis(system.atoms, basis, system.pairs), matrices["momentum"], strict=True):
        assert largest_difference(-1.0 * ours, theirs) < 1e-3 < 1 < np.abs(theirs.values).max()


@pytest.mark.parametrize(("sample", "printed"), PRINTED.items())
def test_openmx_prints_the_same_kinetic_energy(golden, sample, printed):
    path = golden / "openmx" / sample / "openmx.scfout.gz"
    system = read_openmx(path)
    kinetic = kinetic_from_basis(system.atoms, openmx_basis(system.basis.atoms), system.pairs)
    density = read_openmx_matrices(path, ["density"])["density"]
    energy = sum(channel.values @ kinetic.values for channel in density) * 2 / len(density)
    assert energy / HARTREE_OF_OPENMX == pytest.approx(printed, abs=2e-11)


@pytest.mark.parametrize("pbc", [(True, True, False), (True, True, True), (False, False, False)])
@pytest.mark.parametrize("seed", range(2))
def test_exchanged_atoms_have_the_transposed_matrices(seed, pbc):
    atoms = structure(seed, pbc)
    overlap, kinetic = overlap_from_basis(atoms, BASIS, accuracy=0), kinetic_from_basis(atoms, BASIS)
    pairs = overlap.pairs
    assert kinetic.hermiticity_error() < 1e-12
    for gradient in momentum_from_basis(atoms, BASIS):
        assert np.abs(gradient.values).max() > 0.1
        assert np.abs(gradient.values + gradient.adjoint().values).max() < 1e-12
    apart = {"atom": pairs.vectors, "cell": pairs.shifts @ atoms.cell.array}
    for origin, vectors in apart.items():
        for x, ours in enumerate(position_from_basis(atoms, BASIS, origin=origin)):
            expected = per_element(overlap, vectors[:, x]) * overlap.values
            np.testing.assert_allclose(ours.values - ours.adjoint().values, expected, atol=ENDS)


def test_exchanged_atoms_of_openmx_functions_have_the_transposed_positions():
    atoms = Atoms("MoS", [[0, 0, 0], [1.0, 1.4, 1.6]])
    basis = openmx_basis(["Mo", "S"])
    overlap = overlap_from_basis(atoms, basis, accuracy=0)
    for x, ours in enumerate(position_from_basis(atoms, basis)):
        expected = per_element(overlap, overlap.pairs.vectors[:, x]) * overlap.values
        # the sums over k of the program are exact to this, as S tells: trapezoids of step 1/15 per bohr
        np.testing.assert_allclose(ours.values - ours.adjoint().values, expected, atol=5e-7)
        assert np.abs(expected).max() > 0.1


def test_a_shift_of_all_atoms_changes_only_positions_from_the_cell():
    atoms, shift = structure(3), np.array([0.3, -1.2, 0.7])
    moved = atoms.copy()
    moved.positions += shift
    overlap = overlap_from_basis(atoms, BASIS, accuracy=0)
    for origin, distance in {"atom": 0 * shift, "cell": shift}.items():
        before, after = (position_from_basis(a, BASIS, origin=origin) for a in (atoms, moved))
        for x in range(3):
            change = after[x].values - before[x].values
            np.testing.assert_allclose(change, distance[x] * overlap.values, atol=ENDS)


@pytest.mark.parametrize("seed", range(2))
def test_directions_turn_with_the_structure(seed):
    atoms = structure(seed)
    rotation = Rotation.random(random_state=seed).as_matrix()
    turned = Atoms(atoms.numbers, atoms.positions @ rotation.T, cell=atoms.cell.array @ rotation.T, pbc=atoms.pbc)
    for operator in (position_from_basis, momentum_from_basis):
        before, after = operator(atoms, BASIS), operator(turned, BASIS)
        assert largest_difference(before[0], after[0]) > 0.1
        orbitals_turned = np.stack([rotate_blocks(blocks, rotation).values for blocks in before])
        np.testing.assert_allclose(np.stack([b.values for b in after]), rotation @ orbitals_turned, atol=ENDS)
    before, after = kinetic_from_basis(atoms, BASIS), kinetic_from_basis(turned, BASIS)
    np.testing.assert_allclose(after.values, rotate_blocks(before, rotation).values, atol=1e-10)


@pytest.mark.parametrize("basis", [BASIS, openmx_basis(["C", "Mo", "S"])], ids=["Gaussian", "OpenMX"])
def test_kinetic_energy_is_the_second_derivative_of_the_overlap(basis):
    atoms, step = Atoms("CMoS", [[0, 0, 0], [0.9, 0.7, -1.1], [1.9, -0.6, 0.4]]), 1e-4
    pairs = PairList.from_atoms(atoms, basis.cutoffs())
    laplacian = np.zeros_like(PairBlocks.zeros(pairs, basis).values)
    for x in range(3):
        forth, back = (_moved_apart(pairs, x, distance) for distance in (step, -step))
        slopes = [overlap_gradient(atoms, basis, p, accuracy=0)[x].values for p in (forth, back)]
        laplacian += (slopes[0] - slopes[1]) / (2 * step)
    radial = basis["C"].shells[0].radial
    hartree = HARTREE_OF_OPENMX if radial.rule == "openmx" else Hartree
    expected = -0.5 * hartree * radial.bohr**2 * laplacian
    kinetic = kinetic_from_basis(atoms, basis, pairs)
    forward = per_element(kinetic, pairs.i < pairs.j)  # of their reverses, the vector moves the other way
    # central differences: step^2 of fourth derivatives, in eV
    np.testing.assert_allclose(kinetic.values[forward], expected[forward], atol=1e-5)
    assert np.abs(kinetic.values[forward]).max() > 1


def _moved_apart(pairs: PairList, x: int, distance: float) -> PairList:
    """The pairs i < j with a longer vector, and their reverses; self pairs as they are."""
    vectors = pairs.vectors.copy()
    vectors[:, x] += distance * np.sign(pairs.j - pairs.i)
    return PairList(pairs.numbers, pairs.i, pairs.j, pairs.shifts, vectors, pairs.reverse)


def test_kinetic_energy_is_positive_in_a_crystal():
    atoms = Atoms("C2", [[0, 1.42, 0], [1.23, 0.71, 0]], cell=[[2.46, 0, 0], [-1.23, 2.13, 0], [0, 0, 15]], pbc=True)
    kinetic = kinetic_from_basis(atoms, openmx_basis("C"))
    matrices = BlochSum(kinetic).dense(np.array([[0, 0, 0], [0.3, -0.1, 0]]))
    assert np.linalg.eigvalsh(matrices).min() > 0


def test_an_unknown_origin_is_refused():
    with pytest.raises(ValueError, match="'atom' or 'cell', got 'center'"):
        position_from_basis(Atoms("C"), BASIS, origin="center")


@pytest.mark.parametrize("operator", [position_from_basis, momentum_from_basis, kinetic_from_basis])
def test_what_the_basis_lacks_is_named(operator):
    with pytest.raises(OverlapError, match="of H has no radial function"):
        operator(Atoms("H"), Basis.of(AtomBasis.from_degrees("H", [0], cutoff=2.0)))
    with pytest.raises(ValueError, match="no element H, only C, Mo, S"):
        operator(Atoms("CH"), BASIS)
    with pytest.raises(OverlapError, match="radial functions of one origin"):
        operator(Atoms("CS", [[0, 0, 0], [0, 0, 1]]), Basis.of(BASIS["C"], openmx_basis("S")["S"]))
