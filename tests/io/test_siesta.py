"""SIESTA's files: its own levels at its own k-points, spin-orbit coupling included; damaged ones are refused."""

import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ase_hybridham.cli.naming import structures_below
from ase_hybridham.errors import FormatError
from ase_hybridham.io import format_of, read_system
from ase_hybridham.io.siesta import RYDBERG, read_siesta
from ase_hybridham.io.siesta_orbitals import BOHR
from ase_hybridham.symmetry import rotate_system, time_reversal_error
from ase_hybridham.system import PairBlocks
from tests.io.mutations import assert_survives, mutants
from tests.io.structures import (
    assert_same,
    caught,
    covariance_error,
    covariant_system,
    eigenvalues,
    reordered,
    unpacked,
)

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


def test_of_a_folder_with_both_only_one_is_taken_but_each_can_be_named(samples):
    both = [samples / "Pt2_soc/Pt2.HSX", samples / "Pt2_soc/Pt2.TSHS"]
    assert [format_of(path).name for path in both] == ["siesta", "siesta"]
    assert structures_below(samples / "Pt2_soc") == both[:1]
    assert structures_below(both[1]) == both[1:]


def write_hsx(system, path, parts, order="<", version=2):
    """A file of that byte order by plain loops; `parts` are the real components of H, each without spin."""
    records = []

    def add(*fields):
        content = b"".join(
            np.asarray(v).astype(kind if kind[0] == "S" else order + kind).tobytes() for kind, v in fields
        )
        marker = np.array([len(content)], order + "i4").tobytes()
        records.append(marker + content + marker)

    atoms, basis = system.atoms, system.basis
    signs = [lambda l: list(range(-l, l + 1)), lambda m: (-1) ** m]
    dense = [reordered(part, *signs) for part in parts]
    overlap = reordered(system.overlap, *signs)
    n, cells = len(overlap[0, 0, 0]), list(overlap)
    symbols = sorted(basis.atoms)
    add(("i4", [version]))
    add(("i4", [-1]))  # true, as Intel's compiler writes it
    add(("i4", [len(atoms), n, len(parts), len(symbols), len(cells), 1, 1]))
    add(("f8", atoms.cell.array.ravel() / BOHR), ("f8", [system.fermi_level / RYDBERG, 26.0, 0.002]))
    kinds = [symbols.index(symbol) + 1 for symbol in atoms.symbols]
    ends = np.cumsum(basis.sizes(atoms.numbers))
    add(("i4", cells), ("f8", atoms.positions / BOHR), ("i4", kinds), ("i4", ends))
    table = [
        (("S20", [f"{s}_psml".ljust(20).encode()]), ("f8", [basis[s].valence]), ("i4", [basis[s].size]))
        for s in symbols
    ]
    add(*(entry for species in table for entry in species))
    for symbol in symbols:
        shells = [(2, l, zeta) for zeta, l in enumerate(basis[symbol].degrees) for _ in range(2 * l + 1)]
        add(("i4", shells))
    if version == 2:
        add(("i4", np.diag([3, 3, 1])), ("f8", [0.0, 0.0, 0.5]))
    # row i of the file holds <j, R| M |i, 0>
    rows = [
        [
            (c, j)
            for c, (x, y, z) in enumerate(cells)
            for j in range(n)
            if any(m[-x, -y, -z][j, i] for m in (*dense, overlap))
        ]
        for i in range(n)
    ]
    add(("i4", [len(row) for row in rows]))
    for row in rows:
        add(("i4", [c * n + j + 1 for c, j in row]))
    for factor, matrix in [*((RYDBERG, matrix) for matrix in dense), (1.0, overlap)]:
        for i, row in enumerate(rows):
            add(("f8", [matrix[tuple(-np.array(cells[c]))][j, i] / factor for c, j in row]))
    path.write_bytes(b"".join(records))


def spinor_of(parts):
    """Complex spinor blocks of their four quadrants, each without spin."""
    first = parts[0]
    stacks = {e: [p.values[p.index(rows)] for p in parts] for e, rows in first.pairs.element_groups.items()}
    blocks = {e: np.block([[uu, ud], [du, dd]]) for e, (uu, ud, du, dd) in stacks.items()}
    return PairBlocks.from_groups(first.pairs, first.basis, blocks, spinor=True)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("n_parts", [1, 2, 4, 8])
def test_written_then_read_is_the_same(mixed_basis, tmp_path, n_parts, order):
    system = covariant_system(4, mixed_basis, "collinear" if n_parts == 2 else "none")
    rng = np.random.default_rng(n_parts)
    noise = [system.overlap.with_values(rng.normal(size=system.overlap.values.shape)) for _ in range(n_parts)]
    real = [blocks.hermitian_part() for blocks in noise]
    if n_parts < 4:
        parts = system.hamiltonian
    elif n_parts == 4:  # four fields h_0 + h_z, h_0 - h_z, h_x, h_y
        parts = real
        up, down, x, y = parts
        quadrants = up * (1 + 0j), x - 1j * y, x + 1j * y, down * (1 + 0j)
    else:  # any Hermitian H: the quadrants up-down and down-up are each other's partners
        imaginary = [blocks + -1 * blocks.adjoint() for blocks in noise[4:6]]
        up_down = noise[2] + 1j * noise[3]
        down_up = up_down.adjoint()
        quadrants = real[0] + 1j * imaginary[0], up_down, down_up, real[1] + 1j * imaginary[1]
        numbers = [q.values for q in quadrants]
        parts = [real[0], real[1]] + [real[0].with_values(v) for v in (numbers[1].real, -numbers[1].imag)]
        parts += [*imaginary, real[0].with_values(numbers[2].real), real[0].with_values(numbers[2].imag)]
    if n_parts > 2:
        system = replace(system, hamiltonian=(spinor_of(quadrants),), spin="spinor")
    write_hsx(system, tmp_path / "a.HSX", parts, order, version=1 + (n_parts > 2))
    found = read_siesta(tmp_path / "a.HSX")
    assert_same(found, system, 1e-12)
    assert found.fermi_level == pytest.approx(system.fermi_level)
    assert found.electrons == 26
    assert found.basis["C"].valence == 4


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
