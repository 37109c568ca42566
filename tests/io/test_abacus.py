"""ABACUS's folders: real ones give its eigenvalues and a covariant S; written ones come back; broken ones say so."""

import re
import shutil

import numpy as np
import pytest
from ase.units import Bohr

from ase_hybridham.errors import FormatError
from ase_hybridham.io import format_of, read_system
from ase_hybridham.io.abacus import RYDBERG, read_abacus
from ase_hybridham.system import LCAOSystem
from tests.io.mutations import assert_survives, mutated_folders
from tests.io.structures import (
    assert_same,
    caught,
    covariance_error,
    covariant_system,
    eigenvalues,
    reordered,
    unpacked,
)

H, H_DOWN, S, LOG = (
    "data-HR-sparse_SPIN0.csr",
    "data-HR-sparse_SPIN1.csr",
    "data-SR-sparse_SPIN0.csr",
    "running_scf.log",
)


@pytest.fixture(scope="module")
def samples(golden, tmp_path_factory):
    return unpacked(golden / "abacus", tmp_path_factory.mktemp("abacus"))


# -- a writer of its own: the layouts as plain loops


def log_of(system: LCAOSystem) -> str:
    """The lines of a log that a reader needs, among others."""
    lines = ["", "   ABACUS v3.8.0", "", " READING UNITCELL INFORMATION", "   lattice constant (Bohr) = 1.5", ""]
    symbols = list(dict.fromkeys(system.atoms.symbols))
    for number, symbol in enumerate(symbols):
        degrees = system.basis[symbol].degrees
        lines += [f" READING ATOM TYPE {number + 1}", f"        atom label = {symbol}1"]
        lines += [f"         L={l}, number of zeta = {degrees.count(l)}" for l in range(max(degrees) + 1)]
        lines += [f"         number of atom for this type = {list(system.atoms.symbols).count(symbol)}", ""]
    lines += ["CARTESIAN COORDINATES ( UNIT =       1.500000000000 Bohr ).", "  atom   x   y   z   mag"]
    positions = system.atoms.positions / (1.5 * Bohr)
    lines += [
        f"tauc_{symbol}1{i} {x:.10f} {y:.10f} {z:.10f} 0.0"
        for i, (symbol, (x, y, z)) in enumerate(zip(system.atoms.symbols, positions, strict=True))
    ]
    lines += ["", " Lattice vectors: (Cartesian coordinate: in unit of a_0)"]
    lines += [f"  {x:+.10g} {y:+.10g} {z:+.10g}" for x, y, z in system.atoms.cell.array / (1.5 * Bohr)]
    lines += [" Reciprocal vectors: (Cartesian coordinate: in unit of 2 pi/a_0)", "  +1  +0  +0", ""]
    lines += [f"  electron number of element {s}1 = {system.basis[s].valence:g}" for s in symbols]
    nspin = {"none": 1, "collinear": 2, "spinor": 4}[system.spin]
    lines += ["            AUTOSET number of electrons:  = 26", f"      nspin = {nspin}"]
    lines += [
        " E_Fermi   0.1   1.36",
        f" EFERMI = {system.fermi_level} eV",
        "K-POINTS DIRECT COORDINATES",
        " 1 0 0 0 1",
    ]
    return "\n".join(lines) + "\n"


def spin_fast(matrix, sizes):
    """Rows atom by atom, up then down, to up and down in turn."""
    start = 2 * np.concatenate([[0], np.cumsum(sizes)[:-1]])
    order = [start[i] + spin * n + a for i, n in enumerate(sizes) for a in range(n) for spin in (0, 1)]
    return matrix[np.ix_(order, order)]


def csr_text(operator, blocks, new_layout, n_atoms, step=True):
    sizes = blocks.basis.sizes(blocks.pairs.numbers)
    alternating = reordered(
        blocks, lambda l: [0] + [s * m for m in range(1, l + 1) for s in (1, -1)], lambda m: (-1) ** m
    )
    rows = []
    for shift, dense in alternating.items():
        matrix = spin_fast(dense, sizes) if blocks.spinor else dense
        i, j = np.nonzero(matrix)
        values = [f"({v.real:.16e},{v.imag:.16e})" if blocks.spinor else f"{v:.16e}" for v in matrix[i, j]]
        ends = np.searchsorted(i, np.arange(len(matrix) + 1))
        name = " ".join(map(str, shift)) + f" {len(i)}"
        parts = [values, map(str, j), map(str, ends)]
        if new_layout:
            titles = (" # CSR values", " # CSR column indices", " # CSR row pointers")
            rows += [" " + name]
            for title, part in zip(titles, parts, strict=True):
                words = list(part)
                rows += [title] + [" " + " ".join(words[n : n + 6]) for n in range(0, len(words), 6)]
            rows += [""]
        else:
            rows += [name] + [" " + " ".join(part) for part in parts]
    n = len(matrix)
    if new_layout:
        head = [" --- Ionic Step 1 ---", f" # print {operator} matrix in real space {operator}(R)"]
        head += [" 1 # number of spin directions", " 1 # spin index", f" {n} # number of localized basis"]
        head += [f" {len(alternating)} # number of Bravais lattice vector R", "", " user_defined_lattice", " 0.79"]
        head += [" 1 0 0", " 0 1 0", " 0 0 1", " C", f" {n_atoms}", " Direct", " 0 0 0", ""]
        head += [" #-------------#", " #  CSR Format #", " #-------------#", ""]
    else:
        head = ["STEP: 0"] * step + [f"Matrix Dimension of {operator}(R): {n}"]
        head += [f"Matrix number of {operator}(R): {len(alternating) + 1}", "9 9 9 0"]  # one without elements
    return "\n".join(head + rows) + "\n"


