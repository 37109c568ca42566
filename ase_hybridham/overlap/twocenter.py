"""Two-center integrals <i at 0|O|j at d>, in reciprocal space.

S(d) = (2/pi) sum_L (-1)^((l1-l2-L)/2) I_L(|d|) sum_M G(l1 a, l2 b, L M) Y_LM(d),
I_L(r) = int k^2 F_1(k) F_2(k) j_L(kr) dk, with Y and G in component normalization (`symmetry.harmonics`);
the kinetic energy has k^4 / 2 instead of k^2. Only L with l1 + l2 + L even occur.
Letters: a, b orders of the shells; M order of L; n pair; c channel (row shell, column shell, L).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.special import spherical_jn

from ase_hybridham.errors import OverlapError
from ase_hybridham.overlap.gaussian import overlap_from_basis as gaussian_overlap
from ase_hybridham.overlap.quadrature import RULES
from ase_hybridham.symmetry import spherical_harmonics
from ase_hybridham.system import AtomBasis, Basis, GaussianRadial, PairBlocks, PairList, Radial

__all__ = ["RadialIntegrals", "gaunt", "overlap_from_basis"]


@cache
def gaunt(l1: int, l2: int, L: int) -> NDArray[np.float64]:
    """Mean of Y_l1a Y_l2b Y_LM over the sphere, component normalization, shape (2 l1+1, 2 l2+1, 2 L+1), read-only."""
    n = l1 + l2 + L + 1  # exact for polynomials of this degree
    z, weight = np.polynomial.legendre.leggauss(n)
    phi = 2 * np.pi * np.arange(2 * n) / (2 * n)
    flat = np.sqrt(1 - z**2)[:, None]
    points = np.stack([flat * np.cos(phi), flat * np.sin(phi), np.broadcast_to(z[:, None], (n, 2 * n))], axis=-1)
    y = spherical_harmonics(points, max(l1, l2, L))
    out = np.einsum("z,zpa,zpb,zpm->abm", weight / (4 * n), y[l1], y[l2], y[L], optimize=True)
    out[np.abs(out) < 1e-13] = 0.0
    out.flags.writeable = False
    return out


@dataclass(frozen=True)
class Channel:
    """One radial integral: of two shells, coupled to L."""

    row: int
    column: int
    l1: int
    l2: int
    L: int


class RadialIntegrals:
    """I_L(r) of all channels between two atoms, times (2/pi) and the phase.

    Parameters
    ----------
    first, second : AtomBasis
        Every shell with a radial function, all of one rule and one bohr.
    reach : float
        Largest distance asked for, bohr.
    """

    def __init__(self, first: AtomBasis, second: AtomBasis, reach: float) -> None:
        rows, columns = _radials(first), _radials(second)
        rule = RULES[rows[0].rule]
        self.quadrature = rule.quadrature([*rows, *columns], reach)
        self.rows = rule.transform(rows, first.degrees, 0, self.quadrature)
        self.columns = rule.transform(columns, second.degrees, 0, self.quadrature)
        self.channels = [
            Channel(s, t, l1, l2, L)
            for s, l1 in enumerate(first.degrees)
            for t, l2 in enumerate(second.degrees)
            for L in range(abs(l1 - l2), l1 + l2 + 1, 2)
        ]

    @cached_property
    def _products(self) -> NDArray[np.float64]:
        """weight k^2 F_1 F_2 of every channel, shape (n_channels, n_k)."""
        measure = (2 / np.pi) * self.quadrature.weights * self.quadrature.points**2
        return np.stack(
            [
                (-1) ** ((c.l1 - c.l2 - c.L) // 2) * measure * self.rows[c.row] * self.columns[c.column]
                for c in self.channels
            ]
        )

    def at(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """The integrals at distances in bohr, without tables, shape (n, n_channels)."""
        out = np.empty((len(distances), len(self.channels)))
        degree = np.array([c.L for c in self.channels])
        for L in np.unique(degree):
            bessel = spherical_jn(int(L), np.outer(distances, self.quadrature.points))
            out[:, degree == L] = bessel @ self._products[degree == L].T
        return out


def overlap_from_basis(atoms: Atoms, basis: Basis, pairs: PairList | None = None) -> PairBlocks:
    """S_ij(R) = <i, 0|j, R> from the radial functions of a basis.

    Parameters
    ----------
    atoms : ase.Atoms
        Any pbc; positions may lie outside the cell.
    basis : Basis
        Every shell of the elements of `atoms` carries its radial function.
    pairs : PairList, optional
        Pairs of `atoms`; by default those within the sum of the basis' cutoff radii.

    Returns
    -------
    PairBlocks
        float64, on `pairs`.

    Raises
    ------
    OverlapError
        If a shell has no radial function, or the functions come from different programs.
    ValueError
        If the basis lacks an element, or a cutoff radius where `pairs` is not given.
    """
    lacking = sorted({symbol for symbol in atoms.get_chemical_symbols() if symbol not in basis})
    if lacking:
        raise ValueError(f"basis {basis.name}: no element {lacking[0]}, only {', '.join(basis.atoms)}")
    if pairs is None:
        pairs = PairList.from_atoms(atoms, basis.cutoffs())
    if any(isinstance(shell.radial, GaussianRadial) for z in np.unique(pairs.numbers) for shell in basis[z].shells):
        return gaussian_overlap(atoms, basis, pairs)
    stacks = {}
    for (z_i, z_j), rows in pairs.element_groups.items():
        stacks[z_i, z_j] = _blocks(basis[z_i], basis[z_j], pairs.vectors[rows])
    return PairBlocks.from_groups(pairs, basis, stacks)


def _blocks(first: AtomBasis, second: AtomBasis, vectors: NDArray) -> NDArray[np.float64]:
    """S of pairs of two elements, shape (n, n_i, n_j); vectors in angstrom."""
    vectors = vectors / _radials(first)[0].bohr
    distances = np.linalg.norm(vectors, axis=1)
    integrals = RadialIntegrals(first, second, float(distances.max(initial=0.0)))
    radial = integrals.at(distances)
    harmonics = spherical_harmonics(vectors, max(first.degrees) + max(second.degrees))
    out = np.zeros((len(vectors), first.size, second.size))
    for n, c in enumerate(integrals.channels):
        block = out[:, first.slices[c.row], second.slices[c.column]]
        block += np.einsum("n,abm,nm->nab", radial[:, n], gaunt(c.l1, c.l2, c.L), harmonics[c.L])
    return out


def _radials(atom: AtomBasis) -> Sequence[Radial]:
    """The radial functions of an atom, in order of its shells."""
    radials = [shell.radial for shell in atom.shells if shell.radial is not None]
    if len(radials) < len(atom.shells):
        raise OverlapError(f"overlap: the shells of {atom.symbol} have no radial functions")
    return radials
