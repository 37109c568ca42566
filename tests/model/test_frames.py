"""What the two frames of stage 2 differ in, and the options that both have."""

from functools import cache

import numpy as np
import pytest
import torch
from ase import Atoms
from scipy.spatial.transform import Rotation

from ase_hybridham.model import Cascade
from ase_hybridham.symmetry import DirectSum, alignment_matrices, rotate_blocks
from ase_hybridham.system import PairBlocks, PairList
from tests.model.networks import MIXED, assert_same_blocks, config, network, rows_of, structure, turned_pairs

ATOMS = structure(MIXED, 11, n_atoms=6, pbc=(True, True, True))
PAIRS = PairList.from_atoms(ATOMS, MIXED.cutoffs())
OPTIONS = [
    {},
    {"invariants": "tuples"},
    {"residual": "paper"},
    {"feature_shift": 1},
    {"n_groups": 1, "n_blocks": 2, "n_heads": 4, "feature_shift": 1},
]


@cache
def hybrid(**stage2: object) -> Cascade:
    """Not to be changed."""
    return network(settings=config(**stage2))


def rotation_error(cascade: Cascade, stage: str) -> float:
    Q = Rotation.random(random_state=3).as_matrix()
    expected = rotate_blocks(cascade.predict(PAIRS, stage), Q)
    return float(np.abs(cascade.predict(turned_pairs(ATOMS, PAIRS, Q), stage).values - expected.values).max())


