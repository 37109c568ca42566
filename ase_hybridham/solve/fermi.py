"""Fermi level, electron counts and the meshes they are summed on."""

import numpy as np
from ase import Atoms
from ase.calculators.calculator import kpts2sizeandoffsets
from ase.dft.kpoints import monkhorst_pack
from numpy.typing import ArrayLike, NDArray

from ase_hybridham.solve.bloch import check_k_points
from ase_hybridham.solve.counting import counted_energies, counted_fermi_level
from ase_hybridham.solve.occupations import WIDTH, Smearing, find_fermi_level, occupations, spin_degeneracy
from ase_hybridham.solve.pencil import OVERLAP_THRESHOLD
from ase_hybridham.solve.windowed import Solver, SparseSolver, energies_of, pick_solver
from ase_hybridham.system import LCAOSystem

__all__ = [
    "count_electrons",
    "default_mesh",
    "electrons_of",
    "fermi_level",
    "filled",
    "gamma_mesh",
    "k_mesh",
    "mesh_density",
    "mesh_or_given",
    "symmetry_of",
]

# Orbitals -> k-points per 1/angstrom. Where the bands of a semimetal touch, a coarse mesh sees a gap and its middle: 5
# (15 x 15 for graphene) was up to 60 meV off for bilayers, 16 about 10 meV. One density for a cell and its repetitions
# gives meshes that fold onto each other, as long as LAPACK takes seconds.
MESH_DENSITIES = ((400, 16.0), (1000, 8.0))
MESH_DENSITY = 5.0  # of still more orbitals
# From so many points on, a mesh of a hexagonal cell comes near K, where bands touch; below it holds K. The level of a
# bilayer twisted by 9.4 degrees (148 atoms) was 77 meV off with Gamma alone, 11 with 2 x 2 points, 1e-5 with 3 x 3.
FINE = 6


