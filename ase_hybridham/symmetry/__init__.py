"""How do orbitals and blocks turn? Harmonics, Wigner matrices, coupling, spinors, rotation of systems."""

from ase_hybridham.symmetry.coupling import DirectSum, Part, clebsch_gordan, polar_coupling
from ase_hybridham.symmetry.harmonics import spherical_harmonics
from ase_hybridham.symmetry.wigner import alignment_matrices, reverse_sign, wigner_D

__all__ = [
    "DirectSum",
    "Part",
    "alignment_matrices",
    "clebsch_gordan",
    "polar_coupling",
    "reverse_sign",
    "spherical_harmonics",
    "wigner_D",
]
