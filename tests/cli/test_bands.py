"""hybridham bands: golden references, every kind of source, and bad input."""

import json
import shutil
from dataclasses import replace

import ase.io
import numpy as np
import pytest
from ase import Atoms

from ase_hybridham import calculator, cli
from ase_hybridham.io import read_deeph, read_openmx_band, write_deeph
from ase_hybridham.store import append_systems
from ase_hybridham.system import AtomBasis, Basis
from tests.io.pao_files import pao_folder


@pytest.fixture
def hybridham(monkeypatch, capsys, tmp_path):
    """Run `hybridham bands ...` in a fresh folder: status, stdout, stderr."""
    monkeypatch.setattr(cli, "COMMANDS", {"bands": cli.COMMANDS["bands"]})
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        status = cli.main(["bands", *map(str, words)])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def graphene(golden):
    return golden / "openmx/graphene"


class Remembers:
    """Stands in for a network: predicts the DFT Hamiltonian of graphene, moved by a constant times S."""

    potential_reference = "openmx"

    def __init__(self, folder, shift: float) -> None:
        self.provenance = {"trained": "by heart"}
        system = read_deeph(folder)
        self.h = system.hamiltonian[0] + shift * system.overlap
        shells = system.basis["C"].shells
        self.basis = Basis.of(AtomBasis("C", shells, valence=4, cutoff=3.175))

    def predict(self, atoms, pairs=None):
        return self.h.on_pairs(pairs)


@pytest.fixture
def model(monkeypatch, graphene, tmp_path):
    """A checkpoint, whose model is 0.3 eV too high."""
    (tmp_path / "model.hham").touch()
    monkeypatch.setattr(calculator, "_load", lambda *_: Remembers(graphene / "deeph", 0.3))
    return "model.hham"


@pytest.mark.parametrize("sample", ["graphene", "MoS2_monolayer", "Bi_bismuthene_soc", "CH4_molecule"])
def test_folder_has_the_bands_openmx_printed(hybridham, golden, sample):
    folder = golden / "openmx" / sample
    status, text, _ = hybridham(folder / "deeph", "--reference", folder / "openmx.Band", "--json")
    result = json.loads(text)
    assert status == 0
    assert sorted(result["reference"]) == ["aligned_max_eV", "aligned_mean_eV", "max_eV", "mean_eV", "window_eV"]
    assert 0 < result["reference"]["mean_eV"] < result["reference"]["max_eV"] < 1e-7
    reference = read_openmx_band(folder / "openmx.Band")
    np.testing.assert_allclose(result["k_points"], reference.k_points)
    np.testing.assert_allclose(result["eigenvalues_eV"], reference.eigenvalues, atol=1e-7)
    assert result["fermi_eV"] == pytest.approx(reference.fermi_level, abs=1e-6)
    assert [(tick["row"], tick["label"]) for tick in result["path"]] == list(reference.ticks)


def test_states_near_the_level_are_compared_by_their_numbers(hybridham, golden, tmp_path):
    folder = golden / "openmx/MoS2_monolayer"
    words = (folder / "deeph", "--reference", folder / "openmx.Band", "--solver", "sparse", "--states", 8)
    result = json.loads(hybridham(*words, "--json")[1])
    assert 0 < result["reference"]["max_eV"] < 1e-7
    expected = read_openmx_band(folder / "openmx.Band").eigenvalues[0]
    first, found = result["first_band"], np.array(result["eigenvalues_eV"][0], dtype=float)
    there = np.isfinite(found)
    assert first > 0
    assert (there.sum(axis=1) >= 8).all()
    np.testing.assert_allclose(found[there], expected[:, first : first + found.shape[1]][there], atol=1e-7)
    status, text, _ = hybridham(*words)
    assert status == 0
    assert f"the first is number {first}" in text
    assert "valence maxima aligned" in text
    assert (tmp_path / "bands.png").stat().st_size > 5000
    both = json.loads(hybridham(folder / "deeph", "--reference", folder / "deeph", "--states", 8, "--json")[1])
    assert both["states"] > 8
    assert both["reference"]["max_eV"] == 0
    of_all = [json.loads(hybridham(*words[:3], "--window", 5, *more, "--json")[1]) for more in ((), ("--states", 2))]
    assert of_all[0]["states_not_found"] == 0 < of_all[1]["states_not_found"]
    assert of_all[1]["states"] + of_all[1]["states_not_found"] == of_all[0]["states"]
    assert "more of it were not found" in text


