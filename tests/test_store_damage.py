"""Damaged data sets: a FormatError that names the file, or the data as they were."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ase_hybridham
from ase_hybridham.errors import FormatError
from ase_hybridham.store import DataSet, append_systems, is_data_set, set_splits
from ase_hybridham.system import LCAOSystem
from tests.io.mutations import assert_survives, mutants
from tests.test_store import assert_same, random_system


def test_files_that_are_no_data_set_are_refused(mixed_basis, tmp_path):
    path = tmp_path / "data.h5"
    system = random_system(mixed_basis, 0)
    with pytest.raises(FormatError, match="no such file"):
        DataSet(path)
    with pytest.raises(FormatError, match="is a folder"):
        DataSet(tmp_path)
    path.write_text("hello")
    for attempt in (lambda: DataSet(path), lambda: append_systems(path, [("a", system)])):
        with pytest.raises(FormatError, match="not a complete HDF5 file"):
            attempt()
    path.unlink()
    with h5py.File(path, "w") as file:
        file["x"] = 1
    assert not is_data_set(path)
    with pytest.raises(FormatError, match="not a data set"):
        DataSet(path)
    path.unlink()
    append_systems(path, [("a", system)])
    assert is_data_set(path)
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = 99
    with pytest.raises(FormatError, match="expected schema 1, got 99"):
        DataSet(path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(end=st.floats(0, 1))
def test_truncated_files_are_refused(mixed_basis, tmp_path, end):
    whole, path = tmp_path / "whole.h5", tmp_path / "cut.h5"
    if not whole.exists():
        append_systems(whole, [("a", random_system(mixed_basis, 0))])
    content = whole.read_bytes()
    path.write_bytes(content[: int(end * (len(content) - 1))])
    with pytest.raises(FormatError) as caught:
        DataSet(path)["a"]
    assert "cut.h5" in str(caught.value)
    assert "\n" not in str(caught.value)


DAMAGE = {
    "basis": lambda f: (f.pop("basis"), f.create_dataset("basis", data="{}")),
    "no basis": lambda f: f.pop("basis"),
    "splits": lambda f: (f.pop("splits"), f.create_dataset("splits", data="[")),
    "splits that are no lists": lambda f: (f.pop("splits"), f.create_dataset("splits", data='{"train": 3}')),
    "split of nobody": lambda f: (f.pop("splits"), f.create_dataset("splits", data='{"train": ["x"]}')),
    "provenance": lambda f: (f.pop("provenance"), f.create_dataset("provenance", data="[]")),
    "structures": lambda f: f.pop("structures"),
    "no group": lambda f: (f.pop("structures"), f.create_dataset("structures", data=1)),
    "no structure": lambda f: (f["structures"].pop("a"), f["structures"].create_dataset("a", data=1)),
    "pairs": lambda f: f["structures/a"].pop("pairs"),
    "short": lambda f: (f["structures/a"].pop("overlap"), f["structures/a"].create_dataset("overlap", data=[1.0])),
    "attributes": lambda f: f["structures/a"].attrs.pop("electrons"),
    "spin": lambda f: f.attrs.pop("spin"),
    "spin word": lambda f: f.attrs.update({"spin": "up"}),
    "element": lambda f: f["structures/a/numbers"].write_direct(np.full(4, 99, np.int16)),
}


@pytest.mark.parametrize("what", ["electrons", "fermi_level", "numbers"])
@pytest.mark.parametrize("ask", [DataSet.atoms, DataSet.fermi_level, DataSet.electrons, DataSet.__getitem__])
def test_damage_of_a_structure_is_a_format_error_to_whoever_meets_it(mixed_basis, tmp_path, what, ask):
    path = tmp_path / "data.h5"
    append_systems(path, [("a", random_system(mixed_basis, 0))])
    with h5py.File(path, "r+") as file:
        group = file["structures/a"]
        group.pop(what, None)
        group.attrs.pop(what, None)
    data = DataSet(path)
    with pytest.raises(KeyError, match="no structure 'b', there are 1"):
        ask(data, "b")
    if ask.__name__ in (what, "__getitem__") or (ask.__name__, what) == ("atoms", "numbers"):
        with pytest.raises(FormatError, match=r"data\.h5: structure a cannot be read"):
            ask(data, "a")
    else:
        ask(data, "a")


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_a_format_error(mixed_basis, tmp_path, case):
    path = tmp_path / "data.h5"
    append_systems(path, [("a", random_system(mixed_basis, 0))])
    with h5py.File(path, "r+") as file:
        DAMAGE[case](file)
    with pytest.raises(FormatError, match=r"data\.h5"):
        DataSet(path)["a"]


@pytest.mark.parametrize("compact", [False, True])
def test_damaged_files_are_refused_or_read_as_they_were(mixed_basis, tmp_path, compact):
    whole, path = tmp_path / "whole.h5", tmp_path / "damaged.h5"
    systems = {name: random_system(mixed_basis, seed, n_atoms=3) for seed, name in enumerate("ab")}
    append_systems(whole, systems.items(), compact=compact)
    set_splits(whole, {"train": ["a"], "val": ["b"]})
    with DataSet(whole) as data:
        original, basis = data["b"], data.basis

    def read(path: Path) -> LCAOSystem:
        with DataSet(path) as data:
            system = data["b"]
            assert_same(system, original)  # not one element may differ
            assert (data.basis, data.splits) == (basis, {"train": ["a"], "val": ["b"]})
        return system

    refused = 0
    for damage, content in mutants(whole.read_bytes(), 200, seed=compact, head=4000):
        path.write_bytes(content)
        refused += assert_survives(read, damage, path, original)
    assert 60 < refused < 200


@pytest.mark.parametrize("key", ["positions", "hamiltonian", "overlap", "pairs"])
def test_a_changed_byte_is_noticed(mixed_basis, tmp_path, key):
    path = tmp_path / "data.h5"
    append_systems(path, [("a", random_system(mixed_basis, 0, n_atoms=8))])
    with h5py.File(path) as file:
        dataset = file[f"structures/a/{key}"]
        place, size = dataset.id.get_offset(), dataset.id.get_storage_size()
    content = bytearray(path.read_bytes())
    content[place + size // 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(FormatError, match=f"structure a cannot be read .bytes of {key} have changed"):
        DataSet(path)["a"]
    with pytest.raises(FormatError, match="structure a"):
        DataSet(path).verify("a")


def test_files_without_checksums_are_verified_by_their_digest(mixed_basis, tmp_path):
    path = tmp_path / "data.h5"
    shutil.copyfile(Path(ase_hybridham.__file__).parent / "data/demo_graphene.h5", path)
    with DataSet(path) as data:
        for name in data:
            data.verify(name)
        name = data.names[3]
    with h5py.File(path, "r+") as file:
        file[f"structures/{name}/positions"][0, 2] += 1e-9
    data = DataSet(path)
    assert len(data[name].pairs)
    with pytest.raises(FormatError, match=f"structure {name} cannot be read .its bytes have changed"):
        data.verify(name)
