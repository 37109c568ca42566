"""Density of states, whole or of groups of orbitals, in ASE's containers.

    g_a(E) = g sum_k w_k sum_n p_an(k) delta(E - e_n(k))      in states per eV and cell

p_an: Mulliken's population of group a in state n, g: electrons a state holds (`spin_degeneracy`), so that the integral
up to the Fermi level is the number of electrons. delta is the slope of `occupations` (`smeared_delta`), or a mesh is
interpolated linearly in tetrahedra (ASE's `linear_tetrahedron_integration`).

Each entry of a collection carries its group in `info`, and for collinear spin ``{"spin": "up"}`` or "down":
``found.sum_by("symbol")``, ``found.select(index="3")`` and ``found.total()`` are ASE's.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from ase.dft.dos import linear_tetrahedron_integration
from ase.spectrum.doscollection import GridDOSCollection
from numpy.typing import ArrayLike, NDArray

from ase_hybridham.solve.counted_dos import bin_edges, counts_are_cheaper, states_below
from ase_hybridham.solve.dense import eigenvalues
from ase_hybridham.solve.fermi import k_mesh, mesh_density, mesh_or_given
from ase_hybridham.solve.occupations import Smearing, check_width, smeared_delta, spin_degeneracy
from ase_hybridham.solve.pencil import OVERLAP_THRESHOLD
from ase_hybridham.solve.projection import OrbitalGroups
from ase_hybridham.solve.states import states_of
from ase_hybridham.solve.windowed import Solver, SparseSolver, pick_between
from ase_hybridham.system import LCAOSystem

__all__ = ["density_of_states", "tetrahedron_dos"]

WIDTH = 0.1  # eV
REACH = {"gaussian": 6.0, "fermi-dirac": 35.0}  # widths from which on a state is not seen: exp(-36)
FAR = 1e6  # eV above the grid: where ASE's tetrahedra find a state that does not exist


def density_of_states(
    system: LCAOSystem,
    energies: ArrayLike,
    k_points: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    *,
    by: Sequence[str] = (),
    labels: Mapping[str, Sequence[str]] | None = None,
    density: float | None = None,
    width: float = WIDTH,
    smearing: Smearing = "gaussian",
    solver: Solver | Literal["counts"] = "auto",
    overlap_threshold: float = OVERLAP_THRESHOLD,
    progress: bool = False,
) -> GridDOSCollection:
    """Density of states with every state smeared out; one entry for every spin and group.

    Parameters
    ----------
    system : LCAOSystem
    energies : array, shape (n_energies,)
        Evenly spaced, eV, same zero of energy as H.
    k_points, weights, density
        As in `fermi_level`.
    by, labels
        Groups of orbitals, see `OrbitalGroups.of`; none: all of them, which needs no eigenvectors.
    width, smearing
        As in `smeared_delta`.
    solver
        As in `bands`; "sparse" finds all states that reach into `energies`. Of another that finds a window only the
        density in this window, less the width of the smearing, is complete. "counts", without `by`: states are counted
        in bins of a fifth of the width, see `counted_dos`; "auto" does that where it is cheaper than states.
    progress
        As in `states_of`.
    overlap_threshold : float
        As in `eigenvalues`.

    Raises
    ------
    OverlapError, ValueError
        As `eigenvalues` and `OrbitalGroups.of`; if the energies are not evenly spaced.
    """
    grid = _checked_grid(energies)
    groups = OrbitalGroups.of(system, by, labels)
    k, w = mesh_or_given(system, k_points, weights, density)
    found = np.zeros((len(system.hamiltonian) or 1, len(groups.infos), len(grid)))
    check_width(width, smearing)
    reach = REACH[smearing] * width
    edges = grid[0] - reach, grid[-1] + reach
    if solver == "counts" and by:
        raise ValueError("solver 'counts': tells how many states there are, not where; leave out by, or take 'sparse'")
    word: Solver = "sparse" if solver == "counts" else solver
    picked = pick_between(system, word, *edges, k, vectors=bool(by), overlap_threshold=overlap_threshold)
    if isinstance(picked, SparseSolver) and not by and solver in ("auto", "counts"):
        bins = bin_edges(*edges, width)
        if solver == "counts" or counts_are_cheaper(picked, system, k, bins):
            delta = smeared_delta(grid, 0.5 * (bins[1:] + bins[:-1])[:, None], width=width, smearing=smearing)
            for weight, counts in zip(w, states_below(picked, system, k, bins, progress=progress), strict=True):
                found += weight * (np.diff(counts) @ delta)[:, None]  # of one group
            return _collection(grid, spin_degeneracy(system) * found, groups)
    if not by and picked is None:
        all_energies = eigenvalues(system, k, overlap_threshold=overlap_threshold)
        for of_spin, at_k in zip(found, all_energies, strict=True):
            for weight, e in zip(w, at_k, strict=True):
                of_spin += weight * smeared_delta(grid, e[np.isfinite(e), None], width=width, smearing=smearing).sum(0)
    else:
        every = states_of(system, k, solver=picked, overlap_threshold=overlap_threshold, progress=progress)
        for weight, of_spins in zip(w, every, strict=True):
            for of_spin, states in zip(found, of_spins, strict=True):
                delta = smeared_delta(grid, states.energies[:, None], width=width, smearing=smearing)
                of_spin += weight * groups.populations(states).T @ delta
    return _collection(grid, spin_degeneracy(system) * found, groups)


def tetrahedron_dos(
    system: LCAOSystem,
    energies: ArrayLike,
    size: ArrayLike | None = None,
    *,
    by: Sequence[str] = (),
    labels: Mapping[str, Sequence[str]] | None = None,
    density: float | None = None,
    overlap_threshold: float = OVERLAP_THRESHOLD,
    progress: bool = False,
) -> GridDOSCollection:
    """Density of states by linear interpolation between the points of a mesh, without a width; small cells.

    Parameters
    ----------
    size, density
        Of the mesh, see `k_mesh`; all of its points are solved.
    system, energies, by, labels, overlap_threshold, progress
        As in `density_of_states`.

    Raises
    ------
    OverlapError, ValueError
        As `density_of_states` and `k_mesh`.
    """
    grid = _checked_grid(energies)
    groups = OrbitalGroups.of(system, by, labels)
    density = mesh_density(system.n_orbitals) if density is None else density
    k, _ = k_mesh(system.atoms, size, density=density, time_reversal=False)
    mesh = tuple(len(np.unique(np.round(k[:, axis], 9))) for axis in range(3))
    found = np.zeros((len(system.hamiltonian) or 1, len(groups.infos), len(grid)))
    n_bands = system.n_orbitals
    bands = np.full((len(found), len(k), n_bands), grid[-1] + FAR)
    shares = np.zeros((*bands.shape, len(groups.infos)))
    if by:
        every = states_of(system, k, overlap_threshold=overlap_threshold, progress=progress)
        for row, of_spins in enumerate(every):
            for spin, states in enumerate(of_spins):
                bands[spin, row, : len(states.energies)] = states.energies
                shares[spin, row, : len(states.energies)] = groups.populations(states)
    else:
        solved = eigenvalues(system, k, overlap_threshold=overlap_threshold)
        bands, shares = np.where(np.isfinite(solved), solved, bands), np.ones_like(shares)
    cell = system.atoms.cell.complete()
    for spin, of_spin in enumerate(found):
        at = bands[spin].reshape(*mesh, n_bands)
        of_spin[:] = linear_tetrahedron_integration(cell, at, grid, shares[spin].reshape(*mesh, n_bands, -1))
    return _collection(grid, spin_degeneracy(system) * found, groups)


def _collection(grid: NDArray, found: NDArray, groups: OrbitalGroups) -> GridDOSCollection:
    spins = [{}] if len(found) == 1 else [{"spin": "up"}, {"spin": "down"}]
    infos = [info | spin for spin in spins for info in groups.infos]
    return GridDOSCollection.from_data(grid, found.reshape(-1, len(grid)), infos)


def _checked_grid(energies: ArrayLike) -> NDArray[np.float64]:
    grid = np.asarray(energies, dtype=np.float64)
    if grid.ndim != 1 or len(grid) < 2 or not np.isfinite(grid).all():
        raise ValueError(f"energies: expected two finite numbers or more in a row, got shape {grid.shape}")
    steps = np.diff(grid)
    if not steps.min() > 0 or np.ptp(steps) > 1e-6 * steps.mean():
        raise ValueError("energies: expected an ascending, evenly spaced grid; numpy.linspace makes one")
    return grid
