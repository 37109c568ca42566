"""Who runs DFT? Engines: atoms in, H(R) and S(R) out."""

from ase_hybridham.scf.engine import Engine
from ase_hybridham.scf.gpaw import GPAWEngine
from ase_hybridham.scf.openmx import OpenMXEngine
from ase_hybridham.scf.pyscf import PySCFEngine

__all__ = ["Engine", "GPAWEngine", "OpenMXEngine", "PySCFEngine"]