def test_weighted_bands_of_the_sparse_solver_have_their_numbers(hybridham, golden, tmp_path):
    words = (golden / "openmx/MoS2_monolayer/deeph", "--by", "element", "--npoints", 5, "--states", 8)
    first = json.loads(hybridham(*words, "--json")[1])["first_band"]
    assert first > 0
    assert f"the first is number {first}" in hybridham(*words)[1]


def test_picture_and_summary(hybridham, graphene, tmp_path):
    reference = graphene / "openmx.Band"
    status, text, _ = hybridham(graphene / "deeph", "--reference", reference, "--window", 3, "-o", "deep/er/x.pdf")
    assert status == 0
    assert (tmp_path / "deep/er/x.pdf").stat().st_size > 5000
    assert "Fermi level -3.780961 eV (stored)" in text
    assert "within 3 eV of E_F" in text
    assert "x.pdf" in text


def test_without_reference_the_standard_path_is_drawn(hybridham, graphene, tmp_path):
    status, _, _ = hybridham(graphene / "deeph", "--npoints", 20)
    assert status == 0
    assert (tmp_path / "bands.png").read_bytes().startswith(b"\x89PNG")
    result = json.loads(hybridham(graphene / "deeph", "--npoints", 20, "--path", "GK", "--json")[1])
    assert len(result["k_points"]) == 20
    assert [tick["label"] for tick in result["path"]] == ["G", "K"]
    assert "reference" not in result
    assert "output" not in result


@pytest.mark.parametrize(("sample", "path"), [("CH4_molecule", None), ("graphene", "K")])
def test_one_point_is_a_path_too(hybridham, golden, sample, path):
    options = ["--path", path] if path else []
    status, text, _ = hybridham(golden / "openmx" / sample / "deeph", *options, "--json")
    assert status == 0
    assert json.loads(text)["path"] == [{"label": path or "G", "row": 0}]
    assert hybridham(golden / "openmx" / sample / "deeph", *options)[0] == 0  # and the picture


def test_labels_stand_at_their_points_also_where_the_path_is_straight(hybridham, graphene, tmp_path):
    system = read_deeph(graphene / "deeph")
    path = system.atoms.cell.bandpath("GMGKMG", npoints=7, pbc=system.atoms.pbc)
    result = json.loads(hybridham(graphene / "deeph", "--path", "GMGKMG", "--npoints", 7, "--json")[1])
    assert [tick["label"] for tick in result["path"]] == list("GMGKMG")
    for tick in result["path"]:
        np.testing.assert_allclose(result["k_points"][tick["row"]], path.special_points[tick["label"]], atol=1e-6)


def test_data_set_is_a_source_and_a_reference(hybridham, golden_bilayers, tmp_path):
    one, other = (read_deeph(golden_bilayers / name) for name in ("000", "001"))
    append_systems(tmp_path / "data.h5", [("a", replace(one, electrons=16.0)), ("b", replace(other, electrons=16.0))])
    words = ("--reference", "data.h5:b", "--path", "GMKG", "--npoints", 15, "--json", "--window", 2)
    same = json.loads(hybridham("data.h5:b", *words)[1])["reference"]
    assert (same["max_eV"], same["aligned_max_eV"], same["window_eV"]) == (0, 0, 2)
    different = json.loads(hybridham("data.h5:a", *words)[1])["reference"]
    assert 1e-2 < different["mean_eV"] < different["max_eV"] < 5
    assert different["aligned_mean_eV"] != different["mean_eV"]


