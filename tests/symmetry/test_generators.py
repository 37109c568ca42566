"""Generators: finite rotations are their exponentials."""

import numpy as np
import pytest
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from ase_hybridham.symmetry import orbital_generators, orbital_rotation, rotation_generators, wigner_D

ROTVECS = [(0.4, -0.3, 0.9), (-1.1, 0.2, 0.5), (0.0, 2.0, 0.0)]


@pytest.mark.parametrize("l", range(7))
@pytest.mark.parametrize("rotvec", ROTVECS)
def test_rotations_are_their_exponentials(l, rotvec):
    D = wigner_D(l, Rotation.from_rotvec(rotvec).as_matrix())
    np.testing.assert_allclose(expm(np.tensordot(rotvec, rotation_generators(l), 1)), D, atol=1e-13)
    assert l == 0 or np.abs(D - np.eye(2 * l + 1)).max() > 0.1


@pytest.mark.parametrize("spinor", [False, True])
@pytest.mark.parametrize("rotvec", ROTVECS)
def test_orbitals_of_an_atom_turn_with_their_spin(rotvec, spinor):
    """By less than half a turn, where of +-U of the spin `orbital_rotation` takes that of the exponential."""
    degrees = [0, 1, 1, 3]
    D = orbital_rotation(degrees, Rotation.from_rotvec(rotvec).as_matrix(), spinor=spinor)
    generators = orbital_generators(degrees, spinor=spinor)
    assert generators.shape == (3, *D.shape)
    np.testing.assert_allclose(expm(np.tensordot(rotvec, generators, 1)), D, atol=1e-13)
