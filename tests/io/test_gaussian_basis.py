"""Gaussian bases from files of CP2K and NWChem: what PySCF reads of them, without running what they say."""

from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule

from ase_hybridham.errors import FormatError
from ase_hybridham.io import attach_radial_functions
from ase_hybridham.io.gaussian_basis import FORMAT, read_gaussian_basis
from ase_hybridham.overlap import overlap_from_basis
from ase_hybridham.scf import gth
from ase_hybridham.system import AtomBasis, Basis
from tests.io.mutations import mutants

# by the rules of the format, no published numbers
CP2K = """\
# two bases of carbon
C  SZV-A SZV-A-q4
 1
 2 0 1 2 1 1
     1.5  0.25  0.5
     0.5  0.75  0.5
C  DZVP-A  DZVP-A-q4   # another
 2
 2 0 1 3 2 1
     4.0  0.1  0.0  0.2
     1.0  0.6  0.0  0.5
     0.25 0.4  1.0  0.4
 3 2 2 1 1
     0.8  1.0
H  DZVP-A
 1
 1 0 0 1 1
     0.7  1.0
"""
NWCHEM = """\
BASIS "ao basis" SPHERICAL PRINT
#BASIS SET: (3s,2p) -> [2s,1p]
C    S
      0.30D+02       0.25
      0.60E+01       0.75
C    SP
      0.9            0.5      0.4
      0.3            0.5      0.8
C    D
      0.8            1.0
H    S
      0.7            1.0
END
ECP
C nelec 2
C ul
2 1.0 0.0
END
"""


def radials(shells):
    return [(s.l, s.radial.exponents, s.radial.coefficients) for s in shells]


def test_cp2k(tmp_path):
    path = tmp_path / "BASIS"
    path.write_text(CP2K)
    assert radials(read_gaussian_basis(path, "C", "DZVP-A-q4")) == [
        (0, (4.0, 1.0, 0.25), (0.1, 0.6, 0.4)),
        (0, (0.25,), (1.0,)),
        (1, (4.0, 1.0, 0.25), (0.2, 0.5, 0.4)),
        (2, (0.8,), (1.0,)),
    ]
    assert radials(read_gaussian_basis(path, "C", "szv-a"))[0] == (0, (1.5, 0.5), (0.25, 0.75))
    assert len(read_gaussian_basis(path, "H")) == 1
    with pytest.raises(FormatError, match="expected one basis of C, got SZV-A, DZVP-A; name one"):
        read_gaussian_basis(path, "C")
    with pytest.raises(FormatError, match="expected a basis TZVP of C, got SZV-A, DZVP-A"):
        read_gaussian_basis(path, "C", "TZVP")


def test_nwchem(tmp_path):
    path = tmp_path / "dzvp.nw"
    path.write_text(NWCHEM)
    assert radials(read_gaussian_basis(path, "C")) == [
        (0, (30.0, 6.0), (0.25, 0.75)),
        (0, (0.9, 0.3), (0.5, 0.5)),
        (1, (0.9, 0.3), (0.4, 0.8)),
        (2, (0.8,), (1.0,)),
    ]


@pytest.mark.parametrize("text", [CP2K, NWCHEM])
def test_a_folder_with_such_a_file_gives_the_overlap_of_pyscf(tmp_path, text):
    gto = pytest.importorskip("pyscf.gto")
    (tmp_path / "notes.txt").write_text("C is carbon\n12\n")
    (tmp_path / "basis.txt").write_text(text)
    known = Basis.of(AtomBasis.from_degrees("C", [0, 0, 1, 2], 4, 3.0), AtomBasis.from_degrees("H", [0], 1, 3.0))
    basis = attach_radial_functions(known, tmp_path, {"C": "DZVP-A", "H": "DZVP-A"} if text == CP2K else None)
    assert (basis["C"].cutoff, basis["C"].valence) == (3.0, 4)
    atoms = molecule("CH4")
    found = overlap_from_basis(atoms, basis, accuracy=0)
    shells = {
        symbol: [[s.l, *zip(s.radial.exponents, s.radial.coefficients, strict=True)] for s in basis[symbol].shells]
        for symbol in ("C", "H")
    }
    mol = gto.M(atom=list(zip(atoms.symbols, atoms.positions, strict=True)), basis=shells, verbose=0)
    hydrogens = mol.intor("int1e_ovlp")[mol.aoslice_by_atom()[1:, 2]][:, mol.aoslice_by_atom()[1:, 2]]
    rows = [p for p in range(len(found.pairs)) if found.pairs.i[p] and found.pairs.j[p]]
    assert len(rows) == 16
    for p in rows:
        expected = hydrogens[found.pairs.i[p] - 1, found.pairs.j[p] - 1]
        assert found.block(p)[0, 0] == pytest.approx(expected, abs=1e-12)


