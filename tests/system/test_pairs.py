"""Pair lists against brute force, for any periodicity; what no pair list may accept."""

from itertools import product

import numpy as np
import pytest
from ase import Atoms
from ase.build import graphene, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from ase_hybridham.system import PairList
from tests.conftest import random_atoms

EVERY_PBC = list(product([False, True], repeat=3))


def brute_force(atoms: Atoms, radii: dict[int, float]) -> set[tuple[int, ...]]:
    """(i, j, R1, R2, R3) of all pairs with |r_j + R.A - r_i| <= radius_i + radius_j, self pairs too."""
    cell, positions = atoms.cell.array, atoms.positions
    reach = 2 * max(radii[int(z)] for z in atoms.numbers)
    spread = np.linalg.norm(np.ptp(positions, axis=0)) + reach
    limits = []
    for axis, periodic in enumerate(atoms.pbc):
        normal = np.cross(cell[axis - 2], cell[axis - 1])
        height = abs(cell[axis] @ normal) / np.linalg.norm(normal) if periodic else np.inf
        limits.append(int(spread / height) + 1 if periodic else 0)
    shifts = np.array(list(product(*(range(-n, n + 1) for n in limits))))
    found = set()
    for i, j in product(range(len(atoms)), repeat=2):
        vectors = positions[j] - positions[i] + shifts @ cell
        near = np.linalg.norm(vectors, axis=1) <= radii[int(atoms.numbers[i])] + radii[int(atoms.numbers[j])]
        found |= {(i, j, *map(int, shift)) for shift in shifts[near]}
    return found


def keys(pairs: PairList) -> list[tuple[int, ...]]:
    return [(int(i), int(j), *map(int, shift)) for i, j, shift in zip(pairs.i, pairs.j, pairs.shifts, strict=True)]


def assert_consistent(pairs: PairList, atoms: Atoms) -> None:
    """Everything a pair list promises besides which pairs it holds."""
    known = keys(pairs)
    n = len(atoms)
    assert known[:n] == [(a, a, 0, 0, 0) for a in range(n)]
    assert known[n:] == sorted(set(known[n:]))
    assert (pairs.n_atoms, pairs.n_hoppings) == (n, len(known) - n)
    for p, (i, j, *shift) in enumerate(known):
        assert known[pairs.reverse[p]] == (j, i, *(-s for s in shift))
    np.testing.assert_array_equal(pairs.reverse[pairs.reverse], np.arange(len(pairs)))
    expected = atoms.positions[pairs.j] + pairs.shifts @ atoms.cell.array - atoms.positions[pairs.i]
    np.testing.assert_allclose(pairs.vectors, expected, atol=1e-12)
    np.testing.assert_allclose(pairs.distances, np.linalg.norm(expected, axis=1), atol=1e-12)
    np.testing.assert_array_equal(pairs.numbers, atoms.numbers)
    groups = pairs.element_groups
    np.testing.assert_array_equal(np.sort(np.concatenate([*groups.values(), []])), np.arange(len(pairs)))
    for (a, b), rows in groups.items():
        assert set(atoms.numbers[pairs.i[rows]]) == {a}
        assert set(atoms.numbers[pairs.j[rows]]) == {b}
        assert (np.diff(rows) > 0).all()


@pytest.mark.parametrize("pbc", EVERY_PBC)
@pytest.mark.parametrize("seed", range(3))
def test_pairs_are_those_of_brute_force(seed, pbc):
    """Three elements with their own radii; some atoms lie outside the cell, which is smaller than the reach."""
    atoms = random_atoms(seed, pbc=pbc)
    radii = {6: 1.7, 42: 2.9, 16: 2.2}
    pairs = PairList.from_atoms(atoms, radii)
    assert set(keys(pairs)) == brute_force(atoms, radii)
    assert_consistent(pairs, atoms)


@pytest.mark.parametrize("pbc", EVERY_PBC)
def test_one_atom_in_a_cell_far_smaller_than_the_cutoff(pbc):
    cell = [[1.5, 0, 0], [0.6, 1.7, 0], [0.1, -0.3, 2.1]]
    atoms = Atoms("C", [[5.0, -7.0, 0.3]], cell=cell, pbc=pbc)
    pairs = PairList.from_atoms(atoms, 5.0)
    assert set(keys(pairs)) == brute_force(atoms, {6: 2.5})
    assert_consistent(pairs, atoms)
    assert (pairs.n_hoppings > 0) == any(pbc)


