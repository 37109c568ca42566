"""hybridham dft: computing, resuming, failing."""

import json
import runpy
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import graphene

from ase_hybridham import cli
from ase_hybridham.scf import PySCFEngine
from ase_hybridham.store import DataSet

pytest.importorskip("pyscf")

FAST = ["--mesh", 20, 20, 90, "--kpts", 2, 2, 1]


@pytest.fixture
def hybridham(monkeypatch, capsys):
    """Run a command line: status, stdout, stderr."""
    monkeypatch.setattr(cli, "COMMANDS", {"dft": cli.COMMANDS["dft"]})

    def run(*words: object) -> tuple[int, str, str]:
        status = cli.main([str(word) for word in words])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def frames(tmp_path):
    """A file of two structures."""
    structures = []
    for seed in range(2):
        atoms = graphene(a=2.46)
        atoms.pbc, atoms.cell[2] = (True, True, False), [0, 0, 12]
        atoms.rattle(0.03, seed=seed)
        structures.append(atoms)
    ase.io.write(tmp_path / "layer.xyz", structures)
    return tmp_path / "layer.xyz"


def test_zero_of_energy_is_an_option_of_its_own_name(hybridham, frames, tmp_path, capsys):
    with pytest.raises(SystemExit):  # in `bands` this is a file to compare with
        hybridham("dft", frames, "-o", tmp_path / "data.h5", "--reference", "vacuum")
    assert hybridham("dft", frames, "-o", tmp_path / "data.h5", *FAST, "--zero", "cell_average")[0] == 0
    with DataSet(tmp_path / "data.h5") as data:
        assert {data[name].potential_reference for name in data} == {"cell_average"}


def test_frames_become_structures_and_a_second_run_computes_what_is_missing(hybridham, frames, tmp_path):
    out = tmp_path / "data.h5"
    one = tmp_path / "layer-0001.xyz"
    ase.io.write(one, ase.io.read(frames, 1))
    assert hybridham("dft", one, "-o", out, *FAST)[0] == 0
    before = out.stat()
    status, text, _ = hybridham("dft", frames, "-o", out, *FAST, "--split", "train", "--json")
    report = json.loads(text)
    assert status == 0
    assert (report["added"], report["already_there"], report["structures"]) == (1, 1, 2)
    assert report["splits"] == {"train": 2}
    assert report["cpu_s"] > 0
    assert out.stat().st_size > before.st_size
    expected = PySCFEngine(mesh=(20, 20, 90), kpts=(2, 2, 1)).run(ase.io.read(frames, 0))
    with DataSet(out) as data:
        assert data.split("train") == ["layer-0000", "layer-0001"]
        np.testing.assert_array_equal(data["layer-0000"].hamiltonian[0].values, expected.hamiltonian[0].values)
        assert data["layer-0000"].provenance == expected.provenance
        assert data["layer-0000"].fermi_level == expected.fermi_level
    assert "2 were there already" in hybridham("dft", frames, "-o", out, *FAST)[1]


def test_several_processes_give_the_same_data(hybridham, frames, tmp_path):
    for jobs in (1, 2):
        assert hybridham("dft", frames, "-o", tmp_path / f"{jobs}.h5", *FAST, "--jobs", jobs)[0] == 0
    with DataSet(tmp_path / "1.h5") as one, DataSet(tmp_path / "2.h5") as two:
        assert one.content_hash() == two.content_hash()


def test_what_does_not_converge_is_reported_and_the_rest_is_kept(hybridham, frames, tmp_path, monkeypatch):
    run = PySCFEngine.run
    cycles = iter((1, 50))

    def second_only(self, atoms):
        object.__setattr__(self, "max_cycles", next(cycles))
        return run(self, atoms)

    monkeypatch.setattr(PySCFEngine, "run", second_only)
    out = tmp_path / "data.h5"
    status, text, err = hybridham("dft", frames, "-o", out, *FAST, "--json", "--split", "train")
    report = json.loads(text)
    assert status == 1
    assert (report["added"], report["splits"]) == (1, {"train": 1})
    assert "layer-0000: self-consistency: commutator" in err
    assert list(report["failed"]) == ["layer-0000"]


def test_nothing_converged_is_status_1_and_no_data_set(hybridham, frames, tmp_path):
    status, _, err = hybridham("dft", frames, "-o", tmp_path / "data.h5", *FAST, "--max-cycles", 1)
    assert status == 1
    assert err.count("raise max_cycles") == 2
    assert not (tmp_path / "data.h5").exists()


