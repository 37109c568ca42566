"""The convolution in the frames of the edges equals e3nn's tensor product; norm, gate, radial functions."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ase_hybridham.model.convolution import Convolution, GaussianBasis, smooth_envelope
from ase_hybridham.model.layout import FeatureLayout
from ase_hybridham.model.linear import OrderLinear
from ase_hybridham.symmetry import alignment_matrices, polar_coupling
from tests.model.test_layout import MIRROR, about_edge, rows_of, turn_edge, turn_lab

AXES = [1, 2, 0]  # e3nn's vectors are (y, z, x)
IN, OUT, UNNATURAL = (5, 4, 3, 2, 2), (4, 3, 3, 1, 2), (0, 2, 1, 3)
N_INPUTS = 3


def product_matrices(
    multiplicities: Sequence[int],
    out: Sequence[int],
    weights: Mapping[tuple[int, int, int], NDArray],
    *,
    unnatural_out: Sequence[int] = (),
    n_inputs: int = 3,
) -> list[NDArray]:
    """Matrices per m that equal e3nn's tensor product with the harmonics of the edge.

    A_m[l1 u, l3 w] = alpha sum_l2 sqrt(2 l2+1) c(l1, l2, l3; m) W_l2[u, w], with alpha^2 = (2 l3+1) / (sum of
    the multiplicities of all paths into l3): e3nn's normalization since 0.4.4 ("element").

    Parameters
    ----------
    multiplicities, out : sequences of int
        Of the natural irreps of one input and of the output.
    weights : mapping
        (l1, l2, l3) -> array, shape (n_inputs, multiplicities[l1], channels of l3); an odd sum leads to an
        unnatural l3.
    unnatural_out : sequence of int
        Multiplicities of the unnatural irreps of the output, by l.

    Returns
    -------
    list over m of arrays, shape (n_inputs * C_m, N_m)
        As `OrderLinear` holds them. Outputs are natural, then unnatural channels; the latter are swapped,
        z(+m) = -y(-m), z(-m) = y(+m), and have no m = 0 component, which the product does not reach.
    """
    columns = [(l3, 0, mul) for l3, mul in enumerate(out)] + [(l3, 1, mul) for l3, mul in enumerate(unnatural_out)]
    fan_in = dict.fromkeys(((l3, parity) for l3, parity, _ in columns), 0)
    for l1, l2, l3 in weights:
        fan_in[l3, (l1 + l2 + l3) % 2] += n_inputs * multiplicities[l1]
    matrices = []
    for m in range(min(len(multiplicities), max(len(out), len(unnatural_out)))):
        present = [(l3, parity, mul) for l3, parity, mul in columns if l3 >= m and (m or not parity)]
        rows = []
        for n in range(n_inputs):
            blocks = {
                (l1, l3, parity): np.zeros((multiplicities[l1], mul))
                for l1 in range(m, len(multiplicities))
                for l3, parity, mul in present
            }
            for (l1, l2, l3), weight in weights.items():
                key = (l1, l3, (l1 + l2 + l3) % 2)
                if key in blocks:
                    alpha = np.sqrt((2 * l3 + 1) / fan_in[key[1:]])
                    blocks[key] += alpha * np.sqrt(2 * l2 + 1) * polar_coupling(l1, l2, l3)[m] * weight[n]
            rows += [
                np.concatenate([blocks[l1, l3, parity] for l3, parity, _ in present], axis=1)
                for l1 in range(m, len(multiplicities))
            ]
        matrices.append(np.concatenate(rows))
    return matrices


@pytest.fixture(scope="module")
def o3() -> Iterator:
    """e3nn.o3 while torch makes float64 by default, as e3nn's tables need."""
    e3nn = pytest.importorskip("e3nn.o3")
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield e3nn
    torch.set_default_dtype(default)


