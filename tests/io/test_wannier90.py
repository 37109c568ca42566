"""Wannier90's models: its own interpolated bands, with and without the spread of elements; damaged ones are refused."""

import re
import shutil

import numpy as np
import pytest

from ase_hybridham import solve
from ase_hybridham.cli import main
from ase_hybridham.cli.naming import structures_below
from ase_hybridham.errors import FormatError
from ase_hybridham.io import format_of, read_system
from ase_hybridham.io.wannier90 import read_wannier90
from tests.io.mutations import assert_survives, mutants
from tests.io.structures import eigenvalues, unpacked

TABLE, SPREAD = "silicon_tb.dat", "silicon_wsvec.dat"


@pytest.fixture(scope="module")
def silicon(golden, tmp_path_factory):
    return unpacked(golden / "wannier90", tmp_path_factory.mktemp("wannier90")) / "silicon"


def interpolated(folder):
    """k-points and bands (n_k, n_bands) that Wannier90 wrote."""
    k = np.loadtxt(folder / "silicon_band.kpt", skiprows=1)[:, :3]
    bands = np.loadtxt(folder / "silicon_band.dat")[:, 1].reshape(-1, len(k)).T
    return k, np.sort(bands, axis=1)


def test_bands_are_those_wannier90_interpolated(silicon):
    system = read_system(silicon / TABLE)
    k, bands = interpolated(silicon)
    chosen = np.linspace(0, len(k) - 1, 12).astype(int)
    # k-points have six digits: found 6e-6 eV where the bands are steep
    np.testing.assert_allclose(solve.eigenvalues(system, k[chosen])[0], bands[chosen], rtol=0, atol=2e-5)


def test_the_spread_of_elements_matters_between_the_points_of_the_mesh(silicon, tmp_path):
    shutil.copy(silicon / TABLE, tmp_path)
    plain = read_wannier90(tmp_path / TABLE)
    k, bands = interpolated(silicon)
    on_mesh = np.flatnonzero((np.abs(4 * k - np.round(4 * k)) < 1e-9).all(axis=1))
    for row in on_mesh[:3]:
        np.testing.assert_allclose(eigenvalues(plain, k[row]), bands[row], atol=1e-6)
    off = max(np.abs(eigenvalues(plain, k[row]) - bands[row]).max() for row in range(0, len(k), 40))
    assert off > 1e-3
    # the nearest of equivalent R are taken; with m and n exchanged they would not be nearest
    nearest = read_wannier90(silicon / TABLE).pairs.distances
    assert nearest.max() < plain.pairs.distances.max() - 0.1


def test_functions_are_nameless_sites_at_their_centers(silicon):
    system = read_wannier90(silicon / TABLE)
    assert system.basis.orthogonal
    assert system.overlap is None
    assert set(system.atoms.symbols) == {"X"}
    # silicon_centres.xyz
    np.testing.assert_allclose(system.atoms.positions[0], [-0.15143218, 0.15143215, 0.15143215], atol=1e-7)
    assert system.hamiltonian[0].hermiticity_error() < 1e-7


def test_commands_draw_bands_but_no_data_set_takes_the_model(silicon, tmp_path, capsys):
    assert main(["bands", str(silicon / TABLE), "--valence", "X=2", "-o", str(tmp_path / "bands.png")]) == 0
    assert "4 bands" in capsys.readouterr().out
    assert main(["convert", str(silicon / TABLE), "-o", str(tmp_path / "a.h5")]) == 2
    assert "no elements" in capsys.readouterr().err


def test_which_file_is_recognised(silicon, tmp_path):
    assert format_of(silicon / TABLE).name == "wannier90"
    assert format_of(silicon / SPREAD) is None
    (tmp_path / "silicon_hr.dat").write_text("x")
    assert format_of(tmp_path / "silicon_hr.dat").name == "wannier90"
    with pytest.raises(FormatError, match="write_tb = true"):
        read_system(tmp_path / "silicon_hr.dat")
    shutil.copy(silicon / TABLE, tmp_path)
    assert structures_below(tmp_path) == [tmp_path / TABLE]
    assert len(read_system(tmp_path / "silicon_hr.dat").atoms) == 4


BROKEN = {
    "functions": (
        TABLE,
        lambda t: t.replace("\n           4\n", "\n   900000000\n", 1),
        "expected .* numbers for 900000000",
    ),
    "shifts": (TABLE, lambda t: t.replace("\n          93\n", "\n          92\n", 1), "for 4 functions and 92 R"),
    "nan": (TABLE, lambda t: re.sub(r"0\.\d{8}E-02", "nan", t, count=1), "finite"),
    "complex": (TABLE, lambda t: re.sub(r"(\n    1    1 +\S+E\S+ +)\S+", r"\1 0.5", t, count=1), "complex"),
    "word": (TABLE, lambda t: t + "end\n", "expected numbers"),
    "flat": (TABLE, lambda t: re.sub(r"(\n)(.*\n)(.*\n)", r"\1\2\2", t, count=1), "independent lattice vectors"),
    "spread": (SPREAD, lambda t: t[: len(t) // 2].rsplit("\n", 8)[0] + "\n", "expected"),
    "spread R": (
        SPREAD,
        lambda t: t.replace("   -3    1    1    1    1\n", "   -9    1    1    1    1\n", 1),
        "entry 1",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_named(silicon, tmp_path, case):
    name, change, message = BROKEN[case]
    for each in (TABLE, SPREAD):
        shutil.copy(silicon / each, tmp_path)
    text = (tmp_path / name).read_text()
    (tmp_path / name).write_text(change(text))
    assert (tmp_path / name).read_text() != text
    with pytest.raises(FormatError, match=message) as error:
        read_wannier90(tmp_path / TABLE)
    assert name in str(error.value)


@pytest.mark.parametrize("name", [TABLE, SPREAD])
def test_damage_is_noticed(silicon, tmp_path, name):
    for each in (TABLE, SPREAD):
        shutil.copy(silicon / each, tmp_path)
    original = read_wannier90(silicon / TABLE)
    n_refused = 0
    for damage, content in mutants((silicon / name).read_bytes(), 100):
        (tmp_path / name).write_bytes(content)

        def read(_):
            return read_wannier90(tmp_path / TABLE)

        def asymmetric(system):
            return system.hamiltonian[0].hermiticity_error() > 1e-6

        path = tmp_path / name
        n_refused += assert_survives(read, damage, path, original, asymmetric)
    assert n_refused > 50
