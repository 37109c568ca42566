"""Long cells, where a dissection makes many fronts and LAPACK is still cheap."""

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import graphene_nanoribbon, make_supercell

from ase_hybridham.io import read_system
from ase_hybridham.system import LCAOSystem
from tests.benchmarks.bloch_sum import supercell

GOLDEN = Path(__file__).parents[1] / "golden/openmx"


def repeated(name: str, *times: int) -> LCAOSystem:
    """A supercell of a golden system."""
    system = read_system(GOLDEN / name / "deeph")
    P = np.diag(times)
    atoms = make_supercell(system.atoms, P, order="cell-major", wrap=False)
    *h, s = (supercell(blocks, system.atoms, P) for blocks in system.operators)
    return LCAOSystem(atoms, tuple(blocks.hermitian_part() for blocks in h), s.hermitian_part(), spin=system.spin)


def nanoribbon(length: int) -> Atoms:
    """Carbon, periodic along z only; its atoms in no order."""
    atoms = graphene_nanoribbon(2, length, type="zigzag", sheet=False, vacuum=6.0)
    return atoms[np.random.default_rng(0).permutation(len(atoms))]
