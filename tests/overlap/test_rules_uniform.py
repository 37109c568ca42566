"""SIESTA's and ABACUS's rules against closed forms: samples of Gaussians give what the Gaussians give."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms

from ase_hybridham.errors import OverlapError
from ase_hybridham.overlap import overlap_from_basis
from ase_hybridham.overlap.rules import RULES
from ase_hybridham.overlap.rules_gaussian import contraction
from ase_hybridham.system import AtomBasis, Basis, GaussianRadial, SampledRadial, Shell

BOHR = GaussianRadial.bohr
# wide enough for meshes of 0.02 to 0.03 bohr, narrow enough to end at 8 bohr: e^(-0.5 64) = 1e-14
EXPONENTS = {"C": [0.5, 0.9, 0.6, 0.8, 0.7], "O": [1.2, 0.55, 0.75]}
DEGREES = {"C": [0, 0, 1, 2, 3], "O": [0, 1, 2]}
STEPS = {"siesta": 8 / 499, "abacus": 0.01}
# splines between samples: found 3e-9; ABACUS reads at its samples: found 4e-13
TOLERANCE = {"siesta": 1e-8, "abacus": 1e-12}


def gaussians(symbol: str) -> AtomBasis:
    shells = [
        Shell(l, radial=GaussianRadial((a, 2 * a), (1.0, 0.3)))
        for l, a in zip(DEGREES[symbol], EXPONENTS[symbol], strict=True)
    ]
    return AtomBasis(symbol, tuple(shells), cutoff=8 * BOHR)


def sampled(shell: Shell, rule: str) -> Shell:
    r = STEPS[rule] * np.arange(round(8 / STEPS[rule]) + 1)
    values = r**shell.l * (contraction(shell) @ np.exp(-np.outer(shell.radial.exponents, r**2)))
    return replace(shell, radial=SampledRadial(r, values, r[-1], rule, BOHR))


def bases(rule: str) -> tuple[Basis, Basis]:
    atoms = [gaussians(symbol) for symbol in DEGREES]
    copies = [replace(atom, shells=tuple(sampled(shell, rule) for shell in atom.shells)) for atom in atoms]
    return Basis.of(*atoms), Basis.of(*copies)


@pytest.mark.parametrize("rule", STEPS)
def test_samples_of_gaussians_have_their_overlap(rule):
    rng = np.random.default_rng(0)
    atoms = Atoms("COCO", rng.uniform(0, 5, size=(4, 3)), cell=[5, 6, 7], pbc=[True, False, False])
    exact, samples = bases(rule)
    expected = overlap_from_basis(atoms, exact, accuracy=0)
    found = overlap_from_basis(atoms, samples, expected.pairs, accuracy=0)
    assert len(expected.pairs) > 20
    np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=TOLERANCE[rule])


@pytest.mark.parametrize("rule", STEPS)
@pytest.mark.parametrize("power", [0, 1])
def test_transforms_are_those_of_gaussians(rule, power):
    """With a power of r, l is that of the shell or next to it: <i|r|j>."""
    exact, samples = (basis["C"].shells for basis in bases(rule))
    degrees = [shell.l + power for shell in exact]
    quadrature = RULES[rule].quadrature(samples, 16.0)
    expected = RULES["gaussian"].transform(exact, degrees, power, quadrature)
    found = RULES[rule].transform(samples, degrees, power, quadrature)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(found, expected, rtol=0, atol=10 * TOLERANCE[rule])


@pytest.mark.parametrize("rule", STEPS)
def test_tables_keep_the_accuracy(rule):
    _, samples = bases(rule)
    atoms = Atoms("CO", [[0, 0, 0], [0.3, 1.1, 0.9]], cell=[3, 3, 9], pbc=[True, True, False])
    plain = overlap_from_basis(atoms, samples, accuracy=0)
    tables = overlap_from_basis(atoms, samples, plain.pairs, accuracy=1e-8)
    assert 0 < np.abs(tables.values - plain.values).max() < 1e-8


@pytest.mark.parametrize("rule", STEPS)
def test_samples_that_end_before_the_cutoff_radius_are_refused(rule):
    """A spline goes on to 1e17 there."""
    oxygen = bases(rule)[1]["O"]
    longer = tuple(replace(shell, radial=replace(shell.radial, cutoff=99.0)) for shell in oxygen.shells)
    with pytest.raises(OverlapError, match="expected samples up to 99 bohr, got them up to 8; attach the basis files"):
        overlap_from_basis(Atoms("O"), Basis.of(replace(oxygen, shells=longer)))
