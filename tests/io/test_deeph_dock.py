"""DeepH-dock's folders: those it wrote give what OpenMX printed and its older layout holds; broken ones are named."""

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from ase_hybridham import solve
from ase_hybridham.errors import FormatError
from ase_hybridham.io import (
    format_of,
    formats,
    read_deeph,
    read_deeph_dock,
    read_openmx_band,
    read_system,
    write_deeph,
    write_deeph_dock,
)
from ase_hybridham.system import AtomBasis, Basis, LCAOSystem, PairBlocks, PairList, orbital_order
from tests.conftest import random_atoms
from tests.io.test_deeph_folder import random_system

FILES = ("hamiltonian.h5", "overlap.h5")
DATASETS = ("atom_pairs", "chunk_shapes", "chunk_boundaries", "entries")


@pytest.fixture(scope="session")
def upgraded(golden, tmp_path_factory) -> Path:
    """Folders that `dock convert deeph upgrade` made of golden ones in the older layout."""
    folder = tmp_path_factory.mktemp("upgraded")
    shutil.unpack_archive(golden / "deeph_dock/upgraded.tar.xz", folder)
    return folder


def read_all(path: Path) -> dict[str, NDArray]:
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file}


def write_all(path: Path, content: dict[str, NDArray]) -> None:
    with h5py.File(path, "w") as file:
        file.update(content)


def on_atoms(blocks: PairBlocks, pairs: PairList, order: list[int]) -> NDArray:
    """Values on pairs of the same atoms, of which number a is our number order[a]; by a plain loop."""
    row = {key: p for p, key in enumerate(zip(blocks.pairs.i, blocks.pairs.j, *blocks.pairs.shifts.T, strict=True))}
    keys = zip(pairs.i, pairs.j, *pairs.shifts.T, strict=True)
    return np.concatenate([blocks.block(row[(order[i], order[j], *shift)]).ravel() for i, j, *shift in keys])


def test_collinear_folder_of_deeph_dock_gives_the_bands_of_openmx(golden):
    folder = golden / "deeph_dock/O2_triplet_collinear"
    system, reference = read_system(folder), read_openmx_band(folder / "openmx.Band")
    assert (system.spin, len(system.hamiltonian)) == ("collinear", 2)
    eigenvalues = solve.eigenvalues(system, reference.k_points)
    assert np.abs(eigenvalues[0] - eigenvalues[1]).max() > 1  # eV; the spins differ
    # 1e-8 eV is the noise OpenMX leaves in H and S
    np.testing.assert_allclose(eigenvalues, reference.eigenvalues, rtol=0, atol=1e-7)
    assert system.fermi_level == pytest.approx(reference.fermi_level, abs=1e-9)


@pytest.mark.parametrize(("sample", "order"), [("MoS2_monolayer", [0, 2, 1]), ("Bi_bismuthene_soc", [0, 1])])
def test_upgraded_folder_holds_what_the_old_one_does(golden, upgraded, sample, order):
    old, new = read_deeph(golden / "openmx" / sample / "deeph"), read_system(upgraded / sample)
    assert new.provenance == {"format": "deeph-dock"}
    assert new.spin == old.spin
    assert new.fermi_level == old.fermi_level
    np.testing.assert_array_equal(new.atoms.positions, old.atoms.positions[order])
    np.testing.assert_array_equal(new.atoms.pbc, old.atoms.pbc)
    assert new.basis == old.basis
    for a, b in zip(new.operators, old.operators, strict=True):
        np.testing.assert_array_equal(a.values, on_atoms(b, a.pairs, order))


@pytest.mark.parametrize("sample", ["MoS2_monolayer", "Bi_bismuthene_soc"])
def test_written_again_the_files_of_deeph_dock_are_the_same_but_for_the_order_of_pairs(upgraded, tmp_path, sample):
    write_deeph_dock(read_deeph_dock(upgraded / sample), tmp_path / "a")
    for name in FILES:
        ours, theirs = read_all(tmp_path / "a" / name), read_all(upgraded / sample / name)
        assert set(ours) == set(theirs) == set(DATASETS)
        assert all(ours[key].dtype == theirs[key].dtype for key in ours)
        blocks = []
        for content in (ours, theirs):
            ends = content["chunk_boundaries"]
            parts = (content["entries"][a:b] for a, b in pairwise(ends))
            blocks.append({tuple(key): part for key, part in zip(content["atom_pairs"].tolist(), parts, strict=True)})
        assert blocks[0].keys() == blocks[1].keys()
        assert all(np.array_equal(part, blocks[1][key]) for key, part in blocks[0].items())
    ours, theirs = (json.loads((folder / "info.json").read_text()) for folder in (tmp_path / "a", upgraded / sample))
    assert ours == theirs


