"""What is an LCAO operator made of? Bases, pairs of atoms, blocks over pairs, and the system that holds them."""

from ase_hybridham.system.basis import AtomBasis, Basis, Shell
from ase_hybridham.system.blocks import PairBlocks
from ase_hybridham.system.decay import Decay, DecayRow
from ase_hybridham.system.lcao import LCAOSystem, SpinKind
from ase_hybridham.system.orbital_map import OrbitalMap, OrbitalPanel
from ase_hybridham.system.orbitals import ORBITAL_ORDERS, convert_orbitals, orbital_order
from ase_hybridham.system.pairs import PairList
from ase_hybridham.system.radial import GaussianRadial, Radial, SampledRadial

__all__ = [
    "ORBITAL_ORDERS",
    "AtomBasis",
    "Basis",
    "Decay",
    "DecayRow",
    "GaussianRadial",
    "LCAOSystem",
    "OrbitalMap",
    "OrbitalPanel",
    "PairBlocks",
    "PairList",
    "Radial",
    "SampledRadial",
    "Shell",
    "SpinKind",
    "convert_orbitals",
    "orbital_order",
]
