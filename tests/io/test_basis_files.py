"""A folder of basis files gives every shell its radial function, or says in one line why not."""

import gzip
from dataclasses import replace

import numpy as np
import pytest

from ase_hybridham.errors import FormatError
from ase_hybridham.io import attach_radial_functions, basis_files, pao, read_openmx, with_radial_functions
from ase_hybridham.io.openmx_input import input_settings, parse_input
from ase_hybridham.overlap import overlap_from_basis
from ase_hybridham.system import AtomBasis, Basis
from tests.io.pao_files import pao_folder
from tests.overlap.radial_data import NAMES, openmx_basis

# OpenMX's own is off by 1e-10 on-site, 5e-14 elsewhere; what a program reads of this package is compared elsewhere
SAME_S = 1e-9


def bare(*symbols: str) -> Basis:
    """Without radial functions, valences and labels, as DeepH's folders tell it."""
    basis = openmx_basis(symbols)
    return Basis.of(*(AtomBasis.from_degrees(s, basis[s].degrees, cutoff=basis[s].cutoff) for s in symbols))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pao_folder(tmp_path_factory.mktemp("PAO"))


def test_the_golden_functions_are_those_of_openmx(reference_data):
    golden = openmx_basis(NAMES)
    assert attach_radial_functions(golden, reference_data / "pao", NAMES).atoms == golden.atoms


def test_every_element_finds_its_file(folder):
    found = attach_radial_functions(bare(*NAMES), folder)
    for symbol, atom in openmx_basis(NAMES).atoms.items():
        assert [shell.radial for shell in found[symbol].shells] == [shell.radial for shell in atom.shells]
        assert (found[symbol].valence, found[symbol].cutoff) == (atom.valence, atom.cutoff)


@pytest.mark.parametrize("sample", ["graphene", "H2O_across_boundary"])
def test_the_overlap_is_that_of_openmx(golden, folder, sample):
    system = read_openmx(golden / "openmx" / sample / "openmx.scfout.gz")
    found = with_radial_functions(system, folder)
    computed = overlap_from_basis(system.atoms, found.basis, system.pairs, accuracy=0)
    assert np.abs(computed.values - system.overlap.values).max() < SAME_S
    assert found.hamiltonian[0].basis is found.basis
    assert (found.hamiltonian[0].values == system.hamiltonian[0].values).all()
    # all that was told before
    assert found.basis.cutoffs() == pytest.approx(system.basis.cutoffs(), abs=1e-9)
    assert found.provenance == system.provenance


def test_files_of_other_elements_are_not_read(folder, tmp_path, monkeypatch):
    pao_folder(tmp_path, "C")
    (tmp_path / "Cu6.0.pao").write_bytes(b"\0" * 100)
    (tmp_path / "S7.0.pao").mkdir()
    opened = []
    read = pao._text
    monkeypatch.setattr(pao, "_text", lambda path: (opened.append(path.name), read(path))[1])
    assert attach_radial_functions(bare("C"), tmp_path).has_radial_functions()
    assert opened == ["C6.0.pao"]


def test_a_file_may_be_given_and_a_compressed_twin_is_the_same(folder, tmp_path):
    expected = attach_radial_functions(bare("C"), folder)
    assert attach_radial_functions(bare("C"), folder / "C6.0.pao") == expected
    text = (folder / "C6.0.pao").read_bytes()
    (tmp_path / "C6.0.pao.gz").write_bytes(gzip.compress(text))
    assert attach_radial_functions(bare("C"), tmp_path) == expected
    (tmp_path / "C6.0.pao").write_bytes(text)
    assert attach_radial_functions(bare("C"), tmp_path) == expected


