"""hybridham learn: PySCF, training and picking in one command."""

import json

import ase.io
import pytest
import yaml
from ase.build import graphene

from ase_hybridham import cli
from ase_hybridham.model import load_model
from ase_hybridham.store import DataSet
from ase_hybridham.structures import Variation, variations

STAGE1 = {"irreps": "4x0e+3x1o+2x2e", "n_blocks": 1, "n_gaussians": 8, "radial_width": 4}
OPTIONS = {
    "goal_meV": 0.001,
    **{"start": 1, "batch": 1, "budget": 2, "members": 2, "n_validation": 1},
    "dft": {"engine": "pyscf", "mesh": [20, 20, 90], "kpts": [2, 2, 1], "cutoff": 5.0},
    "train": {"model": {"stage1": STAGE1, "stage2": None}, "phase1": {"epochs": 2}, "device": "cpu"},
}


@pytest.fixture
def hybridham(monkeypatch, command_line):
    monkeypatch.setattr(cli, "COMMANDS", {"learn": cli.COMMANDS["learn"]})
    return command_line


@pytest.fixture
def config(tmp_path):
    layer = graphene(a=2.46, vacuum=6.0)
    layer.pbc = (True, True, False)
    pool = [made.atoms for made in variations(layer, 4, Variation(atoms=(2, 2)))]
    ase.io.write(tmp_path / "pool.xyz", pool)
    paths = {"candidates": str(tmp_path / "pool.xyz"), "output": str(tmp_path / "run")}
    (tmp_path / "learn.yaml").write_text(yaml.safe_dump({**OPTIONS, **paths}))
    return tmp_path / "learn.yaml"


def test_from_structures_to_a_model_and_on(hybridham, config, tmp_path):
    pytest.importorskip("pyscf")
    status, text, err = hybridham("learn", config)
    assert status == 1, err  # the goal is out of reach
    head, first, second, summary, model = text.splitlines()
    assert head.split()[:3] == ["round", "structures", "atoms"]
    assert first.split()[:3] == ["1", "1", "2"]
    assert second.split()[:3] == ["2", "2", "4"]
    assert float(second.split()[6]) > 0  # seconds of DFT
    assert "the budget is spent; raise it and --resume" in summary
    assert load_model(model).basis.has_radial_functions()
    assert (tmp_path / "run/learn.png").stat().st_size > 1000
    with DataSet(tmp_path / "run/data.h5") as data:
        assert {split: len(names) for split, names in data.splits.items()} == {"train": 2, "val": 1}
        assert data.provenance["engine"]["cutoff"] == 5.0
    status, text, _ = hybridham("learn", config, "goal_meV=1e6", "--resume", "--json")
    report = json.loads(text)
    assert status == 0
    assert (report["stopped"], report["model"], len(report["rounds"])) == ("goal", model, 2)
    assert report["rounds"][1]["mae_meV"] == pytest.approx(float(second.split()[3]), abs=0.01)


def test_bad_input_is_one_line_and_status_2(hybridham, config, tmp_path):
    pytest.importorskip("pyscf")
    for words, message in [
        ((tmp_path / "none.yaml",), "none.yaml"),
        ((config, "candidates=none.xyz"), "none.xyz: no such file"),
        ((config, "validation=none.xyz"), "none.xyz: no such file"),
        ((config, "start=9"), "candidates: expected 11 or more for start and validation, got 4"),
        ((config, "dft.engine=siesta"), "dft.engine: expected one of pyscf, gpaw, openmx, got 'siesta'"),
        ((config, "dft.ke=60"), "dft.ke: not a setting of the engine pyscf, which has xc, basis, cutoff, ke_cutoff"),
        ((config, "dft.ke_cutoff=much"), "dft"),
        ((config, "dft.xc=b3lyp"), "xc: expected one of lda, pbe"),
        ((config, "train.data=a.h5"), "train.data: is set by learn itself"),
        ((config, "--jobs", 0), "--jobs: expected at least 1"),
        ((config, "members=1"), "option members"),
    ]:
        status, text, err = hybridham("learn", *words)
        assert (status, text) == (2, ""), message
        assert message in err
        assert err.count("\n") == 1, err
    assert not (tmp_path / "run").exists()