def test_atoms_keep_their_order(mixed_basis, tmp_path):
    """Where elements alternate, POSCAR names one twice: DeepH-dock's reader takes that."""
    system = next(s for s in (random_system(seed, mixed_basis, n_atoms=6) for seed in range(9)) if _alternates(s))
    write_deeph_dock(system, tmp_path / "a")
    elements = (tmp_path / "a/POSCAR").read_text().splitlines()[5].split()
    assert len(elements) > len(set(elements))
    np.testing.assert_array_equal(read_deeph_dock(tmp_path / "a").atoms.numbers, system.atoms.numbers)


def _alternates(system: LCAOSystem) -> bool:
    numbers = system.atoms.numbers
    return 1 + np.count_nonzero(np.diff(numbers)) > len(set(numbers.tolist()))


def test_blocks_lie_as_the_layout_says(mixed_basis, tmp_path):
    """atom_pairs from 0, shapes with spin, boundaries from 0, blocks row-major and spin-major, m = -l .. l."""
    system = random_system(1, mixed_basis, "spinor")
    write_deeph_dock(system, tmp_path / "a")
    for name, blocks in zip(FILES, system.operators, strict=True):
        content = read_all(tmp_path / "a" / name)
        assert content["entries"].dtype == (complex if blocks.spinor else float)
        assert all(content[key].dtype == np.int64 for key in DATASETS[:3])
        ends = content["chunk_boundaries"]
        for p, (*shift, i, j) in enumerate(content["atom_pairs"].tolist()):
            assert (i, j, shift) == (blocks.pairs.i[p], blocks.pairs.j[p], blocks.pairs.shifts[p].tolist())
            assert tuple(content["chunk_shapes"][p]) == blocks.shape(p)
            block = content["entries"][ends[p] : ends[p + 1]].reshape(blocks.shape(p))
            np.testing.assert_array_equal(block, blocks.block(p))
    info = json.loads((tmp_path / "a/info.json").read_text())
    assert (info["atoms_quantity"], info["orbits_quantity"], info["spinful"]) == (4, system.n_orbitals / 2, True)
    assert info["occupation"] == 12.5
    assert info["fermi_energy_eV"] == system.fermi_level


@pytest.mark.parametrize("spin", ["none", "collinear", "spinor"])
def test_files_may_order_their_pairs_differently(mixed_basis, tmp_path, spin):
    system, rng = random_system(2, mixed_basis, spin), np.random.default_rng(0)
    write_deeph_dock(system, tmp_path / "a")
    for name in FILES:
        content = read_all(tmp_path / "a" / name)
        order, ends = rng.permutation(len(system.pairs)), content["chunk_boundaries"]
        parts = [content["entries"][ends[p] : ends[p + 1]] for p in order]
        content |= {key: content[key][order] for key in ("atom_pairs", "chunk_shapes")}
        content |= {"entries": np.concatenate(parts), "chunk_boundaries": np.cumsum([0, *map(len, parts)])}
        write_all(tmp_path / "a" / name, content)
    found = read_deeph_dock(tmp_path / "a")
    assert found.spin == spin
    for a, b in zip(found.operators, system.operators, strict=True):
        np.testing.assert_array_equal(a.values, b.values)
    # a prediction is written in the order of the overlaps there: DeepH's tools compare the lists
    write_deeph_dock(system, tmp_path / "a", predicted=True)
    ours, theirs = (read_all(tmp_path / "a" / name)["atom_pairs"] for name in ("hamiltonian_pred.h5", "overlap.h5"))
    np.testing.assert_array_equal(ours, theirs)
    (tmp_path / "a/hamiltonian.h5").unlink()
    for a, b in zip(read_deeph_dock(tmp_path / "a").operators, system.operators, strict=True):
        np.testing.assert_array_equal(a.values, b.values)


