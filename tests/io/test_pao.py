"""The .pao files of OpenMX give their radial functions to the last digit, or are refused in one line."""

import gzip
import time

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from ase_hybridham.errors import FormatError
from ase_hybridham.io.openmx_input import BOHR
from ase_hybridham.io.pao import JUMP, read_pao
from ase_hybridham.overlap import overlap_from_basis
from ase_hybridham.system import AtomBasis, Basis, PairList, SampledRadial, Shell
from tests.io.mutations import LONGEST, MOST_CHANGED, mutants
from tests.io.pao_files import pao_text
from tests.overlap.radial_data import NAMES, openmx_basis


def written(tmp_path, symbol="C", **changed):
    path = tmp_path / f"{symbol}.pao"
    path.write_text(pao_text(openmx_basis(symbol)[symbol], **changed))
    return path


def counts_of(atom):
    return [atom.degrees.count(l) for l in range(max(atom.degrees) + 1)]


@pytest.mark.parametrize("symbol", NAMES)
def test_every_function_is_read_to_the_last_digit(tmp_path, symbol):
    atom = openmx_basis(symbol)[symbol]
    pao = read_pao(written(tmp_path, symbol), counts_of(atom))
    assert (pao.symbol, pao.valence, pao.cutoff * BOHR) == (symbol, atom.valence, atom.cutoff)
    functions = [function for l in pao.functions for function in pao.functions[l]]
    for shell, values in zip(atom.shells, functions, strict=True):
        np.testing.assert_array_equal(values, shell.radial.values)
        np.testing.assert_array_equal(pao.mesh, shell.radial.mesh)


def test_the_first_functions_of_every_l_are_taken(tmp_path):
    everything = read_pao(written(tmp_path), [2, 2, 1])
    some = read_pao(written(tmp_path), [1, 0, 1])
    assert list(some.functions) == [0, 2]
    np.testing.assert_array_equal(some.functions[0], everything.functions[0][:1])
    assert np.abs(everything.functions[0][0] - everything.functions[0][1]).max() > 0.1


@pytest.mark.parametrize("change", [str.upper, lambda t: t.replace("\n", "\r\n"), lambda t: t.replace("\n", "  \n")])
def test_letters_and_ends_of_lines_do_not_matter(tmp_path, change):
    path = written(tmp_path)
    expected = read_pao(path, [2, 2, 1])
    path.write_bytes(change(path.read_text()).encode())
    found = read_pao(path, [2, 2, 1])
    np.testing.assert_array_equal(found.functions[1], expected.functions[1])
    assert found.cutoff == expected.cutoff


def test_compressed_files_and_words_of_any_alphabet_are_read(tmp_path):
    path = written(tmp_path)
    text = "Ozaki, 尾崎, b\xe5de\n" + path.read_text()
    (tmp_path / "x.pao.gz").write_bytes(gzip.compress(text.encode("utf-8")))
    (tmp_path / "y.pao").write_bytes(text.replace("尾崎", "").encode("latin-1"))
    for name in ("x.pao.gz", "y.pao"):
        assert read_pao(tmp_path / name, [2]).symbol == "C"


@pytest.mark.parametrize(("number", "symbol"), [(0.5, "H"), (1.0, "H"), (0.999, "H"), (6, "C")])
def test_fractional_hydrogen_is_hydrogen(tmp_path, number, symbol):
    assert read_pao(written(tmp_path, "H", number=number), [2]).symbol == symbol


@pytest.mark.parametrize("number", [0, -1, 1.5, 500, "x"])
def test_what_is_no_element_is_refused(tmp_path, number):
    with pytest.raises(FormatError, match="AtomSpecies: expected"):
        read_pao(written(tmp_path, number=number), [2])


@pytest.mark.parametrize("counts", [[0], [], [5], [1, 1, 1, 1]])
def test_functions_that_are_not_there_are_refused(tmp_path, counts):
    with pytest.raises(FormatError, match=r"C\.pao: "):
        read_pao(written(tmp_path), counts)


