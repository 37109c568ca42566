"""Overlaps of Gaussian shells: against PySCF's lattice sums, under rotation, and for large cells."""

import numpy as np
import pytest
from ase import Atoms
from scipy.spatial.transform import Rotation
from scipy.special import spherical_jn

from ase_hybridham.errors import OverlapError
from ase_hybridham.overlap import overlap_from_basis
from ase_hybridham.overlap.rules_gaussian import GAUSSIAN, GaussianIntegrals, contraction
from ase_hybridham.overlap.twocenter import RadialIntegrals
from ase_hybridham.scf.gth import gaussian_shells
from ase_hybridham.solve import BlochSum
from ase_hybridham.symmetry import rotate_blocks
from ase_hybridham.system import AtomBasis, Basis, GaussianRadial, PairList, Shell, orbital_order

pyscf_gto = pytest.importorskip("pyscf.pbc.gto")


def shell(l: int, *exponents: float) -> Shell:
    coefficients = tuple((-0.5) ** n + 0.1 * l for n in range(len(exponents)))
    return Shell(l, radial=GaussianRadial(exponents, coefficients))


# Shells out of order in l, a contraction of negative lobes, f orbitals; every exponent large enough for the cutoffs.
BASIS = Basis.of(
    AtomBasis("C", (shell(1, 1.5, 0.6), shell(0, 2.0, 0.7, 0.5), shell(2, 0.8)), cutoff=3.6),
    AtomBasis("Mo", (shell(0, 0.9), shell(3, 0.9, 0.7), shell(0, 0.6, 1.3), shell(1, 0.8)), cutoff=3.6),
)


