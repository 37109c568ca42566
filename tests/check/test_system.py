"""Right data pass every check, whatever program made them and however they are turned."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from scipy.spatial.transform import Rotation

from ase_hybridham.check import check_system
from ase_hybridham.errors import FormatError
from ase_hybridham.io import format_of
from ase_hybridham.store import DataSet, is_data_set
from ase_hybridham.symmetry import rotate_system
from ase_hybridham.system import AtomBasis, Basis, LCAOSystem, PairBlocks, PairList
from tests.check.mistakes import moved
from tests.io.structures import unpacked

SAMPLES = (
    "graphene",
    "bilayer_graphene_AB",
    "000",
    "MoS2_monolayer",
    "Bi_bismuthene_soc",
    "CH4_molecule",
    "H2O_across_boundary",
    "O2_triplet_collinear",
    "O2_spin_orbit",
)


@pytest.mark.parametrize("name", SAMPLES)
def test_right_data_pass(sample, name):
    report = check_system(sample(name))
    assert report.worst in ("ok", "note"), report.summary()
    assert report["S covariance"].figure < 1e-7  # some are float32
    assert not any(f.verdict == "skipped" for f in report.findings if f.name in ("electrons", "energy unit"))


@pytest.mark.parametrize("name", SAMPLES[2:])
def test_right_data_pass_in_any_orientation(sample, name):
    rotation = Rotation.random(rng=np.random.default_rng(3)).as_matrix()
    report = check_system(rotate_system(sample(name), rotation))
    assert report.worst in ("ok", "note"), report.summary()


@pytest.mark.parametrize("folder", ["abacus", "deeph_dock", "fhi_aims", "gpaw", "siesta"])
def test_golden_data_of_other_programs_pass(golden, folder, tmp_path):
    n_checked = 0
    for name, system in other_systems(unpacked(golden / folder, tmp_path)):
        report = check_system(system)
        if name == "H_chain":  # made of atoms 4 angstrom apart
            assert not report.failed
        else:
            assert report.worst in ("ok", "note"), f"{name}: {report.summary()}"
        n_checked += 1
    assert n_checked


def other_systems(folder: Path) -> Iterator[tuple[str, LCAOSystem]]:
    """All structures below a folder that can be read: some golden data are parts of a calculation."""
    for path in sorted([folder, *folder.rglob("*")]):
        if path.is_file() and is_data_set(path):
            with DataSet(path) as data:
                yield from data.items()
            continue
        with contextlib.suppress(FormatError, ImportError):
            known = format_of(path)
            if known is not None:
                yield path.parent.name if path.is_file() else path.name, known.read(path)


def test_data_of_this_package_pass():
    with DataSet(Path(__file__).parents[2] / "ase_hybridham/data/demo_graphene.h5") as data:
        for name in list(data)[::14]:
            report = check_system(data[name])
            assert report.worst in ("ok", "note"), report.summary()


def test_every_structure_of_the_larger_data_passes(reference_data):
    from ase_hybridham.io import read_openmx

    for path in sorted((reference_data / "raw").glob("*/openmx.scfout.gz")):
        report = check_system(read_openmx(path))
        assert report.worst in ("ok", "note"), f"{path}: {report.summary()}"


@pytest.mark.parametrize("lacking", ["overlap", "hamiltonian", "fermi_level"])
def test_what_is_not_there_is_skipped_and_said(sample, lacking):
    system = replace(sample("graphene"), **{lacking: () if lacking == "hamiltonian" else None})
    report = check_system(system)
    assert not report.failed
    skipped = [finding for finding in report.findings if finding.verdict == "skipped"]
    assert skipped
    assert all(finding.message for finding in skipped)


def test_large_systems_get_no_dense_eigenproblem(sample, monkeypatch):
    monkeypatch.setattr("ase_hybridham.check.energies.MOST_ORBITALS", 20)
    report = check_system(sample("graphene"))
    assert report["electrons"].verdict == "skipped"
    assert "26 orbitals" in report["electrons"].message
    assert report["S covariance"].verdict == "ok"


def test_one_atom_without_neighbors():
    atoms = Atoms("H", cell=np.eye(3) * 8)
    pairs = PairList.from_atoms(atoms, {1: 1.0})
    basis = Basis.of(AtomBasis.from_degrees("H", [0], valence=1, cutoff=1.0))
    s = PairBlocks(pairs, basis, np.ones(1))
    report = check_system(LCAOSystem(atoms, (s.with_values(-6.0 * s.values),), s, fermi_level=-6.0, electrons=1.0))
    assert report.worst == "ok"


def test_a_report_is_plain_json(sample):
    import json

    report = check_system(sample("graphene"))
    entry = json.loads(json.dumps(report.to_dict()))
    assert entry["verdict"] == report.worst
    assert [finding["name"] for finding in entry["findings"]] == [finding.name for finding in report.findings]
    assert report.summary().startswith("ok")
    with pytest.raises(KeyError, match="S covariance"):
        report["no such check"]


def test_atoms_in_one_place_are_named(sample):
    system = sample("CH4_molecule")
    positions = system.atoms.get_positions()
    positions[2] = positions[1]
    report = check_system(moved(system, positions))
    assert "distances" in {finding.name for finding in report.failed}


@pytest.mark.parametrize(("h", "s"), [(1.0, 0.0), (0.0, 1.0), (1e200, 1e200), (1e300, 1e-300)])
def test_numbers_out_of_all_bounds_fail(sample, h, s):
    system = sample("graphene")
    report = check_system(replace(system, hamiltonian=(h * system.hamiltonian[0],), overlap=s * system.overlap))
    assert report.failed


@pytest.mark.parametrize(("beyond", "verdict"), [(4.5, "ok"), (3.0, "warning")])
def test_projectors_connect_some_atoms_beyond_the_orbitals(sample, beyond, verdict):
    system = sample("graphene")
    pairs = system.pairs
    overlap = np.array(system.overlap.values)
    overlap[system.overlap.index(np.flatnonzero(pairs.distances > 4.5))] = 0.0
    kept = (pairs.distances <= beyond) | (np.abs(pairs.shifts[:, 0]) <= 1)
    few = PairList.from_indices(system.atoms, pairs.i[kept], pairs.j[kept], pairs.shifts[kept])
    operators = (system.hamiltonian[0], system.overlap.with_values(overlap))
    hamiltonian, overlap = (operator.on_pairs(few) for operator in operators)
    assert 0 < len(few) < len(pairs)
    report = check_system(replace(system, hamiltonian=(hamiltonian,), overlap=overlap))
    assert report["range of pairs"].verdict == verdict
