"""Real samples with their electrons, read once."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from ase_hybridham.io import read_system
from ase_hybridham.solve import with_electrons
from ase_hybridham.system import LCAOSystem

VALENCE = {"H": 1, "C": 4, "O": 6, "S": 6, "Mo": 14, "Bi": 15}


@pytest.fixture(scope="session")
def sample(golden: Path, golden_bilayers: Path) -> Callable[[str], LCAOSystem]:
    """A golden OpenMX sample by its name, or a bilayer of the set by its number."""

    @cache
    def read(name: str) -> LCAOSystem:
        folder = golden / "openmx" / name
        paths = (folder / "deeph", folder / "openmx.scfout.gz", golden_bilayers / name)
        system = read_system(next(path for path in paths if path.exists()))
        valence = {s: v for s, v in VALENCE.items() if s in system.basis}
        return system if system.electrons is not None else with_electrons(system, valence)

    return read
