"""hybridham sample: structures on disk, and what they cover."""

import json

import ase.io
import numpy as np
import pytest
from ase.build import graphene

from ase_hybridham.structures import Variation, variations


@pytest.fixture
def crystal(tmp_path):
    atoms = graphene(a=2.46, vacuum=6.0)
    atoms.pbc = (True, True, False)
    ase.io.write(tmp_path / "layer.xyz", atoms)
    return tmp_path / "layer.xyz"


def test_a_file_of_all_or_a_folder_of_files(command_line, crystal, tmp_path):
    words = ("sample", crystal, "-n", 5, "--atoms", 4, 8, "--displacement", 0.05, 0.05, "--strain", 0.02, "--seed", 3)
    assert command_line(*words, "-o", tmp_path / "all.xyz")[0] == 0
    assert command_line(*words, "-o", tmp_path / "folder")[0] == 0
    together = ase.io.read(tmp_path / "all.xyz", ":")
    names = [f"layer-{n:04d}.xyz" for n in range(5)]
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == names
    variation = Variation(atoms=(4, 8), displacement=(0.05, 0.05), strain=0.02)
    expected = [made.atoms for made in variations(ase.io.read(crystal), 5, variation, seed=3)]
    for one, name, atoms in zip(together, names, expected, strict=True):
        for found in (one, ase.io.read(tmp_path / "folder" / name)):
            np.testing.assert_allclose(found.positions, atoms.positions, atol=1e-7)
            np.testing.assert_allclose(found.cell.array, atoms.cell.array, atol=1e-7)
            assert (found.pbc == atoms.pbc).all()


def test_what_is_printed(command_line, crystal, tmp_path):
    words = ("sample", crystal, "-o", tmp_path / "all.xyz", "-n", 6, "--picture", tmp_path / "share.png")
    status, text, _ = command_line(*words)
    assert status == 0
    assert "6 structures, 6 shapes; atoms: 1 of 8" in text
    assert "2.0-2.5" in text
    assert (tmp_path / "share.png").stat().st_size > 1000
    report = json.loads(command_line(*words, "--json")[1])
    assert (report["structures"], report["shapes"], report["rejected"]) == (6, 6, 0)
    assert report["sizes"] == {str(size): 1 for size in (8, 10, 12, 14, 16, 18)}
    assert report["n_displacements"] == 3 * (8 + 10 + 12 + 14 + 16 + 18 - 6)


def test_bad_input_is_one_line_and_status_2(command_line, crystal, tmp_path):
    ase.io.write(tmp_path / "two.xyz", [ase.io.read(crystal)] * 2)
    out = ("-o", tmp_path / "out.xyz")
    for words, message in [
        ((tmp_path / "none.xyz", *out), "none.xyz: no such file"),
        ((tmp_path / "two.xyz", *out), "two.xyz: expected one structure, got 2"),
        ((crystal, "-o", tmp_path / "out.cif"), "out.cif: expected a .xyz file or a folder"),
        ((crystal, *out, "-n", 0), "n: expected a positive number"),
        ((crystal, *out, "--atoms", 9, 9), "atoms: no cell of 9 to 9 is a multiple of the 2 given; allow 10"),
        ((crystal, *out, "--displacement", 0.2, 0.1), "displacement: expected two ascending numbers"),
        ((crystal, *out, "--nearest", 0.99), "atoms too near before anything is varied, C-C 1.42"),
    ]:
        status, text, err = command_line("sample", *words)
        assert (status, text) == (2, ""), message
        assert message in err
        assert err.count("\n") == 1
    assert not (tmp_path / "out.xyz").exists()
