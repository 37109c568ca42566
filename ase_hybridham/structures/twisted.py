"""Twisted bilayers of graphene whose two lattices have a common cell."""

from math import atan2, degrees, gcd, sqrt

import numpy as np
from ase import Atoms
from ase.build import make_supercell

from ase_hybridham.structures.sampling import LATTICE_CONSTANT

__all__ = ["twisted_bilayer"]


def twisted_bilayer(m: int, n: int, *, spacing: float = 3.35, height: float = 16.0) -> Atoms:
    """The common cell of two ideal layers, one turned until n b1 + m b2 of one is m b1 + n b2 of the other.

    b1 and b2 are lattice vectors at 60 degrees. The cosine of the angle is (m^2 + 4mn + n^2) / 2(m^2 + mn + n^2): 21.8
    degrees for (1, 2), 13.2 for (2, 3). There are 4 (m^2 + mn + n^2) atoms, two of them above each other at the origin.

    Parameters
    ----------
    m, n : int
        0 < m < n, without a common divisor.
    spacing, height : float
        Distance of the layers and height of the cell, angstrom.

    Returns
    -------
    ase.Atoms
        pbc (True, True, False), in the middle of the cell.

    Raises
    ------
    ValueError
        If m and n are others.
    """
    if not 0 < m < n or gcd(m, n) > 1:
        raise ValueError(f"twisted bilayer: expected 0 < m < n without a common divisor, got {m} and {n}")
    b1, b2 = LATTICE_CONSTANT * np.array([[1.0, 0.0, 0.0], [0.5, sqrt(0.75), 0.0]])
    layer = Atoms("C2", [np.zeros(3), (b1 + b2) / 3], cell=[b1, b2, [0.0, 0.0, height]], pbc=(True, True, False))
    bilayer = Atoms()
    for (p, q), z in zip(((n, m), (m, n)), (-0.5, 0.5), strict=True):
        # the second vector is the first one turned by 120 degrees
        turned = make_supercell(layer, [[p, q, 0], [-p - q, p, 0], [0, 0, 1]])
        turned.rotate(-degrees(atan2(sqrt(0.75) * q, p + 0.5 * q)), "z", rotate_cell=True)
        turned.translate((0.0, 0.0, 0.5 * height + z * spacing))
        bilayer = turned if not len(bilayer) else bilayer + turned
    return bilayer
