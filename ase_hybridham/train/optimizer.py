"""Optimizers: AdamW of torch, and SOAP.

SOAP (Vyas et al. 2024, arXiv:2409.11321) runs Adam in the basis in which Shampoo's preconditioners are diagonal:
for a weight matrix with gradient G, averages of G G^T and G^T G have eigenvectors Q_L and Q_R, and Adam acts on
Q_L^T G Q_R. Rows and columns that belong together are then scaled together.

Letters: G gradient, Q eigenvectors in columns, L and R (left and right) the sides of a matrix.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ase_hybridham.train.config import PhaseConfig

__all__ = ["SOAP", "optimizer_of"]

# gradients of a loss in eV are small: the usual eps of 1e-8 would slow the smallest ones down
EPS = 1e-12
SIDES = ("left", "right")


def optimizer_of(
    config: PhaseConfig, parameters: Iterable[nn.Parameter], device: torch.device
) -> torch.optim.Optimizer:
    """The optimizer that the options name, with a rate of 0: the schedule sets it before every step."""
    if config.optimizer == "soap":
        decay, size = config.weight_decay, config.basis_size
        return SOAP(parameters, lr=0.0, weight_decay=decay, refresh=config.refresh, max_size=size)
    fused = device.type == "cpu" or None
    return torch.optim.AdamW(parameters, lr=0.0, eps=EPS, weight_decay=config.weight_decay, fused=fused)


@dataclass
class _Stack:
    """Parameters of one shape with their state in common tensors, so that a step is few operations.

    Matrices (n, m) are stacked to (B, n, m), of longer shapes all leading axes; whatever is no matrix lies in one
    row (B,). `gram` and `basis` hold, for each side that has a basis of its own, (B, n, n) or (B, m, m).
    """

    parameters: list[nn.Parameter]
    tail: tuple[int, ...]
    step: int
    first: Tensor
    second: Tensor
    gram: dict[str, Tensor] = field(default_factory=dict)
    basis: dict[str, Tensor] = field(default_factory=dict)

    def gather(self, tensors: Iterable[Tensor]) -> Tensor:
        """One tensor of what belongs to the parameters."""
        return torch.cat([tensor.reshape(-1, *self.tail) for tensor in tensors])

    def scatter(self, stacked: Tensor, *, shaped: bool = True) -> list[Tensor]:
        """Views for every parameter, in its shape or with the sides that `stacked` has."""
        size = self.tail[0] * self.tail[1] if self.tail else 1
        parts = stacked.split([p.numel() // size for p in self.parameters])
        return [part.view(p.shape) for part, p in zip(parts, self.parameters, strict=True)] if shaped else list(parts)

    def state(self) -> list[dict[str, Any]]:
        """Views of the state of every parameter."""
        states: list[dict[str, Any]] = [{"step": self.step} for _ in self.parameters]
        for name, stacked in {"first": self.first, "second": self.second}.items():
            for state, part in zip(states, self.scatter(stacked), strict=True):
                state[name] = part
        for kind, sides in {"gram": self.gram, "basis": self.basis}.items():
            for side, stacked in sides.items():
                for state, part in zip(states, self.scatter(stacked, shaped=False), strict=True):
                    state[f"{side}_{kind}"] = part
        return states

    def turn(self, stacked: Tensor, *, back: bool = False) -> Tensor:
        """Into the eigenbases, or back."""
        if "left" in self.basis:
            Q = self.basis["left"]
            stacked = torch.bmm(Q if back else Q.mT, stacked)
        if "right" in self.basis:
            Q = self.basis["right"]
            stacked = torch.bmm(stacked, Q.mT if back else Q)
        return stacked

    def average(self, gradient: Tensor, weight: float) -> None:
        """Let a gradient into the averages of G G^T and G^T G."""
        if "left" in self.gram:
            self.gram["left"].lerp_(torch.bmm(gradient, gradient.mT), weight)
        if "right" in self.gram:
            self.gram["right"].lerp_(torch.bmm(gradient.mT, gradient), weight)

    def diagonalize(self) -> None:
        """Exact eigenvectors, the largest eigenvalue first."""
        for side, gram in self.gram.items():
            self.basis[side].copy_(torch.linalg.eigh(gram).eigenvectors.flip(-1))

    def refresh(self) -> None:
        """Bring the eigenbases up to date by one power iteration; the averages of Adam move with them."""
        lab = self.turn(self.first, back=True)
        for side, gram in self.gram.items():
            Q = self.basis[side]
            powers = torch.bmm(gram, Q)
            order = (Q * powers).sum(1).argsort(dim=1, descending=True)
            self.basis[side].copy_(torch.linalg.qr(_picked(powers, order, 2)).Q)
            self.second.copy_(_picked(self.second, order, 1 if side == "left" else 2))
        self.first.copy_(self.turn(lab))


def _picked(stacked: Tensor, order: Tensor, axis: int) -> Tensor:
    """Rows (axis 1) or columns (2) of every matrix in an order of its own."""
    return stacked.gather(axis, order.unsqueeze(3 - axis).expand_as(stacked))


class SOAP(torch.optim.Optimizer):
    """Adam in the eigenbasis of Shampoo's preconditioners.

    The first gradient of a matrix only sets its basis: in it, most components of that gradient are rounding, which
    Adam would blow up. What is no matrix (vectors, single rows or columns) is trained by Adam as it is. A parameter
    without gradient counts as one whose gradient is 0.

    Parameters
    ----------
    params : iterable of Parameter, or of groups as in torch
    lr : float
    betas : (float, float)
        Decay of the averages of gradients and of their squares.
    gram_beta : float
        Decay of the averages of G G^T and G^T G.
    eps : float
    weight_decay : float
        Decoupled, as in AdamW.
    refresh : int
        Steps between two updates of the eigenbases.
    max_size : int
        A longer side keeps its own basis: its preconditioner would cost more than it gives.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 3e-3,
        *,
        betas: tuple[float, float] = (0.95, 0.95),
        gram_beta: float = 0.95,
        eps: float = EPS,
        weight_decay: float = 0.0,
        refresh: int = 10,
        max_size: int = 256,
    ) -> None:
        options = {"lr": lr, "betas": betas, "gram_beta": gram_beta, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**options, "refresh": refresh, "max_size": max_size})
        self._stacks: list[list[_Stack]] = []

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step; with a closure its loss is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not self._stacks:
            self._stacks = [self._stacked(group) for group in self.param_groups]
        for group, stacks in zip(self.param_groups, self._stacks, strict=True):
            for stack in stacks:
                _advance(stack, group)
                for parameter in stack.parameters:
                    self.state[parameter]["step"] = stack.step
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a stored state stood; it is copied."""
        super().load_state_dict(state_dict)
        self._stacks = [self._stacked(group) for group in self.param_groups] if self.state else []

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch, before the first step."""
        if getattr(self, "_stacks", None):
            raise ValueError("param_group: expected before the first step; make a new optimizer")
        super().add_param_group(param_group)

    @torch.no_grad()
    def _stacked(self, group: dict[str, Any]) -> list[_Stack]:
        """Parameters by shape; their state, if there is any, moves into common tensors."""
        by_shape: dict[tuple[Any, ...], list[nn.Parameter]] = {}
        for p in group["params"]:
            tail = tuple(p.shape[-2:]) if p.dim() > 1 and min(p.shape[-2:]) > 1 else ()
            if p.numel():
                by_shape.setdefault((tail, p.dtype, p.device), []).append(p)
        stacks = []
        for (tail, *_), parameters in by_shape.items():
            sides = {side: n for side, n in zip(SIDES, tail, strict=False) if n <= group["max_size"]}
            states = [self.state[p] for p in parameters]
            stack = _restored(parameters, tail, sides, states) if states[0] else _fresh(parameters, tail, sides)
            for p, state in zip(parameters, stack.state(), strict=True):
                self.state[p] = state
            stacks.append(stack)
        return stacks


