"""Position, gradient and kinetic energy between localized orbitals, as exact as the overlap.

The gradient is that of S. The kinetic energy is S with a factor k^2 / 2 under the integral over k. The position makes
of a shell R Y_l two others; with G and Y in component normalization (`twocenter`),

    x R Y_la = sum_s (r R) sum_m G(1 x, l a, s m) / sqrt(3) Y_sm,    s = l - 1, l + 1,

so its matrix elements are overlaps of shells r R Y_s.
Letters: a, b orbitals; c orbitals of the shells r R Y_s; x direction; n pair.
"""

from math import sqrt
from typing import Literal

import numpy as np
from ase import Atoms
from ase.units import Hartree
from numpy.typing import NDArray

from ase_hybridham.overlap.assembly import Coupling, blocks_from, known_pairs, overlap_from_basis, overlap_gradient
from ase_hybridham.overlap.rules import bohr_of, common_rule, overlap_range
from ase_hybridham.overlap.twocenter import RadialIntegrals, gaunt
from ase_hybridham.symmetry import spherical_harmonics
from ase_hybridham.system import AtomBasis, Basis, PairBlocks, PairList

__all__ = ["kinetic_from_basis", "momentum_from_basis", "position_from_basis"]

# eV, of the programs that have their own, so that T is right to all digits of their H.
HARTREE = {"openmx": 27.2113845}
AT_ONCE = 2**16  # matrix elements <c|b>
XYZ = [2, 0, 1]  # places of x, y, z among the orders of l = 1


def position_from_basis(
    atoms: Atoms,
    basis: Basis,
    pairs: PairList | None = None,
    *,
    origin: Literal["atom", "cell"] = "atom",
) -> tuple[PairBlocks, PairBlocks, PairBlocks]:
    """<i, 0| r - r_i |j, R> along x, y and z from the radial functions of a basis.

    Parameters
    ----------
    atoms : ase.Atoms
        Any pbc; positions may lie outside the cell.
    basis : Basis
        Every shell of the elements of `atoms` carries its radial function.
    pairs : PairList, optional
        Pairs of `atoms`; by default those within the sum of the basis' cutoff radii.
    origin : {"atom", "cell"}
        "cell": <i, 0| r |j, R>, which is r_i S_ij(R) more, with the positions that `atoms` has.

    Returns
    -------
    tuple of three PairBlocks
        float64, in angstrom. The adjoint of a block has its origin in the other atom:
        X_ij(R) - X_ji(-R)^T = d S_ij(R) with d = r_j + R.A - r_i, or R.A for the origin of the cell.

    Raises
    ------
    OverlapError
        If a shell has no radial function, or the functions come from different programs.
    ValueError
        If the basis lacks an element, or a cutoff radius where `pairs` is not given; if `origin` is neither.
    """
    if origin not in ("atom", "cell"):
        raise ValueError(f"origin: expected 'atom' or 'cell', got {origin!r}")
    pairs = known_pairs(atoms, basis, pairs)
    groups = pairs.element_groups
    stacks = {(i, j): _position(basis[i], basis[j], pairs.vectors[rows]) for (i, j), rows in groups.items()}
    if origin == "cell":
        for elements, rows, overlap in overlap_from_basis(atoms, basis, pairs).groups():
            stacks[elements] += atoms.positions[pairs.i[rows]].T[:, :, None, None] * overlap
    x, y, z = (
        PairBlocks.from_groups(pairs, basis, {elements: stack[n] for elements, stack in stacks.items()})
        for n in range(3)
    )
    return x, y, z


def momentum_from_basis(
    atoms: Atoms, basis: Basis, pairs: PairList | None = None, *, accuracy: float | None = None
) -> tuple[PairBlocks, PairBlocks, PairBlocks]:
    """<i, 0| grad |j, R> along x, y and z from the radial functions of a basis.

    Real, and P_ij(R) = -P_ji(-R)^T; the momentum is -i hbar times it.

    Parameters
    ----------
    atoms, basis, pairs, accuracy
        See `overlap_from_basis`.

    Returns
    -------
    tuple of three PairBlocks
        float64, in 1/angstrom.

    Raises
    ------
    OverlapError, ValueError
        As `overlap_from_basis`.
    """
    x, y, z = (-1.0 * gradient for gradient in overlap_gradient(atoms, basis, pairs, accuracy=accuracy))
    return x, y, z


