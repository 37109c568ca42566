"""hybridham overlap from the basis files of SIESTA and ABACUS, which tell all shells."""

import shutil

import ase.io
import numpy as np
import pytest

from ase_hybridham.io import read_deeph
from ase_hybridham.io.abacus import read_abacus
from ase_hybridham.io.siesta import read_siesta
from tests.io.structures import unpacked


@pytest.fixture
def place(golden, tmp_path, monkeypatch):
    """A folder with samples; the working folder."""
    unpacked(golden / "siesta/Fe", tmp_path / "Fe")
    unpacked(golden / "abacus/GaAs_S", tmp_path / "GaAs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("folder", "read"), [("Fe", lambda: read_siesta("Fe/fe.HSX")), ("GaAs", lambda: read_abacus("GaAs"))]
)
def test_the_files_alone_are_enough(command_line, place, folder, read):
    known = read()
    ase.io.write("some.xyz", known.atoms)
    status, _, err = command_line("overlap", "some.xyz", "--basis-dir", folder, "-o", "s", "--json")
    assert (status, err) == (0, "")
    found = read_deeph("s")
    assert {s: atom.degrees for s, atom in found.basis.atoms.items()} == {
        s: atom.degrees for s, atom in known.basis.atoms.items()
    }
    # S of the program reaches no further than its orbitals; positions have eight decimals
    expected = known.overlap.on_pairs(found.pairs)
    assert np.abs(expected.values).max() > 0.9
    np.testing.assert_allclose(found.overlap.values, expected.values, rtol=0, atol=1e-7)


def test_several_files_of_an_element_need_a_name(command_line, place):
    ase.io.write("some.xyz", read_siesta("Fe/fe.HSX").atoms)
    shutil.copy("Fe/Fe.ion.xml", "Fe/Fe_up.ion.xml")
    status, _, err = command_line("overlap", "some.xyz", "--basis-dir", "Fe", "-o", "s")
    assert status == 2
    assert "Fe.ion.xml and Fe_up.ion.xml are of Fe; name one, as in Fe=Fe.ion" in err
    assert command_line("overlap", "some.xyz", "--basis-dir", "Fe", "--basis", "Fe=Fe.ion", "-o", "s")[0] == 0
