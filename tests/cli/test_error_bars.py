"""hybridham bands --errors: an ensemble on the command line."""

import json
import re

import numpy as np
import pytest
import torch

from ase_hybridham.model import load_ensemble, load_model, save_model
from ase_hybridham.solve import PREDICTED_THRESHOLD, band_errors, band_path
from ase_hybridham.store import DataSet
from ase_hybridham.system import LCAOSystem


@pytest.fixture(scope="module")
def models(workplace, tmp_path_factory):
    """The network of the workplace, and two whose weights are a little others."""
    folder, files = tmp_path_factory.mktemp("members"), [workplace / "run/model.hham"]
    for seed in (1, 2):
        model = load_model(files[0], device="cpu")
        torch.manual_seed(seed)
        with torch.no_grad():
            for weight in model.cascade.parameters():
                weight.mul_(1 + 0.02 * torch.randn_like(weight))
        files.append(folder / f"{seed}.hham")
        save_model(files[-1], model)
    return files


@pytest.fixture
def words(workplace, models):
    return [
        "bands",
        models[0],
        f"{workplace / 'data.h5'}:e",
        "--errors",
        *models[1:],
        "--npoints",
        5,
        "--kpts",
        3,
        3,
        1,
    ]


def test_bands_of_the_mean_with_their_widths(command_line, workplace, models, words, tmp_path):
    picture = tmp_path / "bands.png"
    status, out, _ = command_line(*words, "--json", "-o", picture, "--window", 3, "--error-factor", 2)
    assert status == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    result = json.loads(out)
    ensemble = load_ensemble(models)
    with DataSet(workplace / "data.h5") as data:
        system = data["e"]
    predicted = LCAOSystem(system.atoms, ensemble.hamiltonian(system.atoms, system.pairs), system.overlap)
    path, level = band_path(system.atoms, npoints=5), result["fermi_eV"]
    options = {"reference": level, "overlap_threshold": PREDICTED_THRESHOLD}
    expected = band_errors(predicted, path, ensemble.deviations(predicted), **options).aligned(3.0)
    np.testing.assert_allclose(result["eigenvalues_eV"], expected.bands.energies, atol=1e-9)
    np.testing.assert_allclose(result["errors_eV"], 2 * expected.widths, atol=1e-12)
    assert expected.widths.max() > 1e-3


def test_what_the_error_bars_are_is_said(command_line, words, tmp_path):
    status, out, _ = command_line(*words, "-o", tmp_path / "bands.png")
    assert status == 0
    assert "error bars within 2 eV of E_F: median " in out
    assert "(standard deviation of 3 networks)" in out


def test_without_an_ensemble_there_are_none(command_line, models, workplace):
    words = ["bands", models[0], f"{workplace / 'data.h5'}:e", "--npoints", 3, "--json"]
    assert json.loads(command_line(*words)[1])["errors_eV"] is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda words: [*words, "--by", "element"], r"--errors .*1\.hham: not with --by"),
        (lambda words: [*words, "--error-factor", -1], "--error-factor: expected a number > 0, got -1.0"),
        (lambda words: [*words[:5], words[1], *words[6:]], "networks that differ, got one of them twice"),
        (lambda words: [words[0], words[2], *words[3:]], "only the H of a network has error bars"),
    ],
)
def test_bad_input_is_told_in_a_line(command_line, words, changed, message):
    status, out, err = command_line(*changed(words))
    assert (status, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert re.search(message, err)


def test_what_error_bars_are_worth_is_evaluated(command_line, workplace, models):
    words = ["evaluate", *models, workplace / "data.h5"]
    out = command_line(*words)[1]
    result = json.loads(command_line(*words, "--json")[1])["level_spread"]
    assert result["levels"]["n"] > 20
    assert f"error bars of {result['levels']['n']} levels: width {result['width_meV']:.2f}, " in out
    assert f"within {result['factor']:.2f} widths (--error-factor)" in out
    assert f"levels {result['levels']['pearson']:.2f}/{result['levels']['spearman']:.2f}" in out
    assert f"at most {result['at_most']:.2f}" in out
