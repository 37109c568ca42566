"""What both of DeepH's folder layouts do alike: exact round trips, predictions, damage."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from ase_hybridham.errors import FormatError
from ase_hybridham.io import (
    formats,
    read_deeph,
    read_deeph_dock,
    read_system,
    write_deeph,
    write_deeph_dock,
)
from ase_hybridham.store import DataSet, append_systems
from ase_hybridham.system import Basis, LCAOSystem, PairBlocks, PairList, SpinKind
from tests.conftest import random_atoms
from tests.io.mutations import assert_survives, mutated_folders
from tests.io.structures import caught, covariant_system

SECONDS = 15.0  # for all damaged copies of one layout


@dataclass(frozen=True)
class Kind:
    """A layout: how it is read and written, and its files of H, of a prediction, and of S."""

    name: str
    read: Callable[[Path], LCAOSystem]
    write: Callable[..., None]
    hamiltonian: str
    prediction: str
    overlap: str


OLD = Kind("deeph", read_deeph, write_deeph, "hamiltonians.h5", "hamiltonians_pred.h5", "overlaps.h5")
NEW = Kind("deeph-dock", read_deeph_dock, write_deeph_dock, "hamiltonian.h5", "hamiltonian_pred.h5", "overlap.h5")


@pytest.fixture(params=[OLD, NEW], ids=lambda kind: kind.name)
def kind(request) -> Kind:
    return request.param


def random_system(seed: int, basis: Basis, spin: SpinKind = "none", n_atoms: int = 4) -> LCAOSystem:
    """Atoms of three elements in any order, some outside the cell, and random Hermitian operators."""
    rng = np.random.default_rng(seed)
    atoms = random_atoms(seed, n_atoms)
    pairs = PairList.from_atoms(atoms, basis.cutoffs())
    atoms.pbc = pairs.shifts.any(axis=0)
    basis = Basis.of(*(basis[z] for z in sorted(set(atoms.numbers.tolist()))))

    def blocks(spinor: bool = False) -> PairBlocks:
        zeros = PairBlocks.zeros(pairs, basis, spinor=spinor, dtype=complex if spinor else float)
        noise = rng.normal(size=zeros.values.shape) + (1j * rng.normal(size=zeros.values.shape) if spinor else 0)
        return zeros.with_values(noise).hermitian_part()

    hamiltonian = tuple(blocks(spin == "spinor") for _ in range(1 + (spin == "collinear")))
    return LCAOSystem(atoms, hamiltonian, blocks(), spin=spin, fermi_level=rng.normal(), electrons=12.5)


def assert_identical(found: LCAOSystem, expected: LCAOSystem) -> None:
    """Bit for bit: positions, cell, pairs, H, S, Fermi level."""
    assert found.spin == expected.spin
    assert found.fermi_level == expected.fermi_level
    assert found.pairs.same_pairs(expected.pairs)
    assert found.basis.same_orbitals(expected.basis)
    for name in ("positions", "pbc"):
        np.testing.assert_array_equal(getattr(found.atoms, name), getattr(expected.atoms, name))
    np.testing.assert_array_equal(found.atoms.cell.array, expected.atoms.cell.array)
    for ours, theirs in zip(found.operators, expected.operators, strict=True):
        assert ours.values.dtype == theirs.values.dtype
        np.testing.assert_array_equal(ours.values, theirs.values)


SPINS = [(OLD, "none"), (OLD, "spinor"), (NEW, "none"), (NEW, "spinor"), (NEW, "collinear")]


@pytest.mark.parametrize(("kind", "spin"), SPINS, ids=lambda value: getattr(value, "name", value))
@pytest.mark.parametrize("seed", range(3))
def test_written_then_read_is_the_same(mixed_basis, tmp_path, kind, spin, seed):
    system = random_system(seed, mixed_basis, spin)
    kind.write(system, tmp_path / "folder")
    again = read_system(tmp_path / "folder")
    assert again.provenance == {"format": kind.name}
    assert_identical(again, system)
    assert {path.name for path in tmp_path.iterdir()} == {"folder"}


@pytest.mark.parametrize("spin", ["none", "spinor"])
def test_old_to_store_to_new_to_store_is_exact(mixed_basis, tmp_path, spin):
    systems = {str(seed): random_system(seed, mixed_basis, spin) for seed in range(3)}
    for name, system in systems.items():
        write_deeph(system, tmp_path / "old" / name)
    append_systems(tmp_path / "a.h5", ((name, read_deeph(tmp_path / "old" / name)) for name in systems))
    with DataSet(tmp_path / "a.h5") as data:
        for name in data:
            write_deeph_dock(data[name], tmp_path / "new" / name)
    append_systems(tmp_path / "b.h5", ((name, read_deeph_dock(tmp_path / "new" / name)) for name in systems))
    with DataSet(tmp_path / "b.h5") as data:
        for name, system in systems.items():
            assert_identical(data[name], system)
            write_deeph(data[name], tmp_path / "again" / name)
    for name in systems:
        for file in ("hamiltonians.h5", "overlaps.h5"):
            with h5py.File(tmp_path / "old" / name / file) as a, h5py.File(tmp_path / "again" / name / file) as b:
                assert list(a) == list(b)
                assert all(np.array_equal(a[key][()], b[key][()]) for key in a)


def test_what_is_there_is_not_overwritten(mixed_basis, tmp_path, kind):
    system, other = (random_system(seed, mixed_basis) for seed in (0, 1))
    kind.write(system, tmp_path / "a")
    (tmp_path / "file").write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("x")
    for name, given, predicted in (
        ("a", system, False),
        ("a", other, True),
        ("file", system, True),
        ("other", system, True),
    ):
        with pytest.raises(ValueError, match="already there"):
            kind.write(given, tmp_path / name, predicted=predicted)
    with pytest.raises(ValueError, match="already there"):
        formats()[kind.name].check_target(tmp_path / "a", other.atoms)


def test_a_prediction_is_added_to_the_folder_of_its_structure(mixed_basis, tmp_path, kind):
    system = random_system(0, mixed_basis)
    guess = 2.0 * system.hamiltonian[0]
    kind.write(system, tmp_path / "a")
    before = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    kind.write(replace(system, hamiltonian=(guess,), overlap=None), tmp_path / "a", predicted=True)
    assert {path.name for path in (tmp_path / "a").iterdir()} == {*before, kind.prediction}
    assert all((tmp_path / "a" / name).read_bytes() == content for name, content in before.items())
    np.testing.assert_array_equal(read_system(tmp_path / "a").hamiltonian[0].values, system.hamiltonian[0].values)
    (tmp_path / "a" / kind.hamiltonian).unlink()
    np.testing.assert_array_equal(read_system(tmp_path / "a").hamiltonian[0].values, guess.values)
    assert read_system(tmp_path / "a").provenance["predicted"] is True
    with pytest.raises(ValueError, match=f"{kind.prediction}: already there"):
        kind.write(system, tmp_path / "a", predicted=True)


def test_a_prediction_that_does_not_fit_the_folder_is_refused(mixed_basis, tmp_path, kind):
    system = random_system(0, mixed_basis)
    kind.write(system, tmp_path / "a")
    far = PairList.from_atoms(system.atoms, {z: 1.3 * r for z, r in system.basis.cutoffs().items()})
    with pytest.raises(ValueError, match=f"{kind.overlap}: has no block"):
        kind.write(
            replace(system, hamiltonian=(system.hamiltonian[0].on_pairs(far),), overlap=None),
            tmp_path / "a",
            predicted=True,
        )
    spinor = replace(system, hamiltonian=(system.hamiltonian[0].to_spinor(),), spin="spinor")
    with pytest.raises(ValueError, match="other orbitals or other spin"):
        kind.write(spinor, tmp_path / "a", predicted=True)
    assert kind.prediction not in {path.name for path in (tmp_path / "a").iterdir()}


def test_a_prediction_that_lacks_pairs_of_the_folder_is_zero_there(mixed_basis, tmp_path, kind):
    system = random_system(0, mixed_basis)
    near = PairList.from_atoms(system.atoms, {z: 0.6 * r for z, r in system.basis.cutoffs().items()})
    kind.write(replace(system, hamiltonian=()), tmp_path / "a")
    short = system.hamiltonian[0].on_pairs(near)
    kind.write(LCAOSystem(system.atoms, (short,)), tmp_path / "a", predicted=True)
    found = kind.read(tmp_path / "a").hamiltonian[0]
    np.testing.assert_array_equal(found.values, short.on_pairs(system.pairs).values)


def test_the_structure_of_a_prediction_is_that_of_the_folder(mixed_basis, tmp_path, kind):
    """To the digits another program may have printed."""
    system = random_system(0, mixed_basis)
    kind.write(replace(system, hamiltonian=()), tmp_path / "a")
    check = formats()[kind.name].check_target
    for moved in ("positions", "cell"):
        for distance, fits in ((1e-6, True), (1e-4, False)):
            atoms = system.atoms.copy()
            getattr(atoms, moved)[0] += distance
            if fits:
                check(tmp_path / "a", atoms)
            else:
                with pytest.raises(ValueError, match="with another structure"):
                    check(tmp_path / "a", atoms)


def test_a_prediction_may_lack_pairs_and_have_single_precision(mixed_basis, tmp_path, kind):
    system = random_system(0, mixed_basis)
    near = PairList.from_atoms(system.atoms, {z: 0.6 * r for z, r in system.basis.cutoffs().items()})
    assert len(near) < len(system.pairs)
    short = system.hamiltonian[0].on_pairs(near)
    short = short.with_values(short.values.astype(np.float32))
    kind.write(replace(system, hamiltonian=()), tmp_path / "a")
    kind.write(LCAOSystem(system.atoms, (short,)), tmp_path / "b", predicted=True)
    shutil.copy(tmp_path / "b" / kind.prediction, tmp_path / "a")
    found = read_system(tmp_path / "a")
    assert found.pairs.same_pairs(system.pairs)
    expected = short.on_pairs(system.pairs).values
    assert 0 < np.count_nonzero(expected) < expected.size
    np.testing.assert_array_equal(found.hamiltonian[0].values, expected)
    assert found.hamiltonian[0].values.dtype == np.float64


def test_hamiltonian_that_has_a_pair_more_than_the_overlap_is_refused(mixed_basis, tmp_path, kind):
    system = random_system(0, mixed_basis)
    near = PairList.from_atoms(system.atoms, {z: 0.6 * r for z, r in system.basis.cutoffs().items()})
    kind.write(system, tmp_path / "a")
    kind.write(replace(system, hamiltonian=(), overlap=system.overlap.on_pairs(near)), tmp_path / "b")
    shutil.copy(tmp_path / "b" / kind.overlap, tmp_path / "a")
    with pytest.raises(FormatError, match=rf"{kind.overlap}: block \[.*\] is missing, {kind.hamiltonian} has it"):
        read_system(tmp_path / "a")


def test_a_folder_made_for_inference_holds_no_hamiltonian(mixed_basis, tmp_path, kind):
    system = random_system(0, mixed_basis)
    kind.write(replace(system, hamiltonian=()), tmp_path / "a")
    found = read_system(tmp_path / "a")
    assert found.hamiltonian == ()
    np.testing.assert_array_equal(found.overlap.values, system.overlap.values)
    (tmp_path / "a" / kind.overlap).unlink()
    known = formats()[kind.name]
    assert known.sniff(tmp_path / "a")
    assert not known.holds_blocks(tmp_path / "a")
    np.testing.assert_array_equal(known.read_atoms(tmp_path / "a").positions, system.atoms.positions)
    with pytest.raises(FormatError, match="neither"):
        read_system(tmp_path / "a")


def test_collinear_spin_has_no_place_in_the_old_layout(mixed_basis, tmp_path):
    with pytest.raises(ValueError, match="write the format deeph-dock"):
        write_deeph(random_system(0, mixed_basis, "collinear"), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_collinear_spin_in_an_old_folder_is_read(mixed_basis, tmp_path):
    """DeepH-dock's `downgrade` writes the real spinful blocks that its OpenMX and ABACUS converters make."""
    system = random_system(0, mixed_basis, "collinear")
    up, down = (h.to_spinor().groups() for h in system.hamiltonian)
    stacks = {}
    for (elements, _, a), (_, _, b) in zip(up, down, strict=True):
        n = a.shape[1] // 2
        stacks[elements] = np.concatenate([a[:, :n], b[:, n:]], axis=1)
    joined = PairBlocks.from_groups(system.pairs, system.basis, stacks, spinor=True)
    write_deeph(replace(system, hamiltonian=(joined,), spin="spinor"), tmp_path / "a")
    assert_identical(read_deeph(tmp_path / "a"), system)


