"""Learning rate, when to stop or to go back, and averaged weights."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ase_hybridham.train.config import PhaseConfig

__all__ = ["AveragedWeights", "LearningRate"]


PROGRESS = 1e-3  # least relative gain of the validation error that counts
STALLED = 0.5  # factor of the rate on a plateau
# "more than 2 times of best", and the factor of the rate then: those of DeepH-E3
JUMP, REVERTED = 2.0, 0.8


class LearningRate:
    """Warm-up, then a cosine to zero over the epochs, or halving when the validation error stalls.

    Tells also when to stop, and when to go back to the best epoch, if the options say so.

    Parameters
    ----------
    config : PhaseConfig
    """

    def __init__(self, config: PhaseConfig) -> None:
        self.config = config
        self.factor, self.best, self.stalled = 1.0, math.inf, 0
        self.without_progress, self.above = 0, 0

    def at(self, step: int, progress: float) -> float:
        """The rate of a step, counted from 0, where `progress`, from 0 to 1, of all epochs is done."""
        rate = self.factor * self.config.learning_rate * min(1.0, (step + 1) / max(self.config.warmup_steps, 1))
        if self.config.schedule == "plateau":
            return rate
        return rate * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))

    def observe(self, error: float) -> bool:
        """Tell the validation error of an epoch; returns whether to go back to the best epoch."""
        self.above = 0 if error <= JUMP * self.best else self.above + 1
        if error < self.best * (1 - PROGRESS):
            self.best, self.stalled, self.without_progress = error, 0, 0
        else:
            self.stalled, self.without_progress = self.stalled + 1, self.without_progress + 1
        if self.config.revert_after is not None and self.above >= self.config.revert_after:
            self.factor, self.stalled, self.above = REVERTED * self.factor, 0, 0
            return True
        if self.config.schedule == "plateau" and self.stalled > self.config.patience:
            self.factor, self.stalled = STALLED * self.factor, 0
        return False

    @property
    def exhausted(self) -> bool:
        """Whether the epochs without progress are as many as the options allow."""
        return self.config.stop_after is not None and self.without_progress >= self.config.stop_after

    def state(self) -> dict[str, float]:
        """For resuming."""
        return {name: getattr(self, name) for name in ("factor", "best", "stalled", "without_progress", "above")}

    def restore(self, state: dict[str, float]) -> None:
        """Inverse of `state`."""
        self.factor, self.best = state["factor"], state["best"]
        self.stalled, self.without_progress, self.above = (
            int(state[name]) for name in ("stalled", "without_progress", "above")
        )


class AveragedWeights:
    """Exponential average of parameters; without decay the parameters themselves."""

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float | None) -> None:
        self.parameters, self.decay = list(parameters), decay
        self.average = [] if decay is None else [p.detach().clone() for p in self.parameters]
        self.n_updates = 0

    @torch.no_grad()
    def restore(self, average: list[Tensor], n_updates: int) -> None:
        """Put stored averages in place, whatever device they come from."""
        for mine, stored in zip(self.average, average, strict=True):
            mine.copy_(stored)
        self.n_updates = n_updates

    @torch.no_grad()
    def begin_again(self) -> None:
        """The averages are what the parameters are."""
        for average, parameter in zip(self.average, self.parameters, strict=False):
            average.copy_(parameter)

    @torch.no_grad()
    def update(self) -> None:
        """Take one step of the average; young averages forget faster."""
        if self.decay is not None:
            self.n_updates += 1
            decay = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange parameters and averages; twice is nothing."""
        for parameter, average in zip(self.parameters, self.average, strict=False):
            held = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(held)
