"""Does the spread of an ensemble tell its error? Correlations, block by block and structure by structure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr

from ase_hybridham.model import Spread

__all__ = ["Correlation", "SpreadError", "SpreadReport", "spread_report"]

FEWEST = 3  # of two points every correlation is 1


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


def _correlation(spread: NDArray, error: NDArray) -> Correlation:
    if len(spread) < FEWEST or np.ptp(spread) == 0 or np.ptp(error) == 0:
        return Correlation(None, None, len(spread))
    pearson, spearman = pearsonr(spread, error), spearmanr(spread, error)
    return Correlation(float(pearson.statistic), float(spearman.statistic), len(spread))
