"""What is S(R) without a DFT run? Two-center integrals of the basis functions."""

from ase_hybridham.overlap.gaussian import overlap_from_basis

__all__ = ["overlap_from_basis"]
