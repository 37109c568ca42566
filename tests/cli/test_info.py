"""hybridham info: data sets, structures of any source, pictures, bad input."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from ase_hybridham import cli
from ase_hybridham.cli import info
from ase_hybridham.io import read_deeph
from ase_hybridham.store import DataSet, append_systems, set_splits

GRAPHENE = Path(cli.__file__).parents[1] / "data/demo_graphene.h5"


@pytest.fixture
def hybridham(monkeypatch, capsys):
    """Run a command line: status, stdout, stderr."""
    monkeypatch.setattr(cli, "COMMANDS", {"info": cli.COMMANDS["info"]})

    def run(*words: object) -> tuple[int, str, str]:
        status = cli.main([str(word) for word in words])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def mixed(golden, tmp_path) -> Path:
    """Graphene and MoS2 as computed by OpenMX, with a split that leaves one out."""
    path = tmp_path / "mixed.h5"
    for name in ("graphene", "MoS2_monolayer"):
        append_systems(path, [(name, read_deeph(golden / "openmx" / name / "deeph"))], compact=name == "graphene")
    set_splits(path, {"train": ["graphene"]})
    return path


def test_everything_of_a_data_set_is_told(hybridham, mixed):
    status, text, _ = hybridham("info", mixed, "--json")
    content = json.loads(text)
    assert status == 0
    assert content["kind"] == "dataset"
    assert (content["structures"], content["sampled"], content["compact"]) == (2, 2, 1)
    assert content["atoms"] == [2, 3]
    assert content["splits"] == {"train": 1}
    assert content["in_no_split"] == 1
    assert content["computed"]["format"] == {"deeph": 2}
    with DataSet(mixed) as data:
        systems = [data[name] for name in data]
        assert content["pairs"] == sorted(len(system.pairs) for system in systems)
        assert content["fermi_eV"] == sorted(system.fermi_level for system in systems)
    assert set(content["elements"]) == {"C", "Mo", "S"}
    assert set(content["element_pairs"]) == {"C-C", "Mo-Mo", "Mo-S", "S-S"}
    for quantity, unit, values in (
        ("hamiltonian", "_eV", [system.hamiltonian[0].values for system in systems]),
        ("overlap", "", [system.overlap.values for system in systems]),
    ):
        rows = content[quantity]
        n = sum(row["elements"] for row in rows)
        assert n == sum(map(len, values))
        total = sum(row["elements"] * row[f"mean{unit}"] for row in rows)
        assert total == pytest.approx(sum(np.abs(v).sum() for v in values))
        assert max(row[f"max{unit}"] for row in rows) == max(np.abs(v).max() for v in values)
        assert all(row[f"low{unit}"] <= row[f"median{unit}"] <= row[f"high{unit}"] for row in rows)
    status, text, _ = hybridham("info", mixed)
    assert "2 structures, spin none, 1 in single precision" in text
    assert "splits: train 1, in none 1" in text
    assert "largest |H| in eV, 2 structures:" in text


def test_settings_are_counted_and_the_sample_is_told(hybridham, monkeypatch):
    monkeypatch.setattr(info, "SAMPLE", 5)
    status, text, _ = hybridham("info", GRAPHENE)
    assert status == 0
    assert "code: PySCF 2.14.0 (56)" in text
    assert "k_mesh: [4, 4, 1] (32), [2, 2, 1] (12), [2, 4, 1] (12)" in text
    assert "residual_eV: 2.46735e-06 to 9.89259e-05 (56)" in text
    assert "largest |H| in eV, 5 of 56 structures, evenly chosen:" in text
    assert "null" not in text


def test_a_structure_is_described_from_any_source(hybridham, golden, mixed):
    folder = golden / "openmx/MoS2_monolayer/deeph"
    of_folder = json.loads(hybridham("info", folder, "--json")[1])
    of_data = json.loads(hybridham("info", f"{mixed}:MoS2_monolayer", "--json")[1])
    assert of_folder.pop("path") == str(folder)
    assert of_data.pop("path") == f"{mixed}:MoS2_monolayer"
    assert of_folder.pop("provenance") == of_data.pop("provenance") == {"format": "deeph"}
    assert {**of_data, "elements": of_folder["elements"]} == of_folder  # the radius of S stems from both structures
    assert (of_folder["formula"], of_folder["orbitals"], of_folder["spin"]) == ("MoS2", 45, "none")
    assert of_folder["periodic"] == [True, True, False]
    status, text, _ = hybridham("info", folder)
    assert status == 0
    assert "MoS2, spin none, periodic along ab" in text
    assert "electrons unknown" in text
    status, text, _ = hybridham("info", golden / "openmx/graphene/openmx.scfout.gz", "--format", "openmx")
    assert status == 0
    assert "xc: GGA-PBE" in text
    assert "electrons 8" in text


def test_only_an_overlap_gives_its_table(hybridham, golden, tmp_path):
    text = json.dumps(json.loads(hybridham("info", golden / "openmx/graphene/deeph", "--json")[1])["overlap"])
    for file in (golden / "openmx/graphene/deeph").iterdir():
        if file.name != "hamiltonians.h5":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    content = json.loads(hybridham("info", tmp_path, "--json")[1])
    assert json.dumps(content["overlap"]) == text
    assert content["hamiltonian"] == []
    assert "largest |S|, 1 structure:" in hybridham("info", tmp_path)[1]


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_the_picture_is_written(hybridham, mixed, tmp_path, suffix):
    status, text, _ = hybridham("info", mixed, "-o", tmp_path / f"hist.{suffix}")
    assert status == 0
    assert text.startswith(str(mixed))
    assert (tmp_path / f"hist.{suffix}").stat().st_size > 5000


def test_bad_input_is_one_line(hybridham, golden, mixed, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.h5").write_bytes(b"")
    for words, message in {
        (tmp_path / "nowhere.h5",): "no such file",
        (tmp_path / "x.h5",): "x.h5: not a complete HDF5 file",
        (f"{mixed}:x",): "mixed.h5:x: expected one of 2 structures",
        (tmp_path / "empty",): "empty: holds no structure; looked for deeph",
        (golden / "openmx",): "structures, such as ",
        (golden / "openmx/README.md",): "README.md: no known format",
        (golden / "openmx/graphene/deeph", "--format", "x"): "format: expected one of deeph",
        (mixed, "-o", tmp_path / "hist.xyz"): "hist.xyz: expected a suffix of",
        (mixed, "-o", tmp_path / "x.h5/hist.png"): "x.h5",
    }.items():
        status, text, messages = hybridham("info", *words)
        assert (status, text, messages.count("\n")) == (2, "", 1), words
        assert message in messages


def test_empty_data_sets_are_described(hybridham, mixed):
    with h5py.File(mixed, "r+") as file:
        for name in list(file["structures"]):
            del file["structures"][name]
        del file["splits"]
        file["splits"] = "{}"
        del file.attrs["checksums"]
    status, text, _ = hybridham("info", mixed)
    assert status == 0
    assert "0 structures" in text


def test_a_run_folder_means_the_structure_in_it(hybridham, golden, tmp_path):
    (tmp_path / "run/deeper").mkdir(parents=True)
    shutil.copy(golden / "openmx/H2O_across_boundary/openmx.scfout.gz", tmp_path / "run/deeper")
    status, text, _ = hybridham("info", tmp_path / "run", "--json")
    assert (status, json.loads(text)["path"]) == (0, str(tmp_path / "run"))
