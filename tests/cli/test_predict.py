"""hybridham predict and import-deephe3: what is written is what the network says, on the pairs that were asked for."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import ase.io
import h5py
import numpy as np
import pytest
from ase import Atoms

import ase_hybridham.model
from ase_hybridham.io import read_deeph, read_system, write_deeph, write_deeph_dock
from ase_hybridham.model import load_model, save_model
from ase_hybridham.overlap import overlap_from_basis
from ase_hybridham.store import DataSet, append_systems
from ase_hybridham.system import AtomBasis, Basis, PairBlocks, PairList
from tests.io.pao_files import pao_folder
from tests.overlap.radial_data import openmx_basis
from tests.train.synthetic import atoms_of, system_of


@pytest.fixture
def place(workplace, tmp_path, monkeypatch) -> Path:
    """A folder with model.hham, data.h5 and a DeepH folder of its structure a, `a_deeph`."""
    shutil.copyfile(workplace / "run/model.hham", tmp_path / "model.hham")
    shutil.copyfile(workplace / "data.h5", tmp_path / "data.h5")
    write_deeph(system_of(atoms_of(0)), tmp_path / "a_deeph")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class FreeNetwork:
    """Stands in for an imported network: H of random numbers, not Hermitian; no radii in its basis."""

    potential_reference, provenance = "unknown", {}
    cascade = SimpleNamespace(hybrid=False, streams=False)

    def __init__(self, spinor: bool = False) -> None:
        self.spinor, self.spin = spinor, "spinor" if spinor else "none"
        self.basis = Basis.of(AtomBasis.from_degrees("C", [0, 1, 2]), AtomBasis.from_degrees("H", [0, 1]))

    def hamiltonian(self, atoms, pairs, stage=None, *, hermitian=True, processes=None) -> tuple[PairBlocks, ...]:
        rng = np.random.default_rng(len(pairs))
        zeros = PairBlocks.zeros(pairs, self.basis, spinor=self.spinor)
        noise = rng.normal(size=zeros.values.shape) + (1j * rng.normal(size=zeros.values.shape) if self.spinor else 0)
        h = zeros.with_values(noise)
        return (h.hermitian_part() if hermitian else h,)


@pytest.fixture(params=[False, True], ids=["spinless", "spinor"])
def free(monkeypatch, request) -> FreeNetwork:
    """What `load_model` then returns."""
    network = FreeNetwork(request.param)
    monkeypatch.setattr(ase_hybridham.model, "load_model", lambda name, device: network)
    return network


def predicted(path: Path, name: str) -> PairBlocks:
    with DataSet(path) as data:
        return data[name].hamiltonian[0]


def assert_same_file(ours: Path, theirs: Path, rtol: float = 0.0) -> None:
    """Two files of blocks hold the same keys and, within rtol of the largest element, the same numbers."""
    with h5py.File(ours) as a, h5py.File(theirs) as b:
        assert list(a) == list(b)
        largest = max(np.abs(b[key][()]).max() for key in b)
        assert largest > 1  # eV; not 0 = 0
        for key in b:
            assert a[key].dtype.kind == b[key].dtype.kind
            np.testing.assert_allclose(a[key][()], b[key][()], rtol=0, atol=rtol * largest)


def test_written_is_what_the_network_says_on_the_pairs_of_the_source(command_line: Callable, place: Path):
    model, system = load_model("model.hham"), system_of(atoms_of(0))
    expected = model.predict(system.atoms, system.pairs)
    for structure, name in {"data.h5:a": "a", "a_deeph": "a_deeph"}.items():
        status, out, err = command_line("predict", "model.hham", structure, "-o", "out.h5")
        assert (status, err) == (0, "")
        assert "3 atoms, " in out
        with DataSet("out.h5") as data:
            found = data[name]
        assert found.pairs.same_pairs(system.pairs)
        # written text positions are exact, but a folder's origin of rounding is another
        np.testing.assert_allclose(found.hamiltonian[0].values, expected.values, rtol=0, atol=1e-12)
        assert found.hamiltonian[0].hermiticity_error() == 0
        np.testing.assert_array_equal(found.overlap.values, system.overlap.values)
        assert found.provenance["predicted"] is True
        assert command_line("bands", f"out.h5:{name}", "--npoints", 5, "--kpts", 2, 2, 1, "--json")[0] == 0


def test_a_file_of_atoms_gets_the_pairs_of_the_radii(command_line: Callable, place: Path):
    ase.io.write("one.json", atoms_of(0))
    assert command_line("predict", "model.hham", "one.json")[0] == 0  # into predicted.h5
    assert command_line("predict", "model.hham", "data.h5:b")[0] == 0
    assert DataSet("predicted.h5").names == ["b", "one"]
    expected = load_model("model.hham").predict(atoms_of(0))
    np.testing.assert_allclose(predicted(Path("predicted.h5"), "one").values, expected.values, rtol=0, atol=1e-12)
    with DataSet("predicted.h5") as data:
        assert data["one"].overlap is None


def test_stages(command_line: Callable, place: Path):
    model = load_model("model.hham")
    model.cascade.has_stage2.fill_(True)
    for n, stage in enumerate(("mean", "stage1", "hybrid")):
        assert command_line("predict", "model.hham", "data.h5:a", "--stage", stage, "-o", f"{n}.h5")[0] == 0
        expected = model.predict(atoms_of(0), stage=stage)
        np.testing.assert_allclose(predicted(Path(f"{n}.h5"), "a").values, expected.values, rtol=0, atol=1e-12)
    model.cascade.has_stage2.fill_(False)
    save_model("first.hham", model)
    status, out, err = command_line("predict", "first.hham", "data.h5:a", "--stage", "hybrid", "-o", "x.h5")
    assert (status, out) == (2, "")
    assert "stage 2 of first.hham is not trained" in err
    result = json.loads(command_line("predict", "first.hham", "data.h5:a", "-o", "x.h5", "--json")[1])
    assert result["stage"] == "stage1"


def test_two_processes_of_torchrun_are_one(command_line: Callable, place: Path):
    """The first writes and talks."""
    words = ["predict", "model.hham", "data.h5:a", "--json", "-o"]
    assert command_line(*words, "one.h5")[0] == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    program = [sys.executable, "-c", "import sys; from ase_hybridham.cli import main; sys.exit(main())"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [*launcher, *program, *words, "two.h5"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["output"] == "two.h5"
    one, two = (predicted(Path(file), "a").values for file in ("one.h5", "two.h5"))
    assert np.abs(one).max() > 1
    np.testing.assert_allclose(two, one, rtol=0, atol=1e-12)


def test_features_in_files(command_line: Callable, place: Path):
    (place / "here").mkdir()
    for output, words in {"one.h5": [], "two.h5": ["--scratch", "here"]}.items():
        assert command_line("predict", "model.hham", "data.h5:a", "-o", output, *words)[0] == 0
    assert np.array_equal(*(predicted(Path(file), "a").values for file in ("one.h5", "two.h5")))
    assert not [*(place / "here").iterdir()]


@pytest.mark.parametrize("structure", ["a_deeph", "one.json", "bare"])
def test_cutoff_takes_all_pairs_up_to_it(command_line: Callable, place: Path, free: FreeNetwork, structure: str):
    atoms = atoms_of(0)
    ase.io.write("one.json", atoms)
    shutil.copytree("a_deeph", "bare")
    for name in ("overlaps.h5", "hamiltonians.h5"):
        (place / "bare" / name).unlink()
    words = ("predict", "model.hham", structure, "--cutoff", 4.0, "--format", "deeph", "--json")
    status, out, _ = command_line(*words, "-o", "out")
    assert status == 0
    pairs = PairList.from_atoms(atoms, 4.0)
    assert 3.5 < pairs.distances.max() <= 4.0
    found = read_deeph("out")
    assert found.pairs.same_pairs(pairs)
    assert found.overlap is None  # that of the folder stands on other pairs
    assert json.loads(out)["longest_pair_angstrom"] == pytest.approx(pairs.distances.max(), abs=1e-12)


@pytest.fixture
def files(place: Path) -> Path:
    """A folder of basis files of C and H, and atoms that are in no other file: pao, one.json."""
    ase.io.write("one.json", atoms_of(0))
    return pao_folder(place / "pao", "C", "H")


def first_functions(free: FreeNetwork) -> Basis:
    """Of OpenMX, for the shells of the network: s1 p1 d1 of C, s1 p1 of H."""
    atoms = []
    for symbol, degrees in {"C": (0, 1, 2), "H": (0, 1)}.items():
        atom = openmx_basis(symbol)[symbol]
        shells = tuple(next(shell for shell in atom.shells if shell.l == l) for l in degrees)
        atoms.append(replace(atom, shells=shells))
    return Basis.of(*atoms)


def test_basis_files_give_s_and_the_pairs(command_line: Callable, files: Path, free: FreeNetwork):
    words = ("predict", "model.hham", "one.json", "--format", "deeph", "--basis-dir", "pao", "--json")
    status, out, err = command_line(*words, "-o", "out")
    assert (status, err) == (0, "")
    found, expected = read_deeph("out"), overlap_from_basis(atoms_of(0), first_functions(free))
    assert found.pairs.same_pairs(expected.pairs)
    assert np.abs(expected.values[expected.offsets[3] :]).max() > 0.3  # not 0 = 0
    np.testing.assert_allclose(found.overlap.values, expected.values, rtol=0, atol=1e-9)
    assert json.loads(out)["overlap_from"] == "basis"
    result = json.loads(command_line(*words, "--cutoff", 3, "-o", "near")[1])
    assert result["longest_pair_angstrom"] <= 3
    np.testing.assert_allclose(
        read_deeph("near").overlap.values, expected.on_pairs(read_deeph("near").pairs).values, rtol=0, atol=1e-9
    )


def test_a_model_with_radial_functions_writes_s(command_line: Callable, files: Path, free: FreeNetwork):
    free.basis = first_functions(free)
    for structure, origin in {"one.json": "basis", "out.h5:one": "structure"}.items():
        result = json.loads(
            command_line(
                "predict", "model.hham", structure, "-o", "out.h5" if origin == "basis" else "again.h5", "--json"
            )[1]
        )
        assert (result["overlap"], result["overlap_from"]) == (True, origin)
    with DataSet("out.h5") as ours, DataSet("again.h5") as again:
        np.testing.assert_array_equal(ours["one"].overlap.values, again["one"].overlap.values)
        assert ours["one"].basis.has_radial_functions()


def test_a_given_overlap_brings_its_pairs(command_line: Callable, files: Path, free: FreeNetwork):
    words = ("predict", "model.hham", "one.json", "--format", "deeph", "--basis-dir", "pao")
    assert command_line(*words, "--cutoff", 3, "-o", "s")[0] == 0
    free.basis = first_functions(free)
    result = json.loads(command_line("predict", "m.hham", "one.json", "--overlap", "s", "-o", "given.h5", "--json")[1])
    assert result["overlap_from"] == "s"
    with DataSet("given.h5") as data:
        np.testing.assert_array_equal(data["one"].overlap.values, read_deeph("s").overlap.values)


def test_s_goes_beside_a_prediction_where_its_folder_has_none(command_line: Callable, files: Path, free: FreeNetwork):
    free.basis = first_functions(free)
    assert command_line("predict", "m.hham", "one.json", "--format", "deeph", "-o", "out")[0] == 0
    for name in ("overlaps.h5", "hamiltonians_pred.h5"):
        shutil.move(f"out/{name}", name)
    assert command_line("predict", "m.hham", "out", "--format", "deeph", "-o", "out")[0] == 0
    assert read_deeph("out").overlap is not None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--basis-dir", "nowhere"], "nowhere: expected a folder of basis files"),
        (["--basis", "C=C6.0-s2p2d1"], "give --basis-dir DIR too"),
        (["--basis-dir", "pao", "--basis", "C=C6.0-s2p2d1"], "the shells of C are s1p1d1, C6.0-s2p2d1 has others"),
        (["--overlap", "nothing"], "nothing: no such file"),
        (["--overlap", "a_deeph"], "one.json: its orbitals are not those of the model"),
        (["--overlap", "a_deeph", "--cutoff", 3], "--overlap a_deeph: brings its own pairs; leave --cutoff out"),
    ],
)
def test_sources_of_s_that_do_not_work_are_one_line(
    command_line: Callable, files: Path, free: FreeNetwork, words, message
):
    status, out, err = command_line("predict", "model.hham", "one.json", *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_without_pairs_and_radii_a_cutoff_is_needed(command_line: Callable, place: Path, free: FreeNetwork):
    ase.io.write("one.json", atoms_of(0))
    status, out, err = command_line("predict", "model.hham", "one.json")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "one.json: holds no pairs, and model.hham has no radii of its orbitals; give --cutoff R" in err


def test_a_network_that_is_not_hermitian_is_written_raw_unless_asked(
    command_line: Callable, place: Path, free: FreeNetwork
):
    free.basis = system_of(atoms_of(0)).basis
    atoms, pairs = atoms_of(0), system_of(atoms_of(0)).pairs
    (raw,) = free.hamiltonian(atoms, pairs, hermitian=False)
    for form in ("hdf5", "deeph"):
        for words, expected in (([], raw), (["--symmetrize"], raw.hermitian_part())):
            output = f"{form}{len(words)}" + ".h5" * (form == "hdf5")
            status, out, _ = command_line(
                "predict", "model.hham", "a_deeph", "--format", form, "-o", output, "--json", *words
            )
            assert status == 0
            result = json.loads(out)
            assert result["hermiticity_error_eV"] == raw.hermiticity_error() > 1
            assert result["symmetrized"] is bool(words)
            assert (result["spin"], result["orbitals"]) == (("spinor", 18) if free.spinor else ("none", 9))
            found = read_deeph(output).hamiltonian[0] if form == "deeph" else predicted(Path(output), "a_deeph")
            assert found.spinor == free.spinor
            np.testing.assert_array_equal(found.values, expected.values)


def test_folder_is_that_of_deeph(command_line: Callable, place: Path, free: FreeNetwork):
    """Keys from 1 with R, blocks spin-major in OpenMX's order, vectors as columns."""
    free.basis = Basis.of(AtomBasis.from_degrees("C", [0, 1]), AtomBasis.from_degrees("H", [0, 1]))
    status, _, _ = command_line(
        "predict", "m.hham", "data.h5:a", "--cutoff", 3, "--format", "deeph", "-o", "new/folder"
    )
    assert status == 0
    folder, atoms = place / "new/folder", atoms_of(0)
    names = {"lat.dat", "rlat.dat", "site_positions.dat", "element.dat", "orbital_types.dat", "info.json", "R_list.dat"}
    assert {path.name for path in folder.iterdir()} == names | {"hamiltonians_pred.h5"}
    assert json.loads((folder / "info.json").read_text())["isspinful"] is free.spinor
    np.testing.assert_array_equal(np.loadtxt(folder / "lat.dat").T, atoms.cell.array)
    np.testing.assert_array_equal(np.loadtxt(folder / "site_positions.dat").T, atoms.positions)
    np.testing.assert_allclose(
        np.loadtxt(folder / "rlat.dat").T @ atoms.cell.array.T, 2 * np.pi * np.eye(3), atol=1e-12
    )
    (h,) = free.hamiltonian(atoms, PairList.from_atoms(atoms, 3.0), hermitian=False)
    p = int(np.flatnonzero((h.pairs.i == 2) & (h.pairs.j == 0) & (h.pairs.shifts == [1, 0, 0]).all(axis=1))[0])
    openmx = [0, 3, 1, 2]  # s, x, y, z of our s, y, z, x
    both = [*openmx, *(4 + n for n in openmx)] if free.spinor else openmx
    with h5py.File(folder / "hamiltonians_pred.h5") as file:
        assert len(file) == len(h.pairs)
        block = file["[1, 0, 0, 3, 1]"]
        assert block.dtype == (np.complex128 if free.spinor else np.float64)
        np.testing.assert_array_equal(block[()], h.block(p)[np.ix_(both, both)])


