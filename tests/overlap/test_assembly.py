"""Blocks of all pairs at once: against one channel after the other, symmetries, and pair lists of every kind."""

import numpy as np
import pytest
from ase import Atoms
from scipy.linalg import eigh
from scipy.spatial.transform import Rotation

from ase_hybridham.errors import OverlapError
from ase_hybridham.overlap import assembly, overlap_from_basis
from ase_hybridham.overlap.tables import radial_functions
from ase_hybridham.overlap.twocenter import gaunt
from ase_hybridham.solve import BlochSum
from ase_hybridham.symmetry import rotate_blocks, spherical_harmonics
from ase_hybridham.system import AtomBasis, Basis, GaussianRadial, PairBlocks, PairList, Shell


def shell(l: int, *exponents: float) -> Shell:
    coefficients = tuple((-0.5) ** n + 0.1 * l for n in range(len(exponents)))
    return Shell(l, radial=GaussianRadial(exponents, coefficients))


# shells out of order in l and up to g, two of one l that are not neighbors, an element with a single shell
BASIS = Basis.of(
    AtomBasis("C", (shell(1, 1.5, 0.6), shell(0, 2.0, 0.7, 0.5), shell(2, 0.8)), cutoff=2.2),
    AtomBasis("Mo", (shell(0, 0.9), shell(3, 0.9, 0.7), shell(4, 1.1), shell(0, 0.6, 1.3), shell(1, 0.8)), cutoff=2.4),
    AtomBasis("S", (shell(2, 1.0),), cutoff=2.0),
    name="mixed",
)
ROUNDING = 1e-13  # S is of order 1; sums of some 1e3 products


def structure(seed: int, n_atoms: int = 6, pbc: tuple[bool, bool, bool] = (True, True, False)) -> Atoms:
    """C, Mo, S in turn, some outside of a skew cell that is smaller than the range of the pairs."""
    rng = np.random.default_rng(seed)
    cell = np.diag([3.6, 4.1, 9.5]) + rng.normal(scale=0.3, size=(3, 3))
    scaled = rng.uniform(-0.5, 1.4, size=(n_atoms, 3)) * [1, 1, 0.4]
    return Atoms((["C", "Mo", "S"] * n_atoms)[:n_atoms], scaled @ cell, cell=cell, pbc=pbc)


def one_by_one(pairs: PairList, basis: Basis) -> PairBlocks:
    """S of every pair, one channel after the other."""
    out = PairBlocks.zeros(pairs, basis)
    for p in range(len(pairs)):
        first, second = basis[pairs.numbers[pairs.i[p]]], basis[pairs.numbers[pairs.j[p]]]
        d = pairs.vectors[p] / GaussianRadial.bohr
        radial = radial_functions(first, second, float(np.linalg.norm(d)), 0)
        harmonics = spherical_harmonics(d, 8)
        values = radial.at(np.array([np.linalg.norm(d)]))[0]
        for c, value in zip(radial.channels, values, strict=True):
            out.block(p)[first.slices[c.row], second.slices[c.column]] += value * (
                gaunt(c.l1, c.l2, c.L) @ harmonics[c.L]
            )
    return out


def overlap(atoms: Atoms, pairs: PairList | None = None) -> PairBlocks:
    return overlap_from_basis(atoms, BASIS, pairs, accuracy=0)


@pytest.mark.parametrize("pbc", [(True, True, False), (False, False, False), (True, True, True)])
def test_blocks_are_the_sums_over_channels(pbc, monkeypatch):
    atoms = structure(0, 4, pbc)
    monkeypatch.setattr(assembly, "AT_ONCE", 0)  # several parts of few pairs
    found = overlap(atoms)
    assert np.abs(found.values).max() > 0.5
    np.testing.assert_allclose(found.values, one_by_one(found.pairs, BASIS).values, atol=ROUNDING)


@pytest.mark.parametrize("at_once", [0, 2**10, 2**20])
def test_the_size_of_the_parts_does_not_matter(at_once, monkeypatch):
    atoms = structure(1)
    whole = overlap(atoms)
    monkeypatch.setattr(assembly, "AT_ONCE", at_once)
    np.testing.assert_allclose(overlap(atoms).values, whole.values, atol=ROUNDING)


def test_reversed_pairs_hold_the_transpose():
    found = overlap(structure(2))
    assert len(found.pairs) > 60
    assert found.hermiticity_error() < ROUNDING


