"""The model in the package: small, with a full card, of use with nothing else, and as good as it says."""

import logging
from pathlib import Path

import numpy as np
import pytest
from ase.build import graphene

from ase_hybridham import HybridHamCalculator
from ase_hybridham.cli.twisted_demo import MODEL, show_twisted
from ase_hybridham.io import read_deeph
from ase_hybridham.model import TrainedModel, load_model
from ase_hybridham.model.checkpoint import PACKAGED
from ase_hybridham.structures import twisted_bilayer
from ase_hybridham.train import hamiltonian_error

PATH = PACKAGED / f"{MODEL}.hham"


@pytest.fixture(scope="module")
def shipped() -> TrainedModel:
    return load_model(MODEL, "cpu")


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch) -> Path:
    """Somewhere else, without a folder of models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYBRIDHAM_MODELS", raising=False)
    return tmp_path


def test_size_and_card(shipped):
    assert PATH.stat().st_size <= 4.5e6
    assert shipped.card is not None
    assert len(shipped.card.limits) >= 3
    assert {row.n > 0 for row in shipped.card.errors} == {True}
    assert any("twisted" in row.structures for row in shipped.card.errors)
    assert shipped.cascade.domain.coverage is not None
    stage1, stage2 = shipped.provenance["init"]["provenance"]["training"], shipped.provenance["training"]
    assert stage1["phase1"]["epochs"] > 0 < stage2["phase2"]["epochs"]
    assert len(shipped.provenance["data"]["hash"]) > 16


def test_name_and_atoms_are_enough(shipped, caplog):
    atoms = graphene(a=2.46, vacuum=8.0)
    with caplog.at_level(logging.WARNING, "ase_hybridham"):
        atoms.calc = HybridHamCalculator(MODEL, kpts=(9, 9, 1))
        at_K = atoms.calc.band_structure([[1 / 3, 1 / 3, 0]]).energies[0, 0]
    assert not caplog.messages
    assert at_K[3] == pytest.approx(at_K[4], abs=2e-3)  # the cone
    assert atoms.calc.get_fermi_level() == pytest.approx(at_K[3], abs=0.05)
    assert atoms.calc.get_fermi_level() == pytest.approx(-3.781, abs=0.1)  # OpenMX


@pytest.mark.parametrize("name", ["bilayer_graphene_AB", "graphene"])
def test_errors_are_of_the_size_that_the_card_tells(shipped, golden, name):
    """Ideal structures, which the training set does not hold; H and S of OpenMX."""
    system = read_deeph(golden / "openmx" / name / "deeph")
    error = hamiltonian_error(shipped.hamiltonian(system.atoms, system.pairs), system.hamiltonian, system.overlap)
    told = {row.structures.split()[0].strip(","): row for row in shipped.card.errors}
    row = told["bilayers" if "bilayer" in name else "layers"]
    assert 0 < error.gauge_free_mae < row.gauge_free
    S = HybridHamCalculator(shipped).overlap.of(system.atoms, system.pairs)
    assert np.abs(S.values - system.overlap.values).max() < 1e-6


def test_bands_of_the_twisted_bilayer(alone):
    """The demo's figures; 10 meV is what the model is for."""
    result = show_twisted(alone)
    narrow, wide = (result["bands_meV"][window] for window in ("1 eV", "2 eV"))
    assert 0 < narrow["mean_aligned"] < 10
    assert 0 < wide["mean_aligned"] < 20
    assert (alone / "twisted.png").stat().st_size > 20_000


def test_structures_outside_are_told(shipped):
    assert shipped.outside(twisted_bilayer(1, 2)) == shipped.outside(twisted_bilayer(2, 3)) == []
    assert "next fragment" in shipped.outside(twisted_bilayer(1, 2, spacing=4.2))[0]
    assert "C-C bonds of 1.5" in shipped.outside(graphene(a=2.6, vacuum=8.0))[0]