FOLDERS = {  # format: what writes it, H, the prediction, S
    "deeph": (write_deeph, "hamiltonians.h5", "hamiltonians_pred.h5", "overlaps.h5"),
    "deeph-dock": (write_deeph_dock, "hamiltonian.h5", "hamiltonian_pred.h5", "overlap.h5"),
}


@pytest.mark.parametrize("form", FOLDERS)
def test_a_prediction_goes_where_deeph_puts_it(command_line: Callable, place: Path, form: str):
    """Into the folder that was made for inference: structure and S, no H."""
    write, hamiltonian, prediction, overlap = FOLDERS[form]
    system = system_of(atoms_of(0))
    write(replace(system, hamiltonian=()), "inference")
    before = {path: path.read_bytes() for path in Path("inference").iterdir()}
    words = ("predict", "model.hham", "inference", "--format", form, "-o")
    status, out, err = command_line(*words, "inference")
    assert (status, err) == (0, "")
    assert "inference: H and the S of the structure" in out
    after = {path: path.read_bytes() for path in Path("inference").iterdir()}
    assert set(after) - set(before) == {Path("inference") / prediction}
    assert all(after[path] == content for path, content in before.items())
    expected = load_model("model.hham").predict(system.atoms, system.pairs).values
    np.testing.assert_allclose(read_system("inference").hamiltonian[0].values, expected, rtol=0, atol=1e-12)
    status, _, err = command_line(*words, "inference")
    assert (status, err) == (
        2,
        f"hybridham predict: inference/{prediction}: already there; choose another name or remove it\n",
    )
    assert command_line("predict", "model.hham", "inference", "--format", form, "-o", "new")[0] == 0
    names = {path.name for path in Path("new").iterdir()}
    assert names >= {prediction, overlap}
    assert hamiltonian not in names
    np.testing.assert_allclose(read_system("new").hamiltonian[0].values, expected, rtol=0, atol=1e-12)
    assert command_line("bands", "inference", "--npoints", 5, "--kpts", 2, 2, 1, "--valence", "C=4", "H=1")[0] == 0