def edges() -> np.ndarray:
    """Random ones, along axes, and within 1e-16 to 1e-3 of both poles."""
    rng = np.random.default_rng(0)
    near = [[rng.normal() * t, rng.normal() * t, s] for t in (1e-16, 1e-12, 1e-8, 1e-5, 1e-3) for s in (2.0, -2.0)]
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    return np.concatenate([rng.normal(size=(200, 3)), axes, near])


def irreps(multiplicities: tuple[int, ...], parity: int = 1) -> str:
    return "+".join(f"{mul}x{l}{'eo'[(l + (parity < 0)) % 2]}" for l, mul in enumerate(multiplicities) if mul)


def turned_to_edges(rows: np.ndarray, multiplicities: tuple[int, ...], frames: list) -> list[np.ndarray]:
    """Channels of every l, shape (E, mul, 2l+1), in the frames of the edges, from e3nn's order of components."""
    out, start = [], 0
    for l, mul in enumerate(multiplicities):
        part = rows[:, start : start + mul * (2 * l + 1)].reshape(len(rows), mul, 2 * l + 1)
        out.append(np.einsum("enm,eum->eun", frames[l], part))
        start += mul * (2 * l + 1)
    return out


def by_order(parts: list[np.ndarray]) -> np.ndarray:
    """Rows as `OrderLinear` takes them, of channels (E, mul, 2l+1)."""
    columns = []
    for m in range(len(parts)):
        for signed in (0,) if m == 0 else (m, -m):
            columns += [part[:, :, l + signed] for l, part in enumerate(parts) if l >= m]
    return np.concatenate(columns, axis=1)


def from_order(rows: np.ndarray, out: tuple[int, ...], unnatural: tuple[int, ...]) -> list[np.ndarray]:
    """Channels (E, mul, 2l+1) of natural, then unnatural irreps (swapped back)."""
    channels = [(l, False, mul) for l, mul in enumerate(out)] + [(l, True, mul) for l, mul in enumerate(unnatural)]
    parts = [np.zeros((len(rows), mul, 2 * l + 1)) for l, _, mul in channels]
    start = 0
    for m in range(max(len(out), len(unnatural))):
        for signed in (0,) if m == 0 else (m, -m):
            for part, (l, odd, mul) in zip(parts, channels, strict=True):
                if l >= m and (m > 0 or not odd):
                    column = rows[:, start : start + mul]
                    if odd:  # z(+m) = -y(-m), z(-m) = y(+m)
                        part[:, :, l - signed] = -column if signed > 0 else column
                    else:
                        part[:, :, l + signed] = column
                    start += mul
    assert start == rows.shape[1]
    return parts