def test_files_of_pyscf_are_read_as_pyscf_does():
    package = Path(pytest.importorskip("pyscf").__file__).parent
    for file, name in (("BASIS_MOLOPT", "DZVP-MOLOPT-SR-GTH"), ("GTH_BASIS_SETS", "DZVP-GTH")):
        path = package / "pbc/gto/basis" / file
        if not path.is_file():
            pytest.skip(f"this PySCF has no {file}")
        assert FORMAT.sniff(path)
        pyscf_name = "gth-" + name.lower().removesuffix("-gth")
        for symbol in ("H", "C", "Si"):
            known = gth.gth_basis(pyscf_name, [symbol], "pbe")[symbol].shells
            assert radials(read_gaussian_basis(path, symbol, name)) == radials(known)


def test_other_texts_are_no_bases(tmp_path, golden):
    path = tmp_path / "POSCAR"
    for text in ("", "C\n1.0\n 3 0 0\n 0 3 0\n 0 0 3\nC\n 1\nDirect\n 0 0 0\n", "a b\n1\n2 3\n", "H 1\n1 2\n"):
        path.write_text(text)
        assert not FORMAT.sniff(path)
    assert not any(FORMAT.sniff(file) for file in golden.rglob("*") if file.is_file())


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        (" 2 0 1 3 2 1", " 2 0 1 3 2 2", "expected 3 rows of 5 numbers, got 3 of 4"),
        (" 2 0 1 3 2 1", " 2 1 0 3 2 1", "expected l up to 6"),
        (" 3 2 2 1 1", " 3 2 2 1 0", "expected 1 rows of 1 numbers"),
        (" 2\n 2 0 1 3", " 1\n 2 0 1 3", "expected 5 lines, got 7"),
        (" 2\n 2 0 1 3", " 3\n 2 0 1 3", "expected a line of 5 or more integers, got ''"),
        ("4.0 ", "-4.0 ", "expected exponents above 0"),
        ("4.0 ", "__import__('os') ", "expected numbers and nothing else"),
        ("0.8  1.0", "0.8  0.0", "coefficients that are not all 0"),
        ("     1.0  0.6", "     1.0", "expected rows of an exponent"),
    ],
)
def test_damage_is_told(tmp_path, old, new, wrong):
    path = tmp_path / "BASIS"
    assert old in CP2K
    path.write_text(CP2K.replace(old, new))
    with pytest.raises(FormatError, match=wrong):
        read_gaussian_basis(path, "C", "DZVP-A")


@pytest.mark.parametrize("text", [CP2K, NWCHEM])
def test_damaged_files_are_refused_or_read(tmp_path, text):
    path, refused = tmp_path / "BASIS", 0
    for damage, mutant in mutants(text.encode(), 200):
        path.write_bytes(mutant)
        try:
            shells = read_gaussian_basis(path, "C", "DZVP-A" if text == CP2K else None)
        except FormatError as error:
            message = str(error)
        else:
            message = ""
            assert all(np.isfinite(s.radial.exponents + s.radial.coefficients).all() for s in shells), damage
        if message:
            assert str(path) in message, damage
            assert "\n" not in message, damage
            refused += 1
    assert refused > 60


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_file_of_nwchem_cut_between_rows_is_refused(tmp_path, rows):
    whole = NWCHEM.partition("ECP")[0]
    path = tmp_path / "basis.nw"
    path.write_text(whole)
    assert len(read_gaussian_basis(path, "C")) == 4
    path.write_text("".join(whole.splitlines(keepends=True)[:-rows]))
    with pytest.raises(FormatError, match="expected END after the last shell; is the file cut"):
        read_gaussian_basis(path, "C")