def test_collinear_is_what_is_real_and_zero_between_up_and_down(mixed_basis, tmp_path):
    system = random_system(0, mixed_basis, "collinear")
    write_deeph_dock(system, tmp_path / "a")
    path = tmp_path / "a/hamiltonian.h5"
    content = read_all(path)
    assert content["entries"].dtype == float
    write_all(path, {**content, "entries": content["entries"].astype(complex)})
    assert read_deeph_dock(tmp_path / "a").spin == "spinor"
    n = content["chunk_shapes"][0, 1] // 2
    content["entries"][n] = 1e-12  # the first up row, the first down column
    write_all(path, content)
    found = read_deeph_dock(tmp_path / "a")
    assert (found.spin, found.hamiltonian[0].values.dtype) == ("spinor", complex)
    assert found.hamiltonian[0].block(0)[0, n] == 1e-12


def test_numbers_of_other_types_and_packed_are_read(mixed_basis, tmp_path):
    system = random_system(0, mixed_basis)
    write_deeph_dock(system, tmp_path / "a")
    for name in FILES:
        content = read_all(tmp_path / "a" / name)
        with h5py.File(tmp_path / "a" / name, "w") as file:
            file["atom_pairs"] = content["atom_pairs"].astype(">i4")
            file["chunk_shapes"] = content["chunk_shapes"].astype(np.uint8)
            file["chunk_boundaries"] = content["chunk_boundaries"]
            file.create_dataset("entries", data=content["entries"].astype(">f8"), compression="gzip", chunks=(100,))
    found = read_deeph_dock(tmp_path / "a")
    for a, b in zip(found.operators, system.operators, strict=True):
        np.testing.assert_array_equal(a.values, b.values)
        assert a.values.dtype == np.dtype("=f8")


@pytest.mark.parametrize("level", [None, 0.0])
def test_a_fermi_level_of_zero_is_none(mixed_basis, tmp_path, level):
    """DeepH's converters of molecules write 0.0 where there is none; counting electrons up to it would be wrong."""
    write_deeph_dock(replace(random_system(0, mixed_basis), fermi_level=level, electrons=None), tmp_path / "a")
    assert json.loads((tmp_path / "a/info.json").read_text())["fermi_energy_eV"] == level
    found = read_deeph_dock(tmp_path / "a")
    assert (found.fermi_level, found.electrons) == (None, None)


def test_electrons_and_orthogonal_orbitals_are_kept(mixed_basis, tmp_path):
    system = random_system(0, mixed_basis)
    basis = replace(system.basis, orthogonal=True)
    hamiltonian = PairBlocks(system.pairs, basis, system.hamiltonian[0].values)
    write_deeph_dock(replace(system, hamiltonian=(hamiltonian,), overlap=None, electrons=8.0), tmp_path / "a")
    found = read_deeph_dock(tmp_path / "a")
    assert (found.electrons, found.basis.orthogonal, found.overlap) == (8.0, True, None)
    assert '"occupation": 8\n' in (tmp_path / "a/info.json").read_text()


def test_a_vasp_run_is_no_folder_of_deeph(tmp_path):
    (tmp_path / "POSCAR").write_text("x")
    assert format_of(tmp_path) is None
    (tmp_path / "info.json").write_text("{}")
    assert format_of(tmp_path).name == "deeph-dock"


