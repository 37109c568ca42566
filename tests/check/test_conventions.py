"""Every mistake in orbitals, lattice, R and positions is found in S and named."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ase_hybridham.check import Report, check_system
from ase_hybridham.check.conventions import check_conventions
from ase_hybridham.overlap import overlap_from_basis
from ase_hybridham.symmetry import rotate_system
from ase_hybridham.system import AtomBasis, Basis, GaussianRadial, LCAOSystem, PairList, Shell
from tests.check.mistakes import (
    interleaved,
    moved,
    of_degree,
    read_as,
    reversed_shifts,
    wrapped,
)

PROGRAMS = ("house", "openmx", "pyscf", "siesta", "abacus", "fhi-aims")
GENERIC = ("000", "MoS2_monolayer")  # no symmetry hides a mistake


def conventions(system: LCAOSystem) -> Report:
    return Report(tuple(check_conventions(system)))


def explanation(report: Report) -> str:
    """What the covariance check says, which must have failed and left nothing unexplained."""
    finding = report["S covariance"]
    assert finding.verdict == "failed", finding
    assert finding.figure > 0.05
    assert finding.advice
    return finding.message


@pytest.mark.parametrize(("read", "right"), list(permutations(PROGRAMS, 2)))
def test_the_order_of_one_program_read_as_that_of_another(sample, read, right):
    turned = Rotation.random(rng=np.random.default_rng(1)).as_matrix()  # then no symmetry hides an exchange
    molecule = rotate_system(sample("CH4_molecule"), turned)
    message = explanation(conventions(read_as(molecule, read, right)))
    called = {"house": "this package"}
    told, _, other = message.partition("and were read in that of")
    names = {called.get(read, read), called.get(right, right)}
    if "other way round" in message:  # the exchange undoes itself
        assert all(name in message for name in names)
    else:
        assert called.get(right, right) in told
        assert called.get(read, read) in other


def test_a_hypothesis_that_makes_it_less_wrong_is_no_explanation(sample):
    system = sample("MoS2_monolayer")
    places = system.atoms.get_positions()[[2, 1, 0]]  # a reflection, which SIESTA's signs would undo
    assert "siesta" in explanation(conventions(moved(system, positions=places)))
    places[0] += [0.05, 0.1, 0.05]
    message = explanation(conventions(moved(system, positions=places)))
    assert " if " not in message


@pytest.mark.parametrize("name", [*GENERIC, "CH4_molecule"])
def test_exchanged_p_orbitals(sample, name):
    message = explanation(conventions(of_degree(sample(name), 1, np.eye(3)[[2, 1, 0]])))
    assert "p orbitals read as y, z, x are x, z, y" in message


@pytest.mark.parametrize("name", [*GENERIC, "graphene"])
def test_the_wrong_sign_of_R(sample, name):
    message = explanation(conventions(reversed_shifts(sample(name))))
    assert "R has the wrong sign" in message
    assert "transposed" not in message


@pytest.mark.parametrize("name", [*GENERIC, "graphene"])
def test_a_transposed_lattice(sample, name):
    system = sample(name)
    flipped = system.atoms.cell.array.T
    assert "the lattice is transposed" in explanation(conventions(moved(system, cell=flipped)))
    both = explanation(conventions(moved(reversed_shifts(system), cell=flipped)))
    assert "transposed and R has the wrong sign" in both


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), name=st.sampled_from(["000", "MoS2_monolayer", "H2O_across_boundary"]))
def test_wrapped_positions(sample, seed, name):
    system = sample(name)
    bad = wrapped(system, seed)
    steps = np.rint((bad.atoms.positions - system.atoms.positions) @ np.linalg.inv(system.atoms.cell.array))
    if (steps == steps[0]).all():
        assert not check_system(bad).failed  # all moved alike
        return
    assert "positions were wrapped and R was not" in explanation(conventions(bad))


def test_fractional_coordinates_of_a_text_output(sample):
    """OpenMX prints them wrapped into the cell, whatever R counts from."""
    system = sample("H2O_across_boundary")
    atoms = system.atoms.copy()
    atoms.pbc = True
    atoms.wrap()
    message = explanation(conventions(moved(system, atoms.positions)))
    assert "atom 0 by" in message or "atom 1 by" in message or "atom 2 by" in message


@pytest.mark.parametrize("name", GENERIC)
def test_merged_shells_and_reversed_R_of_a_converter(sample, name):
    """What DeepH-dock's converter of FHI-aims writes."""
    assert "interleaved" in explanation(conventions(interleaved(sample(name))))
    message = explanation(conventions(reversed_shifts(interleaved(sample(name)))))
    assert "R has the wrong sign" in message
    assert "interleaved" in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.positions / 0.529177, "positions are in bohr"),
        (lambda a: a.positions * 0.529177, "lattice is in bohr"),
        (lambda a: a.get_scaled_positions(wrap=False), "fractional"),
        (lambda a: a.positions.T.reshape(-1, 3), "table of positions is transposed"),
    ],
)
@pytest.mark.parametrize("name", GENERIC)
def test_positions_in_another_unit_or_form(sample, name, change, words):
    assert words in explanation(conventions(moved(sample(name), change(sample(name).atoms))))