def k_mesh(
    atoms: Atoms,
    size: ArrayLike | None = None,
    *,
    density: float = MESH_DENSITY,
    corners: bool = False,
    time_reversal: bool = True,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A Monkhorst-Pack mesh that contains Gamma.

    Parameters
    ----------
    atoms : ase.Atoms
        One point along an axis that is not periodic.
    size : array of int, shape (3,), optional
        Points along each axis; by default from `density`.
    density : float
        Points per 1/angstrom (2 pi included, as in ASE).
    corners : bool
        Make coarse meshes of a density finer until they hold the corners K of the zone of a hexagonal cell.
    time_reversal : bool
        Keep one of k and -k, with the weight of both.

    Returns
    -------
    k_points, weights : arrays, shapes (n_k, 3) and (n_k,)
        Fractional; the weights sum to 1.
    """
    if size is None:
        if not (np.isfinite(density) and density > 0):
            raise ValueError(f"k-points: expected a density > 0 per 1/angstrom, got {density}")
        mesh, _ = kpts2sizeandoffsets(density=density, gamma=True, atoms=atoms)
        mesh = _with_corners(np.array(mesh), atoms) if corners else mesh
    else:
        mesh = np.asarray(size)
        if mesh.shape != (3,) or (mesh < 1).any() or (mesh != np.rint(mesh)).any():
            raise ValueError(f"k-points: expected three positive integers, got {size}")
    return gamma_mesh(mesh, time_reversal=time_reversal)


def _with_corners(mesh: NDArray[np.int64], atoms: Atoms) -> NDArray[np.int64]:
    lengths, angles = atoms.cell.complete().lengths(), atoms.cell.complete().angles()
    for a, b, angle in ((0, 1, angles[2]), (1, 2, angles[0]), (2, 0, angles[1])):
        hexagonal = np.isclose(lengths[a], lengths[b], rtol=0.01) and min(abs(angle - 60), abs(angle - 120)) < 1
        if hexagonal and atoms.pbc[a] and atoms.pbc[b] and mesh[a] < FINE:
            mesh[[a, b]] = 3 * -(-mesh[a] // 3)
    return mesh


def gamma_mesh(size: ArrayLike, *, time_reversal: bool = True) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mesh of `k_mesh` for numbers of points along the axes, shape (3,)."""
    mesh = np.asarray(size, dtype=np.int64)
    k_points = monkhorst_pack(mesh) + np.where(mesh % 2, 0.0, 0.5 / mesh)
    if not time_reversal:
        return k_points, np.full(len(k_points), 1 / len(k_points))
    # integer coordinates of k and -k on the mesh; the smaller of the two numbers stands for both
    grid = np.rint(k_points * mesh).astype(np.int64)
    number, opposite = (np.ravel_multi_index(tuple((sign * grid % mesh).T), tuple(mesh)) for sign in (1, -1))
    keep = number <= opposite
    weights = np.where(number == opposite, 1.0, 2.0)[keep]
    return k_points[keep], weights / weights.sum()


def mesh_density(n_orbitals: int) -> float:
    """Default density of the mesh of a system with so many orbitals, points per 1/angstrom."""
    return next((density for limit, density in MESH_DENSITIES if n_orbitals <= limit), MESH_DENSITY)


def electrons_of(system: LCAOSystem, electrons: float | None = None) -> float:
    """Valence electrons in the cell: as given, of the system, or of its neutral atoms.

    Raises
    ------
    ValueError
        If none of the three is known.
    """
    found = electrons if electrons is not None else system.electrons
    if found is None:
        found = system.basis.electrons(system.atoms.get_atomic_numbers())
    if found is None:
        unknown = sorted(symbol for symbol, atom in system.basis.atoms.items() if atom.valence is None)
        raise ValueError(f"electrons: the valence of {', '.join(unknown)} is unknown; give it, e.g. C=4")
    return float(found)


def fermi_level(
    system: LCAOSystem,
    k_points: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    *,
    electrons: float | None = None,
    density: float | None = None,
    width: float = WIDTH,
    smearing: Smearing = "fermi-dirac",
    solver: Solver = "auto",
    overlap_threshold: float = OVERLAP_THRESHOLD,
) -> float:
    """Fermi level in eV from the electron count; the middle of the gap for an insulator.

    Parameters
    ----------
    system : LCAOSystem
    k_points, weights : arrays, shapes (n_k, 3) and (n_k,), optional
        By default the mesh of `k_mesh` at `density`; weights default to equal ones.
    density : float, optional
        By default `mesh_density` of the system's orbitals.
    electrons : float, optional
        By default what `electrons_of` finds.
    width, smearing
        As in `occupations`.
    solver : Solver
        See `pick_solver`; of a `SparseSolver` counts tell how many states lie below those it finds.
    overlap_threshold : float
        As in `eigenvalues`.

    Raises
    ------
    ValueError
        If the electrons are unknown or do not fit the bands.
    OverlapError
        As `eigenvalues`.
    """
    count = electrons_of(system, electrons)
    k, w = mesh_or_given(system, k_points, weights, density)
    return filled(system, k, w, count, solver, width=width, smearing=smearing, overlap_threshold=overlap_threshold)[2]


def filled(
    system: LCAOSystem,
    k_points: NDArray,
    weights: NDArray,
    electrons: float,
    solver: Solver = "auto",
    *,
    width: float = WIDTH,
    smearing: Smearing = "fermi-dirac",
    overlap_threshold: float = OVERLAP_THRESHOLD,
) -> tuple[NDArray[np.float64], int, float]:
    """Energies (n_spins, n_k, n_bands), number of the first band, and the level in eV up to which they are filled.

    Arguments and errors as `fermi_level`.
    """
    picked = pick_solver(system, solver, overlap_threshold)
    if isinstance(picked, SparseSolver):
        return counted_fermi_level(picked, system, k_points, weights, electrons, width=width, smearing=smearing)
    energies, first = energies_of(system, k_points, picked, overlap_threshold=overlap_threshold)
    degeneracy = spin_degeneracy(system)
    rest = electrons - degeneracy * len(energies) * first
    return energies, first, find_fermi_level(energies, weights, rest, degeneracy, width=width, smearing=smearing)


def count_electrons(
    system: LCAOSystem,
    level: float | None = None,
    k_points: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    *,
    density: float | None = None,
    width: float = WIDTH,
    smearing: Smearing = "fermi-dirac",
    solver: Solver = "auto",
    overlap_threshold: float = OVERLAP_THRESHOLD,
) -> float:
    """Electrons in the cell up to a level in eV, by default the system's own Fermi level; arguments as `fermi_level`.

    Raises
    ------
    ValueError
        If no level is given and the system has none.
    """
    at = system.fermi_level if level is None else level
    if at is None:
        raise ValueError("electrons: cannot be counted, this system has no Fermi level")
    k, w = mesh_or_given(system, k_points, weights, density)
    picked = pick_solver(system, solver, overlap_threshold)
    if isinstance(picked, SparseSolver):
        energies, first = counted_energies(picked, system, k, at, width=width)
    else:
        energies, first = energies_of(system, k, picked, overlap_threshold=overlap_threshold)
    filling = float(np.einsum("skn,k->", occupations(energies, at, width=width, smearing=smearing), w))
    return spin_degeneracy(system) * (filling + len(energies) * first)


def default_mesh(system: LCAOSystem) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """k-points and weights of a system if nobody asks for others: `mesh_density`, with the corners of the zone."""
    return k_mesh(system.atoms, density=mesh_density(system.n_orbitals), corners=True, **symmetry_of(system))


def symmetry_of(system: LCAOSystem) -> dict[str, bool]:
    """Option of `k_mesh`: only real H(R) promise e(k) = e(-k), a magnetic spinor system does not."""
    return {"time_reversal": system.spin != "spinor"}


def mesh_or_given(
    system: LCAOSystem, k_points: ArrayLike | None, weights: ArrayLike | None, density: float | None
) -> tuple[NDArray, NDArray]:
    """k-points and weights as given, or the default mesh: arguments of `fermi_level`."""
    if k_points is None:
        return default_mesh(system) if density is None else k_mesh(system.atoms, density=density, **symmetry_of(system))
    k = check_k_points(k_points)
    w = np.full(len(k), 1 / len(k)) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (len(k),) or abs(w.sum() - 1) > 1e-6:
        raise ValueError(f"weights: expected {len(k)} numbers with sum 1, got shape {w.shape}, sum {w.sum():g}")
    return k, w
