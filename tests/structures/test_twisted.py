"""Twisted bilayers and stacks: angle, number of atoms, layers that are those of the crystal."""

import json
from math import atan2, degrees, sqrt
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import graphene, make_supercell
from hypothesis import given, settings
from hypothesis import strategies as st

import ase_hybridham
from ase_hybridham.structures import best_twist, hexagonal_twist, twisted_bilayer, twisted_stack, twists
from ase_hybridham.system import PairList
from tests.structures.crystals import LAYERS, bismuth_selenide, distances, phosphorene

SHIPPED = Path(ase_hybridham.__file__).parent / "data/twisted_bilayer.json"


def bond_angle(atoms: Atoms, atom: int) -> float:
    """Direction of the bonds of an atom in the plane, degrees modulo 120."""
    pairs = PairList.from_atoms(atoms, 1.6)
    x, y, _ = pairs.vectors[(pairs.i == atom) & (pairs.distances > 0)].T
    found = np.degrees(np.arctan2(y, x)) % 120
    assert np.ptp((found - found[0] + 60) % 120) < 1e-6
    return float(found[0])


@pytest.mark.parametrize(("m", "n", "angle"), [(1, 2, 21.787), (2, 3, 13.174), (1, 3, 32.204), (1, 4, 38.213)])
def test_two_perfect_layers_at_the_angle(m, n, angle):
    atoms = twisted_bilayer(m, n, spacing=3.4, height=20.0)
    z = atoms.positions[:, 2]
    assert len(atoms) == 4 * (m**2 + m * n + n**2)
    np.testing.assert_allclose(np.unique(z.round(9)), [8.3, 11.7])
    assert (z < 10).sum() == len(atoms) / 2
    pairs = PairList.from_atoms(atoms, 1.6)
    np.testing.assert_allclose(pairs.distances[pairs.hopping], 2.46 / np.sqrt(3))
    assert (np.bincount(pairs.i) == 4).all()  # itself and three neighbors
    lengths, angles = atoms.cell.lengths(), atoms.cell.angles()
    np.testing.assert_allclose(lengths[:2], 2.46 * np.sqrt(m**2 + m * n + n**2))
    np.testing.assert_allclose(angles, [90, 90, 120])
    turn = bond_angle(atoms, 0) - bond_angle(atoms, int(np.argmax(z > 10)))
    assert min(turn % 120, -turn % 120) == pytest.approx(angle, abs=1e-3)


def test_it_is_the_structure_that_openmx_has_computed():
    """Up to the order of the atoms and a mirror."""
    shipped = json.loads(SHIPPED.read_text())
    theirs = Atoms(shipped["numbers"], shipped["positions"], cell=shipped["cell"], pbc=(True, True, False))
    ours = twisted_bilayer(1, 2)
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(ours.cell.array, theirs.cell.array, atol=1e-6)
    one, other = (np.sort(PairList.from_atoms(atoms, 5.0).distances) for atoms in (ours, theirs))
    np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(("m", "n"), [(2, 1), (1, 1), (0, 1), (2, 4), (-1, 2)])
def test_others_are_refused(m, n):
    with pytest.raises(ValueError, match="expected 0 < m < n without a common divisor"):
        twisted_bilayer(m, n)


@pytest.mark.parametrize(
    ("m", "n", "n_atoms", "angle"), [(1, 2, 28, 21.787), (2, 3, 76, 13.174), (31, 32, 11908, 1.050)]
)
def test_known_counts(m, n, n_atoms, angle):
    atoms = twisted_bilayer(m, n)
    assert len(atoms) == n_atoms
    assert hexagonal_twist(m, n).angle == pytest.approx(angle, abs=5e-4)
    assert (atoms.get_scaled_positions(wrap=False)[:, :2] > -1e-6).all()
    assert (atoms.get_scaled_positions(wrap=False)[:, :2] < 1).all()


