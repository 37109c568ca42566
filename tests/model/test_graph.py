"""Graphs of structures: frames of edges, targets in them, and back to blocks."""

import numpy as np
import pytest
import torch
from ase import Atoms
from scipy.spatial.transform import Rotation
from torch_geometric.data import Batch

from ase_hybridham.errors import CheckpointError
from ase_hybridham.model import PairGraph, Vocabulary, blocks_from_components, turn_components
from ase_hybridham.model.layout import FeatureLayout
from ase_hybridham.model.linear import row_types
from ase_hybridham.symmetry import alignment_matrices, rotate_blocks
from ase_hybridham.system import AtomBasis, Basis, PairBlocks, PairList
from tests.model.networks import MIXED, random_hamiltonian, structure

LAYOUTS = {"natural": FeatureLayout((4, 3, 2, 1)), "both parities": FeatureLayout((4, 3, 2), (1, 2, 0, 2))}
STRUCTURES = {
    "uneven": structure(MIXED, 1, n_atoms=6),
    "even": Atoms("CMo", [[0, 0, 0], [1.5, 1.5, 1.5]], cell=[3.0, 3.0, 3.0], pbc=True),
    "own image": Atoms("S", cell=[2.4, 2.6, 9.0], pbc=True),
    "no hopping": Atoms("CS", [[0, 0, 0], [9, 0, 0]]),
}


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(MIXED)


@pytest.fixture(params=STRUCTURES)
def pairs(request) -> PairList:
    return PairList.from_atoms(STRUCTURES[request.param], MIXED.cutoffs())


def graph_of(pairs: PairList, vocabulary: Vocabulary, device: str = "cpu") -> PairGraph:
    return PairGraph.from_pairs(pairs, vocabulary, 4, torch.float64).to(device)


@pytest.fixture(params=LAYOUTS)
def layout(request) -> FeatureLayout:
    return LAYOUTS[request.param]


def lab_order(row: np.ndarray, layout: FeatureLayout) -> np.ndarray:
    """A row in the frame of its edge in the lab's order of components."""
    index, sign = layout.edge_to_lab
    return row[index] * sign


def turned_row(row: np.ndarray, layout: FeatureLayout, frames: list[np.ndarray], *, back: bool = False) -> np.ndarray:
    """D_l on each channel of one row in the lab's order."""
    out = []
    start = 0
    for l, mul in enumerate(layout.multiplicities):
        part = row[start : start + (2 * l + 1) * mul].reshape(2 * l + 1, mul)
        out.append(((frames[l].T if back else frames[l]) @ part).ravel())
        start += part.size
    return np.concatenate(out)


