"""SOAP does what its paper says, and goes on from a stored state as if nothing had happened."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ase_hybridham.train import PhaseConfig
from ase_hybridham.train.optimizer import SOAP, optimizer_of

# with sides up to 4 no gradient leaves a basis open: where it does, rounding chooses
SHAPES = [(5, 3), (3, 5), (5, 3), (4, 4), (7,), (1, 6), (6, 1), (0, 4), (2, 3, 3)]


def gradients(shapes: list[tuple[int, ...]], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def parameters(shapes: list[tuple[int, ...]], dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    return [nn.Parameter(g.to(dtype)) for g in gradients(shapes, 1000)]


def run(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        for p, g in zip(params, gradients([tuple(p.shape) for p in params], step), strict=True):
            p.grad = g.to(p.dtype)
        optimizer.step()


def literal_soap(start: Tensor, steps: range, *, refresh: int, lr: float, sides: tuple[bool, bool]) -> Tensor:
    """Algorithm 3 of Vyas et al. (2024) for one matrix, momentum kept in the basis of the weights."""
    W, beta = start.clone(), 0.95
    M, V = torch.zeros_like(W), torch.zeros_like(W)
    grams = [torch.zeros(n, n, dtype=W.dtype) for n in W.shape]
    bases = [torch.eye(n, dtype=W.dtype) for n in W.shape]
    for t, step in enumerate(steps):
        (G,) = gradients([tuple(W.shape)], step)
        if t > 0:
            M = beta * M + (1 - beta) * G
            turned = bases[0].T @ G @ bases[1]
            V = beta * V + (1 - beta) * turned**2
            N = (bases[0].T @ M @ bases[1]) / (1 - beta**t) / ((V / (1 - beta**t)).sqrt() + 1e-12)
            W = W - lr * bases[0] @ N @ bases[1].T
        grams = [beta * grams[0] + (1 - beta) * G @ G.T, beta * grams[1] + (1 - beta) * G.T @ G]
        for side in (0, 1):
            if sides[side] and t == 0:
                bases[side] = torch.linalg.eigh(grams[side]).eigenvectors.flip(1)
            elif sides[side] and t % refresh == 0:
                Q = bases[side]
                order = (Q.T @ grams[side] @ Q).diagonal().argsort(descending=True)
                bases[side] = torch.linalg.qr((grams[side] @ Q)[:, order]).Q
                V = V.index_select(side, order)
    return W


@pytest.mark.parametrize(("shape", "sides"), [((5, 5), (True, True)), ((6, 4), (False, True))], ids=str)
@pytest.mark.parametrize("refresh", [1, 3])
def test_matrices_follow_the_algorithm(refresh, shape, sides):
    """One side is left alone where the other is too long; a gradient of full rank leaves no basis open."""
    params = parameters([shape])
    start = params[0].detach().clone()
    run(SOAP(params, lr=0.1, refresh=refresh, max_size=5), params, range(12))
    expected = literal_soap(start, range(12), refresh=refresh, lr=0.1, sides=sides)
    assert (expected - start).abs().max() > 0.3
    torch.testing.assert_close(params[0].detach(), expected, rtol=0, atol=1e-9)


def test_stacking_changes_nothing():
    """A parameter among others goes the way it goes alone; a longer shape is a stack of matrices."""
    together = parameters(SHAPES)
    run(SOAP(together, lr=0.1, weight_decay=0.1, refresh=2, max_size=4), together, range(7))
    for n, shape in enumerate(SHAPES):
        alone = [nn.Parameter(p.detach().clone()) for p in parameters(SHAPES)]
        optimizer = SOAP([alone[n]], lr=0.1, weight_decay=0.1, refresh=2, max_size=4)
        run(optimizer, alone, range(7))
        torch.testing.assert_close(alone[n], together[n], rtol=0, atol=1e-9, msg=str(shape))
    stack, *matrices = parameters([(2, 3, 3), (3, 3), (3, 3)])
    optimizer = SOAP([stack, *matrices], lr=0.1, refresh=2)
    with torch.no_grad():
        for matrix, part in zip(matrices, stack, strict=True):
            matrix.copy_(part)
    for step in range(7):
        (stack.grad,) = gradients([(2, 3, 3)], step)
        for matrix, part in zip(matrices, stack.grad, strict=True):
            matrix.grad = part.clone()
        optimizer.step()
    torch.testing.assert_close(stack.detach(), torch.stack([m.detach() for m in matrices]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", [(7,), (1, 6), (6, 1), (5, 3, 1)], ids=str)
def test_what_is_no_matrix_is_trained_by_adam(shape):
    ours, theirs = parameters([shape]), parameters([shape])
    run(SOAP(ours, lr=0.1, weight_decay=0.3), ours, range(9))
    run(torch.optim.AdamW(theirs, lr=0.1, betas=(0.95, 0.95), eps=1e-12, weight_decay=0.3), theirs, range(9))
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=1e-12)


def descend(make: Callable[[list[nn.Parameter]], Any], U: Tensor, n_steps: int) -> tuple[Tensor, list[float]]:
    """Linear regression, sizes of inputs and outputs differ, fresh data in every step, in coordinates turned by U."""
    stretch = torch.logspace(0, -1.5, 6, dtype=torch.float64)
    W = nn.Parameter(torch.zeros(6, 6, dtype=torch.float64))
    (target,) = gradients([(6, 6)], 5)
    optimizer, losses = make([W]), []
    for step in range(n_steps):
        inputs = torch.stack(gradients([(6,)] * 20, step)) * stretch
        loss = (((U.T @ W @ U - target) @ inputs.T) * stretch[:, None]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return U.T @ W.detach() @ U, losses


def test_coordinates_do_not_matter_and_correlations_do_no_harm():
    """The way of the weights turns with them, which that of Adam does not."""
    U = torch.linalg.qr(gradients([(6, 6)], 9)[0]).Q
    identity = torch.eye(6, dtype=torch.float64)

    def make_adam(params):
        return torch.optim.Adam(params, lr=0.03, betas=(0.95, 0.95))

    def make_soap(params):
        return SOAP(params, lr=0.03, refresh=2)

    here, _ = descend(make_soap, identity, 8)
    there, _ = descend(make_soap, U, 8)
    assert here.abs().max() > 0.05
    torch.testing.assert_close(there, here, rtol=0, atol=1e-4)  # small eigenvalues have inexact eigenvectors
    assert (descend(make_adam, U, 8)[0] - descend(make_adam, identity, 8)[0]).abs().max() > 0.05
    assert sum(descend(make_soap, U, 200)[1][-20:]) < 0.6 * sum(descend(make_adam, U, 200)[1][-20:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("stop", [0, 1, 5, 6])
def test_state_brings_everything_back(dtype, stop):
    """Bit by bit, through a file, into parameters that stand where the first ones stood."""

    def make(params):
        return SOAP(params, lr=0.1, refresh=3, weight_decay=0.01)

    whole, first = parameters(SHAPES, dtype), parameters(SHAPES, dtype)
    run(make(whole), whole, range(11))
    optimizer = make(first)
    run(optimizer, first, range(stop))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    second = [nn.Parameter(p.detach().clone()) for p in first]
    run(optimizer, first, range(100, 103))  # the first run goes on: it may not touch what was stored
    file.seek(0)
    resumed = make(second)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    run(resumed, second, range(stop, 11))
    for a, b in zip(second, whole, strict=True):
        assert torch.equal(a, b)


def test_a_loaded_state_is_a_copy():
    params = parameters(SHAPES)
    optimizer = SOAP(params, lr=0.1)
    run(optimizer, params, range(3))
    state = optimizer.state_dict()
    before = copy.deepcopy(state)
    other = parameters(SHAPES)
    resumed = SOAP(other, lr=0.1)
    resumed.load_state_dict(state)
    run(resumed, other, range(3, 9))
    for index, entries in before["state"].items():
        for name, value in entries.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(state["state"][index][name])), name


def test_no_gradient_is_none():
    params = parameters([(4, 3), (5,), (3, 3)])
    before = [p.detach().clone() for p in params]
    optimizer = SOAP(params, lr=0.1, refresh=1)
    for step in range(4):
        (params[2].grad,) = gradients([(3, 3)], step)
        optimizer.step()
    assert torch.equal(params[0], before[0])
    assert torch.equal(params[1], before[1])
    assert (params[2] - before[2]).abs().max() > 0.1


def test_groups_have_rates_of_their_own():
    params = parameters([(4, 3), (4, 3)])
    before = [p.detach().clone() for p in params]
    optimizer = SOAP([{"params": params[:1], "lr": 0.0}, {"params": params[1:]}], lr=0.1)
    run(optimizer, params, range(3))
    assert torch.equal(params[0], before[0])
    assert not torch.equal(params[1], before[1])
    with pytest.raises(ValueError, match="before the first step"):
        optimizer.add_param_group({"params": parameters([(2, 2)])})


def test_options_choose_the_optimizer():
    params = parameters([(4, 3)])
    adam = optimizer_of(PhaseConfig(optimizer="adamw", weight_decay=0.1), params, torch.device("cpu"))
    assert isinstance(adam, torch.optim.AdamW)
    config = PhaseConfig(optimizer="soap", refresh=4, basis_size=7, weight_decay=0.1)
    soap = optimizer_of(config, params, torch.device("cpu"))
    assert isinstance(soap, SOAP)
    assert (soap.param_groups[0]["refresh"], soap.param_groups[0]["max_size"]) == (4, 7)
    assert adam.param_groups[0]["weight_decay"] == soap.param_groups[0]["weight_decay"] == 0.1
