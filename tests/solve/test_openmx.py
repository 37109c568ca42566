"""H and S of OpenMX give the bands that OpenMX printed, and its electrons at its Fermi level."""

import json

import numpy as np
import pytest

from ase_hybridham.io import read_openmx_band, read_system
from ase_hybridham.solve import SparseSolver, band_error, bands, count_electrons, eigenvalues, fermi_level
from ase_hybridham.solve.multifrontal import Multifrontal
from ase_hybridham.solve.superlu import SuperLU

SAMPLES = [
    "Bi_bismuthene_soc",
    "CH4_molecule",
    "H2O_across_boundary",
    "MoS2_monolayer",
    "bilayer_graphene_AB",
    "graphene",
]


def largest_difference(folder, window=None) -> float:
    system, reference = read_system(folder / "deeph"), read_openmx_band(folder / "openmx.Band")
    error = band_error(
        reference.eigenvalues,
        eigenvalues(system, reference.k_points),
        reference_level=reference.fermi_level,
        predicted_level=system.fermi_level,
        window=window,
    )
    assert error.n_states > 50
    assert np.ptp(reference.eigenvalues) > 10
    return error.max


@pytest.mark.parametrize("sample", SAMPLES)
def test_bands_are_those_openmx_printed(golden, sample):
    # OpenMX's own H is hermitian to 1e-8 eV, and its SCF went on between H and the bands
    assert largest_difference(golden / "openmx" / sample) < 1e-7


@pytest.mark.parametrize("sample", SAMPLES)
def test_electrons_below_its_fermi_level_are_those_openmx_had(golden, sample):
    system = read_system(golden / "openmx" / sample / "deeph")
    electrons = json.loads((golden / "openmx" / sample / "sample.json").read_text())["valence_electrons"]
    # bilayer graphene is a metal and our mesh and temperature are not OpenMX's
    assert count_electrons(system, density=2) == pytest.approx(electrons, abs=5e-3)


@pytest.mark.parametrize("sample", ["graphene", "bilayer_graphene_AB"])
def test_fermi_level_of_a_metal_is_openmxs(golden, sample):
    system = read_system(golden / "openmx" / sample / "deeph")
    level = fermi_level(system, electrons=4 * len(system.atoms), density=3)
    assert level == pytest.approx(system.fermi_level, abs=2e-3)


@pytest.mark.parametrize("sample", ["tbg28", "tbg28d"])
def test_bands_of_twisted_bilayers_are_those_openmx_printed(reference_data, tmp_path, sample):
    import tarfile

    with tarfile.open(reference_data / f"{sample}.tar.xz", "r:xz") as archive:
        archive.extractall(tmp_path, filter="data")
    # float32 data; higher up S is so nearly singular that its rounding shows
    assert largest_difference(tmp_path / sample, window=5) < 1e-5
    system = read_system(tmp_path / sample / "deeph")
    reference = read_openmx_band(tmp_path / sample / "openmx.Band")
    for engine in (Multifrontal, SuperLU):
        solver = SparseSolver(40, center=reference.fermi_level, engine=engine, count=False)
        found = bands(system, reference.k_points[::6], solver=solver)
        theirs = reference.eigenvalues[:, ::6, found.first_band : found.first_band + found.energies.shape[2]]
        there = np.isfinite(found.energies)
        assert there.sum() >= 40 * len(found.path.kpts)
        np.testing.assert_allclose(found.energies[there], theirs[there], atol=1e-5)
