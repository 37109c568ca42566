"""hybridham check: exit status, the table of one structure, the summary of many, JSON."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ase_hybridham.cli import main
from ase_hybridham.io import read_deeph
from ase_hybridham.store import append_systems


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
