"""Atoms in, electronic structure out, no SCF: a cascaded network predicts the LCAO Hamiltonian."""

from importlib import import_module
from importlib.metadata import version
from typing import Any

__all__ = ["HybridHamCalculator", "__version__"]
__version__ = version("ase-hybridham")


def __getattr__(name: str) -> Any:
    # The calculator pulls in torch (seconds); `hybridham -h` must not wait for it.
    if name == "HybridHamCalculator":
        return import_module("ase_hybridham.calculator").HybridHamCalculator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
