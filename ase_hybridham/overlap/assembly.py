"""Blocks of all pairs from radial integrals and directions, and their gradients.

block[a, b] = sum_cM G_c[a, b, M] I_c(|d|) Y_LM(d): products I_c Y_LM of many pairs, times a constant matrix. Only one
of the pairs (i, j, R) and (j, i, -R) is computed; S(-d) of the elements exchanged is the transpose of S(d).
Letters: a, b orbitals; M order of L; c channel (row shell, column shell, L); d from the first atom to the second.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from ase import Atoms
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from ase_hybridham.overlap.rules import bohr_of, common_rule
from ase_hybridham.overlap.tables import RadialFunctions, radial_functions
from ase_hybridham.overlap.twocenter import Channel, gaunt
from ase_hybridham.symmetry import spherical_harmonics
from ase_hybridham.system import AtomBasis, Basis, PairBlocks, PairList

__all__ = [
    "Coupling",
    "blocks_from",
    "gradients_from",
    "known_pairs",
    "overlap_from_basis",
    "overlap_gradient",
]

# Matrix elements computed at a time: few enough to stay near the processor, enough to make Python's part small.
AT_ONCE = 2**16

Radial = Callable[[AtomBasis, AtomBasis, float], RadialFunctions]


def overlap_from_basis(
    atoms: Atoms, basis: Basis, pairs: PairList | None = None, *, accuracy: float | None = None
) -> PairBlocks:
    """S_ij(R) = <i, 0|j, R> from the radial functions of a basis.

    Parameters
    ----------
    atoms : ase.Atoms
        Any pbc; positions may lie outside the cell.
    basis : Basis
        Every shell of the elements of `atoms` carries its radial function.
    pairs : PairList, optional
        Pairs of `atoms`; by default those within the sum of the basis' cutoff radii.
    accuracy : float, optional
        Largest error of an element that the interpolation of radial integrals may add; 0: no interpolation.

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
    return blocks_from(_radial(accuracy), known_pairs(atoms, basis, pairs), basis)


def overlap_gradient(
    atoms: Atoms, basis: Basis, pairs: PairList | None = None, *, accuracy: float | None = None
) -> tuple[PairBlocks, PairBlocks, PairBlocks]:
    """dS_ij(d)/dd along x, y and z, for d from atom i to atom j in the cell at R.

    With atom i held, this is how S changes when j moves; also <i|d/dr j> with the opposite sign. On-site blocks hold
    the gradient at d = 0, where only shells with l1 = l2 +- 1 have one.

    Parameters
    ----------
    atoms, basis, pairs, accuracy
        As in `overlap_from_basis`; but interpolated slopes err by up to a hundred times `accuracy`, in 1/angstrom.

    Returns
    -------
    tuple of three PairBlocks
        float64, in 1/angstrom.

    Raises
    ------
    OverlapError, ValueError
        As in `overlap_from_basis`.
    """
    return gradients_from(_radial(accuracy), known_pairs(atoms, basis, pairs), basis)


def blocks_from(radial: Radial, pairs: PairList, basis: Basis) -> PairBlocks:
    """Blocks of a scalar operator, even under inversion, on all pairs.

    Parameters
    ----------
    radial : callable
        ``(first, second, reach) -> RadialFunctions`` of two atoms up to a distance in bohr.
    pairs : PairList
    basis : Basis
        Knows the elements of the pairs.

    Returns
    -------
    PairBlocks
        float64, in the unit of the radial functions.

    Raises
    ------
    OverlapError
        If a shell has no radial function, or the functions come from different programs.
    """
    out = PairBlocks.zeros(pairs, basis)
    for group in _groups(radial, pairs, basis):
        for rows, vectors in group.parts():
            _write(out, rows, group.coupling(_products(group, vectors)), 1)
    return out


def gradients_from(radial: Radial, pairs: PairList, basis: Basis) -> tuple[PairBlocks, PairBlocks, PairBlocks]:
    """Gradients of the blocks of `blocks_from`, with the same arguments: along x, y and z, in 1/angstrom."""
    first = PairBlocks.zeros(pairs, basis)
    out = first, first.with_values(np.zeros_like(first.values)), first.with_values(np.zeros_like(first.values))
    for group in _groups(radial, pairs, basis):
        for rows, vectors in group.parts():
            for blocks, products in zip(out, _gradient_products(group, vectors), strict=True):
                _write(blocks, rows, group.coupling(products) / group.bohr, -1)
    return out


class Coupling:
    """From products I_c Y_LM to blocks.

    One matrix product per row shell, whose rows of a block stand together and share no channel with those of others.

    Parameters
    ----------
    first, second : AtomBasis
    channels : sequence of Channel
        In order of the row shell.
    """

    def __init__(self, first: AtomBasis, second: AtomBasis, channels: Sequence[Channel]) -> None:
        self.shape = first.size, second.size
        widths = np.array([2 * c.L + 1 for c in channels])
        ends = np.cumsum(widths)
        self.channel = np.repeat(np.arange(len(channels)), widths)  # of every product
        self.degree = np.array([c.L for c in channels])
        self.harmonic = np.concatenate([np.arange(c.L**2, (c.L + 1) ** 2) for c in channels])
        rows, columns = first.slices, second.slices
        matrix = np.zeros((len(self.channel), *self.shape))
        for c, end in zip(channels, ends, strict=True):
            matrix[end - 2 * c.L - 1 : end, rows[c.row], columns[c.column]] = gaunt(c.l1, c.l2, c.L).transpose(2, 0, 1)
        row = np.array([c.row for c in channels])[self.channel]
        self.parts: list[tuple[slice, slice, NDArray[np.float64]]] = []
        for s, orbitals in enumerate(rows):
            mine = slice(*np.searchsorted(row, [s, s + 1]).tolist())
            elements = slice(orbitals.start * second.size, orbitals.stop * second.size)
            self.parts.append((mine, elements, matrix[mine, orbitals].reshape(mine.stop - mine.start, -1)))

    def __call__(self, products: NDArray[np.float64]) -> NDArray[np.float64]:
        """Blocks, shape (n, n_i, n_j), of products, shape (n, n_products)."""
        out = np.empty((len(products), self.shape[0] * self.shape[1]))
        for mine, elements, matrix in self.parts:
            np.matmul(products[:, mine], matrix, out=out[:, elements])
        return out.reshape(-1, *self.shape)