def write_abacus(system, folder, *, new_layout=False, step=True):
    folder.mkdir(parents=True)
    (folder / LOG).write_text(log_of(system))
    names = ("hrs1_nao.csr", "hrs2_nao.csr", "srs1_nao.csr") if new_layout else (H, H_DOWN, S)
    overlap = system.overlap.to_spinor() if system.spin == "spinor" else system.overlap
    for name, blocks in zip(names, system.hamiltonian, strict=False):
        text = csr_text("H", blocks * (1 / RYDBERG), new_layout, len(system.atoms), step)
        (folder / name).write_text(text)
    (folder / names[2]).write_text(csr_text("S", overlap, new_layout, len(system.atoms), step))


# -- real samples


def test_eigenvalues_are_those_abacus_printed(samples):
    system = read_system(samples / "MoS2")
    text = (samples / "MoS2/istate.info").read_text()
    k_points = [np.array(k.split(), dtype=float) for k in re.findall(r"Kpoint = \d+\s+\((.*)\)", text)]
    tables = re.split(r"^BAND.*$", text, flags=re.MULTILINE)[1:]
    assert len(k_points) == len(tables) == 3
    for k, table in zip(k_points, tables, strict=True):
        expected = [float(line.split()[1]) for line in table.splitlines() if line.strip()]
        # the files print 9 digits: found 3.4e-7 eV; CODATA's rydberg would add 2e-5
        np.testing.assert_allclose(eigenvalues(system, k)[: len(expected)], expected, rtol=0, atol=1e-6)


def test_what_the_log_tells(samples):
    system = read_abacus(samples / "MoS2")
    assert system.electrons == 26
    assert system.fermi_level == pytest.approx(-2.3123356452)
    assert system.basis["Mo"].degrees == (0, 0, 0, 0, 1, 1, 2, 2, 3)
    assert system.basis["Mo"].valence == 14
    assert system.provenance == {"format": "abacus", "version": "v3.10.0", "functional": "PBE"}
    assert system.atoms.pbc.tolist() == [True, True, False]
    assert system.atoms.cell.cellpar()[:3] == pytest.approx([3.16003463, 3.16003463, 37.92041557], abs=1e-5)  # STRU.cif


def test_overlap_is_covariant(samples):
    """Orbital order, signs and the sign of R at once, with f shells; GaAs holds S of spinors."""
    for name in ("MoS2", "GaAs_S"):
        system = read_abacus(samples / name)
        # 9 digits of S and a lattice of six digits: found 2.2e-7 and 1.4e-6
        assert covariance_error(system.overlap, system.basis) < 5e-6
        assert system.overlap.hermiticity_error() < 1e-8
    assert system.spin == "spinor"


def test_spinors_of_a_magnetic_atom_are_spherical_for_each_spin(golden, tmp_path):
    folder = tmp_path / "C"
    shutil.copytree(golden / "abacus/C_spin4", folder)
    (folder / LOG).write_text(CARBON_LOG)
    system = read_abacus(folder)
    assert system.spin == "spinor"
    block = system.hamiltonian[0].block(0).reshape(2, 13, 2, 13)
    p_shells = block[:, 2:5, :, 2:5], block[:, 2:5, :, 5:8], block[:, 8:13, :, 8:13]
    for shell in p_shells:
        for spin in (0, 1):
            level = shell[spin, 0, spin, 0]
            # eV; the box is a cube: its field splits d into three and two, found 8e-3
            np.testing.assert_allclose(shell[spin, :, spin], level * np.eye(shell.shape[1]), atol=2e-2)
        assert np.abs(shell[0, :, 1]).max() == 0
    assert block[1, 0, 1, 0].real - block[0, 0, 0, 0].real > 1.0  # exchange splitting


CARBON_LOG = """
 READING UNITCELL INFORMATION
                  lattice constant (Bohr) = 1.89036
 READING ATOM TYPE 1
                               atom label = C
                      L=0, number of zeta = 2
                      L=1, number of zeta = 2
                      L=2, number of zeta = 1
             number of atom for this type = 1
DIRECT COORDINATES
    atom                   x                   y                   z     mag
taud_C1            0.0000000000        0.0000000000        0.0000000000  0.0000

 Lattice vectors: (Cartesian coordinate: in unit of a_0)
                  +10                  +0                  +0
                   +0                 +10                  +0
                   +0                  +0                 +10
 Reciprocal vectors: (Cartesian coordinate: in unit of 2 pi/a_0)
"""


# -- written samples