@pytest.mark.parametrize("form", FOLDERS)
def test_a_prediction_on_other_pairs_does_not_go_beside_the_overlap(command_line: Callable, place: Path, form: str):
    write, *_, overlap = FOLDERS[form]
    near = PairList.from_atoms(atoms_of(0), 2.2)
    system = system_of(atoms_of(0))
    write(replace(system, hamiltonian=(), overlap=system.overlap.on_pairs(near)), "inference")
    words = ("predict", "model.hham", "inference", "--format", form, "-o", "inference", "--cutoff", 2.4)
    status, _, err = command_line(*words)
    assert (status, err.count("\n")) == (2, 1)
    assert f"inference/{overlap}: has no block" in err
    (Path("inference") / overlap).unlink()
    assert command_line(*words)[0] == 0  # atoms alone: the pairs are those of --cutoff
    assert read_system("inference").pairs.same_pairs(PairList.from_atoms(atoms_of(0), 2.4))


def test_missing_pairs_are_told(command_line: Callable, place: Path, caplog):
    reach = PairList.from_atoms(atoms_of(0), load_model("model.hham").basis.cutoffs()).distances.max()
    assert command_line("predict", "model.hham", "data.h5:a", "--cutoff", 0.6 * reach)[0] == 0
    assert "pairs the model was trained with are missing here" in caplog.text


