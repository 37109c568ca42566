"""Tables of radial integrals keep the accuracy that was asked for, wherever they are asked."""

from dataclasses import replace

import numpy as np
import pytest

from ase_hybridham.errors import OverlapError
from ase_hybridham.overlap import tables
from ase_hybridham.overlap.tables import Table, radial_functions
from ase_hybridham.system import AtomBasis, GaussianRadial, SampledRadial, Shell
from tests.overlap.radial_data import openmx_basis

ROUNDING = 1e-14


def shell(l: int, *exponents: float) -> Shell:
    return Shell(l, radial=GaussianRadial(exponents, tuple(0.6**n for n in range(len(exponents)))))


# a core shell that is narrow by two orders of magnitude, diffuse ones, up to g
GAUSSIANS = AtomBasis(
    "O", (shell(0, 9000.0, 700.0, 40.0), shell(0, 0.2), shell(1, 5.0, 0.6), shell(3, 1.2), shell(4, 1.5))
)
SAMPLES = openmx_basis(["C", "Mo"])
PAIRS = {"C-C": (SAMPLES["C"],) * 2, "C-Mo": (SAMPLES["C"], SAMPLES["Mo"]), "O-O": (GAUSSIANS,) * 2}


def distances(first: AtomBasis, second: AtomBasis) -> np.ndarray:
    """Random ones, dense at small ones, the end and what is beyond."""
    end = tables.overlap_range(first, second)
    rng = np.random.default_rng(0)
    few = rng.uniform(0, 0.2, 300)
    return np.concatenate([rng.uniform(0, 1.1 * end, 2000), few, [0.0, 1e-12, end, np.nextafter(end, 99), end + 1]])


def largest_error(table: Table, wrong: np.ndarray) -> float:
    """Of an element of S: the factors of its channels add up to that root at most."""
    factors = np.array([np.sqrt((2 * c.l1 + 1) * (2 * c.l2 + 1)) for c in table.channels])
    return float((np.abs(wrong) * factors).max())


@pytest.mark.parametrize("pair", PAIRS)
def test_the_accuracy_holds_at_random_distances(pair):
    first, second = PAIRS[pair]
    d = distances(first, second)
    exact = radial_functions(first, second, d.max(), 0).at(d)
    sizes = []
    for accuracy in (1e-3, 1e-7, tables.DEFAULT_ACCURACY, tables.FINEST):
        table = radial_functions(first, second, d.max(), accuracy)
        assert isinstance(table, Table)
        assert largest_error(table, table.at(d) - exact) < accuracy + ROUNDING
        sizes.append(len(table.series))
    assert largest_error(table, radial_functions(first, second, 0.0, 1e-3).at(d) - exact) > 1e-9
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] < 100


@pytest.mark.parametrize("pair", PAIRS)
def test_slopes_are_those_of_the_integrals(pair):
    first, second = PAIRS[pair]
    d = distances(first, second)
    exact, table = (radial_functions(first, second, d.max(), accuracy) for accuracy in (0, None))
    values, slopes = table.with_slopes(d)
    np.testing.assert_array_equal(values, table.at(d))
    expected = exact.with_slopes(d)[1]
    # of the narrow Gaussians, slopes are up to 30 / bohr
    np.testing.assert_allclose(slopes, expected, atol=1e4 * tables.DEFAULT_ACCURACY * max(1, np.abs(expected).max()))


def test_slopes_without_tables_are_differences():
    for first, second in PAIRS.values():
        integrals = radial_functions(first, second, 9.0, 0)
        d, step = np.linspace(0.3, 9, 30), 1e-4
        difference = (integrals.at(d + step) - integrals.at(d - step)) / (2 * step)
        slopes = integrals.with_slopes(d)[1]
        assert np.abs(slopes).max() > 0.1
        np.testing.assert_allclose(slopes, difference, atol=1e-5)


@pytest.mark.parametrize("pair", PAIRS)
def test_pieces_join(pair):
    table = radial_functions(*PAIRS[pair], 0.0)
    inner = table.edges[1:-1]
    before, after = table.at(np.nextafter(inner, 0)), table.at(inner)
    assert largest_error(table, before - after) < 2 * tables.DEFAULT_ACCURACY


@pytest.mark.parametrize("pair", PAIRS)
def test_at_no_distance_only_equal_degrees_overlap(pair):
    first, second = PAIRS[pair]
    table, exact = (radial_functions(first, second, 9.0, accuracy) for accuracy in (None, 0))
    here, near = table.at(np.array([0.0, 1e-13]))
    np.testing.assert_array_equal(here, exact.at(np.zeros(1))[0])
    assert all(value == 0 for value, c in zip(here, table.channels, strict=True) if c.L > 0)
    assert all(value != 0 for value, c in zip(here, table.channels, strict=True) if c.L == 0)
    assert largest_error(table, here - near) < 2 * tables.DEFAULT_ACCURACY


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("accuracy", [0, None])
def test_beyond_the_functions_nothing_overlaps(pair, accuracy):
    first, second = PAIRS[pair]
    end = tables.overlap_range(first, second)
    functions = radial_functions(first, second, 2 * end, accuracy)
    for values in functions.with_slopes(np.array([np.nextafter(end, 99), 1.5 * end])):
        assert not values.any()
    assert functions.at(np.array([0.9 * end])).any()


