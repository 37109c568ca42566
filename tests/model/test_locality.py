"""A pair comes and goes smoothly at its cutoff, and what is farther than messages reach does not matter.

The default options; `norm: graph` is here to show that the second law is the norm's doing.
"""

from functools import cache

import numpy as np
import pytest
from ase import Atoms

from ase_hybridham.model import Cascade, ModelConfig
from ase_hybridham.system import AtomBasis, Basis, PairBlocks, PairList
from tests.model.networks import (
    MIXED,
    assert_same_blocks,
    config,
    graph_of,
    network,
    random_hamiltonian,
    rows_of,
    structure,
)

STAGES = ["stage1", "hybrid"]
CHAIN = Basis.of(*(AtomBasis.from_degrees(element, [0, 1], cutoff=0.8) for element in "CS"))


def with_norm(norm: str, settings: ModelConfig) -> ModelConfig:
    """The same options with another norm of stage 1."""
    return settings.model_copy(update={"stage1": settings.stage1.model_copy(update={"norm": norm})})


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


@cache
def mixed(norm: str) -> Cascade:
    return network(settings=with_norm(norm, config()))


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
def test_a_pair_ends_as_the_hamiltonian_it_learned(stage):
    """Its own blocks are scaled by the spread of the data there: where H has decayed, little is left to jump.

    H of localized orbitals ends like a power of what is left of the distance. Without the scale, the output of the
    network at the cutoff would be as large as anywhere.
    """
    cascade, cutoffs, graphs = network(), MIXED.cutoffs(), []
    for seed in range(6):
        h = random_hamiltonian(structure(MIXED, seed, n_atoms=8), MIXED, seed)
        radii, p = np.array([cutoffs[z] for z in h.pairs.numbers]), h.pairs
        left = 1 - p.distances / (radii[p.i] + radii[p.j])
        faded = [left[q] ** 3 * h.block(q).ravel() for q in range(len(p))]
        graphs.append(graph_of(h.with_values(np.concatenate(faded)), cascade))
    cascade.scale1.fit(graphs)
    cascade.scale2.fit(graphs, centered=False)
    for elements in ("SS", "CS", "CC", "MoMo"):
        atoms, own = Atoms(elements, np.zeros((2, 3))), []
        border = cutoffs[atoms.numbers[0]] + cutoffs[atoms.numbers[1]]
        for distance in (0.5 * border, border - 1e-6):
            atoms.positions[1] = distance * np.array([0.8, 0.36, 0.48])
            h = predict(cascade, atoms, stage)
            own.append(np.abs(h.block(rows_of(h, [0], [1], [[0, 0, 0]])[0])).max())
        assert own[0] > 0.05
        assert own[1] < 0.01 * own[0]


@pytest.mark.parametrize("times", [(2, 1, 1), (2, 2, 1)])
@pytest.mark.parametrize("norm", ["local", "graph"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_supercell_has_the_same_blocks(stage, norm, times):
    """Even the graph's norm: its statistics are those of the same rows, several times."""
    cascade, atoms = mixed(norm), structure(MIXED, 2, n_atoms=3)
    small, large = predict(cascade, atoms, stage), predict(cascade, atoms.repeat(times), stage)
    p, cells = large.pairs, np.array(list(np.ndindex(times)))  # the order of Atoms.repeat
    assert len(p) == len(cells) * len(small.pairs)
    assert (small.pairs.i == small.pairs.j).sum() > len(atoms)  # atoms see their own images: smaller than the cutoff
    shifts = p.shifts * times + cells[p.j // len(atoms)] - cells[p.i // len(atoms)]
    assert_same_blocks(large, small, rows_of(small, p.i % len(atoms), p.j % len(atoms), shifts), 1e-10)


def change_by_fragment(cascade: Cascade, stage: str) -> float:
    """Largest change of the blocks of two fragments when each gets the other, in units of the largest block."""
    one = Atoms("CMoS", [[0, 0, 0], [1.2, 0.3, 0.4], [-0.5, 1.5, 0.1]])
    two = Atoms("SC", [[0, 0, 12], [0.3, 1.2, 12]])
    both, changes = predict(cascade, one + two, stage), []
    for first, fragment in ((0, one), (3, two)):
        alone = predict(cascade, fragment, stage)
        p = alone.pairs
        rows = rows_of(both, p.i + first, p.j + first, p.shifts)
        changes += [np.abs(alone.block(q) - both.block(row)).max() for q, row in enumerate(rows)]
    return max(changes) / np.abs(both.values).max()


@pytest.mark.parametrize("stage", STAGES)
def test_fragments_out_of_reach_do_not_matter(stage):
    assert change_by_fragment(mixed("local"), stage) < 1e-12  # the same sums in another order


@pytest.mark.parametrize("stage", STAGES)
def test_fragments_out_of_reach_matter_to_the_norm_over_the_graph(stage):
    assert change_by_fragment(mixed("graph"), stage) > 1e-4


def changes_along_chain(cascade: Cascade, stage: str) -> np.ndarray:
    """Largest relative change of blocks k bonds from the last atom of a chain (k = 0, 1, ...) when it moves."""
    last = 11
    atoms = Atoms("CS" * 6, [[1.1 * k, 0.3 * (k % 2), 0.2 * np.sin(k)] for k in range(last + 1)])
    before = predict(cascade, atoms, stage)
    atoms.positions[last] += [-0.1, 0.15, 0.05]
    after = predict(cascade, atoms, stage)
    assert before.pairs.same_pairs(after.pairs)
    assert len(before.pairs) == last + 1 + 2 * last  # nearest neighbors only
    changes = np.zeros(last + 1)
    for p in range(len(before.pairs)):
        k = last - max(before.pairs.i[p], before.pairs.j[p])
        changes[k] = max(changes[k], np.abs(before.block(p) - after.block(p)).max())
    return changes / np.abs(before.values).max()


@pytest.mark.parametrize("updates", [1, 2, 3])
@pytest.mark.parametrize("stage", STAGES)
def test_blocks_see_the_receptive_field_only(stage, updates):
    """One bond for each of stage 1's blocks; stage 2, with as many here, knows its first neighbors beforehand."""
    changes = changes_along_chain(network(CHAIN, config("6x0e+4x1o+3x2e", updates)), stage)
    reach = updates if stage == "stage1" else updates + 1
    assert (changes[: reach + 1] > 1e-10).all()
    assert (changes[reach + 1 :] < 1e-12).all()


@pytest.mark.parametrize("stage", STAGES)
def test_the_norm_over_the_graph_sees_the_whole_chain(stage):
    settings = with_norm("graph", config("6x0e+4x1o+3x2e", updates=1))
    assert (changes_along_chain(network(CHAIN, settings), stage) > 1e-5).all()
