"""Folders in DeepH's layout: real ones give OpenMX's bands, broken ones one-line errors."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from ase import Atoms
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.linalg import eigvalsh

from ase_hybridham import solve
from ase_hybridham.errors import FormatError
from ase_hybridham.io import (
    formats,
    holds_blocks,
    read_deeph,
    read_deeph_atoms,
    read_openmx_band,
    read_system,
    write_deeph,
)
from ase_hybridham.symmetry import spherical_harmonics
from ase_hybridham.system import AtomBasis, Basis, LCAOSystem, PairBlocks, PairList

SAMPLES = [
    "graphene",
    "bilayer_graphene_AB",
    "MoS2_monolayer",
    "Bi_bismuthene_soc",
    "CH4_molecule",
    "H2O_across_boundary",
]


def bloch_sum(blocks: PairBlocks, k: NDArray) -> NDArray:
    """Dense M(k) by a plain loop, so that this test leans on no other room."""
    start = np.concatenate([[0], np.cumsum(blocks.orbitals)])
    matrix = np.zeros((start[-1], start[-1]), dtype=complex)
    for p, (i, j, shift) in enumerate(zip(blocks.pairs.i, blocks.pairs.j, blocks.pairs.shifts, strict=True)):
        phase = np.exp(2j * np.pi * (k @ shift))
        matrix[start[i] : start[i + 1], start[j] : start[j + 1]] += phase * blocks.block(p)
    return matrix


def eigenvalues(system: LCAOSystem, k: NDArray) -> NDArray:
    hamiltonian = system.hamiltonian[0]
    overlap = system.overlap.to_spinor() if hamiltonian.spinor else system.overlap
    return eigvalsh(bloch_sum(hamiltonian, k), bloch_sum(overlap, k))


def copied(golden: Path, to: Path, sample: str = "graphene") -> Path:
    folder = to / sample
    shutil.copytree(golden / "openmx" / sample / "deeph", folder)
    return folder


@pytest.mark.parametrize("sample", SAMPLES)
def test_bands_are_those_openmx_printed(golden, sample):
    system = read_deeph(golden / "openmx" / sample / "deeph")
    reference = read_openmx_band(golden / "openmx" / sample / "openmx.Band")
    chosen = np.linspace(0, len(reference.k_points) - 1, 3).astype(int)
    for row in chosen:
        # .Band prints 15 digits; 1e-8 eV is the noise OpenMX leaves in H and S
        np.testing.assert_allclose(
            eigenvalues(system, reference.k_points[row]), reference.eigenvalues[0, row], rtol=0, atol=1e-6
        )
    assert system.fermi_level == pytest.approx(reference.fermi_level, abs=1e-9)


@pytest.mark.parametrize("name", ["tbg28", "raw/graphene_v38"])
def test_bands_of_larger_and_older_data(reference_data, tmp_path, name):
    folder = reference_data / name
    if not folder.is_dir():
        shutil.unpack_archive(reference_data / f"{name}.tar.xz", tmp_path)
        folder = tmp_path / name
    system = read_system(folder / "deeph")
    reference = read_openmx_band(folder / "openmx.Band")
    ours, theirs = eigenvalues(system, reference.k_points[7]), reference.eigenvalues[0, 7]
    low = theirs < reference.fermi_level + 5  # float32 data; S is nearly singular, which the highest bands feel
    np.testing.assert_allclose(ours[low], theirs[low], rtol=0, atol=1e-5)


@pytest.mark.parametrize("sample", SAMPLES)
def test_overlap_of_an_s_orbital_points_along_the_bond(golden, sample):
    overlap = read_deeph(golden / "openmx" / sample / "deeph").overlap
    pairs = overlap.pairs
    seen = 0.0
    for p in range(pairs.n_atoms, len(pairs)):
        harmonics = spherical_harmonics(pairs.vectors[p], 2)
        basis = overlap.basis[int(pairs.numbers[pairs.j[p]])]
        for shell, columns in zip(basis.shells, basis.slices, strict=True):
            row, y = overlap.block(p)[0, columns], harmonics[shell.l]
            # OpenMX adds noise of 1e-13; what it integrates has the symmetry to rounding
            np.testing.assert_allclose(row, (row @ y) / (y @ y) * y, rtol=0, atol=1e-9)
            seen = max(seen, np.abs(row).max() if shell.l == 2 else 0.0)
    assert seen > 0.01  # a d shell was among them


def test_periodic_axes_are_those_with_hoppings_across(golden):
    assert read_deeph(golden / "openmx/graphene/deeph").atoms.pbc.tolist() == [True, True, False]
    assert read_deeph(golden / "openmx/CH4_molecule/deeph").atoms.pbc.tolist() == [False] * 3


@pytest.mark.parametrize("sample", SAMPLES)
def test_radii_allow_exactly_the_pairs_of_one_element(golden, sample):
    system = read_deeph(golden / "openmx" / sample / "deeph")
    found = PairList.from_atoms(system.atoms, system.basis.cutoffs())
    assert (found.find(system.pairs) >= 0).all()
    if len(system.basis.numbers) == 1:
        assert len(found) == len(system.pairs)


def test_atoms_outside_the_cell_stay_there(golden):
    system = read_deeph(golden / "openmx/H2O_across_boundary/deeph")
    assert system.atoms.get_scaled_positions(wrap=False).min() < 0
    assert system.pairs.distances.max() < 2.0  # a molecule; wrapped atoms would be a cell apart


def test_rewritten_openmx_folder_holds_the_same_blocks_in_the_same_order(golden, tmp_path):
    source = golden / "openmx/MoS2_monolayer/deeph"
    write_deeph(read_deeph(source), tmp_path / "again")
    for name in ("hamiltonians.h5", "overlaps.h5"):
        with h5py.File(source / name) as theirs, h5py.File(tmp_path / "again" / name) as ours:
            assert list(ours) == list(theirs)
            assert all(np.array_equal(ours[key][()], theirs[key][()]) for key in theirs)


def test_a_single_atom_in_a_small_cell(tmp_path):
    basis = Basis.of(AtomBasis.from_degrees("C", [0, 1], cutoff=2.0))
    atoms = Atoms("C", positions=[[0.1, 0.2, 0.3]], cell=[1.5, 9, 9], pbc=(True, False, False))
    pairs = PairList.from_atoms(atoms, basis.cutoffs())
    rng = np.random.default_rng(0)
    overlap = PairBlocks.zeros(pairs, basis)
    overlap = overlap.with_values(rng.normal(size=overlap.values.shape)).hermitian_part()
    write_deeph(LCAOSystem(atoms, (overlap,), overlap), tmp_path / "a")
    for positions in ("0.1\n0.2\n0.3\n", "0.1 0.2 0.3\n"):
        (tmp_path / "a/site_positions.dat").write_text(positions)
        again = read_deeph(tmp_path / "a")
        np.testing.assert_array_equal(again.overlap.values, overlap.values)
        np.testing.assert_array_equal(again.atoms.positions, atoms.positions)


def test_parts_that_may_be_absent(golden, tmp_path):
    folder = copied(golden, tmp_path)
    whole = read_deeph(folder)
    (folder / "info.json").write_text("{}")
    assert read_deeph(folder).fermi_level is None
    (folder / "hamiltonians.h5").rename(folder / "kept")
    assert read_deeph(folder).hamiltonian == ()
    assert np.array_equal(read_deeph(folder).overlap.values, whole.overlap.values)
    (folder / "overlaps.h5").unlink()
    with pytest.raises(FormatError, match="neither"):
        read_deeph(folder)
    (folder / "kept").rename(folder / "hamiltonians.h5")
    assert read_deeph(folder).overlap is None
    assert np.array_equal(read_deeph(folder).hamiltonian[0].values, whole.hamiltonian[0].values)


def test_what_the_parsers_of_other_programs_write(golden, tmp_path):
    """Atomic numbers as floats; a Fermi level of null, as DeepH-dock's `downgrade` has it; no word on spin."""
    folder = copied(golden, tmp_path, "MoS2_monolayer")
    whole = read_deeph(folder)
    (folder / "element.dat").write_text("1.600000e+01\n4.200000e+01\n16.0\n")
    (folder / "info.json").write_text('{"fermi_level": null}')
    (folder / "R_list.dat").unlink()
    system = read_deeph(folder)
    assert (system.fermi_level, system.spin) == (None, "none")
    np.testing.assert_array_equal(system.atoms.numbers, whole.atoms.numbers)
    np.testing.assert_array_equal(system.hamiltonian[0].values, whole.hamiltonian[0].values)