def test_rows_that_are_left_out_change_no_overlap(tmp_path, reference_data):
    # nothing but zeros, which OpenMX's interpolation still feels for three rows
    text = gzip.decompress((reference_data / "pao/C6.0.pao.gz").read_bytes()).decode()
    start = text.index("<pseudo.atomic.orbitals.L=0")
    rows = text[start : text.index("pseudo.atomic.orbitals.L=0>")].splitlines()[1:]
    whole = np.array([row.split() for row in rows], dtype=float).T
    short = read_pao(reference_data / "pao/C6.0.pao.gz", [2])
    assert 480 < len(short.mesh) < len(whole[1])
    bases = [
        Basis.of(AtomBasis("C", tuple(Shell(0, "s", SampledRadial(mesh, f, 6.0, "openmx", BOHR)) for f in functions)))
        for mesh, functions in ((short.mesh, short.functions[0]), (whole[1], whole[2:4]))
    ]
    atoms = Atoms("C3", [(0, 0, 0), (0, 0, 1.4), (0, 0.3, 6.1)])
    pairs = PairList.from_atoms(atoms, 7.0)
    one, other = (overlap_from_basis(atoms, basis, pairs).values for basis in bases)
    assert np.abs(one).max() > 0.9
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("radial.cutoff.pao   6.0", "radial.cutoff.pao   16.0", "last value is at"),
        ("radial.cutoff.pao   6.0", "radial.cutoff.pao   4.0", "last value is at"),
        ("radial.cutoff.pao   6.0", "radial.cutoff.pao   -6.0", "positive number"),
        ("grid.num.output  495", "grid.num.output  496", "expected 496 rows"),
        ("grid.num.output  495", "grid.num.output  1e5", "expected 100000 rows"),
        ("PAO.Mul  4", "PAO.Mul  5", "rows of 7 numbers"),
        ("PAO.Mul", "PAO.Mu", "PAO.Mul is missing"),
        ("L=1>", "L=1", "is missing; is the file complete"),
    ],
)
def test_contradictions_are_refused(tmp_path, old, new, message):
    path = written(tmp_path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(FormatError, match=message) as error:
        read_pao(path, [2, 2, 1])
    assert str(error.value).startswith(str(path))


def test_a_sample_out_of_line_is_refused(tmp_path):
    path = written(tmp_path)
    lines = path.read_text().splitlines()
    at = lines.index("<pseudo.atomic.orbitals.L=1") + 300
    words = lines[at].split()
    words[2] = str(float(words[2]) + 0.3)
    lines[at] = " ".join(words)
    path.write_text("\n".join(lines))
    with pytest.raises(FormatError, match=r"L=1, function 1: .*jump"):
        read_pao(path, [2, 2, 1])


def tried(path):
    """The content, or None and why it was refused."""
    try:
        return read_pao(path, [2, 2, 1]), ""
    except FormatError as error:
        return None, str(error)


def assert_refused_or_same(path, original, damage):
    """A digit that is lost among others does not show; all that is read else is what was written."""
    began = time.monotonic()
    found, refusal = tried(path)
    assert time.monotonic() - began < LONGEST, damage
    if found is None:
        assert str(path) in refusal, damage
        assert "\n" not in refusal, damage
        return True
    assert (found.symbol, found.cutoff) == (original.symbol, original.cutoff), damage
    n = min(len(found.mesh), len(original.mesh))  # rows of zeros may be more or less
    np.testing.assert_allclose(found.mesh[:n], original.mesh[:n], rtol=1e-7, err_msg=damage)
    for l, functions in original.functions.items():
        difference = np.abs(found.functions[l][:, :n] - functions[:, :n])
        assert difference.max() < 2 * JUMP * np.abs(functions).max(), damage
        assert (difference > 0).mean() < MOST_CHANGED, damage
    return False


@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_file_is_refused_or_read_as_it_was(tmp_path, compressed):
    whole = written(tmp_path)
    original = read_pao(whole, [2, 2, 1])
    content = gzip.compress(whole.read_bytes()) if compressed else whole.read_bytes()
    path = tmp_path / ("C6.0.pao.gz" if compressed else "C6.0.pao")
    refused = 0
    for damage, damaged in mutants(content, 150, seed=2):
        path.write_bytes(damaged)
        refused += assert_refused_or_same(path, original, damage)
    assert refused > 50


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_word_of_the_header_is_believed(tmp_path_factory, data):
    path = written(tmp_path_factory.mktemp("pao"))
    original = read_pao(path, [2, 2, 1])
    lines = path.read_text().splitlines()
    at = data.draw(st.integers(0, 9))
    numbers = st.one_of(st.integers(-(2**63), 2**63).map(str), st.floats().map(str), st.text(max_size=5))
    keyword = lines[at].split()[0]
    lines[at] = f"{keyword} {data.draw(numbers)}"
    path.write_text("\n".join(lines), encoding="utf-8")
    found, refusal = tried(path)
    assert "\n" not in refusal
    if found is None:
        return
    for l, functions in original.functions.items():
        np.testing.assert_array_equal(found.functions[l], functions)
