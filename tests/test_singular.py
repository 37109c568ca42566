"""A system whose S(k) is singular at Gamma, through every door: the state that is not there shows nowhere."""

import json
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from ase.dft.dos import DOS
from ase.io.jsonio import read_json
from ase.spectrum.band_structure import BandStructure

from ase_hybridham import HybridHamCalculator, calculator, cli
from ase_hybridham.check import check_system
from ase_hybridham.plot import plot_bands
from ase_hybridham.solve import OVERLAP_THRESHOLD, PREDICTED_THRESHOLD, band_path, bands
from ase_hybridham.store import append_systems
from ase_hybridham.system import LCAOSystem
from tests.solve.conftest import pz_graphene

HOPPING = -2.7  # eV
BOTTOM = 3 * HOPPING / 2  # at Gamma, where S(k) is 2 and 0


def graphene(below: float = 1e-7) -> LCAOSystem:
    """S(k) has the smallest eigenvalue `below`, at Gamma."""
    system = pz_graphene(HOPPING, (1 - below) / 3)
    basis = system.basis.with_valences({"C": 1})
    (h,), s = system.hamiltonian, system.overlap
    h, s = replace(h, basis=basis), replace(s, basis=basis)
    return LCAOSystem(system.atoms, (h,), s, electrons=2.0, fermi_level=0.0)


@pytest.fixture
def singular():
    return graphene()


class Remembers:
    """Stands in for a network."""

    potential_reference = "unknown"

    def __init__(self, system: LCAOSystem) -> None:
        self.basis, self.provenance = system.basis, {}
        self.h = system.hamiltonian[0]

    def predict(self, atoms, pairs=None):
        return self.h.on_pairs(pairs)


@pytest.fixture
def files(tmp_path, monkeypatch, command_line):
    """`run("bands", ...)` in a folder with the data sets singular.h5, negative.h5 and healthy.h5."""
    monkeypatch.chdir(tmp_path)
    for name, below in (("singular", 1e-7), ("negative", -4e-4), ("healthy", 0.3)):
        append_systems(f"{name}.h5", [("graphene", graphene(below))])
    return command_line


@pytest.fixture
def command_line(capsys):
    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = cli.main([str(word) for word in words])
        return status, *capsys.readouterr()

    return run


def test_pictures_leave_it_out(singular):
    structure = bands(singular, band_path(singular.atoms, "GMKG", npoints=20))
    assert np.isinf(structure.energies).sum() == 2  # the path begins and ends at Gamma
    ax = plot_bands(structure)
    upper = next(line for line in ax.get_lines() if np.isnan(line.get_ydata()).any())
    assert np.isnan(upper.get_ydata()).tolist() == np.isinf(structure.energies[0, :, 1]).tolist()
    ax.figure.canvas.draw()
    structure.plot()  # ASE's
    plt.close("all")


def test_ases_files_keep_it(singular, tmp_path):
    structure = bands(singular, band_path(singular.atoms, "GMKG", npoints=20))
    structure.write(tmp_path / "bands.json")
    again = read_json(tmp_path / "bands.json")
    assert isinstance(again, BandStructure)
    np.testing.assert_array_equal(again.energies, structure.energies)


def test_the_calculator_fills_what_is_there(singular):
    atoms = singular.atoms.copy()
    atoms.calc = HybridHamCalculator(Remembers(singular), overlap=singular.overlap, kpts=(6, 6, 1))
    energies = np.array([atoms.calc.get_eigenvalues(n) for n in range(len(atoms.calc.get_ibz_k_points()))])
    filling = np.array([atoms.calc.get_occupation_numbers(n) for n in range(len(energies))])
    assert np.isinf(energies).sum() == 1
    assert filling[np.isinf(energies)] == 0
    assert atoms.calc.get_k_point_weights() @ filling.sum(axis=1) == pytest.approx(2, abs=1e-8)
    dos = DOS(atoms.calc, width=0.2, window=(-5, 5), npts=51).get_dos()
    assert np.isfinite(dos).all()
    assert dos.max() > 0


