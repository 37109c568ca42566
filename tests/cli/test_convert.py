"""hybridham convert and info, and what a SOURCE is."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ase_hybridham import cli, parallel
from ase_hybridham.check import Finding
from ase_hybridham.check import Report as CheckReport
from ase_hybridham.cli import reading
from ase_hybridham.cli.provenance import mixed, provenance_counts
from ase_hybridham.cli.source import kind_of, load_system, parse_valence
from ase_hybridham.cli.splits import Index
from ase_hybridham.errors import FormatError
from ase_hybridham.io import read_deeph, write_deeph
from ase_hybridham.store import DataSet


@pytest.fixture
def hybridham(monkeypatch, capsys):
    """Run a command line: status, stdout, stderr."""
    monkeypatch.setattr(cli, "COMMANDS", {name: cli.COMMANDS[name] for name in ("convert", "info")})

    def run(*words: object) -> tuple[int, str, str]:
        status = cli.main([str(word) for word in words])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def bilayers(golden_bilayers, tmp_path) -> Path:
    """Eight of the golden bilayers, 003 of the test split and 007 of the validation split."""
    for folder in sorted(golden_bilayers.iterdir())[:8]:
        shutil.copytree(folder, tmp_path / "bilayers" / folder.name)
    return tmp_path / "bilayers"


def test_folder_of_folders_with_an_index(hybridham, golden, bilayers, tmp_path):
    out = tmp_path / "data.h5"
    index = golden / "openmx/bilayers.index.json"
    status, text, _ = hybridham("convert", bilayers, "-o", out, "--split", index, "--json")
    report = json.loads(text)
    assert status == 0
    assert report["added"] == report["structures"] == 8
    assert report["splits"] == {"train": 6, "test": 1, "val": 1}
    with DataSet(out) as data:
        assert data.split("test") == ["003"]
        assert data.basis["C"].valence == 4
        for name in ("000", "003"):
            theirs = read_deeph(bilayers / name)
            assert (data[name].hamiltonian[0].values == theirs.hamiltonian[0].values).all()
            assert (data[name].overlap.values == theirs.overlap.values).all()
            assert data[name].electrons == 16
            assert data[name].fermi_level == theirs.fermi_level

    content = json.loads(hybridham("info", out, "--json")[1])
    assert content["structures"] == 8
    assert content["elements"]["C"]["atoms"] == 32
    assert content["splits"] == {"train": 6, "test": 1, "val": 1}
    means = [entry["mean_eV"] for entry in content["hamiltonian"]]
    assert means[0] > 1 > 1e-2 > means[-1]  # on-site eV down to nearly nothing at the cutoff
    status, text, _ = hybridham("info", out)
    assert status == 0
    assert "C: 32 atoms, 13 orbitals (ssppd), valence 4" in text


def test_second_run_reads_only_what_is_new(hybridham, bilayers, tmp_path):
    out = tmp_path / "data.h5"
    later = tmp_path / "later"
    (bilayers / "000").rename(later)
    hybridham("convert", bilayers, "-o", out, "--valence", "C=4")
    later.rename(bilayers / "000")
    (bilayers / "001/overlaps.h5").write_text("broken since")
    report = json.loads(hybridham("convert", bilayers, "-o", out, "--json", "--valence", "C=4")[1])
    assert (report["added"], report["already_there"], report["structures"]) == (1, 7, 8)
    hybridham("convert", bilayers, "-o", out, "--split", "train=0.75,val=0.25", "--split-seed", 3)
    with DataSet(out) as data:
        assert {split: len(names) for split, names in data.splits.items()} == {"train": 6, "val": 2}


def test_a_broken_structure_ends_the_command_and_names_itself(hybridham, bilayers, tmp_path):
    out = tmp_path / "data.h5"
    hamiltonian = bilayers / "002/hamiltonians.h5"
    hamiltonian.write_bytes(hamiltonian.read_bytes()[:100000])
    status, text, messages = hybridham("convert", bilayers, "-o", out, "--valence", "C=4")
    assert status == 2
    assert text == ""
    assert "002/hamiltonians.h5: not a complete HDF5 file" in messages
    assert messages.count("\n") == 1
    with DataSet(out) as data:
        assert list(data) == ["000", "001"]
    status, text, messages = hybridham("convert", bilayers, "-o", out, "--keep-going", "--json", "--valence", "C=4")
    assert status == 1
    assert list(json.loads(text)["failed"]) == ["002"]
    assert "left out: " in messages
    with DataSet(out) as data:
        assert list(data) == ["000", "001", "003", "004", "005", "006", "007"]


def test_several_sources_are_named_from_their_common_folder(hybridham, golden, tmp_path):
    out = tmp_path / "data.h5"
    raw = golden / "openmx"
    status, _, messages = hybridham("convert", raw / "graphene/deeph", raw / "MoS2_monolayer", "-o", out)
    assert status == 0
    assert "electrons counted" in messages
    assert "valence unknown" in messages
    assert "--valence Mo=? S=?" in messages
    with DataSet(out) as data:
        assert list(data) == ["MoS2_monolayer", "graphene"]
        assert data["MoS2_monolayer"].electrons == 26
        assert data["graphene"].provenance["source"].endswith("openmx/graphene/deeph")
        assert data.basis["C"].valence == 4


def test_spinless_and_spinful_do_not_mix(hybridham, golden, tmp_path):
    raw = golden / "openmx"
    status, _, messages = hybridham("convert", raw / "Bi_bismuthene_soc", raw / "graphene", "-o", tmp_path / "data.h5")
    assert status == 2
    assert "graphene/deeph: spin 'none', but" in messages
    assert "holds spin 'spinor', e.g. structure Bi_bismuthene_soc; use a data set for each" in messages
    with DataSet(tmp_path / "data.h5") as data:
        assert list(data) == ["Bi_bismuthene_soc"]
    sources = [raw / name / "deeph" for name in ("graphene", "Bi_bismuthene_soc", "CH4_molecule")]
    status, text, _ = hybridham("convert", *sources, "-o", tmp_path / "new.h5", "--keep-going", "--json")
    assert status == 1
    report = json.loads(text)
    assert (report["added"], list(report["failed"])) == (2, ["Bi_bismuthene_soc"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "no such file"),
        (["empty"], "empty: holds no structure; looked for deeph: "),
        (["graphene", "--processes", "0"], "--processes: expected at least 1"),
        (["graphene", "graphene"], "given twice"),
        (["graphene", "--format", "x"], "expected one of deeph"),
        (["graphene", "--valence", "C"], "expected a word like C=4"),
        (["graphene", "--valence", "S=6"], None),
        (["graphene", "--split", "train:0.8"], "No such file"),
        (["graphene", "--split", "train=x"], "--split: expected"),
        (["graphene", "--split", "train=0.8,val=0.8"], "sum to at most 1"),
        (["graphene", "--split", "graphene/lat.dat"], "not JSON"),
        (["graphene", "--split", "graphene/info.json"], "expected a list of objects"),
        (["graphene", "--split", "other.json"], "lists none of the structures"),
    ],
)
def test_bad_input_is_one_line_and_status_two(hybridham, golden, tmp_path, monkeypatch, words, message):
    shutil.copytree(golden / "openmx/graphene/deeph", tmp_path / "graphene")
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.json").write_text('{"train": ["x"]}')
    monkeypatch.chdir(tmp_path)
    status, _, messages = hybridham("convert", *words, "-o", "data.h5")
    assert status == (0 if message is None else 2)
    if message:
        assert message in messages
        assert messages.rstrip("\n").count("\n") <= 1  # the note on electrons may stand before it


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # e3nn's import
def test_info_of_what_is_no_data_set(hybridham, tmp_path):
    for name, content in {"cut.h5": b"\x89HDF\r\n\x1a\n", "x.h5": b""}.items():
        (tmp_path / name).write_bytes(content)
        status, _, messages = hybridham("info", tmp_path / name)
        assert status == 2
        assert f"{name}: not a complete HDF5 file" in messages
    (tmp_path / "x.hham").write_text("not a model")
    for name in (tmp_path / "x.hham", "no-such-model"):
        status, _, messages = hybridham("info", name)
        assert status == 2
        assert str(name) in messages
        assert messages.count("\n") == 1


def test_kinds_of_sources(hybridham, golden, tmp_path, monkeypatch):
    folder = golden / "openmx/graphene/deeph"
    hybridham("convert", folder, "-o", tmp_path / "data.h5")
    monkeypatch.chdir(tmp_path)
    assert kind_of(folder) == kind_of("X.scfout") == "system"
    assert kind_of("data.h5") == kind_of("data.h5:deeph") == kind_of("other.h5:x") == "dataset"
    assert kind_of("a.hham") == kind_of("graphene-bilayer") == "checkpoint"
    shutil.move("data.h5", "renamed")
    assert kind_of("renamed") == "dataset"


def test_structures_of_a_data_set_as_sources(hybridham, bilayers, tmp_path):
    out = tmp_path / "data.h5"
    hybridham("convert", bilayers, "-o", out, "--valence", "C=4")
    assert load_system(f"{out}:002").atoms == read_deeph(bilayers / "002").atoms
    for source in (f"{out}", f"{out}:x"):
        with pytest.raises(FormatError, match=r"expected one of 8 structures, e\.g\. .*data\.h5:000"):
            load_system(source)
    hybridham("convert", bilayers / "001", "-o", tmp_path / "one.h5")
    assert load_system(tmp_path / "one.h5").electrons == 16


@pytest.mark.parametrize(
    ("sample", "electrons"),
    [
        ("graphene", 8),
        ("bilayer_graphene_AB", 16),
        ("MoS2_monolayer", 26),
        ("Bi_bismuthene_soc", 30),
        ("CH4_molecule", 8),
    ],
)
def test_electrons_are_counted_from_the_fermi_level(golden, caplog, sample, electrons):
    told = json.loads((golden / "openmx" / sample / "sample.json").read_text())
    assert told["valence_electrons"] == electrons
    system = load_system(golden / "openmx" / sample / "deeph")
    assert system.electrons == electrons
    assert "counted" in caplog.text


def test_contradicting_electrons_name_the_structure(hybridham, golden, tmp_path):
    folder = golden / "openmx/graphene/deeph"
    index = tmp_path / "index.json"
    index.write_text(json.dumps([{"id": "deeph", "split": "train", "valence_electrons": 8}]))
    out = tmp_path / "data.h5"
    status, _, messages = hybridham("convert", folder, "-o", out, "--split", index, "--valence", "C=5")
    assert status == 2
    assert "graphene/deeph: electrons: the given count says 8 for C2, the valences 10" in messages
    assert hybridham("convert", folder, "-o", out, "--split", index, "--valence", "C=4")[0] == 0


def test_an_id_means_one_structure(hybridham, golden, tmp_path):
    data, index = tmp_path / "data.h5", tmp_path / "index.json"
    index.write_text(json.dumps([{"id": "deeph", "split": "train"}]))
    for sample in ("graphene", "CH4_molecule"):
        shutil.copytree(golden / "openmx" / sample / "deeph", tmp_path / sample / "deeph")
    sources = [tmp_path / "graphene", tmp_path / "CH4_molecule"]
    status, _, messages = hybridham("convert", *sources, "-o", data, "--split", index)
    assert status == 2
    assert "id deeph means graphene and CH4_molecule" in messages
    index.write_text(json.dumps({"train": ["graphene/deeph"], "val": ["CH4_molecule/deeph"]}))
    assert hybridham("convert", *sources, "-o", data, "--split", index)[0] == 0
    with DataSet(data) as stored:
        assert stored.splits == {"train": ["graphene"], "val": ["CH4_molecule"]}


def test_a_whole_name_goes_before_the_end_of_another(tmp_path):
    (tmp_path / "index.json").write_text('{"train": ["000"], "val": ["b/001"]}')
    index = Index(str(tmp_path / "index.json"))
    assert index.ids({"000": "a/000", "b/000": "b/000", "b/001": ""}) == {"000": "000", "b/001": "b/001"}


def test_valences_are_solved_from_counts_of_different_compositions(hybridham, golden, tmp_path):
    raw, out = golden / "openmx", tmp_path / "data.h5"
    sources = [raw / "graphene/deeph", raw / "CH4_molecule/deeph", raw / "MoS2_monolayer/deeph"]
    status, text, messages = hybridham("convert", *sources, "-o", out, "--json")
    assert status == 0
    assert json.loads(text)["valences_found"] == {"H": 1}
    assert "H=1" in messages
    assert "`hybridham train` refuses such data: make them again with --valence Mo=? S=?" in messages
    with DataSet(out) as data:
        assert {s: a.valence for s, a in data.basis.atoms.items()} == {"C": 4, "H": 1, "Mo": None, "S": None}
        assert data.electrons("CH4_molecule") == data["CH4_molecule"].electrons == 8


def test_valence_words():
    assert parse_valence(["C=4", "Mo=14.5"]) == {"C": 4, "Mo": 14.5}
    for word in ("C", "C=", "=4", "Xx=4", "C=x", "C=-1", "C=7", "C=nan"):
        with pytest.raises(ValueError, match="expected a word like C=4"):
            parse_valence([word])


def damaged_copy(folder: Path, to: Path, *, predicted: bool = False) -> None:
    """A structure folder whose H is not Hermitian."""
    system = read_deeph(folder)
    values = system.hamiltonian[0].values.copy()
    values[-5:] += 1.0
    write_deeph(replace(system, hamiltonian=(system.hamiltonian[0].with_values(values),)), to, predicted=predicted)


def test_data_that_fail_a_check_are_refused(hybridham, bilayers, tmp_path):
    out = tmp_path / "data.h5"
    for name in ("003", "004", "005", "006", "007"):
        shutil.rmtree(bilayers / name)
    damaged_copy(bilayers / "001", bilayers / "001b")
    status, _, messages = hybridham("convert", bilayers, "-o", out, "--valence", "C=4")
    assert status == 2
    assert messages.count("\n") == 1
    assert "bilayers/001b: " in messages
    assert "H hermitian failed: " in messages
    assert messages.rstrip().endswith("--no-check takes the data as they are")
    status, text, messages = hybridham("convert", bilayers, "-o", out, "--valence", "C=4", "--keep-going", "--json")
    assert status == 1
    assert list(json.loads(text)["failed"]) == ["001b"]
    with DataSet(out) as data:
        assert list(data) == ["000", "001", "002"]
    status, text, _ = hybridham("convert", bilayers, "-o", out, "--valence", "C=4", "--no-check", "--json")
    assert status == 0
    assert (json.loads(text)["added"], json.loads(text)["checks"]) == (1, None)


def test_predictions_need_not_be_hermitian(hybridham, bilayers, tmp_path):
    damaged_copy(bilayers / "001", tmp_path / "predicted", predicted=True)
    status, text, messages = hybridham(
        "convert", tmp_path / "predicted", "-o", tmp_path / "data.h5", "--valence", "C=4", "--json"
    )
    assert status == 0
    assert json.loads(text)["failed"] == {}
    assert "H is what a network predicted, no DFT: predicted" in messages


def test_warnings_are_told_once_for_all_structures(hybridham, bilayers, tmp_path, monkeypatch):
    finding = Finding("decay of H", "warning", "it ends too early", advice="take a larger cutoff")
    monkeypatch.setattr(reading, "check_system", lambda system: CheckReport((finding,)))
    status, text, messages = hybridham(
        "convert", bilayers, "-o", tmp_path / "data.h5", "--valence", "C=4", "--processes", 1, "--json"
    )
    assert status == 0
    assert json.loads(text)["checks"]["decay of H"]["structures"] == 8
    line = "warning, 8 structures: decay of H: it ends too early (000); take a larger cutoff"
    assert messages.splitlines() == [line]


def test_another_structure_of_the_same_name_is_an_error(hybridham, bilayers, tmp_path):
    out = tmp_path / "data.h5"
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    shutil.copytree(bilayers / "000", tmp_path / "a/deeph")
    shutil.copytree(bilayers / "001", tmp_path / "b/deeph")
    convert = ["convert", "-o", out, "--valence", "C=4", "--json"]
    assert hybridham(*convert, tmp_path / "a/deeph")[0] == 0
    status, _, messages = hybridham(*convert, tmp_path / "b/deeph")
    assert status == 2
    assert f"{tmp_path}/b/deeph: {out} holds another structure named deeph, from a/deeph; " in messages
    # the same one from elsewhere, and under a longer name, is known
    shutil.copytree(bilayers / "000", tmp_path / "c/deeph")
    assert json.loads(hybridham(*convert, tmp_path / "c/deeph")[1])["already_there"] == 1
    shutil.rmtree(tmp_path / "c")
    report = json.loads(hybridham(*convert, tmp_path / "a", tmp_path / "b")[1])
    assert (report["added"], report["already_there"]) == (1, 1)
    with DataSet(out) as data:
        assert list(data) == ["b", "deeph"]


def test_names_stay_when_a_structure_comes_beside(hybridham, bilayers, tmp_path):
    out, runs = tmp_path / "data.h5", tmp_path / "runs"
    (runs / "run1").mkdir(parents=True)
    shutil.copytree(bilayers / "000", runs / "run1/deeph")
    shutil.copytree(bilayers / "002", runs / "run2/deeph")
    hybridham("convert", runs, "-o", out, "--valence", "C=4", "--split", "train=1")
    shutil.copytree(bilayers / "001", runs / "run1/other")
    status, text, _ = hybridham("convert", runs, "-o", out, "--valence", "C=4")
    assert status == 0
    assert "1 structure added, 3 in all, 2 were there already; train 2, in no split 1" in text
    with DataSet(out) as data:
        assert list(data) == ["run1", "run1/other", "run2"]
        assert data.splits == {"train": ["run1", "run2"]}


def test_precisions_that_mix_are_told(hybridham, bilayers, tmp_path):
    out = tmp_path / "data.h5"
    hybridham("convert", bilayers / "000", bilayers / "001", "-o", out, "--valence", "C=4", "--compact")
    _, text, messages = hybridham("convert", bilayers / "002", "-o", out, "--valence", "C=4", "--json")
    assert "2 of 3 structures are stored in single precision" in messages
    assert len(json.loads(text)["mixed"]) == 1


def test_structures_that_stand_twice_and_zeros_that_mix_are_told(hybridham, golden, tmp_path):
    folder = golden / "openmx/graphene"
    _, text, messages = hybridham("convert", folder, "-o", tmp_path / "data.h5", "--valence", "C=4", "--json")
    told = ["the structures differ in the zero of energy: openmx (1), unknown (1)", "the same atoms: deeph, openmx"]
    assert [
        line.replace("unknown (1), openmx (1)", "openmx (1), unknown (1)") for line in json.loads(text)["mixed"]
    ] == told
    assert told[1] in messages


def test_functionals_that_mix_are_told():
    one, other = {"xc": "PBE", "basis": {"C": "C6.0-s2p2d1"}, "k_mesh": [3, 3, 1]}, {"xc": "LDA", "k_mesh": [1, 1, 1]}
    counts = provenance_counts([one, one, other])
    assert counts["basis.C"] == {"C6.0-s2p2d1": 2}
    assert counts["k_mesh"] == {"[3, 3, 1]": 2, "[1, 1, 1]": 1}
    assert list(mixed(counts)) == ["the structures differ in xc: PBE (2), LDA (1); one network cannot learn both"]


def test_several_processes_make_what_one_makes(hybridham, bilayers, tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "START_UP", 0.0)
    hashes = set()
    for processes in (1, 2):
        out = tmp_path / f"{processes}.h5"
        assert hybridham("convert", bilayers, "-o", out, "--valence", "C=4", "--processes", processes)[0] == 0
        with DataSet(out) as data:
            hashes.add((data.content_hash(), *(str(data[name].provenance) for name in data)))
    assert len(hashes) == 1
    broken = bilayers / "004/hamiltonians.h5"
    broken.write_bytes(broken.read_bytes()[:100000])
    out = tmp_path / "broken.h5"
    status, _, messages = hybridham("convert", bilayers, "-o", out, "--valence", "C=4", "--no-check", "--processes", 2)
    assert status == 2
    assert messages.count("\n") == 1
    assert "004/hamiltonians.h5: not a complete HDF5 file" in messages
    with DataSet(out) as data:
        assert list(data) == ["000", "001", "002", "003"]


def test_interrupted_and_killed_conversions_are_completed_by_another(hybridham, golden_bilayers, tmp_path):
    """Ctrl-C, which all processes get; then SIGKILL for the first alone."""
    out = tmp_path / "data.h5"
    program = f"""