@pytest.mark.parametrize("unnatural", [(), UNNATURAL], ids=["natural outputs", "unnatural outputs too"])
def test_product_is_that_of_e3nn(o3, unnatural):
    """DeepH-E3's: three inputs side by side, mode uvw, harmonics of the edge as second factor."""
    rng = np.random.default_rng(1)
    vectors = edges()
    l_edge = 5
    harmonics = o3.Irreps.spherical_harmonics(l_edge)
    joined = o3.Irreps("+".join([irreps(IN)] * N_INPUTS))
    target = o3.Irreps(irreps(OUT) + (f"+{irreps(unnatural, -1)}" if unnatural else ""))
    product = o3.FullyConnectedTensorProduct(
        joined, harmonics, target, irrep_normalization="component", path_normalization="element"
    )
    weights: dict[tuple[int, int, int], np.ndarray] = {}
    flat = torch.empty(product.weight_numel)
    start = 0
    for instruction in product.instructions:
        l1, l2 = joined[instruction.i_in1].ir.l, harmonics[instruction.i_in2].ir.l
        l3 = target[instruction.i_out].ir.l
        mul1, mul2, mul3 = instruction.path_shape
        assert mul2 == 1
        weight = rng.normal(size=(mul1, mul3))
        n_before = instruction.i_in1 // len(IN)
        weights.setdefault((l1, l2, l3), np.zeros((N_INPUTS, mul1, mul3)))[n_before] = weight
        flat[start : start + weight.size] = torch.from_numpy(weight.ravel())
        start += weight.size
    assert any((l1 + l2 + l3) % 2 for l1, l2, l3 in weights) == bool(unnatural)

    sizes = sum(mul * (2 * l + 1) for l, mul in enumerate(IN))
    inputs = [rng.normal(size=(len(vectors), sizes)) for _ in range(N_INPUTS)]
    Y = o3.spherical_harmonics(harmonics, torch.from_numpy(vectors[:, AXES]), normalize=True, normalization="component")
    theirs = product(torch.from_numpy(np.concatenate(inputs, axis=1)), Y, flat).numpy()

    matrices = product_matrices(IN, OUT, weights, unnatural_out=unnatural, n_inputs=N_INPUTS)
    layout = FeatureLayout(IN)
    linear = OrderLinear([layout] * N_INPUTS, tuple(matrix.shape[1] for matrix in matrices), bias=False)
    for parameter, matrix in zip(linear.weights, matrices, strict=True):
        assert parameter.shape == matrix.shape
        parameter.data = torch.from_numpy(matrix)
    frames = alignment_matrices(vectors, 4)
    rows = [torch.from_numpy(by_order(turned_to_edges(x, IN, frames))) for x in inputs]
    with torch.no_grad():
        out = from_order(linear(rows).numpy(), OUT, unnatural)
    degrees = [*range(len(OUT)), *range(len(unnatural))]
    lab = [np.einsum("emn,eum->eun", frames[l], part) for l, part in zip(degrees, out, strict=True)]
    ours = np.concatenate([part.reshape(len(vectors), -1) for part in lab], axis=1)
    assert np.abs(theirs).max() > 1
    np.testing.assert_allclose(ours, theirs, atol=1e-10, rtol=0)


def test_every_equivariant_map_is_a_product(o3):
    """The free matrices of own training hold nothing that tensor-product weights could not: equal dimensions.

    For each l1 -> l3 and copy there are min(l1, l3) + 1 values of l2 with an even sum, and as many orders m.
    """
    for l1 in range(5):
        for l3 in range(5):
            n_paths = sum((l1 + l2 + l3) % 2 == 0 for l2 in range(abs(l1 - l3), l1 + l3 + 1))
            assert n_paths == min(l1, l3) + 1
            weights = {
                (l1, l2, l3): np.ones((1, 1, 1)) for l2 in range(abs(l1 - l3), l1 + l3 + 1) if (l1 + l2 + l3) % 2 == 0
            }
            coefficients = np.zeros((len(weights), min(l1, l3) + 1))
            for k, key in enumerate(weights):
                only = {other: weight * (other == key) for other, weight in weights.items()}
                matrices = product_matrices([1] * (l1 + 1), [1] * (l3 + 1), only, n_inputs=1)
                coefficients[k] = [matrix[l1 - m, l3 - m] for m, matrix in enumerate(matrices)]
            assert np.linalg.matrix_rank(coefficients) == len(weights)


def test_envelope_ends_with_two_vanishing_derivatives():
    reach = torch.tensor([4.0], dtype=torch.float64)

    def at(distance: float) -> float:
        return float(smooth_envelope(torch.tensor([distance], dtype=torch.float64), reach))

    assert at(0.0) == 1.0
    assert at(4.0) == at(7.0) == 0.0
    values = [at(d) for d in np.linspace(0, 4, 50)]
    assert (np.diff(values) <= 0).all()
    # x = 1 - t: 56 t^3 and higher orders
    assert at(4.0 * (1 - 1e-3)) == pytest.approx(56e-9, rel=0.02)


