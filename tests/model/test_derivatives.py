"""Hand-written derivatives against those of plain operations."""

from collections.abc import Callable

import pytest
import torch

from ase_hybridham.model import Stage1
from ase_hybridham.model.config import Stage1Config
from ase_hybridham.model.convolution import Convolution
from ase_hybridham.model.layout import FeatureLayout
from ase_hybridham.model.linear import DegreeLinear, OrderLinear, plain_operations, use_plain
from ase_hybridham.model.norm import LocalNorm
from tests.model.networks import MIXED, graph_of, network, perturb, random_hamiltonian, structure
from tests.model.test_layout import rows_of

LAYOUTS = [FeatureLayout((5, 3, 2)), FeatureLayout((4, 3, 2), (1, 2, 0, 2))]


def derivatives(function: Callable[..., torch.Tensor], inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """Output, and gradients by the inputs of a random combination of all outputs."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out = function(*leaves)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(5), dtype=out.dtype)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), leaves)]


def assert_same_derivatives(function: Callable[..., torch.Tensor], inputs: list[torch.Tensor]) -> None:
    assert not use_plain()
    ours = derivatives(function, inputs)
    with plain_operations():
        expected = derivatives(function, inputs)
    for found, value in zip(ours, expected, strict=True):
        assert value.abs().max() > 1e-3
        torch.testing.assert_close(found, value, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("mirrored", [None, 1])
@pytest.mark.parametrize("bias", [True, False])
def test_order_linear(mirrored, bias):
    inputs = [*LAYOUTS, FeatureLayout((2, 4))]
    linear = OrderLinear(inputs, (7, 4, 2, 1), bias=bias, mirrored=mirrored).double()
    parameters = list(linear.parameters())
    perturb(linear)

    def product(*tensors: torch.Tensor) -> torch.Tensor:
        values = dict(zip([name for name, _ in linear.named_parameters()], tensors[3:], strict=True))
        return torch.func.functional_call(linear, values, (list(tensors[:3]),))

    assert_same_derivatives(product, [rows_of(x, s) for s, x in enumerate(inputs)] + parameters)


def test_degree_linear():
    linear = DegreeLinear(LAYOUTS, (7, 4, 2, 1)).double()
    assert_same_derivatives(lambda *rows: linear(list(rows)), [rows_of(x, s) for s, x in enumerate(LAYOUTS)])


@pytest.mark.parametrize("out", LAYOUTS, ids=["natural", "both parities"])
@pytest.mark.parametrize("gates", ["order", "channel"])
def test_gates(gates, out):
    torch.manual_seed(0)
    convolution = Convolution(LAYOUTS[0], LAYOUTS[0], out, 4, 4, gates).double()
    gate = convolution.hopping_gate
    rows, weight = torch.randn(6, out.size + gate.n_gates).double(), torch.randn(3, gate.n_numbers).double()
    which = torch.tensor([0, 2, 1, 1, 0, 2])
    assert_same_derivatives(lambda x, w: gate(x, w, which), [rows, weight])
    gate = convolution.onsite_gate
    rows = torch.randn(6, out.size + gate.n_gates).double()
    assert_same_derivatives(gate, [rows, torch.randn(1, gate.n_numbers).double()])


@pytest.mark.parametrize("layout", LAYOUTS, ids=["natural", "both parities"])
def test_local_norm(layout):
    norm = LocalNorm(layout, layout.edge).double()
    perturb(norm)

    def normed(rows: torch.Tensor, skip: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (rows, skip))

    parameters = [norm.weight, norm.bias]
    assert_same_derivatives(normed, [rows_of(layout, 0), rows_of(layout, 1), *parameters])


@pytest.mark.parametrize("layout", LAYOUTS, ids=["natural", "both parities"])
def test_frames(layout):
    cascade = network()
    atoms = structure(MIXED, 1, n_atoms=6)
    graph = graph_of(random_hamiltonian(atoms, MIXED), cascade)
    frames = graph.frames(layout.lmax)
    assert not frames.dense
    assert_same_derivatives(lambda x: frames.into(x, layout), [rows_of(layout, 0, n=6)])
    n = len(graph.distance)
    assert_same_derivatives(lambda x: frames.sum_out(x, layout), [rows_of(layout, 0, n=n)])
    assert_same_derivatives(frames.reversed, [rows_of(layout, 0, n=n)])


def stage1_gradients(stage1: Stage1, graph: object) -> list[torch.Tensor]:
    output = stage1(graph)
    weights = torch.randn(output.edge_out.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    parameters = [p for p in stage1.parameters() if p.numel()]
    loss = (output.edge_out * weights).sum() + output.node_out.square().sum()
    return [output.edge_out.detach(), *torch.autograd.grad(loss, parameters, materialize_grads=True)]


@pytest.mark.parametrize(
    "options",
    [{}, {"gates": "channel"}, {"norm": "graph"}, {"pair_maps": "separate"}, {"envelope": False, "edge_reach": 1.5}],
)
def test_whole_stage(options):
    """With hand-written derivatives, with plain ones, and chunk by chunk with recomputation."""
    cascade = network()
    config = Stage1Config(irreps="6x0e+4x1o+3x2e+2x3o+2x4e", n_gaussians=12, radial_width=8, **options)
    stage1 = Stage1(config, cascade.vocabulary, 5.0, 12.0).double()
    perturb(stage1)
    graph = graph_of(random_hamiltonian(structure(MIXED, 1, n_atoms=6), MIXED), cascade)
    ours = stage1_gradients(stage1, graph)
    with plain_operations():
        plain = stage1_gradients(stage1, graph)
    stage1.edges_per_chunk = 10
    assert len(graph.distance) > 30
    chunked = stage1_gradients(stage1, graph)
    for other in (plain, chunked):
        for found, value in zip(other, ours, strict=True):
            torch.testing.assert_close(found, value, atol=1e-10, rtol=1e-10)


def test_prediction_in_chunks_is_the_same(monkeypatch):
    cascade = network()
    graph = graph_of(random_hamiltonian(structure(MIXED, 1, n_atoms=6), MIXED), cascade)
    with torch.no_grad():
        together = cascade.stage1(graph)
        monkeypatch.setattr("ase_hybridham.model.equivariant.PREDICTION_EDGES", 7)
        apart = cascade.stage1(graph)
        written_over = cascade.stage1(graph, features=False)
    for name in ("edge_out", "node_out", "nodes", "edges", "onsite"):
        torch.testing.assert_close(getattr(apart, name), getattr(together, name), atol=1e-12, rtol=1e-12)
    assert not written_over.edges
    torch.testing.assert_close(written_over.edge_out, together.edge_out, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(written_over.node_out, together.node_out, atol=1e-12, rtol=1e-12)


def test_derivatives_by_the_frames():
    """The hand-written ones take frames as given, so they step aside where a frame has a derivative of its own."""
    cascade = network()
    graph = graph_of(random_hamiltonian(structure(MIXED, 1, n_atoms=6), MIXED), cascade)
    frames = [graph[f"align_{l}"].requires_grad_() for l in range(1, cascade.lmax + 1)]
    _, edge = cascade(graph, "stage1")
    ours = torch.autograd.grad(edge.square().sum(), frames)
    with plain_operations():
        _, edge = cascade(graph, "stage1")
        expected = torch.autograd.grad(edge.square().sum(), frames)
    for found, value in zip(ours, expected, strict=True):
        assert value.abs().max() > 1e-3
        torch.testing.assert_close(found, value, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("gates", ["order", "channel"])
def test_compiler_sees_one_graph(gates):
    """Plain operations only, without a break; the back end that runs them as they are needs no compiler."""
    convolution = Convolution(LAYOUTS[0], LAYOUTS[0], LAYOUTS[0], 4, 4, gates).double()
    norm = LocalNorm(LAYOUTS[0], LAYOUTS[0].edge).double()
    ends, half = torch.tensor([[0, 1, 2], [1, 2, 0]]), torch.arange(3)
    node_i, node_j = (rows_of(LAYOUTS[0].turning, s, n=3) for s in (0, 1))
    pair, atoms = rows_of(LAYOUTS[0], 2, n=3), rows_of(LAYOUTS[0], 3, n=3)
    weight = torch.randn(3, convolution.hopping_gate.n_numbers).double()

    def update(node_i: torch.Tensor, node_j: torch.Tensor, pair: torch.Tensor) -> torch.Tensor:
        invariants = convolution.invariants(atoms)
        return norm(convolution.hoppings(node_i, node_j, pair, invariants, ends, weight, half), pair)

    compiled = torch.compile(update, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(node_i, node_j, pair), update(node_i, node_j, pair), atol=1e-12, rtol=1e-12)
