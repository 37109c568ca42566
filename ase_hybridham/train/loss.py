"""What training makes small: one number for the difference between predicted and known components of H.

Components are orthonormal, |h|^2 = |H|^2: the mean square over them is that of H itself. mu is the shift of a
structure, the best d = mu S for the difference d of all its blocks. Letters: N atoms, E hoppings.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ase_hybridham.model import PairGraph, TargetScale, Vocabulary
from ase_hybridham.train.config import PhaseConfig

__all__ = ["Loss", "aligned", "shifts", "without_shift"]

MEV = 1e3
# eV: parts with a smaller scale than this would have all the weight; bands do not feel them
SMALLEST_SCALE = 1e-3
# eV^2 under the root of a trace, whose slope would be infinite where a block vanishes
SOFT = 1e-10


class Loss:
    """Loss of a batch, a mean over the components of H.

    Parameters
    ----------
    config : PhaseConfig
    vocabulary : Vocabulary
    scale : TargetScale
        Fitted scales of the targets, which weights by scale refer to.
    """

    def __init__(self, config: PhaseConfig, vocabulary: Vocabulary, scale: TargetScale) -> None:
        self.config, self.vocabulary, self.scale = config, vocabulary, scale
        sums = [target.direct_sum for target in vocabulary.targets]
        self.sizes = torch.tensor([direct_sum.size for direct_sum in sums])
        self.onsite = torch.tensor([vocabulary.onsite_pair(s) for s in range(vocabulary.n_species)])
        # which shell pair a component of an element pair belongs to, -1 for padding
        self.shell_pair = torch.full((vocabulary.n_pairs, vocabulary.size), -1)
        for row, direct_sum in zip(self.shell_pair, sums, strict=True):
            pairs = [part.row_shell * len(direct_sum.columns) + part.column_shell for part in direct_sum.parts]
            row[: direct_sum.size] = torch.from_numpy(np.array(pairs)[direct_sum.part_of])
        self.n_shell_pairs = int(self.shell_pair.max()) + 1

    def __call__(self, node: Tensor, edge: Tensor, graph: PairGraph) -> Tensor:
        """The loss of differences, eV, of on-site (N, size) and hopping (E, size) components."""
        config = self.config
        if config.gauge_free:
            node, edge = without_shift(node, edge, graph, shifts(node, edge, graph))
        if config.scale_power:
            mean = self._scaled(node, edge, graph)
        else:
            n_onsite, n_hopping = self.elements(graph)
            weight = config.onsite_weight
            mean = (self._of(edge).sum() + weight * self._of(node).sum()) / (n_hopping + weight * n_onsite)
        return mean + config.trace_weight * self._trace(node, edge, graph) if config.trace_weight else mean

    def elements(self, graph: PairGraph) -> tuple[int, int]:
        """Matrix elements on-site and in hoppings, without the padding of smaller blocks."""
        sizes = self.sizes.to(graph.species.device)
        return int(sizes[self.onsite][graph.species].sum()), int(sizes[graph.element_pair].sum())

    def _of(self, difference: Tensor) -> Tensor:
        if self.config.loss == "mse":
            return difference.square()
        if self.config.loss == "mae":
            return difference.abs()
        beta = self.config.beta_meV / MEV
        return nn.functional.smooth_l1_loss(difference, torch.zeros_like(difference), beta=beta, reduction="none")

    def _scaled(self, node: Tensor, edge: Tensor, graph: PairGraph) -> Tensor:
        """Weighted mean; a part with half the scale has 2^power times the weight."""
        power, shell_pair = self.config.scale_power, self.shell_pair.to(node.device)
        _, edge_sigma = self.scale.edge_statistics(graph)
        node_weight, edge_weight = (
            (shell_pair[types] >= 0) * sigma.clamp(min=SMALLEST_SCALE) ** -power
            for sigma, types in (
                (self.scale.node_sigma[graph.species], self.onsite.to(node.device)[graph.species]),
                (edge_sigma, graph.element_pair),
            )
        )
        node_weight = node_weight * self.config.onsite_weight
        total = (node_weight * self._of(node)).sum() + (edge_weight * self._of(edge)).sum()
        return total / (node_weight.sum() + edge_weight.sum())

    def _trace(self, node: Tensor, edge: Tensor, graph: PairGraph) -> Tensor:
        """Mean loss of sqrt(tr(H H^dagger)) of the blocks of two shells, which no rotation changes."""
        total, n_blocks = node.new_zeros(()), 0
        onsite = self.onsite.to(node.device)[graph.species]
        for difference, target, types in (
            (node, graph.node_target, onsite),
            (edge, graph.edge_target, graph.element_pair),
        ):
            place = self.shell_pair.to(node.device)[types]
            predicted, known = (self._norms(h, place) for h in (target + difference, target))
            total = total + self._of(predicted - known).sum()
            n_blocks += int((place.amax(dim=1) + 1).sum()) if len(place) else 0
        return total / n_blocks

    def _norms(self, components: Tensor, place: Tensor) -> Tensor:
        squares = components.new_zeros(len(components), self.n_shell_pairs)
        kept = torch.where(place >= 0, components, 0.0)  # padding adds nothing to shell pair 0
        return (squares.scatter_add(1, place.clamp(min=0), kept.square()) + SOFT).sqrt()


def shifts(node: Tensor, edge: Tensor, graph: PairGraph) -> Tensor:
    """mu of every structure of a batch, eV, shape (n_structures,); both spins share it.

    Parameters
    ----------
    node, edge : Tensors, shape (N, size) and (E, size), eV
        Differences of components.
    graph : PairGraph
        With S (`node_overlap`, `edge_overlap`).
    """
    of_node, of_edge = _structures(graph)
    n_structures = int(of_node[-1]) + 1
    above, below = (node.new_zeros(n_structures) for _ in range(2))
    for of_row, rows, S in ((of_node, node, graph.node_overlap), (of_edge, edge, graph.edge_overlap)):
        above = above.index_add(0, of_row, (rows * S).sum(dim=1))
        below = below.index_add(0, of_row, S.square().sum(dim=1))
    return above / below


def without_shift(node: Tensor, edge: Tensor, graph: PairGraph, mu: Tensor) -> tuple[Tensor, Tensor]:
    """The differences after mu S is taken off, structure by structure."""
    of_node, of_edge = _structures(graph)
    return node - mu[of_node, None] * graph.node_overlap, edge - mu[of_edge, None] * graph.edge_overlap


@torch.no_grad()
def aligned(graphs: Sequence[PairGraph], scale: TargetScale) -> list[PairGraph]:
    """Copies whose targets have no shift against the mean of a fitted scale: what a gauge-free loss sees of them.

    Zeros of energy that differ would else be taken for a spread of all levels on site.
    """
    copies = []
    for graph in graphs:
        node, edge = scale(graph, torch.zeros_like(graph.node_target), torch.zeros_like(graph.edge_target))
        mu = shifts(graph.node_target - node, graph.edge_target - edge, graph)
        copy = graph.clone()
        copy.node_target, copy.edge_target = without_shift(graph.node_target, graph.edge_target, graph, mu)
        copies.append(copy)
    return copies


def _structures(graph: PairGraph) -> tuple[Tensor, Tensor]:
    """Which structure of a batch an atom and a hopping belong to."""
    of_node = graph.get("batch", torch.zeros_like(graph.species))
    return of_node, of_node[graph.edge_index[0]]
