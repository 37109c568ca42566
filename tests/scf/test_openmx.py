"""The engine that runs OpenMX: its input, its errors, its results.

OpenMX itself runs where the environment variables OPENMX and OPENMX_DFT_DATA_PATH tell where it is. Elsewhere a script
stands in for it: it looks at the input and puts a real .scfout of the same structure in place.
"""

import gzip
import os
import sys
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import CalculatorSetupError, SCFError

from ase_hybridham import cli, solve
from ase_hybridham.io import read_openmx, read_openmx_band
from ase_hybridham.scf import Engine, OpenMXEngine
from ase_hybridham.store import DataSet

STAND_IN = """#!{python}
import pathlib, sys
words = [line.split() for line in open(sys.argv[1])]
values = {{line[0].lower(): line[1:] for line in words if len(line) > 1}}
assert values["hs.fileout"] == ["on"] and values["system.name"] == ["openmx"], values
assert (pathlib.Path(values["data.path"][0]) / "PAO" / "O6.0.pao").exists()
start = words.index(["<Atoms.SpeciesAndCoordinates"]) + 1
atoms = words[start : words.index(["Atoms.SpeciesAndCoordinates>"])]
assert [line[1] for line in atoms] == ["O", "H", "H"] and len(atoms) == int(values["atoms.number"][0])
assert [float(line[5]) + float(line[6]) for line in atoms] == [6, 1, 1], atoms
pathlib.Path("openmx.scfout").write_bytes(pathlib.Path({scfout!r}).read_bytes())
print("The SCF was achieved at MD=   1")
"""


@pytest.fixture
def water(golden: Path) -> Atoms:
    atoms = read_openmx(golden / "openmx/H2O_across_boundary/openmx.scfout.gz").atoms
    assert not atoms.pbc.any()
    return atoms


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """OpenMX's data as far as the engine looks into them."""
    folder = tmp_path / "DFT_DATA19"
    for name in ("PAO", "VPS"):
        (folder / name).mkdir(parents=True)
    for symbol, valence in {"H": 1, "O": 6, "Fe": 14}.items():
        (folder / f"PAO/{symbol}6.0.pao").write_text("text\nradial.cutoff.pao  6.0\n")
        for kind in ("PBE13", "PBE19", "CA19", "PBE19_1s"):
            (folder / f"VPS/{symbol}_{kind}.vps").write_text(f"# x\nvalence.electron   {valence}.0\n")
    return folder


def program(folder: Path, text: str) -> str:
    path = folder / "openmx-program"
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def engine(golden: Path, data: Path, tmp_path: Path) -> OpenMXEngine:
    scfout = tmp_path / "golden.scfout"
    scfout.write_bytes(gzip.decompress((golden / "openmx/H2O_across_boundary/openmx.scfout.gz").read_bytes()))
    command = program(tmp_path, STAND_IN.format(python=sys.executable, scfout=str(scfout)))
    return OpenMXEngine(basis="O6.0-s2p2d1/H6.0-s2p1", command=command, data=str(data))


def lines_of(engine: OpenMXEngine, atoms: Atoms) -> list[str]:
    return engine.input_text(atoms).splitlines()


def test_gives_what_the_program_wrote(engine, water, golden):
    system = engine.run(water)
    expected = read_openmx(golden / "openmx/H2O_across_boundary/openmx.scfout.gz")
    for found, known in zip(system.operators, expected.operators, strict=True):
        np.testing.assert_array_equal(found.values, known.values)
    assert system.electrons == 8
    assert system.atoms == water
    assert system.provenance["engine"] == "openmx"
    assert system.provenance["code"] == "OpenMX 3.9"
    assert isinstance(engine, Engine)


def test_input_of_a_layer(data):
    """Positions as they are, even outside the cell; one k-point across the vacuum."""
    layer = Atoms("OH", [[0.1, -0.2, 3.0], [5.0, 0, 4.0]], cell=[[2.5, 0, 0], [-1, 3, 0], [0, 0, 20]], pbc=(1, 1, 0))
    lines = lines_of(OpenMXEngine(basis="H6.0-s2/O6.0-s1p1", data=str(data), k_length=10), layer)
    assert "scf.Kgrid 4 4 1" in lines  # 2.37 and 3 angstrom high; no multiples of three
    assert "1 O 0.1 -0.2 3 3.00000000 3.00000000" in lines
    assert "-1 3 0" in lines
    assert "H H6.0-s2 H_PBE19" in lines
    assert "O O6.0-s1p1 O_PBE19" in lines
    assert "scf.XcType GGA-PBE" in lines


def test_input_of_spins_and_own_keywords(data, water):
    water.set_initial_magnetic_moments([2.0, 0.5, 0.0])
    engine = OpenMXEngine(
        data=str(data), xc="lda", spin="spinor", spin_orbit=True, keywords={"SCF.maxiter": "7", "scf.Hubbard.U": "on"}
    )
    lines = lines_of(engine, water)
    assert any(line.startswith("1 O ") and "4.00000000 2.00000000 0.0" in line for line in lines)
    assert "scf.SpinPolarization nc" in lines
    assert "scf.SpinOrbit.Coupling on" in lines
    assert "O O6.0-s3p3d2 O_CA19" in lines  # ASE's choice
    assert [line for line in lines if line.lower().startswith("scf.maxiter")] == ["SCF.maxiter 7"]


