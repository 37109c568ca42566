"""hybridham twist: structures on disk, candidates, coverage and status, bad input."""

import json

import ase.io
import numpy as np
import pytest
from ase.build import mx2

from ase_hybridham.structures import twisted_bilayer


def test_indices_write_the_bilayer_in_any_format(command_line, tmp_path):
    for name in ("twist.xyz", "POSCAR", "twist.cif", "twist.json"):
        status, text, _ = command_line("twist", "graphene", "--indices", 1, 2, "-o", tmp_path / name)
        assert status == 0
        assert "28 atoms, 21.787 degrees, cell 6.509 x 6.509 A" in text
        found = ase.io.read(tmp_path / name)
        order = np.argsort(found.positions[:, 2].round(3), kind="stable") if name == "POSCAR" else slice(None)
        np.testing.assert_allclose(found.cell.lengths(), twisted_bilayer(1, 2).cell.lengths(), atol=1e-4)
        assert len(found[order]) == 28
    ours = ase.io.read(tmp_path / "twist.xyz")
    assert ours.pbc.tolist() == [True, True, False]
    np.testing.assert_allclose(
        ours.get_all_distances(mic=True).min(axis=1, where=~np.eye(28, dtype=bool), initial=9), 2.46 / 3**0.5
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["POSCAR", "twist.cif", "twist.json", "twist.xyz"]


def test_an_angle_lists_cells_and_stars_one(command_line, tmp_path):
    words = ("twist", "graphene", "--angle", 5, "--max-atoms", 3000)
    status, text, _ = command_line(*words, "--picture", tmp_path / "top.png")
    assert status == 0
    (starred,) = [line for line in text.splitlines() if line.endswith("*")]
    assert starred.split() == ["1", "508", "5.0858", "0.0858", "0.0000", "*"]
    assert (tmp_path / "top.png").stat().st_size > 1000
    report = json.loads(command_line(*words, "--json")[1])
    assert (report["chosen"], report["atoms"], report["strain"]) == (1, 508, 0)
    assert [row["atoms"] for row in report["candidates"]] == sorted(row["atoms"] for row in report["candidates"])
    other = json.loads(command_line(*words, "--json", "--candidate", 2)[1])
    assert other["atoms"] == report["candidates"][1]["atoms"] > 508
    assert other["strain"] > 0


def test_a_stack_of_two_kinds_with_all_options(command_line, tmp_path):
    ase.io.write(tmp_path / "MoS2.xyz", mx2("MoS2", a=3.16, vacuum=8.0))
    words = ("twist", "graphene", tmp_path / "MoS2.xyz", "--angle", 0, "--strain", 0.04, "--pattern", "AAB")
    more = ("--spacing", 3.35, 3.4, "--shift", 1 / 3, 2 / 3, "--shift", 0, 0, "--share", 0, "--height", 40)
    out = ("-o", tmp_path / "stack.xyz", "--json")
    status, text, _ = command_line(*words, *more, "--deform", 0.01, 0, 0, *out)
    assert status == 0
    stack = ase.io.read(tmp_path / "stack.xyz")
    assert stack.cell[2, 2] == 40
    assert len(stack) == json.loads(text)["atoms"]
    heights = np.unique(stack.positions[:, 2].round(4))
    np.testing.assert_allclose(np.diff(heights)[:2], [3.35, 3.4], atol=1e-4)
    plain = json.loads(command_line(*words, *more, *out)[1])
    assert json.loads(text)["lengths"][0] == pytest.approx(1.01 * plain["lengths"][0], abs=1e-5)


def test_training_structures_cover_what_they_were_made_for(command_line, tmp_path):
    train = tmp_path / "train.xyz"
    status, text, _ = command_line("twist", "graphene", "--indices", 3, 4, "--training", train, "-n", 8)
    assert status == 0
    assert "train.xyz: 8 structures of 8 to" in text
    assert len(ase.io.read(train, ":")) == 8
    picture = ("--picture", tmp_path / "cover.png")
    status, text, _ = command_line("twist", "graphene", "--indices", 3, 4, "--covered-by", train, *picture)
    assert status == 0
    assert "train.xyz: covered; distance to its" in text
    far = ("--spacing", 4.5, "--covered-by", train)
    status, text, _ = command_line("twist", "graphene", "--indices", 3, 4, *far)
    assert status == 1
    assert "NOT covered: a network extrapolates" in text
    report = json.loads(command_line("twist", "graphene", "--indices", 3, 4, *far, "--json")[1])
    assert report["coverage"]["outside"] == 1
    assert report["coverage"]["structures"] == 8


def test_a_data_set_covers_by_its_training_split(command_line, workplace):
    words = ("twist", "graphene", "--indices", 1, 2, "--covered-by", workplace / "data.h5", "--json")
    counts = [
        json.loads(command_line(*words, *more)[1])["coverage"]["structures"] for more in ((), ("--split", "test"))
    ]
    assert counts[0] > counts[1] > 1
    status, _, err = command_line(*words, "--split", "none")
    assert (status, "no split 'none'" in err) == (2, True)


def test_bad_input_is_one_line_and_status_2(command_line, tmp_path):
    (tmp_path / "text.txt").write_text("hello")
    angle, indices = ("--angle", 5), ("--indices", 1, 2)
    for words, message in [
        (("none.xyz", *angle), "none.xyz: no such file"),
        ((tmp_path / "text.txt", *angle), "text.txt: not a structure that ASE reads"),
        (("graphene", "--indices", 2, 1), "expected 0 < m < n without a common divisor, got 2 and 1"),
        (("graphene", "graphene", *indices), "--indices: they are of two equal layers"),
        (("graphene", *indices, "--candidate", 1), "--candidate: of a list of --angle"),
        (("graphene", *angle, "--max-atoms", 600, "--candidate", 9), "--candidate: expected 1 to 1, got 9"),
        (("graphene", *angle, "--max-atoms", 50), "allow more atoms, angle or strain"),
        (("graphene", *indices, "-o", tmp_path / "x.foo"), "x.foo: expected the name of a file that ASE writes"),
        (("graphene", *indices, "--picture", tmp_path / "x.foo"), "x.foo: expected a suffix of"),
        (("graphene", *indices, "--training", tmp_path / "x.cif"), "x.cif: expected a .xyz file"),
        (("graphene", *indices, "--training", tmp_path / "x.xyz", "-n", 1), "n: expected at least 2 structures"),
        (("graphene", *indices, "--covered-by", tmp_path / "no.xyz"), "no.xyz: no such file"),
        (("graphene", *indices, "--split", "train"), "--split: of the data set of --covered-by"),
        (("graphene", *indices, "--pattern", "ABX"), "pattern: expected letters A and B, got 'ABX'"),
        (("graphene", *indices, "--spacing", 3, 4, 5), "spacing: expected one positive number or 1"),
        (("graphene", *indices, "--height", 1), "height: expected more than the 3.35 A"),
    ]:
        status, text, err = command_line("twist", *words)
        assert (status, text) == (2, ""), message
        assert message in err
        assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]