def test_a_prediction_stands_in_where_dft_is_missing(golden, tmp_path):
    whole = read_deeph(golden / "openmx/graphene/deeph")
    dft, guess = whole.hamiltonian[0], 2.0 * whole.hamiltonian[0]
    write_deeph(replace(whole, hamiltonian=(guess,)), tmp_path / "a", predicted=True)
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert "hamiltonians_pred.h5" in names
    assert "hamiltonians.h5" not in names
    system = read_system(tmp_path / "a")
    assert system.provenance["predicted"] is True
    np.testing.assert_array_equal(system.hamiltonian[0].values, guess.values)
    (tmp_path / "a/overlaps.h5").unlink()
    alone = read_system(tmp_path / "a")
    assert alone.overlap is None
    np.testing.assert_array_equal(alone.hamiltonian[0].values, guess.values)
    shutil.copy(golden / "openmx/graphene/deeph/hamiltonians.h5", tmp_path / "a")
    both = read_system(tmp_path / "a")
    assert "predicted" not in both.provenance
    np.testing.assert_array_equal(both.hamiltonian[0].values, dft.values)


def test_atoms_alone_need_no_blocks(golden, tmp_path):
    folder = copied(golden, tmp_path)
    whole = read_deeph(folder)
    assert holds_blocks(folder)
    for name in ("hamiltonians.h5", "overlaps.h5", "orbital_types.dat", "info.json"):
        (folder / name).unlink()
    assert not holds_blocks(folder)
    atoms = read_deeph_atoms(folder)
    np.testing.assert_array_equal(atoms.positions, whole.atoms.positions)
    np.testing.assert_array_equal(atoms.cell.array, whole.atoms.cell.array)
    assert atoms.pbc.all()


