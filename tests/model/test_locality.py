"""A pair comes and goes smoothly at its cutoff, and what is farther than messages reach does not matter."""

from functools import cache

import numpy as np
import pytest
from ase import Atoms

from ase_hybridham.model import Cascade
from ase_hybridham.system import AtomBasis, Basis, PairBlocks, PairList
from tests.model.networks import assert_same_blocks, config, network, rows_of

STAGES = ["stage1", "hybrid"]


def predict(cascade: Cascade, atoms: Atoms, stage: str) -> PairBlocks:
    return cascade.predict(PairList.from_atoms(atoms, cascade.domain.basis.cutoffs()), stage)


def change_across(cascade: Cascade, stage: str, elements: str, step: float) -> float:
    """Largest change of any block but the pair's own when the pair leaves its cutoff by a step."""
    cutoffs = cascade.domain.basis.cutoffs()
    atoms = Atoms(f"{elements}CMo", [[0, 0, 0], [0, 0, 0], [-1.2, 0.3, 0.0], [-1.0, -1.3, -0.8]])
    border = cutoffs[atoms.numbers[0]] + cutoffs[atoms.numbers[1]]
    results = []
    for distance in (border - step, border + step):
        atoms.positions[1] = distance * np.array([0.8, 0.36, 0.48])
        results.append(predict(cascade, atoms, stage))
    inside, outside = results
    n_left = len(inside.pairs) - len(outside.pairs)
    assert n_left == 2  # both directions of this pair and nothing else
    p = outside.pairs
    rows = rows_of(inside, p.i, p.j, p.shifts)
    return max(np.abs(outside.block(q) - inside.block(row)).max() for q, row in enumerate(rows))


@cache
def hybrid(residual: str) -> Cascade:
    return network(settings=config(residual=residual))


@pytest.mark.parametrize("residual", ["fused", "paper"])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("elements", ["SS", "CS", "CC", "MoMo"])
def test_other_blocks_do_not_jump_when_a_pair_crosses_its_cutoff(elements, stage, residual):
    """The envelope ends with two vanishing derivatives, so what is left of a pair goes as the cube of the step."""
    cascade = hybrid(residual)
    changes = [change_across(cascade, stage, elements, step) for step in (0.5, 5e-3)]
    assert changes[0] > 1e-4
    assert changes[1] < 1e-5 * changes[0]


@pytest.mark.parametrize("stage", STAGES)
def test_fragments_out_of_reach_do_not_matter(stage):
    cascade = network()
    one = Atoms("CMoS", [[0, 0, 0], [1.2, 0.3, 0.4], [-0.5, 1.5, 0.1]])
    two = Atoms("SC", [[0, 0, 12], [0.3, 1.2, 12]])
    both = predict(cascade, one + two, stage)
    for first, fragment in ((0, one), (3, two)):
        alone = predict(cascade, fragment, stage)
        p = alone.pairs
        # the same sums in another order
        assert_same_blocks(alone, both, rows_of(both, p.i + first, p.j + first, p.shifts), 1e-11)


def test_one_block_of_stage1_sees_the_neighbors_of_the_pair_only():
    chain = Basis.of(AtomBasis.from_degrees("C", [0, 1], cutoff=0.8))
    cascade = network(chain, config("6x0e+4x1o+3x2e", updates=1))
    atoms = Atoms("C8", [[1.1 * k, 0.3 * (k % 2), 0] for k in range(8)])
    before = predict(cascade, atoms, "stage1")
    atoms.positions[4] += [0.1, 0.15, 0.05]
    after = predict(cascade, atoms, "stage1")
    assert before.pairs.same_pairs(after.pairs)
    assert len(before.pairs) == 8 + 2 * 7
    for p in range(len(before.pairs)):
        change = np.abs(before.block(p) - after.block(p)).max()
        near = min(abs(before.pairs.i[p] - 4), abs(before.pairs.j[p] - 4)) <= 1
        assert change > 1e-5 if near else change < 1e-12
