"""S against the integrals of its basis: it fits where it should, and each mistake is named."""

from dataclasses import replace

import numpy as np
import pytest

from ase_hybridham.check import check_system
from ase_hybridham.check.basis import FROM_BASIS, check_basis
from ase_hybridham.system import AtomBasis, Basis, LCAOSystem, PairBlocks, PairList
from tests.overlap.radial_data import openmx_basis

SAMPLES = [
    "graphene",
    "bilayer_graphene_AB",
    "MoS2_monolayer",
    "CH4_molecule",
    "Bi_bismuthene_soc",
    "H2O_across_boundary",
]


def with_functions(system: LCAOSystem, basis: Basis | None = None) -> LCAOSystem:
    """S alone, with the functions of OpenMX or others."""
    basis = basis or openmx_basis(system.basis.atoms)
    return LCAOSystem(system.atoms, (), replace(system.overlap, basis=basis), system.spin)


def finding(system: LCAOSystem):
    (found,) = check_basis(system)
    return found


def moved(system: LCAOSystem, atoms) -> LCAOSystem:
    """The same blocks and R on other positions or another cell."""
    pairs = PairList.from_indices(atoms, system.pairs.i, system.pairs.j, system.pairs.shifts)
    return LCAOSystem(atoms, (), PairBlocks(pairs, system.basis, system.overlap.values))


def mixed(system: LCAOSystem, matrix: np.ndarray) -> LCAOSystem:
    """The orbitals of every atom mixed; of one element."""
    ((_, rows, stack),) = system.overlap.groups()
    values = np.empty_like(system.overlap.values)
    values[system.overlap.index(rows)] = matrix @ stack @ matrix.T
    return LCAOSystem(system.atoms, (), system.overlap.with_values(values))


@pytest.mark.parametrize("name", SAMPLES)
def test_openmx_fits_to_its_rounding(sample, name):
    found = finding(with_functions(sample(name)))
    assert found.verdict == "ok"
    assert 1e-12 < found.figure < 1e-9  # on the atoms OpenMX is off by so much


def test_single_precision_fits(sample):
    found = finding(with_functions(sample("003")))
    assert found.verdict == "ok"
    assert 1e-9 < found.figure < 1e-7


def test_it_is_one_of_the_checks_and_skipped_without_functions(sample):
    assert check_system(with_functions(sample("graphene")))[FROM_BASIS].verdict == "ok"
    without = check_system(sample("graphene"))[FROM_BASIS]
    assert (without.verdict, without.message) == ("skipped", "no radial functions of C; --basis-dir DIR gives them")


def test_functions_of_another_file_are_named(sample):
    carbon, oxygen = openmx_basis("C")["C"], openmx_basis("O")["O"]
    wrong = AtomBasis("C", oxygen.shells, 4, carbon.cutoff)
    for name, who in {"graphene": "of C are", "CH4_molecule": "of C are"}.items():
        basis = Basis.of(*(wrong if s == "C" else openmx_basis(s)[s] for s in sample(name).basis.atoms))
        found = finding(with_functions(sample(name), basis))
        assert (found.verdict, found.figure > 0.1) == ("failed", True)
        assert f"the radial functions {who} not those of the calculation" in found.message


def test_functions_of_a_smaller_radius_are_too_short(sample):
    shells = []
    for shell in openmx_basis("C")["C"].shells:
        radial = shell.radial  # as C5.0 would be: the same on a mesh that ends sooner
        shorter = replace(radial, mesh=radial.mesh * 5 / 6, values=radial.values * 1.2**1.5, cutoff=5.0)
        shells.append(replace(shell, radial=shorter))
    found = finding(with_functions(sample("graphene"), Basis.of(AtomBasis("C", tuple(shells), 4, 3.175))))
    assert found.verdict == "failed"
    assert "S of C-C reaches 5.681 A, the functions 5.292 A" in found.message
    assert "--basis" in found.advice


def test_moved_and_wrapped_atoms_are_told_from_wrong_functions(sample):
    system = with_functions(sample("bilayer_graphene_AB"))
    for step in ([1e-3, 0, 0], system.atoms.cell[0]):
        atoms = system.atoms.copy()
        atoms.positions[1] += step
        found = finding(moved(system, atoms))
        assert found.verdict == "failed"
        assert "the on-site blocks fit, the hoppings point elsewhere" in found.message


def test_a_scaled_lattice_is_named(sample):
    system = with_functions(sample("graphene"))
    atoms = system.atoms.copy()
    atoms.set_cell(1.01 * atoms.cell, scale_atoms=True)
    assert "all lengths are scaled, or the radial functions" in finding(moved(system, atoms)).message


def test_exchanged_shells_and_signs_are_named(sample):
    system = with_functions(sample("graphene"))
    exchange, sign = np.eye(13)[[1, 0, *range(2, 13)]], np.diag([1.0] * 5 + [-1.0] * 3 + [1.0] * 5)
    assert "it fits if C s1 and C s2 are exchanged" in finding(mixed(system, exchange)).message
    assert "it fits if C p2 has the other sign" in finding(mixed(system, sign)).message


def test_another_order_of_m_points_elsewhere(sample):
    order = [0, 1, 4, 2, 3, 7, 5, 6, 8, 9, 10, 11, 12]
    found = finding(mixed(with_functions(sample("graphene")), np.eye(13)[order]))
    assert found.verdict == "failed"
    assert "the hoppings point elsewhere" in found.message


def test_numbers_that_are_not_finite_are_no_traceback(sample):
    system = with_functions(sample("graphene"))
    values = system.overlap.values.copy()
    values[7] = np.nan
    assert finding(LCAOSystem(system.atoms, (), system.overlap.with_values(values))).verdict == "skipped"


def test_functions_of_two_programs_are_a_finding(sample):
    """Not an error: other structures are still checked."""
    system = sample("graphene")
    (first, *others) = openmx_basis("C")["C"].shells
    shells = (replace(first, radial=replace(first.radial, rule="siesta")), *others)
    found = finding(with_functions(system, Basis.of(replace(openmx_basis("C")["C"], shells=shells))))
    assert (found.verdict, found.figure) == ("failed", None)
    assert "expected radial functions of one origin" in found.message