def test_gaussians():
    basis = GaussianBasis(5, 2.0)
    values = basis(torch.tensor([0.0, 0.5, 1.25], dtype=torch.float64)).numpy()
    centers, width = np.linspace(0, 2, 5), 0.5
    d = np.array([[0.0], [0.5], [1.25]])
    np.testing.assert_allclose(values, np.exp(-((d - centers) ** 2) / (2 * width**2)), atol=1e-15)


class TestConvolution:
    node, edge, out = FeatureLayout((4, 3, 2)), FeatureLayout((3, 2, 2, 1)), FeatureLayout((5, 3, 2, 2))

    def run(
        self, inputs: list[torch.Tensor], gates: str, ends: torch.Tensor | None = None, n_edges: int = 6
    ) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        convolution = Convolution(self.node, self.edge, self.out, 8, 6, gates).double()
        torch.nn.init.normal_(convolution.onsite_weight)
        weight = convolution.weights(torch.from_numpy(np.random.default_rng(3).normal(size=(n_edges, 8))))
        atoms = torch.randn(4, self.node.size, generator=torch.Generator().manual_seed(1)).double()
        ends = torch.tensor([[0, 0, 1, 1, 2, 3], [1, 2, 3, 0, 3, 0]]) if ends is None else ends
        hoppings = convolution.hoppings(*inputs[:3], convolution.invariants(atoms), ends, weight, torch.arange(n_edges))
        return hoppings, convolution.onsites(*inputs[3:])

    def inputs(self) -> list[torch.Tensor]:
        layouts = [self.node.turning, self.node.turning, self.edge, self.node, self.edge]
        return [rows_of(layout, seed) for seed, layout in enumerate(layouts)]

    @pytest.mark.parametrize("gates", ["order", "channel"])
    def test_hoppings_turn_about_their_edge_and_onsite_pairs_as_they_like(self, gates):
        inputs = self.inputs()
        hopping, onsite = self.run(inputs, gates)
        assert hopping.shape == onsite.shape == (6, self.out.size)
        for Q in (about_edge(1.1), MIRROR):
            # the second stands in the frame of the reverse edge, which turns the other way round
            frames = [Q, MIRROR @ Q @ MIRROR, Q]
            layouts = [self.node.turning, self.node.turning, self.edge]
            turned = [turn_edge(x, layout, q) for x, layout, q in zip(inputs[:3], layouts, frames, strict=True)]
            after, _ = self.run(turned + inputs[3:], gates)
            torch.testing.assert_close(after, turn_edge(hopping, self.out, Q), atol=1e-12, rtol=0)
            assert (after - hopping).abs().max() > 0.01
        for Q in (Rotation.random(random_state=0).as_matrix(), -np.eye(3)):
            turned = [turn_lab(x, layout, Q) for x, layout in zip(inputs[3:], [self.node, self.edge], strict=True)]
            _, after = self.run(inputs[:3] + turned, gates)
            torch.testing.assert_close(after, turn_lab(onsite, self.out, Q), atol=1e-12, rtol=0)

    @pytest.mark.parametrize("gates", ["order", "channel"])
    def test_edges_have_their_own_radial_weights(self, gates):
        """Equal inputs on edges of the same atoms leave the distance as the only difference."""
        inputs = [x[:1].expand(6, -1) for x in self.inputs()]
        hopping, onsite = self.run(inputs, gates, ends=torch.zeros(2, 6, dtype=torch.long))
        assert (hopping[0] - hopping[1]).abs().max() > 0.01
        torch.testing.assert_close(onsite[0], onsite[1])

    def test_scalars_of_both_atoms_are_heard(self):
        inputs = self.inputs()
        ends = torch.tensor([[0, 0, 0, 0, 0, 0], [1, 2, 3, 1, 2, 3]])
        hopping, _ = self.run(inputs, "channel", ends=ends)
        for changed in (ends.flip(0), ends + torch.tensor([[0], [-1]]), ends + torch.tensor([[1], [0]])):
            other, _ = self.run(inputs, "channel", ends=changed)
            assert ((other - hopping).abs().amax(1) > 1e-3).all()