def test_a_cell_without_height_gets_one(engine, water):
    water.cell = np.zeros((3, 3))
    lines = lines_of(replace(engine, vacuum=21.0), water)
    start = lines.index("<Atoms.UnitVectors") + 1
    cell = np.array([line.split() for line in lines[start : start + 3]], dtype=float)
    np.testing.assert_allclose(cell, 21 * np.eye(3))


def test_basis_is_that_of_the_files(engine):
    basis = engine.basis_for(["O", "H"])
    assert basis["O"].degrees == (0, 0, 1, 1, 2)
    assert basis["O"].valence == 6
    assert basis["H"].cutoff == pytest.approx(6.0 * 0.529177249)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo; echo 'no license today'; exit 3", "status 3: no license today"),
        ("echo done", "without openmx.scfout: done"),
        ("echo ' The SCF was not fully achieved at MD=   1'", "not converged in 200 cycles"),
    ],
)
def test_a_program_that_fails(engine, water, tmp_path, script, message):
    broken = replace(engine, command=program(tmp_path, f"#!/bin/sh\n{script}\n"))
    with pytest.raises(SCFError, match=message):
        broken.run(water)


def test_another_structure_than_asked_for(engine, water):
    water.positions[0] += 0.01
    with pytest.raises(SCFError, match="other atoms"):
        engine.run(water)


def test_without_program_or_data(engine, water, monkeypatch, tmp_path):
    for name in ("OPENMX", "OPENMX_DFT_DATA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CalculatorSetupError, match="no program 'openmx'; install OpenMX"):
        replace(engine, command=None).run(water)
    with pytest.raises(CalculatorSetupError, match="set OPENMX_DFT_DATA_PATH"):
        replace(engine, data=None).run(water)
    with pytest.raises(ValueError, match=r"no pseudopotential Si_PBE\*\.vps"):
        engine.basis_for(["Si"])
    with pytest.raises(ValueError, match=r"X5\.0\.pao|H5\.0\.pao"):
        replace(engine, basis="H5.0-s1").basis_for(["H"])


@pytest.mark.parametrize(
    "wrong", [{"xc": "b3lyp"}, {"spin": "up"}, {"spin_orbit": True}, {"kpts": (1, 2)}, {"vacuum": -1.0}]
)
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
        OpenMXEngine(**wrong)


@pytest.mark.parametrize("change", ["moments", "charges", "empty"])
def test_structures_it_cannot_treat(engine, water, change):
    atoms = Atoms() if change == "empty" else water
    if change == "moments":
        atoms.set_initial_magnetic_moments([1, 0, 0])
    elif change == "charges":
        atoms.set_initial_charges([1, 0, 0])
    with pytest.raises(ValueError, match=r"structure 2 of 2: structure: .*(moments|charges|atom)"):
        engine.for_structures([Atoms("H", cell=np.eye(3) * 20), atoms])


def test_command_line_fills_a_data_set(engine, water, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("OPENMX", engine.command)
    monkeypatch.setenv("OPENMX_DFT_DATA_PATH", engine.data)
    ase.io.write(tmp_path / "water.traj", water)
    words = ["dft", str(tmp_path / "water.traj"), "-o", str(tmp_path / "x.h5"), "--engine", "openmx"]
    assert cli.main([*words, "--basis", engine.basis, "--energy-cutoff", "150"]) == 0
    with DataSet(tmp_path / "x.h5") as stored:
        assert stored["water"].electrons == 8
        assert stored.provenance["engine"]["energy_cutoff"] == 150
    monkeypatch.setenv("OPENMX", "nowhere")
    words[3] = str(tmp_path / "y.h5")
    assert cli.main([*words, "--basis", engine.basis]) == 2
    assert "install OpenMX" in capsys.readouterr().err


@pytest.mark.skipif(
    not (os.environ.get("OPENMX") and os.environ.get("OPENMX_DFT_DATA_PATH")), reason="OpenMX is not installed"
)
@pytest.mark.parametrize("spin", ["none", "spinor"])
def test_openmx_itself(tmp_path, spin):
    """Ten seconds of the real program."""
    engine = OpenMXEngine(
        basis="H6.0-s2p1",
        spin=spin,
        spin_orbit=spin == "spinor",
        energy_cutoff=80,
        kpts=(3, 1, 1),
        conv_tol=1e-6,
        folder=str(tmp_path),
        keywords={"Band.dispersion": "on", "Band.Nkpath": "1", "<Band.kpath": "3 0 0 0 0.5 0.1 0 G M"},
    )
    chain = Atoms("H2", [[0, 0, -0.4], [0.9, 0, 0.3]], cell=[1.9, 8, 8], pbc=(True, False, False))
    if spin == "spinor":
        chain.set_initial_magnetic_moments([0.5, 0.5])
    system = engine.run(chain)
    assert system.spin == spin
    assert system.electrons == 2
    (run,) = tmp_path.glob("run-*")
    reference = read_openmx_band(run / "openmx.Band")
    found = solve.eigenvalues(system, reference.k_points)
    np.testing.assert_allclose(found, reference.eigenvalues, rtol=0, atol=1e-6)
