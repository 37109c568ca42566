"""One phase of training: a module, its targets, its best epoch on the validation split."""

import copy
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch

from ase_hybridham.model import Cascade, PairGraph, turn_components
from ase_hybridham.symmetry import AnyDirectSum
from ase_hybridham.train.batches import Step, batches, n_hoppings, steps_of
from ase_hybridham.train.config import PhaseConfig
from ase_hybridham.train.data import rotated, stage1_output
from ase_hybridham.train.distributed import ALONE, Workers
from ase_hybridham.train.loss import Loss, shifts, without_shift
from ase_hybridham.train.optimizer import optimizer_of
from ase_hybridham.train.schedule import AveragedWeights, LearningRate

__all__ = ["NotFiniteError", "Phase", "Task", "stage1_task", "stage2_task"]

logger = logging.getLogger(__name__)

# on-site and hopping components in eV of a batch
Task = Callable[[PairGraph], tuple[Tensor, Tensor]]
MEV = 1e3


def stage1_task(cascade: Cascade) -> Task:
    """Stage 1 learns H."""

    def predict(graph: PairGraph) -> tuple[Tensor, Tensor]:
        output = cascade.stage1(graph)
        return cascade.scale1(graph, output.node_out, output.edge_out)

    return predict


def stage2_task(cascade: Cascade, *, bf16: bool = False) -> Task:
    """Stage 2 learns what stage 1 left, from stored features; products in bf16 if asked for, validation is exact."""
    stage2 = cascade.stage2
    assert stage2 is not None

    def predict(graph: PairGraph) -> tuple[Tensor, Tensor]:
        output = stage1_output(graph, cascade.config.stage1.n_blocks)
        with torch.autocast(cascade.device.type, torch.bfloat16, enabled=bf16 and torch.is_grad_enabled()):
            node, edge = stage2(graph, output)
        return cascade.scale2(graph, node.to(cascade.dtype), edge.to(cascade.dtype))

    return predict


