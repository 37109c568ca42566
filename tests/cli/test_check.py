"""hybridham check: exit status, the table of one structure, the summary of many, JSON."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ase_hybridham.cli import main
from ase_hybridham.io import read_deeph
from ase_hybridham.store import append_systems
from tests.io.pao_files import pao_folder
from tests.overlap.radial_data import openmx_basis


@pytest.fixture
def mixed(golden: Path, tmp_path: Path) -> Path:
    """A data set of a right structure and one whose Fermi level is in hartree."""
    right = read_deeph(golden / "openmx/graphene/deeph")
    wrong = replace(right, fermi_level=right.fermi_level - 30.0)
    append_systems(tmp_path / "mixed.h5", [("right", right), ("wrong", wrong)])
    return tmp_path / "mixed.h5"


def test_one_structure_gets_a_table(golden, capsys):
    assert main(["check", str(golden / "openmx/graphene/deeph"), "--valence", "C=4"]) == 0
    printed = capsys.readouterr().out
    assert "C2, spin none, 26 orbitals: ok" in printed
    assert "S covariance" in printed
    assert "8.00 states below the stored Fermi level, 8 electrons" in printed


def test_many_structures_get_a_summary_and_one_that_fails_makes_status_1(mixed, capsys):
    assert main(["check", str(mixed)]) == 1
    printed = capsys.readouterr().out
    assert "2 structures, 1 failed" in printed
    line = next(line for line in printed.splitlines() if line.split()[0] == "electrons")
    assert "failed 1, ok 1; worst wrong:" in line
    assert printed.splitlines()[-1].startswith("wrong: electrons failed")


def test_one_structure_of_a_data_set(mixed, capsys):
    assert main(["check", f"{mixed}:right"]) == 0
    assert main(["check", f"{mixed}:wrong"]) == 1
    assert main(["check", f"{mixed}:absent"]) == 2
    assert "absent" in capsys.readouterr().err


def test_json(mixed, capsys):
    assert main(["check", str(mixed), "--json"]) == 1
    entry = json.loads(capsys.readouterr().out)
    assert entry["failed"] == ["wrong"]
    assert not entry["unreadable"]
    findings = {finding["name"]: finding for finding in entry["structures"]["wrong"]["findings"]}
    assert findings["electrons"]["verdict"] == "failed"
    assert set(entry["structures"]["right"]) == {"verdict", "findings", "overlap"}


def test_all_tables(mixed, capsys):
    assert main(["check", str(mixed), "--all"]) == 1
    assert capsys.readouterr().out.count("spin none, 26 orbitals") == 2


def test_a_tree_with_a_broken_structure(golden, tmp_path, capsys):
    for name in ("a", "b"):
        shutil.copytree(golden / "openmx/graphene/deeph", tmp_path / "tree" / name)
    (tmp_path / "tree/b/hamiltonians.h5").write_bytes(b"broken")
    assert main(["check", str(tmp_path / "tree")]) == 1
    printed = capsys.readouterr().out
    assert "2 structures, 1 failed" in printed
    assert "b: cannot be read" in printed


@pytest.mark.parametrize("content", ["nothing", "broken"])
def test_bad_input_is_status_2(tmp_path, capsys, content, golden):
    path = tmp_path / "there"
    if content == "broken":
        shutil.copytree(golden / "openmx/graphene/deeph", path)
        (path / "overlaps.h5").write_bytes(b"broken")
    assert main(["check", str(path)]) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert len(error.strip().splitlines()) == 1


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> str:
    """Basis files of C and H: those of the samples, and in other/ some of the same names with other functions."""
    folder = pao_folder(tmp_path_factory.mktemp("pao"), "C", "H", "O")
    (folder / "other").mkdir()
    functions = (folder / "O6.0.pao").read_text().replace("AtomSpecies   8", "AtomSpecies   6")
    (folder / "other/C6.0.pao").write_text(functions)
    return str(folder)


def test_s_is_compared_with_the_integrals_of_basis_files(golden, files, capsys):
    for source in ("graphene/openmx.scfout.gz", "graphene/deeph", "CH4_molecule", "H2O_across_boundary/deeph"):
        assert main(["check", str(golden / "openmx" / source), "--basis-dir", files, "--json"]) == 0
        entry = json.loads(capsys.readouterr().out)
        assert 1e-12 < entry["overlap"]["max_abs_error"] < 1e-9
        assert 1e-4 < entry["overlap"]["min_eigenvalue"] < 0.1
        (structure,) = entry["structures"].values()
        assert structure["overlap"] == entry["overlap"]


def test_wrong_functions_fail_and_are_named(golden, files, capsys):
    words = ["check", str(golden / "openmx/graphene/deeph"), "--basis-dir", f"{files}/other"]
    assert main([*words, "--basis", "C=C6.0-s2p2d1"]) == 1
    assert "the radial functions of C are not those of the calculation" in capsys.readouterr().out
    assert main([*words, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["overlap"]["max_abs_error"] > 0.1


def test_of_several_structures_the_figures_are_the_worst(golden, files, tmp_path, capsys):
    right = read_deeph(golden / "openmx/graphene/deeph")
    wrong = replace(right, overlap=1.001 * right.overlap)
    append_systems(tmp_path / "data.h5", [("right", right), ("wrong", wrong)])
    assert main(["check", str(tmp_path / "data.h5"), "--basis-dir", files, "--json"]) == 1
    entry = json.loads(capsys.readouterr().out)
    errors = {name: entry["structures"][name]["overlap"]["max_abs_error"] for name in ("right", "wrong")}
    assert errors["right"] < 1e-8
    assert entry["overlap"]["max_abs_error"] == errors["wrong"] == pytest.approx(1e-3, rel=1e-3)
    assert main(["check", f"{tmp_path}/data.h5:right", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["overlap"]["max_abs_error"] is None  # no functions


def test_a_data_set_with_radial_functions_needs_no_files(golden, tmp_path, capsys):
    system = read_deeph(golden / "openmx/graphene/deeph")
    basis = openmx_basis("C")
    system = replace(
        system, hamiltonian=(replace(system.hamiltonian[0], basis=basis),), overlap=replace(system.overlap, basis=basis)
    )
    append_systems(tmp_path / "data.h5", [("a", system)])
    assert main(["check", str(tmp_path / "data.h5"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["overlap"]["max_abs_error"] < 1e-8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--basis-dir", "nowhere"], "nowhere: expected a folder of basis files"),
        (["--basis", "C=C6.0-s2p2d1"], "give --basis-dir DIR too"),
        (["--basis-dir", "FILES", "--basis", "C"], "expected a word like C=C6.0-s2p2d1"),
        (["--basis-dir", "FILES", "--basis", "C=C5.0-s2p2d1"], "expected the file of C5.0-s2p2d1, got only C6.0.pao"),
        (["--basis-dir", "FILES", "--basis", "C=C6.0-s2p2"], "the shells of C are s2p2d1, C6.0-s2p2 has others"),
    ],
)
def test_basis_files_that_do_not_help_are_one_line(golden, files, capsys, words, message):
    words = [files if word == "FILES" else word for word in words]
    assert main(["check", str(golden / "openmx/graphene/deeph"), *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
