"""hybridham overlap: S that OpenMX would have computed, in folders that DeepH's tools take."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from ase_hybridham.io import read_deeph, read_system
from ase_hybridham.store import append_systems
from ase_hybridham.system import LCAOSystem
from tests.io.pao_files import pao_folder
from tests.overlap.radial_data import NAMES, openmx_basis

MOS2 = ["--basis-dir", "pao", "--basis", "Mo=Mo7.0-s3p2d2", "S=S7.0-s2p2d1"]


@pytest.fixture
def place(golden, tmp_path, monkeypatch) -> Path:
    """A folder with basis files, `pao`, and links to samples of OpenMX."""
    pao_folder(tmp_path / "pao", "C", "H", "Mo", "S", "Bi")
    for name in ("MoS2_monolayer", "Bi_bismuthene_soc", "graphene"):
        (tmp_path / name).symlink_to(golden / "openmx" / name / "deeph")
    ase.io.write(tmp_path / "mos2.xyz", read_deeph(tmp_path / "MoS2_monolayer").atoms)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def functions_of(system: LCAOSystem) -> LCAOSystem:
    """The same with OpenMX's radial functions in its basis."""
    basis = openmx_basis(system.basis.atoms)
    hamiltonian = tuple(replace(h, basis=basis) for h in system.hamiltonian)
    return replace(system, hamiltonian=hamiltonian, overlap=replace(system.overlap, basis=basis))


def assert_is_openmx(folder: str, sample: str) -> LCAOSystem:
    ours, theirs = read_system(folder), read_deeph(sample)
    assert not ours.hamiltonian
    assert ours.pairs.same_pairs(theirs.pairs)
    assert np.abs(theirs.overlap.values).max() > 0.9  # not 0 = 0
    np.testing.assert_allclose(ours.overlap.values, theirs.overlap.values, rtol=0, atol=1e-8)
    return ours


@pytest.mark.parametrize("form", ["deeph", "deeph-dock"])
def test_basis_files_and_their_names_are_enough(command_line, place, form):
    status, out, err = command_line("overlap", "mos2.xyz", *MOS2, "-o", "s", "--format", form, "--json")
    assert (status, err) == (0, "")
    result = json.loads(out)
    assert (result["atoms"], result["orbitals"], result["pairs"], result["spin"]) == (3, 45, 167, "none")
    assert result["min_eigenvalue"] == pytest.approx(0.0202, abs=1e-3)
    system = assert_is_openmx("s", "MoS2_monolayer")
    assert system.electrons == (26 if form == "deeph-dock" else None)


def test_the_summary_says_what_was_written_where(command_line, place):
    status, out, _ = command_line("overlap", "MoS2_monolayer", *MOS2)
    assert status == 0
    assert "3 atoms, 45 orbitals, 167 pairs up to 7.088 A" in out
    assert "overlap: S (deeph)" in out


def test_a_calculation_tells_shells_and_spin(command_line, place):
    words = ("--from", "Bi_bismuthene_soc", "--basis-dir", "pao")
    assert command_line("overlap", "Bi_bismuthene_soc", *words, "-o", "s")[0] == 0
    assert_is_openmx("s", "Bi_bismuthene_soc")
    assert json.loads(Path("s/info.json").read_text())["isspinful"] is True
    assert command_line("overlap", "mos2.xyz", *MOS2, "--spinor", "-o", "t")[0] == 0
    assert json.loads(Path("t/info.json").read_text())["isspinful"] is True


def test_a_data_set_with_radial_functions_needs_no_files(command_line, place):
    append_systems("data.h5", [("a", functions_of(read_deeph("MoS2_monolayer")))])
    for n, source in enumerate(("data.h5", "data.h5:a")):
        assert command_line("overlap", "mos2.xyz", "--from", source, "-o", n)[0] == 0
        assert_is_openmx(str(n), "MoS2_monolayer")


def test_a_checkpoint_that_lacks_them_takes_those_of_a_folder(command_line, place, workplace):
    shutil.copy(workplace / "run/model.hham", "model.hham")  # C s, p and H s
    ase.io.write("ch4.xyz", Atoms("CH", [[0, 0, 0], [0, 0, 1.1]], cell=[9, 9, 9]))
    status, _, err = command_line("overlap", "ch4.xyz", "--from", "model.hham")
    assert status == 2
    assert "model.hham: has no radial functions; give --basis-dir" in err
    assert command_line("overlap", "ch4.xyz", "--from", "model.hham", "--basis-dir", "pao", "-o", "s")[0] == 0
    written = read_deeph("s")
    assert written.basis["C"].degrees == (0, 1)
    assert 0.1 < np.abs(written.overlap.block(2)).max() < 1


