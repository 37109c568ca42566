"""hybridham convert --basis-dir: radial functions for a data set, and from there to a model that needs atoms alone."""

import json
import shutil

import numpy as np
import pytest

from ase_hybridham.calculator import HybridHamCalculator
from ase_hybridham.io import read_openmx
from ase_hybridham.store import DataSet
from ase_hybridham.train import PhaseConfig, TrainConfig, train
from tests.io.pao_files import pao_folder

STORED = 1e-7  # S of the golden bilayers is in single precision


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pao_folder(tmp_path_factory.mktemp("PAO"))


@pytest.fixture
def bilayers(golden_bilayers, tmp_path):
    """Two bilayers in DeepH's layout, which does not tell what basis they have."""
    for source in sorted(golden_bilayers.iterdir())[:2]:
        shutil.copytree(source, tmp_path / "bilayers" / source.name)
    return tmp_path / "bilayers"


def test_functions_are_attached_and_compared(command_line, bilayers, folder, tmp_path):
    out = tmp_path / "data.h5"
    status, text, messages = command_line("convert", bilayers, "-o", out, "--basis-dir", folder)
    assert (status, messages.count("electrons counted")) == (0, 1), messages
    assert "; radial functions of C, which give the stored S to " in text
    with DataSet(out) as data:
        assert data.basis.has_radial_functions()
        assert data.basis["C"].cutoff == pytest.approx(6.0 * 0.529177249)
    assert "\nS of any structure can be computed: radial functions of C (openmx)\n" in command_line("info", out)[1]
    assert json.loads(command_line("info", out, "--json")[1])["elements"]["C"]["radial_functions"] == "openmx"


def test_a_data_set_that_is_there_gets_them_without_a_source(command_line, bilayers, folder, tmp_path):
    out = tmp_path / "data.h5"
    assert command_line("convert", bilayers, "-o", out)[0] == 0
    assert "S of other structures cannot be computed: no radial functions of C" in command_line("info", out)[1]
    before = DataSet(out).content_hash()
    for words in ([], [bilayers]):
        status, text, _ = command_line("convert", *words, "-o", out, "--basis-dir", folder, "--json")
        found = json.loads(text)["radial_functions"]
        assert status == 0
        assert found["elements"] == ["C"]
        assert found["structure"] == "000"
        assert 0 < found["error"] < STORED
    with DataSet(out) as data:
        assert data.content_hash() == before
    # and structures that come later do not lose them
    shutil.copytree(bilayers / "000", tmp_path / "more/100")
    assert command_line("convert", tmp_path / "more/100", "-o", out)[0] == 0
    with DataSet(out) as data:
        assert len(data) == 3
        assert data.basis.has_radial_functions()


def test_functions_that_give_another_overlap_are_not_stored(command_line, bilayers, folder, tmp_path):
    out, wrong = tmp_path / "data.h5", pao_folder(tmp_path / "wrong", "C")
    text = (wrong / "C6.0.pao").read_text().splitlines()
    start = text.index("<pseudo.atomic.orbitals.L=0") + 1
    for at in range(start, text.index("pseudo.atomic.orbitals.L=0>")):
        x, r, first, second, *others = text[at].split()
        text[at] = " ".join([x, r, second, first, *others])  # 2s for 1s: S differs, norms do not
    (wrong / "C6.0.pao").write_text("\n".join(text))
    status, printed, messages = command_line("convert", bilayers, "-o", out, "--basis-dir", wrong)
    assert (status, printed, messages.count("\n")) == (2, "", 1)
    assert "structure 000: S differs from the integrals of the basis by at most" in messages
    with DataSet(out) as data:
        assert len(data) == 2
        assert not data.basis.has_radial_functions()


def test_structures_that_do_not_fit_stored_functions_are_told(command_line, bilayers, golden, folder, tmp_path):
    out = tmp_path / "data.h5"
    assert command_line("convert", bilayers / "000", "-o", out, "--basis-dir", folder)[0] == 0
    broken = tmp_path / "run"
    shutil.copytree(golden / "openmx/graphene/deeph", broken)
    lattice = np.loadtxt(broken / "lat.dat") * 1.002
    np.savetxt(broken / "lat.dat", lattice)
    np.savetxt(broken / "site_positions.dat", np.loadtxt(broken / "site_positions.dat") * 1.002)
    status, _, messages = command_line("convert", broken, "-o", out, "--no-check")
    assert status == 0
    assert "structure run does not fit the stored radial functions: S differs" in messages


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "SOURCE: expected at least one, or --basis-dir"),
        (("--basis", "C=C6.0-s2p2d1"), "names a basis in a folder; give --basis-dir DIR too"),
        (("--basis-dir", "{folder}"), "data.h5: no such file; give a SOURCE"),
        (("{bilayers}", "--basis-dir", "{bilayers}"), "holds no basis files"),
        (("{bilayers}", "--basis-dir", "{folder}", "--basis", "N=N6.0-s1"), "--basis N: "),
        (("{bilayers}", "--basis-dir", "{folder}", "--basis", "C=C6.0-s1"), "the shells of C are s2p2d1"),
        (("{bilayers}", "--basis-dir", "{folder}", "--valence", "C=3"), ""),
    ],
)
def test_bad_input_is_one_line(command_line, bilayers, folder, tmp_path, words, message):
    given = [word.format(folder=folder, bilayers=bilayers) for word in words]
    status, text, messages = command_line("convert", "-o", tmp_path / "data.h5", *given)
    if message:
        assert (status, text, messages.count("\n")) == (2, "", 1), messages
        assert message in messages


def test_a_model_trained_on_it_needs_atoms_and_nothing_else(command_line, bilayers, golden, folder, tmp_path):
    out = tmp_path / "data.h5"
    split = ("--split", "train=0.5,val=0.5", "--basis-dir", folder, "--basis", "C=C6.0-s2p2d1")
    assert command_line("convert", bilayers, "-o", out, *split)[0] == 0
    config = TrainConfig(
        data=out,
        output=tmp_path / "run",
        model={
            "stage1": {"irreps": "4x0e+2x1o+2x2e+1x3o+1x4e", "n_blocks": 1, "n_gaussians": 8, "radial_width": 4},
            "stage2": None,
        },
        phase1=PhaseConfig(epochs=1, learning_rate=0.01, warmup_steps=1),
    )
    checkpoint = train(config, progress=False)
    system = read_openmx(golden / "openmx/graphene/openmx.scfout.gz")
    atoms = system.atoms.copy()
    atoms.calc = HybridHamCalculator(checkpoint, kpts=(1, 1, 1))
    found = atoms.calc.get_system()
    assert found.pairs.same_pairs(system.pairs)
    assert np.abs(found.overlap.values - system.overlap.values).max() < STORED
    text = command_line("info", checkpoint)[1]
    assert "C: ssppd, valence 4.0\nS of any structure can be computed: radial functions of C (openmx)\n" in text
    metadata = command_line("info", checkpoint, "--json")[1]
    assert len(metadata) < 10_000  # without the samples
    assert json.loads(metadata)["basis"]["atoms"][0]["shells"][0]["samples"]["rule"] == "openmx"
    assert checkpoint.stat().st_size < 500_000