def _fresh(parameters: list[nn.Parameter], tail: tuple[int, ...], sides: dict[str, int]) -> _Stack:
    stack = _Stack(parameters, tail, 0, torch.empty(0), torch.empty(0))
    zeros = torch.zeros_like(stack.gather(parameters))
    stack.first, stack.second = zeros, zeros.clone()
    stack.gram = {side: zeros.new_zeros(len(zeros), n, n) for side, n in sides.items()}
    stack.basis = {side: torch.eye(n).to(zeros).repeat(len(zeros), 1, 1) for side, n in sides.items()}
    return stack


def _restored(
    parameters: list[nn.Parameter], tail: tuple[int, ...], sides: dict[str, int], states: list[dict[str, Any]]
) -> _Stack:
    stack = _Stack(parameters, tail, int(states[0]["step"]), torch.empty(0), torch.empty(0))
    stack.first, stack.second = (stack.gather(state[name] for state in states) for name in ("first", "second"))
    stack.gram = {side: torch.cat([state[f"{side}_gram"] for state in states]) for side in sides}
    stack.basis = {side: torch.cat([state[f"{side}_basis"] for state in states]) for side in sides}
    return stack


def _advance(stack: _Stack, group: dict[str, Any]) -> None:
    """One step of the parameters of a stack."""
    gradient = stack.gather(torch.zeros_like(p) if p.grad is None else p.grad for p in stack.parameters)
    stack.step += 1
    if stack.gram and stack.step == 1:
        stack.average(gradient, 1 - group["gram_beta"])
        stack.diagonalize()
        return
    n_updates = stack.step - 1 if stack.gram else stack.step
    beta1, beta2 = group["betas"]
    turned = stack.turn(gradient)
    stack.first.lerp_(turned, 1 - beta1)
    stack.second.mul_(beta2).addcmul_(turned, turned, value=1 - beta2)
    scale = (stack.second / (1 - beta2**n_updates)).sqrt_().add_(group["eps"])
    change = stack.turn(stack.first / scale, back=True)
    parameters: list[Tensor] = [*stack.parameters]
    if group["weight_decay"]:
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
    torch._foreach_add_(parameters, stack.scatter(change), alpha=-group["lr"] / (1 - beta1**n_updates))
    if stack.gram:
        stack.average(gradient, 1 - group["gram_beta"])
        if n_updates % group["refresh"] == 0:
            stack.refresh()