class NotFiniteError(ValueError):
    """The loss of a step is infinite or not a number."""


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
    group : Workers
        Processes that share the steps.
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
        group: Workers = ALONE,
    ) -> None:
        self.config, self.module, self.task, self.cascade = config, module, task, cascade
        self.train_graphs, self.valid_graphs, self.seed, self.augment = train, valid, seed, augment
        self.group = group
        self.sizes, self.valid_sizes = n_hoppings(train), n_hoppings(valid)
        self.loss = Loss(config, cascade.vocabulary, cascade.scale1 if module is cascade.stage1 else cascade.scale2)
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        group.agree(self.parameters)
        self.optimizer = optimizer_of(config, self.parameters, cascade.device)
        self.rate = LearningRate(config)
        self.average = AveragedWeights(self.parameters, config.ema)
        self.epoch = self.n_steps = 0
        self.best_epoch = 0
        self.best, self.best_optimizer = self._weights(), self._optimizer_state()
        self.best_error = self.error()

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or more of them would bring nothing."""
        return self.epoch >= self.config.epochs or self.rate.exhausted

    def run_epoch(self, tell: Callable[[float], None] = lambda share: None) -> tuple[float, float, float]:
        """Train one epoch; returns loss, training error (of components, on the way) and validation error in meV.

        `tell` is called after every step with the share of the epoch that is done.

        Raises
        ------
        NotFiniteError
            If the loss is not finite.
        """
        rng = np.random.default_rng([self.seed, self.epoch])
        steps = steps_of(self.sizes, self.config.batch_size, self.config.edges_per_batch, rng)
        losses = errors = 0.0
        for number, step in enumerate(batches(self.train_graphs, steps, self.sizes, self.group)):
            rate = self.rate.at(self.n_steps, (self.epoch + number / len(steps)) / self.config.epochs)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            loss, error = self._step(self._turned(step, rng) if self.augment else step)
            losses, errors = losses + loss, errors + error
            tell((number + 1) / len(steps))
        self.epoch += 1
        self._judge(error := self._averaged_error())
        return losses / len(steps), MEV * errors / len(steps), error

    def _turned(self, step: Step, rng: np.random.Generator) -> Step:
        """Every structure turned at random, in all processes alike."""
        if step.part is step.whole:
            whole = rotated(step.whole, self.cascade, rng)
            return Step(whole, whole, step.share)
        n_drawn, again = step.whole.num_graphs, copy.deepcopy(rng)
        part = step.part and rotated(step.part, self.cascade, again, n_drawn=n_drawn, share=step.share)
        return Step(rotated(step.whole, self.cascade, rng), part, step.share)

    def _step(self, step: Step) -> tuple[float, float]:
        """One step of the optimizer; returns the loss and the error of components in eV."""
        batch = step.whole
        node, edge = self._predict(step)
        loss = self.loss(node - batch.node_target, edge - batch.edge_target, batch)
        if not torch.isfinite(loss):
            raise NotFiniteError(
                f"epoch {self.epoch + 1}: the loss is not finite; lower the learning rate or set clip, or check the "
                "data"
            )
        self.optimizer.zero_grad()
        if loss.requires_grad:
            loss.backward()
        self.group.sum_gradients(self.parameters)
        if self.config.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        self.optimizer.step()
        self.average.update()
        self.n_steps += 1
        with torch.no_grad():
            total = (node - batch.node_target).abs().sum() + (edge - batch.edge_target).abs().sum()
        return float(loss.detach()), float(total) / sum(self.loss.elements(batch))

    def _predict(self, step: Step) -> tuple[Tensor, Tensor]:
        """Components of all structures of a batch, with gradients of this process's share."""
        whole, part = step.whole, step.part
        if part is None:
            node, edge = whole.node_target[:0], whole.edge_target[:0]
        else:
            node, edge = self.task(part)
        if part is whole:
            return node, edge
        before = whole.batch < step.share.start
        node = self.group.whole(node, int(before.sum()), len(whole.node_target))
        edge = self.group.whole(edge, int(before[whole.edge_index[0]].sum()), len(whole.edge_target))
        return node, edge

    def _averaged_error(self) -> float:
        """Validation error of the averaged weights, which are kept if it is the lowest."""
        self.average.swap()
        error = self.error()
        if error < self.best_error:
            self.best_error, self.best_epoch = error, self.epoch
            self.best, self.best_optimizer = self._weights(), self._optimizer_state()
        self.average.swap()
        return error

    def _judge(self, error: float) -> None:
        """Lower the rate, or go back to the best epoch, if the schedule says so."""
        if self.rate.observe(error) and self.best_optimizer is not None:
            logger.warning(
                "epoch %d: %.2f meV is more than twice the best error, %.2f meV; back to epoch %d with less of a rate",
                self.epoch,
                error,
                self.best_error,
                self.best_epoch,
            )
            self.module.load_state_dict(self.best)
            self.average.begin_again()
            self.optimizer.load_state_dict(copy.deepcopy(self.best_optimizer))

    @torch.no_grad()
    def error(self) -> float:
        """MAE_all of the validation split in meV: mean over structures, elements of the blocks in the lab.

        Gauge-free where the loss is: zeros of energy that mean nothing must not choose the best epoch.
        """
        errors = np.zeros(len(self.valid_graphs))
        for k in range(*self.group.share(self.valid_sizes).indices(len(errors))):
            graph = Batch.from_data_list([self.valid_graphs[k]])
            node, edge = self.task(graph)
            node, edge = node - graph.node_target, edge - graph.edge_target
            if self.config.gauge_free:
                node, edge = without_shift(node, edge, graph, shifts(node, edge, graph))
            errors[k] = _lab_mae(node, edge, graph, self.cascade)
        return MEV * float(np.mean(self.group.sum(errors.tolist())))

    def keep_best(self) -> None:
        """Put the weights of the best epoch into the module."""
        self.module.load_state_dict(self.best)

    def state(self) -> dict[str, Any]:
        """Everything needed to go on, tensors and plain types only."""
        return {
            "epoch": self.epoch,
            "n_steps": self.n_steps,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rate": self.rate.state(),
            "average": self.average.average,
            "n_updates": self.average.n_updates,
            "best": self.best,
            "best_error": self.best_error,
            "best_epoch": self.best_epoch,
            "best_optimizer": self.best_optimizer,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self.epoch, self.n_steps = state["epoch"], state["n_steps"]
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rate.restore(state["rate"])
        self.average.restore(state["average"], state["n_updates"])
        self.best, self.best_error, self.best_epoch = state["best"], state["best_error"], state["best_epoch"]
        self.best_optimizer = state["best_optimizer"]

    def _optimizer_state(self) -> dict[str, Any] | None:
        """What going back to this epoch needs."""
        return None if self.config.revert_after is None else copy.deepcopy(self.optimizer.state_dict())

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
