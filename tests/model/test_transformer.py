"""The graph Transformer against its equations written out atom by atom, and the invariants it starts from."""

import numpy as np
import pytest
import torch
from ase import Atoms
from scipy.spatial.transform import Rotation
from scipy.special import eval_legendre
from torch import nn

from ase_hybridham.model import Cascade, PairGraph
from ase_hybridham.model.edgeframes import Chunk
from ase_hybridham.model.invariants import DensityInvariants, TupleInvariants
from ase_hybridham.model.pairrows import PairRows
from ase_hybridham.system import PairList
from tests.benchmarks.costs import tensor_memory
from tests.model.networks import MIXED, config, network, structure, turned

ATOMS = structure(MIXED, 11, n_atoms=6, pbc=(True, True, True))


def pairs_of(atoms: Atoms) -> PairList:
    return PairList.from_atoms(atoms, MIXED.cutoffs())


def graph_of(cascade: Cascade, atoms: Atoms) -> PairGraph:
    return cascade.graph(pairs_of(atoms))


def cascade_with(**stage2: object) -> Cascade:
    return network(settings=config(**stage2))


class TestDensity:
    @torch.no_grad()
    def test_products_are_sums_over_pairs_of_neighbors_with_their_angle(self):
        """Addition theorem: sum_m A_lm A'_lm / (2l+1) = sum_jk g_j g'_k P_l(cos theta_jk)."""
        cascade = cascade_with()
        invariants = cascade.stage2.transformer.invariants
        assert isinstance(invariants, DensityInvariants)
        graph, pairs = graph_of(cascade, ATOMS), pairs_of(ATOMS)
        weight = invariants.radial(invariants.gaussians(graph.distance))
        weight = (weight * invariants.species(graph.species)[graph.edge_index[1]]).numpy()
        x = pairs.distances[pairs.hopping] / cascade.vocabulary.pair_reach(9.9).numpy()[graph.element_pair.numpy()]
        weight *= (1 - 28 * x**6 + 48 * x**7 - 21 * x**8)[:, None] * cascade.domain.n_neighbors**-0.5
        unit = pairs.vectors[pairs.hopping] / pairs.distances[pairs.hopping, None]
        rows = invariants.products(graph).numpy()
        i = pairs.i[pairs.hopping]
        for atom in range(len(ATOMS)):
            mine = i == atom
            assert mine.sum() > 2
            cosines = (unit[mine] @ unit[mine].T).clip(-1, 1)
            expected = [weight[mine].T @ eval_legendre(l, cosines) @ weight[mine] for l in range(5)]
            np.testing.assert_allclose(rows[atom], np.ravel(expected), atol=1e-12)

    @torch.no_grad()
    def test_neighbors_at_the_cutoff_come_in_smoothly(self):
        """What is left of a neighbor goes as the cube of its distance from the cutoff."""
        cascade = cascade_with()
        values = []
        for gap in (0.3, 3e-3, -3e-3):  # S leaves C at 4.2 angstrom
            atoms = Atoms("CCS", [[0, 0, 0], [1.3, 0, 0], [0, 0, 4.2 - gap]])
            values.append(cascade.stage2.transformer.invariants(graph_of(cascade, atoms)).numpy()[0])
        assert np.abs(values[0] - values[2]).max() > 1e-6
        assert np.abs(values[1] - values[2]).max() < 1e-4 * np.abs(values[0] - values[2]).max()


class TestTuples:
    @torch.no_grad()
    def test_neighbors_two_by_two_in_order_of_distance(self):
        cascade = cascade_with(invariants="tuples")
        invariants = cascade.stage2.transformer.invariants
        assert isinstance(invariants, TupleInvariants)
        graph, pairs = graph_of(cascade, ATOMS), pairs_of(ATOMS)
        rows = invariants(graph).numpy()
        odd = 0
        for atom in range(len(ATOMS)):
            mine = [p for p in range(pairs.n_atoms, len(pairs)) if pairs.i[p] == atom]
            mine.sort(key=lambda p: (pairs.distances[p], p))
            odd += len(mine) % 2
            total = np.zeros(rows.shape[1])
            for first, second in zip(mine[::2], mine[1::2], strict=False):  # the odd one is dropped
                u, v = (pairs.vectors[p] / pairs.distances[p] for p in (first, second))
                told = [
                    torch.cat(
                        [
                            invariants.species(graph.species[pairs.j[p]]),
                            invariants.gaussians(torch.tensor([pairs.distances[p]]))[0],
                        ]
                    )
                    for p in (first, second)
                ]
                angle = torch.full((8,), float(u @ v), dtype=torch.float64)
                total += invariants.out(torch.cat([*told, angle])).numpy()
            np.testing.assert_allclose(rows[atom], total * cascade.domain.n_neighbors**-0.5, atol=1e-12)
        assert odd