CHANGED_DATASETS = {
    "no pairs": ({"atom_pairs": None}, "expected a dataset atom_pairs, got none"),
    "no entries": ({"entries": None}, "expected a dataset entries, got none"),
    "keys of the older layout": (dict.fromkeys(DATASETS), "expected a dataset atom_pairs"),
    "flat pairs": ({"atom_pairs": lambda a: a.ravel()}, "atom_pairs: expected n x 5 integers"),
    "pairs of floats": ({"atom_pairs": lambda a: a.astype(float)}, "atom_pairs: expected n x 5 integers"),
    "atoms from 1": (
        {"atom_pairs": lambda a: a + np.array([0, 0, 0, 1, 1])},
        "expected atoms 0 to 3 and a cell within reach",
    ),
    "negative atom": ({"atom_pairs": lambda a: a - np.array([0, 0, 0, 1, 0])}, "expected atoms 0 to 3"),
    "far cell": ({"atom_pairs": lambda a: np.where(a == 1, -(2**63), a)}, "a cell within reach"),
    "pair twice": ({"atom_pairs": lambda a: np.vstack([a[:-1], a[:1]])}, "expected"),
    "shapes": ({"chunk_shapes": lambda a: a[:, ::-1] + 1}, r"block \[0, 0, 0, 0, 0\]: expected .* for .*-.*, got"),
    "shapes of spinors": ({"chunk_shapes": lambda a: 2 * a}, "check elements_orbital_map and spinful in info.json"),
    "boundaries": ({"chunk_boundaries": lambda a: a + 1}, "chunk_boundaries: expected the sums"),
    "short boundaries": ({"chunk_boundaries": lambda a: a[1:]}, r"chunk_boundaries: expected \d+ integers"),
    "short entries": ({"entries": lambda a: a[:-1]}, r"entries: expected \d+ real numbers"),
    "complex entries": ({"entries": lambda a: a + 0j}, "entries: expected .* real numbers, got .* of complex128"),
    "integer entries": ({"entries": lambda a: a.astype(int)}, "real numbers, got .* of int64"),
    "nan": ({"entries": lambda a: np.where(a == a.max(), np.nan, a)}, r"block \[.*\]: expected finite numbers"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("case", CHANGED_DATASETS)
def test_broken_datasets_are_named(mixed_basis, tmp_path, case, name):
    write_deeph_dock(random_system(0, mixed_basis), tmp_path / "a")
    content = read_all(tmp_path / "a" / name)
    changes, message = CHANGED_DATASETS[case]
    for key, change in changes.items():
        content[key] = change and change(content[key])
    write_all(tmp_path / "a" / name, {key: value for key, value in content.items() if value is not None})
    with pytest.raises(FormatError, match=message) as caught:
        read_deeph_dock(tmp_path / "a")
    assert str(caught.value).startswith(str(tmp_path / "a" / name))
    assert "\n" not in str(caught.value)


def test_a_missing_partner_and_a_missing_onsite_block_are_named(mixed_basis, tmp_path):
    system = random_system(0, mixed_basis)
    write_deeph_dock(system, tmp_path / "a")
    content = read_all(tmp_path / "a/overlap.h5")
    n_entries = content["chunk_boundaries"][-2]
    cut = {key: content[key][:-1] for key in DATASETS[:3]} | {"entries": content["entries"][:n_entries]}
    write_all(tmp_path / "a/overlap.h5", cut)
    with pytest.raises(FormatError, match=r"overlap\.h5: .*its reverse is missing"):
        read_deeph_dock(tmp_path / "a")
    first = content["chunk_boundaries"][1]
    cut = {key: content[key][1:] for key in DATASETS[:3]} | {"entries": content["entries"][first:]}
    write_all(tmp_path / "a/overlap.h5", {**cut, "chunk_boundaries": cut["chunk_boundaries"] - first})
    with pytest.raises(FormatError, match=r"overlap\.h5: block \[0, 0, 0, 0, 0\] \(on-site\) is missing"):
        read_deeph_dock(tmp_path / "a")


def test_a_dataset_larger_than_its_file_is_not_believed(mixed_basis, tmp_path):
    write_deeph_dock(random_system(0, mixed_basis), tmp_path / "a")
    path = tmp_path / "a/overlap.h5"
    content = read_all(path)
    with h5py.File(path, "w") as file:
        file.create_dataset("atom_pairs", (2**40, 5), dtype=np.int64, chunks=(1000, 5))  # nothing of it written
        file.update({key: content[key] for key in DATASETS[1:]})
    with pytest.raises(FormatError, match=r"atom_pairs: .* do not fit into the file"):
        read_deeph_dock(tmp_path / "a")


INFO = {
    "no map": ({"elements_orbital_map": None}, "expected elements_orbital_map"),
    "no element": ({"elements_orbital_map": {"H": [0]}}, "expected the l of every shell of"),
    "no shells": ({"elements_orbital_map": {"C": [], "Mo": [], "S": []}}, "expected the l of every shell of"),
    "large l": ({"elements_orbital_map": {"C": [99], "Mo": [99], "S": [99]}}, "expected the l of every shell of"),
    "other shells": ({"elements_orbital_map": {"C": [0], "Mo": [0], "S": [0]}}, "expected orbits_quantity 4"),
    "spin": ({"spinful": "yes"}, "expected true or false for spinful"),
    "spin of other blocks": ({"spinful": True}, "check elements_orbital_map and spinful"),
    "level": ({"fermi_energy_eV": "x"}, "expected fermi_energy_eV in eV"),
    "atoms": ({"atoms_quantity": 5}, "expected atoms_quantity 4 for this POSCAR, got 5"),
    "electrons": ({"occupation": -1}, "expected occupation"),
}


@pytest.mark.parametrize("case", INFO)
def test_broken_entries_of_info_are_named(mixed_basis, tmp_path, case):
    write_deeph_dock(random_system(0, mixed_basis), tmp_path / "a")
    path = tmp_path / "a/info.json"
    changes, message = INFO[case]
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(FormatError, match=message) as caught:
        read_deeph_dock(tmp_path / "a")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["POSCAR", "info.json"])
def test_missing_text_files_are_named(mixed_basis, tmp_path, name):
    write_deeph_dock(random_system(0, mixed_basis), tmp_path / "a")
    (tmp_path / "a" / name).unlink()
    with pytest.raises(FormatError, match=f"{name}: is missing"):
        read_system(tmp_path / "a")


def test_f_shells_of_deephs_siesta_parser_are_put_right(tmp_path):
    """Its order of f, m = 3, 1, -1, -3, -2, 0, 2, comes of sorting the keys below; s, p and d are as from OpenMX."""
    keys = {-3: 0, -2: 1, -1: -1, 0: 2, 1: -2, 2: 3, 3: -3}  # siesta_get_data.py of DeepH-pack: m -> sort key
    theirs = sorted(keys, key=lambda m: keys[m])
    basis = Basis.of(
        AtomBasis.from_degrees("C", [0, 1, 2, 3], cutoff=2.0),
        AtomBasis.from_degrees("S", [3], cutoff=2.0),
        AtomBasis.from_degrees("Mo", [0, 3, 4], cutoff=2.0),
    )
    atoms = random_atoms(0, 5)
    pairs = PairList.from_atoms(atoms, basis.cutoffs())
    blocks = PairBlocks.zeros(pairs, basis)
    blocks = blocks.with_values(np.random.default_rng(0).normal(size=blocks.values.shape)).hermitian_part()
    write_deeph(LCAOSystem(atoms, (blocks,), blocks), tmp_path / "a")
    for name in ("hamiltonians.h5", "overlaps.h5"):
        with h5py.File(tmp_path / "a" / name, "r+") as file:
            for key in file:
                i, j = json.loads(key)[3:]
                picks = [_from_openmx(basis[int(atoms.numbers[n - 1])].degrees, theirs) for n in (i, j)]
                file[key][...] = file[key][()][np.ix_(*picks)]
    right, wrong = read_system(tmp_path / "a", format="deeph-siesta"), read_system(tmp_path / "a")
    assert (right.provenance["format"], wrong.provenance["format"]) == ("deeph-siesta", "deeph")
    np.testing.assert_array_equal(right.overlap.values, blocks.values)
    assert format_of(tmp_path / "a").name == "deeph"
    assert formats()["deeph-siesta"].sniff(tmp_path / "a")  # where it is named, folders are looked for
    assert np.abs(wrong.overlap.values - blocks.values).max() > 1


def _from_openmx(degrees: tuple[int, ...], f_order: list[int]) -> list[int]:
    """Rows of blocks in OpenMX's order that give the parser's: f as told, l > 3 ascending, the others as they are."""
    index, _ = orbital_order("openmx", degrees)  # ours = openmx[index]
    picks: list[int] = []
    start = 0
    for l in degrees:
        ours = {3: [3 + m for m in f_order], 4: list(range(9))}.get(l)
        shell = index[start : start + 2 * l + 1]
        picks += shell[ours].tolist() if ours else list(range(start, start + 2 * l + 1))
        start += 2 * l + 1
    return picks
