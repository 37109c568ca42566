"""How do orbitals and blocks turn? Harmonics, Wigner matrices, coupling, spinors, rotation of systems."""

from ase_hybridham.symmetry.collinear import CollinearDirectSum
from ase_hybridham.symmetry.coupling import DirectSum, Part, clebsch_gordan, polar_coupling
from ase_hybridham.symmetry.generators import orbital_generators, rotation_generators
from ase_hybridham.symmetry.harmonics import spherical_harmonics
from ase_hybridham.symmetry.rotation import orbital_rotation, rotate_blocks, rotate_system
from ase_hybridham.symmetry.spinor import (
    MagneticDirectSum,
    SpinorDirectSum,
    SpinorPart,
    quaternion_from_spinor,
    spin_rotation,
    spinor_from_quaternion,
    time_reversal_error,
)
from ase_hybridham.symmetry.wigner import alignment_matrices, reverse_sign, wigner_D

AnyDirectSum = DirectSum | CollinearDirectSum | SpinorDirectSum | MagneticDirectSum

__all__ = [
    "AnyDirectSum",
    "CollinearDirectSum",
    "DirectSum",
    "MagneticDirectSum",
    "Part",
    "SpinorDirectSum",
    "SpinorPart",
    "alignment_matrices",
    "clebsch_gordan",
    "orbital_generators",
    "orbital_rotation",
    "polar_coupling",
    "quaternion_from_spinor",
    "reverse_sign",
    "rotate_blocks",
    "rotate_system",
    "rotation_generators",
    "spherical_harmonics",
    "spin_rotation",
    "spinor_from_quaternion",
    "time_reversal_error",
    "wigner_D",
]
