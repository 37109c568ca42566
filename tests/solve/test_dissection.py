"""The order of elimination: what it must respect, and that the costs it tells are the true ones."""

import numpy as np
import pytest
from ase.build import molecule
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from ase_hybridham.solve.dissection import Dissection, dissect
from ase_hybridham.solve.pattern import Pattern
from tests.solve.sparse_systems import nanoribbon


def pattern_of(graph: np.ndarray, sizes: np.ndarray, coordinates: np.ndarray) -> Pattern:
    """The pattern of a graph, its diagonal included."""
    matrix = csr_array(graph | np.eye(len(graph), dtype=bool))
    return Pattern(sizes, coordinates, matrix.indices, matrix.indptr)


def filled(pattern: Pattern, order: np.ndarray) -> np.ndarray:
    """Whether L has a block, by elimination of one atom after the other; rows and columns in this order."""
    fill = pattern.graph.toarray()[np.ix_(order, order)] > 0
    for i in range(len(fill)):
        later = np.flatnonzero(fill[i, i + 1 :]) + i + 1
        fill[np.ix_(later, later)] = True
    return fill


def check(pattern: Pattern, dissection: Dissection) -> None:
    """Every atom is eliminated once, all fill has its place in the fronts, and the counts are those of the fronts."""
    order, n_atoms = dissection.order, len(pattern.sizes)
    np.testing.assert_array_equal(np.sort(order), np.arange(n_atoms))
    place = np.zeros((n_atoms, n_atoms), dtype=bool)
    position = np.argsort(order)
    for number, front in enumerate(dissection.fronts):
        assert all(child < number for child in front.children)
        own, boundary = position[front.own], position[front.boundary]
        np.testing.assert_array_equal(own, np.arange(own[0], own[0] + len(own)))
        assert (np.diff(boundary) > 0).all()
        assert not len(boundary) or boundary[0] > own[-1]
        place[np.ix_(own, np.concatenate([own, boundary]))] = True
    fill = np.triu(filled(pattern, order))
    assert not (fill & ~place).any()
    orbital = np.triu(np.repeat(np.repeat(place, pattern.sizes[order], axis=0), pattern.sizes[order], axis=1))
    assert dissection.n_entries == orbital.sum()
    later = orbital.sum(axis=1) - 1
    assert dissection.n_products == (later * (later + 1) // 2).sum()
    assert dissection.n_entries <= dissection.n_kept <= dissection.n_peak


@pytest.mark.parametrize(("leaf", "panel"), [(1, 1), (30, 20), (120, 60), (10**6, 10**6)])
def test_all_fill_of_a_long_cell_is_in_the_fronts(make_system, crystal, leaf, panel):
    many = crystal * (1, 1, 8)
    pattern = Pattern.of(make_system(many).overlap, many)
    dissection = dissect(pattern, leaf=leaf, panel=panel)
    check(pattern, dissection)
    assert (len(dissection.fronts) == 1) == (leaf == 10**6)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.floats(0, 0.4), st.integers(1, 30), st.integers(1, 20), st.integers(0, 10**6))
def test_any_graph_can_be_dissected(n_atoms, density, leaf, panel, seed):
    rng = np.random.default_rng(seed)
    graph = rng.uniform(size=(n_atoms, n_atoms)) < density
    pattern = pattern_of(graph | graph.T, rng.integers(1, 6, size=n_atoms), rng.uniform(size=(n_atoms, 3)))
    check(pattern, dissect(pattern, leaf=leaf, panel=panel))


def test_a_long_ribbon_costs_in_proportion_to_its_length(make_system):
    products = []
    for length in (40, 80):
        ribbon = nanoribbon(length)
        pattern = Pattern.of(make_system(ribbon).overlap, ribbon)
        dissection = dissect(pattern, leaf=60)
        products.append(dissection.n_products)
        assert dissection.n_entries < 0.3 * pattern.n * (pattern.n + 1) / 2
    assert 1.8 < products[1] / products[0] < 2.4


def test_molecules_without_a_cell_and_pieces_that_do_not_touch(make_system):
    atoms = molecule("CS2")
    for shift in (20.0, 40.0, 60.0):
        more = molecule("CS2")
        more.positions[:, 0] += shift
        atoms += more
    pattern = Pattern.of(make_system(atoms).overlap, atoms)
    dissection = dissect(pattern, leaf=20)
    check(pattern, dissection)
    assert len(dissection.fronts) == 4
    assert not any(len(front.boundary) for front in dissection.fronts)


def test_flops_of_real_numbers_are_a_quarter(make_system, crystal):
    dissection = dissect(Pattern.of(make_system(crystal).overlap, crystal))
    n = dissection.fronts[0].n_own
    assert dissection.flops() == 4 * dissection.flops(is_complex=False)
    assert dissection.flops(is_complex=False) == pytest.approx(n**3 / 3, rel=0.01)


@pytest.mark.parametrize("option", ["leaf", "panel"])
def test_sizes_of_no_orbital_are_refused(make_system, crystal, option):
    with pytest.raises(ValueError, match="expected leaf and panel of at least 1 orbital"):
        dissect(Pattern.of(make_system(crystal).overlap, crystal), **{option: 0})
