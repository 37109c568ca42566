"""Errors a user can act on; each message is one line: where: expected, got; what to do."""

__all__ = ["CheckpointError", "FormatError", "HybridHamError", "OverlapError"]


class HybridHamError(Exception):
    """Base of the errors of this package; the command line prints it in one line and exits with 2."""


class FormatError(HybridHamError, ValueError):
    """A file does not hold what its format promises."""


class CheckpointError(HybridHamError, ValueError):
    """A model file is unreadable, or does not fit the atoms or the data it is used with."""


class OverlapError(HybridHamError, ValueError):
    """The overlap matrix is missing, does not fit the Hamiltonian, or is not positive definite."""