def test_fermi_level_is_computed_where_a_mesh_or_a_valence_is_given(hybridham, graphene, tmp_path):
    result = json.loads(hybridham(graphene / "deeph", "--kpts", 9, 9, 1, "--npoints", 5, "--json")[1])
    assert result["fermi_from"] == "electrons"
    assert result["fermi_eV"] == pytest.approx(-3.780961, abs=2e-3)
    write_deeph(replace(read_deeph(graphene / "deeph"), fermi_level=None), tmp_path / "no_level")
    status, _, message = hybridham("no_level", "--npoints", 5)
    assert status == 2
    assert "give --valence C=N" in message
    result = json.loads(hybridham("no_level", "--valence", "C=4", "--npoints", 5, "--json")[1])
    assert (result["electrons"], result["fermi_from"]) == (8, "electrons")
    assert result["fermi_eV"] == pytest.approx(-3.780961, abs=2e-3)


def test_model_with_a_folder_as_structure_and_a_reference(hybridham, model, graphene):
    words = ("--reference", graphene / "openmx.Band", "--json", "--kpts", 9, 9, 1)
    result = json.loads(hybridham(model, graphene / "deeph", *words)[1])
    assert result["reference"]["mean_eV"] == pytest.approx(0.3, abs=1e-7)
    assert result["reference"]["aligned_max_eV"] < 2e-3  # the level comes from our mesh and temperature
    assert result["electrons"] == 8


def test_model_with_any_structure_needs_an_overlap(hybridham, model, graphene, tmp_path):
    ase.io.write(tmp_path / "POSCAR", read_deeph(graphene / "deeph").atoms)
    status, _, message = hybridham(model, "POSCAR")
    assert status == 2
    assert message.startswith("hybridham bands: POSCAR: holds no S, and model.hham cannot compute it")
    assert "give --basis-dir DIR" in message
    status, text, _ = hybridham(model, "POSCAR", "--overlap", graphene / "deeph", "--npoints", 5, "--json")
    assert status == 0
    assert json.loads(text)["fermi_eV"] == pytest.approx(-3.780961 + 0.3, abs=2e-3)


