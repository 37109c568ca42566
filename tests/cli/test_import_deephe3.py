"""hybridham import-deephe3, then predict: what DeepH-E3 itself predicted with these networks."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ase_hybridham.io import read_deeph, write_deeph
from tests.cli.test_predict import assert_same_file, predicted

CASES = ["case1_C_spinless", "case2_MoS2_spinless", "case3_Bi_soc"]


@pytest.fixture(params=CASES)
def golden_case(reference_data, request) -> Path:
    """A folder with checkpoint and structure of DeepH-E3."""
    folder = reference_data.parent / "golden/deephe3" / request.param
    if not folder.is_dir():
        pytest.skip("HYBRIDHAM_DATA holds no networks of DeepH-E3")
    return folder


def test_predictions_of_deephe3_are_read_and_written_back(golden_case, tmp_path):
    system = read_deeph(golden_case / "structure")
    assert system.provenance["predicted"] is True
    assert system.spin == ("spinor" if "soc" in golden_case.name else "none")
    facts = json.loads((golden_case / "facts.json").read_text())
    assert (len(system.atoms), len(system.pairs)) == (facts["n_atoms"], facts["n_edges"])
    write_deeph(system, tmp_path / "again", predicted=True)
    name = "hamiltonians_pred.h5"
    assert_same_file(tmp_path / "again" / name, golden_case / "structure" / name)


def test_imported_networks_predict_what_deephe3_did(command_line: Callable, golden_case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(golden_case / "checkpoint", "trained", copy_function=shutil.copyfile)
    Path("trained/best_model.pkl").write_bytes(gzip.decompress(Path("trained/best_model.pkl.gz").read_bytes()))
    Path("trained/best_model.pkl.gz").unlink()
    status, out, err = command_line("import-deephe3", "trained", "net.hham", "--json")
    assert (status, err) == (0, "")
    facts, summary = json.loads((golden_case / "facts.json").read_text()), json.loads(out)
    assert summary["gaussian_range_angstrom"] == pytest.approx(facts["build_args"]["r_max"])
    assert "no cutoff of pairs, Gaussians up to" in command_line("info", "net.hham")[1]
    structure = golden_case / "structure"
    cutoff = facts["edge length max"] + 1e-6
    for n, words in enumerate([[], ["--cutoff", cutoff]]):
        status, _, err = command_line("predict", "net.hham", structure, "--format", "deeph", "-o", f"out{n}", *words)
        assert (status, err) == (0, "")
        # recorded in float64; sums in another order
        assert_same_file(tmp_path / f"out{n}/hamiltonians_pred.h5", structure / "hamiltonians_pred.h5", rtol=1e-10)
    assert command_line("predict", "net.hham", structure, "--symmetrize")[0] == 0
    raw = read_deeph(structure).hamiltonian[0]
    symmetric = predicted(Path("predicted.h5"), "structure")
    np.testing.assert_allclose(symmetric.values, raw.hermitian_part().values, rtol=0, atol=1e-9)
    status, out, err = command_line("predict", "net.hham", structure, "-o", "x.h5", "--stage", "mean")
    assert (status, out, err.count("\n")) == (2, "", 1)
    status, out, err = command_line("import-deephe3", "trained", "net.hham")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "net.hham: already there" in err
    for version, expected in (("0.4.1", 0), ("0.6.0", 2), ("x", 2)):
        status, _, err = command_line("import-deephe3", "trained", f"{version}.hham", "--e3nn", version)
        assert (status, Path(f"{version}.hham").exists()) == (expected, expected == 0), err
