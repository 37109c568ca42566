"""Twisted bilayers: angle, number of atoms, two perfect layers."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

import ase_hybridham
from ase_hybridham.structures import twisted_bilayer
from ase_hybridham.system import PairList

SHIPPED = Path(ase_hybridham.__file__).parent / "data/twisted_bilayer.json"


def bond_angle(atoms: Atoms, atom: int) -> float:
    """Direction of the bonds of an atom in the plane, degrees modulo 120."""
    pairs = PairList.from_atoms(atoms, 1.6)
    x, y, _ = pairs.vectors[(pairs.i == atom) & (pairs.distances > 0)].T
    found = np.degrees(np.arctan2(y, x)) % 120
    assert np.ptp((found - found[0] + 60) % 120) < 1e-6
    return float(found[0])


@pytest.mark.parametrize(("m", "n", "angle"), [(1, 2, 21.787), (2, 3, 13.174), (1, 3, 32.204), (1, 4, 38.213)])
def test_two_perfect_layers_at_the_angle(m, n, angle):
    atoms = twisted_bilayer(m, n, spacing=3.4, height=20.0)
    z = atoms.positions[:, 2]
    assert len(atoms) == 4 * (m**2 + m * n + n**2)
    np.testing.assert_allclose(np.unique(z.round(9)), [8.3, 11.7])
    assert (z < 10).sum() == len(atoms) / 2
    pairs = PairList.from_atoms(atoms, 1.6)
    np.testing.assert_allclose(pairs.distances[pairs.hopping], 2.46 / np.sqrt(3))
    assert (np.bincount(pairs.i) == 4).all()  # itself and three neighbors
    lengths, angles = atoms.cell.lengths(), atoms.cell.angles()
    np.testing.assert_allclose(lengths[:2], 2.46 * np.sqrt(m**2 + m * n + n**2))
    np.testing.assert_allclose(angles, [90, 90, 120])
    turn = bond_angle(atoms, 0) - bond_angle(atoms, int(np.argmax(z > 10)))
    assert min(turn % 120, -turn % 120) == pytest.approx(angle, abs=1e-3)


def test_it_is_the_structure_that_openmx_has_computed():
    """Up to the order of the atoms and a mirror."""
    shipped = json.loads(SHIPPED.read_text())
    theirs = Atoms(shipped["numbers"], shipped["positions"], cell=shipped["cell"], pbc=(True, True, False))
    ours = twisted_bilayer(1, 2)
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(ours.cell.array, theirs.cell.array, atol=1e-6)
    one, other = (np.sort(PairList.from_atoms(atoms, 5.0).distances) for atoms in (ours, theirs))
    np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(("m", "n"), [(2, 1), (1, 1), (0, 1), (2, 4), (-1, 2)])
def test_others_are_refused(m, n):
    with pytest.raises(ValueError, match="expected 0 < m < n without a common divisor"):
        twisted_bilayer(m, n)
