"""Common cells of two lattices: what is found fits, what is known is found, bad input is one line."""

import numpy as np
import pytest
from ase.build import graphene
from hypothesis import given, settings
from hypothesis import strategies as st

from ase_hybridham.structures import best_twist, twists
from ase_hybridham.structures.coincidence import common_cells
from tests.structures.crystals import LAYERS, boron_nitride, phosphorene

HEXAGONAL = 2.46 * np.array([[1.0, 0.0], [0.5, np.sqrt(0.75)]])


@pytest.mark.parametrize(
    ("angle", "n_atoms", "found"),
    [(21.8, 28, 21.7868), (38.2, 28, 38.2132), (13.2, 76, 13.1736), (-21.8, 28, -21.7868), (81.8, 28, 81.7868)],
)
def test_small_cells_of_graphene(angle, n_atoms, found):
    twist = best_twist(twists(graphene(a=2.46), angle=angle))
    assert (twist.n_atoms, twist.is_exact) == (n_atoms, True)
    assert twist.angle == pytest.approx(found, abs=1e-4)
    assert twist.angle_error == pytest.approx(found - angle, abs=1e-4)


def test_the_magic_angle():
    (twist,) = twists(graphene(a=2.46), angle=1.05)
    assert (twist.n_atoms, twist.is_exact) == (11908, True)
    assert twist.angle == pytest.approx(1.0501, abs=1e-4)


def test_no_twist_is_the_crystals_own_cell():
    for name, layer in LAYERS.items():
        twist = best_twist(twists(layer(), angle=0, max_atoms=300))
        assert twist.n_atoms == 2 * len(layer()), name
        assert (twist.is_exact, abs(round(twist.angle, 9))) == (True, 0)


def test_graphene_on_boron_nitride():
    """2.504 / 2.46 is 57 / 56 to 3e-5, and one cell on one if the strain may be 1.8 %."""
    strict = twists(graphene(a=2.46), boron_nitride(), angle=0)
    assert (strict[-1].n_atoms, strict[-1].strain) == (2 * 57**2 + 2 * 56**2, pytest.approx(2.85e-5, abs=1e-6))
    loose = best_twist(twists(graphene(a=2.46), boron_nitride(), angle=0, strain=0.02))
    assert (loose.n_atoms, loose.strain) == (4, pytest.approx(1 - 2.46 / 2.504))


lengths = st.floats(2.0, 5.0)


@settings(max_examples=25, deadline=None)
@given(a=lengths, b=lengths, angle=st.floats(50, 130), c=lengths, turn=st.floats(-90, 90))
def test_every_cell_fits_within_what_was_allowed_and_none_beats_another(a, b, angle, c, turn):
    lower = np.array([[a, 0.0], [b * np.cos(np.radians(angle)), b * np.sin(np.radians(angle))]])
    upper = c * np.eye(2)
    found = common_cells(lower, upper, turn, angle_tolerance=3.0, strain=0.05, max_area=400.0, atoms=(2, 3))
    cosine, sine = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    turned = upper @ np.array([[cosine, -sine], [sine, cosine]])
    for twist in found:
        cells, others = twist.lower @ lower, twist.upper @ turned
        assert min(np.linalg.det(cells), np.linalg.det(others)) > 0
        assert np.linalg.det(cells) <= 400 * (1 + 1e-6)
        left = np.linalg.solve(others, cells)
        assert np.abs(np.linalg.svd(left, compute_uv=False) - 1).max() == pytest.approx(twist.strain, abs=1e-9)
        assert twist.strain <= 0.05 + 1e-5
        assert abs(twist.angle_error) <= 3.0 + 1e-5
        assert twist.n_atoms == round(2 * np.linalg.det(twist.lower) + 3 * np.linalg.det(twist.upper))
    figures = [(t.n_atoms, abs(t.angle_error) + 1e-9, t.strain + 1e-9) for t in found]
    for k, one in enumerate(figures):
        assert not any(np.all(np.less(other, one)) for n, other in enumerate(figures) if n != k), (
            "one is better in everything"
        )


@settings(max_examples=25, deadline=None)
@given(m=st.integers(1, 9), step=st.integers(1, 5), sign=st.sampled_from([-1, 1]))
def test_no_cell_is_missed_that_indices_give(m, step, sign):
    """The smallest of an angle has at most the 4 (m^2 + mn + n^2) atoms of the indices, and is hexagonal."""
    n = m + step
    norm = m * m + m * n + n * n
    angle = sign * np.degrees(np.arccos((m * m + 4 * m * n + n * n) / (2 * norm)))
    found = common_cells(
        HEXAGONAL, HEXAGONAL, angle, angle_tolerance=1e-3, strain=1e-6, max_area=1.01 * norm * 5.2408, atoms=(2, 2)
    )
    assert found
    assert 4 * norm % found[0].n_atoms == 0
    a, b = np.linalg.norm(found[0].lower @ HEXAGONAL, axis=1)
    assert a == pytest.approx(b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"angle": 400.0}, "angle: expected degrees from -360 to 360, got 400"),
        ({"angle": float("nan")}, "angle: expected degrees"),
        ({"angle": 5.0, "strain": -0.1}, "strain: expected a number from 0 to 0.2"),
        ({"angle": 5.0, "strain": 0.3}, "strain: expected a number from 0 to 0.2"),
        ({"angle": 5.0, "angle_tolerance": 50}, "angle tolerance: expected a number from 0 to 30"),
        ({"angle": 5.0, "max_atoms": 3}, "max_atoms: expected at least 4, a cell of each layer, got 3"),
        (
            {"angle": 5.0, "max_atoms": 100},
            "angle: no common cell of at most 100 atoms within 0.1 degrees of 5 and a strain of 0.005; allow more",
        ),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        twists(graphene(a=2.46), **options)


def test_layers_that_are_none():
    bulk = phosphorene()
    bulk.pbc = True
    bulk.set_cell([3.3, 4.6, 5.0])
    chain, empty = phosphorene(), phosphorene()[:0]
    chain.pbc = (True, False, False)
    for layer, message in [
        (bulk, "layer: expected a vacuum of 5 A along the third axis, got 2.92; cut out one layer"),
        (chain, "layer: expected two periodic axes, got pbc .*; set atoms.pbc"),
        (empty, "layer: it holds no atom"),
    ]:
        with pytest.raises(ValueError, match=message):
            twists(layer, angle=5.0)


def test_a_layer_may_stand_anywhere_in_its_cell():
    """Turned, across the boundary, and periodic along the third axis: the same bilayer."""
    from ase_hybridham.structures import twisted_bilayer
    from tests.structures.crystals import distances, molybdenum_disulfide

    layer, other = molybdenum_disulfide(), molybdenum_disulfide()
    other.pbc = True
    other.positions[:, 2] -= other.positions[:, 2].mean()
    other.wrap()
    assert np.ptp(other.positions[:, 2]) > 10  # across the boundary
    other.rotate(50, (1, 2, 3), rotate_cell=True)
    one, two = (distances(twisted_bilayer(1, 2, layer=atoms, spacing=2.9), 5.0) for atoms in (layer, other))
    for ours, theirs in zip(one, two, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-8)
