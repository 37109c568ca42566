"""What is S(R) without a DFT run? Two-center integrals of the basis functions."""

from ase_hybridham.overlap.assembly import overlap_from_basis, overlap_gradient
from ase_hybridham.overlap.given import check_overlap

__all__ = ["check_overlap", "overlap_from_basis", "overlap_gradient"]
