"""Right data pass every check; each kind of mistake fails one of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.units import Hartree, Rydberg
from scipy.spatial.transform import Rotation

from ase_hybridham.check import check_system
from ase_hybridham.io import read_deeph
from ase_hybridham.solve import with_electrons
from ase_hybridham.symmetry import rotate_system
from ase_hybridham.system import LCAOSystem

VALENCE = {"H": 1, "C": 4, "O": 6, "S": 6, "Mo": 14, "Bi": 15}
SAMPLES = (
    "graphene",
    "bilayer_graphene_AB",
    "MoS2_monolayer",
    "Bi_bismuthene_soc",
    "CH4_molecule",
    "H2O_across_boundary",
)


def sample(golden: Path, name: str) -> LCAOSystem:
    system = read_deeph(golden / "openmx" / name / "deeph")
    return with_electrons(system, {s: v for s, v in VALENCE.items() if s in system.basis})


@pytest.mark.parametrize("name", SAMPLES)
def test_right_data_pass(golden, name):
    report = check_system(sample(golden, name))
    assert report.worst in ("ok", "note"), report.summary()
    assert report["S covariance"].figure < 1e-9


@pytest.mark.parametrize("name", SAMPLES)
def test_right_data_pass_in_any_orientation(golden, name):
    rotation = Rotation.random(rng=np.random.default_rng(3)).as_matrix()
    report = check_system(rotate_system(sample(golden, name), rotation))
    assert report.worst in ("ok", "note"), report.summary()


@pytest.mark.parametrize("unit", [Hartree, Rydberg])
@pytest.mark.parametrize("power", [1, -1])
@pytest.mark.parametrize("name", SAMPLES)
def test_a_wrong_unit_of_energy_is_found(golden, name, unit, power):
    system = sample(golden, name)
    scale = unit**power
    hamiltonian = tuple(h.with_values(scale * h.values) for h in system.hamiltonian)
    both = replace(system, hamiltonian=hamiltonian, fermi_level=scale * system.fermi_level)
    assert check_system(both)["energy unit"].verdict == "failed"
    assert check_system(replace(system, hamiltonian=hamiltonian)).failed
