"""Units, zeros of energy and electron counts."""

from dataclasses import replace

import numpy as np
import pytest
from ase.data import atomic_numbers
from ase.units import Hartree, Rydberg

from ase_hybridham.check import check_system
from ase_hybridham.check.slater import outer_electrons, possible_valences
from ase_hybridham.io import read_system
from ase_hybridham.solve import with_electrons
from tests.check.mistakes import scaled, standardized

SAMPLES = ("graphene", "MoS2_monolayer", "CH4_molecule", "Bi_bismuthene_soc", "H2O_across_boundary")
UNITS = {"hartree": Hartree, "rydberg": Rydberg}


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("name", SAMPLES)
def test_H_in_another_unit(sample, name, unit):
    report = check_system(scaled(sample(name), h=1 / UNITS[unit]))
    assert report["energy unit"].verdict == "failed"
    assert f"H is in {unit}" in report["electrons"].message
    assert "level is in" not in report["electrons"].message


@pytest.mark.parametrize("unit", UNITS.values())
@pytest.mark.parametrize("power", [1, -1])
@pytest.mark.parametrize("name", SAMPLES)
def test_H_and_fermi_level_in_another_unit(sample, name, unit, power):
    """The count is the same then; the depth of the bands is not."""
    scale = unit**power
    finding = check_system(scaled(sample(name), h=scale, level=scale))["energy unit"]
    assert finding.verdict == "failed"
    assert ("twice" if power == 1 else "hartree or rydberg") in finding.message


@pytest.mark.parametrize("name", ["graphene", "MoS2_monolayer", "Bi_bismuthene_soc"])
def test_the_fermi_level_in_hartree(sample, name):
    finding = check_system(scaled(sample(name), level=1 / Hartree))["electrons"]
    assert finding.verdict == "failed"
    assert "the Fermi level is in hartree" in finding.message
    assert "H is" not in finding.message
    assert "H was" not in finding.message


@pytest.mark.parametrize("name", ["graphene", "MoS2_monolayer", "Bi_bismuthene_soc"])
def test_standardized_H_with_the_old_fermi_level(sample, name):
    """What DeepH-dock's standardize writes."""
    report = check_system(standardized(sample(name)))
    assert "standardized" in report["electrons"].message
    assert "standardized" in report["zero of energy"].message
    assert report["electrons"].verdict == "failed"


def test_a_fermi_level_of_another_zero(sample):
    system = sample("MoS2_monolayer")
    finding = check_system(replace(system, fermi_level=system.fermi_level + 7.0))["electrons"]
    assert finding.verdict == "failed"
    # in a gap of 1.7 eV the level may lie anywhere
    shift = float(finding.message.split("eV from the stored level")[0].split()[-1])
    assert shift == pytest.approx(-7.0, abs=1.7)


def test_electrons_counted_from_the_level_itself_confirm_nothing(golden):
    """A count of states below the level fits that level, whatever it is."""
    told = read_system(golden / "openmx/MoS2_monolayer/deeph")
    moved = with_electrons(standardized(told))
    assert moved.provenance["electrons"] == "counted"
    assert check_system(moved)["electrons"].verdict == "failed"
    right = check_system(with_electrons(told))["electrons"]
    assert right.verdict == "ok"
    assert "not told" in right.message


def test_an_overlap_that_is_not_positive(sample):
    system = sample("graphene")
    overlap = system.overlap
    values = np.array(overlap.values)
    hopping = slice(int(overlap.offsets[overlap.pairs.n_atoms]), None)
    values[hopping] *= 1.5
    report = check_system(replace(system, overlap=overlap.with_values(values)))
    assert report["S(k) positive"].verdict == "failed"
    assert report["electrons"].verdict == "skipped"


@pytest.mark.parametrize(("symbol", "valence"), [("C", 4), ("Mo", 14), ("Bi", 15), ("Na", 9), ("Zn", 12), ("Ti", 12)])
def test_valences_of_pseudopotentials_are_closed_shells_and_outer_electrons(symbol, valence):
    assert valence in possible_valences(atomic_numbers[symbol])
    assert outer_electrons(atomic_numbers[symbol]) == possible_valences(atomic_numbers[symbol])[0]
    assert possible_valences(atomic_numbers[symbol])[-1] == atomic_numbers[symbol]


def test_a_solid_of_gaussians_has_the_depth_that_atoms_let_expect():
    pytest.importorskip("pyscf")
    from ase.build import bulk

    from ase_hybridham.scf import PySCFEngine

    system = PySCFEngine(k_length=6.0, ke_cutoff=30.0).run(bulk("NaCl", "rocksalt", 5.64))
    report = check_system(system)
    assert report.worst in ("ok", "note"), report.summary()
    for scale in (1 / Rydberg, Rydberg):
        assert check_system(scaled(system, scale, scale))["energy unit"].verdict == "failed"
