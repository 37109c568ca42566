"""hybridham dos, and bands --by and --unfold: sums, layers, supercells, bad input."""

import json

import ase.io
import numpy as np
import pytest

from ase_hybridham import cli
from ase_hybridham.io import read_deeph, write_deeph
from ase_hybridham.solve import band_path, bands
from tests.solve.conftest import supercell


@pytest.fixture
def hybridham(monkeypatch, capsys, tmp_path):
    """Run `hybridham COMMAND ...` in a fresh folder: status, stdout, stderr."""
    monkeypatch.setattr(cli, "COMMANDS", {name: cli.COMMANDS[name] for name in ("bands", "dos")})
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        status = cli.main([*map(str, words)])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def openmx(golden):
    return golden / "openmx"


@pytest.mark.parametrize("smearing", ["gaussian", "tetrahedron"])
def test_parts_of_the_density_add_up(hybridham, openmx, smearing):
    words = ("dos", openmx / "graphene/deeph", "--kpts", 6, 6, 1, "--window", 25, "--smearing", smearing, "--json")
    width = ("--width", 0.3)
    plain, parts = (json.loads(hybridham(*words, *width, *by)[1]) for by in ((), ("--by", "shell")))
    assert parts["groups"] == [{"symbol": "C", "l": l} for l in "spd"]
    assert plain["groups"] == [{}]
    np.testing.assert_allclose(np.sum(parts["dos"], axis=0), plain["dos"][0], atol=1e-10)
    assert sum(parts["filled"]) == pytest.approx(8, abs=0.2)  # the level is that of another smearing
    middle = len(plain["energies_eV"]) // 2
    assert plain["energies_eV"][middle] == pytest.approx(plain["fermi_eV"])
    assert plain["dos"][0][middle] == plain["dos_at_fermi"]


def test_the_sparse_solver_gives_the_same(hybridham, openmx):
    words = (openmx / "MoS2_monolayer/deeph", "--kpts", 3, 3, 1, "--window", 1.0, "--json")
    sparse, dense = (
        json.loads(hybridham("dos", *words, "--width", 0.02, "--by", "element", "--solver", solver)[1])
        for solver in ("sparse", "dense")
    )
    assert sparse["fermi_eV"] == pytest.approx(dense["fermi_eV"], abs=1e-6)
    np.testing.assert_allclose(sparse["dos"], dense["dos"], atol=1e-6)
    fat = json.loads(hybridham("bands", *words, "--by", "element", "--npoints", 5, "--states", 4)[1])
    assert np.array(fat["weights"]).shape[2] < 45
    status, _, error = hybridham("dos", *words, "--smearing", "tetrahedron", "--states", 4)
    assert status == 2
    assert "needs all states" in error


def test_spins_and_layers_and_a_picture(hybridham, openmx, tmp_path):
    status, text, _ = hybridham("dos", openmx / "O2_triplet_collinear/openmx.scfout.gz", "--by", "element")
    assert status == 0
    assert (tmp_path / "dos.png").stat().st_size > 5000
    words = [line.split() for line in text.splitlines()]
    electrons = {tuple(line[:-1]): float(line[-1]) for line in words if line[0] == "O"}
    assert set(electrons) == {("O", "up"), ("O", "down")}
    assert electrons["O", "up"] - electrons["O", "down"] == pytest.approx(2, abs=0.1)
    layers = ("dos", openmx / "bilayer_graphene_AB/deeph", "--by", "layer", "--kpts", 3, 3, 1, "--json")
    found = json.loads(hybridham(*layers)[1])
    assert found["groups"] == [{"layer": "1"}, {"layer": "2"}]
    assert found["filled"][0] == pytest.approx(found["filled"][1], rel=0.02)


