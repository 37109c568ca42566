"""ABACUS's .orb: S of its functions is the S of ABACUS; damaged files are refused."""

import shutil

import numpy as np
import pytest
from ase.units import Bohr
from scipy.integrate import simpson

from ase_hybridham.errors import FormatError
from ase_hybridham.io import abacus_orb, attach_radial_functions, with_radial_functions
from ase_hybridham.io.abacus import read_abacus
from ase_hybridham.io.abacus_orb import read_abacus_orb
from ase_hybridham.overlap import overlap_from_basis
from ase_hybridham.system import AtomBasis, Basis
from tests.io.mutations import assert_survives, mutants
from tests.io.structures import unpacked

GALLIUM = "Ga_gga_9au_60Ry_2s2p2d.orb"


@pytest.fixture(scope="module")
def sample(golden, tmp_path_factory):
    return unpacked(golden / "abacus/GaAs_S", tmp_path_factory.mktemp("abacus"))


def test_overlap_is_that_of_abacus(sample):
    system = with_radial_functions(read_abacus(sample), sample)
    for accuracy in (0, 1e-9):
        found = overlap_from_basis(system.atoms, system.basis, system.pairs, accuracy=accuracy)
        error = np.abs(found.values - system.overlap.values)
        onsite = np.repeat(system.pairs.distances < 1e-6, np.diff(found.offsets))
        assert np.abs(system.overlap.values[~onsite]).max() > 0.1
        assert error[~onsite].max() < 1e-9 + accuracy  # the file has eight decimals; found 5e-10
        assert error[onsite].max() < 1e-12 + accuracy  # found 1e-13


def test_what_the_file_tells(sample):
    atom = read_abacus_orb(sample / GALLIUM)
    assert (atom.symbol, atom.degrees, atom.cutoff) == ("Ga", (0, 0, 1, 1, 2, 2), 9 * Bohr)
    for shell in atom.shells:
        r, values = shell.radial.mesh, shell.radial.values
        assert simpson((r * values) ** 2, x=r) == pytest.approx(1, abs=1e-12)
        assert (len(r), r[-1], values[-1]) == (901, 9.0, 0.0)
        assert shell.l == 0 or abs(values[1]) < 0.1


def test_another_basis_is_refused(sample, tmp_path):
    shutil.copy(sample / GALLIUM, tmp_path / "Ga_small.orb")
    shutil.copy(sample / GALLIUM, tmp_path)
    basis = Basis.of(AtomBasis.from_degrees("Ga", [0, 0, 1, 1, 2, 2]))
    with pytest.raises(FormatError, match=r"Ga_gga_9au_60Ry_2s2p2d\.orb and Ga_small\.orb are of Ga; name one"):
        attach_radial_functions(basis, tmp_path)
    assert attach_radial_functions(basis, tmp_path, {"Ga": "Ga_small"}).has_radial_functions()
    with pytest.raises(FormatError, match="expected the shells sspd of Ga, got ssppdd; give the file of the run"):
        attach_radial_functions(Basis.of(AtomBasis.from_degrees("Ga", [0, 0, 1, 2])), sample)
    with pytest.raises(FormatError, match="expected a basis of As, got one of Ga"):
        attach_radial_functions(Basis.of(AtomBasis.from_degrees("As", [0])), tmp_path, {"As": "Ga_small"})


def test_damaged_files_are_refused_or_what_they_hold_is_read(sample, tmp_path):
    shutil.copy(sample / "As_gga_8au_60Ry_2s2p1d.orb", tmp_path)
    system, original = read_abacus(sample), read_abacus_orb(sample / GALLIUM)
    path, refused = tmp_path / GALLIUM, 0
    for damage, mutant in mutants((sample / GALLIUM).read_bytes(), 150, head=900):
        path.write_bytes(mutant)

        def read(path, damage=damage):
            read = with_radial_functions(system, path.parent)
            for shell, known in zip(read.basis["Ga"].shells, original.shells, strict=True):
                largest = np.abs(known.radial.values).max()
                assert np.abs(shell.radial.values - known.radial.values).max() < 5e-3 * largest, damage
            return read

        try:
            refused += assert_survives(read, damage, path, system)
        except AssertionError as error:
            # with another element in its header it is no file of gallium
            if "does not name the file" not in str(error) or "expected a basis file of Ga" not in str(error):
                raise
            refused += 1
    assert refused > 100


def test_a_file_cut_between_functions_is_refused(sample, tmp_path):
    text = (sample / GALLIUM).read_text()
    (tmp_path / GALLIUM).write_text(text[: text.rindex("                Type")])
    with pytest.raises(FormatError, match=r"expected \[2, 2, 2\] functions of l = 0, 1, ..."):
        read_abacus_orb(tmp_path / GALLIUM)


def test_functions_that_stand_twice_or_have_no_letter_are_refused(sample, tmp_path):
    header, first, *others = (sample / GALLIUM).read_text().split("                Type")
    title, numbers, values = first.split("\n", 2)
    assert numbers.split() == ["0", "0", "0"]
    parts = {
        "l = 0, number 0": [first, first, *others],
        "l = 7, number 0": [f"{title}\n 0 7 0\n{values}", *others],
    }
    for wrong, functions in parts.items():
        (tmp_path / GALLIUM).write_text("                Type".join([header, *functions]))
        with pytest.raises(FormatError, match=f"expected every function once, l up to 6, got {wrong}"):
            read_abacus_orb(tmp_path / GALLIUM)


def test_what_is_too_long_is_not_read_to_its_end(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(abacus_orb, "LARGEST", 10_000)
    with pytest.raises(FormatError, match="901 values of each function, got "):
        read_abacus_orb(sample / GALLIUM)