@pytest.mark.parametrize("spin", ["none", "spinor"])
def test_damage_is_refused_or_does_no_harm(mixed_basis, tmp_path, kind, spin):
    system = covariant_system(3, mixed_basis, spin, n_atoms=3)
    kind.write(system, tmp_path / "whole")
    original, refused, began = kind.read(tmp_path / "whole"), 0, time.process_time()
    n = 120  # of each spin

    def noticed(found: LCAOSystem) -> bool:
        # that an atom is of another element with the same shells, nothing else in a folder tells
        return caught(found) or not np.array_equal(found.atoms.numbers, original.atoms.numbers)

    with np.errstate(over="ignore"):  # of what a flip in an exponent makes
        for damage, folder in mutated_folders(tmp_path / "whole", tmp_path, n, seed=len(spin)):
            refused += assert_survives(kind.read, damage, folder, original, noticed)
    assert refused > 0.3 * n  # many flips fall into names, padding or digits that do not matter
    assert time.process_time() - began < SECONDS


def test_deeply_nested_or_huge_json_is_no_crash(mixed_basis, tmp_path, kind):
    kind.write(random_system(0, mixed_basis), tmp_path / "a")
    path = tmp_path / "a/info.json"
    entries = json.loads(path.read_text())
    level = "fermi_level" if kind is OLD else "fermi_energy_eV"
    for text in ("[" * 100_000, json.dumps({**entries, level: 10**400}), json.dumps({**entries, level: True})):
        path.write_text(text)
        with pytest.raises(FormatError, match=r"info\.json"):
            read_system(tmp_path / "a")


def test_a_folder_with_blocks_of_both_layouts_must_be_named(mixed_basis, tmp_path):
    system = covariant_system(3, mixed_basis, "none")
    write_deeph(system, tmp_path / "one")
    write_deeph_dock(replace(system, hamiltonian=(system.hamiltonian[0] * 2,)), tmp_path / "two")
    shutil.copy(tmp_path / "two/POSCAR", tmp_path / "one")
    assert read_system(tmp_path / "one").provenance["format"] == "deeph"  # a structure beside the blocks is no second H
    shutil.copy(tmp_path / "two/hamiltonian.h5", tmp_path / "one")
    with pytest.raises(FormatError, match="blocks of deeph and of deeph-dock; name one"):
        read_system(tmp_path / "one")
    found = read_system(tmp_path / "one", "deeph").hamiltonian[0]
    np.testing.assert_array_equal(found.values, system.hamiltonian[0].values)


def test_a_byte_order_mark_does_not_matter(mixed_basis, tmp_path, kind):
    kind.write(covariant_system(3, mixed_basis, "none"), tmp_path / "a")
    for path in (tmp_path / "a").iterdir():
        if path.suffix != ".h5":
            path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert kind.read(tmp_path / "a").hamiltonian