def test_a_cutoff_is_two_equal_radii():
    atoms = random_atoms(7)
    by_cutoff, by_radii = PairList.from_atoms(atoms, 4.0), PairList.from_atoms(atoms, {6: 2.0, 42: 2.0, 16: 2.0})
    assert by_cutoff.same_pairs(by_radii)
    assert not by_cutoff.same_pairs(PairList.from_atoms(atoms, 4.5))


def test_atoms_moved_by_lattice_vectors_keep_their_bonds():
    atoms = random_atoms(3, pbc=(True, True, True))
    moved = atoms.copy()
    steps = np.random.default_rng(0).integers(-4, 5, size=(len(atoms), 3))
    moved.positions += steps @ atoms.cell.array
    before, after = PairList.from_atoms(atoms, 4.0), PairList.from_atoms(moved, 4.0)
    shifts = before.shifts - steps[before.j] + steps[before.i]
    renamed = PairList.from_indices(moved, before.i, before.j, shifts)
    assert not before.same_pairs(after)
    assert renamed.same_pairs(after)
    np.testing.assert_allclose(renamed.vectors[renamed.find(after)], after.vectors, atol=1e-12)


def test_supercell_has_the_bonds_of_the_cell_in_every_copy():
    atoms = random_atoms(5)
    small, large = PairList.from_atoms(atoms, 4.0), PairList.from_atoms(atoms.repeat((2, 3, 1)), 4.0)
    assert len(large) == 6 * len(small)

    def bonds(pairs, n):
        rounded = np.round(pairs.vectors, 8) + 0.0
        return sorted((int(i) % n, int(j) % n, *v) for i, j, v in zip(pairs.i, pairs.j, rounded, strict=True))

    assert bonds(large, len(atoms)) == sorted(6 * bonds(small, len(atoms)))


def test_molecule_without_a_cell_and_a_slab_without_its_third_vector():
    water = molecule("H2O")
    assert len(PairList.from_atoms(water, 2.0)) == 9
    sheet = graphene()
    assert not sheet.cell.array[2].any()
    pairs = PairList.from_atoms(sheet, 1.5)
    assert pairs.n_hoppings == 6
    # pbc along a vector that is not there means nothing
    sheet.pbc = True
    assert PairList.from_atoms(sheet, 1.5).same_pairs(pairs)


def test_no_atoms_no_pairs():
    assert len(PairList.from_atoms(Atoms(cell=np.eye(3), pbc=True), 3.0)) == 0


def test_given_pairs_are_ordered_and_found_again():
    atoms = random_atoms(2)
    pairs = PairList.from_atoms(atoms, 4.0)
    shuffle = np.random.default_rng(1).permutation(len(pairs))
    again, position = PairList.sorted_from_indices(atoms, pairs.i[shuffle], pairs.j[shuffle], pairs.shifts[shuffle])
    assert again.same_pairs(pairs)
    np.testing.assert_array_equal(position, shuffle)
    np.testing.assert_allclose(again.vectors, pairs.vectors, atol=1e-13)
    # self pairs are added where they lack
    hopping = pairs.hopping
    lacking = PairList.from_indices(atoms, pairs.i[hopping], pairs.j[hopping], pairs.shifts[hopping])
    assert lacking.same_pairs(pairs)


def test_find_names_the_row_or_says_no():
    atoms = random_atoms(4)
    short, long = PairList.from_atoms(atoms, 3.0), PairList.from_atoms(atoms, 5.0)
    assert len(long) > len(short) > len(atoms)
    rows = long.find(short)
    assert [keys(long)[row] for row in rows] == keys(short)
    back = short.find(long)
    assert set(back[rows]) == set(range(len(short)))
    assert np.sum(back < 0) == len(long) - len(short)


