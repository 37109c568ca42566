"""Radial integrals by interpolation: polynomials on intervals of the distance, as narrow as the accuracy asks.

On every interval the integrals of all channels are Chebyshev series through values at Chebyshev points. Between the
points the series are compared with the integrals; an interval where they differ too much is halved. The integrals
are analytic in the distance, so that few intervals do, narrow ones only where Gaussians are.
Letters: n distance; c channel; t place in an interval, -1 .. 1; D degree of the polynomials.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from ase_hybridham.overlap import cache
from ase_hybridham.overlap.channels import Channel, RadialFunctions, channels_of
from ase_hybridham.overlap.rules import common_rule, overlap_range
from ase_hybridham.overlap.twocenter import RadialIntegrals
from ase_hybridham.system import AtomBasis

__all__ = ["DEFAULT_ACCURACY", "RadialFunctions", "Table", "radial_functions"]

DEFAULT_ACCURACY = 1e-11
FINEST, COARSEST = 1e-12, 1e-2  # accuracies that may be asked for; rounding is at 1e-14
DEGREE = 11
FIRST = 8  # intervals to begin with
MOST = 4096  # intervals; more than any basis needs
VERSION = 1  # of the numbers: raise it when a rule or this file changes them

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Table:
    """Radial integrals as polynomials on intervals.

    Parameters
    ----------
    channels : sequence of Channel
    edges : array, shape (n_intervals + 1,)
        Of the intervals, bohr; from 0 to where the integrals end.
    series : array, shape (n_intervals, D + 1, n_channels)
        Chebyshev coefficients.
    onsite : array, shape (n_channels,)
        The integrals at distance 0, not interpolated.
    """

    channels: Sequence[Channel]
    edges: NDArray[np.float64]
    series: NDArray[np.float64]
    onsite: NDArray[np.float64]

    def at(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """The integrals at distances in bohr, shape (n, n_channels); 0 beyond the last edge."""
        distances = np.asarray(distances, dtype=np.float64)
        (out,) = self._evaluated(distances, [self.series])
        out[distances == 0] = self.onsite
        return out

    def with_slopes(self, distances: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The integrals and their derivatives along the distance, in 1/bohr, each of shape (n, n_channels)."""
        distances = np.asarray(distances, dtype=np.float64)
        values, slopes = self._evaluated(distances, [self.series, self._slopes])
        values[distances == 0] = self.onsite
        return values, slopes

    @cached_property
    def _slopes(self) -> NDArray[np.float64]:
        """Chebyshev coefficients of the derivatives."""
        inner = chebyshev.chebder(self.series, axis=1) * (2 / np.diff(self.edges))[:, None, None]
        return np.concatenate([inner, np.zeros_like(inner[:, :1])], axis=1)

    def _evaluated(
        self, distances: NDArray[np.float64], series: Sequence[NDArray[np.float64]]
    ) -> list[NDArray[np.float64]]:
        """Every series at the distances: one matrix product an interval that occurs."""
        out = [np.zeros((len(distances), len(self.channels))) for _ in series]
        interval = np.searchsorted(self.edges, distances, side="right") - 1
        interval[distances == self.edges[-1]] -= 1
        order = np.argsort(interval, kind="stable")
        starts = np.searchsorted(interval[order], np.arange(len(self.series) + 1))
        low, high = self.edges[:-1], self.edges[1:]
        inside = order[: starts[-1]]
        i = interval[inside]
        polynomials = _chebyshev((2 * distances[inside] - low[i] - high[i]) / (high[i] - low[i]))
        for n in np.flatnonzero(np.diff(starts)):
            rows = slice(starts[n], starts[n + 1])
            for values, coefficients in zip(out, series, strict=True):
                values[order[rows]] = polynomials[rows] @ coefficients[n]
        return out


