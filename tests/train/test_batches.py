"""Batches have what they should, wherever the graphs lie."""

import os
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from ase_hybridham.model import PairGraph
from ase_hybridham.train.batches import Budget, Graphs, batches, n_bytes_of, n_hoppings, steps_of
from ase_hybridham.train.data import few_of


def graph(k: int) -> PairGraph:
    """A graph with k + 1 hoppings whose tensors all differ."""
    rng = np.random.default_rng(k)
    return PairGraph(
        species=torch.tensor([k, 0]),
        edge_index=torch.from_numpy(rng.integers(0, 2, (2, k + 1))),
        reverse=torch.arange(k + 1),
        element_pair=torch.full((k + 1,), k // 3),
        distance=torch.from_numpy(rng.normal(size=k + 1)),
        node_target=torch.zeros(2, 0),
        align_1=torch.from_numpy(rng.normal(size=(k + 1, 3, 3))).float(),
        num_nodes=2,
    )


def assert_same(one: PairGraph, other: PairGraph) -> None:
    assert sorted(one.keys()) == sorted(other.keys())
    assert one.num_nodes == other.num_nodes
    for key in ("species", "edge_index", "reverse", "element_pair", "distance", "node_target", "align_1"):
        assert one[key].dtype == other[key].dtype
        assert one[key].shape == other[key].shape
        assert torch.equal(one[key], other[key]), key


class TestSteps:
    def test_every_structure_once(self):
        sizes = [5] * 7
        assert [step.tolist() for step in steps_of(sizes, 3)] == [[0, 1, 2], [3, 4, 5], [6]]
        random = [step.tolist() for step in steps_of(sizes, 3, rng=np.random.default_rng(0))]
        assert [len(step) for step in random] == [3, 3, 1]
        order = [k for step in random for k in step]
        assert sorted(order) == list(range(7)) != order
        assert random == [step.tolist() for step in steps_of(sizes, 3, rng=np.random.default_rng(0))]

    def test_hoppings_of_a_step_are_bounded(self):
        assert [s.tolist() for s in steps_of([4, 4, 9, 1, 1, 2], 1, 8)] == [[0, 1], [2], [3, 4, 5]]
        sizes = np.random.default_rng(1).integers(1, 40, 100)
        steps = steps_of(sizes, 1, 60, np.random.default_rng(2))
        assert sorted(np.concatenate(steps).tolist()) == list(range(100))
        assert max(sizes[step].sum() for step in steps) <= 60
        for step, following in pairwise(steps):  # nothing more would have fitted
            assert sizes[step].sum() + sizes[following[0]] > 60
        other = steps_of(sizes, 1, 60, np.random.default_rng(3))
        assert [s.tolist() for s in other] != [s.tolist() for s in steps]

    def test_nothing(self):
        assert list(batches([], steps_of([], 2), [])) == []


class TestDisk:
    @pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
    def test_it_gives_back_what_it_was_given(self, share, tmp_path):
        given = [graph(k) for k in range(6)]
        budget = Budget(share * sum(map(n_bytes_of, given)), tmp_path)
        graphs = Graphs(given, budget)
        assert graphs.on_disk == (share < 1)
        assert budget.left >= 0
        assert list(tmp_path.iterdir()) == []  # a file without a name
        for mine, theirs in zip(graphs, given, strict=True):
            assert_same(mine, theirs)
        for k in (4, 0):
            graphs[k] = given[k] = graph(10 + k)
        for mine, theirs in zip(graphs, given, strict=True):
            assert_same(mine, theirs)

    def test_memory_that_is_freed_is_used_again(self, tmp_path):
        small, large = graph(0), graph(5)
        graphs = Graphs([large, small], Budget(n_bytes_of(large), tmp_path))
        assert graphs[0] is large
        assert graphs[1] is not small
        graphs[0] = small
        graphs[1] = small
        assert graphs[1] is small

    def test_batches_are_those_of_memory(self, tmp_path):
        given = [graph(k) for k in range(9)]
        steps, sizes = steps_of(n_hoppings(given), 2, rng=np.random.default_rng(0)), n_hoppings(given)
        assert sizes == list(range(1, 10))
        here = list(batches(given, steps, sizes))
        there = list(batches(Graphs(given, Budget(0.0, tmp_path)), steps, sizes))
        assert len(here) == len(there) == 5
        for one, other, step in zip(here, there, steps, strict=True):
            assert one.part is one.whole
            assert_same(one.whole, other.whole)
            assert_same(one.whole, Batch.from_data_list([given[k] for k in step]))

    def test_an_error_in_the_background_comes_out(self, tmp_path):
        graphs = Graphs([graph(0), graph(1)], Budget(0.0, tmp_path))
        os.truncate(graphs._file, 0)
        with pytest.raises(OSError, match="shorter than it was"):
            list(batches(graphs, steps_of([1, 2]), [1, 2]))


def test_scales_are_fitted_to_a_share_that_has_all_pairs_of_elements():
    graphs = [graph(k % 3) for k in range(41)] + [graph(5)] + [graph(k % 3) for k in range(40)]
    assert few_of(graphs, 1000) is graphs
    few = few_of(graphs, 50)
    assert 30 < sum(n_hoppings(few)) < 70
    assert any(torch.equal(g.species, torch.tensor([5, 0])) for g in few)