@pytest.mark.parametrize(
    ("i", "j", "shifts", "message"),
    [
        ([0, 1, 0], [1, 0, 1], [[0, 0, 1], [0, 0, -1], [0, 0, 1]], r"pair \(0, 1, R=\[0, 0, 1\]\): stands twice"),
        ([0], [1], [[0, 0, 1]], r"pair \(0, 1, R=\[0, 0, 1\]\): its reverse is missing"),
        ([0, 0], [0, 0], [[1, 0, 0], [2, 0, 0]], "its reverse is missing"),
        ([0, 2], [2, 0], [[0, 0, 0], [0, 0, 0]], "pairs: expected atoms 0 to 1"),
        ([0, -1], [-1, 0], [[0, 0, 0], [0, 0, 0]], "pairs: expected atoms 0 to 1"),
        ([0, 1], [1], [[0, 0, 0], [0, 0, 0]], "pairs: expected as many i, j and R"),
        ([0, 1], [1, 0], [[0, 0, 2**40], [0, 0, -(2**40)]], "pairs: lattice shifts up to"),
    ],
)
def test_pairs_that_make_no_sense_are_refused(i, j, shifts, message):
    atoms = Atoms("C2", [[0, 0, 0], [0, 0, 1.4]], cell=np.eye(3) * 4, pbc=True)
    with pytest.raises(ValueError, match=message):
        PairList.from_indices(atoms, i, j, shifts)


@pytest.mark.parametrize(
    ("cutoff", "message"),
    [
        (0.0, "cutoff: expected"),
        (-1.0, "cutoff: expected"),
        (np.nan, "cutoff: expected"),
        (np.inf, "cutoff: expected"),
        (1e9, "cutoff: expected"),
        (500.0, "cutoff: .* images of the cell"),
        ({6: 2.0}, "cutoff: no radius for atomic number 16"),
        ({6: 2.0, 16: -1.0, 42: 2.0}, "cutoff: expected"),
    ],
)
def test_a_cutoff_that_makes_no_sense_is_refused(cutoff, message):
    atoms = Atoms("CS", [[0, 0, 0], [0, 0, 1.4]], cell=np.eye(3) * 4, pbc=True)
    with pytest.raises(ValueError, match=message):
        PairList.from_atoms(atoms, cutoff)


@pytest.mark.parametrize(
    ("cell", "z", "message"),
    [
        (np.eye(3) * 4, np.nan, "positions: expected"),
        (np.eye(3) * 4, 1e7, "positions: expected"),
        ([[1, 0, 0], [2, 0, 0], [0, 0, 3]], 1.0, "cell: expected three independent vectors"),
        ([[np.nan, 0, 0], [0, 2, 0], [0, 0, 3]], 1.0, "cell: expected three independent vectors"),
        (np.eye(3) * 1e-3, 1.0, "images of the cell"),
    ],
)
@pytest.mark.parametrize("pbc", [True, (True, True, False)])
def test_a_structure_that_makes_no_sense_is_refused(cell, z, pbc, message):
    """Some of these would end the search in hours, or the process by a signal."""
    atoms = Atoms("C2", [[0, 0, 0], [0, 0, z]], cell=cell, pbc=pbc)
    with pytest.raises(ValueError, match=message):
        PairList.from_atoms(atoms, 4.0)


some_atom = st.sampled_from([0, 1, 0, 1, 0, 1, -1, 2])
some_shift = st.tuples(*[st.integers(-2, 2)] * 3)


@settings(deadline=None, max_examples=150, derandomize=True, database=None)
@given(st.lists(st.tuples(some_atom, some_atom, some_shift), max_size=6), st.booleans())
def test_any_list_of_pairs_is_refused_in_words_or_consistent(entries, with_reverse):
    atoms = Atoms("CS", [[0, 0, 0], [0.3, 0.1, 1.4]], cell=np.eye(3) * 4, pbc=True)
    if with_reverse:
        entries = list({*entries, *((j, i, tuple(-s for s in shift)) for i, j, shift in entries)})
    i, j, shifts = ([e[n] for e in entries] for n in range(3))
    twice = len(entries) > len({*entries})
    alone = any((b, a, tuple(-s for s in shift)) not in entries for a, b, shift in entries)
    strange = any(atom not in (0, 1) for entry in entries for atom in entry[:2])
    if twice or alone or strange:
        with pytest.raises(
            ValueError, match=r"^pairs?[: ].*(stands twice|its reverse is missing|expected atoms 0 to 1)"
        ):
            PairList.from_indices(atoms, i, j, shifts)
    else:
        pairs = PairList.from_indices(atoms, i, j, shifts)
        assert_consistent(pairs, atoms)
        assert {*keys(pairs)} == {(*e[:2], *e[2]) for e in entries} | {(0, 0, 0, 0, 0), (1, 1, 0, 0, 0)}