def overlap_of_another(folder):
    return ["model.hham", "POSCAR", "--overlap", folder / "../bilayer_graphene_AB/deeph"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (lambda f: [f / "nothing"], "nothing: no such file"),
        (lambda f: [f / "openmx.dat"], "openmx.dat: no known format"),
        (lambda f: [f / "deeph", "POSCAR"], "only a checkpoint takes one"),
        (lambda f: ["model.hham"], "expected a STRUCTURE"),
        (lambda f: ["model.hham", "nowhere.xyz"], "nowhere.xyz: no such file"),
        (lambda f: ["model.hham", f / "sample.json"], "sample.json: not a structure"),
        (overlap_of_another, "POSCAR: overlap: given for other elements"),
        (lambda f: ["nofolder"], "nofolder: no such file"),
        (lambda f: ["model.hham", "empty.xyz"], "empty.xyz"),
        (lambda f: ["model.hham", "ice.cif"], "ice.cif: no such file"),
        (lambda f: ["model.hham", "twice.xyz"], "twice.xyz: atoms 0 and 1 lie on each other"),
        (lambda f: ["model.hham", "other.xyz"], "other.xyz: model: expected atoms of C, got O"),
        (lambda f: ["no_overlap"], "no_overlap: holds no S"),
        (lambda f: [f / "deeph", "--reference", "no_overlap"], "no_overlap: holds no S"),
        (lambda f: ["no_hamiltonian"], "no_hamiltonian: holds S only"),
        (lambda f: ["negative"], "negative: overlap at k"),
        (lambda f: ["negative", "--valence", "H=1"], "negative: valence: expected one for C too"),
        (lambda f: [f / "deeph", "--path", "GXW"], "special points G, K, M"),
        (lambda f: [f / "deeph", "--path", "GM", "--reference", f / "openmx.Band"], "leave it out"),
        (lambda f: [f / "deeph", "--npoints", "0"], "at least one k-point"),
        (lambda f: [f / "deeph", "--window", "-1"], "--window: expected an energy > 0"),
        (lambda f: [f / "deeph", "--window", "1e-9", "--reference", f / "openmx.Band"], "window: no state"),
        (lambda f: [f / "deeph", "--reference", f / "../bilayer_graphene_AB/openmx.Band"], "expected 26 bands"),
        (lambda f: [f / "deeph", "--reference", f / "../bilayer_graphene_AB/deeph"], "expected 26 orbitals"),
        (lambda f: [f / "deeph", "--reference", f / "openmx.dat"], "openmx.dat: no known format"),
        (lambda f: [f / "deeph", "--valence", "C=four"], "expected a word like C=4"),
        (lambda f: [f / "deeph", "--kpts", "0", "1", "1"], "three positive integers"),
        (lambda f: [f / "deeph", "-o", "bands.xyz"], "expected a suffix of"),
        (lambda f: [f / "deeph", "--states", "0"], "--states: expected 1 or more"),
        (lambda f: [f / "deeph", "--states", "40"], "expected 1 to 26 states of 26 orbitals"),
        (lambda f: [f / "deeph", "--states", "4", "--solver", "dense"], "the dense solver finds all states"),
        (lambda f: ["data.h5:nothing"], "data.h5"),
    ],
)
def test_bad_input_is_one_line_and_status_two(hybridham, model, graphene, tmp_path, words, message):
    system = read_deeph(graphene / "deeph")
    ase.io.write(tmp_path / "POSCAR", system.atoms)
    ase.io.write(tmp_path / "empty.xyz", system.atoms[:0])
    ase.io.write(tmp_path / "twice.xyz", Atoms("CC", [[0, 0, 0], [0, 0, 0.05]]))
    ase.io.write(tmp_path / "other.xyz", Atoms("CO", [[0, 0, 0], [0, 0, 1.1]]))
    write_deeph(replace(system, overlap=None), tmp_path / "no_overlap")
    write_deeph(replace(system, hamiltonian=()), tmp_path / "no_hamiltonian")
    write_deeph(replace(system, overlap=-1.0 * system.overlap), tmp_path / "negative")
    status, out, err = hybridham(*words(graphene))
    assert (status, out) == (2, "")
    assert err.startswith("hybridham bands: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "bands.png").exists()


def test_a_run_folder_means_the_structure_in_it(hybridham, golden, tmp_path):
    folder = golden / "openmx/H2O_across_boundary"
    (tmp_path / "run/deeper").mkdir(parents=True)
    shutil.copy(folder / "openmx.scfout.gz", tmp_path / "run/deeper")
    status, text, _ = hybridham(
        tmp_path / "run", "--reference", folder / "openmx.Band", "--json", "-o", tmp_path / "b.png"
    )
    assert status == 0
    assert json.loads(text)["reference"]["max_eV"] < 1e-6


def test_model_without_functions_takes_them_from_a_folder(hybridham, model, graphene, tmp_path):
    ase.io.write(tmp_path / "POSCAR", read_deeph(graphene / "deeph").atoms)
    pao_folder(tmp_path / "pao", "C")
    words = ("--npoints", 5, "--kpts", 5, 5, 1, "--json")
    status, text, err = hybridham(model, "POSCAR", "--basis-dir", "pao", *words)
    assert (status, err) == (0, "")
    given = json.loads(hybridham(model, "POSCAR", "--overlap", graphene / "openmx.scfout.gz", *words)[1])
    energies = np.array(json.loads(text)["eigenvalues_eV"])
    # the highest bands feel S a thousand times, and POSCAR rounds positions
    np.testing.assert_allclose(energies, given["eigenvalues_eV"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--basis-dir", "nowhere"], "nowhere: expected a folder of basis files"),
        (["--basis", "C=C6.0-s2p2d1"], "--basis C=C6.0-s2p2d1: names a basis in a folder; give --basis-dir"),
        (["--basis-dir", "pao", "--basis", "C6.0-s2p2d1"], "--basis: expected a word like C=C6.0-s2p2d1"),
        (["--basis-dir", "pao", "--basis", "C=C9.0-s2p2d1"], "pao: expected the file of C9.0-s2p2d1"),
        (["--overlap", "no_overlap"], "--overlap no_overlap: holds no overlap"),
    ],
)
def test_sources_of_the_overlap_that_do_not_work_are_one_line(hybridham, model, graphene, tmp_path, words, message):
    system = read_deeph(graphene / "deeph")
    ase.io.write(tmp_path / "POSCAR", system.atoms)
    write_deeph(replace(system, overlap=None), tmp_path / "no_overlap")
    pao_folder(tmp_path / "pao", "C")
    status, out, err = hybridham(model, "POSCAR", *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err
