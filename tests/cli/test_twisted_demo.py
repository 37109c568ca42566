"""The first part of `hybridham demo`: true errors against the bands OpenMX printed, and nothing where no model is."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import ase_hybridham
from ase_hybridham.cli import demo, twisted_demo
from ase_hybridham.io import read_deeph, read_openmx_band
from ase_hybridham.model import checkpoint
from ase_hybridham.system import PairBlocks
from tests.overlap.radial_data import openmx_basis

SCRIPT = Path(__file__).parents[2] / "examples/make_twisted_reference.py"
SHIFT = 0.013  # eV, of the model in these tests


class Known:
    """A model that knows H of one structure: OpenMX's, shifted by SHIFT times S."""

    basis, potential_reference, provenance = openmx_basis("C"), "unknown", {}

    def __init__(self, folder: Path) -> None:
        system = read_deeph(folder)
        self.H = system.hamiltonian[0].with_values(system.hamiltonian[0].values + SHIFT * system.overlap.values)

    def predict(self, atoms, pairs=None):
        return PairBlocks.zeros(pairs, self.basis).with_values(self.H.on_pairs(pairs).values)


@pytest.fixture
def bilayer(golden, tmp_path, monkeypatch) -> Path:
    """The script has run on a bilayer of four atoms, whose H the model knows."""
    folder = golden / "openmx/bilayer_graphene_AB"
    monkeypatch.setattr(sys, "argv", ["", str(folder), str(tmp_path / "reference.json")])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    monkeypatch.setattr(twisted_demo, "REFERENCE", tmp_path / "reference.json")
    monkeypatch.setattr(twisted_demo, "MESH", (9, 9, 1))
    (tmp_path / "graphene-bilayer.hham").touch()
    monkeypatch.setenv("HYBRIDHAM_MODELS", str(tmp_path))
    calculator = ase_hybridham.HybridHamCalculator
    monkeypatch.setattr(ase_hybridham, "HybridHamCalculator", lambda _, **kw: calculator(Known(folder / "deeph"), **kw))
    return folder


def test_errors_are_those_of_the_model(bilayer, tmp_path, capsys):
    capsys.readouterr()
    result = twisted_demo.show_twisted(tmp_path)
    assert (result["model"], result["atoms"]) == ("graphene-bilayer", 4)
    bands = read_openmx_band(bilayer / "openmx.Band")
    for window in twisted_demo.WINDOWS:
        row = result["bands_meV"][f"{window:g} eV"]
        assert row["states"] == (np.abs(bands.eigenvalues - bands.fermi_level) <= window).sum()
        # the reference has six digits
        assert row["mean"] == pytest.approx(1e3 * SHIFT, abs=2e-3)
        assert row["largest"] == pytest.approx(1e3 * SHIFT, abs=2e-3)
        assert row["mean_aligned"] < 0.5  # the level is ours, of the same k-points and smearing
    assert result["fermi_meV"] == pytest.approx(1e3 * SHIFT, abs=0.5)
    assert (tmp_path / "twisted.png").read_bytes().startswith(b"\x89PNG")
    lines = twisted_demo.twisted_text(result).splitlines()
    assert lines[0].startswith("graphene-bilayer: 4 atoms")
    assert lines[2].split()[:2] == ["1", "eV"]
    assert [float(word) for word in lines[2].split()[3:5]] == [13.0, 13.0]


def test_without_the_model_it_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "PACKAGED", tmp_path)
    monkeypatch.delenv("HYBRIDHAM_MODELS", raising=False)
    assert twisted_demo.show_twisted(tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_the_reference_is_small_and_complete():
    known = json.loads(twisted_demo.REFERENCE.read_text())
    assert twisted_demo.REFERENCE.stat().st_size < 100_000
    energies = np.array(known["bands_eV"])
    assert energies.shape[0] == len(known["k_points"]) == 41
    assert (np.diff(energies, axis=1) >= 0).all()
    level, first = known["fermi_eV"], known["first_band"]
    half = len(known["numbers"]) * 2  # filled bands of a layer of carbon, four electrons an atom
    at_gamma = energies[0]
    assert at_gamma[half - 1 - first] < level < at_gamma[half - first]
    # bands that are left out are farther from the level than any window
    assert energies[:, 0].min() < level - twisted_demo.WINDOWS[-1]
    assert energies[:, -1].max() > level + twisted_demo.WINDOWS[-1]


def test_the_demo_says_in_one_line_what_it_leaves_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint, "PACKAGED", tmp_path)
    monkeypatch.delenv("HYBRIDHAM_MODELS", raising=False)
    assert demo._twisted(tmp_path) is None
    told = capsys.readouterr().err.splitlines()
    assert told[1:] == ["   left out: no graphene-bilayer.hham is in this installation"]