def test_pairs_in_another_order_have_the_same_blocks():
    pairs = PairList.from_atoms(structure(3), BASIS.cutoffs())
    order = np.random.default_rng(0).permutation(len(pairs))
    place = np.argsort(order)
    mixed = PairList(
        pairs.numbers,
        pairs.i[order],
        pairs.j[order],
        pairs.shifts[order],
        pairs.vectors[order],
        place[pairs.reverse[order]],
    )
    sorted_, found = overlap(structure(3), pairs), overlap(structure(3), mixed)
    assert found.pairs is mixed
    for p in range(len(pairs)):
        np.testing.assert_allclose(found.block(p), sorted_.block(int(order[p])), atol=ROUNDING)


def test_fewer_pairs_have_the_same_blocks():
    atoms = structure(4)
    few = PairList.from_atoms(atoms, 3.0)
    np.testing.assert_allclose(overlap(atoms, few).values, overlap(atoms).on_pairs(few).values, atol=ROUNDING)


def test_atoms_in_another_order_have_the_same_blocks():
    atoms = structure(5)
    order = np.random.default_rng(1).permutation(len(atoms))
    before, after = overlap(atoms), overlap(atoms[order])
    rows = {(i, j, *R): p for p, (i, j, R) in enumerate(zip(*_indices(before.pairs), strict=True))}
    for p, (i, j, R) in enumerate(zip(*_indices(after.pairs), strict=True)):
        np.testing.assert_allclose(after.block(p), before.block(rows[order[i], order[j], *R]), atol=ROUNDING)


def _indices(pairs: PairList) -> tuple[list, list, list]:
    return pairs.i.tolist(), pairs.j.tolist(), pairs.shifts.tolist()


@pytest.mark.parametrize("symbols", ["", "C", "Mo", "CS"])
def test_few_atoms(symbols):
    atoms = Atoms(symbols, np.outer(np.arange(len(Atoms(symbols))), [0.3, 0.9, -1.2]))
    found = overlap(atoms)
    assert len(found.pairs) == len(atoms) ** 2
    np.testing.assert_allclose(found.values, one_by_one(found.pairs, BASIS).values, atol=ROUNDING)
    for n in range(len(atoms)):
        np.testing.assert_allclose(np.diag(found.block(n)), 1, atol=1e-12)  # normalized orbitals


def test_supercell_has_the_eigenvalues_of_folded_k_points():
    unit = structure(6, 3)
    few, many = overlap(unit), overlap(unit * (2, 3, 1))
    k = np.array([[a / 2, b / 3, 0.0] for a in range(2) for b in range(3)])
    folded = np.concatenate([eigh(S, eigvals_only=True) for S in BlochSum(few).dense(k)])
    whole = eigh(BlochSum(many).dense(np.zeros((1, 3)))[0], eigvals_only=True)
    np.testing.assert_allclose(whole, np.sort(folded), atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_overlaps_turn_with_the_structure(seed):
    atoms = structure(seed)
    rotation = Rotation.random(random_state=seed).as_matrix()
    turned = Atoms(atoms.numbers, atoms.positions @ rotation.T, cell=atoms.cell.array @ rotation.T, pbc=atoms.pbc)
    before, after = overlap(atoms), overlap(turned)
    assert np.abs(before.values - after.values).max() > 0.1
    np.testing.assert_allclose(after.values, rotate_blocks(before, rotation).values, atol=1e-12)


def test_overlaps_do_not_depend_on_the_origin_or_the_cells_of_atoms():
    atoms = structure(7)
    moved, wrapped = atoms.copy(), atoms.copy()
    moved.translate([0.3, -7.1, 2.2])
    wrapped.wrap()
    before = overlap(atoms)
    np.testing.assert_allclose(overlap(moved).values, before.values, atol=1e-12)
    assert np.abs(wrapped.positions - atoms.positions).max() > 1
    k = np.zeros((1, 3))  # blocks change their R, the sum over all cells stays
    np.testing.assert_allclose(BlochSum(overlap(wrapped)).dense(k), BlochSum(before).dense(k), atol=1e-12)


def test_a_basis_without_radial_functions_is_refused_with_both_ways_out():
    basis = Basis.of(BASIS["C"], AtomBasis.from_degrees("O", [0, 1], cutoff=2.0))
    assert overlap_from_basis(Atoms("C"), basis).values.size == 81  # only elements that are there count
    with pytest.raises(OverlapError, match=r"shell 0 of O has no radial function; .*--basis-dir.*overlap="):
        overlap_from_basis(Atoms("CO", [[0, 0, 0], [0, 0, 1.1]]), basis)


def test_an_element_outside_the_basis_is_named():
    with pytest.raises(ValueError, match="no element O, only C, Mo, S"):
        overlap_from_basis(Atoms("CO", [[0, 0, 0], [0, 0, 1.1]]), BASIS)
