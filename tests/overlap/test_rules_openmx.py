"""OpenMX's rule: its own overlap matrices, to the noise the program adds; its settings."""

import tarfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ase_hybridham.errors import OverlapError
from ase_hybridham.io import read_deeph, read_openmx, read_system
from ase_hybridham.overlap import overlap_from_basis
from ase_hybridham.overlap.rules_openmx import OPENMX, hermite
from ase_hybridham.overlap.twocenter import RadialIntegrals
from ase_hybridham.system import AtomBasis, LCAOSystem, SampledRadial, Shell
from tests.overlap.radial_data import openmx_basis

# Binary files and float64 conversions of them.
GOLDEN = [
    "graphene/openmx.scfout.gz",
    "H2O_across_boundary/openmx.scfout.gz",
    "O2_triplet_collinear/openmx.scfout.gz",
    "O2_triplet_collinear_v38/openmx.scfout.gz",
    "bilayer_graphene_AB/deeph",
    "MoS2_monolayer/deeph",
    "Bi_bismuthene_soc/deeph",
    "CH4_molecule/deeph",
]
RAW = ["Bi_bismuthene_soc", "CH4_molecule", "H2O_across_boundary", "MoS2_monolayer", "O2_triplet_collinear"]
RAW += ["O2_triplet_collinear_v38", "bilayer_graphene_AB", "graphene", "graphene_v38"]
NOISE = 1e-13  # OpenMX adds random numbers up to half of it to every element
ONSITE = 2e-10  # OpenMX takes r = 1e-10 for 0 in the Bessel functions


def errors(system: LCAOSystem, accuracy: float | None) -> tuple[float, float]:
    """Largest differences of S off-site and on-site."""
    basis = openmx_basis(system.basis.atoms)
    overlap = overlap_from_basis(system.atoms, basis, system.pairs, accuracy=accuracy)
    assert np.abs(overlap.values).max() > 0.9
    wrong = np.abs(overlap.values - system.overlap.values)
    blocks = np.maximum.reduceat(wrong, overlap.offsets[:-1])
    onsite = overlap.pairs.distances < 1e-9
    return float(blocks[~onsite].max()), float(blocks[onsite].max())


@pytest.mark.parametrize("sample", GOLDEN)
def test_overlaps_are_those_of_openmx(golden: Path, sample: str):
    system = read_system(golden / "openmx" / sample)
    hopping, onsite = errors(system, 0)
    assert hopping < NOISE
    assert onsite < ONSITE
    hopping, onsite = errors(system, None)
    assert hopping < NOISE + 1e-11  # the default accuracy
    assert onsite < ONSITE


@pytest.mark.parametrize("sample", RAW)
def test_overlaps_are_those_of_all_raw_files(reference_data: Path, sample: str):
    system = read_openmx(reference_data / "raw" / sample / "openmx.scfout.gz")
    for accuracy, allowed in [(0, NOISE), (None, 1.1e-11), (1e-8, 1.1e-8)]:
        hopping, onsite = errors(system, accuracy)
        assert hopping < allowed
        assert onsite < ONSITE


