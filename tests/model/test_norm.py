"""Norms turn with the rows; the local one looks at one row, the graph's at all of a structure."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch_geometric.data import Batch

from ase_hybridham.model import PairGraph, Stage1
from ase_hybridham.model.config import Stage1Config
from ase_hybridham.model.layout import FeatureLayout
from ase_hybridham.model.norm import GraphNorm, LocalNorm
from tests.model.networks import IRREPS, MIXED, graph_of, network, perturb, random_hamiltonian, structure
from tests.model.test_layout import MIRROR, about_edge, rows_of, turn_edge, turn_lab


def normed(norm: LocalNorm, rows: torch.Tensor) -> torch.Tensor:
    return norm(rows, torch.zeros_like(rows))


class TestLocalNorm:
    layout = FeatureLayout((6, 4, 3, 2))

    def norm(self, where: str) -> LocalNorm:
        torch.manual_seed(0)
        norm = LocalNorm(self.layout, getattr(self.layout, where)).double()
        torch.nn.init.normal_(norm.bias)
        torch.nn.init.uniform_(norm.weight, 0.5, 2.0)
        return norm

    def test_lab_rows_turn_through_it(self):
        norm, rows = self.norm("lab"), rows_of(self.layout, 0)
        for Q in (Rotation.random(random_state=0).as_matrix(), -np.eye(3)):
            torch.testing.assert_close(
                normed(norm, turn_lab(rows, self.layout, Q)),
                turn_lab(normed(norm, rows), self.layout, Q),
                atol=1e-12,
                rtol=0,
            )

    def test_edge_rows_turn_through_it(self):
        norm, rows = self.norm("edge"), rows_of(self.layout, 0)
        for Q in (about_edge(0.9), MIRROR):
            torch.testing.assert_close(
                normed(norm, turn_edge(rows, self.layout, Q)),
                turn_edge(normed(norm, rows), self.layout, Q),
                atol=1e-12,
                rtol=0,
            )

    def test_rows_are_alone(self):
        norm, rows = self.norm("lab"), rows_of(self.layout, 0)
        together = normed(norm, rows)
        for k in range(len(rows)):
            torch.testing.assert_close(normed(norm, rows[k : k + 1]), together[k : k + 1])

    @pytest.mark.parametrize("where", ["lab", "edge"])
    def test_size_of_the_input_does_not_matter(self, where):
        norm, rows = self.norm(where), rows_of(self.layout, 0)
        # up to the 1e-5 that keeps a vanishing row finite
        torch.testing.assert_close(normed(norm, 100 * rows), normed(norm, rows), atol=1e-4, rtol=0)
        assert torch.isfinite(normed(norm, torch.zeros_like(rows))).all()

    @pytest.mark.parametrize("where", ["lab", "edge"])
    def test_outputs_are_of_order_one(self, where):
        layout = FeatureLayout((64, 32, 16))
        norm = LocalNorm(layout, getattr(layout, where)).double()
        out = normed(norm, 50 * rows_of(layout, 0, n=40) + 7)
        assert 0.5 < float(out.detach().square().mean().sqrt()) < 1.5

    @pytest.mark.parametrize("where", ["lab", "edge"])
    def test_a_degree_that_vanishes_stays_small(self, where):
        """In ideal crystals degrees vanish by symmetry but for rounding, which must not be made a feature."""
        norm, rows = self.norm(where), rows_of(self.layout, 0)
        degree = self.layout.channel_degree[getattr(self.layout, where).channel]
        for l in (1, 2, 3):
            noisy = rows.clone()
            noisy[:, degree == l] *= 1e-14
            assert normed(norm, noisy)[:, degree == l].abs().max() < 1e-12
            assert normed(norm, noisy)[:, degree != l].abs().max() > 0.1


class TestGraphNorm:
    """Of DeepH-E3: statistics of every structure, in the lab, whatever frames its rows stand in."""

    layout = FeatureLayout((5, 3, 2), (2, 1))

    def stage1(self) -> Stage1:
        config = Stage1Config(irreps=IRREPS, n_gaussians=12, radial_width=8, norm="graph", envelope=False)
        stage1 = Stage1(config, network().vocabulary, 5.0, 12.0).double()
        perturb(stage1)
        return stage1

    def graphs(self) -> list[PairGraph]:
        cascade = network()
        structures = [structure(MIXED, seed, n_atoms=n) for seed, n in ((1, 6), (2, 4), (3, 5))]
        return [graph_of(random_hamiltonian(atoms, MIXED), cascade) for atoms in structures]

    def test_structures_of_a_batch_do_not_mix(self):
        stage1, graphs = self.stage1(), self.graphs()
        together = stage1(Batch.from_data_list(graphs))
        edge_start = node_start = 0
        for graph in graphs:
            alone = stage1(graph)
            edges = slice(edge_start, edge_start + len(graph.distance))
            nodes = slice(node_start, node_start + graph.num_nodes)
            torch.testing.assert_close(together.edge_out[edges], alone.edge_out, atol=1e-11, rtol=1e-11)
            torch.testing.assert_close(together.node_out[nodes], alone.node_out, atol=1e-11, rtol=1e-11)
            edge_start, node_start = edges.stop, nodes.stop

    def test_prediction_in_chunks_is_the_same(self, monkeypatch):
        stage1, graph = self.stage1(), self.graphs()[0]
        with torch.no_grad():
            together = stage1(graph)
            monkeypatch.setattr("ase_hybridham.model.equivariant.PREDICTION_EDGES", 7)
            apart = stage1(graph, features=False)
        torch.testing.assert_close(apart.edge_out, together.edge_out, atol=1e-11, rtol=1e-11)

    def test_mean_over_the_structure_is_the_bias(self):
        """Mean of every irrep, in the lab, and rms of scalars, over hoppings and on-site pairs together."""
        graph = self.graphs()[0]
        frames, norm = graph.frames(2), GraphNorm(self.layout).double()
        edges, nodes = rows_of(self.layout, 0, n=len(graph.distance)), rows_of(self.layout, 1, n=graph.num_nodes)
        index = torch.zeros(graph.num_nodes, dtype=torch.long)
        zeros = (torch.zeros_like(edges), torch.zeros_like(nodes))
        hopping, onsite = norm.pairs((edges + 2.0, zeros[0]), (nodes - 1.0, zeros[1]), frames, index, 1)
        lab = torch.cat([frames.to_lab(hopping, self.layout), onsite])
        channels, orders = self.layout.lab.channel, self.layout.lab.order
        degree, natural = self.layout.channel_degree[channels], self.layout.channel_natural[channels]
        for l in range(3):
            for parity in (True, False):
                for m in range(-l, l + 1):
                    part = lab[:, (degree == l) & (natural == parity) & (orders == m)]
                    if part.shape[1]:
                        assert abs(float(part.detach().mean())) < 1e-12
                        assert l > 0 or float(part.detach().square().mean()) == pytest.approx(1.0, rel=1e-4)
        assert frames.to_lab(edges + 2.0, self.layout).mean(0).abs().max() > 0.1

    def test_pseudoscalars_that_vanish_have_derivatives(self):
        """As in flat structures."""
        norm = GraphNorm(self.layout).double()
        rows = rows_of(self.layout, 0)
        rows[:, self.layout.n_scalars : self.layout.multiplicities[0]] = 0.0
        rows.requires_grad_()
        out = norm.nodes(rows, torch.zeros_like(rows), torch.zeros(len(rows), dtype=torch.long), 1)
        (gradient,) = torch.autograd.grad(out.square().sum(), rows)
        assert torch.isfinite(gradient).all()