def kinetic_from_basis(atoms: Atoms, basis: Basis, pairs: PairList | None = None) -> PairBlocks:
    """<i, 0| -hbar^2 laplacian / 2m |j, R> from the radial functions of a basis.

    Parameters
    ----------
    atoms, basis, pairs
        See `position_from_basis`.

    Returns
    -------
    PairBlocks
        float64, in eV by the hartree of the program whose functions these are.

    Raises
    ------
    OverlapError, ValueError
        As `position_from_basis`.
    """
    return blocks_from(_kinetic, known_pairs(atoms, basis, pairs), basis)


def _kinetic(first: AtomBasis, second: AtomBasis, reach: float) -> RadialIntegrals:
    """Radial integrals of T in eV."""
    radial = first.shells[0].radial
    hartree = HARTREE.get(radial.rule, Hartree) if radial else Hartree
    rule, ends = common_rule(first, second), overlap_range(first, second)
    quadrature = rule.quadrature([*first.shells, *second.shells], min(reach, ends))
    rows = rule.transform(first.shells, first.degrees, 0, quadrature)
    columns = rule.transform(second.shells, second.degrees, 0, quadrature)
    columns *= 0.5 * hartree * quadrature.points**2
    return RadialIntegrals(rows, first.degrees, columns, second.degrees, quadrature, ends)


def _position(first: AtomBasis, second: AtomBasis, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """<a| r - r_i |b> of pairs at vectors, both in angstrom, shape (3, n, n_a, n_b)."""
    rule, ends = common_rule(first, second), overlap_range(first, second)
    bohr = bohr_of(first)
    vectors = vectors / bohr
    distances = np.linalg.norm(vectors, axis=1)
    quadrature = rule.quadrature([*first.shells, *second.shells], min(float(distances.max(initial=0.0)), ends))
    origins, degrees, matrix = _times_vector(first)
    rows = rule.transform([first.shells[n] for n in origins], degrees, 1, quadrature)
    columns = rule.transform(second.shells, second.degrees, 0, quadrature)
    integrals = RadialIntegrals(rows, degrees, columns, second.degrees, quadrature, ends)
    coupling = Coupling(AtomBasis.from_degrees(first.symbol, degrees), second, integrals.channels)
    out = np.empty((3, len(vectors), first.size, second.size))
    step = max(AT_ONCE // (matrix.shape[2] * second.size), 16)
    for start in range(0, len(vectors), step):
        some = slice(start, start + step)
        harmonics = np.concatenate(spherical_harmonics(vectors[some], int(coupling.degree.max())), axis=1)
        products = integrals.at(distances[some])[:, coupling.channel] * harmonics[:, coupling.harmonic]
        out[:, some] = bohr * matrix[:, None] @ coupling(products)
    return out


def _times_vector(atom: AtomBasis) -> tuple[list[int], list[int], NDArray[np.float64]]:
    """Shells that x, y, z make of the orbitals: the shell each comes from, its l; the matrix, shape (3, n_a, n_c)."""
    new = [(n, s) for n, l in enumerate(atom.degrees) for s in (l - 1, l + 1) if s >= 0]
    ends = np.cumsum([2 * s + 1 for _, s in new])
    matrix = np.zeros((3, atom.size, ends[-1]))
    for (n, s), end in zip(new, ends.tolist(), strict=True):
        matrix[:, atom.slices[n], end - 2 * s - 1 : end] = gaunt(1, atom.degrees[n], s)[XYZ] / sqrt(3)
    return [n for n, _ in new], [s for _, s in new], matrix
