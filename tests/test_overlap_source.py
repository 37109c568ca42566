"""Where S comes from: what somebody gives, the functions of the model, those of a folder; else an error."""

import logging
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ase_hybridham import HybridHamCalculator
from ase_hybridham.errors import FormatError, OverlapError
from ase_hybridham.io import read_openmx, write_deeph
from ase_hybridham.overlap_source import find_overlap
from ase_hybridham.store import append_systems
from ase_hybridham.system import AtomBasis, Basis, LCAOSystem, PairList
from tests.io.pao_files import pao_folder
from tests.overlap.radial_data import openmx_basis

ROUNDING = 1e-9  # OpenMX's own: 2e-10 on the atoms


@pytest.fixture(scope="module")
def graphene(golden) -> LCAOSystem:
    """H and S of OpenMX; the basis knows its shells, and no functions."""
    return read_openmx(golden / "openmx/graphene/openmx.scfout.gz")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return pao_folder(tmp_path_factory.mktemp("pao"), "C")


def scaled(basis: Basis, factor: float) -> Basis:
    """The basis with every function multiplied."""
    atoms = []
    for atom in basis.atoms.values():
        shells = (replace(s, radial=replace(s.radial, values=factor * s.radial.values)) for s in atom.shells)
        atoms.append(replace(atom, shells=tuple(shells)))
    return Basis.of(*atoms)


def assert_same(ours, theirs) -> None:
    assert np.abs(theirs.values).max() > 0.9  # not 0 = 0
    assert ours.pairs.same_pairs(theirs.pairs)
    np.testing.assert_allclose(ours.values, theirs.values, rtol=0, atol=ROUNDING)


def test_functions_of_the_model_give_the_s_of_openmx(graphene):
    source = find_overlap(openmx_basis("C"))
    assert_same(source.of(graphene.atoms), graphene.overlap)
    near = PairList.from_atoms(graphene.atoms, 3.0)
    assert source.of(graphene.atoms, near).pairs is near


def test_functions_of_a_folder_do_the_same(graphene, files):
    for source in (
        find_overlap(graphene.basis, basis_dir=files),
        find_overlap(graphene.basis, basis_dir=files, provenance=graphene.provenance),
        find_overlap(graphene.basis, basis_dir=str(files), names={"C": "C6.0-s2p2d1"}),
    ):
        assert_same(source.of(graphene.atoms), graphene.overlap)


def test_pairs_reach_as_far_as_the_model_knows_h(graphene, files):
    shorter = Basis.of(AtomBasis("C", graphene.basis["C"].shells, cutoff=2.0))
    found = find_overlap(shorter, basis_dir=files).of(graphene.atoms)
    assert 3.5 < found.pairs.distances.max() <= 4.0
    np.testing.assert_allclose(found.values, graphene.overlap.on_pairs(found.pairs).values, rtol=0, atol=ROUNDING)


def test_a_checkpoint_tells_the_names_where_a_folder_has_several_files(graphene, files, tmp_path):
    for name in ("C6.0.pao", "C5.0.pao"):
        shutil.copy(files / "C6.0.pao", tmp_path / name)
    with pytest.raises(FormatError, match=r"C5\.0\.pao and C6\.0\.pao are of C; name one"):
        find_overlap(graphene.basis, basis_dir=tmp_path)
    told = {"data": {}, "structure": dict(graphene.provenance)}
    assert find_overlap(graphene.basis, basis_dir=tmp_path, provenance=told).is_known


def test_a_given_s_wins_and_is_told_if_it_is_another(graphene, caplog, tmp_path):
    write_deeph(graphene, tmp_path / "folder")
    append_systems(tmp_path / "data.h5", [("a", graphene)])
    for given in (graphene.overlap, tmp_path / "folder", f"{tmp_path}/data.h5:a"):
        found = find_overlap(openmx_basis("C"), overlap=given).of(graphene.atoms)
        np.testing.assert_array_equal(found.values, graphene.overlap.values)
    assert not caplog.records
    other = find_overlap(scaled(openmx_basis("C"), 1.01), overlap=graphene.overlap)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(other.of(graphene.atoms).values, graphene.overlap.values)
    assert "differs by up to 2.0e-02 from that of the model's radial functions" in caplog.text


def test_a_given_s_of_other_atoms_is_refused_though_the_functions_are_known(graphene):
    moved = graphene.atoms.copy()
    moved.positions[0, 2] += 0.01
    with pytest.raises(OverlapError, match="given for another geometry"):
        find_overlap(openmx_basis("C"), overlap=graphene.overlap).of(moved)


def test_what_a_function_returns_is_looked_at(graphene):
    moved = graphene.atoms.copy()
    moved.positions[0, 0] += 0.01
    source = find_overlap(graphene.basis, overlap=lambda atoms, basis, pairs: graphene.overlap)
    assert source.of(graphene.atoms) is graphene.overlap
    with pytest.raises(OverlapError, match="another geometry"):
        source.of(moved)


def test_a_model_keeps_its_functions_and_tells_if_the_files_have_others(graphene, files, caplog):
    assert_same(find_overlap(openmx_basis("C"), basis_dir=files).of(graphene.atoms), graphene.overlap)
    assert not caplog.records
    own = find_overlap(scaled(openmx_basis("C"), 1.01), basis_dir=files).of(graphene.atoms)
    assert "the functions of C are not those of the model, whose own are used" in caplog.text
    np.testing.assert_allclose(own.values, 1.01**2 * graphene.overlap.values, rtol=0, atol=2 * ROUNDING)


def test_without_any_source_there_is_an_error_and_no_s(graphene):
    source = find_overlap(graphene.basis)
    assert not source.is_known
    with pytest.raises(OverlapError, match=r"give basis_dir= .*overlap= .*DeepH folder, a \.scfout, data\.h5:NAME"):
        source.of(graphene.atoms)
    write = replace(graphene, overlap=None)
    assert find_overlap(replace(graphene.basis, orthogonal=True)).of(write.atoms) is None


def test_a_file_without_s_is_named(graphene, tmp_path):
    write_deeph(replace(graphene, overlap=None), tmp_path / "folder")
    with pytest.raises(OverlapError, match="folder: holds no overlap"):
        find_overlap(graphene.basis, overlap=tmp_path / "folder")


def test_calculator_of_a_model_without_functions_takes_them_from_a_folder(graphene, files):
    model = SimpleNamespace(
        basis=Basis.of(AtomBasis("C", graphene.basis["C"].shells, 4, 3.175)),
        potential_reference="openmx",
        provenance={"structure": dict(graphene.provenance)},
        predict=lambda atoms, pairs: graphene.hamiltonian[0].on_pairs(pairs),
    )
    atoms = graphene.atoms.copy()
    atoms.calc = HybridHamCalculator(model, basis_dir=files, kpts=(3, 3, 1))
    assert_same(atoms.calc.get_system().overlap, graphene.overlap)
    given = graphene.atoms.copy()
    given.calc = HybridHamCalculator(model, overlap=graphene.overlap, kpts=(3, 3, 1))
    # eV; S of an eigenvalue of 1e-3 is felt a thousand times by the highest bands
    np.testing.assert_allclose(atoms.calc.get_eigenvalues(0), given.calc.get_eigenvalues(0), atol=1e-5)
    atoms.rattle(0.05)  # S of a geometry that no file has
    assert (
        np.abs(atoms.calc.get_system().overlap.on_pairs(graphene.pairs).values - graphene.overlap.values).max() > 0.01
    )
