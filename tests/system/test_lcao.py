"""A system refuses operators that do not belong together."""

import numpy as np
import pytest

from ase_hybridham.system import LCAOSystem, PairBlocks, PairList
from tests.conftest import random_atoms


@pytest.fixture
def atoms():
    return random_atoms(0)


@pytest.fixture
def blocks(atoms, mixed_basis):
    return PairBlocks.zeros(PairList.from_atoms(atoms, 4.0), mixed_basis)


def test_system_names_its_parts(atoms, blocks):
    n = int(blocks.basis.sizes(atoms.numbers).sum())
    system = LCAOSystem(atoms, (blocks,), blocks)
    assert system.operators == (blocks, blocks)
    assert (system.pairs, system.basis, system.n_orbitals) == (blocks.pairs, blocks.basis, n)
    assert system.basis.sizes(system.atoms.numbers).sum() == n
    only_overlap = LCAOSystem(atoms, (), blocks)
    assert only_overlap.operators == (blocks,)
    spinor = LCAOSystem(atoms, (blocks.to_spinor(),), blocks, "spinor")
    assert spinor.n_orbitals == 2 * n


def test_operators_that_do_not_belong_together_are_refused(atoms, blocks, mixed_basis):
    with pytest.raises(ValueError, match="expected a Hamiltonian or an overlap"):
        LCAOSystem(atoms, ())
    with pytest.raises(ValueError, match=r"expected 2 Hamiltonian\(s\) for spin 'collinear', got 1"):
        LCAOSystem(atoms, (blocks,), spin="collinear")
    with pytest.raises(ValueError, match=r"expected 1 Hamiltonian\(s\) for spin 'none', got 2"):
        LCAOSystem(atoms, (blocks, blocks))
    with pytest.raises(ValueError, match="do not fit spin 'spinor'"):
        LCAOSystem(atoms, (blocks,), spin="spinor")
    with pytest.raises(ValueError, match="do not fit spin 'none'"):
        LCAOSystem(atoms, (blocks.to_spinor(),))
    with pytest.raises(ValueError, match="S must be given without spin"):
        LCAOSystem(atoms, (blocks.to_spinor(),), blocks.to_spinor(), "spinor")
    with pytest.raises(ValueError, match="different pairs"):
        LCAOSystem(atoms, (blocks,), blocks.on_pairs(PairList.from_atoms(atoms, 3.0)))
    other = atoms.copy()
    other.numbers = np.roll(other.numbers, 1)
    with pytest.raises(ValueError, match="the atoms are not those of the pairs"):
        LCAOSystem(other, (blocks,))
