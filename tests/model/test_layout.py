"""How rows lie in memory, and that the maps on them commute with what they must commute with."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ase_hybridham.model import ModelConfig
from ase_hybridham.model.config import Stage1Config, parse_irreps
from ase_hybridham.model.layout import FeatureLayout
from ase_hybridham.model.linear import DegreeLinear, OrderLinear, Typed, by_type
from ase_hybridham.model.vocabulary import TargetLayout
from ase_hybridham.symmetry import DirectSum, MagneticDirectSum, SpinorDirectSum, wigner_D

INPUTS = [FeatureLayout((5, 3, 2, 1)), FeatureLayout((2, 4)), FeatureLayout((3, 1, 1, 2))]
UNNATURAL = FeatureLayout((4, 3, 2), (2, 1, 0, 2))
OUT = FeatureLayout((4, 3, 3, 2))


def rows_of(layout: FeatureLayout, seed: int, n: int = 6) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, layout.size)))


def turn_lab(rows: torch.Tensor, layout: FeatureLayout, rotation: np.ndarray) -> torch.Tensor:
    """D_l on every channel, one component at a time."""
    out = torch.zeros_like(rows)
    channel, order = layout.lab.channel, layout.lab.order
    place = {key: k for k, key in enumerate(zip(channel, order, strict=True))}
    for (c, m), k in place.items():
        l = layout.channel_degree[c]
        parity = 1.0 if layout.channel_natural[c] else np.linalg.det(rotation)
        for n in range(-l, l + 1):
            out[:, k] += parity * wigner_D(l, rotation)[l + m, l + n] * rows[:, place[c, n]]
    return out


def turn_edge(rows: torch.Tensor, layout: FeatureLayout, rotation: np.ndarray) -> torch.Tensor:
    """The same of rows in the frame of their edge."""
    to_lab, sign = (torch.from_numpy(a) for a in layout.edge_to_lab)
    return (turn_lab(rows[:, to_lab] * sign, layout, rotation) * sign)[:, torch.argsort(to_lab)]


def about_edge(angle: float) -> np.ndarray:
    return Rotation.from_euler("z", angle).as_matrix()


MIRROR = np.diag([1.0, -1.0, 1.0])


@pytest.mark.parametrize("layout", [*INPUTS, OUT, UNNATURAL])
def test_every_component_has_its_place(layout):
    degrees = layout.channel_degree
    assert layout.size == (2 * degrees + 1).sum()
    for components in (layout.lab, layout.edge):
        pairs = set(zip(components.channel, components.order, strict=True))
        assert len(pairs) == layout.size == len(components.channel)
        assert all(abs(m) <= degrees[c] for c, m in pairs)
    assert (np.diff(degrees[layout.lab.channel]) >= 0).all()  # degree outermost
    assert (np.diff(np.abs(layout.edge.order)) >= 0).all()  # order outermost
    assert layout.counts == tuple((degrees >= m).sum() for m in range(layout.lmax + 1))


@pytest.mark.parametrize("layout", [*INPUTS, OUT, UNNATURAL])
def test_edge_to_lab(layout):
    index, sign = layout.edge_to_lab
    assert sorted(index) == list(range(layout.size))
    np.testing.assert_array_equal(layout.edge.channel[index], layout.lab.channel)
    swapped = ~layout.channel_natural[layout.lab.channel]
    np.testing.assert_array_equal(layout.edge.order[index], np.where(swapped, -1, 1) * layout.lab.order)
    np.testing.assert_array_equal(sign, np.where(swapped & (layout.lab.order < 0), -1, 1))


@pytest.mark.parametrize("bias", [True, False])
def test_order_linear_commutes_with_what_keeps_the_edge(bias):
    torch.manual_seed(0)
    linear = OrderLinear(INPUTS, OUT.counts, bias=bias).double()
    if bias:
        torch.nn.init.normal_(linear.bias)
    rows = [rows_of(layout, seed) for seed, layout in enumerate(INPUTS)]
    before = linear(rows)
    assert before.shape == (6, OUT.size)
    for Q in (about_edge(0.7), about_edge(2.9), MIRROR, about_edge(1.0) @ MIRROR):
        after = linear([turn_edge(x, layout, Q) for x, layout in zip(rows, INPUTS, strict=True)])
        torch.testing.assert_close(after, turn_edge(before, OUT, Q), atol=1e-12, rtol=0)
        assert (after - before).abs().max() > 0.1
    # any other rotation is not a symmetry of the edge
    Q = Rotation.from_euler("x", 0.8).as_matrix()
    after = linear([turn_edge(x, layout, Q) for x, layout in zip(rows, INPUTS, strict=True)])
    assert (after - turn_edge(before, OUT, Q)).abs().max() > 0.1


@pytest.mark.parametrize("bias", [True, False])
def test_degree_linear_commutes_with_rotations_and_inversion(bias):
    torch.manual_seed(0)
    linear = DegreeLinear(INPUTS, OUT.multiplicities, bias=bias).double()
    if bias:
        torch.nn.init.normal_(linear.bias)
    rows = [rows_of(layout, seed) for seed, layout in enumerate(INPUTS)]
    before = linear(rows)
    assert before.shape == (6, OUT.size)
    for Q in (Rotation.random(random_state=1).as_matrix(), -Rotation.random(random_state=2).as_matrix()):
        after = linear([turn_lab(x, layout, Q) for x, layout in zip(rows, INPUTS, strict=True)])
        torch.testing.assert_close(after, turn_lab(before, OUT, Q), atol=1e-12, rtol=0)
        assert (after - before).abs().max() > 0.1


@pytest.mark.parametrize("make", [OrderLinear, DegreeLinear])
def test_linear_maps_are_the_most_general_ones(make):
    """As many weights as channels (of one order, or degree) in times out; every input channel is heard."""
    torch.manual_seed(0)
    counts = OUT.counts if make is OrderLinear else OUT.multiplicities
    linear = make(INPUTS, counts, bias=False).double()
    of = [x.counts if make is OrderLinear else x.multiplicities for x in INPUTS]
    expected = sum(sum(c[k] for c in of if k < len(c)) * n for k, n in enumerate(counts))
    assert sum(w.numel() for w in linear.parameters()) == expected
    rows = [rows_of(layout, seed, n=1).requires_grad_() for seed, layout in enumerate(INPUTS)]
    for row in torch.autograd.grad(linear(rows).square().sum(), rows):
        assert (row != 0).all()


@pytest.mark.parametrize("make", [OrderLinear, DegreeLinear])
def test_no_rows(make):
    linear = make(INPUTS, OUT.counts).double()
    assert linear([rows_of(layout, 0, n=0) for layout in INPUTS]).shape[0] == 0


@pytest.mark.parametrize("make", [OrderLinear, DegreeLinear])
def test_outputs_without_inputs_are_zero(make):
    """A degree that no input has."""
    low = FeatureLayout((3, 2))
    linear = make([low], (2, 2, 2), bias=False).double()
    out = linear([rows_of(low, 0)])
    n_zero = 2 * 2 if make is OrderLinear else 5 * 2
    assert out[:, :-n_zero].abs().min() > 0
    assert not out[:, -n_zero:].any()


KINDS = [DirectSum, SpinorDirectSum, MagneticDirectSum]


@pytest.mark.parametrize("rows", [(0, 1, 2), (0, 0, 1, 1, 2)])
@pytest.mark.parametrize("columns", [(0, 1), (2, 0), (1,), (0,), (3, 1)])
@pytest.mark.parametrize("selection", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_scatter_covers_the_direct_sum_once(kind, selection, rows, columns):
    target = TargetLayout(kind(rows, columns), selection)
    direct_sum = target.direct_sum
    index, sign = target.scatter
    allowed = direct_sum.natural | (direct_sum.order != 0) | (not selection)
    np.testing.assert_array_equal(sign != 0, allowed)
    n_outputs = sum(c * (1 if m == 0 else 2) for m, c in enumerate(target.counts))
    assert sorted(index[allowed]) == list(range(n_outputs))
    # an output serves the order of the component it goes to
    order = np.concatenate([np.full(c * (1 if m == 0 else 2), m) for m, c in enumerate(target.counts)])
    np.testing.assert_array_equal(order[index[allowed]], np.abs(direct_sum.order[allowed]))

    onsite_index, onsite_sign = target.onsite_scatter
    present = direct_sum.natural | (not selection)
    np.testing.assert_array_equal(onsite_sign, present)
    natural, unnatural = target.natural_multiplicities, target.unnatural_multiplicities
    outputs = [
        (l, m, parity)
        for l, counts in enumerate(zip(natural, unnatural, strict=True))
        for m in range(-l, l + 1)
        for parity, count in zip((True, False), counts, strict=True)
        for _ in range(count)
    ]
    assert sorted(onsite_index[present]) == list(range(len(outputs)))
    for c in np.flatnonzero(present):
        assert outputs[onsite_index[c]] == (direct_sum.degree[c], direct_sum.order[c], direct_sum.natural[c])


@pytest.mark.parametrize("kind", KINDS)
def test_parts_keep_their_order_among_the_outputs(kind):
    """Part by part at every m of hoppings; without the selection rule the unnatural ones have m = 0, too."""
    target = TargetLayout(kind((0, 1, 2), (1, 2)), selection=False)
    index, sign = target.scatter
    for m in range(target.lmax + 1):
        parts = [target.direct_sum.parts[p] for p in target.parts_at(m)]
        assert [p for p in target.direct_sum.parts if p.degree >= m] == parts
        plus = [p.start + p.degree + (m if p.natural else -m) for p in parts]
        assert (np.diff(index[plus]) == 1).all()
        assert (sign[plus] == [1 if p.natural or m == 0 else -1 for p in parts]).all()


@pytest.mark.parametrize("parity", ["natural", "unnatural"])
@pytest.mark.parametrize("kind", KINDS)
def test_scatter_turns_outputs_as_direct_sums_turn(kind, parity):
    """Outputs turn as features do; placed, they turn with the parity of their part."""
    target = TargetLayout(kind((0, 1, 2), (1, 2)))
    direct_sum = target.direct_sum
    index, sign = target.scatter
    n = sum(c * (1 if m == 0 else 2) for m, c in enumerate(target.counts))
    outputs = np.random.default_rng(0).normal(size=n)
    order = np.concatenate([np.tile([m], c) if m == 0 else np.repeat([m, -m], c) for m, c in enumerate(target.counts)])
    partner = np.arange(n)
    start = target.counts[0]
    for c in target.counts[1:]:
        partner[start : start + c], partner[start + c : start + 2 * c] = (
            np.arange(start + c, start + 2 * c),
            np.arange(start, start + c),
        )
        start += 2 * c
    angle = 0.8
    # z(+m) -> cos z(+m) - sin z(-m), as D of a rotation about the edge has it
    turned = np.cos(order * angle) * outputs - np.sin(order * angle) * outputs[partner]
    mirrored = np.where(order < 0, -1.0, 1.0) * outputs
    for Q, changed in ((about_edge(angle), turned), (MIRROR, mirrored)):
        for part in direct_sum.parts:
            if part.natural != (parity == "natural"):
                continue
            # a block's parts turn with (-1)^(l1+l2), wigner_D with (-1)^degree
            D = wigner_D(part.degree, Q) * (1 if part.natural else np.linalg.det(Q))
            np.testing.assert_allclose(
                (sign * changed[index])[part.components], D @ (sign * outputs[index])[part.components], atol=1e-13
            )


def test_maps_per_type_are_those_of_the_types():
    torch.manual_seed(0)
    maps = [OrderLinear([INPUTS[0]], OUT.counts).double() for _ in range(3)]
    rows, types = rows_of(INPUTS[0], 0), np.array([2, 0, 0, 2, 2, 0])
    together = Typed(maps)([rows], [(t, torch.from_numpy(np.flatnonzero(types == t))) for t in (0, 2)])
    for k, t in enumerate(types):
        torch.testing.assert_close(together[k : k + 1], maps[t]([rows[k : k + 1]]))
    torch.testing.assert_close(Typed(maps[:1])([rows], [(0, None)]), maps[0]([rows]))
    assert by_type(lambda t, index: rows[index] * t, 6, [(1, torch.arange(6))]).equal(rows)


class TestConfig:
    def test_irreps(self):
        assert parse_irreps("64x0e + 32x1o+16x2e") == FeatureLayout((64, 32, 16))
        assert parse_irreps("1x1o+2x0e+3x0e") == FeatureLayout((5, 1))
        assert parse_irreps("1x1e+2x0e+3x0o+1x2e") == FeatureLayout((2, 0, 1), (3, 1, 0))

    @pytest.mark.parametrize(
        ("irreps", "message"),
        [
            ("64x0e+32x1e", r"parity \(-1\)\^l"),
            ("64x0e+16x2e", "every l from 0 up"),
            ("32x1o", "at least one scalar"),
            ("0x0e+2x1o", "at least one scalar"),
            ("64x0e+", "entries like"),
            ("x0e", "entries like"),
            ("", "at least one scalar"),
            ("64x0e+-3x1o", "entries like"),
        ],
    )
    def test_bad_irreps_are_refused(self, irreps, message):
        with pytest.raises(ValueError, match=message):
            Stage1Config(irreps=irreps)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"stage1": {"layers": 3}}, "layers"),
            ({"stage2": {"width": 30, "n_heads": 4}}, "multiple of n_heads"),
            ({"stage2": {"n_groups": 4}}, "n_groups"),
            ({"stage2": {"frame": "local"}}, "frame"),
            ({"dtype": "float16"}, "dtype"),
        ],
    )
    def test_bad_options_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            ModelConfig(**options)

    def test_options_survive_a_dump(self):
        config = ModelConfig(stage2={"lambda": 0.3, "frame": "global"}, dtype="float64")
        assert config.stage2.lambda_ == 0.3
        assert ModelConfig(**config.model_dump(by_alias=True)) == config