def test_bad_input_is_one_line_and_status_2(hybridham, frames, tmp_path):
    out = tmp_path / "data.h5"
    (tmp_path / "junk.xyz").write_text("3\nnothing\nC 0 0\n")
    (tmp_path / "junk.h5").write_text("not HDF5")
    uranium = ase.io.read(frames, 0)
    uranium.symbols = "UC"
    ase.io.write(tmp_path / "uranium.xyz", uranium)
    same = tmp_path / "same"
    same.mkdir()
    (same / frames.name).write_bytes(frames.read_bytes())
    assert hybridham("dft", frames, "-o", tmp_path / "made.h5", *FAST, "--split", "train")[0] == 0
    for words, message in [
        ((tmp_path / "none.xyz", "-o", out), "none.xyz: no such file"),
        ((tmp_path / "junk.xyz", "-o", out), "junk.xyz: not a structure that ASE reads"),
        ((frames, "-o", tmp_path / "junk.h5"), "junk.h5: not a complete HDF5 file"),
        ((tmp_path / "uranium.xyz", "-o", out), "structure 1 of 1: basis gth-szv-molopt-sr: PySCF has no entry of U"),
        ((frames, same / frames.name, "-o", out), "two structures named layer-0000"),
        ((frames, "-o", out, "--jobs", 0), "--jobs: expected at least 1"),
        ((frames, "-o", out, "--ke", -1), "ke_cutoff: expected a positive number"),
        (
            (frames, "-o", out, "--spacing", 0.2),
            "--spacing: not an option of the engine pyscf, which has --xc, --basis",
        ),
        ((frames, "-o", out, "--engine", "gpaw", "--ke", 100), "--ke: not an option of the engine gpaw"),
        ((frames, "-o", out, "--temperature", 600), "--temperature: not an option of the engine pyscf"),
        ((frames, "-o", out, "--engine", "openmx", "--temperature", 0), "temperature: expected a positive number"),
        ((frames, "-o", tmp_path / "made.h5", "--xc", "pbe"), "was made with xc lda, now pbe"),
        ((frames, "-o", tmp_path / "made.h5", "--split", "val"), "layer-0000 is already in the split train"),
        ((frames, "-o", tmp_path / "new.h5", "--split", "val=1"), "--split val=1: expected the name of one split"),
    ]:
        status, text, err = hybridham("dft", *words)
        assert (status, text) == (2, ""), message
        assert message in err
        assert err.count("\n") == 1
    moved = ase.io.read(frames, ":")
    moved[1].rattle(0.01, seed=5)
    ase.io.write(frames, moved)
    status, _, err = hybridham("dft", frames, "-o", tmp_path / "made.h5", *FAST)
    assert status == 2
    assert "holds another structure named layer-0001" in err


def test_an_engine_that_is_not_installed_is_one_line(hybridham, frames, tmp_path, monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "gpaw"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gpaw", None)
    status, text, err = hybridham("dft", frames, "-o", tmp_path / "data.h5", "--engine", "gpaw")
    assert (status, text) == (2, "")
    assert "engine gpaw: needs GPAW; pip install gpaw" in err
    assert err.count("\n") == 1


def test_gpaw_runs_and_its_data_are_not_mixed_with_others(hybridham, tmp_path):
    pytest.importorskip("gpaw")
    atoms = Atoms("OH", [[0, 0, 0], [0.1, 0.2, 0.95]], magmoms=[1, 0])
    ase.io.write(tmp_path / "radical.traj", atoms)
    words = ("dft", tmp_path / "radical.traj", "-o", tmp_path / "data.h5", "--engine", "gpaw")
    status, text, err = hybridham(*words, "--basis", "sz(dzp)", "--spacing", 0.3, "--spin", "collinear", "--json")
    assert status == 0, err
    assert json.loads(text)["engine"]["basis"] == "sz(dzp)"
    with DataSet(tmp_path / "data.h5") as data:
        assert data["radical"].spin == "collinear"
        assert data["radical"].provenance["checked_band_error_eV"] < 1e-6
    status, _, err = hybridham(*words[:-1], "pyscf")
    assert status == 2
    assert "was made with engine gpaw, now pyscf" in err


def test_the_shipped_data_set_is_what_its_command_makes():
    made = runpy.run_path(str(Path(__file__).parents[2] / "examples/make_demo_data.py"))
    shipped = Path(cli.__file__).parents[1] / "data/demo_graphene.h5"
    assert shipped.stat().st_size < 4e6
    with DataSet(shipped) as data:
        for split, seed, column in (("train", 0, 2), ("val", 1, 3)):
            structures = list(made["structures"](seed, column))
            assert data.split(split) == [f"graphene_{split}-{n:04d}" for n in range(len(structures))]
            for name, atoms in zip(data.split(split), structures, strict=True):
                np.testing.assert_allclose(data.atoms(name).positions, atoms.positions, atol=1e-6)
        first = data["graphene_train-0000"]
        engine = PySCFEngine.from_settings(data.provenance["engine"])
    # another version of PySCF, and a file of 8 decimals and single precision
    again = engine.for_structures([first.atoms])[0].run(first.atoms)
    np.testing.assert_allclose(first.hamiltonian[0].values, again.hamiltonian[0].values, atol=1e-4)
    np.testing.assert_allclose(first.overlap.values, again.overlap.values, atol=1e-6)
    assert first.fermi_level == pytest.approx(again.fermi_level, abs=1e-4)