def gaussians_with_f(seed: int) -> LCAOSystem:
    """S of random Gaussians with s, p, d and f shells on a few atoms."""
    rng = np.random.default_rng(seed)
    shells = tuple(Shell(l, radial=GaussianRadial((float(rng.uniform(0.3, 1.0)),), (1.0,))) for l in (0, 1, 2, 3))
    basis = Basis.of(AtomBasis("Si", shells, 4, 3.0))
    atoms = Atoms("Si4", rng.uniform(0, 4, size=(4, 3)), cell=np.eye(3) * 30)
    return LCAOSystem(atoms, (), overlap_from_basis(atoms, basis, PairList.from_atoms(atoms, {14: 3.0})))


@pytest.mark.parametrize("seed", range(3))
def test_f_shells_of_siesta_after_deeph_pack(seed):
    pytest.importorskip("pyscf")
    system = gaussians_with_f(seed)
    assert conventions(system)["S covariance"].figure < 1e-12
    message = explanation(conventions(read_as(system, "deeph", "deeph-siesta")))
    assert "order of deeph-siesta and were read in that of openmx" in message


@pytest.mark.parametrize("size", [2e-3, 0.02, 0.2])
@pytest.mark.parametrize("name", [*GENERIC, "H2O_across_boundary"])
def test_an_atom_that_stands_elsewhere(sample, name, size):
    system = sample(name)
    positions = system.atoms.get_positions()
    positions[1] += size * np.array([0.6, -0.3, 0.5])
    finding = conventions(moved(system, positions))["positions"]
    assert finding.verdict == "failed"
    assert f"atom 1 ({system.atoms.symbols[1]})" in finding.message
    assert 0.2 * size < finding.figure < 1.2 * size


def test_a_strained_lattice(sample):
    cell = sample("000").atoms.cell.array.copy()
    cell[0, 1] += 0.01
    assert conventions(moved(sample("000"), cell=cell))["positions"].verdict == "failed"


def test_positions_rounded_as_files_round_them_pass(sample):
    system = sample("000")
    assert not check_system(moved(system, system.atoms.positions.round(5))).failed


def test_lengths_in_bohr(sample):
    system = sample("000")
    scale = 1 / 0.529177
    finding = check_system(moved(system, system.atoms.positions * scale, system.atoms.cell.array * scale))["distances"]
    assert finding.verdict == "warning"
    assert "bohr" in finding.advice


@pytest.mark.parametrize("read", ["openmx", "pyscf", "abacus", "fhi-aims"])
@pytest.mark.parametrize("name", GENERIC)
def test_H_in_another_order_than_S(sample, name, read):
    """S computed by one program, H read from another's file."""
    system = sample(name)
    finding = conventions(replace(system, hamiltonian=read_as(system, read, "house").hamiltonian))["H order"]
    assert finding.verdict == "failed"
    assert "this package" in finding.message
    assert read in finding.message


@pytest.mark.parametrize("name", [*GENERIC, "graphene"])
def test_R_of_H_against_R_of_S(sample, name):
    system = sample(name)
    back = reversed_shifts(system).hamiltonian[0].on_pairs(system.pairs)
    finding = conventions(replace(system, hamiltonian=(back,)))["H order"]
    assert finding.verdict == "failed"
    assert "R of H has the sign opposite" in finding.message