@pytest.mark.parametrize(("m", "n"), [(1, 2), (2, 3), (1, 4), (5, 6)])
def test_graphene_is_what_it_always_was(m, n):
    """To rounding and in the order of ASE's supercells: models and documents rest on it."""
    b1, b2 = 2.46 * np.array([[1.0, 0.0, 0.0], [0.5, sqrt(0.75), 0.0]])
    layer = Atoms("C2", [np.zeros(3), (b1 + b2) / 3], cell=[b1, b2, [0.0, 0.0, 16.0]], pbc=(True, True, False))
    expected = Atoms()
    for (p, q), z in zip(((n, m), (m, n)), (-0.5, 0.5), strict=True):
        turned = make_supercell(layer, [[p, q, 0], [-p - q, p, 0], [0, 0, 1]])
        turned.rotate(-degrees(atan2(sqrt(0.75) * q, p + 0.5 * q)), "z", rotate_cell=True)
        turned.translate((0.0, 0.0, 8.0 + z * 3.35))
        expected = turned if not len(expected) else expected + turned
    ours = twisted_bilayer(m, n)
    np.testing.assert_allclose(ours.positions, expected.positions, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.cell.array, expected.cell.array, rtol=0, atol=1e-12)


layers = st.sampled_from(sorted(LAYERS))
small = st.floats(-0.02, 0.02)


@settings(max_examples=12, deadline=None)
@given(
    lower=layers,
    upper=layers,
    angle=st.floats(-180, 180),
    share=st.floats(0, 1),
    shift=st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
    strain=st.tuples(small, small, small),
    pattern=st.sampled_from(["AB", "ABA", "BBA"]),
)
def test_layers_of_a_stack_are_the_crystals_turned_and_strained(lower, upper, angle, share, shift, strain, pattern):
    crystals = {"A": LAYERS[lower](), "B": LAYERS[upper]()}
    found = twists(crystals["A"], crystals["B"], angle=angle, angle_tolerance=8, strain=0.12, max_atoms=160)
    twist = best_twist(found)
    assert abs(twist.angle - angle) <= 8 + 1e-6
    assert twist.strain <= 0.12 + 1e-6
    shifts = [shift] * len(pattern)
    stack = twisted_stack(
        twist, crystals["A"], crystals["B"], pattern=pattern, spacing=3.1, shifts=shifts, share=share, strain=strain
    )
    assert stack.pbc.tolist() == [True, True, False]
    assert stack.cell.volume > 0
    assert np.linalg.det(stack.cell.array) > 0
    np.testing.assert_allclose(stack.positions[:, 2].min() + stack.positions[:, 2].max(), stack.cell[2, 2])
    cells = {"A": round(np.linalg.det(twist.lower)), "B": round(np.linalg.det(twist.upper))}
    assert len(stack) == sum(cells[kind] * len(crystals[kind]) for kind in pattern)
    assert twist.n_atoms == sum(cells[kind] * len(crystals[kind]) for kind in "AB")
    top = -np.inf
    for n, kind in enumerate(pattern):
        layer, crystal = stack[stack.get_tags() == n], crystals[kind]
        bottom = layer.positions[:, 2].min()
        assert bottom - top == pytest.approx(3.1) or n == 0
        top = layer.positions[:, 2].max()
        # back from the strained common cell to that of the crystal: only a rotation may be left
        relaxed = layer.copy()
        matrix = twist.lower if kind == "A" else twist.upper
        own = make_supercell(crystal, [[*matrix[0], 0], [*matrix[1], 0], [0, 0, 1]]).cell.array[:2, :2]
        deformation = np.linalg.solve(own, stack.cell.array[:2, :2])
        stretches = np.linalg.svd(deformation, compute_uv=False)
        part = share if kind == "B" else 1 - share
        assert np.abs(stretches - 1).max() <= part * twist.strain * 1.1 + 0.05  # 0.02 (1 + sqrt 2) of the strain
        relaxed.set_cell([[*own[0], 0], [*own[1], 0], stack.cell.array[2]], scale_atoms=True)
        for one, other in zip(distances(relaxed, 4.0), distances(crystal, 4.0), strict=True):
            np.testing.assert_allclose(one, np.repeat(other, cells[kind]), atol=1e-6)
        area = np.linalg.norm(np.cross(*crystal.cell.array[:2]))
        assert np.linalg.det(own) / len(layer) == pytest.approx(area / len(crystal))  # the density