def test_fat_bands_have_a_weight_for_every_group(hybridham, openmx, tmp_path):
    words = ("bands", openmx / "MoS2_monolayer/deeph", "--path", "GMK", "--npoints", 5)
    status, text, _ = hybridham(*words, "--by", "element", "--json", "-o", "fat.png")
    found = json.loads(text)
    assert status == 0
    assert found["groups"] == [{"symbol": "S"}, {"symbol": "Mo"}]
    weights = np.array(found["weights"])
    assert weights.shape == (1, 5, 45, 2)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-10)
    plain = json.loads(hybridham(*words, "--json")[1])
    np.testing.assert_allclose(found["eigenvalues_eV"], plain["eigenvalues_eV"], atol=1e-8)
    assert found["path"] == plain["path"]
    assert (tmp_path / "fat.png").stat().st_size > 5000


def test_a_supercell_unfolds_to_the_bands_of_its_unit(hybridham, openmx, tmp_path):
    unit = read_deeph(openmx / "graphene/deeph")
    write_deeph(supercell(unit, np.array([[2, 1, 0], [1, 2, 0], [0, 0, 1]])), tmp_path / "large")
    ase.io.write("unit.xyz", unit.atoms, format="extxyz")
    words = ("--path", "GMK", "--npoints", 4, "--json")
    for what in ((), ("unit.xyz",), ("1",)):
        found = json.loads(hybridham("bands", "large", "--unfold", *what, *words)[1])
        assert (found["unfolded"]["n_cells"], found["unfolded"]["primitive"]) == (3, "C2")
        weights = np.array(found["weights"][0])
        np.testing.assert_allclose(weights.sum(axis=1), unit.n_orbitals, atol=1e-6)
        expected = bands(unit, band_path(unit.atoms, "GMK", 4), reference=0.0).energies[0]
        sums = (weights * np.array(found["eigenvalues_eV"][0])).sum(axis=1)
        np.testing.assert_allclose(sums, expected.sum(axis=1), atol=1e-4)
    status, text, _ = hybridham("bands", "large", "--unfold", "--npoints", 3)
    assert status == 0
    assert "6 atoms stand for 3 cells of C2, displaced by up to 0.000 A" in text
    assert int(text.split("E_F ")[1].split()[0]) > 80  # states of two k of one energy share
    assert (tmp_path / "bands.png").exists()


def test_a_layer_has_half_of_the_weight(hybridham, openmx):
    words = ("bands", openmx / "bilayer_graphene_AB/deeph", "--npoints", 3, "--json", "--unfold")
    lower, upper = (json.loads(hybridham(*words, layer)[1]) for layer in (1, 2))
    both = np.array(lower["weights"]) + np.array(upper["weights"])
    np.testing.assert_allclose(both, 1, atol=1e-9)  # the cell of a layer is that of the bilayer
    assert not {*lower["unfolded"]["atoms"]} & {*upper["unfolded"]["atoms"]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("bands", "--unfold"), "repeats no smaller cell; name a layer"),
        (("bands", "--unfold", "2"), "expected a layer from 1 to 1, got 2"),
        (("bands", "--unfold", "nothing.xyz"), "nothing.xyz: no such file or folder"),
        (("bands", "--unfold", "--by", "atom"), "--by atom: not with --unfold"),
        (("bands", "--by", "atom", "--reference", "x.Band"), "--reference x.Band: not with --by"),
        (("bands", "--by", "atom", "--window", "0"), "--window: expected an energy > 0 eV"),
        (("bands", "--by", "atom", "-o", "x.docx"), "expected a suffix of"),
        (("dos", "--width", "-1"), "--width: expected an energy > 0 eV, got -1.0"),
        (("dos", "-o", "x.docx"), "expected a suffix of"),
        (("dos", "--kpts", "0", "1", "1"), "expected three positive integers"),
    ],
)
def test_bad_input_is_one_line(hybridham, openmx, words, message):
    command, *options = words
    status, _, error = hybridham(command, openmx / "graphene/deeph", *options)
    assert status == 2
    assert message in error
    assert len(error.strip().splitlines()) == 1
