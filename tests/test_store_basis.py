"""What a data set knows of its elements: told later, kept, and noticed when it is damaged."""

import json
from dataclasses import replace

import h5py
import pytest

from ase_hybridham.errors import FormatError
from ase_hybridham.store import DataSet, append_systems, set_basis
from ase_hybridham.store.layout import CHECKSUMS
from ase_hybridham.system import AtomBasis, Basis
from tests.overlap.radial_data import openmx_basis
from tests.test_store import random_system


def test_what_is_told_of_elements_later_stays_and_changes_no_hash(tmp_path):
    path, full = tmp_path / "data.h5", openmx_basis(["C", "Mo", "S"])
    full = Basis.of(*(replace(atom, cutoff=2.2) for atom in full.atoms.values()))  # fewer pairs
    bare = Basis.of(*(AtomBasis.from_degrees(s, atom.degrees, cutoff=2.0) for s, atom in full.atoms.items()))
    append_systems(path, [("x", random_system(bare, 1))])
    before = DataSet(path).content_hash()
    identity = path.stat().st_ino
    set_basis(path, full)
    assert path.stat().st_ino != identity  # a copy that was renamed
    identity = path.stat().st_ino
    set_basis(path, full)
    assert path.stat().st_ino == identity  # nothing to write
    append_systems(path, [("y", random_system(bare, 2)), ("z", random_system(full, 3))])
    with DataSet(path) as data:
        assert data.basis.atoms == full.atoms
        assert data["x"].basis.has_radial_functions()
        data.verify("x")
    append_systems(tmp_path / "other.h5", [("x", random_system(bare, 1))])
    set_basis(tmp_path / "other.h5", full)
    assert DataSet(tmp_path / "other.h5").content_hash() == before
    with pytest.raises(ValueError, match=r"data\.h5: C has shells"):
        set_basis(path, Basis.of(AtomBasis.from_degrees("C", [0])))
    other = replace(
        full, atoms={**full.atoms, "C": replace(full["C"], shells=full["C"].shells[1::-1] + full["C"].shells[2:])}
    )
    with pytest.raises(ValueError, match="different radial functions"):
        append_systems(path, [("w", random_system(other, 4))])


@pytest.mark.parametrize(
    "damage",
    [
        lambda atom: atom["shells"][0]["samples"].update(mesh=7),
        lambda atom: atom["shells"][0]["samples"].update(values="AAAA"),
        lambda atom: atom["shells"][0]["samples"].pop("digest"),
        lambda atom: atom["shells"][0]["samples"].update(cutoff=7.0),
        lambda atom: atom["shells"][0].update(samples="x"),
        lambda atom: atom.update(meshes=[]),
        lambda atom: atom.update(meshes=[atom["meshes"][0][:-4]]),
        lambda atom: atom.update(meshes=[atom["meshes"][0].replace("A", "B", 1)]),
    ],
)
def test_damaged_radial_functions_are_refused_in_one_line(tmp_path, damage):
    path, basis = tmp_path / "data.h5", openmx_basis(["C", "Mo", "S"])
    basis = Basis.of(*(replace(atom, cutoff=1.0) for atom in basis.atoms.values()))
    append_systems(path, [("x", random_system(basis, 1))])
    with h5py.File(path, "r+") as file:
        content = json.loads(file["basis"][()])
        damage(content["atoms"][0])
        del file["basis"], file.attrs[CHECKSUMS]  # as an earlier version would write it
        file["basis"] = json.dumps(content)
    with pytest.raises(FormatError, match=r"data\.h5: the basis cannot be read \(.*copy or make") as error:
        DataSet(path)
    assert "\n" not in str(error.value)