def test_the_calculator_takes_another_threshold(singular):
    atoms = singular.atoms.copy()
    atoms.calc = HybridHamCalculator(
        Remembers(singular), overlap=singular.overlap, kpts=(6, 6, 1), overlap_threshold=0.0
    )
    ghost = atoms.calc.band_structure([[0, 0, 0]]).energies
    np.testing.assert_allclose(ghost[0, 0], [BOTTOM, -HOPPING * 3 / 1e-7], rtol=1e-5)
    level = atoms.calc.get_fermi_level()
    atoms.calc.set(overlap_threshold=0.5)  # far too much, to see that it counts
    assert np.isinf(atoms.calc.band_structure([[0, 0, 0], [0.05, 0, 0]]).energies).sum() == 2
    assert atoms.calc.get_fermi_level() == pytest.approx(level, abs=1e-6)  # the states below it are all there
    atoms.calc.set(overlap_threshold=-1.0)
    with pytest.raises(ValueError, match="overlap threshold"):
        atoms.calc.get_fermi_level()


def test_predicted_H_asks_for_a_larger_threshold(tmp_path, monkeypatch, files):
    system = graphene(5e-5)
    append_systems("small.h5", [("graphene", system)])
    (tmp_path / "model.hham").touch()
    monkeypatch.setattr(calculator, "_load", lambda *_: Remembers(system))
    options = ("--path", "GM", "--npoints", 3, "--json")
    status, text, _ = files("bands", "model.hham", "small.h5", *options, "--reference", "small.h5")
    assert status == 0
    assert json.loads(text)["eigenvalues_eV"][0][0][1] is None
    assert json.loads(text)["states"] == 5  # that of the reference is there
    for words in (("small.h5",), ("model.hham", "small.h5", "--overlap-threshold", "1e-5")):
        status, text, _ = files("bands", *words, *options)
        assert json.loads(text)["eigenvalues_eV"][0][0][1] == pytest.approx(-HOPPING * 3 / 5e-5)


def test_json_has_null_for_it(files, caplog):
    status, text, _ = files("bands", "singular.h5", "--path", "GM", "--npoints", 3, "--json")
    assert status == 0
    result = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    energies = result["eigenvalues_eV"][0]
    assert energies[0] == [pytest.approx(BOTTOM, abs=1e-6), None]
    assert None not in energies[1]
    assert "below the threshold 1e-05: 1 direction of 2 projected out, at 1 of 3 k-points" in caplog.text


def test_bands_are_compared_without_it(files, tmp_path):
    options = ("--reference", "healthy.h5", "--path", "GMKG", "--npoints", 7, "--json", "-o", "x.png")
    status, text, _ = files("bands", "singular.h5", *options)
    assert status == 0
    assert json.loads(text)["states"] == 2 * 7 - 2
    assert (tmp_path / "x.png").stat().st_size > 5000


def test_an_overlap_that_is_negative_needs_a_threshold_that_says_so(files):
    status, _, told = files("bands", "negative.h5", "--path", "GM", "--json")
    assert status == 2
    assert "smallest eigenvalue is -4.00e-04" in told
    status, text, _ = files("bands", "negative.h5", "--path", "GM", "--json", "--overlap-threshold", "1e-3")
    assert status == 0
    assert json.loads(text)["eigenvalues_eV"][0][0][1] is None


@pytest.mark.parametrize("word", ["-1e-5", "1", "nan"])
def test_a_threshold_that_makes_no_sense_is_refused(files, word):
    status, _, told = files("bands", "singular.h5", f"--overlap-threshold={word}")
    assert status == 2
    assert told.startswith("hybridham bands: --overlap-threshold: expected a number from 0 to 1")


def test_help_tells_the_default(files, capsys):
    with pytest.raises(SystemExit):
        cli.main(["bands", "-h"])
    told = " ".join(capsys.readouterr().out.split()).replace("e-", "e-0")
    assert f"(default {OVERLAP_THRESHOLD:.0e}, of predicted H {PREDICTED_THRESHOLD:.0e}; 0: none)" in told


@pytest.mark.parametrize(
    ("below", "verdict", "word"),
    [
        (0.01, "ok", ""),
        (5e-5, "note", "nearly dependent"),
        (1e-7, "warning", "below the threshold"),
        (-1e-7, "warning", "below the threshold"),
        (-4e-4, "failed", "smallest eigenvalue"),
    ],
)
def test_check_tells_where_the_overlap_is_smallest(below, verdict, word):
    finding = check_system(graphene(below))["S(k) positive"]
    assert finding.verdict == verdict
    assert finding.figure == pytest.approx(below, rel=1e-6, abs=1e-12)
    assert "at k = [0.0, 0.0, 0.0]" in finding.message
    assert word in finding.message
