"""Does the spread of an ensemble tell its error? Correlations over blocks, levels and structures."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr

from ase_hybridham.model import Spread

__all__ = ["Correlation", "LevelReport", "LevelSpread", "SpreadError", "SpreadReport", "level_report", "spread_report"]

FEWEST = 3  # of two points every correlation is 1
LEAST = 1e-6  # meV; a width of 0 has no logarithm
DRAWS = 20  # of ideal errors
ONE_SIGMA = 0.6827  # of a normal distribution
TIMES = (1, 2, 3, 4)


@dataclass(frozen=True, eq=False)
class SpreadError:
    """Spread of an ensemble on one structure, beside the error of its mean.

    Parameters
    ----------
    spread : Spread
        eV.
    errors : array, shape (n_pairs,)
        rms of the mean's error over the elements of each block, meV.
    error : float
        The same over all elements, meV.
    n_atoms : int
        So many blocks, the first, are on-site.
    """

    spread: Spread
    errors: NDArray[np.float64]
    error: float
    n_atoms: int


@dataclass(frozen=True)
class Correlation:
    """Of spread and error over `n` blocks or structures; None where there are too few or all are the same."""

    pearson: float | None
    spearman: float | None
    n: int


@dataclass(frozen=True)
class SpreadReport:
    """What the spread of an ensemble is worth.

    Parameters
    ----------
    spread, error : float
        rms over all structures, meV.
    blocks, onsite, hopping, structures : Correlation
        Over all blocks, on-site blocks, hoppings; over structures.
    """

    spread: float
    error: float
    blocks: Correlation
    onsite: Correlation
    hopping: Correlation
    structures: Correlation

    def to_dict(self) -> dict[str, object]:
        """Plain JSON types."""
        units = {"spread": "spread_meV", "error": "error_meV"}
        return {units.get(key, key): value for key, value in asdict(self).items()}


def spread_report(rows: Sequence[SpreadError]) -> SpreadReport:
    """Correlations over some structures."""
    spreads = [1e3 * row.spread.blocks for row in rows]
    errors = [row.errors for row in rows]
    structures = np.array([[1e3 * row.spread.structure, row.error] for row in rows]).T

    def over(part: list[slice]) -> Correlation:
        picked = (np.concatenate([b[p] for b, p in zip(blocks, part, strict=True)]) for blocks in (spreads, errors))
        return _correlation(*picked)

    spread, error = (float(np.sqrt((values**2).mean())) for values in structures)
    return SpreadReport(
        spread,
        error,
        blocks=over([slice(None) for _ in rows]),
        onsite=over([slice(0, row.n_atoms) for row in rows]),
        hopping=over([slice(row.n_atoms, None) for row in rows]),
        structures=_correlation(*structures),
    )


@dataclass(frozen=True, eq=False)
class LevelSpread:
    """Error bars of the levels of one structure near its Fermi level, beside their errors.

    Parameters
    ----------
    widths : array, shape (n_states,)
        Standard deviation over the members, to first order, without what a member does to all levels alike, meV.
    errors : array, shape (n_states,)
        Of the levels of the mean, without their mean, meV.
    """

    widths: NDArray[np.float64]
    errors: NDArray[np.float64]


@dataclass(frozen=True)
class LevelReport:
    """What error bars of bands are worth.

    Parameters
    ----------
    width, error : float
        rms over all levels, meV.
    factor : float or None
        68 % of the errors are within widths times the factor, as they are within one standard deviation of a normal
        distribution; None without any width.
    covered : tuple of float
        Share of the errors within 1, 2, 3, 4 widths.
    levels, structures : Correlation
        Of width and |error|, Pearson's of their logarithms; over structures of their rms.
    at_most : float or None
        Spearman's correlation over levels, if errors were normal with these very widths.
    """

    width: float
    error: float
    factor: float | None
    covered: tuple[float, ...]
    levels: Correlation
    structures: Correlation
    at_most: float | None

    def to_dict(self) -> dict[str, object]:
        """Plain JSON types."""
        units = {"width": "width_meV", "error": "error_meV"}
        return {units.get(key, key): value for key, value in asdict(self).items()}


def level_report(rows: Sequence[LevelSpread]) -> LevelReport:
    """Widths and errors of the levels of some structures."""
    widths = np.concatenate([row.widths for row in rows])
    errors = np.abs(np.concatenate([row.errors for row in rows]))
    width, error = _rms(widths), _rms(errors)
    of_structures = np.array([[_rms(row.widths), _rms(row.errors)] for row in rows]).T
    levels = _correlation(*_logarithms(widths, errors))
    ratios = errors / np.maximum(widths, LEAST)
    ideal = widths * np.abs(np.random.default_rng(0).normal(size=(DRAWS, len(widths))))
    return LevelReport(
        width,
        error,
        float(np.quantile(ratios, ONE_SIGMA)) if width > LEAST else None,
        tuple(float((ratios <= times).mean()) for times in TIMES),
        levels,
        _correlation(*_logarithms(*of_structures)),
        float(np.mean([spearmanr(widths, one).statistic for one in ideal])) if levels.spearman is not None else None,
    )


def _rms(values: NDArray) -> float:
    return float(np.sqrt((values**2).mean()))


def _logarithms(*values: NDArray) -> list[NDArray]:
    return [np.log(np.maximum(some, LEAST)) for some in values]


def _correlation(spread: NDArray, error: NDArray) -> Correlation:
    if len(spread) < FEWEST or np.ptp(spread) == 0 or np.ptp(error) == 0:
        return Correlation(None, None, len(spread))
    pearson, spearman = pearsonr(spread, error), spearmanr(spread, error)
    return Correlation(float(pearson.statistic), float(spearman.statistic), len(spread))