import sys, time
from contextlib import closing
from ase_hybridham import parallel
from ase_hybridham.cli import convert, main

def slowly(*args, read=convert._read):  # else the work may be done before the signal comes
    with closing(read(*args)) as systems:
        for system in systems:
            time.sleep(0.2)
            yield system

parallel.START_UP, convert._read = 0.0, slowly
words = ["convert", {str(golden_bilayers)!r}, "-o", {str(out)!r}, "--valence", "C=4", "--no-check", "--processes", "2"]
if __name__ == "__main__":
    sys.exit(main(words))
"""
    held = 0
    for kill in (signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        while process.poll() is None and (len(DataSet(out)) if out.exists() else 0) < held + 3:
            time.sleep(0.01)
        (os.killpg if kill == signal.SIGINT else os.kill)(process.pid, kill)
        messages = process.communicate(timeout=60)[1]
        assert process.returncode == (130 if kill == signal.SIGINT else -kill)
        assert messages == ("hybridham convert: interrupted\n" if kill == signal.SIGINT else "")
        for _ in range(1000):  # workers whose parent is gone leave when they have read what they had
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                break
            time.sleep(0.02)
        else:
            pytest.fail("a process is left behind")
        with DataSet(out) as data:
            assert held < len(data) < 24
            held = len(data)
            for name in data:
                data.verify(name)
    status, text, _ = hybridham("convert", golden_bilayers, "-o", out, "--valence", "C=4", "--no-check", "--json")
    assert status == 0
    assert (json.loads(text)["structures"], json.loads(text)["added"]) == (24, 24 - held)


def test_warnings_of_the_log_are_told_once_for_all_structures(hybridham, bilayers, tmp_path):
    for name in ("003", "004", "005", "006", "007"):
        shutil.rmtree(bilayers / name)
    status, _, messages = hybridham(
        "convert", bilayers, "-o", tmp_path / "data.h5", "--valence", "C=5", "--processes", 1, "--no-check"
    )
    assert status == 0
    assert messages.count("\n") == 1
    assert messages.startswith("3 structures: C4: 20 electrons given, but 16.0 states lie below the stored Fermi level")
