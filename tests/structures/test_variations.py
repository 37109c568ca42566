"""Variations of a crystal are what they say, whatever the crystal."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, graphene, molecule, mx2
from ase.lattice.hexagonal import Graphite
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from ase_hybridham.structures import Variation, independence, layers_of, supercell_shapes, variations

RIGID = Variation(displacement=(0.0, 0.0), strain=0.0, slide=False, spacing=(0.0, 0.0))


def layer() -> Atoms:
    atoms = graphene(a=2.46, vacuum=7.0)
    atoms.pbc = (True, True, False)
    return atoms


def bilayer() -> Atoms:
    lower, upper = layer(), layer()
    upper.positions += [0.3, 0.2, 3.35]
    both = lower + upper
    both.cell = lower.cell
    return both


def stacked_mos2() -> Atoms:
    """One layer a cell, cut by the boundary of the cell, in a tilted stack."""
    atoms = mx2(vacuum=None)
    atoms.cell[2] = [0.8, 0.4, 6.2]
    atoms.pbc = True
    atoms.wrap()
    return atoms


CRYSTALS = {
    "layer": layer,
    "bilayer": bilayer,
    "graphite": lambda: Graphite("C", latticeconstant={"a": 2.46, "c": 6.7}),
    "MoS2": stacked_mos2,
    "Si": lambda: bulk("Si"),
    "NaCl": lambda: bulk("NaCl", "rocksalt", a=5.64),
    "methane": lambda: molecule("CH4"),
}


@pytest.fixture(params=CRYSTALS)
def crystal(request) -> Atoms:
    return CRYSTALS[request.param]()


def distances(atoms: Atoms, reach: float = 4.0) -> np.ndarray:
    """Of all atoms together, sorted, per atom of the crystal: no choice of cell changes them."""
    i, d = neighbor_list("id", atoms, reach)
    assert len(i)
    return np.sort(d)


def test_rigid_supercells_are_the_crystal(crystal):
    for made in variations(crystal, 12, RIGID):
        factor = len(made.atoms) // len(crystal)
        np.testing.assert_allclose(distances(made.atoms), np.repeat(distances(crystal), factor), atol=1e-9)


def test_sizes_shapes_and_stoichiometry(crystal):
    made = list(variations(crystal, 12))
    for one in made:
        factor = round(np.linalg.det(one.shape))
        assert factor >= 1
        assert sorted(one.atoms.symbols) == sorted(list(crystal.symbols) * factor)
        assert (one.atoms.pbc == crystal.pbc).all()
        assert one.atoms.calc is None
        if crystal.pbc.any():
            assert 8 <= len(one.atoms) <= 18
    if crystal.pbc.any():
        assert len({len(one.atoms) for one in made}) >= 3
        assert len({one.shape.tobytes() for one in made}) >= 4


def test_a_seed_makes_the_same_structures_and_more_do_not_change_the_first(crystal):
    few, many, other = (list(variations(crystal, n, seed=seed)) for n, seed in ((3, 5), (6, 5), (3, 6)))
    for a, b, c in zip(few, many, other, strict=False):
        np.testing.assert_array_equal(a.atoms.positions, b.atoms.positions)
        np.testing.assert_array_equal(a.atoms.cell.array, b.atoms.cell.array)
        assert np.abs(a.atoms.positions - c.atoms.positions).max() > 1e-3


def test_displacements_are_independent_and_of_the_width_that_was_asked_for():
    """Of all pairs of coordinates of an 8-atom cell: no correlation but the one of a coordinate with itself."""
    still, moving = (
        Variation(atoms=(8, 8), displacement=(width, width), strain=0.0, slide=False, spacing=(0.0, 0.0), nearest=0.5)
        for width in (0.0, 0.05)
    )
    crystal = layer()
    n = 300
    shape = supercell_shapes(crystal, 8, 8)[0]
    rest = next(variations(crystal, 1, still)).atoms.positions
    made = [one for one in variations(crystal, n, moving) if (one.shape == shape).all()]
    moves = np.array([(one.atoms.positions - rest).ravel() for one in made])
    covariance = moves.T @ moves / len(moves) / 0.05**2
    assert len(moves) == n / 2
    np.testing.assert_allclose(np.diag(covariance), 1.0, atol=0.45)  # four standard deviations of 150 draws
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 0.4


def test_widths_differ_between_structures():
    calm = Variation(displacement=(0.01, 0.1), strain=0.0, nearest=0.5)
    bonds = [np.std(distances(one.atoms, 1.75)) for one in variations(layer(), 20, calm)]
    assert min(bonds) < 0.04 < 0.07 < max(bonds)


def test_strain_is_symmetric_and_leaves_axes_that_are_not_periodic():
    made = list(variations(layer(), 30, Variation(displacement=(0.0, 0.0), strain=0.05)))
    strains = []
    for one in made:
        deformation = np.linalg.solve(one.shape @ layer().cell.array, one.atoms.cell.array)
        np.testing.assert_allclose(deformation, deformation.T, atol=1e-12)
        np.testing.assert_allclose(deformation[2], [0, 0, 1], atol=1e-12)
        np.testing.assert_allclose(one.atoms.positions[:, 2], 7.0, atol=1e-9)
        strains.append(deformation[:2, :2] - np.eye(2))
    assert 0.03 < np.abs(strains).max() <= 0.05


@pytest.mark.parametrize("name", ["bilayer", "graphite", "MoS2"])
def test_layers_move_as_wholes(name):
    """Distances inside a layer stay, those between layers change, in every copy of the cell."""
    crystal = CRYSTALS[name]()
    moving = Variation(displacement=(0.0, 0.0), strain=0.0, spacing=(0.1, 0.3))
    within = 1.7 if name != "MoS2" else 2.6
    for made in variations(crystal, 12, moving):
        factor = len(made.atoms) // len(crystal)
        inside = np.repeat(distances(crystal, within), factor)
        np.testing.assert_allclose(distances(made.atoms, within), inside, atol=1e-9)
        before, after = layers_of(crystal), layers_of(made.atoms)
        assert after is not None
        assert after.n_gaps >= before.n_gaps >= 1
    for rigid, made in zip(variations(crystal, 4, RIGID), variations(crystal, 4, moving), strict=True):
        grown = made.atoms.get_volume() / rigid.atoms.get_volume()
        assert grown == pytest.approx(1.0) if name == "bilayer" else 1.01 < grown < 1.1


def test_spacing_of_a_bilayer_is_what_was_added():
    moving = Variation(displacement=(0.0, 0.0), strain=0.0, spacing=(0.1, 0.3))
    gaps = [np.ptp(one.atoms.positions[:, 2]) - 3.35 for one in variations(bilayer(), 20, moving)]
    assert 0.1 <= min(gaps) < 0.15 < 0.25 < max(gaps) <= 0.3
    heights = [one.atoms.positions[:, 2].mean() for one in variations(bilayer(), 3, moving)]
    np.testing.assert_allclose(heights, bilayer().positions[:, 2].mean())


@pytest.mark.parametrize("name", ["layer", "bilayer"])
def test_vacuum_is_no_gap_between_layers(name):
    """A slab in a box that a file calls periodic, cut anywhere, varies as one that is periodic in its plane."""
    slab, boxed = CRYSTALS[name](), CRYSTALS[name]()
    boxed.positions += 0.45 * boxed.cell[2]
    boxed.pbc = True
    boxed.wrap()
    assert np.ptp(boxed.positions[:, 2]) > 10 or name == "layer"
    for made, other in zip(variations(slab, 6), variations(boxed, 6), strict=True):
        assert other.atoms.pbc.all()
        np.testing.assert_allclose(other.atoms.cell.array, made.atoms.cell.array, atol=1e-9)
        np.testing.assert_allclose(distances(other.atoms), distances(made.atoms), atol=1e-9)


def test_a_molecule_in_a_periodic_box_is_displaced_as_it_is():
    box = molecule("CH4", vacuum=5.0)
    box.pbc = True
    assert {len(made.atoms) for made in variations(box, 3)} == {5}


def test_slides_reach_every_stacking():
    """Over the lattice of the layer: the upper atoms stand above every part of the lower layer's cell."""
    moving = Variation(atoms=(4, 4), displacement=(0.0, 0.0), strain=0.0, spacing=(0.0, 0.0))
    seen = set()
    for one in variations(bilayer(), 120, moving):
        across = one.atoms.positions[2] - one.atoms.positions[0]
        scaled = np.linalg.solve(layer().cell.array.T, across)[:2] % 1
        seen.add(tuple((4 * scaled).astype(int).tolist()))
    assert len(seen) == 16