def test_a_molecule_needs_a_box(golden, tmp_path):
    system = read_deeph(golden / "openmx/CH4_molecule/deeph")
    atoms = system.atoms.copy()
    atoms.set_cell(None)
    with pytest.raises(ValueError, match="three independent cell vectors"):
        write_deeph(replace(system, atoms=atoms), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_hamiltonian_is_zero_where_only_the_overlap_has_a_block(golden, tmp_path):
    folder = copied(golden, tmp_path)
    with h5py.File(folder / "hamiltonians.h5", "r+") as file:
        del file["[1, 0, 0, 1, 2]"], file["[-1, 0, 0, 2, 1]"]
    system = read_deeph(folder)
    pairs = system.pairs
    (p,) = np.flatnonzero((pairs.i == 0) & (pairs.j == 1) & (pairs.shifts == [1, 0, 0]).all(axis=1))
    assert not system.hamiltonian[0].block(p).any()
    assert not system.hamiltonian[0].block(pairs.reverse[p]).any()
    assert system.overlap.block(p).any()
    (folder / "overlaps.h5").unlink()
    (folder / "hamiltonians.h5").rename(folder / "overlaps.h5")
    shutil.copy(golden / "openmx/graphene/deeph/hamiltonians.h5", folder)
    with pytest.raises(FormatError, match=re.escape("overlaps.h5: block [1, 0, 0, 1, 2] is missing")):
        read_deeph(folder)


def replace_block(file: h5py.File, key: str, value: object) -> None:
    del file[key]
    file[key] = value


ON, OFF = "[0, 0, 0, 1, 1]", "[1, 0, 0, 1, 2]"
BROKEN_BLOCKS = {
    "missing reverse": (lambda f: f.pop(OFF), "reverse is missing"),
    "missing on-site": (lambda f: f.pop(ON), r"\[0, 0, 0, 1, 1\] \(on-site\)"),
    "shape": (lambda f: replace_block(f, OFF, np.zeros((13, 9))), "expected 13 x 13 for C-C, got 13 x 9"),
    "spinor": (lambda f: replace_block(f, OFF, np.zeros((26, 26), complex)), "isspinful"),
    "complex": (lambda f: replace_block(f, OFF, np.zeros((13, 13), complex)), "expected real numbers"),
    "integers": (lambda f: replace_block(f, OFF, np.zeros((13, 13), int)), "expected real numbers"),
    "nan": (lambda f: replace_block(f, OFF, np.full((13, 13), np.nan)), r"\[1, 0, 0, 1, 2\]: expected finite"),
    "text": (lambda f: replace_block(f, OFF, "no"), "expected 13 x 13"),
    "group": (lambda f: (f.pop(OFF), f.create_group(OFF)), "not a readable dataset"),
    "empty": (lambda f: replace_block(f, OFF, h5py.Empty("f8")), "expected 13 x 13"),
    "key": (lambda f: f.create_dataset("rc", data=1.0), "expected a name like"),
    "key float": (lambda f: f.create_dataset("[0, 0, 0, 1.0, 1]", data=1.0), "expected a name like"),
    "key digits": (lambda f: f.create_dataset(f"[0, 0, {'9' * 5000}, 1, 1]", data=1.0), "expected a name like"),
    "key reach": (lambda f: f.create_dataset("[0, 0, 99999999999999999999, 1, 1]", data=1.0), "within reach"),
    "key atom": (lambda f: f.create_dataset("[0, 0, 0, 0, 1]", data=1.0), "expected atoms 1 to 2"),
    "key twice": (lambda f: f.create_dataset("[0,0,0,1,1]", data=np.zeros((13, 13))), "stands twice"),
}


@pytest.mark.parametrize("name", ["hamiltonians.h5", "hamiltonians_pred.h5", "overlaps.h5"])
@pytest.mark.parametrize("case", BROKEN_BLOCKS)
def test_broken_blocks_are_named(golden, tmp_path, case, name):
    folder = copied(golden, tmp_path)
    if name == "hamiltonians_pred.h5":
        (folder / "hamiltonians.h5").rename(folder / name)
    break_it, message = BROKEN_BLOCKS[case]
    with h5py.File(folder / name, "r+") as file:
        break_it(file)
    with pytest.raises(FormatError, match=message) as caught:
        read_deeph(folder)
    assert name in str(caught.value)


BROKEN_TEXTS = {
    "lat.dat": [
        "",
        "1 2 3\n",
        "1 0 0\n0 1 0\n0 0 x\n",
        "1 0 0\n0 1 0\n0 0 nan\n",
        "1 1 1\n1 1 1\n1 1 1\n",
        "1 0\n0 1 0\n0 0 1",
    ],
    "site_positions.dat": ["", "0 0 0\n0 0 0\n", "0 0 0\n0 0 0\n0 0 0\n", "0 0\n0 inf\n0 0\n"],
    "element.dat": ["", "C C", "6.5 6", "6", "0 6", "6 999"],
    "orbital_types.dat": [
        "",
        "0 0 1 1 2\n",
        "0 0 1 1 2\n0 0 1 1\n",
        "0 0 1 1 2\n0 0 1 1 p\n",
        "0 0 1 1 2\n0 0 1 1 -2\n",
        "0 0 1 1 2\n0 0 1 1 99\n",
    ],
    "info.json": [
        "",
        "[]",
        "{",
        '{"isspinful": 1}',
        '{"fermi_level": "x"}',
        '{"fermi_level": NaN}',
        '{"isspinful": true}',
    ],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BROKEN_TEXTS.items() for text in texts])