class TestFrames:
    """Turning node features in and messages out, against one edge at a time."""

    def test_nodes_of_both_ends_in_the_frame_of_the_edge(self, pairs, vocabulary, layout, device):
        nodes = np.random.default_rng(0).normal(size=(pairs.n_atoms, layout.size))
        frames = graph_of(pairs, vocabulary, device).frames(layout.lmax)
        of_i = frames.into(torch.from_numpy(nodes).to(device), layout)
        of_j = frames.partner(of_i, layout)
        align = alignment_matrices(pairs.vectors, layout.lmax)
        for e, p in enumerate(range(pairs.n_atoms, len(pairs))):
            for rows, atom in ((of_i, pairs.i[p]), (of_j, pairs.j[p])):
                expected = turned_row(nodes[atom], layout, [D[p] for D in align])
                np.testing.assert_allclose(lab_order(rows[e].cpu().numpy(), layout), expected, atol=1e-13)
        assert of_i.shape == (pairs.n_hoppings, layout.size)

    def test_messages_back_in_the_lab(self, pairs, vocabulary, layout, device):
        messages = np.random.default_rng(0).normal(size=(pairs.n_hoppings, layout.size))
        frames = graph_of(pairs, vocabulary, device).frames(layout.lmax)
        there = torch.from_numpy(messages).to(device)
        lab, summed = frames.to_lab(there, layout), frames.sum_out(there, layout)
        align = alignment_matrices(pairs.vectors, layout.lmax)
        expected = np.zeros((pairs.n_atoms, layout.size))
        for e, p in enumerate(range(pairs.n_atoms, len(pairs))):
            row = turned_row(lab_order(messages[e], layout), layout, [D[p] for D in align], back=True)
            np.testing.assert_allclose(lab[e].cpu().numpy(), row, atol=1e-13)
            expected[pairs.i[p]] += row
        np.testing.assert_allclose(summed.cpu().numpy(), expected, atol=1e-12)

    def test_several_layouts_take_turns(self, vocabulary):
        """Index tables are kept per layout."""
        frames = graph_of(PairList.from_atoms(STRUCTURES["even"], MIXED.cutoffs()), vocabulary).frames(3)
        for layout in (*LAYOUTS.values(), FeatureLayout((2, 2)), *LAYOUTS.values()):
            nodes = torch.randn(2, layout.size, dtype=torch.float64)
            back = frames.to_lab(frames.into(nodes, layout), layout)
            atoms = torch.from_numpy(PairList.from_atoms(STRUCTURES["even"], MIXED.cutoffs()).i[2:])
            torch.testing.assert_close(back, nodes[atoms], atol=1e-13, rtol=0)

    def test_middle_row_of_the_alignment_is_the_direction(self, vocabulary):
        """l = 1: y, z, x of the unit vector."""
        pairs = PairList.from_atoms(STRUCTURES["uneven"], MIXED.cutoffs())
        unit = pairs.vectors[pairs.hopping] / pairs.distances[pairs.hopping, None]
        graph = graph_of(pairs, vocabulary)
        np.testing.assert_allclose(graph.align_1[:, 1].numpy(), unit[:, [1, 2, 0]], atol=1e-14)
        np.testing.assert_allclose(graph.distance.numpy(), pairs.distances[pairs.hopping], atol=1e-14)


class TestTargets:
    def test_blocks_come_back(self, pairs, vocabulary, device):
        h = random_on(pairs)
        graph = PairGraph.with_targets((h,), vocabulary, 4, torch.float64).to(device)
        (back,) = blocks_from_components(graph.node_target, graph.edge_target, pairs, vocabulary)
        np.testing.assert_allclose(back.values, h.values, atol=1e-12)
        # components carry the norm of the blocks
        size = (graph.node_target**2).sum() + (graph.edge_target**2).sum()
        assert float(size) == pytest.approx((h.values**2).sum(), rel=1e-12)

    def test_partner_is_hermiticity(self, pairs, vocabulary):
        graph = PairGraph.with_targets((random_on(pairs),), vocabulary, 4, torch.float64)
        edge, node = graph.edge_target.numpy(), graph.node_target.numpy()
        for t in range(vocabulary.n_pairs):
            index, sign = vocabulary.partner[t]
            rows = graph.element_pair.numpy() == t
            reverse = edge[graph.reverse.numpy()[rows]]
            np.testing.assert_allclose(sign * reverse[:, index], edge[rows], atol=1e-12)
        for s in range(vocabulary.n_species):
            index, sign = vocabulary.onsite_partner[s]
            rows = graph.species.numpy() == s
            np.testing.assert_allclose(sign * node[rows][:, index], node[rows], atol=1e-12)

    def test_targets_of_a_turned_structure_differ_by_turns_about_the_edges(self, vocabulary):
        """m = 0 components stay, and the norm over +m and -m."""
        atoms = STRUCTURES["uneven"]
        h = random_hamiltonian(atoms, MIXED)
        Q = Rotation.random(random_state=5).as_matrix()
        before = PairGraph.with_targets((h,), vocabulary, 4, torch.float64)
        after = PairGraph.with_targets((rotate_blocks(h, Q),), vocabulary, 4, torch.float64)
        one, other = before.edge_target.numpy(), after.edge_target.numpy()
        assert np.abs(one - other).max() > 1
        for t, target in enumerate(vocabulary.targets):
            rows = before.element_pair.numpy() == t
            direct_sum = target.direct_sum
            for part in direct_sum.parts:
                for m in range(part.L + 1):
                    columns = [part.start + part.L + m, part.start + part.L - m]
                    norms = [np.linalg.norm(x[rows][:, columns], axis=1) for x in (one, other)]
                    np.testing.assert_allclose(norms[1], norms[0], atol=1e-11)
            axial = direct_sum.order == 0
            np.testing.assert_allclose(
                other[rows][:, : direct_sum.size][:, axial], one[rows][:, : direct_sum.size][:, axial], atol=1e-11
            )

    def test_turned_components_turn_back(self, vocabulary):
        pairs = PairList.from_atoms(STRUCTURES["uneven"], MIXED.cutoffs())
        direct_sum = vocabulary.targets[4].direct_sum
        frames = [torch.from_numpy(D) for D in alignment_matrices(pairs.vectors, 4)]
        rows = torch.randn(len(pairs), direct_sum.size, dtype=torch.float64)
        there = turn_components(rows, direct_sum, frames)
        for p in (7, 20):
            for part in direct_sum.parts:
                torch.testing.assert_close(there[p, part.components], frames[part.L][p] @ rows[p, part.components])
        torch.testing.assert_close(turn_components(there, direct_sum, frames, back=True), rows, atol=1e-12, rtol=0)

    def test_single_precision_targets_are_rounded_last(self, vocabulary):
        h = random_hamiltonian(STRUCTURES["uneven"], MIXED)
        single = PairGraph.with_targets((h,), vocabulary, 4, torch.float32)
        double = PairGraph.with_targets((h,), vocabulary, 4, torch.float64)
        assert single.edge_target.dtype == single.distance.dtype == torch.float32
        torch.testing.assert_close(single.edge_target, double.edge_target.float(), atol=0, rtol=0)


