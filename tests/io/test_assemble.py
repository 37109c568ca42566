"""The last step of every reader: whatever the order of blocks and orbitals, the system is the same."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import coo_array

from ase_hybridham.errors import FormatError
from ase_hybridham.io.assemble import (
    Orbitals,
    blocks_from_pairs,
    blocks_from_sparse,
    periodic_axes,
    sorted_pairs,
    with_fitted_radii,
)
from ase_hybridham.system import Basis, PairBlocks, PairList, orbital_order
from tests.conftest import random_atoms

PROGRAMS = ["house", "openmx", "siesta", "abacus", "fhi-aims"]


def random_blocks(seed: int, basis: Basis, spinor: bool = False) -> tuple[PairBlocks, object]:
    rng = np.random.default_rng(seed)
    atoms = random_atoms(seed, 4)
    blocks = PairBlocks.zeros(
        PairList.from_atoms(atoms, basis.cutoffs()), basis, spinor=spinor, dtype=complex if spinor else float
    )
    noise = rng.normal(size=blocks.values.shape) + (1j * rng.normal(size=blocks.values.shape) if spinor else 0)
    return blocks.with_values(noise), atoms


def to_program(blocks: PairBlocks, program: str, p: int) -> NDArray:
    """Block p as a program writes it."""
    theirs = blocks.block(p)
    for axis, atom in enumerate((blocks.pairs.i[p], blocks.pairs.j[p])):
        index, sign = orbital_order(program, blocks.basis[int(blocks.pairs.numbers[atom])].degrees)
        if blocks.spinor:
            index, sign = np.concatenate([index, index + len(index)]), np.tile(sign, 2)
        turned = np.empty_like(theirs)
        place = [slice(None)] * 2
        place[axis] = index
        turned[tuple(place)] = theirs * (sign[:, None] if axis == 0 else sign)
        theirs = turned
    return theirs


def table_of(pairs: PairList) -> NDArray:
    return np.column_stack([pairs.shifts, pairs.i, pairs.j])


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("spinor", [False, True])
def test_order_of_blocks_and_orbitals_does_not_matter(program: str, spinor: bool, mixed_basis: Basis) -> None:
    blocks, atoms = random_blocks(0, mixed_basis, spinor)
    order = np.random.default_rng(1).permutation(len(blocks.pairs))
    values = np.concatenate([to_program(blocks, program, p).ravel() for p in order])
    pairs, position = sorted_pairs("file", atoms, table_of(blocks.pairs)[order])
    twice = [values, 2 * values]
    found = blocks_from_pairs("file", pairs, position, mixed_basis, twice, program, spinor=spinor, unit=0.5)
    assert found[0].pairs.same_pairs(blocks.pairs)
    np.testing.assert_array_equal(found[0].values, 0.5 * blocks.values)
    np.testing.assert_array_equal(found[1].values, blocks.values)


def sparse_of(blocks: PairBlocks, program: str, orbitals: Orbitals) -> dict[tuple[int, int, int], coo_array]:
    """One matrix for every R, rows where `orbitals` puts them."""
    size = len(orbitals.atom)
    row_of = {(a, b): r for r, (a, b) in enumerate(zip(orbitals.atom.tolist(), orbitals.place.tolist(), strict=True))}
    matrices: dict[tuple[int, int, int], NDArray] = {}
    for p, shift in enumerate(blocks.pairs.shifts.tolist()):
        matrix = matrices.setdefault(tuple(shift), np.zeros((size, size), dtype=blocks.values.dtype))
        n_i, n_j = blocks.shape(p)
        rows = [row_of[int(blocks.pairs.i[p]), a] for a in range(n_i)]
        columns = [row_of[int(blocks.pairs.j[p]), b] for b in range(n_j)]
        matrix[np.ix_(rows, columns)] = to_program(blocks, program, p)
    return {shift: coo_array(matrix) for shift, matrix in matrices.items()}


@pytest.mark.parametrize("program", PROGRAMS)
def test_sparse_matrices_of_every_shift_give_the_blocks(program: str, mixed_basis: Basis) -> None:
    blocks, atoms = random_blocks(2, mixed_basis)
    spinor, _ = random_blocks(2, mixed_basis, spinor=True)
    sizes = mixed_basis.sizes(atoms.numbers)
    in_order = Orbitals.in_order(sizes)
    # up and down of one orbital stand next to each other, as in ABACUS
    fast = Orbitals(
        np.repeat(in_order.atom, 2), np.column_stack([in_order.place, in_order.place + sizes[in_order.atom]]).ravel()
    )
    operators = [sparse_of(blocks, program, in_order), sparse_of(spinor, program, fast)]
    found = blocks_from_sparse(
        "file", atoms, mixed_basis, operators, program, orbitals=[in_order, fast], spinor=[False, True]
    )
    for one, expected in zip(found, (blocks, spinor), strict=True):
        assert one.pairs is found[0].pairs
        assert one.pairs.same_pairs(expected.pairs)
        np.testing.assert_array_equal(one.values, expected.values)


def test_pairs_of_sparse_matrices_are_those_of_any_operator_and_their_reverse(mixed_basis: Basis) -> None:
    atoms = random_atoms(3, 2, (True, True, True))
    size = int(mixed_basis.sizes(atoms.numbers).sum())
    one, other = np.zeros((size, size)), np.zeros((size, size))
    one[0, -1], other[1, 1] = 2.0, 3.0
    first, second = blocks_from_sparse(
        "file", atoms, mixed_basis, [{(1, 0, 0): coo_array(one)}, {(0, 0, 2): coo_array(other)}], "house"
    )
    shifts = {tuple(row) for row in table_of(first.pairs).tolist()}
    assert shifts == {
        (0, 0, 0, 0, 0),
        (0, 0, 0, 1, 1),
        (1, 0, 0, 0, 1),
        (-1, 0, 0, 1, 0),
        (0, 0, 2, 0, 0),
        (0, 0, -2, 0, 0),
    }
    assert first.values.sum() == 2.0
    assert second.values.sum() == 3.0


def _twice(table: NDArray) -> NDArray:
    return np.concatenate([table, table[-1:]])


def _without_onsite(table: NDArray) -> NDArray:
    return table[1:]


def _without_reverse(table: NDArray) -> NDArray:
    return table[:-1]


def _no_such_atom(table: NDArray) -> NDArray:
    return np.concatenate([table, [[0, 0, 0, 0, 99]]])


def _far_cell(table: NDArray) -> NDArray:
    return np.concatenate([table, [[0, 2**40, 0, 0, 1]]])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_twice, "stands twice"),
        (_without_onsite, r"\[0, 0, 0, 1, 1\] \(on-site\) is missing"),
        (_without_reverse, "its reverse is missing"),
        (_no_such_atom, r"\[0, 0, 0, 1, 100\]: expected atoms 1 to 4"),
        (_far_cell, "a cell within reach"),
    ],
)
def test_pairs_that_make_no_sense_are_named(
    damage: Callable[[NDArray], NDArray], message: str, mixed_basis: Basis
) -> None:
    blocks, atoms = random_blocks(4, mixed_basis)
    with pytest.raises(FormatError, match=message) as caught:
        sorted_pairs("some/file", atoms, damage(table_of(blocks.pairs)))
    assert str(caught.value).startswith("some/file: ")


def test_values_that_make_no_sense_are_named(mixed_basis: Basis) -> None:
    blocks, atoms = random_blocks(5, mixed_basis)
    pairs, position = sorted_pairs("file", atoms, table_of(blocks.pairs)[::-1])
    with pytest.raises(FormatError, match="matrix elements in"):
        blocks_from_pairs("file", pairs, position, mixed_basis, [blocks.values[1:]], "house")
    values = np.concatenate([blocks.block(p).ravel() for p in range(len(pairs))[::-1]])
    values[0] = np.nan  # the file's first block is the last of the list
    last = [*pairs.shifts[-1].tolist(), int(pairs.i[-1]), int(pairs.j[-1])]
    with pytest.raises(FormatError) as caught:
        blocks_from_pairs("file", pairs, position, mixed_basis, [values], "house", first=0)
    assert f"block {last}: expected finite" in str(caught.value)
    size = int(mixed_basis.sizes(atoms.numbers).sum())
    with pytest.raises(FormatError, match=f"expected {size} x {size}"):
        blocks_from_sparse("file", atoms, mixed_basis, [{(0, 0, 0): coo_array(np.eye(3))}], "house")
    with pytest.raises(FormatError, match="inf or nan"):
        blocks_from_sparse("file", atoms, mixed_basis, [{(0, 0, 0): coo_array(np.diag([np.inf] * size))}], "house")


def test_radii_allow_all_pairs_and_axes_follow_from_shifts(mixed_basis: Basis) -> None:
    blocks, atoms = random_blocks(6, mixed_basis)
    bare = Basis.of(*(replace(atom, cutoff=None) for atom in mixed_basis.atoms.values()), name="mixed")
    fitted = with_fitted_radii(bare, blocks.pairs)
    present = sorted(set(atoms.numbers.tolist()))
    radius = np.array([fitted[int(z)].cutoff for z in atoms.numbers])
    assert (blocks.pairs.distances <= radius[blocks.pairs.i] + radius[blocks.pairs.j]).all()
    assert all(fitted[z].cutoff <= mixed_basis[z].cutoff + 1e-3 for z in present)
    assert periodic_axes(blocks.pairs).tolist() == [True, True, False]
