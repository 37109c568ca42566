"""Bands of a supercell as those of a primitive cell that it nearly repeats: a spectral function A(k, E).

Lattices A = M a (rows; capitals: supercell), so a state at K has parts with k = K + G of the primitive reciprocal
lattice, K_s = sum_t M_st k_t in fractional coordinates. Orbital i of the supercell stands for orbital q of the
primitive cell at the lattice vector r_i (integers, in a), and c_i, continued by Bloch's theorem, is the sum over the
|det M| vectors k of

    (P_k c)_i = exp(2 pi i k.r_i) / |det M|  sum_{j of the same q} exp(-2 pi i k.r_j) c_j.

Orbitals are not orthogonal, so the part has Mulliken's population, the share of k in the state:

    w(k) = Re c^dagger S(K) P_k c,      sum_k w(k) = c^dagger S(K) c = 1.

If the supercell repeats the primitive cell exactly, P_k commutes with S, and w is 1 for one k and 0 for the others (of
degenerate states their sum is whole). Displacements blur it; single w may then be a little negative. This is the weight
of C.-C. Lee, Y. Yamada-Takamura and T. Ozaki, J. Phys.: Condens. Matter 25, 345501 (2013),
https://doi.org/10.1088/0953-8984/25/34/345501, with the sum over orbitals of the primitive cell done.

With the orbitals of one layer only, and its own primitive cell, sum_k w(k) is the population of the layer.
"""

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.dft.kpoints import BandPath
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from ase_hybridham.solve.bands import picked_around
from ase_hybridham.solve.bloch import check_k_points
from ase_hybridham.solve.pencil import OVERLAP_THRESHOLD
from ase_hybridham.solve.projection import WeightedBands, weighted_bands
from ase_hybridham.solve.states import States, states_of
from ase_hybridham.solve.windowed import Solver
from ase_hybridham.system import LCAOSystem

__all__ = ["SiteMap", "unfold"]

MISFIT = 0.1  # of the integers M, beyond which two lattices do not fit
WRONG_ELEMENT = 1.0  # angstrom^2; what an atom of another element on a site counts as
NEAR = 1e-9


@dataclass(frozen=True, eq=False)
class SiteMap:
    """Which site of which primitive cell every atom of a supercell, or of a layer in it, stands for.

    Parameters
    ----------
    primitive : ase.Atoms
        Its cell is exactly M^-1 A.
    matrix : array of int, shape (3, 3)
        M.
    members : array of int, shape (n,)
        Atoms of the supercell that count.
    sites : array of int, shape (n,)
        Atom of the primitive cell each of them stands for.
    cells : array of int, shape (n, 3)
        r: the primitive cell it stands in.
    displacement : float
        Largest distance between an atom and its site, angstrom.
    """

    primitive: Atoms
    matrix: NDArray[np.int64]
    members: NDArray[np.int64]
    sites: NDArray[np.int64]
    cells: NDArray[np.int64]
    displacement: float

    @classmethod
    def of(cls, atoms: Atoms, primitive: Atoms, members: ArrayLike | None = None) -> "SiteMap":
        """Every atom to the nearest site; sites may be empty, or hold another element.

        Parameters
        ----------
        atoms : ase.Atoms
            The supercell.
        primitive : ase.Atoms
            As it lies in the supercell: not turned. Its origin is found; axes along which `atoms` are not periodic are
            not looked at.
        members : array of int, optional
            Atoms of the supercell that count, such as those of one layer; by default all.

        Raises
        ------
        ValueError
            If the supercell is not spanned by the primitive one, or two atoms of an element stand on one site.
        """
        chosen = np.arange(len(atoms)) if members is None else np.unique(np.asarray(members, dtype=np.int64))
        if not len(chosen) or not len(primitive):
            raise ValueError(f"unfolding: expected atoms in both cells, got {len(chosen)} and {len(primitive)}")
        pbc = np.asarray(atoms.pbc, dtype=bool)
        whole = atoms.cell.complete().array
        own = primitive.cell.complete().array
        own[~pbc] = whole[~pbc]
        fitted = whole @ np.linalg.inv(own)
        matrix = np.rint(fitted).astype(np.int64)
        if np.abs(fitted - matrix).max() > MISFIT or round(np.linalg.det(matrix)) == 0:
            raise ValueError(
                "unfolding: expected cell vectors that are integer combinations of those of the primitive cell, got "
                f"{np.round(fitted, 3).tolist()}; turn or strain the primitive cell as it lies in the structure"
            )
        cell = np.linalg.solve(matrix, whole)
        positions = atoms.positions[chosen]
        numbers = atoms.numbers[chosen]
        scaled_sites = primitive.positions @ np.linalg.inv(own)
        sites, cells, missed, shift = _best_origin(positions, numbers, scaled_sites, primitive.numbers, cell, pbc)
        _refuse_shared(chosen, numbers, sites, cells, matrix)
        placed = Atoms(primitive.numbers, (scaled_sites + shift) @ cell, cell=cell, pbc=pbc)
        return cls(placed, matrix, chosen, sites, cells, float(np.sqrt((missed**2).sum(axis=1)).max()))

    @property
    def n_cells(self) -> int:
        """Primitive cells in the supercell, |det M|."""
        return abs(round(np.linalg.det(self.matrix)))

    def folded(self, k_points: ArrayLike) -> NDArray[np.float64]:
        """K of the supercell at which states with a part at k are found, fractional, shape (n_k, 3)."""
        return check_k_points(k_points) @ self.matrix.T

    def weights(self, system: LCAOSystem, k_point: ArrayLike, states: States) -> NDArray[np.float64]:
        """w(k) of states at K = `folded(k)`, shape (n_states,).

        Parameters
        ----------
        k_point : array, shape (3,)
            Fractional, of the primitive cell.
        """
        orbitals = system.operators[0].orbitals
        sizes, ends = orbitals[self.members], np.cumsum(orbitals)[self.members]
        # a site that holds two elements, each in some of the cells, has the orbitals of both
        kinds = np.column_stack([self.sites, system.atoms.numbers[self.members]])
        _, kind = np.unique(kinds, axis=0, return_inverse=True)
        inside = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        most = int(sizes.max())
        q = np.repeat(kind.ravel() * most, sizes) + inside
        orbital = np.repeat(ends - sizes, sizes) + inside
        phases = np.repeat(np.exp(-2j * np.pi * self.cells @ np.asarray(k_point, dtype=np.float64)), sizes)
        fold = csr_array((phases, (q, orbital)), shape=((int(kind.max()) + 1) * most, len(states.vectors)))
        return ((fold @ states.dual).conj() * (fold @ states.vectors)).real.sum(axis=0) / self.n_cells


