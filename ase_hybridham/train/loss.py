"""What training makes small: one number for the difference between predicted and known components of H."""

import torch
from torch import Tensor, nn

from ase_hybridham.model import PairGraph, Vocabulary
from ase_hybridham.train.config import PhaseConfig

__all__ = ["Loss"]

MEV = 1e3


class Loss:
    """Loss of a batch, a mean over the components of H; |h|^2 = |H|^2, so mse is the error of H itself.

    Parameters
    ----------
    config : PhaseConfig
    vocabulary : Vocabulary
    """

    def __init__(self, config: PhaseConfig, vocabulary: Vocabulary) -> None:
        self.config = config
        self.sizes = torch.tensor([target.direct_sum.size for target in vocabulary.targets])
        self.onsite_sizes = self.sizes[[vocabulary.onsite_pair(s) for s in range(vocabulary.n_species)]]

    def __call__(self, node: Tensor, edge: Tensor, graph: PairGraph) -> Tensor:
        """The loss of differences, eV, of on-site (N, size) and hopping (E, size) components."""
        n_onsite, n_hopping = self.elements(graph)
        weight = self.config.onsite_weight
        return (self._total(edge) + weight * self._total(node)) / (n_hopping + weight * n_onsite)

    def elements(self, graph: PairGraph) -> tuple[int, int]:
        """Matrix elements on-site and in hoppings, without the padding of smaller blocks."""
        onsite, hopping = (sizes.to(graph.species.device) for sizes in (self.onsite_sizes, self.sizes))
        return int(onsite[graph.species].sum()), int(hopping[graph.element_pair].sum())

    def _total(self, difference: Tensor) -> Tensor:
        if self.config.loss == "mse":
            return difference.square().sum()
        beta = self.config.beta_meV / MEV
        zero = torch.zeros_like(difference)
        return nn.functional.smooth_l1_loss(difference, zero, beta=beta, reduction="sum")
