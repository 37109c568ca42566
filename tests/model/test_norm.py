"""Norms turn with the rows; the local one looks at one row, the graph's at all of a structure."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ase_hybridham.model.layout import FeatureLayout
from ase_hybridham.model.norm import LocalNorm
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
