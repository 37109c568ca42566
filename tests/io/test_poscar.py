"""POSCAR as VASP writes it: scales, order of atoms and coordinates outside the cell stay what they are."""

import numpy as np
import pytest
from ase import Atoms

from ase_hybridham.errors import FormatError
from ase_hybridham.io.poscar import format_poscar, parse_poscar
from tests.conftest import random_atoms

PLAIN = """comment
{scale}
 3.0 0.1 0.0
 0.0 4.0 0.2
 0.0 0.0 5.0
S Mo S
1 1 1
{mode}
 0.1 -0.2 0.3{flags}
 1.2 0.5 0.6{flags} Mo
 0.0 0.0 -1.5{flags} S
"""
CELL = np.array([[3.0, 0.1, 0.0], [0.0, 4.0, 0.2], [0.0, 0.0, 5.0]])
ROWS = np.array([[0.1, -0.2, 0.3], [1.2, 0.5, 0.6], [0.0, 0.0, -1.5]])


def text(scale: str = "1.0", mode: str = "Direct", flags: str = "") -> str:
    return PLAIN.format(scale=scale, mode=mode, flags=flags)


@pytest.mark.parametrize("seed", range(5))
def test_written_then_read_is_the_same(seed):
    atoms = random_atoms(seed, 7)
    again = parse_poscar("x", format_poscar(atoms, "some words"))
    np.testing.assert_array_equal(again.positions, atoms.positions)
    np.testing.assert_array_equal(again.cell.array, atoms.cell.array)
    np.testing.assert_array_equal(again.numbers, atoms.numbers)
    assert again.pbc.all()


def test_elements_are_grouped_where_they_follow_each_other():
    atoms = Atoms("CCHCO", np.zeros((5, 3)), cell=np.eye(3))
    assert format_poscar(atoms, "x").splitlines()[5:7] == ["C  H  C  O", "2  1  1  1"]


@pytest.mark.parametrize(
    ("scale", "factor"),
    [
        ("1.0", [1, 1, 1]),
        ("2.5", [2.5, 2.5, 2.5]),
        ("1.5 ! a comment of words", [1.5, 1.5, 1.5]),
        ("1.1 1.2 1.3", [1.1, 1.2, 1.3]),
        ("-480", [2, 2, 2]),  # the volume, eight times that of CELL
    ],
)
@pytest.mark.parametrize("mode", ["Direct", "Cartesian"])
def test_scales(scale, factor, mode):
    atoms = parse_poscar("x", text(scale, mode))
    expected = ROWS @ CELL if mode == "Direct" else ROWS
    # VASP multiplies x, y and z of vectors and of Cartesian coordinates
    np.testing.assert_allclose(atoms.cell.array, CELL * factor, rtol=1e-14)
    np.testing.assert_allclose(atoms.positions, expected * factor, rtol=1e-14, atol=1e-14)
    assert atoms.get_chemical_symbols() == ["S", "Mo", "S"]


def test_selective_dynamics_and_what_follows_are_no_positions():
    lines = text(mode="Selective dynamics\nkartesian", flags=" T F T") + "\n 0.1 0.1 0.1\n"
    np.testing.assert_array_equal(parse_poscar("x", lines).positions, ROWS)


def test_names_of_potentials_are_no_part_of_an_element():
    assert parse_poscar("x", text().replace("S Mo S", "S_h Mo_pv/abc S")).get_chemical_symbols() == ["S", "Mo", "S"]


BROKEN = {
    "empty": ("", "at least 8 lines"),
    "scale": (text("zero"), "line 2: expected a finite number"),
    "scale 0": (text("0"), "line 2: expected one scale or three"),
    "scale nan": (text("nan"), "line 2: expected a finite number"),
    "negative of three": (text("1 1 -1"), "line 2: expected one scale or three"),
    "short vector": (text().replace(" 0.0 4.0 0.2", " 0.0 4.0"), "line 4: expected 3 finite numbers"),
    "flat": (text().replace(" 0.0 0.0 5.0", " 0.0 0.0 0.0"), "independent lattice vectors"),
    "flat by volume": (text("-1").replace(" 0.0 0.0 5.0", " 0.0 0.0 0.0"), "linearly dependent"),
    "no elements (VASP 4)": (text().replace("S Mo S\n", ""), "line 6: expected chemical symbols"),
    "unknown element": (text().replace("S Mo S", "S Xx S"), "line 6: expected chemical symbols"),
    "counts": (text().replace("1 1 1", "1 1"), "line 7: expected 3 numbers of atoms"),
    "count 0": (text().replace("1 1 1", "1 0 2"), "line 7: expected 3 numbers of atoms"),
    "huge count": (text().replace("1 1 1", "1 1 999999999"), "expected 1000000001 positions"),
    "mode": (text(mode="Polar"), "line 8: expected Direct or Cartesian"),
    "few positions": (text().replace("1 1 1", "1 1 2"), "expected 4 positions after line 8, got 3"),
    "position": (text().replace("1.2 0.5", "1.2 x"), "line 10: expected 3 finite numbers"),
    "infinite position": (text().replace("1.2 0.5", "1.2 inf"), "line 10: expected 3 finite numbers"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_lines_are_named(case):
    content, message = BROKEN[case]
    with pytest.raises(FormatError, match=message) as caught:
        parse_poscar("some/POSCAR", content)
    assert str(caught.value).startswith("some/POSCAR: ")
    assert "\n" not in str(caught.value)