@settings(max_examples=12, deadline=None)
@given(name=layers, angle=st.floats(-180, 180), share=st.floats(0, 1))
def test_the_upper_layer_is_turned_clockwise_by_the_angle(name, angle, share):
    """Without strain of the whole the stretch turns nothing: the rotation is that of the lattices."""
    crystal = LAYERS[name]()
    twist = best_twist(twists(crystal, angle=angle, angle_tolerance=8, strain=0.1, max_atoms=200))
    stack = twisted_stack(twist, crystal, share=share)
    lattice = crystal.cell.array[:2, :2]
    turns = []
    for matrix in (twist.lower, twist.upper):
        (a, b), (c, d) = np.linalg.solve(matrix @ lattice, stack.cell.array[:2, :2])
        turns.append(np.degrees(np.arctan2(c - b, a + d)))
    assert (turns[1] - turns[0] - twist.angle + 180) % 360 - 180 == pytest.approx(0, abs=1e-6)
    assert twist.angle - angle == pytest.approx(twist.angle_error, abs=1e-9)


def test_a_positive_angle_turns_the_upper_layer_clockwise():
    """A chiral layer, one atom beside another: seen on the atoms themselves."""
    dimer = Atoms("HF", [[0, 0, 0], [1, 0, 0]], cell=[3, 3, 12], pbc=(True, True, False))
    stack = twisted_stack(best_twist(twists(dimer, angle=36.87)), dimer)
    bonds = []
    for layer in (stack[stack.get_tags() == 0], stack[stack.get_tags() == 1]):
        x, y, _ = layer.get_distances(0, [n for n in range(len(layer)) if layer.numbers[n] == 9], True, True)[
            np.argmin(layer.get_distances(0, [n for n in range(len(layer)) if layer.numbers[n] == 9], True))
        ]
        bonds.append(np.degrees(np.arctan2(y, x)))
    assert (bonds[1] - bonds[0]) % 360 == pytest.approx(360 - 36.8699, abs=1e-3)


def test_thick_layers_by_indices():
    layer = bismuth_selenide()
    atoms = twisted_bilayer(2, 3, layer=layer, spacing=2.6, height=40.0)
    assert len(atoms) == 2 * 19 * 5
    assert np.ptp(atoms.positions[:, 2]) == pytest.approx(2 * np.ptp(layer.positions[:, 2]) + 2.6)
    assert atoms.cell[2, 2] == 40.0
    assert atoms.symbols.formula.count() == {"Bi": 76, "Se": 114}


def test_both_settings_of_a_hexagonal_cell_give_the_same_bilayer():
    obtuse = graphene(a=2.46)
    acute = obtuse.copy()
    acute.set_cell([acute.cell[0], acute.cell[0] + acute.cell[1], acute.cell[2]])
    one, other = (distances(twisted_bilayer(2, 3, layer=layer), 5.0) for layer in (obtuse, acute))
    for ours, theirs in zip(one, other, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_shifts_move_whole_layers():
    """AA becomes AB with a shift of (b1 + b2) / 3 of its own lattice."""
    layer = graphene(a=2.46)
    same = best_twist(twists(layer, angle=0))
    aligned = twisted_stack(same, layer)
    slid = twisted_stack(same, layer, shifts=[(0, 0), (1 / 3, 2 / 3)])
    above = [np.min(atoms.get_distances(0, [2, 3], mic=True)) for atoms in (aligned, slid)]
    np.testing.assert_allclose(above[0], 3.35)
    np.testing.assert_allclose(
        sorted(slid.get_all_distances(mic=True)[:2, 2:].ravel().round(6))[:2], [3.35, 3.638], atol=1e-3
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "AC"}, "pattern: expected letters A and B, got 'AC'"),
        ({"pattern": ""}, "pattern: expected letters A and B"),
        ({"spacing": -1.0}, "spacing: expected one positive number or 1"),
        ({"spacing": [3.0, 3.0]}, "spacing: expected one positive number or 1"),
        ({"shifts": [(0, 0)]}, "shifts: expected 2 times two numbers for AB"),
        ({"share": 1.5}, "share: expected a number from 0 to 1"),
        ({"strain": (0.6, 0, 0)}, "strain: expected xx, yy and xy"),
        ({"height": 3.0}, "height: expected more than the 3.35 A of the layers, got 3"),
    ],
)
def test_a_stack_that_cannot_be(options, message):
    layer = graphene(a=2.46)
    with pytest.raises(ValueError, match=message):
        twisted_stack(hexagonal_twist(1, 2, layer), layer, **options)


def test_indices_need_a_hexagonal_layer():
    with pytest.raises(ValueError, match=r"layer: expected a hexagonal cell .* 3.3000, 4.6000; give an angle"):
        twisted_bilayer(1, 2, layer=phosphorene())