@pytest.mark.parametrize(
    ("name", "n_layers", "n_gaps"),
    [("layer", 1, 0), ("bilayer", 2, 1), ("graphite", 2, 2), ("MoS2", 1, 1)],
)
def test_layers_are_found(name, n_layers, n_gaps):
    layers = layers_of(CRYSTALS[name]())
    assert (len(layers.members), layers.n_gaps) == (n_layers, n_gaps)
    np.testing.assert_allclose(np.abs(layers.normal), [0, 0, 1], atol=1e-9)


@pytest.mark.parametrize("name", ["Si", "NaCl", "methane"])
def test_what_has_no_layers(name):
    assert layers_of(CRYSTALS[name]()) is None


def test_a_molecule_on_a_sheet_is_no_layer():
    sheet = layer().repeat((3, 3, 1))
    water = molecule("H2O")
    water.positions += sheet.positions[0] + [0, 0, 3.2]
    assert layers_of(sheet + water) is None


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_choice_of_the_crystals_cell_does_not_matter_for_layers(seed):
    """A sheared cell of the same lattice, atoms in other images, the origin elsewhere."""
    rng = np.random.default_rng(seed)
    crystal = CRYSTALS["graphite"]()
    change = np.eye(3) + np.tril(rng.integers(-2, 3, size=(3, 3)), -1)
    other = crystal.copy()
    other.set_cell(change @ crystal.cell.array)
    other.positions += rng.uniform(-5, 5, size=3) + rng.integers(-1, 2, size=(4, 3)) @ crystal.cell.array
    first, second = layers_of(crystal), layers_of(other)
    assert (len(second.members), second.n_gaps) == (2, 2)
    assert second.period == pytest.approx(first.period)
    for made in variations(other, 2, Variation(displacement=(0.0, 0.0), strain=0.0)):
        factor = len(made.atoms) // 4
        np.testing.assert_allclose(distances(made.atoms, 2.6), np.repeat(distances(crystal, 2.6), factor), atol=1e-9)
        layers = layers_of(made.atoms)
        heights = np.sort((made.atoms.positions @ layers.normal) % layers.period)
        gaps = np.diff([*heights, heights[0] + layers.period])
        gaps = gaps[gaps > 1e-6]  # one for every layer: 3.35 and what was added
        assert len(gaps) == len(layers.members)
        assert 3.2 - 1e-6 <= gaps.min() <= gaps.max() <= 3.6 + 1e-6