def _chebyshev(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """T_0 .. T_D at t, shape (n, D + 1)."""
    out = np.empty((len(t), DEGREE + 1))
    out[:, 0], out[:, 1] = 1.0, t
    for n in range(2, DEGREE + 1):
        out[:, n] = 2 * t * out[:, n - 1] - out[:, n - 2]
    return out


def tabulated(integrals: RadialFunctions, reach: float, accuracy: float) -> Table | None:
    """A table of radial integrals; None if no number of intervals that is reasonable gives the accuracy.

    Parameters
    ----------
    integrals : RadialFunctions
    reach : float
        Distance in bohr where they have ended.
    accuracy : float
        Largest error of a matrix element. Its channels enter with factors that add up to sqrt((2 l1 + 1)(2 l2 + 1)).
    """
    nodes = chebyshev.chebpts1(DEGREE + 1)
    between = np.concatenate([[-1.0], 0.5 * (nodes[1:] + nodes[:-1]), [1.0]])
    inverse, checks = np.linalg.inv(_chebyshev(nodes)), _chebyshev(between)
    # half of it, for the error is not largest exactly where it is measured
    allowed = 0.5 * accuracy / np.array([np.sqrt((2 * c.l1 + 1) * (2 * c.l2 + 1)) for c in integrals.channels])
    done: dict[float, NDArray[np.float64]] = {}
    edges = np.linspace(0.0, reach, FIRST + 1)
    low, width = edges[:-1], np.diff(edges)
    while len(low):
        if len(done) + len(low) > MOST:
            return None
        points = low[:, None] + 0.5 * width[:, None] * (1 + np.concatenate([nodes, between]))
        values = integrals.at(points.ravel()).reshape(*points.shape, -1)
        series = inverse @ values[:, : len(nodes)]
        good = (np.abs(checks @ series - values[:, len(nodes) :]) <= allowed).all(axis=(1, 2))
        done |= dict(zip(low[good].tolist(), series[good], strict=True))
        width = np.repeat(0.5 * width[~good], 2)
        low = np.repeat(low[~good], 2)
        low[1::2] += width[1::2]
    starts = sorted(done)
    (onsite,) = integrals.at(np.zeros(1))
    return Table(integrals.channels, np.array([*starts, reach]), np.stack([done[x] for x in starts]), onsite)


def radial_functions(
    first: AtomBasis, second: AtomBasis, reach: float, accuracy: float | None = None
) -> RadialFunctions:
    """The radial integrals of the overlap between two atoms.

    Parameters
    ----------
    first, second : AtomBasis
        Every shell with a radial function, all of one rule, its settings and its bohr.
    reach : float
        Largest distance that will be asked for without tables, bohr.
    accuracy : float, optional
        Largest error of a matrix element that interpolation may add, 1e-12 to 1e-2; by default 1e-11. 0: no
        interpolation.

    Raises
    ------
    OverlapError
        If a shell has no radial function, or the functions follow different rules, settings or bohr.
    ValueError
        If `accuracy` is out of range.
    """
    common_rule(first, second)
    if accuracy == 0:
        return _exact(first, second, reach)
    accuracy = DEFAULT_ACCURACY if accuracy is None else accuracy
    if not FINEST <= accuracy <= COARSEST:
        raise ValueError(f"accuracy: expected 0 or {FINEST:g} .. {COARSEST:g}, got {accuracy}")
    return _table(first, second, accuracy)


@lru_cache(maxsize=64)
def _table(first: AtomBasis, second: AtomBasis, accuracy: float) -> RadialFunctions:
    """From the disk, else computed and written there."""
    reach = overlap_range(first, second)
    key = _key(first, second, accuracy)
    channels = channels_of(first.degrees, second.degrees)
    found = _from_arrays(channels, cache.load_arrays(key), reach)
    if found is not None:
        return found
    integrals = _exact(first, second, reach)
    table = tabulated(integrals, reach, accuracy)
    if table is None:
        logger.warning("no table of %s-%s: more than %d intervals", first.symbol, second.symbol, MOST)
        return integrals
    cache.save_arrays(key, {"edges": table.edges, "series": table.series, "onsite": table.onsite})
    return table


def _exact(first: AtomBasis, second: AtomBasis, reach: float) -> RadialFunctions:
    rule = common_rule(first, second)
    return rule.integrals(first, second) if rule.integrals else RadialIntegrals.of_atoms(first, second, reach)


def _key(first: AtomBasis, second: AtomBasis, accuracy: float) -> str:
    """Digest of all that decides a table."""
    shells = [
        [(shell.l, shell.radial.rule, shell.radial.digest) for shell in atom.shells if shell.radial]
        for atom in (first, second)
    ]
    return sha256(repr((VERSION, DEGREE, accuracy, shells)).encode()).hexdigest()


def _from_arrays(
    channels: Sequence[Channel], arrays: dict[str, NDArray[np.float64]] | None, reach: float
) -> Table | None:
    """The table that was kept, None if it is not one of these channels."""
    if arrays is None or set(arrays) != {"edges", "series", "onsite"}:
        return None
    n = arrays["edges"].size - 1
    shapes = {"edges": (n + 1,), "series": (n, DEGREE + 1, len(channels)), "onsite": (len(channels),)}
    for name, array in arrays.items():
        if array.shape != shapes[name] or array.dtype != np.float64 or not np.isfinite(array).all():
            return None
    if n < 1 or arrays["edges"][-1] != reach:
        return None
    return Table(channels, arrays["edges"], arrays["series"], arrays["onsite"])