def unfold(
    system: LCAOSystem,
    sites: SiteMap,
    path: BandPath | ArrayLike,
    *,
    reference: float | None = None,
    solver: Solver = "auto",
    overlap_threshold: float = OVERLAP_THRESHOLD,
    progress: bool = False,
) -> WeightedBands:
    """Energies of the supercell along a path of the primitive cell, and how much of each state has this k.

    Parameters
    ----------
    system : LCAOSystem
        Of the supercell.
    sites : SiteMap
    path : ase BandPath, or array of shape (n_k, 3)
        Of the primitive cell: `band_path(sites.primitive, "GMKG")`.
    reference, overlap_threshold
        As in `bands`.
    solver, progress
        As in `states_of`.

    Returns
    -------
    WeightedBands
        With one weight a state; `spectral_function` gives A(k, E).

    Raises
    ------
    OverlapError, ValueError
        As `bands`.
    """
    if not isinstance(path, BandPath):
        path = BandPath(sites.primitive.cell, check_k_points(path))
    picked, zero = picked_around(system, solver, reference, overlap_threshold)
    every = states_of(
        system, sites.folded(path.kpts), solver=picked, overlap_threshold=overlap_threshold, progress=progress
    )
    found = [
        [(states, sites.weights(system, k, states)[:, None]) for states in of_spins]
        for k, of_spins in zip(path.kpts, every, strict=True)
    ]
    return weighted_bands(path, found, ({},), zero)


def _best_origin(
    positions: NDArray, numbers: NDArray, sites: NDArray, elements: NDArray, cell: NDArray, pbc: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray, NDArray]:
    """Site and cell of every atom, the vectors from there to it, and the shift of the sites that makes these small."""
    scaled = positions @ np.linalg.inv(cell)
    candidates = scaled[0] - sites[elements == numbers[0]] if np.any(elements == numbers[0]) else scaled[0] - sites
    best = None
    for shift in candidates:
        for _ in range(2):  # with the origin on one atom, then in the middle of the displacements
            found = _nearest(scaled, numbers, sites + shift, elements, cell, pbc)
            shift = shift + (found[2] @ np.linalg.inv(cell)).mean(axis=0)
        found = _nearest(scaled, numbers, sites + shift, elements, cell, pbc)
        if best is None or found[3] < best[0] - NEAR:
            best = found[3], (*found[:3], shift)
    assert best is not None
    return best[1]


def _nearest(
    scaled: NDArray, numbers: NDArray, sites: NDArray, elements: NDArray, cell: NDArray, pbc: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray, float]:
    """Site, cell and distance vector of every atom, and the sum of what the distances cost."""
    step = scaled[:, None] - sites
    cells = np.where(pbc, np.rint(step), 0.0)
    away = (step - cells) @ cell
    cost = (away**2).sum(axis=2) + WRONG_ELEMENT * (numbers[:, None] != elements)
    at = np.argmin(cost, axis=1)
    every = np.arange(len(scaled))
    return at, cells[every, at].astype(np.int64), away[every, at], float(cost[every, at].sum())


def _refuse_shared(members: NDArray, numbers: NDArray, sites: NDArray, cells: NDArray, matrix: NDArray) -> None:
    inside = cells @ np.linalg.inv(matrix)
    inside = np.rint((inside - np.floor(inside + NEAR)) @ matrix).astype(np.int64)
    places, first, count = np.unique(
        np.column_stack([sites, numbers, inside]), axis=0, return_inverse=True, return_counts=True
    )
    if len(places) < len(members):
        i, j = members[first.ravel() == np.argmax(count > 1)][:2]
        raise ValueError(
            f"unfolding: expected one atom on each site of the primitive cell, got atoms {i} and {j} on one; is it the "
            "crystal that this structure repeats?"
        )