@torch.no_grad()
@pytest.mark.parametrize("kind", ["density", "tuples"])
def test_invariants_are_invariant(kind):
    """No two neighbors are equally far, so that tuples are unique, too."""
    cascade = cascade_with(invariants=kind)
    invariants = cascade.stage2.transformer.invariants
    before = invariants(graph_of(cascade, ATOMS)).numpy()
    for Q in (Rotation.random(random_state=1).as_matrix(), -np.eye(3)):
        np.testing.assert_allclose(invariants(graph_of(cascade, turned(ATOMS, Q))).numpy(), before, atol=1e-11)
    order = np.random.default_rng(0).permutation(len(ATOMS))
    permuted = invariants(graph_of(cascade, ATOMS[order])).numpy()
    if kind == "density":  # a pair and its mirror image j, i have one length: tuples depend on the order of atoms
        np.testing.assert_allclose(permuted, before[order], atol=1e-11)
    assert np.abs(before - before[::-1]).max() > 0.01


def rows_of_pairs(i: torch.Tensor, j: torch.Tensor, n_atoms: int) -> tuple[PairRows, torch.Tensor]:
    """The pairs of some atoms as `PairRows`, and which pair each row is."""
    hoppings = torch.nonzero(i != j).ravel()
    graph = PairGraph(species=torch.zeros(n_atoms), edge_index=torch.stack([i, j])[:, hoppings])
    pairs = PairRows(graph, Chunk(slice(0, n_atoms), slice(0, len(hoppings)), None))
    return pairs, pairs.merged(torch.nonzero(i == j).ravel(), hoppings)


@torch.no_grad()
@pytest.mark.parametrize("n_heads", [1, 2])
@pytest.mark.parametrize("residual", ["fused", "paper"])
def test_block_is_attention_and_edge_update_written_out(residual, n_heads):
    """Eq. 3-5: softmax over the pairs of each atom, head by head, with the envelope of each pair."""
    width = 6
    cascade = cascade_with(residual=residual, width=width, n_heads=n_heads)
    block = cascade.stage2.transformer.blocks[1]
    rng = np.random.default_rng(0)
    i = torch.tensor([0, 0, 0, 1, 1, 2])
    j = torch.tensor([1, 2, 0, 0, 1, 2])
    node, edge = (torch.from_numpy(rng.normal(size=(n, width))) for n in (3, 6))
    log_envelope = torch.from_numpy(-rng.uniform(0, 3, size=6))
    pairs, order = rows_of_pairs(i, j, len(node))
    padded = pairs.padded(log_envelope[order, None]).masked_fill(pairs.missing[:, :, None], -torch.inf)
    new_node, (new_edge,) = block([pairs], node, [edge[order]], [padded.transpose(1, 2)])
    new_edge = new_edge[torch.argsort(order)]

    key_value = block.key_value_node(node)[j] + block.key_value_edge(edge)
    keys, values = key_value[:, :width].numpy(), key_value[:, width:].numpy()
    queries = block.query(node).numpy()
    size = width // n_heads
    mixed = np.zeros((3, width))
    for atom in range(3):
        mine = np.flatnonzero(i.numpy() == atom)
        for head in range(n_heads):
            part = slice(head * size, (head + 1) * size)
            scores = keys[mine, part] @ queries[atom, part] / np.sqrt(size)
            weights = np.exp(scores) * np.exp(log_envelope.numpy()[mine])
            mixed[atom, part] = weights / weights.sum() @ values[mine, part]
    middle = block.node_norm(block.out(torch.from_numpy(mixed)) + node)
    expected = block.node_mlp(middle) + (middle if residual == "fused" else 0)
    torch.testing.assert_close(new_node, expected, atol=1e-12, rtol=0)
    hidden = block.edge_i(expected)[i] + block.edge_j(expected)[j] + block.edge_own(edge)
    change = block.edge_out(nn.functional.silu(hidden))
    expected_edge = block.edge_norm(edge + change) if residual == "fused" else change
    torch.testing.assert_close(new_edge, expected_edge, atol=1e-12, rtol=0)
    assert mixed.any()


