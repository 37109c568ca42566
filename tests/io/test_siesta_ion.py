"""SIESTA's .ion.xml: S of its functions is the S of SIESTA's own .HSX; damaged files are refused."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import simpson

from ase_hybridham.errors import FormatError
from ase_hybridham.io import attach_radial_functions, siesta_ion, with_radial_functions
from ase_hybridham.io.basis_files import whole_bases
from ase_hybridham.io.siesta import read_siesta
from ase_hybridham.io.siesta_ion import read_siesta_ion
from ase_hybridham.io.siesta_orbitals import BOHR
from ase_hybridham.overlap import overlap_from_basis
from ase_hybridham.system import AtomBasis, Basis
from tests.io.mutations import assert_survives, mutants
from tests.io.structures import unpacked

# folder, file of H and S, of the orbitals; largest difference off-site: SIESTA takes functions as the same that are
# proportional to 1e-8, which we do not
SAMPLES = [
    ("Pt2_soc", "Pt2.HSX", "Pt", 3e-9),  # found 1.8e-9
    ("Bi_soc", "Bi.HSX", "Bi", 1e-9),  # 4.7e-10
    ("Fe", "fe.HSX", "Fe", 1e-9),  # 4.2e-10
    ("H_chain", "h_chain.HSX", "H", 1e-10),  # 1.6e-11
]


@pytest.fixture(scope="module")
def samples(golden, tmp_path_factory):
    return unpacked(golden / "siesta", tmp_path_factory.mktemp("siesta"))


@pytest.mark.parametrize(("folder", "name", "symbol", "tolerance"), SAMPLES)
def test_overlap_is_that_of_siesta(samples, folder, name, symbol, tolerance):
    system = with_radial_functions(read_siesta(samples / folder / name), samples / folder)
    for accuracy, more in ((0, 0.0), (1e-9, 1e-9)):
        found = overlap_from_basis(system.atoms, system.basis, system.pairs, accuracy=accuracy)
        error = np.abs(found.values - system.overlap.values)
        onsite = np.repeat(system.pairs.distances < 1e-6, np.diff(found.offsets))
        assert np.abs(system.overlap.values[~onsite]).max() > 1e-3
        assert error[~onsite].max() < tolerance + more
        assert error[onsite].max() < 1e-11 + more  # found 6e-12


def test_pairs_of_the_hamiltonian_that_reach_further_than_the_orbitals_stay(samples):
    system = read_siesta(samples / "Bi_soc/Bi.HSX")
    radius = with_radial_functions(system, samples / "Bi_soc").basis["Bi"].cutoff
    assert radius >= system.basis["Bi"].cutoff
    assert radius >= 0.999 * system.pairs.distances.max() / 2


def test_what_the_file_tells(samples):
    atom = read_siesta_ion(samples / "Fe/Fe.ion.xml")
    assert (atom.symbol, atom.valence) == ("Fe", 16)
    assert [shell.label for shell in atom.shells] == ["3s1", "4s1", "4s2", "3p1", "4p1", "3d1", "3d2"]
    assert atom.cutoff == pytest.approx(7.4000 * BOHR, abs=1e-4)  # the radius of 4s in fe.ORB_INDX
    for shell in atom.shells:
        r, values = shell.radial.mesh, shell.radial.values
        assert simpson((r * values) ** 2, x=r) == pytest.approx(1, abs=1e-5)
        assert (values[0] == 0) == (shell.l > 0)


def test_shells_sorted_by_l_as_in_folders_of_deeph_are_recognised(samples, tmp_path):
    text = (samples / "Pt2_soc/Pt.ion.xml").read_text()
    start, end = text.index("<orbital"), text.index("</paos>")
    orbitals = text[start:end].split("</orbital>\n")[:-1]
    moved = [*orbitals[1:], orbitals[0]]  # 5s last, as orbitals of polarization are in some files
    path = tmp_path / "Pt.ion.xml"
    path.write_text(text[:start] + "".join(f"{one}</orbital>\n" for one in moved) + text[end:])
    assert [shell.l for shell in read_siesta_ion(path).shells] == [0, 0, 1, 1, 2, 2, 0]
    found = attach_radial_functions(Basis.of(AtomBasis.from_degrees("Pt", [0, 0, 0, 1, 1, 2, 2])), path)
    assert [shell.label for shell in found["Pt"].shells] == ["6s1", "6s2", "5s1", "5p1", "6p1", "5d1", "5d2"]


def test_another_basis_is_refused(samples, tmp_path):
    system = read_siesta(samples / "Fe/fe.HSX")
    shutil.copy(samples / "Pt2_soc/Pt.ion.xml", tmp_path)
    with pytest.raises(FormatError, match="expected a basis file of Fe, got none of Fe"):
        with_radial_functions(system, tmp_path)
    with pytest.raises(FormatError, match="expected a basis of Fe, got one of Pt"):
        with_radial_functions(system, tmp_path, {"Fe": "Pt"})
    fewer = Basis.of(AtomBasis.from_degrees("Fe", [0, 0, 1, 2]))
    with pytest.raises(FormatError, match=r"expected the shells s s p d of Fe, got 3s1 4s1 4s2 .*give the files"):
        attach_radial_functions(fewer, samples / "Fe")
    shells = system.basis["Fe"].shells
    renamed = Basis.of(replace(system.basis["Fe"], shells=(replace(shells[0], label="2s1"), *shells[1:])))
    with pytest.raises(FormatError, match="expected the shells 2s1 4s1"):
        attach_radial_functions(renamed, samples / "Fe")
    with pytest.raises(FormatError, match="expected 8 valence electrons, got 16"):
        attach_radial_functions(system.basis.with_valences({"Fe": 8.0}), samples / "Fe")


def test_two_files_of_an_element_need_a_name(samples, tmp_path):
    system = read_siesta(samples / "H_chain/h_chain.HSX")
    for label in ("H", "H.bond"):
        shutil.copy(samples / "H_chain/H.ion.xml", tmp_path / f"{label}.ion.xml")
    with pytest.raises(FormatError, match=r"H\.bond\.ion\.xml and H\.ion\.xml are of H; name one"):
        with_radial_functions(system, tmp_path)
    assert with_radial_functions(system, tmp_path, {"H": "H.bond"}).basis.has_radial_functions()


def test_damaged_files_are_refused_or_what_they_hold_is_read(samples, tmp_path):
    system = read_siesta(samples / "H_chain/h_chain.HSX")
    content = (samples / "H_chain/H.ion.xml").read_bytes()
    original = read_siesta_ion(samples / "H_chain/H.ion.xml").shells[0].radial
    path, refused = tmp_path / "H.ion.xml", 0
    for damage, mutant in mutants(content, 150, head=900):
        path.write_bytes(mutant)

        def read(path, damage=damage):
            read = with_radial_functions(system, path)
            radial = read.basis["H"].shells[0].radial
            # a digit may be another, but not so that one value stands out
            assert np.abs(radial.values - original.values).max() < 5e-3 * original.values.max(), damage
            assert np.abs(radial.mesh - original.mesh).max() < 1e-6, damage
            return read

        refused += assert_survives(read, damage, path, system)
    assert refused > 75  # the rest of the damage is in what is not read, or small


def test_what_is_no_radial_function_is_refused(samples, tmp_path):
    text = (samples / "H_chain/H.ion.xml").read_text()
    path = tmp_path / "H.ion.xml"
    s_orbital = ' l="                        0"'
    assert s_orbital in text
    for old, new, wrong in (
        (s_orbital, s_orbital.replace("0", "1"), "expected a smooth function of norm 1, got norm 3"),
        (
            "<npts>                       500",
            "<npts>                       499",
            "499 rows of two numbers, got 1, 0, 1 and 1000",
        ),
        ("<cutoff>      5.", "<cutoff>      6.", "expected radii from 0 to 6"),
        ("<z>                         1", "<z>                      -201", "z: expected an atomic number, got -201"),
        ("<valence>      1.0", "<valence>      7.0", "valence: expected electrons of H, got 7"),
        ("<valence>      1.0", "<valence>     -1.0", "valence: expected electrons of H, got -1"),
        ("</paos>", "", "expected the orbitals between <paos> and </paos>"),
    ):
        path.write_text(text.replace(old, new))
        with pytest.raises(FormatError, match=wrong):
            read_siesta_ion(path)


def test_entities_are_not_expanded(samples, tmp_path):
    """A file of 1 kB that would be one of gigabytes."""
    text = (samples / "H_chain/H.ion.xml").read_text()
    bomb = "".join(f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(12))
    path = tmp_path / "H.ion.xml"
    path.write_text(f'<!DOCTYPE ion [<!ENTITY a0 "0.0 ">{bomb}]>\n' + text.replace("<data>", "<data>&a12;"))
    with pytest.raises(FormatError):
        read_siesta_ion(path)
    path.write_text(text.replace("<paos>", f"<paos><!DOCTYPE paos [{bomb}]>"))
    with pytest.raises(FormatError, match="is no XML"):
        read_siesta_ion(path)


def test_what_stands_before_and_after_the_orbitals_may_be_anything(samples, tmp_path, monkeypatch):
    content = (samples / "H_chain/H.ion.xml").read_bytes()
    path = tmp_path / "H.ion.xml"
    path.write_bytes(content.replace(b"<paos>", b"\xf6 & <\n<paos>").replace(b"</paos>", b"</paos>" + 9000 * b"\0"))
    monkeypatch.setattr(siesta_ion, "LARGEST", len(content))  # what is too long is not read to its end
    assert read_siesta_ion(path) == read_siesta_ion(samples / "H_chain/H.ion.xml")
    monkeypatch.setattr(siesta_ion, "LARGEST", 10_000)
    with pytest.raises(FormatError, match="expected the orbitals between <paos> and </paos>; is the file cut"):
        read_siesta_ion(path)


def test_a_file_of_another_element_is_refused(samples):
    with pytest.raises(FormatError, match=r"Bi\.ion\.xml: expected a basis of H, got one of Bi"):
        whole_bases(samples / "Bi_soc", ["H"], {"H": "Bi"})
