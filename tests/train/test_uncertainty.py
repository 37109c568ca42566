"""Correlations of spread and error."""

import numpy as np
import pytest
from scipy.special import erf
from scipy.stats import rankdata

from ase_hybridham.model import Spread
from ase_hybridham.train.uncertainty import LevelSpread, SpreadError, level_report, spread_report


def rows(n: int = 4, n_atoms: int = 3, n_pairs: int = 20, noise: float = 0.5) -> list[SpreadError]:
    """Spread in eV and error in meV that follows it, but on-site, where it runs against it."""
    rng = np.random.default_rng(0)
    made = []
    for k in range(n):
        spread = rng.uniform(1, 2, size=n_pairs)
        errors = 500.0 * spread * np.exp(noise * rng.normal(size=n_pairs))
        errors[:n_atoms] = 2000.0 - 900.0 * spread[:n_atoms]
        made.append(SpreadError(Spread(spread, 1.0 + k), errors, 100.0 * (5 + k**2), n_atoms))
    return made


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum()))


def test_correlations_are_those_of_the_formula():
    made = rows()
    report = spread_report(made)
    spread = np.concatenate([row.spread.blocks for row in made])
    error = np.concatenate([row.errors for row in made])
    assert report.blocks.pearson == pytest.approx(correlation(spread, error))
    assert report.blocks.spearman == pytest.approx(correlation(rankdata(spread), rankdata(error)))
    assert report.onsite.pearson == pytest.approx(-1)
    assert 0.2 < report.hopping.pearson < 0.95
    assert report.structures.spearman == pytest.approx(1)
    assert 0.9 < report.structures.pearson < 1
    assert [c.n for c in (report.blocks, report.onsite, report.hopping, report.structures)] == [80, 12, 68, 4]


def test_spread_and_error_are_in_meV():
    report = spread_report(rows(2))
    assert report.spread == pytest.approx(1000 * np.sqrt((1 + 4) / 2))
    assert report.error == pytest.approx(100 * np.sqrt((25 + 36) / 2))
    assert {"spread_meV", "error_meV"} < set(report.to_dict())


def test_where_there_is_too_little_there_is_no_correlation():
    report = spread_report(rows(2))
    assert (report.structures.pearson, report.structures.spearman, report.structures.n) == (None, None, 2)
    same = rows(3)
    same = [SpreadError(Spread(np.ones(20), 1.0), row.errors, row.error, 3) for row in same]
    assert spread_report(same).blocks.pearson is None


def levels(n_structures: int = 5, n_levels: int = 400, factor: float = 3.0) -> list[LevelSpread]:
    """Errors are normal with `factor` times the widths."""
    rng = np.random.default_rng(1)
    found = []
    for n in range(n_structures):
        widths = (1 + n) * np.exp(rng.normal(size=n_levels))
        found.append(LevelSpread(widths, factor * widths * rng.normal(size=n_levels)))
    return found


def test_the_factor_of_normal_errors_is_found_and_nothing_correlates_more():
    report = level_report(levels())
    assert report.factor == pytest.approx(3, rel=0.05)
    expected = [erf(times / 3 / np.sqrt(2)) for times in (1, 2, 3, 4)]
    np.testing.assert_allclose(report.covered, expected, atol=0.03)
    assert report.levels.spearman == pytest.approx(report.at_most, abs=0.03)
    assert 0.5 < report.at_most < 0.9
    assert report.error == pytest.approx(3 * report.width, rel=0.2)
    assert report.structures.spearman == pytest.approx(1)
    assert (report.levels.n, report.structures.n) == (2000, 5)
    assert {"width_meV", "error_meV", "factor", "covered"} < set(report.to_dict())


def test_widths_that_say_nothing_do_not_correlate():
    rng = np.random.default_rng(2)
    made = [LevelSpread(row.widths, rng.normal(size=len(row.widths))) for row in levels()]
    report = level_report(made)
    assert abs(report.levels.spearman) < 0.1 < report.at_most
    none = level_report([LevelSpread(0 * row.widths, row.errors) for row in levels()])
    assert (none.factor, none.levels.spearman, none.at_most) == (None, None, None)