@pytest.mark.parametrize("frame", ["edge", "global"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
class TestBothFrames:
    def test_hermitian(self, frame, options):
        assert hybrid(frame=frame, **options).predict(PAIRS).hermiticity_error() < 1e-10

    def test_selection_rule(self, frame, options):
        cascade = hybrid(frame=frame, **options)
        correction = cascade.predict(PAIRS, "hybrid") - cascade.predict(PAIRS, "stage1")
        assert np.abs(correction.values).max() > 0.1
        frames = alignment_matrices(PAIRS.vectors, 4)
        for elements, rows, blocks in correction.groups():
            direct_sum = DirectSum(MIXED[elements[0]].degrees, MIXED[elements[1]].degrees)
            components, onsite = direct_sum.to_sum(blocks), rows < PAIRS.n_atoms
            for part in direct_sum.parts:
                if not part.natural:
                    of_edge = np.einsum("pmn,pn->pm", frames[part.L][rows], components[:, part.components])
                    assert np.abs(of_edge[onsite]).max(initial=0) < 1e-10
                    assert np.abs(of_edge[~onsite, part.L]).max(initial=0) < 1e-10

    def test_only_the_edge_frame_is_equivariant(self, frame, options):
        cascade = hybrid(frame=frame, **options)
        assert rotation_error(cascade, "stage1") < 1e-10
        if frame == "edge":
            assert rotation_error(cascade, "hybrid") < 1e-10
        else:
            assert rotation_error(cascade, "hybrid") > 1e-2

    def test_order_of_atoms_and_cell_do_not_matter(self, frame, options):
        """The global frame, too, sees no more than directions. Tuples hang on the order of equal lengths."""
        cascade = hybrid(frame=frame, **options)
        order, moves = np.array([3, 1, 5, 0, 2, 4]), np.array([[1, 0, -1]] * 3 + [[0, 2, 0]] * 3)
        if options.get("invariants") == "tuples":
            order = np.arange(6)
        moved = ATOMS[order]
        moved.positions += moves @ ATOMS.cell.array
        h, other = cascade.predict(PAIRS), cascade.predict(PairList.from_atoms(moved, MIXED.cutoffs()))
        p = other.pairs
        rows = rows_of(h, order[p.i], order[p.j], p.shifts + moves[p.j] - moves[p.i])
        assert_same_blocks(other, h, rows, 1e-10)

    def test_it_starts_at_zero(self, frame, options):
        """Before training, the hybrid is stage 1."""
        torch.manual_seed(0)
        settings = config(frame=frame, **options)
        trained = network(settings=settings)
        fresh = Cascade(settings, trained.domain)
        trained.stage2.load_state_dict(fresh.stage2.state_dict())
        np.testing.assert_array_equal(trained.predict(PAIRS, "hybrid").values, trained.predict(PAIRS, "stage1").values)

    def test_gradients_reach_every_weight(self, frame, options):
        """But those of stage 1, which stage 2 leaves alone when it is given features without history."""
        cascade = network(settings=config(frame=frame, **options))
        graph = cascade.graph(PAIRS)
        with torch.no_grad():
            output = cascade.stage1(graph)
        node, edge = cascade.stage2(graph, output)
        (node.square().sum() + edge.square().sum()).backward()
        for name, parameter in cascade.stage2.named_parameters():
            assert parameter.grad.any(), name


def test_features_reach_the_group_they_belong_to():
    """Block p's features go to group p; `feature_shift` moves them one group on, and the first is told nothing."""
    for shift in (0, 1):
        cascade = hybrid(n_groups=3, feature_shift=shift)
        graph = cascade.graph(PAIRS)
        output = cascade.stage1(graph)
        before = cascade.stage2.inputs(graph, output)
        output.nodes[1] = 2 * output.nodes[1]
        after = cascade.stage2.inputs(graph, output)
        changed = [bool((a[0] != b[0]).any()) for a, b in zip(before, after, strict=True)]
        assert changed == [p - shift == 1 for p in range(shift, 3)]
        # the last group is told stage 1's own output
        output.edge_out = output.edge_out + 1
        last = cascade.stage2.inputs(graph, output)
        changed = [bool((a[1] != b[1]).any()) for a, b in zip(after, last, strict=True)]
        assert changed == [p == 2 for p in range(shift, 3)]


@torch.no_grad()
@pytest.mark.parametrize("frame", ["edge", "global"])
def test_what_the_transformer_is_told_has_order_one(frame):
    """Columns by themselves in the frame of the edge, all together in the lab, which must not single one out."""
    cascade = network(settings=config(frame=frame))
    graph = cascade.graph(PAIRS)
    output = cascade.stage1(graph)
    cascade.stage2.fit_inputs([(graph, output)] * 2)
    groups = zip(cascade.stage2.inputs(graph, output), cascade.stage2.transformer.input_maps, strict=True)
    for kinds, maps in groups:
        for rows, linear in zip(kinds, maps, strict=True):
            mean, deviation = rows.mean(0), rows.std(0, correction=0)
            rms = rows.square().mean().sqrt()
            if frame == "edge":
                varying = deviation > 0.1 * rms
                assert varying.sum() > 5
                torch.testing.assert_close(linear.statistics.mean, mean)
                torch.testing.assert_close(linear.statistics.deviation[varying], deviation[varying], rtol=1e-6, atol=0)
                constant = linear.statistics.deviation[~varying]
                torch.testing.assert_close(constant, (0.1 * rms).expand_as(constant))
            else:
                assert not linear.statistics.mean.any()
                torch.testing.assert_close(linear.statistics.deviation, rms.expand_as(linear.statistics.deviation))
            torch.testing.assert_close(linear([(0, rows)]), linear.statistics(rows) @ linear.weight.t())
    invariants = cascade.stage2.transformer.invariants
    products = invariants.statistics(invariants.products(graph))
    torch.testing.assert_close(products.mean(0), torch.zeros_like(products[0]), atol=1e-10, rtol=0)
    assert products.std(0, correction=0).median() == pytest.approx(1.0)


@torch.no_grad()
def test_atoms_without_hoppings_leave_inputs_of_hoppings_as_they_are():
    cascade = network(settings=config())
    before = cascade.stage2.transformer.input_maps[0][1].statistics.deviation.clone()
    graph = cascade.graph(PairList.from_atoms(Atoms("C2", [[0, 0, 0], [0, 0, 9]]), MIXED.cutoffs()))
    cascade.stage2.fit_inputs([(graph, cascade.stage1(graph))])
    of_atoms, of_hoppings, _ = cascade.stage2.transformer.input_maps[0]
    assert torch.equal(of_hoppings.statistics.deviation, before)
    assert all(torch.isfinite(each).all() for each in (of_atoms.statistics.mean, of_atoms.statistics.deviation))


def test_edge_frame_inputs_do_not_turn_and_those_of_the_global_frame_do():
    Q = Rotation.random(random_state=3).as_matrix()
    for frame in ("edge", "global"):
        cascade = hybrid(frame=frame)
        given = []
        for pairs in (PAIRS, turned_pairs(ATOMS, PAIRS, Q)):
            graph = cascade.graph(pairs)
            groups = cascade.stage2.inputs(graph, cascade.stage1(graph))
            given.append([rows for kinds in groups for rows in kinds])
        for one, other in zip(*given, strict=True):
            change = float((one - other).detach().abs().max())
            # norms are sqrt(x^2 + 1e-8), whose slope at zero is up to 1e4 times that of x^2
            assert change < 1e-9 if frame == "edge" else change > 0.01


def test_edge_frame_tells_of_both_atoms_in_the_frame_of_the_edge():
    cascade = hybrid(frame="edge")
    graph, layout = cascade.graph(PAIRS), cascade.stage1.layout
    output = cascade.stage1(graph)
    frames, frame = graph.frames(layout.lmax), cascade.stage2.frame
    into = frames.into(output.nodes[0], layout)
    rows = [output.edges[0], into, frames.partner(into, layout)]
    expected = torch.cat([part for row in rows for part in frame.edge_invariants(row)], dim=1)
    torch.testing.assert_close(cascade.stage2.inputs(graph, output)[0][1], expected)


def test_correction_is_in_units_of_the_residuals_scale():
    cascade = network()
    before = cascade.predict(PAIRS, "hybrid") - cascade.predict(PAIRS, "stage1")
    cascade.scale2.node_sigma *= 2
    cascade.scale2.log_sigma[:, :, 3] += np.log(2)
    after = cascade.predict(PAIRS, "hybrid") - cascade.predict(PAIRS, "stage1")
    assert isinstance(after, PairBlocks)
    np.testing.assert_allclose(after.values, 2 * before.values, atol=1e-10)