@pytest.mark.parametrize("archive", ["bg", "mg", "mos2", "bi", "tbg28", "tbg28d"])
def test_overlaps_are_those_of_the_sets_within_their_rounding(reference_data: Path, tmp_path: Path, archive: str):
    with tarfile.open(reference_data / f"{archive}.tar.xz", "r:xz") as files:
        members = files.getmembers()
        names = [m.name.removesuffix("/info.json") for m in members if m.name.endswith("/info.json")]
        few = names[:: max(len(names) // 3, 1)]
        files.extractall(tmp_path, [m for m in members if m.name.rpartition("/")[0] in few], filter="data")
    for name in few:
        hopping, onsite = errors(read_deeph(tmp_path / name), None)
        assert hopping < 1e-7  # float32 near 1: 6e-8
        assert onsite < 1.3e-7  # Mo's diagonal is above 1


def test_the_interpolation_of_the_samples_decides(golden: Path):
    """A cubic spline of the same samples, exact integrals: 1e-6 and more from the numbers above."""
    from scipy.interpolate import CubicSpline

    system = read_openmx(golden / "openmx/graphene/openmx.scfout.gz")
    basis = openmx_basis("C")
    fine = np.geomspace(basis["C"].shells[0].radial.mesh[0], 6.0, 4000)

    def smooth(shell: Shell) -> Shell:
        values = CubicSpline(shell.radial.mesh, shell.radial.values)(fine)
        return replace(shell, radial=replace(shell.radial, mesh=fine, values=values))

    other = replace(basis, atoms={"C": replace(basis["C"], shells=tuple(map(smooth, basis["C"].shells)))})
    overlap = overlap_from_basis(system.atoms, other, system.pairs)
    assert 1e-7 < np.abs(overlap.values - system.overlap.values).max() < 1e-5


def test_interpolation_is_exact_for_parabolas():
    mesh = np.sort(np.random.default_rng(0).uniform(0, 3, 12))
    at = np.linspace(mesh[0], mesh[-1], 50)
    parabola = np.polynomial.Polynomial([0.3, -1.2, 0.7])
    np.testing.assert_allclose(hermite(mesh, parabola(mesh), at), parabola(at), atol=1e-13)
    np.testing.assert_array_equal(hermite(mesh, parabola(mesh), np.array([mesh[0] / 2, 4.0])), [parabola(mesh[0]), 0])


def test_the_second_interval_holds_for_the_first():
    mesh = np.sort(np.random.default_rng(1).uniform(0, 3, 12))
    inside = np.linspace(mesh[1], mesh[2], 6)[1:-1]
    cubic = np.polynomial.Polynomial.fit(inside, hermite(mesh, np.sin(3 * mesh), inside), 3)
    at = np.linspace(mesh[0], mesh[1], 5)
    np.testing.assert_allclose(hermite(mesh, np.sin(3 * mesh), at), cubic(at), atol=1e-9)


def with_settings(**settings: float) -> AtomBasis:
    atom = openmx_basis("C")["C"]
    shells = (replace(s, radial=replace(s.radial, settings=tuple(settings.items()))) for s in atom.shells)
    return replace(atom, shells=tuple(shells))


def test_settings_change_the_integrals_as_little_as_they_should():
    distances = np.linspace(0, 11, 12)
    expected = RadialIntegrals.of_atoms(with_settings(), with_settings()).at(distances)
    for settings in ({"k_points": 1800, "radial_points": 1800}, {"energy_cutoff": 1800.0}):
        atom = with_settings(**settings)
        found = RadialIntegrals.of_atoms(atom, atom).at(distances)
        assert 1e-9 < np.abs(found - expected).max() < 1e-7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k_points": 1e9}, "expected k_points of OpenMX's 1DFFT in 10 .. 10000, got 1e\\+09"),
        ({"radial_points": 0}, "expected radial_points of OpenMX's 1DFFT in 10 .. 10000, got 0"),
        ({"k_points": 900.5}, "got 900.5"),
        ({"energy_cutoff": float("nan")}, "got nan"),
        ({"energy_cutoff": -1.0}, "got -1"),
        ({"spacing": 1.0}, "OpenMX's rule has no setting 'spacing', only energy_cutoff"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(settings, message):
    atom = with_settings(**settings)
    with pytest.raises(OverlapError, match=message) as caught:
        RadialIntegrals.of_atoms(atom, atom)
    assert "\n" not in str(caught.value)


def test_transforms_of_an_element_are_computed_once():
    """Every element occurs in as many pairs as there are elements."""
    shells = openmx_basis("Bi")["Bi"].shells
    changed = tuple(replace(s, radial=replace(s.radial, values=s.radial.values * 1.5)) for s in shells)
    degrees = [s.l for s in changed]
    quadrature = OPENMX.quadrature(changed, 10.0)
    start = time.perf_counter()
    first = OPENMX.transform(changed, degrees, 0, quadrature)
    middle = time.perf_counter()
    second = OPENMX.transform(changed, degrees, 0, quadrature)
    end = time.perf_counter()
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, 1.5 * OPENMX.transform(shells, degrees, 0, quadrature), rtol=0, atol=1e-13)
    assert end - middle < 0.5 * (middle - start)


def test_the_shell_of_a_short_mesh_is_integrated():
    """Four samples, the least there may be."""
    radial = SampledRadial([0.1, 1.0, 2.0, 3.0], [1.0, 0.5, 0.1, 0.0], 3.0, "openmx", 0.529177249)
    atom = AtomBasis("H", (Shell(0, radial=radial),))
    (value,), (beyond,) = RadialIntegrals.of_atoms(atom, atom).at(np.array([0.0, 6.01]))
    r = np.linspace(0.1, 3.5, 100_001)
    assert value == pytest.approx(np.trapezoid(hermite(radial.mesh, radial.values, r) ** 2 * r**2, r), rel=1e-3)
    assert beyond == 0
