"""What is S(R) without a DFT run? Two-center integrals of the basis functions."""

from ase_hybridham.overlap.given import check_overlap
from ase_hybridham.overlap.twocenter import overlap_from_basis

__all__ = ["check_overlap", "overlap_from_basis"]
