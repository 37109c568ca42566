"""SIESTA's files: its own levels at its own k-points, spin-orbit coupling included; damaged ones are refused."""

import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ase_hybridham.errors import FormatError
from ase_hybridham.io import format_of, read_system
from ase_hybridham.io.siesta import read_siesta
from ase_hybridham.io.siesta_orbitals import BOHR
from ase_hybridham.symmetry import rotate_system, time_reversal_error
from tests.io.mutations import assert_survives, mutants
from tests.io.structures import caught, covariance_error, eigenvalues, unpacked

# folder, file, spin, largest difference to the printed levels below E_F + 10 eV: .EIG has nine digits, found 5e-8 eV
# (Pt: its levels reach to -100 eV, found 3.5e-7); the rydberg of SIESTA 4 would be off by 1e-4
SAMPLES = [
    ("Pt2_soc", "Pt2.HSX", "spinor", 1e-6),
    ("Pt2_soc", "Pt2.TSHS", "spinor", 1e-6),
    ("Bi_soc", "Bi.HSX", "spinor", 1e-7),
    ("Fe", "fe.HSX", "collinear", 1e-7),
    ("H_chain", "h_chain.HSX", "none", 1e-7),
    ("Si", "Si.HSX", "none", 1e-7),
]


@pytest.fixture(scope="module")
def samples(golden, tmp_path_factory):
    return unpacked(golden / "siesta", tmp_path_factory.mktemp("siesta"))


def printed_levels(path: Path, n_spins: int):
    """Reduced k-points and eigenvalues (n_spins, n_k, n_bands) that SIESTA printed."""
    words = path.with_suffix(".EIG").read_text().split()
    n_k = int(words[3])
    table = np.array(words[4:], dtype=float).reshape(n_k, -1)[:, 1:]
    lines = path.with_suffix(".KP").read_text().splitlines()[1:]
    k = np.array([line.split()[1:4] for line in lines], dtype=float) / BOHR
    return k, np.sort(table.reshape(n_k, n_spins, -1).transpose(1, 0, 2), axis=-1)


def on_mesh(k):
    """Reduced coordinates of a mesh, which six digits of a k-point tell exactly."""
    return np.array([float(Fraction(float(x)).limit_denominator(60)) for x in k])


@pytest.mark.parametrize(("folder", "name", "spin", "tolerance"), SAMPLES)
def test_levels_are_those_siesta_printed(samples, folder, name, spin, tolerance):
    system = read_system(samples / folder / name, format="siesta")
    assert system.spin == spin
    k, levels = printed_levels(samples / folder / name, len(system.hamiltonian))
    k = k @ system.atoms.cell.array.T / (2 * np.pi)
    chosen = np.unique(np.linspace(0, len(k) - 1, 3).astype(int))
    for number in range(len(system.hamiltonian)):
        for row in chosen:
            ours, theirs = eigenvalues(system, on_mesh(k[row]), number), levels[number, row]
            low = theirs < system.fermi_level + 10
            assert low.sum() > 2
            np.testing.assert_allclose(ours[low], theirs[low], rtol=0, atol=tolerance)


@pytest.mark.parametrize(("folder", "name"), [sample[:2] for sample in SAMPLES])
def test_overlap_is_covariant_and_all_is_hermitian(samples, folder, name):
    system = read_siesta(samples / folder / name)
    # found 1.4e-9: SIESTA interpolates its two-centre integrals
    assert covariance_error(system.overlap, system.basis) < 1e-8
    assert all(blocks.hermiticity_error() < 1e-7 for blocks in system.operators)


def test_spin_turns_with_the_orbitals(samples):
    """Moments and bond along x: a quarter turn about x of spin and orbitals leaves all as it is.

    It would not with up-down and down-up exchanged, or with rows taken for columns: both turn the sign of the
    coupling of spin and orbit.
    """
    system = read_siesta(samples / "Pt2_soc/Pt2.HSX")
    quarter = Rotation.from_rotvec([np.pi / 2, 0, 0]).as_matrix()

    def change(one):
        turned = rotate_system(one, quarter)
        assert turned.pairs.same_pairs(one.pairs)
        return np.abs(turned.hamiltonian[0].values - one.hamiltonian[0].values).max()

    assert change(system) < 1e-7  # eV; found 3e-9
    hamiltonian = system.hamiltonian[0]
    assert change(replace(system, hamiltonian=(hamiltonian.with_values(hamiltonian.values.conj()),))) > 1.0
    assert time_reversal_error(hamiltonian) > 0.1  # magnetic
    up_down = hamiltonian.block(0)[:19, 19:]
    assert up_down.real.diagonal().max() < -0.05  # all orbitals of Pt feel the moment along x


def test_time_reversal_of_a_nonmagnetic_crystal(samples):
    hamiltonian = read_siesta(samples / "Bi_soc/Bi.HSX").hamiltonian[0]
    # its self-consistency stopped at 1e-3 eV, against a coupling of 1.2 eV
    assert time_reversal_error(hamiltonian) < 3e-3
    assert np.abs(hamiltonian.values.imag).max() > 1.0


def test_what_the_file_tells(samples):
    iron = read_siesta(samples / "Fe/fe.HSX")
    assert iron.electrons == pytest.approx(16)
    assert iron.basis["Fe"].valence == 16
    assert [shell.label for shell in iron.basis["Fe"].shells] == ["3s1", "4s1", "4s2", "3p1", "4p1", "3d1", "3d2"]
    silicon = read_siesta(samples / "Si/Si.HSX")
    assert silicon.provenance == {"format": "siesta", "k_mesh": [[8, 0, 0], [0, 8, 0], [0, 0, 8]]}
    assert silicon.atoms.pbc.all()
    assert read_siesta(samples / "H_chain/h_chain.HSX").atoms.pbc.tolist() == [True, False, False]


