"""Blocks over pairs: one flat array, and what is done with it."""

import numpy as np
import pytest

from ase_hybridham.system import PairBlocks, PairList
from tests.conftest import random_atoms

KINDS = [(False, np.float64), (False, np.complex128), (True, np.complex128), (False, np.float32)]


@pytest.fixture(params=KINDS, ids=["real", "complex", "spinor", "float32"])
def blocks(request, mixed_basis) -> PairBlocks:
    spinor, dtype = request.param
    pairs = PairList.from_atoms(random_atoms(1), mixed_basis.cutoffs())
    out = PairBlocks.zeros(pairs, mixed_basis, spinor=spinor, dtype=dtype)
    rng = np.random.default_rng(0)
    out.values[:] = rng.normal(size=out.values.shape)
    if np.iscomplexobj(out.values):
        out.values.imag[:] = rng.normal(size=out.values.shape)
    return out


def partner(blocks: PairBlocks, p: int) -> np.ndarray:
    return blocks.block(blocks.pairs.reverse[p]).conj().T


def test_a_block_has_the_orbitals_of_its_atoms_and_is_a_view(blocks):
    factor = 2 if blocks.spinor else 1
    sizes = {6: 13, 42: 9, 16: 4}
    ends = []
    for p in range(len(blocks.pairs)):
        block = blocks.block(p)
        n_i, n_j = (factor * sizes[int(blocks.pairs.numbers[n])] for n in (blocks.pairs.i[p], blocks.pairs.j[p]))
        assert block.shape == blocks.shape(p) == (n_i, n_j)
        assert np.shares_memory(block, blocks.values)
        ends.append(block.size)
    np.testing.assert_array_equal(blocks.offsets, np.cumsum([0, *ends]))
    assert blocks.offsets[-1] == len(blocks.values)
    np.testing.assert_array_equal(np.concatenate([blocks.block(p).ravel() for p in range(len(ends))]), blocks.values)


def test_stacks_of_element_pairs_are_the_blocks_and_bring_them_back(blocks):
    stacks = {}
    for elements, rows, stack in blocks.groups():
        stacks[elements] = stack
        for p, block in zip(rows, stack, strict=True):
            np.testing.assert_array_equal(block, blocks.block(p))
    again = PairBlocks.from_groups(blocks.pairs, blocks.basis, stacks, spinor=blocks.spinor)
    np.testing.assert_array_equal(again.values, blocks.values)
    assert again.values.dtype == blocks.values.dtype
    wrong = dict(stacks)
    elements = next(iter(stacks))
    wrong[elements] = stacks[elements][:1, :1]
    with pytest.raises(ValueError, match="blocks of elements"):
        PairBlocks.from_groups(blocks.pairs, blocks.basis, wrong, spinor=blocks.spinor)
    del wrong[elements]
    with pytest.raises(ValueError, match="got none"):
        PairBlocks.from_groups(blocks.pairs, blocks.basis, wrong, spinor=blocks.spinor)


def test_adjoint_is_the_conjugate_transpose_of_the_reverse_pair(blocks):
    adjoint = blocks.adjoint()
    for p in range(len(blocks.pairs)):
        np.testing.assert_array_equal(adjoint.block(p), partner(blocks, p))
    assert np.abs(adjoint.values - blocks.values).max() > 0.1
    np.testing.assert_array_equal(adjoint.adjoint().values, blocks.values)


def test_hermitian_part_is_hermitian_and_the_rest_is_not(blocks):
    part = blocks.hermitian_part()
    assert part.hermiticity_error() == 0
    assert part.values.dtype == blocks.values.dtype
    rest = blocks - part
    tolerance = 1e-6 if blocks.values.dtype == np.float32 else 1e-14
    np.testing.assert_allclose((rest + rest.adjoint()).values, 0, atol=tolerance)
    largest = max(np.abs(blocks.block(p) - partner(blocks, p)).max() for p in range(len(blocks.pairs)))
    assert blocks.hermiticity_error() == pytest.approx(largest, rel=1e-6)
    assert largest > 0.1


def test_arithmetic(blocks):
    twice = 2.0 * blocks
    np.testing.assert_array_equal((blocks + blocks).values, twice.values)
    np.testing.assert_array_equal((twice - blocks * 2.0).values, 0 * blocks.values)
    assert twice.values.dtype == blocks.values.dtype
    shorter = blocks.on_pairs(PairList.from_atoms(random_atoms(1), 3.0))
    assert len(shorter.pairs) != len(blocks.pairs)
    with pytest.raises(ValueError, match="different pairs"):
        blocks + shorter
    other = PairBlocks.zeros(blocks.pairs, blocks.basis, spinor=not blocks.spinor)
    with pytest.raises(ValueError, match="spin"):
        blocks - other


def test_other_pairs_get_zero_or_the_same_block(blocks):
    atoms = random_atoms(1)
    short, long = PairList.from_atoms(atoms, 3.0), PairList.from_atoms(atoms, 6.0)
    grown = blocks.on_pairs(long)
    rows = blocks.pairs.find(long)
    assert (rows < 0).any()
    for p, row in enumerate(rows):
        expected = blocks.block(row) if row >= 0 else np.zeros(grown.shape(p))
        np.testing.assert_array_equal(grown.block(p), expected)
    assert grown.values.dtype == blocks.values.dtype
    np.testing.assert_array_equal(grown.on_pairs(blocks.pairs).values, blocks.values)
    cut = blocks.on_pairs(short)
    for p, row in enumerate(blocks.pairs.find(short)):
        np.testing.assert_array_equal(cut.block(p), blocks.block(row) if row >= 0 else np.zeros(cut.shape(p)))


def test_pairs_of_other_atoms_are_refused(blocks):
    atoms = random_atoms(1)
    atoms.numbers = np.roll(atoms.numbers, 1)
    with pytest.raises(ValueError, match="other atoms"):
        blocks.on_pairs(PairList.from_atoms(atoms, 3.0))


def test_spinor_of_an_operator_without_spin_is_diagonal_in_spin(blocks):
    spinor = blocks.to_spinor()
    assert spinor.spinor
    if blocks.spinor:
        assert spinor is blocks
        return
    for p in range(len(blocks.pairs)):
        block = blocks.block(p)
        zero = np.zeros_like(block)
        np.testing.assert_array_equal(spinor.block(p), np.block([[block, zero], [zero, block]]))
    np.testing.assert_array_equal(blocks.adjoint().to_spinor().values, spinor.adjoint().values)


def test_blocks_change_none_of_their_arguments(blocks):
    before = blocks.values.copy()
    blocks.adjoint(), blocks.hermitian_part(), blocks * 3.0, blocks.to_spinor(), blocks.on_pairs(blocks.pairs)
    np.testing.assert_array_equal(blocks.values, before)


def test_values_of_the_wrong_number_are_refused(blocks):
    with pytest.raises(ValueError, match="blocks: expected"):
        blocks.with_values(blocks.values[:-1])