def spoiled(place: Path) -> None:
    """Sources and targets for bad input, in the working folder."""
    atoms = atoms_of(0)
    ase.io.write("one.json", atoms)
    ase.io.write("gold.json", Atoms("AuH", [[0, 0, 0], [0, 0, 1.5]]))
    ase.io.write("none.json", Atoms())
    ase.io.write("free.json", Atoms("CH", [[0, 0, 0], [0, 0, 1.1]]))
    ase.io.write("twice.json", Atoms("CC", [[0, 0, 0], [0, 0, 0]]))
    ase.io.write("flat.json", Atoms("CH", [[0, 0, 0], [0, 0, 1.1]], cell=[[3, 0, 0], [6, 0, 0], [0, 0, 9]], pbc=True))
    other = Basis.of(AtomBasis.from_degrees("C", [0, 1, 2], cutoff=1.6), AtomBasis.from_degrees("H", [0], cutoff=1.2))
    write_deeph(system_of(atoms, other), place / "orbitals")
    append_systems("taken.h5", [("one", system_of(atoms))])
    write_deeph(system_of(atoms_of(1)), place / "another")
    Path("text.txt").write_text("hello")
    Path("empty").mkdir()
    shutil.copytree("a_deeph", "cut")
    Path("cut/hamiltonians.h5").unlink()
    Path("cut/overlaps.h5").unlink()
    content = Path("a_deeph/hamiltonians.h5").read_bytes()
    Path("cut/hamiltonians_pred.h5").write_bytes(content[: len(content) // 2])


BAD = {
    "no such folder": (["model.hham", "one.json", "--scratch", "nowhere"], "--scratch nowhere: expected a folder"),
    "no checkpoint": (["no.hham", "one.json"], "no.hham: no such file"),
    "no checkpoint but text": (["text.txt", "one.json"], "text.txt: not a checkpoint"),
    "no structure": (["model.hham", "nowhere"], "nowhere: no such file or folder"),
    "text for a structure": (["model.hham", "text.txt"], "text.txt: not a structure that ASE reads"),
    "empty folder": (["model.hham", "empty"], "empty: not a structure that ASE reads"),
    "no such name": (["model.hham", "data.h5:z"], "data.h5:z: expected one of"),
    "unknown element": (["model.hham", "gold.json"], "gold.json: the model knows C, H, the structure has Au"),
    "no atoms": (["model.hham", "none.json"], "none.json: holds no atom"),
    "atoms on each other": (["model.hham", "twice.json"], "twice.json: atoms 0 and 1 lie on each other"),
    "flat cell": (["model.hham", "flat.json"], "flat.json: cell: expected three independent vectors"),
    "other orbitals": (["model.hham", "orbitals"], "orbitals: its orbitals are not those of the model"),
    "truncated": (["model.hham", "cut"], "cut/hamiltonians_pred.h5: not a complete HDF5 file"),
    "cutoff 0": (["model.hham", "one.json", "--cutoff", "0"], "--cutoff: expected angstrom, above 0"),
    "cutoff < 0": (["model.hham", "one.json", "--cutoff", "-3"], "--cutoff: expected angstrom, above 0"),
    "cutoff nan": (["model.hham", "one.json", "--cutoff", "nan"], "--cutoff: expected angstrom, above 0"),
    "cutoff huge": (["model.hham", "one.json", "--cutoff", "1e9"], "up to 20, got 1e+09"),
    "cutoff not trained": (["model.hham", "one.json", "--cutoff", "9"], "(trained range), got"),
    "unknown device": (["model.hham", "one.json", "--device", "gpu"], "device: expected auto, cpu"),
    "name taken": (["model.hham", "one.json", "-o", "taken.h5"], "taken.h5: holds a structure named one already"),
    "text for a data set": (["model.hham", "one.json", "-o", "text.txt"], "text.txt: not a complete HDF5 file"),
    "folder for a data set": (["model.hham", "one.json", "-o", "empty"], "empty: is a folder"),
    "below a file": (["model.hham", "one.json", "-o", "text.txt/out.h5"], "text.txt is no folder"),
    "folder taken": (["model.hham", "one.json", "--format", "deeph", "-o", "another"], "another: already there"),
    "unknown format": (
        ["model.hham", "one.json", "--format", "x"],
        "--format: expected one of hdf5, deeph, deeph-dock",
    ),
    "folder is a file": (["model.hham", "one.json", "--format", "deeph", "-o", "text.txt"], "text.txt: already there"),
    "folder below a file": (
        ["model.hham", "one.json", "--format", "deeph", "-o", "text.txt/out"],
        "text.txt is no folder",
    ),
    "no cell": (["model.hham", "free.json", "--format", "deeph", "-o", "x"], "need three independent cell vectors"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_status_two(command_line: Callable, place: Path, case: str):
    spoiled(place)
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    words, message = BAD[case]
    status, out, err = command_line("predict", *words)
    assert (status, out) == (2, "")
    assert err.startswith("hybridham predict: ")
    assert message in err
    assert err.count("\n") == 1
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("words", [["-o", "taken.h5"], ["-o", "text.txt/x"], ["--format", "deeph", "-o", "another"]])
def test_what_cannot_be_written_is_refused_before_the_work(command_line: Callable, place: Path, monkeypatch, words):
    spoiled(place)
    monkeypatch.setattr(ase_hybridham.model, "load_model", lambda *_: pytest.fail("the model was loaded"))
    status, _, err = command_line("predict", "model.hham", "one.json", *words)
    assert (status, err.startswith(f"hybridham predict: {words[-1]}: ")) == (2, True)


def test_a_molecule_needs_no_cell_in_a_data_set(command_line: Callable, place: Path):
    ase.io.write("free.json", Atoms("CH", [[0, 0, 0], [0, 0, 1.1]]))
    assert command_line("predict", "model.hham", "free.json", "-o", "out.h5")[0] == 0
    assert predicted(Path("out.h5"), "free").pairs.n_hoppings == 2


def test_bands_of_a_model_without_valences_take_them_from_the_command_line(command_line: Callable, place: Path):
    model = load_model("model.hham")
    bare = [AtomBasis(atom.symbol, atom.shells, cutoff=atom.cutoff) for atom in model.basis.atoms.values()]
    model.cascade.domain = replace(model.cascade.domain, basis=Basis.of(*bare))
    save_model("bare.hham", model)
    words = ("data.h5:a", "--npoints", 3, "--kpts", 2, 2, 1, "--json")
    status, _, err = command_line("bands", "bare.hham", *words)
    assert status == 2
    assert "give --valence C=N H=N" in err
    given = json.loads(command_line("bands", "bare.hham", *words, "--valence", "C=4", "H=1")[1])
    known = json.loads(command_line("bands", "model.hham", *words)[1])
    assert given["electrons"] == 9
    assert given["fermi_eV"] == pytest.approx(known["fermi_eV"], abs=1e-9)


def test_predictions_are_no_training_data_unnoticed(command_line: Callable, place: Path):
    assert command_line("predict", "model.hham", "data.h5:a", "--format", "deeph", "-o", "set/a")[0] == 0
    status, _, err = command_line("convert", "set", "-o", "set.h5", "--valence", "C=4", "H=1")
    assert status == 0
    assert "H is what a network predicted, no DFT: set" in err


IMPORT_BAD = {
    "no folder": (["nowhere", "new.hham"], "nowhere: expected the folder"),
    "a file": (["text.txt", "new.hham"], "text.txt: expected the folder"),
    "suffix": (["empty", "new.pkl"], "new.pkl: expected a name that ends in .hham"),
    "taken": (["empty", "model.hham"], "model.hham: already there"),
    "nothing in it": (["empty", "new.hham"], ""),
}


@pytest.mark.parametrize("case", IMPORT_BAD)
def test_bad_imports_are_one_line(command_line: Callable, place: Path, case: str):
    spoiled(place)
    words, message = IMPORT_BAD[case]
    status, out, err = command_line("import-deephe3", *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"hybridham import-deephe3: {message}")
    assert not Path("new.hham").exists()