def test_both_files_of_a_run_hold_the_same(samples):
    one, other = (read_siesta(samples / "Pt2_soc" / name) for name in ("Pt2.HSX", "Pt2.TSHS"))
    for a, b in zip(one.operators, other.operators, strict=True):
        np.testing.assert_allclose(a.values, b.values, atol=1e-12)
    assert one.fermi_level == pytest.approx(other.fermi_level, abs=1e-12)
    assert one.electrons == pytest.approx(other.electrons)


def test_of_a_folder_with_both_only_one_is_recognised(samples):
    assert format_of(samples / "Pt2_soc/Pt2.HSX").name == "siesta"
    assert format_of(samples / "Pt2_soc/Pt2.TSHS") is None


def test_big_endian_files_are_read(samples, tmp_path):
    """All fields of H_chain are 4 or 8 bytes wide but labels; turned around here record by record."""
    content = (samples / "H_chain/h_chain.HSX").read_bytes()
    records, at = [], 0
    while at < len(content):
        size = int(np.frombuffer(content, "<i4", 1, at)[0])
        records.append(content[at + 4 : at + 4 + size])
        at += size + 8
    n_cells, n_atoms = 3, 6
    parts = {2: [("i4", 7)], 3: [("f8", 12)], 4: [("i4", 3 * n_cells), ("f8", 3 * n_atoms), ("i4", 2 * n_atoms)]}
    parts[5] = [("S20", 1), ("f8", 1), ("i4", 1)]
    integers = {0, 1, 6, 7, *range(8, 14)}
    out = b""
    for number, record in enumerate(records):
        start, swapped = 0, b""
        for kind, count in parts.get(
            number, [("i4", len(record) // 4) if number in integers else ("f8", len(record) // 8)]
        ):
            values = np.frombuffer(record, np.dtype(kind).newbyteorder("<"), count, start)
            start += values.nbytes
            swapped += values.astype(values.dtype.newbyteorder(">")).tobytes()
        marker = np.array([len(record)], ">i4").tobytes()
        out += marker + swapped + marker
    (tmp_path / "turned.HSX").write_bytes(out)
    expected, found = read_siesta(samples / "H_chain/h_chain.HSX"), read_siesta(tmp_path / "turned.HSX")
    for a, b in zip(found.operators, expected.operators, strict=True):
        np.testing.assert_array_equal(a.values, b.values)


def test_a_folded_matrix_is_refused(samples, tmp_path):
    with pytest.raises(FormatError, match="ForceAuxCell"):
        read_siesta(samples / "H2O_folded/h2o.HSX")
    # the self-overlap shows it without the table of radii
    shutil.copy(samples / "H2O_folded/h2o.HSX", tmp_path)
    with pytest.raises(FormatError, match="ForceAuxCell"):
        read_siesta(tmp_path / "h2o.HSX")


def test_files_that_cannot_serve(samples, tmp_path):
    shutil.copy(samples / "Pt2_soc/Pt2.TSHS", tmp_path)
    with pytest.raises(FormatError, match=r"Pt2\.ORB_INDX: is missing"):
        read_siesta(tmp_path / "Pt2.TSHS")
    marker = np.array([16], "<i4").tobytes()
    (tmp_path / "old.HSX").write_bytes(marker + np.array([2, 2, 1, 4], "<i4").tobytes() + marker)
    with pytest.raises(FormatError, match="version 0"):
        read_siesta(tmp_path / "old.HSX")
    (tmp_path / "text.HSX").write_text("no binary file\n")
    with pytest.raises(FormatError, match="first record"):
        read_siesta(tmp_path / "text.HSX")
    ghosts = (samples / "H_chain/h_chain.HSX").read_bytes()
    one = np.array([1.0]).tobytes()
    at = ghosts.index(b"H" + b" " * 19) + 20
    assert ghosts[at : at + 8] == one
    (tmp_path / "ghosts.HSX").write_bytes(ghosts[:at] + bytes(8) + ghosts[at + 8 :])
    with pytest.raises(FormatError, match="ghosts"):
        read_siesta(tmp_path / "ghosts.HSX")


@pytest.mark.parametrize("name", ["Pt2.HSX", "Pt2.TSHS"])
def test_damage_is_noticed(samples, tmp_path, name):
    source = samples / "Pt2_soc" / name
    original = read_siesta(source)
    shutil.copy(samples / "Pt2_soc/Pt2.ORB_INDX", tmp_path)
    path, n_refused = tmp_path / name, 0
    for damage, content in mutants(source.read_bytes(), 200, head=1024):
        path.write_bytes(content)
        n_refused += assert_survives(read_siesta, damage, path, original, caught)
    assert n_refused > 100


def test_damage_of_the_orbital_table_is_noticed(samples, tmp_path):
    shutil.copy(samples / "Pt2_soc/Pt2.TSHS", tmp_path)
    path, table = tmp_path / "Pt2.TSHS", tmp_path / "Pt2.ORB_INDX"
    original = read_siesta(samples / "Pt2_soc/Pt2.TSHS")
    content = (samples / "Pt2_soc/Pt2.ORB_INDX").read_bytes()
    for damage, damaged in mutants(content, 100, head=len(content)):
        table.write_bytes(damaged)
        message = ""
        try:
            found = read_siesta(path)
        except FormatError as error:
            message = str(error)
        else:
            assert found.basis.same_orbitals(original.basis), damage
        assert not message or "Pt2.ORB_INDX" in message or "Pt2.TSHS" in message