@pytest.mark.parametrize("accuracy", [0, None])
def test_exchanged_atoms_have_the_same_integrals(accuracy):
    """Up to the sign (-1)^(l1 - l2), which Y_L(-d) makes up for."""
    first, second = PAIRS["C-Mo"]
    d = distances(first, second)
    one, other = radial_functions(first, second, d.max(), accuracy), radial_functions(second, first, d.max(), accuracy)
    places = {(c.column, c.row, c.L): n for n, c in enumerate(other.channels)}
    order = [places[c.row, c.column, c.L] for c in one.channels]
    signs = np.array([(-1) ** (c.l1 - c.l2) for c in one.channels])
    np.testing.assert_allclose(one.at(d), signs * other.at(d)[:, order], atol=ROUNDING if accuracy == 0 else 2e-11)


def test_order_and_number_of_distances_do_not_matter():
    table = radial_functions(*PAIRS["C-Mo"], 12.0)
    d = distances(*PAIRS["C-Mo"])
    order = np.random.default_rng(1).permutation(len(d))
    np.testing.assert_allclose(table.at(d[order]), table.at(d)[order], atol=ROUNDING)
    np.testing.assert_allclose(
        np.concatenate([table.at(d[n : n + 1]) for n in range(50)]), table.at(d[:50]), atol=ROUNDING
    )
    for values in table.with_slopes(np.zeros(0)):
        assert values.shape == (0, len(table.channels))


def test_sampled_gaussians_are_gaussians_up_to_g():
    """What the samples and OpenMX's interpolation of them lose is 1e-6; another phase or order of channels is not."""
    mesh = np.geomspace(1e-3, 9.0, 1200)
    exact, sampled = [], []
    for l in range(5):
        radial = GaussianRadial((1.1 + 0.1 * l,), (1.0,))
        values = np.exp(-radial.exponents[0] * mesh**2) * mesh**l
        values /= np.sqrt(np.trapezoid(values**2 * mesh**2, mesh))
        exact.append(Shell(l, radial=radial))
        sampled.append(Shell(l, radial=SampledRadial(mesh, values, 9.0, "openmx", radial.bohr)))
    d = np.linspace(0, 6, 40)
    ours, closed = (radial_functions(*[AtomBasis("O", tuple(shells))] * 2, 6.0, 0).at(d) for shells in (sampled, exact))
    assert np.abs(closed).max() > 0.99
    np.testing.assert_allclose(ours, closed, atol=5e-5)


def test_without_enough_intervals_integrals_are_computed_one_by_one(monkeypatch, caplog):
    atom = replace(GAUSSIANS, cutoff=7.0)  # not the one whose tables are in memory
    monkeypatch.setattr(tables, "MOST", 10)
    monkeypatch.setenv("HYBRIDHAM_CACHE", "off")
    functions = radial_functions(atom, atom, 5.0, 1e-9)
    assert "no table of O-O" in caplog.text
    d = np.linspace(0, 5, 20)
    np.testing.assert_array_equal(functions.at(d), radial_functions(atom, atom, 5.0, 0).at(d))


@pytest.mark.parametrize("accuracy", [-1.0, 1e-13, 0.1, float("nan"), float("inf")])
def test_accuracies_out_of_range_are_refused(accuracy):
    with pytest.raises(ValueError, match=r"accuracy: expected 0 or 1e-12 .. 0.01, got"):
        radial_functions(*PAIRS["C-C"], 12.0, accuracy)


def changed(atom: AtomBasis, **settings) -> AtomBasis:
    return replace(atom, shells=tuple(replace(s, radial=replace(s.radial, **settings)) for s in atom.shells))


C = SAMPLES["C"]


@pytest.mark.parametrize("accuracy", [0, None])
@pytest.mark.parametrize(
    ("other", "message"),
    [
        (GAUSSIANS, "got C by the rule of openmx, .* and O by the rule of gaussian, .* of one program"),
        (changed(SAMPLES["Mo"], bohr=0.529177210), "got C by .* bohr = 0.529177249 .* and Mo by .* bohr = 0.52917721 "),
        (changed(SAMPLES["Mo"], settings=(("k_points", 1000.0),)), "and Mo by .*, k_points = 1000; take"),
        (AtomBasis("Mo", (*SAMPLES["Mo"].shells, Shell(1, "3p"))), "shell 3p of Mo has no radial function"),
        (AtomBasis("Mo", (*SAMPLES["Mo"].shells, replace(C.shells[0], l=8))), "l of at most 7, got 8 for Mo"),
        (changed(SAMPLES["Mo"], cutoff=101.0), "cutoff radii of 0.5 to 100 bohr, got 101 for Mo"),
        (changed(SAMPLES["Mo"], cutoff=0.001), "cutoff radii of 0.5 to 100 bohr, got 0.001 for Mo"),
    ],
)
def test_functions_that_do_not_belong_together_are_refused_in_one_line(other, message, accuracy):
    with pytest.raises(OverlapError, match=message) as caught:
        radial_functions(C, other, 5.0, accuracy)
    assert "\n" not in str(caught.value)


def test_an_unknown_rule_is_named():
    atom = changed(C, rule="crystal")
    with pytest.raises(OverlapError, match=r"unknown rule .crystal. of C, only .*openmx"):
        radial_functions(atom, atom, 5.0)