@pytest.mark.parametrize("new_layout", [False, True])
@pytest.mark.parametrize("spin", ["none", "collinear", "spinor"])
def test_written_then_read_is_the_same(mixed_basis, tmp_path, spin, new_layout):
    system = covariant_system(1, mixed_basis, spin)
    write_abacus(system, tmp_path / "a", new_layout=new_layout)
    assert format_of(tmp_path / "a").name == "abacus"
    again = read_abacus(tmp_path / "a")
    assert_same(again, system, 1e-12)
    assert again.fermi_level == system.fermi_level
    assert again.basis["C"].valence == 4
    assert not caught(again)


def test_headers_before_version_3_and_leftovers(mixed_basis, tmp_path):
    system = covariant_system(2, mixed_basis, "none")
    write_abacus(system, tmp_path / "old", step=False)
    assert_same(read_abacus(tmp_path / "old"), system, 1e-12)
    write_abacus(system, tmp_path / "both")
    write_abacus(covariant_system(2, mixed_basis, "spinor"), tmp_path / "spinor")
    shutil.copy(tmp_path / "spinor" / S, tmp_path / "both" / S)
    with pytest.raises(FormatError, match="not of one nspin"):
        read_abacus(tmp_path / "both")


def test_overlap_alone_and_hamiltonian_alone(mixed_basis, tmp_path):
    write_abacus(covariant_system(2, mixed_basis, "none"), tmp_path / "a")
    (tmp_path / "a" / H).rename(tmp_path / "kept")
    assert read_abacus(tmp_path / "a").hamiltonian == ()
    (tmp_path / "kept").rename(tmp_path / "a" / H)
    (tmp_path / "a" / S).unlink()
    with pytest.raises(FormatError, match="out_mat_hs2"):
        read_abacus(tmp_path / "a")


def test_a_missing_log_is_named(mixed_basis, tmp_path):
    write_abacus(covariant_system(2, mixed_basis, "none"), tmp_path / "a")
    (tmp_path / "a" / LOG).unlink()
    with pytest.raises(FormatError, match=r"running_scf\.log is missing"):
        read_system(tmp_path / "a")


def test_one_spin_of_two_is_refused(mixed_basis, tmp_path):
    write_abacus(covariant_system(3, mixed_basis, "collinear"), tmp_path / "a")
    (tmp_path / "a" / H_DOWN).unlink()
    with pytest.raises(FormatError, match="both spins"):
        read_abacus(tmp_path / "a")


BROKEN = {
    "several steps": (H, lambda t: t + t, "several steps"),
    "dimension": (S, lambda t: re.sub(r"(Dimension of S\(R\): )\d+", r"\g<1>7", t), "for the atoms of the log, got 7"),
    "matrices": (S, lambda t: re.sub(r"(number of S\(R\): )\d+", r"\g<1>900000000", t), "ends too early"),
    "fewer": (S, lambda t: re.sub(r"(number of S\(R\): )\d+", r"\g<1>2", t), "more numbers follow"),
    "nan": (H, lambda t: re.sub(r"\d\.\d+e[+-]\d\d", "nan", t, count=1), "finite"),
    "word": (H, lambda t: t + "x\n", "numbers and nothing else"),
    "binary": (H, lambda t: "\x01\x02" + t[40:], "expected the header"),
    "no basis": (LOG, lambda t: t.replace("number of zeta", "number of"), "atom type 1"),
    "element": (LOG, lambda t: t.replace("atom label = ", "atom label = ?"), "begins with an element"),
    "ghosts": (LOG, lambda t: re.sub(r"(atom label = \w+)", r"\1_empty", t), "_empty' are ghosts"),
    "moved": (LOG, lambda t: t + "DIRECT COORDINATES\n atom x y z\ntaud_C 0 0 0 0\n\n", "2 tables"),
    "atoms": (LOG, lambda t: re.sub(r"tauc_.*\n", "", t, count=1), "coordinates of 4 atoms by their types, got 3"),
    "lattice": (LOG, lambda t: re.sub(r"a_0\)\n.*\n", "a_0)\n 0 0 0\n", t, count=1), "three independent"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_named(mixed_basis, tmp_path, case):
    write_abacus(covariant_system(3, mixed_basis, "none"), tmp_path / "a")
    name, change, message = BROKEN[case]
    path = tmp_path / "a" / name
    path.write_text(change(path.read_text()))
    with pytest.raises(FormatError, match=message) as caught_error:
        read_abacus(tmp_path / "a")
    assert name in str(caught_error.value) or case == "nan"


@pytest.mark.parametrize("new_layout", [False, True])
def test_damage_is_noticed(mixed_basis, tmp_path, new_layout):
    system = covariant_system(5, mixed_basis, "spinor" if new_layout else "none", n_atoms=3)
    write_abacus(system, tmp_path / "a", new_layout=new_layout)
    original = read_abacus(tmp_path / "a")
    n_refused = sum(
        assert_survives(read_abacus, damage, copy, original, caught)
        for damage, copy in mutated_folders(tmp_path / "a", tmp_path, 100, seed=new_layout)
    )
    assert n_refused > 50