def test_shapes_are_compact_and_none_stands_twice():
    crystal = layer()
    shapes = supercell_shapes(crystal, 2, 18)
    seen = set()
    for shape in shapes:
        lengths = (shape @ crystal.cell.array)[:2]
        norms = np.linalg.norm(lengths, axis=1)
        seen.add((*np.sort(norms).round(4), round(abs(lengths[0] @ lengths[1]), 4)))
        assert norms.max() / norms.min() <= 2 + 1e-6
    assert len(seen) == len(shapes)
    sizes = [round(np.linalg.det(shape)) for shape in shapes]
    assert sizes == sorted(sizes)
    assert set(sizes) == set(range(1, 10))  # every size has a shape, however thin


def test_independence_counts_pairs_that_are_no_copies():
    """Of graphene's own cell no second neighbors; of 3 x 3 cells all pairs up to 6 angstrom."""
    own = independence([layer()], layer())
    shares = {row.start: row.independent for row in own.rows}
    assert (shares[1.0], shares[2.0], shares[2.5]) == (1.0, 0.0, 1.0)
    assert own.n_displacements == 3
    assert [row.n_pairs for row in own.rows[:3]] == [6, 12, 6]
    large = independence([layer().repeat((3, 3, 1))], layer())
    assert all(row.independent == 1.0 for row in large.rows)
    assert large.n_displacements == 51
    assert [row.crystal for row in large.rows] == [row.independent for row in own.rows]
    assert large.nearest == {"C-C": pytest.approx(2.46 / np.sqrt(3))}
    assert independence([CRYSTALS["NaCl"]()], CRYSTALS["NaCl"]()).nearest["Cl-Na"] == pytest.approx(2.82)


def test_atoms_that_come_too_near_are_drawn_again_or_told():
    wild = Variation(displacement=(0.2, 0.2), nearest=0.7)
    made = list(variations(layer(), 6, wild))
    assert sum(one.rejected for one in made) > 0
    for one in made:
        assert neighbor_list("d", one.atoms, 0.7 * 2 * 0.76).size == 0
    with pytest.raises(ValueError, match=r"structure 0: in 100 draws atoms came too near, C-C .* angstrom where 1\.37"):
        next(variations(layer(), 1, Variation(atoms=(18, 18), displacement=(0.3, 0.3), nearest=0.9)))


@pytest.mark.parametrize(
    ("crystal", "options", "message"),
    [
        (Atoms("C2", [[0, 0, 0], [0, 0, 0.3]]), {}, r"too near before anything is varied, C-C 0\.30"),
        (Atoms(), {}, "holds no atom"),
        (Atoms("C", pbc=True), {}, "no independent cell vectors"),
        (Atoms("C", [[np.nan, 0, 0]]), {}, "finite"),
        (bulk("Si").repeat(3), {}, r"atoms: no cell of 8 to 18 is a multiple of the 54 given; allow 54"),
        (bulk("Si"), {"atoms": (9, 9)}, "no cell of 9 to 9 is a multiple of the 2 given; allow 10"),
        (bulk("Si"), {"n": 0}, "n: expected a positive number"),
    ],
)
def test_what_cannot_be_varied(crystal, options, message):
    n = options.pop("n", 1)
    with pytest.raises(ValueError, match=message):
        next(variations(crystal, n, Variation(**options)))


@pytest.mark.parametrize(
    "options",
    [
        {"atoms": (8, 4)},
        {"atoms": (0, 4)},
        {"displacement": (-0.1, 0.1)},
        {"displacement": (0.0, float("nan"))},
        {"spacing": (0.2, 0.1)},
        {"strain": -0.1},
        {"strain": float("nan")},
        {"nearest": 1.0},
    ],
    ids=str,
)
def test_variations_that_make_no_sense(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: expected"):
        Variation(**options)