def test_of_two_files_the_name_decides(tmp_path):
    pao_folder(tmp_path, "C")
    (tmp_path / "C7.0.pao").write_text((tmp_path / "C6.0.pao").read_text().replace("0.", "0.0", 1))
    with pytest.raises(FormatError, match=r"C6\.0\.pao and C7\.0\.pao are of C; name one, as in C=C6\.0$"):
        attach_radial_functions(bare("C"), tmp_path)
    for name in ("C6.0-s2p2d1", "C6.0"):
        assert attach_radial_functions(bare("C"), tmp_path, {"C": name}).has_radial_functions()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("C5.0-s2p2d1", "expected the file of C5.0-s2p2d1, got only C6.0.pao of C; give the folder"),
        ("C6.0-s2p2", "the shells of C are s2p2d1, C6.0-s2p2 has others"),
        ("C6.0-s2p2d1f1", "the shells of C are s2p2d1, C6.0-s2p2d1f1 has others"),
        ("C6.0-s4>2p4>2d1", "the orbitals of C6.0-s4>2p4>2d1 are optimized"),
        ("C6.0-s2p2d1/C6.0-s2p2d1f1", "have the bases C6.0-s2p2d1/C6.0-s2p2d1f1 in one calculation"),
        ("C6.0-x", "expected a basis like C6.0-s2p2d1"),
    ],
)
def test_a_name_that_does_not_fit_is_refused(folder, name, message):
    with pytest.raises(FormatError) as error:
        attach_radial_functions(bare("C"), folder, {"C": name})
    assert message in str(error.value)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_what_does_not_fit_the_basis_is_refused(folder, tmp_path):
    carbon = bare("C")["C"]
    refused = {
        "expected functions that reach 3.700 angstrom": replace(carbon, cutoff=3.7),
        "expected 5 functions of an l, got 4": AtomBasis.from_degrees("C", [0] * 5),
        "<pseudo.atomic.orbitals.L=3": AtomBasis.from_degrees("C", [0, 3]),
        "expected a basis file of N, got none of N": AtomBasis.from_degrees("N", [0]),
    }
    for message, atom in refused.items():
        with pytest.raises(FormatError) as error:
            attach_radial_functions(Basis.of(atom), folder)
        assert message in str(error.value)
    (tmp_path / "C6.0.pao").write_text((folder / "O6.0.pao").read_text())
    with pytest.raises(FormatError, match=r"C6\.0\.pao: expected functions of C, got those of O"):
        attach_radial_functions(bare("C"), tmp_path)
    with pytest.raises(ValueError, match="S = 1 needs no radial functions"):
        attach_radial_functions(replace(bare("C"), orthogonal=True), folder)


def test_radii_fitted_to_pairs_become_those_of_the_files(folder):
    # of two elements the fit may give one too much and the other too little
    basis = bare("S", "Mo")
    fitted = {"S": replace(basis["S"], cutoff=3.9), "Mo": replace(basis["Mo"], cutoff=3.5)}
    found = attach_radial_functions(replace(basis, atoms=fitted), folder)
    assert found.cutoffs() == basis.cutoffs()


def test_a_folder_without_basis_files_is_refused(tmp_path):
    for path, message in {
        tmp_path: "holds no basis files; looked for openmx",
        tmp_path / "x": "expected a folder",
    }.items():
        with pytest.raises(FormatError, match=message):
            attach_radial_functions(bare("C"), path)


def test_settings_of_the_integrals_are_those_of_the_calculation(folder):
    told = {"1DFFT_energy_cutoff_Ry": 3600.0, "1DFFT_k_points": 600.0, "xc": "LDA"}
    shell = attach_radial_functions(bare("C"), folder, settings=told)["C"].shells[0]
    assert shell.radial.settings == (("k_points", 600.0),)  # defaults are not told
    for wrong in (1e9, -1, "many"):
        with pytest.raises(FormatError, match="1DFFT_k_points of the calculation: expected a number"):
            attach_radial_functions(bare("C"), folder, settings={"1DFFT_k_points": wrong})


def test_two_species_of_an_element_are_both_named(golden, folder):
    text = (golden / "openmx/graphene/openmx.dat").read_text()
    line = next(line for line in text.splitlines() if "C6.0-s2p2d1" in line)
    label = line.split()[0]
    second = line.replace(label, "C9", 1).replace("C6.0-s2p2d1", "C5.0-s2p2d1")
    text = (
        text.replace(line, f"{line}\n{second}")
        .replace(f"\n   2  {label}", "\n   2  C9")
        .replace(f"  2  {label} ", "  2  C9 ")
    )
    found = input_settings("x", parse_input("x", text, 2))["basis"]
    assert found == {"C": "C5.0-s2p2d1/C6.0-s2p2d1"}


def test_every_kind_of_files_has_a_name_of_its_own():
    names = [known.name for known in basis_files.BASIS_FORMATS]
    assert len(set(names)) == len(names)
