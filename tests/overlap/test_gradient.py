"""dS/dd: against differences and PySCF's integrals, as a vector, at d = 0 and along the polar axis."""

import numpy as np
import pytest
from ase import Atoms
from scipy.spatial.transform import Rotation

from ase_hybridham.overlap import overlap_from_basis, overlap_gradient
from ase_hybridham.symmetry import rotate_blocks
from ase_hybridham.system import GaussianRadial, PairList, convert_orbitals
from tests.overlap.radial_data import openmx_basis
from tests.overlap.test_assembly import BASIS, structure

# A central difference of S errs by step^2 / 6 times its third derivative, below 100 / angstrom^3 with these g shells.
STEP, DIFFERENCE = 1e-4, 2e-7


def gradient(atoms: Atoms, pairs: PairList | None = None) -> np.ndarray:
    """Shape (3, n_values)."""
    return np.stack([blocks.values for blocks in overlap_gradient(atoms, BASIS, pairs, accuracy=0)])


def moved(pairs: PairList, by: np.ndarray) -> PairList:
    """Pairs with other vectors, reverses with the opposite ones; on-site too, as if the second atom were another."""
    sign = np.where(np.arange(len(pairs)) <= pairs.reverse, 1.0, -1.0)
    return PairList(pairs.numbers, pairs.i, pairs.j, pairs.shifts, pairs.vectors + sign[:, None] * by, pairs.reverse)


@pytest.mark.parametrize("seed", range(2))
def test_gradients_are_the_differences_of_overlaps(seed):
    atoms = structure(seed)
    pairs = PairList.from_atoms(atoms, BASIS.cutoffs())
    found = gradient(atoms, pairs)
    computed = np.repeat(np.arange(len(pairs)) <= pairs.reverse, np.diff(overlap_from_basis(atoms, BASIS).offsets))
    assert np.abs(found).max() > 0.5
    for x, e in enumerate(np.eye(3) * STEP):
        ahead, behind = (overlap_from_basis(atoms, BASIS, moved(pairs, by), accuracy=0) for by in (e, -e))
        difference = (ahead.values - behind.values) / (2 * STEP)
        np.testing.assert_allclose(found[x, computed], difference[computed], atol=DIFFERENCE)
        np.testing.assert_allclose(found[x, ~computed], -difference[~computed], atol=DIFFERENCE)


def test_gradients_change_sign_with_the_transpose():
    for blocks in overlap_gradient(structure(2), BASIS, accuracy=0):
        assert np.abs(blocks.values).max() > 0.5
        np.testing.assert_allclose(blocks.values, -blocks.adjoint().values, atol=1e-13)


@pytest.mark.parametrize("seed", range(2))
def test_gradients_turn_as_vectors(seed):
    atoms = structure(seed)
    rotation = Rotation.random(random_state=seed).as_matrix()
    turned = Atoms(atoms.numbers, atoms.positions @ rotation.T, cell=atoms.cell.array @ rotation.T, pbc=atoms.pbc)
    before = np.stack([rotate_blocks(m, rotation).values for m in overlap_gradient(atoms, BASIS, accuracy=0)])
    after = gradient(turned)
    assert np.abs(after - before).max() > 0.1
    np.testing.assert_allclose(after, rotation @ before, atol=1e-12)


@pytest.mark.parametrize("direction", [(0, 0, 1), (0, 0, -1), (1, 0, 0), (1e-9, 0, 1), (0.3, -0.8, 0.5)])
def test_gradients_are_those_of_pyscf(direction):
    gto = pytest.importorskip("pyscf.gto")
    vector = 1.3 * np.array(direction) / np.linalg.norm(direction)
    atoms = Atoms(["C", "Mo"], [[0, 0, 0], vector])
    atoms.translate([0.1, 0.2, -0.3])
    basis = {
        a.symbol: [[s.l, *zip(s.radial.exponents, s.radial.coefficients, strict=True)] for s in a.shells]
        for a in BASIS.atoms.values()
    }
    where = [[s, r / GaussianRadial.bohr] for s, r in zip(atoms.symbols, atoms.positions, strict=True)]
    molecule = gto.M(atom=where, basis=basis, unit="bohr", spin=None, verbose=0)
    theirs = molecule.intor("int1e_ipovlp")  # <grad i|j>, which moves with j as S does
    order = np.concatenate([_given_order("C"), BASIS["C"].size + _given_order("Mo")])
    theirs = theirs[:, order][:, :, order] / GaussianRadial.bohr
    found = overlap_gradient(atoms, BASIS, accuracy=0)
    ends = [0, BASIS["C"].size, BASIS["C"].size + BASIS["Mo"].size]
    for x, blocks in enumerate(found):
        for p in range(4):
            i, j = int(blocks.pairs.i[p]), int(blocks.pairs.j[p])
            block = theirs[x, ends[i] : ends[i + 1], ends[j] : ends[j + 1]]
            degrees = [BASIS[atoms.symbols[n]].degrees for n in (i, j)]
            np.testing.assert_allclose(blocks.block(p), convert_orbitals(block, "pyscf", *degrees), atol=1e-10)


def _given_order(symbol: str) -> np.ndarray:
    """A Mole sorts the shells of an atom by l: places of our shells' orbitals there."""
    atom = BASIS[symbol]
    given = np.concatenate([np.arange(atom.size)[atom.slices[n]] for n in np.argsort(atom.degrees, kind="stable")])
    return np.argsort(given)


def test_on_site_only_neighboring_degrees_have_a_gradient():
    blocks = overlap_gradient(Atoms("Mo"), BASIS, accuracy=0)
    atom = BASIS["Mo"]
    for s, l1 in enumerate(atom.degrees):
        for t, l2 in enumerate(atom.degrees):
            part = np.abs([m.block(0)[atom.slices[s], atom.slices[t]] for m in blocks]).max()
            assert part > 0.1 if abs(l1 - l2) == 1 else part == 0


@pytest.mark.parametrize("distance", [1e-12, 1e-6, 1e-3])
def test_gradients_of_close_atoms_go_over_into_that_of_one(distance):
    d = distance * np.array([0.6, 0.0, 0.8])
    far, one = gradient(Atoms("Mo2", [[0, 0, 0], d])), gradient(Atoms("Mo"))
    size = one.shape[1]
    # S changes over a few tenths of an angstrom
    np.testing.assert_allclose(far[:, 2 * size : 3 * size], one, atol=1e-12 + 50 * distance)


def test_gradients_of_sampled_functions_are_differences():
    basis = openmx_basis(["C", "H"])
    atoms = Atoms("CH", [[0, 0, 0], [0.4, -0.7, 0.9]])
    found = overlap_gradient(atoms, basis, accuracy=0)
    for x in range(3):
        values = []
        for step in (STEP, -STEP):
            other = atoms.copy()
            other.positions[1, x] += step
            values.append(overlap_from_basis(other, basis, accuracy=0).block(2))
        np.testing.assert_allclose(found[x].block(2), (values[0] - values[1]) / (2 * STEP), atol=DIFFERENCE)


@pytest.mark.parametrize(("accuracy", "allowed"), [(None, 1e-8), (1e-7, 1e-5)])  # a hundred times the accuracy
def test_gradients_of_tables_are_those_without(accuracy, allowed):
    atoms = structure(3)
    for found, exact in zip(
        overlap_gradient(atoms, BASIS, accuracy=accuracy), overlap_gradient(atoms, BASIS, accuracy=0), strict=True
    ):
        error = np.abs(found.values - exact.values).max()
        assert 0 < error < allowed
