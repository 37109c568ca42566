"""What are the energies of an LCAO system? H(k) and S(k), eigenvalues, Fermi level, bands."""

from ase_hybridham.solve.bands import BandError, Bands, band_error, band_path, bands
from ase_hybridham.solve.bloch import BlochSum
from ase_hybridham.solve.dense import eigenstates, eigenvalues
from ase_hybridham.solve.dos import density_of_states, tetrahedron_dos
from ase_hybridham.solve.electrons import solve_valences, with_electrons
from ase_hybridham.solve.errorbars import BandErrors, band_errors
from ase_hybridham.solve.fermi import (
    count_electrons,
    default_mesh,
    electrons_of,
    fermi_level,
    filled,
    gamma_mesh,
    k_mesh,
    mesh_density,
    symmetry_of,
)
from ase_hybridham.solve.occupations import find_fermi_level, occupations, smeared_delta, spin_degeneracy
from ase_hybridham.solve.pencil import OVERLAP_THRESHOLD, PREDICTED_THRESHOLD
from ase_hybridham.solve.projection import OrbitalGroups, WeightedBands, fat_bands
from ase_hybridham.solve.states import Eigensolver, States, states_of
from ase_hybridham.solve.unfold import SiteMap, unfold
from ase_hybridham.solve.windowed import Solver, SparseSolver, check_solver, pick_solver

__all__ = [
    "OVERLAP_THRESHOLD",
    "PREDICTED_THRESHOLD",
    "BandError",
    "BandErrors",
    "Bands",
    "BlochSum",
    "Eigensolver",
    "OrbitalGroups",
    "SiteMap",
    "Solver",
    "SparseSolver",
    "States",
    "WeightedBands",
    "band_error",
    "band_errors",
    "band_path",
    "bands",
    "check_solver",
    "count_electrons",
    "default_mesh",
    "density_of_states",
    "eigenstates",
    "eigenvalues",
    "electrons_of",
    "fat_bands",
    "fermi_level",
    "filled",
    "find_fermi_level",
    "gamma_mesh",
    "k_mesh",
    "mesh_density",
    "occupations",
    "pick_solver",
    "smeared_delta",
    "solve_valences",
    "spin_degeneracy",
    "states_of",
    "symmetry_of",
    "tetrahedron_dos",
    "unfold",
    "with_electrons",
]