def test_broken_text_files_are_named(golden, tmp_path, name, text):
    folder = copied(golden, tmp_path)
    (folder / name).write_text(text)
    with pytest.raises(FormatError) as caught:
        read_deeph(folder)
    assert "\n" not in str(caught.value)
    if "true" not in text:  # then the blocks contradict it
        assert name in str(caught.value) or name == "element.dat"


@pytest.mark.parametrize("name", BROKEN_TEXTS)
def test_missing_text_files_are_named(golden, tmp_path, name):
    folder = copied(golden, tmp_path)
    (folder / name).unlink()
    with pytest.raises(FormatError, match=f"{name}: is missing"):
        read_system(folder)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(["hamiltonians.h5", "lat.dat", "info.json", "orbital_types.dat"]))
def test_truncated_files_never_give_a_system(golden, tmp_path, data, name):
    source = golden / "openmx/CH4_molecule/deeph"
    folder = tmp_path / "truncated"
    if not folder.exists():
        shutil.copytree(source, folder)
    content = (source / name).read_bytes()
    # the last 40 bytes of text may be zeros of a number or white space, with which a file is still whole
    end = data.draw(st.integers(0, len(content) - 40 if len(content) > 80 else len(content) // 2))
    (folder / name).write_bytes(content[:end])
    try:
        with pytest.raises(FormatError) as caught:
            read_deeph(folder)
        assert "\n" not in str(caught.value)
    finally:
        (folder / name).write_bytes(content)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.one_of(st.text(min_size=1, max_size=20), st.lists(st.integers(-3, 7), max_size=6).map(json.dumps)))
def test_random_keys_are_refused(golden, tmp_path, key):
    folder = tmp_path / "keys"
    if not folder.exists():
        shutil.copytree(golden / "openmx/CH4_molecule/deeph", folder)
    shutil.copy(golden / "openmx/CH4_molecule/deeph/overlaps.h5", folder)
    try:
        with h5py.File(folder / "overlaps.h5", "r+") as file:
            file.create_dataset(key, data=np.eye(3))
    except ValueError:  # not a name HDF5 takes, or already there
        return
    with pytest.raises(FormatError):
        read_deeph(folder)


def test_unknown_paths_and_formats(tmp_path):
    with pytest.raises(FormatError, match="no such file"):
        read_system(tmp_path / "nowhere")
    with pytest.raises(FormatError, match="no known format"):
        read_system(tmp_path)
    with pytest.raises(ValueError, match="expected one of deeph"):
        read_system(tmp_path, format="x")
    assert "deeph" in formats()


def test_orthogonal_orbitals_need_no_overlap(golden, tmp_path):
    system = read_deeph(golden / "openmx/graphene/deeph")
    assert not system.basis.orthogonal
    write_deeph(replace(system, overlap=None), tmp_path / "wannier")
    path = tmp_path / "wannier/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"isorthogonal": True}))
    orthogonal = read_deeph(tmp_path / "wannier")
    assert orthogonal.basis.orthogonal
    at_gamma = bloch_sum(orthogonal.hamiltonian[0], np.zeros(3))
    np.testing.assert_allclose(solve.eigenvalues(orthogonal, [[0, 0, 0]])[0, 0], eigvalsh(at_gamma), atol=1e-9)
    write_deeph(orthogonal, tmp_path / "again")
    assert read_deeph(tmp_path / "again").basis == orthogonal.basis
    path.write_text(json.dumps({"isspinful": False, "isorthogonal": "yes"}))
    with pytest.raises(FormatError, match=r"info\.json: expected true or false for isorthogonal"):
        read_deeph(tmp_path / "wannier")