@dataclass(frozen=True)
class _Group:
    """The pairs of two elements, one of each pair and its reverse."""

    rows: NDArray[np.int64]
    vectors: NDArray[np.float64]  # of all pairs, angstrom
    integrals: RadialFunctions
    coupling: Coupling
    bohr: float

    @property
    def lmax(self) -> int:
        return int(self.coupling.degree.max())

    def parts(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Some rows at a time, with vectors in bohr."""
        step = max(AT_ONCE // (self.coupling.shape[0] * self.coupling.shape[1]), 16)
        for start in range(0, len(self.rows), step):
            rows = self.rows[start : start + step]
            yield rows, self.vectors[rows] / self.bohr


def _groups(radial: Radial, pairs: PairList, basis: Basis) -> Iterator[_Group]:
    for (z_i, z_j), rows in pairs.element_groups.items():
        if z_i > z_j:
            continue  # written with their reverses
        if z_i == z_j:
            rows = rows[rows <= pairs.reverse[rows]]
        first, second = basis[z_i], basis[z_j]
        common_rule(first, second)
        bohr = bohr_of(first)
        integrals = radial(first, second, float(pairs.distances[rows].max()) / bohr)
        yield _Group(rows, pairs.vectors, integrals, Coupling(first, second, integrals.channels), bohr)


def _products(group: _Group, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """I_c Y_LM of pairs, shape (n, n_products)."""
    values = group.integrals.at(np.linalg.norm(vectors, axis=1))
    harmonics = np.concatenate(spherical_harmonics(vectors, group.lmax), axis=1)
    return values[:, group.coupling.channel] * harmonics[:, group.coupling.harmonic]


def _gradient_products(group: _Group, vectors: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """Their derivatives along x, y, z, in 1/bohr.

    With u = d/r and Y of u taken as a polynomial, grad (I Y) = (I' - L I/r) u Y + (I/r) (grad Y)(u), good for d = 0:
    there u = 0, Y of a zero vector is that of the polynomial, and I/r is I'.
    """
    distances = np.linalg.norm(vectors, axis=1)
    values, slopes = group.integrals.with_slopes(distances)
    apart = distances > 0
    lengths = np.where(apart, distances, 1.0)[:, None]
    ratios = np.where(apart[:, None], values / lengths, slopes)
    along, across = slopes - group.coupling.degree * ratios, ratios
    harmonics = np.concatenate(spherical_harmonics(vectors, group.lmax), axis=1)
    channel, harmonic = group.coupling.channel, group.coupling.harmonic
    along, across = (along[:, channel] * harmonics[:, harmonic]), across[:, channel]
    for x, derivative in enumerate(_derivatives(group.lmax)):
        unit = vectors[:, x, None] / lengths
        yield along * unit + across * (harmonics @ derivative)[:, harmonic]


@cache
def _derivatives(lmax: int) -> NDArray[np.float64]:
    """D[x] with d(r^l Y_lm)/dx = sum_n r^(l-1) Y_n D[x, n, lm], shape (3, (lmax+1)^2, (lmax+1)^2)."""
    out = np.zeros((3, (lmax + 1) ** 2, (lmax + 1) ** 2))
    for l in range(1, lmax + 1):
        # of degree l-1, a vector with l: one coupling, whose factor Euler's x.grad = l fixes; gaunt has y, z, x
        part = (2 * l + 1) / np.sqrt(3) * gaunt(1, l - 1, l)
        out[:, (l - 1) ** 2 : l**2, l**2 : (l + 1) ** 2] = part[[2, 0, 1]]
    out.flags.writeable = False
    return out


def _write(out: PairBlocks, rows: NDArray[np.int64], blocks: NDArray[np.float64], sign: int) -> None:
    """Blocks of `rows` and, transposed with a sign, of their reverses."""
    _, n_i, n_j = blocks.shape
    size = out.values.itemsize
    starts = len(out.values) - n_i * n_j + 1  # a window at every place where a block could start
    there = as_strided(out.values, (starts, n_i, n_j), (size, size, n_i * size))
    there[out.offsets[out.pairs.reverse[rows]]] = blocks if sign > 0 else -blocks
    as_strided(out.values, (starts, n_i, n_j), (size, n_j * size, size))[out.offsets[rows]] = blocks


def _radial(accuracy: float | None) -> Radial:
    return lambda first, second, reach: radial_functions(first, second, reach, accuracy)


def known_pairs(atoms: Atoms, basis: Basis, pairs: PairList | None) -> PairList:
    """The pairs, by default those within the sum of the basis' cutoff radii, of atoms that the basis knows."""
    lacking = sorted({symbol for symbol in atoms.get_chemical_symbols() if symbol not in basis})
    if lacking:
        raise ValueError(f"basis {basis.name}: no element {lacking[0]}, only {', '.join(basis.atoms)}")
    return PairList.from_atoms(atoms, basis.cutoffs()) if pairs is None else pairs