def test_gaussians_need_a_name_only_where_there_are_several(command_line, place):
    water = molecule("H2O", vacuum=3.0)
    ase.io.write("water.xyz", water)
    Path("svp.nw").write_text(
        "H S\n 13.0 0.02\n 1.9 0.14\n 0.44 0.48\nH S\n 0.12 1.0\nO SP\n 5.0 0.4 0.2\n 0.3 0.7 0.9\n"
    )
    assert command_line("overlap", "water.xyz", "--basis-dir", "svp.nw", "-o", "a")[0] == 0
    assert read_deeph("a").basis["H"].degrees == (0, 0)
    written = read_deeph("a")
    assert written.basis["O"].degrees == (0, 1)
    np.testing.assert_allclose(np.diag(written.overlap.block(0)), 1, atol=1e-8)
    names = ["H=small", "O=small"]
    Path("cp2k").write_text(
        "".join(f"{s} {n}\n 1\n 1 0 0 1 1\n {z} 1.0\n" for s in "HO" for n, z in [("small", 1), ("big", 2)])
    )
    assert command_line("overlap", "water.xyz", "--basis-dir", "cp2k", "--basis", *names, "-o", "b")[0] == 0
    status, _, err = command_line("overlap", "water.xyz", "--basis-dir", "cp2k", "-o", "c")
    assert status == 2
    assert "expected one basis of O, got small, big; name one" in err
    status, _, err = command_line(
        "overlap", "water.xyz", "--basis-dir", "cp2k", "--basis", "H=none", "O=none", "-o", "c"
    )
    assert status == 2
    assert "expected a basis none of O, got small, big" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mos2.xyz"], "the basis is not known; give --basis-dir DIR with --basis, or --from SOURCE"),
        (["nothing.xyz", *MOS2], "nothing.xyz: no such file"),
        (["mos2.xyz", "--basis-dir", "nowhere", *MOS2[2:]], "nowhere: expected a folder of basis files"),
        (["mos2.xyz", *MOS2[:4]], "the basis of S is not known; give --basis S=NAME"),
        (["mos2.xyz", "--basis-dir", "pao/C6.0.pao"], "C6.0.pao: expected a basis file of S, got none"),
        (["mos2.xyz", "--basis-dir", "pao", "--basis", "Mo7.0-s3p2d2"], "--basis: expected a word like C=C6.0-s2p2d1"),
        (["mos2.xyz", *MOS2[:3], "Mo=Mo7.0", "S=S7.0-s2p2d1"], "basis of Mo: expected a basis like C6.0-s2p2d1"),
        (["mos2.xyz", *MOS2[2:]], "names a basis in a folder; give --basis-dir DIR too"),
        (["mos2.xyz", *MOS2[:3], "Mo=Mo9.0-s3p2d2", "S=S7.0-s2p2d1"], "expected the file of Mo9.0-s3p2d2"),
        (["mos2.xyz", *MOS2[:3], "Mo=Mo7.0-s9p2d2", "S=S7.0-s2p2d1"], "Mo7.0.pao: expected 9 functions"),
        (["mos2.xyz", "--from", "nothing"], "nothing: no such file"),
        (["mos2.xyz", "--from", "graphene", "--basis-dir", "pao"], "graphene: knows C, mos2.xyz has S"),
        (["mos2.xyz", "--from", "MoS2_monolayer"], "MoS2_monolayer: has no radial functions; give --basis-dir"),
        (["mos2.xyz", *MOS2, "--format", "hdf5"], "--format: expected one of deeph, deeph-dock"),
        (["mos2.xyz", *MOS2, "-o", "mos2.xyz/s"], "mos2.xyz is no folder to write into; choose another -o"),
        (["mos2.xyz", *MOS2, "-o", "pao"], "pao: already there; choose another -o"),
        (["molecule.xyz", *MOS2, "H=H6.0-s2p1", "C=C6.0-s2p2d1"], "need three independent cell vectors"),
        (["two.xyz", *MOS2], "two.xyz: atoms 0 and 3 lie on each other"),
    ],
)
def test_bad_input_is_one_line_and_status_two(command_line, place, words, message):
    ase.io.write("molecule.xyz", molecule("CH4"))
    atoms = ase.io.read("mos2.xyz")
    ase.io.write("two.xyz", atoms + atoms[:1])
    status, out, err = command_line("overlap", *words)
    assert (status, out) == (2, "")
    assert err.startswith("hybridham overlap: ")
    assert message in err
    assert err.count("\n") == 1
    assert not Path("overlap").exists()


def test_the_names_are_those_of_the_golden_functions():
    assert {"Mo": NAMES["Mo"], "S": NAMES["S"]} == dict(word.split("=") for word in MOS2[3:])
