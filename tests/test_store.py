"""The data set: what goes in comes out, and the file is whole whenever a process ends."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ase_hybridham
from ase_hybridham.errors import FormatError
from ase_hybridham.files import written_atomically
from ase_hybridham.store import (
    DataSet,
    append_systems,
    names_data_set,
    random_splits,
    read_structure,
    set_splits,
)
from ase_hybridham.system import AtomBasis, Basis, LCAOSystem, PairBlocks, PairList
from tests.conftest import random_atoms


def random_system(basis: Basis, seed: int, spin: str = "none", n_atoms: int = 4) -> LCAOSystem:
    rng = np.random.default_rng(seed)
    atoms = random_atoms(seed, n_atoms)
    pairs = PairList.from_atoms(atoms, basis.cutoffs())
    basis = Basis.of(*(basis[z] for z in sorted(set(atoms.numbers.tolist()))), name=basis.name)

    def blocks(spinor: bool) -> PairBlocks:
        zeros = PairBlocks.zeros(pairs, basis, spinor=spinor, dtype=complex if spinor else float)
        noise = rng.normal(size=zeros.values.shape) + (1j * rng.normal(size=zeros.values.shape) if spinor else 0)
        return zeros.with_values(noise).hermitian_part()

    hamiltonian = tuple(blocks(spin == "spinor") for _ in range(2 if spin == "collinear" else 1))
    return LCAOSystem(
        atoms, hamiltonian, blocks(False), spin, rng.normal(), 12.0, "vacuum", {"code": "none", "mesh": [3, 3, 1]}
    )


def assert_same(ours: LCAOSystem, theirs: LCAOSystem, tolerance: float = 0.0) -> None:
    assert ours.atoms == theirs.atoms
    assert ours.pairs.same_pairs(theirs.pairs)
    np.testing.assert_array_equal(ours.pairs.vectors, theirs.pairs.vectors)
    assert len(ours.operators) == len(theirs.operators)
    for a, b in zip(ours.operators, theirs.operators, strict=True):
        assert a.values.dtype == b.values.dtype
        np.testing.assert_allclose(a.values, b.values, rtol=0, atol=tolerance)
    for name in ("spin", "fermi_level", "electrons", "potential_reference", "provenance"):
        assert getattr(ours, name) == getattr(theirs, name)


@pytest.mark.parametrize("spin", ["none", "collinear", "spinor"])
def test_what_goes_in_comes_out(mixed_basis, tmp_path, spin):
    systems = {f"set/{seed}": random_system(mixed_basis, seed, spin, n_atoms=1 + seed) for seed in range(5)}
    path = tmp_path / "data.h5"
    assert append_systems(path, list(systems.items())[:2]) == 2
    assert append_systems(path, list(systems.items())[2:], provenance={"code": "none"}) == 3
    with DataSet(path) as data:
        assert list(data) == sorted(systems)
        assert data.spin == spin
        assert data.provenance == {"code": "none"}
        assert data.basis.same_orbitals(mixed_basis)
        for name, system in systems.items():
            assert_same(data[name], system)
            assert data.atoms(name) == system.atoms
            assert data.fermi_level(name) == system.fermi_level
            assert data[name].basis == data.basis
    assert {p.name for p in tmp_path.iterdir()} == {"data.h5"}


def test_what_is_unknown_stays_unknown(mixed_basis, tmp_path):
    system = replace(random_system(mixed_basis, 0), overlap=None, fermi_level=None, electrons=None)
    append_systems(tmp_path / "data.h5", [("a", system)])
    assert_same(DataSet(tmp_path / "data.h5")["a"], system)


@pytest.mark.parametrize("spin", ["none", "spinor"])
def test_compact_storage_keeps_a_microvolt(mixed_basis, tmp_path, spin):
    system = random_system(mixed_basis, 1, spin, n_atoms=6)
    append_systems(tmp_path / "full.h5", [("a", system)])
    append_systems(tmp_path / "compact.h5", [("a", system)], compact=True)
    # half a step of 2^-20 eV in each part, and float32's own 24 bits of numbers up to 4
    assert_same(DataSet(tmp_path / "compact.h5")["a"], system, tolerance=1e-6)


@pytest.mark.parametrize("spin", ["none", "spinor"])
@pytest.mark.parametrize("compact", [False, True])
def test_single_precision_is_stored_as_it_is(mixed_basis, tmp_path, spin, compact):
    system = random_system(mixed_basis, 1, spin)
    single = [
        blocks.with_values(blocks.values.astype(np.complex64 if blocks.spinor else np.float32))
        for blocks in system.operators
    ]
    path = tmp_path / "data.h5"
    append_systems(path, [("a", replace(system, hamiltonian=tuple(single[:-1]), overlap=single[-1]))], compact=compact)
    assert_same(DataSet(path)["a"], system, tolerance=1e-6)  # half a unit in the last place of float32 up to 4


def test_hash_depends_on_content_alone(mixed_basis, tmp_path):
    first, second = random_system(mixed_basis, 1), random_system(mixed_basis, 2)
    append_systems(tmp_path / "a.h5", [("x", first), ("y", second)])
    append_systems(tmp_path / "b.h5", [("x", first)])
    append_systems(tmp_path / "b.h5", [("y", second)])
    set_splits(tmp_path / "b.h5", {"train": ["x"]})
    changed = first.hamiltonian[0].values.copy()
    changed[3] += 1e-12
    append_systems(
        tmp_path / "c.h5",
        [("x", replace(first, hamiltonian=(first.hamiltonian[0].with_values(changed),))), ("y", second)],
    )
    append_systems(tmp_path / "d.h5", [("x", first), ("z", second)])
    a, b, c, d = (DataSet(tmp_path / f"{name}.h5").content_hash() for name in "abcd")
    assert a == b
    assert len({a, c, d}) == 3


def test_reading_a_structure_touches_no_other(mixed_basis, tmp_path):
    path = tmp_path / "data.h5"
    append_systems(path, [(str(seed), random_system(mixed_basis, seed)) for seed in range(3)])
    with h5py.File(path, "r+") as file:
        del file["structures/1/hamiltonian"]
    data = DataSet(path)
    assert len(data["0"].pairs)
    with pytest.raises(FormatError, match=r"data\.h5: structure 1 cannot be read"):
        data["1"]


def test_pickled_and_forked_readers_open_the_file_themselves(mixed_basis, tmp_path):
    path = tmp_path / "data.h5"
    system = random_system(mixed_basis, 0)
    append_systems(path, [("a", system)])
    data = DataSet(path)
    assert_same(pickle.loads(pickle.dumps(data))["a"], system)
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
    else:  # not a test any more: leave without pytest's farewell
        inherited = data._file
        same = np.array_equal(data["a"].overlap.values, system.overlap.values)
        os._exit(0 if same and data._file is not inherited else 1)
    assert_same(data["a"], system)
    data.close()
    assert_same(data["a"], system)


def test_systems_that_do_not_fit_are_refused_and_the_rest_is_kept(mixed_basis, tmp_path):
    path = tmp_path / "data.h5"
    good = random_system(mixed_basis, 0)
    carbon = Basis.of(AtomBasis.from_degrees("C", [0, 1], cutoff=2.0))
    atoms = good.atoms[:1].copy()
    atoms.numbers[:] = 6
    other = LCAOSystem(atoms, (PairBlocks.zeros(PairList.from_atoms(atoms, 1.0), carbon),))
    append_systems(path, [("a", random_system(mixed_basis, 3, n_atoms=8))])
    with DataSet(path) as data:
        assert 6 in data.basis
    for name, wrong, message in [
        ("a", good, "already there"),
        ("", good, "already there"),
        ("b", random_system(mixed_basis, 0, "spinor"), "spin 'spinor'.*holds spin 'none', e.g. structure a; use"),
        ("b", replace(good, hamiltonian=()), "the overlap alone"),
        ("b", other, "structure b: does not fit structure a of .*basis of C"),
    ]:
        new = f"good {message}"
        with pytest.raises(ValueError, match=message):
            append_systems(path, [(new, good), (name, wrong), ("never", good)])
        assert_same(DataSet(path)[new], good)
        assert "never" not in DataSet(path)
        with pytest.raises(ValueError, match=message):
            append_systems(path, [(name, wrong)])
    with pytest.raises(ValueError, match="the overlap alone"):
        append_systems(tmp_path / "new.h5", [("b", replace(good, hamiltonian=()))])
    assert not (tmp_path / "new.h5").exists()


def test_what_came_before_an_error_of_the_source_is_kept(mixed_basis, tmp_path):
    system = random_system(mixed_basis, 0)

    def source():
        for name in "abc":
            yield name, system
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        append_systems(tmp_path / "data.h5", source())
    assert list(DataSet(tmp_path / "data.h5")) == ["a", "b", "c"]


def test_slow_structures_are_on_disk_before_the_next_is_asked_for(mixed_basis, tmp_path):
    path = tmp_path / "data.h5"
    seen = []

    def source():
        for number in range(3):
            seen.append(len(DataSet(path)) if path.exists() else 0)
            time.sleep(0.3)  # more than ten times a copy of this file
            yield str(number), random_system(mixed_basis, number)

    append_systems(path, source())
    assert seen == [0, 1, 2]


def test_two_writers_do_not_lose_structures_silently(mixed_basis, tmp_path):
    path = tmp_path / "data.h5"
    system = random_system(mixed_basis, 0)
    append_systems(path, [("a", system)])

    def source():
        yield "b", system
        append_systems(path, [("c", system)])  # the other process
        yield "d", system

    # b is written at once or waits for d, as the clock will have it
    try:
        append_systems(path, source())
        expected = ["a", "b", "c", "d"]
    except ValueError as error:
        expected = ["a", "c"] if "another process" in str(error) else [str(error)]
    assert list(DataSet(path)) == expected


def test_killed_at_any_moment_the_file_opens_and_holds_what_was_finished(mixed_basis, tmp_path):
    path = tmp_path / "data.h5"
    append_systems(path, [("start", random_system(mixed_basis, 0))])
    script = textwrap.dedent("""
        import sys
        from ase_hybridham.store import DataSet, append_systems
        path = sys.argv[1]
        system = DataSet(path)["start"]
        first = len(DataSet(path))
        def source():
            for number in range(first, 10000):
                print(len(DataSet(path)), flush=True)
                yield str(number), system
        append_systems(path, source())
    """)
    held = 1
    for wait in (0.0, 0.02, 0.1):
        process = subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True)
        line = process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        finished = [int(word) for word in (line + process.communicate()[0]).split("\n")[:-1]]
        data = DataSet(path)
        assert len(data) >= max(finished) >= held
        assert all(len(data[name].pairs) for name in data)
        held = len(data)
    assert held > 1


def test_splits_are_stored_and_checked(mixed_basis, tmp_path):
    path = tmp_path / "data.h5"
    append_systems(path, [(name, random_system(mixed_basis, 0)) for name in "abc"])
    with pytest.raises(ValueError, match="no split 'train'"):
        DataSet(path).split("train")
    set_splits(path, {"train": ["c", "a"], "test": ["b"]})
    data = DataSet(path)
    assert data.split("train") == ["c", "a"]
    assert data.splits == {"train": ["c", "a"], "test": ["b"]}
    assert set(data) == set("abc")
    with pytest.raises(ValueError, match="no structure 'x'"):
        set_splits(path, {"train": ["x"]})
    with pytest.raises(ValueError, match="already in 'train'"):
        set_splits(path, {"train": ["a"], "val": ["a"]})
    with pytest.raises(FormatError, match="no such file"):
        set_splits(tmp_path / "nothing.h5", {})


@given(n=st.integers(0, 50), shares=st.lists(st.floats(0, 0.33), min_size=1, max_size=3), seed=st.integers(0, 5))
def test_random_splits_are_disjoint_and_reproducible(n, shares, seed):
    names = [f"s{i}" for i in range(n)]
    fractions = {f"part{i}": share for i, share in enumerate(shares)}
    splits = random_splits(names, fractions, seed)
    chosen = [name for part in splits.values() for name in part]
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= set(names)
    assert splits == random_splits(names[::-1], fractions, seed)
    for split, share in fractions.items():
        assert abs(len(splits[split]) - share * n) <= 1


def test_random_splits_differ_by_seed_and_refuse_nonsense():
    names = [f"s{i}" for i in range(40)]
    assert random_splits(names, {"train": 0.5}, 0) != random_splits(names, {"train": 0.5}, 1)
    assert sum(map(len, random_splits(names, {"train": 0.8, "val": 0.1, "test": 0.1}).values())) == 40
    for wrong in ({"a": 0.6, "b": 0.6}, {"a": -0.1}, {"a": float("nan")}):
        with pytest.raises(ValueError, match="shares between 0 and 1"):
            random_splits(names, wrong)


def test_data_sets_of_hdf5s_old_layout_are_read_and_extended(mixed_basis, tmp_path):
    path = tmp_path / "data.h5"
    shutil.copyfile(Path(ase_hybridham.__file__).parent / "data/demo_graphene.h5", path)
    with DataSet(path) as data:
        system, name = data[data.names[0]], data.names[0]
    append_systems(path, [("new", system)])
    with DataSet(path) as data:
        assert_same(data["new"], data[name])


def test_the_file_tells_units(mixed_basis, tmp_path):
    path = tmp_path / "data.h5"
    append_systems(path, [("a", random_system(mixed_basis, 0))])
    with h5py.File(path) as file:
        units = {key: dataset.attrs.get("unit") for key, dataset in file["structures/a"].items()}
    told = {key: unit.decode() if isinstance(unit, bytes) else unit for key, unit in units.items() if unit is not None}
    assert told == {"cell": "angstrom", "positions": "angstrom", "hamiltonian": "eV", "overlap": "1"}


def test_a_head_tells_what_the_system_does(mixed_basis, tmp_path):
    system = random_system(mixed_basis, 0)
    append_systems(tmp_path / "data.h5", [("a", system)])
    append_systems(tmp_path / "data.h5", [("b", system)], compact=True)
    with DataSet(tmp_path / "data.h5") as data:
        head = data.head("a")
        for key in ("fermi_level", "electrons", "potential_reference", "provenance"):
            assert getattr(head, key) == getattr(system, key)
        assert head.n_pairs == len(system.pairs)
        assert (head.compact, data.head("b").compact) == (False, True)


def test_splits_stay_when_structures_are_added(mixed_basis, tmp_path):
    path = tmp_path / "data.h5"
    append_systems(path, [(name, random_system(mixed_basis, 0)) for name in "abc"])
    set_splits(path, {"train": ["c", "a"], "test": ["b"]})
    append_systems(path, [("aa", random_system(mixed_basis, 0))])
    assert DataSet(path).splits == {"train": ["c", "a"], "test": ["b"]}


def test_real_bilayers_in_a_data_set(golden, golden_bilayers, tmp_path):
    from ase_hybridham.io import read_deeph

    index = json.loads((golden / "openmx/bilayers.index.json").read_text())
    assert sorted(p.name for p in golden_bilayers.iterdir()) == [entry["id"] for entry in index]
    system = read_deeph(golden_bilayers / "003")
    append_systems(tmp_path / "a.h5", [("003", system)], compact=True)
    append_systems(tmp_path / "b.h5", [("003", system)])
    assert 4 * (tmp_path / "a.h5").stat().st_size < (tmp_path / "b.h5").stat().st_size
    again = DataSet(tmp_path / "a.h5")["003"]
    # H stands on this grid already
    np.testing.assert_array_equal(again.hamiltonian[0].values, system.hamiltonian[0].values)
    np.testing.assert_allclose(again.overlap.values, system.overlap.values, rtol=0, atol=2.0**-26)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
def test_a_disk_that_is_full_is_told_in_one_line_and_what_was_there_stays(mixed_basis, tmp_path):
    path = tmp_path / "data.h5"
    system = random_system(mixed_basis, 0)
    append_systems(path, [("a", system)])
    assert path.stat().st_size < 400000
    (tmp_path / "system").write_bytes(pickle.dumps(system))
    script = """
