"""Learning rate and averaged weights."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ase_hybridham.train.config import PhaseConfig

__all__ = ["AveragedWeights", "LearningRate"]


class LearningRate:
    """Warm-up, then a cosine to zero over the epochs, or halving when the validation error stalls.

    Parameters
    ----------
    config : PhaseConfig
    n_steps : int
        Steps of all epochs together.
    """

    def __init__(self, config: PhaseConfig, n_steps: int) -> None:
        self.config, self.n_steps = config, max(n_steps, 1)
        self.factor, self.best, self.stalled = 1.0, math.inf, 0

    def at(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        rate = self.config.learning_rate * min(1.0, (step + 1) / max(self.config.warmup_steps, 1))
        if self.config.schedule == "plateau":
            return rate * self.factor
        return rate * 0.5 * (1.0 + math.cos(math.pi * min(step / self.n_steps, 1.0)))

    def observe(self, error: float) -> None:
        """Tell the validation error of an epoch."""
        if error < self.best * (1 - 1e-3):
            self.best, self.stalled = error, 0
        else:
            self.stalled += 1
        if self.stalled > self.config.patience:
            self.factor, self.stalled = 0.5 * self.factor, 0

    def state(self) -> dict[str, float]:
        """For resuming."""
        return {"factor": self.factor, "best": self.best, "stalled": self.stalled}

    def restore(self, state: dict[str, float]) -> None:
        """Inverse of `state`."""
        self.factor, self.best, self.stalled = state["factor"], state["best"], int(state["stalled"])


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
