"""The .scfout of OpenMX: real files give OpenMX's own bands, electrons, energies; made ones come back as they were."""

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ase_hybridham import solve
from ase_hybridham.errors import FormatError
from ase_hybridham.io import (
    format_of,
    read_deeph,
    read_openmx,
    read_openmx_band,
    read_openmx_matrices,
    read_system,
)
from ase_hybridham.io.openmx_band import HARTREE
from ase_hybridham.io.openmx_input import BOHR, parse_species
from ase_hybridham.system import AtomBasis, Basis, LCAOSystem, PairBlocks, PairList
from tests.conftest import random_atoms
from tests.io.scfout import input_text, scfout, sections, swapped

GOLDEN = [
    "graphene",
    "graphene_moved",
    "H2O_across_boundary",
    "O2_triplet_collinear",
    "O2_triplet_collinear_v38",
    "OH_charged",
    "O2_spin_orbit",
    "O2_spin_orbit_v38",
]
RAW = [
    "graphene",
    "graphene_v38",
    "bilayer_graphene_AB",
    "MoS2_monolayer",
    "Bi_bismuthene_soc",
    "CH4_molecule",
    "H2O_across_boundary",
    "O2_triplet_collinear",
    "O2_triplet_collinear_v38",
]
ELECTRONS = {"graphene": 8, "H2O_across_boundary": 8, "OH_charged": 6.5}  # the others have 12, graphene_moved 8
BAND_ENERGY = {  # hartree, "Uele." that the runs printed
    "graphene_moved": -4.782797264676,
    "OH_charged": -4.427608246663,
    "O2_spin_orbit": -7.404077362906,
}


@pytest.fixture
def samples(golden: Path) -> Path:
    return golden / "openmx"


def spinful_overlap(system: LCAOSystem) -> PairBlocks:
    return system.overlap.to_spinor() if system.spin == "spinor" else system.overlap


def assert_bands(folder: Path) -> None:
    system = read_openmx(folder / "openmx.scfout.gz")
    reference = read_openmx_band(folder / "openmx.Band")
    found = solve.eigenvalues(system, reference.k_points)
    assert found.shape == reference.eigenvalues.shape
    # 5e-10 hartree is the noise that OpenMX leaves in H and S; graphene's S is nearly singular
    np.testing.assert_allclose(found, reference.eigenvalues, rtol=0, atol=1e-6)
    assert system.fermi_level == pytest.approx(reference.fermi_level, abs=1e-9)