import pickle, resource, sys
from ase_hybridham.store import append_systems
resource.setrlimit(resource.RLIMIT_FSIZE, (500000, 500000))
try:
    append_systems("data.h5", [("b", pickle.load(open("system", "rb")))])
except OSError as error:
    sys.exit(str(error))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr == "[Errno 27] File too large: 'data.h5'\n"
    assert sorted(os.listdir(tmp_path)) == ["data.h5", "system"]
    assert list(DataSet(path)) == ["a"]


def test_what_a_killed_process_left_is_removed_and_that_of_a_running_one_is_not(mixed_basis, tmp_path):
    path = tmp_path / "data.h5"
    with written_atomically(path) as temporary:
        alive = temporary.with_name(temporary.name.replace(f"-{os.getpid()}.", f"-{os.getppid()}."))
        dead = temporary.with_name(temporary.name.replace(f"-{os.getpid()}.", "-4999999."))  # above the largest pid
        alive.touch()
        dead.touch()
        append_systems(path, [("a", random_system(mixed_basis, 0))])
        assert temporary.exists()
        assert alive.exists()
        assert not dead.exists()


def test_a_structure_is_named_after_the_colon_whatever_the_file_is_called(mixed_basis, tmp_path):
    system = random_system(mixed_basis, 0)
    for file in ("data.h5", "my data", "a:b"):
        path = tmp_path / file
        append_systems(path, [("c:d.h5:e", system), ("f", system)])
        assert names_data_set(f"{path}:c:d.h5:e")
        assert_same(read_structure(f"{path}:c:d.h5:e"), system)
    (tmp_path / "text").touch()
    assert not names_data_set(f"{tmp_path / 'text'}:f")
