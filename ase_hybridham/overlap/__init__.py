"""What is S(R) without a DFT run? Two-center integrals of the basis functions."""

from ase_hybridham.overlap.assembly import overlap_from_basis, overlap_gradient
from ase_hybridham.overlap.given import check_overlap
from ase_hybridham.overlap.operators import kinetic_from_basis, momentum_from_basis, position_from_basis

__all__ = [
    "check_overlap",
    "kinetic_from_basis",
    "momentum_from_basis",
    "overlap_from_basis",
    "overlap_gradient",
    "position_from_basis",
]
