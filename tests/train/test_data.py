"""What is read of a data set, what phase 2 caches, and copies turned without running stage 1 again."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from scipy.spatial.transform import Rotation
from torch_geometric.data import Batch

from ase_hybridham.errors import FormatError
from ase_hybridham.model import Cascade, ModelConfig, PairGraph, turn_components
from ase_hybridham.store import DataSet, append_systems
from ase_hybridham.symmetry import rotate_blocks
from ase_hybridham.system import AtomBasis, Basis
from ase_hybridham.train.data import add_stage1, domain_of, graphs_of, rotated, stage1_output
from tests.model.networks import MIXED, config, graph_of, network, random_hamiltonian, structure
from tests.train.synthetic import BASIS, SPINOR_OPTIONS, SPLITS, atoms_of, spinful, system_of

HAMILTONIANS = [random_hamiltonian(structure(MIXED, s, n_atoms=6), MIXED, s) for s in (10, 11)]


def cached(cascade: Cascade) -> list[PairGraph]:
    """Graphs of two structures with what stage 1 gives for them."""
    graphs = [graph_of(h, cascade) for h in HAMILTONIANS]
    add_stage1(graphs, cascade)
    return graphs


class TestDomain:
    def test_it_is_measured(self, data_set):
        with DataSet(data_set) as data:
            domain = domain_of(data, SPLITS["train"])
            pairs = [data[name].pairs for name in SPLITS["train"]]
        assert domain.basis == BASIS
        assert domain.reach == pytest.approx(max(p.distances.max() for p in pairs) + 0.05)
        assert domain.n_neighbors == pytest.approx(np.mean([p.n_hoppings for p in pairs]) / 3)

    def test_elements_that_are_not_trained_are_not_in_the_basis(self, tmp_path):
        """A network would give random numbers for them."""
        path = tmp_path / "d.h5"
        both = [("ch", system_of(atoms_of(0))), ("c", system_of(atoms_of(1)[:2]))]
        append_systems(path, both)
        with DataSet(path) as data:
            assert list(domain_of(data, ["c"]).basis.atoms) == ["C"]
            assert list(domain_of(data, ["c", "ch"]).basis.atoms) == list(data.basis.atoms)

    def test_magnetism_is_seen(self, tmp_path, caplog):
        """A field of 0.2 meV on one atom of one structure."""
        plain = spinful(system_of(atoms_of(0)))
        H = plain.hamiltonian[0]
        field = H.with_values(0.0 * H.values)
        n = H.shape(0)[0] // 2
        field.block(0)[:] = np.kron([[1e-4, 0], [0, -1e-4]], np.eye(n))
        magnetic = replace(plain, hamiltonian=(H + field,))
        append_systems(tmp_path / "d.h5", [("a", plain), ("b", magnetic)])
        with DataSet(tmp_path / "d.h5") as data:
            domain = domain_of(data, ["a"])
            assert (domain.spin, domain.time_reversal) == ("spinor", True)
            assert not caplog.messages
            assert not domain_of(data, ["a", "b"]).time_reversal
            (message,) = caplog.messages
            assert message.startswith(f"{data.path}: 1 of 2 structures are magnetic (b, ...)")
            cascade = Cascade(ModelConfig(**SPINOR_OPTIONS["model"]), domain)
            assert len(graphs_of(data, ["a"], cascade)) == 1
            with pytest.raises(FormatError, match=r"structure b: expected time reversal .* by 0\.0002 eV"):
                graphs_of(data, ["a", "b"], cascade)

    def test_nothing_to_learn(self, tmp_path):
        append_systems(tmp_path / "d.h5", [("a", system_of(Atoms("C"))), ("b", system_of(Atoms("H")))])
        with DataSet(tmp_path / "d.h5") as data:
            with pytest.raises(ValueError, match=r"d\.h5: the training split is empty"):
                domain_of(data, [])
            with pytest.raises(ValueError, match=r"d\.h5: no hopping"):
                domain_of(data, ["a", "b"])

    def test_radii_are_needed(self, tmp_path):
        no_radius = Basis.of(AtomBasis.from_degrees("C", [0, 1], valence=4))
        h = random_hamiltonian(atoms_of(0)[:2], BASIS)
        blocks = replace(h, basis=no_radius)
        system = replace(system_of(atoms_of(0)[:2]), hamiltonian=(blocks,), overlap=None)
        append_systems(tmp_path / "d.h5", [("a", system)])
        with DataSet(tmp_path / "d.h5") as data, pytest.raises(ValueError, match="no cutoff radius for C"):
            domain_of(data, ["a"])


class TestGraphs:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_targets_and_type(self, data_set, dtype, device):
        with DataSet(data_set) as data:
            cascade = Cascade(config("4x0e+3x1o+2x2e", dtype=dtype), domain_of(data, ["a"])).to(device)
            graphs = graphs_of(data, ["a", "b"], cascade)
            size = float((data["b"].hamiltonian[0].values ** 2).sum())
        assert len(graphs) == 2
        for values in (graphs[1].node_target, graphs[1].edge_target, graphs[1].distance, graphs[1].align_2):
            assert values.dtype == getattr(torch, dtype)
            assert values.device.type == device
        found = float(graphs[1].node_target.double().square().sum() + graphs[1].edge_target.double().square().sum())
        assert found == pytest.approx(size, rel=1e-6)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_a_hamiltonian_that_is_not_finite(self, tmp_path, value):
        system = system_of(atoms_of(0))
        values = system.hamiltonian[0].values.copy()
        values[7] = value
        broken = replace(system, hamiltonian=(system.hamiltonian[0].with_values(values),))
        append_systems(tmp_path / "d.h5", [("good", system), ("bad", broken)])
        with DataSet(tmp_path / "d.h5") as data:
            cascade = Cascade(config("4x0e+3x1o+2x2e"), domain_of(data, ["good", "bad"]))
            with pytest.raises(FormatError, match=r"d\.h5: .* structure bad is not finite"):
                graphs_of(data, ["good", "bad"], cascade)


class TestCache:
    def test_what_stage1_leaves(self):
        cascade = network()
        graphs = cached(cascade)
        for graph, h in zip(graphs, HAMILTONIANS, strict=True):
            original = graph_of(h, cascade)
            node, edge = cascade(original, "stage1")
            torch.testing.assert_close(graph.node_target + node, original.node_target)
            torch.testing.assert_close(graph.edge_target + edge, original.edge_target)
            assert not graph.node_target.requires_grad

    def test_stage2_sees_the_same_as_in_the_whole_network(self):
        cascade = network()
        batch = Batch.from_data_list(cached(cascade))
        output = stage1_output(batch, 3)
        node, edge = cascade.scale2(batch, *cascade.stage2(batch, output))
        whole, base = cascade(batch, "hybrid"), cascade(batch, "stage1")
        torch.testing.assert_close(node, whole[0] - base[0], atol=1e-11, rtol=0)
        torch.testing.assert_close(edge, whole[1] - base[1], atol=1e-11, rtol=0)
        assert not any(rows.requires_grad for rows in [*output.nodes, *output.edges, *output.onsite])


def edges_in_lab(graph: PairGraph, rows: torch.Tensor, cascade: Cascade) -> torch.Tensor:
    """Direct-sum components of hoppings by the frames that the graph has."""
    frames = [torch.ones(len(rows), 1, 1, dtype=rows.dtype), *(graph[f"align_{l}"] for l in range(1, 5))]
    out = torch.zeros_like(rows)
    for t, target in enumerate(cascade.vocabulary.targets):
        index = torch.nonzero(graph.element_pair == t).ravel()
        picked = rows[index, : target.direct_sum.size]
        out[index, : target.direct_sum.size] = turn_components(
            picked, target.direct_sum, [frame[index] for frame in frames], back=True
        )
    return out


class TestRotated:
    def test_it_is_what_stage1_gives_for_the_turned_structures(self):
        """Frames may differ by a turn about the edge, so quantities are compared in the lab."""
        cascade = network()
        batch = Batch.from_data_list(cached(cascade))
        copy = rotated(batch, cascade, np.random.default_rng(5))
        rotations = Rotation.random(2, rng=np.random.default_rng(5)).as_matrix()
        turned = [rotate_blocks(h, Q) for h, Q in zip(HAMILTONIANS, rotations, strict=True)]
        graphs = [graph_of(h, cascade) for h in turned]
        add_stage1(graphs, cascade)
        expected = Batch.from_data_list(graphs)
        one, other = stage1_output(copy, 3), stage1_output(expected, 3)

        def same(a: torch.Tensor, b: torch.Tensor, before: torch.Tensor) -> None:
            torch.testing.assert_close(a, b, atol=1e-9, rtol=0)
            assert (a - before).abs().max() > 0.01

        before = stage1_output(batch, 3)
        for block in range(3):
            same(one.nodes[block], other.nodes[block], before.nodes[block])
            same(one.onsite[block], other.onsite[block], before.onsite[block])
            frames, their_frames, old = (g.frames(4) for g in (copy, expected, batch))
            layout = cascade.stage1.layout
            same(
                frames.to_lab(one.edges[block], layout),
                their_frames.to_lab(other.edges[block], layout),
                old.to_lab(before.edges[block], layout),
            )
        same(one.node_out, other.node_out, before.node_out)
        same(copy.node_target, expected.node_target, batch.node_target)
        for name in ("edge_target", "stage1_edge_out"):
            same(*(edges_in_lab(g, g[name], cascade) for g in (copy, expected, batch)))
        np.testing.assert_array_equal(copy.distance, batch.distance)

    def test_structures_turn_each_by_itself(self):
        cascade = network()
        copy = rotated(Batch.from_data_list(cached(cascade)), cascade, np.random.default_rng(0))
        alone = rotated(Batch.from_data_list(cached(cascade)[:1]), cascade, np.random.default_rng(0))
        n = alone.num_nodes
        torch.testing.assert_close(copy.stage1_node_1[:n], alone.stage1_node_1)
        first, second = copy.align_1[0], copy.align_1[-1]
        batch = Batch.from_data_list(cached(cascade))
        turns = [a.T @ b for a, b in ((first, batch.align_1[0]), (second, batch.align_1[-1]))]
        assert (turns[0] - turns[1]).abs().max() > 0.1

    def test_the_original_stays(self):
        cascade = network()
        batch = Batch.from_data_list(cached(cascade))
        before = {key: value.clone() for key, value in batch.to_dict().items() if isinstance(value, torch.Tensor)}
        rotated(batch, cascade, np.random.default_rng(0))
        for key, value in before.items():
            assert torch.equal(batch[key], value), key

    @pytest.mark.parametrize("frame", ["edge", "global"])
    def test_only_the_global_frame_learns_from_them(self, frame):
        cascade = network(settings=config(frame=frame))
        batch = Batch.from_data_list(cached(cascade))
        copy = rotated(batch, cascade, np.random.default_rng(0))
        losses = []
        for graph in (batch, copy):
            node, edge = cascade.scale2(graph, *cascade.stage2(graph, stage1_output(graph, 3)))
            loss = ((node - graph.node_target) ** 2).sum() + ((edge - graph.edge_target) ** 2).sum()
            losses.append(loss.item())
        if frame == "edge":
            assert losses[0] == pytest.approx(losses[1], rel=1e-10)
        else:
            assert abs(losses[0] - losses[1]) > 1e-3 * losses[0]