@torch.no_grad()
def test_features_of_stage1_enter_once_at_the_start_of_their_group():
    """Eq. 1: the weights alpha, lambda multiply maps of their own per group; blocks see the sum only."""
    groups, blocks = 3, 2
    cascade = cascade_with(n_groups=groups, n_blocks=blocks)
    transformer = cascade.stage2.transformer
    calls: list[str] = []
    for p in range(groups):
        transformer.node_maps[p].register_forward_hook(lambda *_, p=p: calls.append(f"group {p}"))
    for block in transformer.blocks:
        block.register_forward_hook(lambda *_: calls.append("block"))
    cascade(graph_of(cascade, ATOMS))
    assert calls == [word for p in range(groups) for word in (f"group {p}", *["block"] * blocks)]


@torch.no_grad()
@pytest.mark.parametrize(("option", "part"), [("alpha", "node"), ("lambda", "edge"), ("beta", "invariants")])
def test_weights_of_the_fusion(option, part):
    """With its weight at zero, what a part says does not matter."""
    for weight, matters in ((0.0, False), (0.5, True)):
        cascade = cascade_with(**{option: weight})
        graph = graph_of(cascade, ATOMS)
        node, edge = cascade(graph)
        transformer = cascade.stage2.transformer
        changed = {
            "node": transformer.node_maps,
            "edge": nn.ModuleList([*transformer.edge_maps, *transformer.onsite_maps]),
            "invariants": transformer.invariants,
        }[part]
        for parameter in changed.parameters():
            parameter.add_(torch.randn_like(parameter))
        new_node, new_edge = cascade(graph)
        change = max((new_node - node).abs().max(), (new_edge - edge).abs().max())
        assert (change > 1e-3) == matters


class TestChunks:
    """Atoms with all their pairs pass in ranges: with little memory, and the same result."""

    @pytest.mark.parametrize(
        "options", [{}, {"frame": "global"}, {"feature_shift": 1, "invariants": "tuples"}], ids=str
    )
    def test_prediction(self, monkeypatch, options):
        cascade = cascade_with(**options)
        graph = graph_of(cascade, ATOMS)
        with torch.no_grad():
            whole = cascade(graph)
            for n_edges in (1, 40):
                monkeypatch.setattr("ase_hybridham.model.cascade.PREDICTION_EDGES", n_edges)
                for found, expected in zip(cascade(graph), whole, strict=True):
                    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)

    @pytest.mark.parametrize("frame", ["edge", "global"])
    def test_gradient(self, frame):
        cascade = cascade_with(frame=frame)
        graph, gradients = graph_of(cascade, ATOMS), []
        with torch.no_grad():
            output = cascade.stage1(graph)
        for n_edges in (None, 40):
            cascade.stage2.edges_per_chunk = n_edges
            cascade.stage2.zero_grad()
            node, edge = cascade.stage2(graph, output)
            (node.square().sum() + edge.square().sum()).backward()
            gradients.append([parameter.grad.clone() for parameter in cascade.stage2.parameters()])
        for whole, chunked in zip(*gradients, strict=True):
            torch.testing.assert_close(chunked, whole, rtol=1e-9, atol=1e-9)

    def test_memory(self):
        """Of training, in chunks; it keeps the rows of pairs between blocks, not what blocks make of them."""
        cascade, atoms = cascade_with(n_blocks=4, width=16), structure(MIXED, 1, n_atoms=40, pbc=(True, True, True))
        graph, found = graph_of(cascade, atoms), []
        with torch.no_grad():
            output = cascade.stage1(graph)

        def step() -> None:
            node, edge = cascade.stage2(graph, output)
            (node.sum() + edge.sum()).backward()

        for n_edges in (None, len(graph.reverse) // 20):
            cascade.stage2.edges_per_chunk = n_edges
            found.append(tensor_memory(step))
        assert found[1] < found[0] / 3