def assert_same_as_deeph(folder: Path) -> None:
    ours, theirs = read_openmx(folder / "openmx.scfout.gz"), read_deeph(folder / "deeph")
    assert ours.spin == theirs.spin
    assert ours.pairs.same_pairs(theirs.pairs)
    np.testing.assert_allclose(ours.pairs.vectors, theirs.pairs.vectors, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(ours.atoms.pbc, theirs.atoms.pbc)
    assert ours.basis.same_orbitals(theirs.basis)
    for a, b in zip(ours.operators, theirs.operators, strict=True):
        np.testing.assert_allclose(a.values, b.values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sample", GOLDEN)
def test_bands_are_those_openmx_printed(samples, sample):
    assert_bands(samples / sample)


@pytest.mark.parametrize("sample", RAW)
def test_bands_of_the_larger_samples(reference_data, sample):
    assert_bands(reference_data / "raw" / sample)


@pytest.mark.parametrize("sample", ["graphene", "H2O_across_boundary"])
def test_is_the_system_of_deephs_folder(samples, sample):
    assert_same_as_deeph(samples / sample)


@pytest.mark.parametrize("sample", [name for name in RAW if not name.startswith("O2")])
def test_larger_samples_are_the_systems_of_deephs_folders(reference_data, sample):
    assert_same_as_deeph(reference_data / "raw" / sample)


@pytest.mark.parametrize("sample", GOLDEN[:-1])
def test_density_matrix_holds_the_electrons_and_the_band_energy(samples, sample):
    path = samples / sample / "openmx.scfout.gz"
    system = read_openmx(path)
    density = read_openmx_matrices(path, ["density"])["density"]
    factor = 2 if system.spin == "none" else 1
    overlap = spinful_overlap(system)
    # plain products: S is real and symmetric, so a transposed or conjugated density matrix counts the same electrons,
    electrons = factor * sum((rho.values * overlap.values).sum() for rho in density)
    assert electrons == pytest.approx(ELECTRONS.get(sample, 8 if "graphene" in sample else 12), abs=1e-8)
    assert electrons == pytest.approx(system.electrons, abs=1e-8)
    # but not the same energy, where H is complex
    energy = factor * sum((rho.values * h.values).sum() for rho, h in zip(density, system.hamiltonian, strict=True))
    assert abs(energy.imag) < 1e-8
    if sample in BAND_ENERGY:
        assert energy.real / HARTREE == pytest.approx(BAND_ENERGY[sample], abs=1e-10)


def test_spins_of_a_triplet_hold_seven_and_five_electrons(samples):
    path = samples / "O2_triplet_collinear/openmx.scfout.gz"
    overlap = read_openmx(path).overlap
    density = read_openmx_matrices(path, ["density"])["density"]
    assert [(rho.values * overlap.values).sum() for rho in density] == pytest.approx([7, 5], abs=1e-9)


@pytest.mark.parametrize("sample", ["graphene", "H2O_across_boundary", "O2_spin_orbit"])
def test_position_matrices_know_the_distance_of_the_atoms(samples, sample):
    path = samples / sample / "openmx.scfout.gz"
    overlap = read_openmx(path).overlap
    position = read_openmx_matrices(path, ["position"])["position"]
    sizes = np.diff(overlap.offsets)
    for axis, matrix in enumerate(position):
        # <i|r - r_i|j> - <j|r - r_j|i>^T = d S; 2e-4 is OpenMX's grid of 150 Ry
        expected = np.repeat(overlap.pairs.vectors[:, axis], sizes) * overlap.values
        np.testing.assert_allclose(matrix.values - matrix.adjoint().values, expected, rtol=0, atol=3e-4)
    assert max(np.abs(matrix.values).max() for matrix in position) > 0.1


@pytest.mark.parametrize("sample", ["graphene", "O2_spin_orbit"])
def test_momentum_matrices_are_the_gradient_of_the_overlap(samples, sample):
    path = samples / sample / "openmx.scfout.gz"
    overlap = read_openmx(path).overlap
    momentum = read_openmx_matrices(path, ["momentum"])["momentum"]
    for matrix in momentum:  # <grad i|j> = -<i|grad j>; 2e-3 is the grid
        np.testing.assert_allclose(matrix.values, -matrix.adjoint().values, rtol=0, atol=4e-3)
    # the overlap of two lowest s orbitals falls with their distance
    pairs = overlap.pairs
    along = sum(
        np.array([matrix.block(p)[0, 0] for p in range(len(pairs))]) * pairs.vectors[:, axis]
        for axis, matrix in enumerate(momentum)
    )
    near = pairs.distances[pairs.n_atoms :] < 2.6
    assert near.any()
    assert (along[pairs.n_atoms :][near] < -0.01).all()


def test_positions_are_those_that_the_shifts_refer_to(samples):
    # OpenMX moved these atoms into the cell in the course of an optimization; the input has them outside
    system = read_openmx(samples / "graphene_moved/openmx.scfout.gz")
    assert system.pairs.distances.max() <= 2 * system.basis["C"].cutoff
    outside = read_openmx(samples / "H2O_across_boundary/openmx.scfout.gz")
    assert outside.atoms.get_scaled_positions(wrap=False).min() < 0


def test_what_else_the_file_tells(samples):
    system = read_openmx(samples / "OH_charged/openmx.scfout.gz")
    assert system.electrons == 6.5
    assert {symbol: atom.valence for symbol, atom in system.basis.atoms.items()} == {"O": 6, "H": 1}
    assert system.basis["O"].cutoff == pytest.approx(6.0 * BOHR)
    assert [shell.label for shell in system.basis["O"].shells] == ["s1", "s2", "p1", "p2", "d1"]
    assert system.basis.name == "H6.0-s2p1/O6.0-s2p2d1"
    assert system.potential_reference == "openmx"
    known = {"code": "OpenMX 3.9", "xc": "LSDA-CA", "k_mesh": [1, 1, 1], "energy_cutoff_Ry": 90.0}
    assert known.items() <= system.provenance.items()
    assert read_openmx(samples / "O2_spin_orbit/openmx.scfout.gz").provenance["spin_orbit"] is True
    old = read_openmx(samples / "O2_triplet_collinear_v38/openmx.scfout.gz")
    assert old.provenance["code"] == "OpenMX 3.8 or older"


def test_optimized_orbitals_are_as_many_as_the_matrices_have(samples):
    path = samples / "H2_optimized_orbitals/openmx.scfout.gz"
    system = read_openmx(path)
    assert system.basis["H"].degrees == (0, 0, 1)  # H6.0-s4>2p2>1
    rho = read_openmx_matrices(path, ["density"])["density"][0]
    assert (rho.values * system.overlap.values).sum() == pytest.approx(1, abs=1e-9)
    with pytest.raises(FormatError, match="optimized"):
        read_openmx_matrices(path, ["momentum"])


# -- files made here


def made_system(seed: int, spin: str = "none", degrees: dict[str, list[int]] | None = None) -> LCAOSystem:
    """Random atoms of three elements, interleaved, some outside the cell; H is hermitian and nothing else."""
    rng = np.random.default_rng(seed)
    shells = degrees or {"C": [0, 0, 1, 1, 2], "S": [0, 1, 3], "Mo": [0, 0, 0, 1, 2, 2, 4]}
    atoms = random_atoms(seed, 5)
    radii = {"C": 2.0, "Mo": 2.5, "S": 2.2}
    basis = Basis.of(
        *(AtomBasis.from_degrees(symbol, shells[symbol], 4.0, radii[symbol]) for symbol in sorted(set(atoms.symbols)))
    )
    pairs = PairList.from_atoms(atoms, basis.cutoffs())

    def blocks(spinor: bool) -> PairBlocks:
        zeros = PairBlocks.zeros(pairs, basis, spinor=spinor, dtype=complex if spinor else float)
        values = rng.normal(size=zeros.values.shape) + (1j * rng.normal(size=zeros.values.shape) if spinor else 0)
        return zeros.with_values(values).hermitian_part()

    hamiltonian = tuple(blocks(spin == "spinor") for _ in range(2 if spin == "collinear" else 1))
    electrons = 4.0 * len(atoms)
    return LCAOSystem(atoms, hamiltonian, blocks(False), spin=spin, fermi_level=rng.normal(), electrons=electrons)


def assert_same(found: LCAOSystem, made: LCAOSystem) -> None:
    assert found.spin == made.spin
    assert found.pairs.same_pairs(made.pairs)
    assert {s: a.degrees for s, a in found.basis.atoms.items()} == {s: a.degrees for s, a in made.basis.atoms.items()}
    np.testing.assert_allclose(found.pairs.vectors, made.pairs.vectors, rtol=0, atol=1e-12)
    assert found.fermi_level == pytest.approx(made.fermi_level, abs=1e-12)
    assert found.electrons == made.electrons
    for a, b in zip(found.operators, made.operators, strict=True):
        np.testing.assert_allclose(a.values, b.values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("spin", ["none", "collinear", "spinor"])
@pytest.mark.parametrize(("version", "order"), [(3, "<"), (3, ">"), (0, "<"), (0, ">")])
@pytest.mark.parametrize("seed", range(2))
def test_what_is_written_comes_back(tmp_path, seed, spin, version, order):
    made = made_system(seed, spin)
    path = tmp_path / "x.scfout"
    path.write_bytes(scfout(made, version=version, order=order))
    found = read_openmx(path)
    assert_same(found, made)
    assert {atom.valence for atom in found.basis.atoms.values()} == {4.0}
    assert all(atom.cutoff for atom in found.basis.atoms.values())  # fitted: the files' names hold none


@pytest.mark.parametrize("sample", ["graphene", "O2_triplet_collinear_v38", "O2_spin_orbit"])
def test_a_file_of_the_other_byte_order_is_the_same(samples, tmp_path, sample):
    content = gzip.decompress((samples / sample / "openmx.scfout.gz").read_bytes())
    path = tmp_path / "x.scfout"
    path.write_bytes(swapped(content))
    original = read_openmx(samples / sample / "openmx.scfout.gz")
    found = read_openmx(path)
    for a, b in zip(found.operators, original.operators, strict=True):
        np.testing.assert_array_equal(a.values, b.values)
    np.testing.assert_array_equal(found.pairs.vectors, original.pairs.vectors)


@pytest.mark.parametrize("compressed", [False, True])
def test_what_follows_the_file_is_ignored(samples, tmp_path, compressed):
    content = gzip.decompress((samples / "H2O_across_boundary/openmx.scfout.gz").read_bytes())
    content += b"\n***** the text output, which some append *****\n" * 200
    path = tmp_path / ("x.scfout.gz" if compressed else "x.scfout")
    path.write_bytes(gzip.compress(content) if compressed else content)
    assert_same(read_system(path), read_openmx(samples / "H2O_across_boundary/openmx.scfout.gz"))


def test_other_matrices_have_their_places_and_units(tmp_path):
    made = made_system(0)
    rng = np.random.default_rng(1)
    extra = [rng.normal(size=made.overlap.values.shape) for _ in range(10)]
    path = tmp_path / "x.scfout"
    path.write_bytes(scfout(made, n_powers=2, extra=extra))
    found = read_openmx_matrices(path, ["density", "momentum", "position"])
    units = [BOHR ** (1 + n % 2) for n in range(6)] + [1 / BOHR] * 3 + [1.0]
    matrices = [*found["position"], *found["momentum"], *found["density"]]
    for matrix, values, unit in zip(matrices, extra, units, strict=True):
        np.testing.assert_allclose(matrix.values, values * unit, rtol=0, atol=1e-13)
    assert_same(read_openmx(path), made)


def test_shells_come_in_the_order_of_l_however_the_name_has_them(tmp_path):
    made = made_system(0, degrees={"C": [0] * 10 + [1, 1, 3], "S": [1], "Mo": [2, 2]})
    text = input_text(made).replace("C_own-s10p2f1", "C_own-f1p2s10")
    path = tmp_path / "x.scfout"
    path.write_bytes(scfout(made, text=text))
    assert_same(read_openmx(path), made)


@pytest.mark.parametrize("file", ["Ni6", "Fe55a_1", "H075"])
def test_a_number_without_a_point_is_no_radius(file):
    assert parse_species("x", ["a", f"{file}-s2p1", "Ni_PBE19"]).radius is None
    for named in ("Fe5.5Hp", "C5.5_1s_CH", "X5.5"):
        assert parse_species("x", ["a", f"{named}-s2p1", "Ni_PBE19"]).radius == 5.5


def test_folder_and_command_line_know_the_format(samples, tmp_path):
    known = format_of(samples / "graphene/openmx.scfout.gz")
    assert known is not None
    assert known.name == "openmx"
    assert format_of(samples / "graphene/openmx.dat") is None


# -- what is refused


def rewritten(made: LCAOSystem, tmp_path: Path, **options: object) -> Path:
    path = tmp_path / "x.scfout"
    path.write_bytes(scfout(made, **options))
    return path


def with_ints(content: bytes, at: int, *values: int) -> bytes:
    return content[:at] + np.array(values, "<i4").tobytes() + content[at + 4 * len(values) :]


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, 2**30, "was the run stopped"),
        (0, 0, "counts of atoms"),
        (0, -1, "counts of atoms"),
        (4, 14, "spin switch"),
        (4, 12 + 64, "spin switch"),
        (4, 4 + 1, "development version"),
        (4, 8 + 3, "development version"),
        (8, 3, "transport"),
        (20, 2**31 - 1, "was the run stopped"),
        (24, 2**20, "powers"),
        (24, 0, "powers"),
    ],
)
def test_a_header_that_makes_no_sense(tmp_path, at, value, message):
    path = rewritten(made_system(0), tmp_path)
    path.write_bytes(with_ints(path.read_bytes(), at, value))
    with pytest.raises(FormatError, match=message) as caught:
        read_openmx(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("keep", [0, 3, 24, 500, 5000, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_that_ends_early(tmp_path, keep, compressed):
    path = rewritten(made_system(0), tmp_path)
    content = path.read_bytes()
    content = content[: int(keep * len(content)) if isinstance(keep, float) else keep]
    path.write_bytes(gzip.compress(content) if compressed else content)
    with pytest.raises(FormatError, match=r"x\.scfout"):
        read_openmx(path)


def test_a_file_without_its_input(tmp_path):
    made = made_system(0)
    path = rewritten(made, tmp_path, text="")
    for compressed in (False, True):
        if compressed:
            path.write_bytes(gzip.compress(path.read_bytes()))
        with pytest.raises(FormatError, match="copy of the input after the matrices, which alone names elements"):
            read_openmx(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<Definition.of.Atomic.Species", "<Definition.of.Something", "is missing"),
        ("C_own-s2p2d1", "C_own-s2p2", "orbitals, which"),
        ("C_own-s2p2d1", "C_own-s2p2h1", "expected a basis like"),
        ("C_own-s2p2d1", "C_own-s2p1s1", "expected a basis like"),
        ("C_own-s2p2d1", "C_own", "expected a basis like"),
        ("C_PBE19", "E", "empty atom"),
        ("C_PBE19", "C6Si4", "virtual atom"),
        (" 1 ", " 7 ", "atom 1: expected its number"),
        ("scf.Kgrid 3", "scf.Kgrid x", "Kgrid: expected a number"),
    ],
)
def test_an_input_that_does_not_fit(tmp_path, old, new, message):
    made = made_system(0)
    assert old in input_text(made)
    path = rewritten(made, tmp_path, text=input_text(made).replace(old, new, 1))
    with pytest.raises(FormatError, match=message):
        read_openmx(path)


def test_two_bases_for_one_element(tmp_path):
    shells = [0, 0, 1, 1, 2]
    made = made_system(3, degrees={"C": shells, "S": shells, "Mo": shells})
    symbol = made.atoms.symbols[0]
    assert list(made.atoms.symbols).count(symbol) > 1
    end = "Definition.of.Atomic.Species>"
    text = input_text(made).replace(end, f"y {symbol}_own-s1p4 X\n{end}")  # as many orbitals
    other = text.replace(f" 1 {symbol}x", " 1 y")
    assert_same(read_openmx(rewritten(made, tmp_path, text=text)), made)
    with pytest.raises(FormatError, match="atoms of one element must have one basis"):
        read_openmx(rewritten(made, tmp_path, text=other))


@pytest.mark.parametrize("axis", range(3))
def test_positions_that_do_not_fit_the_pairs(samples, tmp_path, axis):
    content = gzip.decompress((samples / "graphene/openmx.scfout.gz").read_bytes())
    place = sections(content)["positions"][0] + 32 + 8
    vector = read_openmx(samples / "graphene/openmx.scfout.gz").atoms.cell.array[axis] / BOHR
    moved = np.frombuffer(content[place : place + 24]) + vector  # as wrapping them would
    path = tmp_path / "x.scfout"
    path.write_bytes(content[:place] + moved.tobytes() + content[place + 24 :])
    with pytest.raises(FormatError, match="do not fit"):
        read_openmx(path)


@pytest.mark.parametrize("seed", range(3))
def test_a_pair_within_the_radii_must_be_there(samples, tmp_path, seed):
    system = read_openmx(samples / "graphene/openmx.scfout.gz")
    p = int(np.random.default_rng(seed).integers(system.pairs.n_atoms, len(system.pairs)))
    kept = np.setdiff1d(np.arange(len(system.pairs)), [p, system.pairs.reverse[p]])
    pairs = PairList.from_indices(system.atoms, system.pairs.i[kept], system.pairs.j[kept], system.pairs.shifts[kept])
    less = replace(system, hamiltonian=(system.hamiltonian[0].on_pairs(pairs),), overlap=system.overlap.on_pairs(pairs))
    text = input_text(less).replace("C_own", "C6.0")
    with pytest.raises(FormatError, match="is missing, though within the radii"):
        read_openmx(rewritten(less, tmp_path, text=text))
    read_openmx(rewritten(system, tmp_path, text=text))
    with pytest.raises(FormatError, match=r"is 6\.\d* angstrom long, more than the 5\.8"):
        read_openmx(rewritten(system, tmp_path, text=text.replace("C6.0", "C5.5")))


def test_an_atom_is_its_own_first_neighbor(tmp_path):
    """Two neighbors exchanged would exchange their blocks, and nothing else would tell."""
    path = rewritten(made_system(0), tmp_path)
    content = path.read_bytes()
    start, end, _ = sections(content)["neighbors"]
    for at in (start, (start + end) // 2):
        first, second = content[at : at + 4], content[at + 4 : at + 8]
        content = content[:at] + second + first + content[at + 8 :]
    path.write_bytes(content)
    with pytest.raises(FormatError, match="expected itself first"):
        read_openmx(path)


@pytest.mark.parametrize(
    ("part", "number", "message"),
    [
        ("translations", 5, "translation 1"),
        ("lattice", 1, "reciprocal"),
        ("cells", 6, "translation 1"),
    ],
)
def test_a_lattice_that_contradicts_itself(tmp_path, part, number, message):
    content = scfout(made_system(0))
    start, _, width = sections(content)[part]
    at = start + width * number
    value = np.frombuffer(content[at : at + width], f"<{'f' if width == 8 else 'i'}{width}") + 1
    path = tmp_path / "x.scfout"
    path.write_bytes(content[:at] + value.tobytes() + content[at + width :])
    with pytest.raises(FormatError, match=message):
        read_openmx(path)


def test_a_bomb_does_not_go_off(tmp_path):
    content = scfout(made_system(0, degrees={"C": [0], "S": [0], "Mo": [0]}))
    path = tmp_path / "x.scfout.gz"
    path.write_bytes(gzip.compress(content + bytes(2**26)))
    assert path.stat().st_size < 2**20
    with pytest.raises(FormatError, match="expands more than"):
        read_openmx(path)


def test_matrices_that_are_not_there(samples):
    with pytest.raises(ValueError, match="expected some of position, momentum, density"):
        read_openmx_matrices(samples / "graphene/openmx.scfout.gz", ["spin"])
    for sample, kind in {"O2_triplet_collinear_v38": "momentum", "O2_spin_orbit_v38": "density"}.items():
        with pytest.raises(FormatError, match=r"before 3\.9"):
            read_openmx_matrices(samples / sample / "openmx.scfout.gz", [kind])
