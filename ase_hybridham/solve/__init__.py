"""What are the energies of an LCAO system? H(k) and S(k), eigenvalues, Fermi level, bands."""

from ase_hybridham.solve.bands import BandError, band_error, band_path, bands
from ase_hybridham.solve.bloch import BlochSum
from ase_hybridham.solve.dense import eigenstates, eigenvalues
from ase_hybridham.solve.electrons import solve_valences, with_electrons
from ase_hybridham.solve.fermi import (
    count_electrons,
    electrons_of,
    fermi_level,
    find_fermi_level,
    gamma_mesh,
    k_mesh,
    mesh_density,
    occupations,
    spin_degeneracy,
)
from ase_hybridham.solve.pencil import OVERLAP_THRESHOLD, PREDICTED_THRESHOLD

__all__ = [
    "OVERLAP_THRESHOLD",
    "PREDICTED_THRESHOLD",
    "BandError",
    "BlochSum",
    "band_error",
    "band_path",
    "bands",
    "count_electrons",
    "eigenstates",
    "eigenvalues",
    "electrons_of",
    "fermi_level",
    "find_fermi_level",
    "gamma_mesh",
    "k_mesh",
    "mesh_density",
    "occupations",
    "solve_valences",
    "spin_degeneracy",
    "with_electrons",
]