def structure(seed: int, pbc: tuple[bool, bool, bool], n_atoms: int = 4) -> Atoms:
    rng = np.random.default_rng(seed)
    cell = np.diag([3.1, 3.6, 9.5]) + rng.normal(scale=0.3, size=(3, 3))
    positions = rng.uniform(-0.4, 1.3, size=(n_atoms, 3)) * [1, 1, 0.3] @ cell
    return Atoms(["C", "Mo"] * (n_atoms // 2), positions, cell=cell, pbc=pbc)


@pytest.mark.parametrize("pbc", [(True, True, False), (True, True, True), (False, False, False)])
def test_bloch_sums_are_the_lattice_sums_of_pyscf(pbc):
    from pyscf.data.nist import BOHR

    atoms = structure(0, pbc)
    k_points = np.random.default_rng(1).uniform(-0.5, 0.5, size=(3, 3)) * pbc
    cell = pyscf_gto.Cell()
    lattice = atoms.cell.array.copy()
    lattice[~np.array(pbc)] *= 4  # no images where the structure has none
    cell.build(
        dump_input=False,
        parse_arg=False,
        verbose=0,
        unit="bohr",
        a=lattice / BOHR * np.sign(np.linalg.det(lattice)),
        atom=[[s, r / BOHR] for s, r in zip(atoms.get_chemical_symbols(), atoms.positions, strict=True)],
        basis={atom.symbol: gaussian_shells(atom) for atom in BASIS.atoms.values()},
        precision=1e-12,
        ke_cutoff=20,
        spin=None,
    )
    theirs = np.array(cell.pbc_intor("int1e_ovlp", kpts=cell.get_abs_kpts(k_points)))
    order = []
    for symbol in atoms.get_chemical_symbols():
        index, _ = orbital_order("pyscf", BASIS[symbol].degrees)
        # a Cell sorts the shells of an atom by l
        sorted_shells = np.argsort(BASIS[symbol].degrees, kind="stable")
        given = np.concatenate([np.arange(BASIS[symbol].size)[BASIS[symbol].slices[n]] for n in sorted_shells])
        order.extend(len(order) + np.argsort(given)[index])
    ours = BlochSum(overlap_from_basis(atoms, BASIS)).dense(k_points)
    assert np.abs(ours - np.eye(len(order))).max() > 0.1
    np.testing.assert_allclose(ours, theirs[:, order][:, :, order], atol=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_overlaps_turn_with_the_structure(seed):
    atoms = structure(seed, (True, True, False))
    rotation = Rotation.random(random_state=seed).as_matrix()
    turned = Atoms(atoms.numbers, atoms.positions @ rotation.T, cell=atoms.cell.array @ rotation.T, pbc=atoms.pbc)
    before, after = overlap_from_basis(atoms, BASIS), overlap_from_basis(turned, BASIS)
    assert np.abs(before.values - after.values).max() > 0.1
    np.testing.assert_allclose(after.values, rotate_blocks(before, rotation).values, atol=1e-12)


def test_every_orbital_is_normalized_and_overlaps_are_symmetric():
    overlap = overlap_from_basis(structure(3, (True, False, True)), BASIS)
    for p in range(overlap.pairs.n_atoms):
        np.testing.assert_allclose(np.diag(overlap.block(p)), 1, atol=1e-12)
    assert overlap.hermiticity_error() < 1e-13


def test_cells_larger_than_a_batch_hold_the_pairs_of_their_units():
    unit = structure(4, (True, True, False))
    few, many = overlap_from_basis(unit, BASIS), overlap_from_basis(unit * (4, 4, 1), BASIS)
    assert many.pairs.n_atoms == 64
    np.testing.assert_allclose(np.sort(many.values), np.sort(np.tile(few.values, 16)), atol=1e-13)


def test_overlaps_stand_on_the_pairs_given():
    atoms = structure(5, (True, True, False))
    pairs = PairList.from_atoms(atoms, 3.0)
    overlap = overlap_from_basis(atoms, BASIS, pairs)
    assert overlap.pairs is pairs
    np.testing.assert_allclose(overlap.values, overlap_from_basis(atoms, BASIS).on_pairs(pairs).values, atol=1e-14)


NAMED = ["sto-3g", "gth-dzvp-molopt-sr", "gth-tzv2p", "cc-pvtz", "cc-pvqz"]


def named_basis(name: str) -> Basis:
    """A basis that PySCF knows; contractions that share exponents become shells of their own."""
    atoms = []
    for symbol in ("H", "C", "O"):
        shells = []
        for l, *primitives in pyscf_gto.basis.load(name, symbol):
            for n in range(1, len(primitives[0])):
                used = [(row[0], row[n]) for row in primitives if row[n]]
                shells.append(Shell(l, radial=GaussianRadial(*zip(*used, strict=True))))
        atoms.append(AtomBasis(symbol, tuple(shells), cutoff=9.0))
    return Basis.of(*atoms)


@pytest.mark.parametrize("name", NAMED)
def test_overlaps_of_named_bases_are_those_of_pyscf(name):
    from pyscf import gto
    from pyscf.data.nist import BOHR

    basis = named_basis(name)
    atoms = Atoms("COHHCH", np.random.default_rng(0).normal(scale=1.6, size=(6, 3)))
    molecule = gto.M(
        atom=[[s, r / BOHR] for s, r in zip(atoms.symbols, atoms.positions, strict=True)],
        unit="bohr",
        basis={symbol: gaussian_shells(atom) for symbol, atom in basis.atoms.items()},
        verbose=0,
        spin=None,
    )
    theirs, order = molecule.intor("int1e_ovlp"), []
    for symbol in atoms.symbols:
        assert list(basis[symbol].degrees) == sorted(basis[symbol].degrees)
        order.extend(len(order) + np.array(orbital_order("pyscf", basis[symbol].degrees)[0]))
    for accuracy, allowed in [(0, 1e-13), (None, 2e-11)]:
        ours = BlochSum(overlap_from_basis(atoms, basis, accuracy=accuracy)).dense(np.zeros((1, 3)))[0]
        np.testing.assert_allclose(ours, theirs[np.ix_(order, order)], atol=allowed)


def test_closed_forms_are_the_integrals_over_k():
    """All channels up to two f or g shells, and their slopes."""
    g = AtomBasis("O", (shell(4, 0.9, 2.5), shell(1, 12.0, 0.5), shell(3, 0.8), shell(0, 0.2), shell(2, 3.0)))
    d = np.concatenate([[0.0, 1e-6, 1e-3], np.linspace(0.05, 35, 60)])
    for second in (g, BASIS["C"], BASIS["Mo"]):
        closed, summed = GaussianIntegrals(g, second), RadialIntegrals.of_atoms(g, second)
        assert closed.channels == summed.channels
        for ours, expected in zip(closed.with_slopes(d), summed.with_slopes(d), strict=True):
            assert np.abs(ours).max() > 0.1
            np.testing.assert_allclose(ours, expected, atol=1e-13)


@pytest.mark.parametrize(("power", "step"), [(0, 0), (1, 1), (1, -1), (2, 0)])
def test_transforms_are_the_integrals_over_r(power, step):
    shells = [shell(l, 0.7, 2.0) for l in range(1, 5)]
    quadrature = GAUSSIAN.quadrature(shells, 10.0)
    found = GAUSSIAN.transform(shells, [s.l + step for s in shells], power, quadrature)
    r, weights = np.polynomial.legendre.leggauss(400)
    r, weights = 6 * (r + 1), 6 * weights
    for F, s in zip(found, shells, strict=True):
        radial = sum(c * r**s.l * np.exp(-a * r**2) for a, c in zip(s.radial.exponents, contraction(s), strict=True))
        assert weights @ (radial * r) ** 2 == pytest.approx(1, abs=1e-12)
        bessel = spherical_jn(s.l + step, np.outer(quadrature.points, r))
        np.testing.assert_allclose(F, bessel @ (weights * radial * r ** (2 + power)), atol=1e-13)


def test_transforms_that_are_not_gaussian_are_refused():
    one = [shell(1, 0.7)]
    with pytest.raises(ValueError, match=r"expected L = l \+ power - 2n, got 1 of 1 \+ 1"):
        GAUSSIAN.transform(one, [1], 1, GAUSSIAN.quadrature(one, 10.0))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (GaussianRadial((1e13,), (1.0,)), r"expected exponents of 1e-06 to 1e\+12 bohr"),
        (GaussianRadial((1.0, 1e-9), (1.0, 1.0)), "got 1e-09 to 1;"),
        (GaussianRadial((1.0, 1.0), (1.0, -1.0)), "the Gaussians of shell 2p cancel; check the basis"),
        (GaussianRadial((1.0, 2.0), (1.0, 1e308)), "the Gaussians of shell 2p cancel; check the basis"),
        # what rounding leaves of it is no function
        (GaussianRadial((5.6, 5.6, 0.3), (1.0, -1.0, 1e-300)), "the Gaussians of shell 2p cancel; check the basis"),
        (GaussianRadial((5.6, 5.6 + 1e-7), (1.0, -1.0)), "the Gaussians of shell 2p cancel; check the basis"),
        (GaussianRadial((1.0,) * 10**6, (1.0,) * 10**6), "expected at most 200 Gaussians a shell, got 1000000"),
    ],
)
def test_gaussians_that_are_none_are_refused(wrong, message):
    atom = AtomBasis("C", (Shell(1, "2p", wrong),), cutoff=3.0)
    with pytest.raises(OverlapError, match=message):
        overlap_from_basis(Atoms("C"), Basis.of(atom))


def test_exponents_too_far_apart_for_a_sum_over_k_are_refused():
    with pytest.raises(OverlapError, match=r"expected exponents within .* of each other, got 0.1 to 1e\+07"):
        GAUSSIAN.quadrature([shell(0, 1e7, 0.1)], 10.0)


def test_two_s_gaussians_overlap_as_the_closed_form_says():
    from pyscf.data.nist import BOHR

    distance, a, b = 2.3, 0.4, 1.1
    basis = Basis.of(AtomBasis("C", (shell(0, a),), cutoff=5.0), AtomBasis("N", (shell(0, b),), cutoff=5.0))
    overlap = overlap_from_basis(Atoms("CN", [[0, 0, 0], [0, distance * BOHR, 0]]), basis)
    expected = (2 * np.sqrt(a * b) / (a + b)) ** 1.5 * np.exp(-a * b / (a + b) * distance**2)
    np.testing.assert_allclose(overlap.block(2), [[expected]], rtol=1e-12)


def test_a_basis_without_radial_functions_is_refused_with_the_remedies():
    basis = Basis.of(AtomBasis.from_degrees("C", [0, 1], cutoff=3.0))
    with pytest.raises(OverlapError, match=r"shell 0 of C has no radial function; .*basis files"):
        overlap_from_basis(Atoms("C"), basis)


def test_an_element_outside_the_basis_is_named():
    with pytest.raises(ValueError, match="no element O, only C, Mo"):
        overlap_from_basis(Atoms("CO", [[0, 0, 0], [0, 0, 1.1]]), BASIS)
