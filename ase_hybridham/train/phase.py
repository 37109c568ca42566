"""One phase of training: a module, its targets, its best epoch on the validation split."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ase_hybridham.model import Cascade, PairGraph, turn_components
from ase_hybridham.symmetry import AnyDirectSum
from ase_hybridham.train.config import PhaseConfig
from ase_hybridham.train.data import batches, rotated, stage1_output
from ase_hybridham.train.loss import Loss, shifts, without_shift
from ase_hybridham.train.optimizer import optimizer_of
from ase_hybridham.train.schedule import AveragedWeights, LearningRate

__all__ = ["Phase", "stage1_task", "stage2_task"]

# on-site and hopping components in eV of a batch
Task = Callable[[PairGraph], tuple[Tensor, Tensor]]
MEV = 1e3


def stage1_task(cascade: Cascade) -> Task:
    """Stage 1 learns H."""

    def predict(graph: PairGraph) -> tuple[Tensor, Tensor]:
        output = cascade.stage1(graph)
        return cascade.scale1(graph, output.node_out, output.edge_out)

    return predict


def stage2_task(cascade: Cascade) -> Task:
    """Stage 2 learns what stage 1 left, from stored features."""
    stage2 = cascade.stage2
    assert stage2 is not None

    def predict(graph: PairGraph) -> tuple[Tensor, Tensor]:
        output = stage1_output(graph, cascade.config.stage1.n_blocks)
        return cascade.scale2(graph, *stage2(graph, output))

    return predict


class Phase:
    """Training of one module.

    Parameters
    ----------
    config : PhaseConfig
    module : nn.Module
        What is trained.
    task : callable
        Graph -> on-site and hopping components in eV.
    cascade : Cascade
        The network the module is part of.
    train, valid : sequences of PairGraph
        With targets.
    seed : int
        Order of structures and rotations in epoch n depend on it and n alone.
    augment : bool
        Turn every structure at random in every step.
    """

    def __init__(
        self,
        config: PhaseConfig,
        module: nn.Module,
        task: Task,
        cascade: Cascade,
        train: Sequence[PairGraph],
        valid: Sequence[PairGraph],
        *,
        seed: int,
        augment: bool = False,
    ) -> None:
        self.config, self.module, self.task, self.cascade = config, module, task, cascade
        self.train_graphs, self.valid_graphs, self.seed, self.augment = train, valid, seed, augment
        self.loss = Loss(config, cascade.vocabulary, cascade.scale1 if module is cascade.stage1 else cascade.scale2)
        parameters = [p for p in module.parameters() if p.requires_grad]
        n_steps = config.epochs * -(-len(train) // config.batch_size)
        self.optimizer = optimizer_of(config, parameters, cascade.device)
        self.rate = LearningRate(config, n_steps)
        self.average = AveragedWeights(parameters, config.ema)
        self.epoch = 0
        self.best = self._weights()
        self.best_error = self.error()

    def run_epoch(self) -> tuple[float, float, float]:
        """Train one epoch; returns loss, training error (of components, on the way) and validation error in meV."""
        rng = np.random.default_rng([self.seed, self.epoch])
        n_steps = -(-len(self.train_graphs) // self.config.batch_size)
        losses = errors = 0.0
        for number, batch in enumerate(batches(self.train_graphs, self.config.batch_size, rng)):
            if self.augment:
                batch = rotated(batch, self.cascade, rng)
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate.at(self.epoch * n_steps + number)
            node, edge = self.task(batch)
            loss = self.loss(node - batch.node_target, edge - batch.edge_target, batch)
            if not torch.isfinite(loss):
                raise ValueError(
                    f"epoch {self.epoch + 1}: the loss is not finite; lower the learning rate or set clip, or check "
                    "the data"
                )
            self.optimizer.zero_grad()
            loss.backward()
            if self.config.clip is not None:
                nn.utils.clip_grad_norm_(self.module.parameters(), self.config.clip)
            self.optimizer.step()
            self.average.update()
            losses += float(loss.detach())
            with torch.no_grad():
                total = (node - batch.node_target).abs().sum() + (edge - batch.edge_target).abs().sum()
                errors += float(total) / sum(self.loss.elements(batch))
        self.epoch += 1
        self.average.swap()
        error = self.error()
        if error < self.best_error:
            self.best_error, self.best = error, self._weights()
        self.average.swap()
        self.rate.observe(error)
        return losses / n_steps, MEV * errors / n_steps, error

    @torch.no_grad()
    def error(self) -> float:
        """MAE_all of the validation split in meV: mean over structures, elements of the blocks in the lab.

        Gauge-free where the loss is: zeros of energy that mean nothing must not choose the best epoch.
        """
        errors = []
        for graph in batches(self.valid_graphs, 1):
            node, edge = self.task(graph)
            node, edge = node - graph.node_target, edge - graph.edge_target
            if self.config.gauge_free:
                node, edge = without_shift(node, edge, graph, shifts(node, edge, graph))
            errors.append(_lab_mae(node, edge, graph, self.cascade))
        return MEV * float(np.mean(errors))

    def keep_best(self) -> None:
        """Put the weights of the best epoch into the module."""
        self.module.load_state_dict(self.best)

    def state(self) -> dict[str, Any]:
        """Everything needed to go on, tensors and plain types only."""
        return {
            "epoch": self.epoch,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rate": self.rate.state(),
            "average": self.average.average,
            "n_updates": self.average.n_updates,
            "best": self.best,
            "best_error": self.best_error,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self.epoch = state["epoch"]
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rate.restore(state["rate"])
        self.average.restore(state["average"], state["n_updates"])
        self.best, self.best_error = state["best"], state["best_error"]

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}


def _lab_mae(node: Tensor, edge: Tensor, graph: PairGraph, cascade: Cascade) -> float:
    """Mean absolute element of blocks whose components are given, on-site in the lab, hoppings in their frames.

    Real and imaginary parts of spinor blocks count separately.
    """
    vocabulary = cascade.vocabulary
    frames = [edge.new_ones(len(edge), 1, 1), *(graph[f"align_{l}"] for l in range(1, vocabulary.lmax + 1))]
    total, count = 0.0, 0

    def add(rows: Tensor, direct_sum: AnyDirectSum) -> None:
        nonlocal total, count
        blocks = direct_sum.to_blocks(rows.cpu().numpy())
        elements = np.abs(blocks.view(blocks.real.dtype))
        total, count = total + float(elements.sum()), count + elements.size

    for s in range(vocabulary.n_species):
        direct_sum = vocabulary.targets[vocabulary.onsite_pair(s)].direct_sum
        add(node[graph.species == s, : direct_sum.size], direct_sum)
    for t, target in enumerate(vocabulary.targets):
        direct_sum, index = target.direct_sum, torch.nonzero(graph.element_pair == t).ravel()
        rows = edge[index, : direct_sum.size]
        add(turn_components(rows, direct_sum, [frame[index] for frame in frames], back=True), direct_sum)
    return total / count
