"""Two-center integrals <i at 0|O|j at d>, in reciprocal space.

S(d) = (2/pi) sum_L (-1)^((l1-l2-L)/2) I_L(|d|) sum_M G(l1 a, l2 b, L M) Y_LM(d),
I_L(r) = int k^2 F_1(k) F_2(k) j_L(kr) dk, with Y and G in component normalization (`symmetry.harmonics`);
the kinetic energy has k^4 / 2 instead of k^2. Only L with l1 + l2 + L even occur.
Letters: a, b orders of the shells; M order of L; n pair; c channel (row shell, column shell, L).
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ase_hybridham.overlap.bessel import derivatives, spherical_bessel
from ase_hybridham.overlap.channels import Channel, channels_of
from ase_hybridham.overlap.quadrature import Quadrature
from ase_hybridham.overlap.rules import common_rule, overlap_range
from ase_hybridham.symmetry import spherical_harmonics
from ase_hybridham.system import AtomBasis

__all__ = ["Channel", "RadialIntegrals", "channels_of", "gaunt"]


# Elements of a table of Bessel functions, distances x k.
AT_ONCE = 2**19


@cache
def gaunt(l1: int, l2: int, L: int) -> NDArray[np.float64]:
    """Mean of Y_l1a Y_l2b Y_LM over the sphere, component normalization, shape (2 l1+1, 2 l2+1, 2 L+1), read-only."""
    weights, y = _sphere(l1 + l2 + L)
    products = (weights[:, None] * y[l1])[:, :, None] * y[l2][:, None]
    out = (products.reshape(len(weights), -1).T @ y[L]).reshape(2 * l1 + 1, 2 * l2 + 1, 2 * L + 1)
    out[np.abs(out) < 1e-13] = 0.0
    out.flags.writeable = False
    return out


@cache
def _sphere(degree: int) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Weights of a mean over the sphere, exact for polynomials up to a degree, and the harmonics at its points."""
    n = degree + 1
    z, weights = np.polynomial.legendre.leggauss(n)
    phi = 2 * np.pi * np.arange(2 * n) / (2 * n)
    flat = np.sqrt(1 - z**2)[:, None]
    points = np.stack([flat * np.cos(phi), flat * np.sin(phi), np.broadcast_to(z[:, None], (n, 2 * n))], axis=-1)
    return np.repeat(weights / (4 * n), 2 * n), spherical_harmonics(points.reshape(-1, 3), degree)


class RadialIntegrals:
    """I_L(r) of all channels between two atoms, times (2/pi) and the phase; each computed when it is asked for.

    Parameters
    ----------
    rows, columns : arrays, shapes (n_rows, n_k) and (n_columns, n_k)
        Transforms F(k) of the shells of the first and of the second atom.
    row_degrees, column_degrees : sequences of int
        Their angular momenta.
    quadrature : Quadrature
        Whose points are the k.
    reach : float
        In bohr; the integrals are 0 beyond.
    """

    def __init__(
        self,
        rows: NDArray[np.float64],
        row_degrees: Sequence[int],
        columns: NDArray[np.float64],
        column_degrees: Sequence[int],
        quadrature: Quadrature,
        reach: float = np.inf,
    ) -> None:
        self.reach = reach
        self.points = quadrature.points
        self.channels = channels_of(row_degrees, column_degrees)
        measure = (2 / np.pi) * quadrature.weights * quadrature.points**2
        phases = [(-1) ** ((c.l1 - c.l2 - c.L) // 2) for c in self.channels]
        self._products = measure * np.array(phases)[:, None]
        self._products *= rows[[c.row for c in self.channels]] * columns[[c.column for c in self.channels]]

    @classmethod
    def of_atoms(cls, first: AtomBasis, second: AtomBasis, reach: float | None = None) -> "RadialIntegrals":
        """Those of the overlap.

        Parameters
        ----------
        first, second : AtomBasis
        reach : float, optional
            Largest distance that will be asked for, bohr; by default that where the overlaps end.

        Raises
        ------
        OverlapError
            If a shell has no radial function, or the functions follow different rules, settings or bohr.
        """
        shells = [*first.shells, *second.shells]
        rule, ends = common_rule(first, second), overlap_range(first, second)
        quadrature = rule.quadrature(shells, ends if reach is None else min(reach, ends))
        rows = rule.transform(first.shells, first.degrees, 0, quadrature)
        columns = rows if first == second else rule.transform(second.shells, second.degrees, 0, quadrature)
        return cls(rows, first.degrees, columns, second.degrees, quadrature, ends)

    def at(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """The integrals at distances in bohr, shape (n, n_channels)."""
        return self._derivatives(distances, 0)[0]

    def with_slopes(self, distances: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The integrals and their derivatives along the distance, in 1/bohr, each of shape (n, n_channels)."""
        values, slopes = self._derivatives(distances, 1)
        return values, slopes

    def _derivatives(self, distances: NDArray[np.float64], order: int) -> NDArray[np.float64]:
        """The integrals and their derivatives up to an order, shape (order + 1, n, n_channels)."""
        distances = np.asarray(distances, dtype=np.float64)
        degree = np.array([c.L for c in self.channels])
        out = np.zeros((order + 1, len(distances), len(self.channels)))
        inside = np.flatnonzero(distances <= self.reach)
        step = max(AT_ONCE // len(self.points), 1)
        for start in range(0, len(inside), step):
            rows = inside[start : start + step]
            bessel = spherical_bessel(int(degree.max()) + order, np.outer(distances[rows], self.points))
            for n in range(order + 1):
                for L in np.unique(degree):
                    out[n, rows[:, None], np.flatnonzero(degree == L)] = bessel[L] @ self._products[degree == L].T
                if n < order:
                    bessel = derivatives(bessel) * self.points
        return out