def random_on(pairs: PairList) -> PairBlocks:
    zeros = PairBlocks.zeros(pairs, MIXED)
    return zeros.with_values(np.random.default_rng(0).normal(size=zeros.values.shape)).hermitian_part()


def test_batch_points_at_its_own_atoms_and_edges(vocabulary):
    lists = [PairList.from_atoms(atoms, MIXED.cutoffs()) for atoms in STRUCTURES.values()]
    batch = Batch.from_data_list([graph_of(pairs, vocabulary) for pairs in lists])
    i, j = batch.edge_index
    assert (torch.diff(i) >= 0).all()  # what EdgeFrames needs
    torch.testing.assert_close(batch.reverse[batch.reverse], torch.arange(len(i)))
    torch.testing.assert_close(i[batch.reverse], j)
    torch.testing.assert_close(batch.batch[i], batch.batch[j])
    numbers = np.concatenate([pairs.numbers for pairs in lists])
    np.testing.assert_array_equal(np.array(vocabulary.numbers)[batch.species.numpy()], numbers)
    expected = batch.species[i] * vocabulary.n_species + batch.species[j]
    torch.testing.assert_close(batch.element_pair, expected)


def test_vocabulary_knows_its_pairs(vocabulary):
    assert vocabulary.numbers == (6, 16, 42)
    for s, z in enumerate(vocabulary.numbers):
        assert vocabulary.element_pairs[vocabulary.onsite_pair(s)] == (z, z)
    assert vocabulary.size == 81  # Mo-Mo
    assert vocabulary.lmax == 4
    cutoffs = MIXED.cutoffs()
    expected = [min(4.3, cutoffs[a] + cutoffs[b]) for a, b in vocabulary.element_pairs]
    np.testing.assert_allclose(vocabulary.pair_reach(4.3).numpy(), expected)
    unknown = Vocabulary(Basis.of(AtomBasis.from_degrees("C", [0])))
    assert unknown.pair_reach(4.3).tolist() == [4.3]


def test_unknown_element(vocabulary):
    with pytest.raises(CheckpointError, match="trained for C, S, Mo, the structure has Au"):
        vocabulary.species_of(np.array([6, 79]))


def test_row_types():
    types = torch.tensor([2, 0, 2, 2])
    found = {t: index.tolist() for t, index in row_types(types, 3)}
    assert found == {0: [1], 2: [0, 2, 3]}
    assert row_types(types, 1) == [(0, None)]
    assert row_types(types[:0], 3) == [(0, None)]
