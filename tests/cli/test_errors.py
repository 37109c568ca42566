"""Bad input of train and evaluate: status 2, one line on stderr that names what is wrong, no traceback."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ase_hybridham import cli
from ase_hybridham.store import append_systems, set_splits
from ase_hybridham.system import AtomBasis, Basis
from tests.train.synthetic import atoms_of, spinful, system_of


@pytest.fixture(scope="module")
def samples(workplace, tmp_path_factory) -> Path:
    """A folder with model.hham, data.h5, train.yaml and things that are none of these."""
    folder = tmp_path_factory.mktemp("samples")
    for name, source in {"model.hham": "run/model.hham", "data.h5": "data.h5", "train.yaml": "train.yaml"}.items():
        shutil.copyfile(workplace / source, folder / name)
    content = (folder / "data.h5").read_bytes()
    (folder / "cut.h5").write_bytes(content[: len(content) // 2])
    (folder / "cut.hham").write_bytes((folder / "model.hham").read_bytes()[:5000])
    (folder / "text.txt").write_text("hello")
    (folder / "empty").write_bytes(b"")
    (folder / "folder").mkdir()
    append_systems(folder / "spin.h5", [(name, spinful(system_of(atoms_of(0)))) for name in "ab"])
    set_splits(folder / "spin.h5", {"train": ["a"], "val": [], "test": ["b"]})
    append_systems(folder / "none.h5", [("a", system_of(atoms_of(0)))])
    other = Basis.of(AtomBasis.from_degrees("C", [0, 1, 2], cutoff=1.6), AtomBasis.from_degrees("H", [0], cutoff=1.2))
    append_systems(folder / "orbitals.h5", [("a", system_of(atoms_of(0), other))])
    gold = Basis.of(AtomBasis.from_degrees("Au", [0, 1], cutoff=1.6), AtomBasis.from_degrees("H", [0], cutoff=1.2))
    atoms = atoms_of(0)
    atoms.numbers = [79, 79, 1]
    append_systems(folder / "gold.h5", [("a", system_of(atoms, gold))])
    return folder


@pytest.fixture
def place(samples, tmp_path, monkeypatch) -> Path:
    """A copy of the samples, to work in."""
    shutil.copytree(samples, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


EVALUATE = {
    "no checkpoint": (["none.hham", "data.h5"], "none.hham: no such"),
    "no model": (["large", "data.h5"], "large"),
    "text for a checkpoint": (["text.txt", "data.h5"], "text.txt: not a checkpoint"),
    "nothing in it": (["empty", "data.h5"], "empty: not a checkpoint"),
    "data set for a checkpoint": (["data.h5", "data.h5"], "data.h5: not a checkpoint"),
    "folder for a checkpoint": (["folder", "data.h5"], "folder: expected a .hham file, got a folder"),
    "truncated checkpoint": (["cut.hham", "data.h5"], "cut.hham: not a checkpoint"),
    "no data": (["model.hham", "no.h5"], "no.h5: no such file"),
    "truncated data": (["model.hham", "cut.h5"], "cut.h5: not a complete HDF5 file"),
    "checkpoint for data": (["model.hham", "model.hham"], "model.hham: not a complete HDF5 file"),
    "folder for data": (["model.hham", "folder"], "folder"),
    "unknown split": (["model.hham", "data.h5", "--split", "tset"], "data.h5: no split 'tset'"),
    "no splits": (["model.hham", "none.h5"], "none.h5: no split 'test'"),
    "empty split": (["model.hham", "spin.h5", "--split", "val"], "no structure to evaluate on"),
    "spin": (["model.hham", "spin.h5"], "got spin 'spinor'"),
    "other orbitals": (["model.hham", "orbitals.h5", "--split", "all"], "a: its orbitals are not those"),
    "other elements": (["model.hham", "gold.h5", "--split", "all"], "the structure has Au"),
    "unknown device": (["model.hham", "data.h5", "--device", "gpu"], "device: expected auto, cpu"),
}
TRAIN = {
    "no file": (["no.yaml"], "no.yaml: No such file"),
    "folder for a file": (["folder"], "folder: Is a directory"),
    "no YAML": (["data.h5"], "data.h5: not a YAML file"),
    "no mapping": (["text.txt"], "text.txt: expected a mapping of options"),
    "nothing in it": (["empty"], "empty: option data is missing"),
    "typo": (["train.yaml", "phase1.epoch=3"], "train.yaml: unknown option phase1.epoch"),
    "typo in a group": (["train.yaml", "pahse1.epochs=3"], "unknown option pahse1"),
    "bad value": (["train.yaml", "phase1.epochs=many"], "option phase1.epochs"),
    "no key": (["train.yaml", "epochs"], "expected key=value"),
    "no data": (["train.yaml", "data=no.h5"], "no.h5: no such file"),
    "truncated data": (["train.yaml", "data=cut.h5"], "cut.h5: not a complete HDF5 file"),
    "no data set": (["train.yaml", "data=text.txt"], "text.txt: not a complete HDF5 file"),
    "spin": (["train.yaml", "data=spin.h5"], "spin.h5"),
    "no splits": (["train.yaml", "data=none.h5"], "none.h5: no split 'train'"),
    "output is a file": (["train.yaml", "output=text.txt"], "text.txt"),
    "unknown device": (["train.yaml", "device=gpu"], "device: expected auto, cpu"),
    "small irreps": (["train.yaml", "model.stage1.irreps=4x0e+2x1o"], "stage1.irreps: expected l up to 2"),
}


@pytest.mark.parametrize(
    ("command", "case"), [("evaluate", c) for c in EVALUATE] + [("train", c) for c in TRAIN], ids=lambda x: x
)
def test_one_line(command_line: Callable, place: Path, command: str, case: str):
    words, message = (EVALUATE if command == "evaluate" else TRAIN)[case]
    status, out, err = command_line(command, *words)
    assert status == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"hybridham {command}: ")
    assert message in err


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999))
def test_data_truncated_anywhere(place: Path, capsys, share: float):
    content = (place / "data.h5").read_bytes()
    (place / "part.h5").write_bytes(content[: int(share * len(content))])
    capsys.readouterr()
    for words in (["evaluate", "model.hham", "part.h5"], ["train", "train.yaml", "data=part.h5"]):
        assert cli.main(words) == 2
        err = capsys.readouterr().err
        assert "part.h5: " in err
        assert err.count("\n") == 1


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.floats(0, 0.999999), st.integers(1, 255)), min_size=1, max_size=8))
def test_data_damaged_anywhere(place: Path, capsys, flips: list[tuple[float, int]]):
    content = bytearray((place / "data.h5").read_bytes())
    for share, bits in flips:
        content[int(share * len(content))] ^= bits
    (place / "damaged.h5").write_bytes(bytes(content))
    for words in (
        ["info", "damaged.h5"],
        ["bands", "damaged.h5:a", "--npoints", "5", "--kpts", "2", "2", "1", "--json"],
        ["evaluate", "model.hham", "damaged.h5", "--no-bands"],
    ):
        capsys.readouterr()
        status = cli.main(words)  # what is left whole may be enough
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hybridham ")]
        assert (status, len(lines)) in ((0, 0), (2, 1))


def test_unknown_structure_is_one_line(command_line: Callable, place: Path):
    status, out, err = command_line("bands", "data.h5:nobody")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "data.h5:nobody: expected one of" in err


def test_as_a_process(place: Path):
    """The installed program, with its exit status."""
    program = [sys.executable, "-c", "import sys; from ase_hybridham.cli import main; sys.exit(main())"]
    done = subprocess.run(
        [*program, "train", "train.yaml", "phase1.epoch=3"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "train.yaml: unknown option phase1.epoch" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "line"), [(MemoryError("1 TB\nwanted"), "out of memory; 1 TB wanted"), (MemoryError(), "out of memory")]
)
def test_too_little_memory_is_one_line(error, line, monkeypatch, capsys):
    def run(args):
        raise error

    monkeypatch.setattr("ase_hybridham.cli.info.run", run)
    assert cli.main(["info", "x"]) == 2
    assert capsys.readouterr().err == f"hybridham info: {line}\n"
