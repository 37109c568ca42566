"""Generators of rotations: what a turn by a small angle does to orbitals, D(1 + w x) = 1 + w.G.

Real and antisymmetric for orbitals, anti-Hermitian with spin. Letters: w rotation vector in radian, x its axes.
"""

from collections.abc import Iterable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

from ase_hybridham.symmetry.spinor import UNITS
from ase_hybridham.symmetry.wigner import wigner_D

__all__ = ["orbital_generators", "rotation_generators"]

# the turn by 120 degrees that takes x to y, y to z and z to x
CYCLIC = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


@cache
def rotation_generators(l: int) -> NDArray[np.float64]:
    """Derivatives of `wigner_D` by the angles of turns about x, y and z at angle zero.

    Parameters
    ----------
    l : int
        Degree.

    Returns
    -------
    array, shape (3, 2l+1, 2l+1), read-only
        G with D_l(rotation by vector w) = exp(w.G); antisymmetric.
    """
    # a turn about z adds to the azimuth: d/da cos(m(phi+a)) = -m sin(m(phi+a)), and the other axes by symmetry
    about_z = -np.diag(np.arange(-l, l + 1.0))[:, ::-1]
    D = wigner_D(l, CYCLIC)
    about_x = D @ about_z @ D.T
    out = np.stack([about_x, D @ about_x @ D.T, about_z])
    out.flags.writeable = False
    return out


def orbital_generators(degrees: Iterable[int], *, spinor: bool = False) -> NDArray:
    """Generators of `orbital_rotation`: how the orbitals of an atom turn.

    Parameters
    ----------
    degrees : iterable of int
        l of its shells.
    spinor : bool
        Whether orbitals carry a spin; then the generators of the spin, -i s_x / 2, are added, spin-major.

    Returns
    -------
    array, shape (3, n, n), or (3, 2 n, 2 n) and complex for spinors
    """
    shells = [rotation_generators(l) for l in degrees]
    orbital = np.stack([block_diag(*(G[x] for G in shells)) for x in range(3)])
    if not spinor:
        return orbital
    unit = np.eye(orbital.shape[1])
    return np.stack([np.kron(np.eye(2), G) + np.kron(-0.5 * S, unit) for G, S in zip(orbital, UNITS[1:], strict=True)])
