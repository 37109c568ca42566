"""By how much atoms stand elsewhere than S says: displacements that make it a two-center integral again.

Gauss-Newton on the residual of `covariance`: every bond turns with its two atoms and the lattice. A scale of the
whole structure and a common translation do not show.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_hybridham.check.covariance import Bonds, relative_residual
from ase_hybridham.system import PairList

__all__ = ["Displacements", "fit_displacements"]

MOST_ATOMS = 300
STEPS = 4
DIFFERENCE = 1e-4  # of the length of a bond, for derivatives


@dataclass(frozen=True, eq=False)
class Displacements:
    """What S says of the positions.

    Parameters
    ----------
    vectors : array, shape (n_bonds, 3)
        Change of every bond vector, angstrom.
    atoms : array, shape (n_atoms, 3)
        Displacement of every atom, most of them near 0, angstrom.
    before, after : float
        Relative residual.
    """

    vectors: NDArray[np.float64]
    atoms: NDArray[np.float64]
    before: float
    after: float


def fit_displacements(bonds: Sequence[Bonds], pairs: PairList, atoms: Atoms) -> Displacements | None:
    """Displacements of the atoms and a change of the lattice that leave the least of S; None for too many atoms."""
    n = pairs.n_atoms
    if n > MOST_ATOMS or not bonds:
        return None
    rows = np.concatenate([b.rows for b in bonds])
    place = np.arange(len(rows))
    # change of a bond vector = design @ (displacements, change of the lattice), the same for x, y and z
    design = np.zeros((len(rows), n + 3))
    np.add.at(design, (place, pairs.j[rows]), 1.0)
    np.add.at(design, (place, pairs.i[rows]), -1.0)
    design[:, n:] = pairs.shifts[rows]
    change = np.zeros((n + 3, 3))
    moved = list(bonds)
    for _ in range(STEPS):
        curvature, slope = _normal_equations(moved)
        A = np.einsum("bu,bxy,bv->uxvy", design, curvature, design, optimize=True).reshape(3 * (n + 3), -1)
        g = np.einsum("bu,bx->ux", design, slope).ravel()
        change -= np.linalg.lstsq(A, g, rcond=1e-8)[0].reshape(n + 3, 3)
        step = np.split(design @ change, np.cumsum([len(b.rows) for b in bonds])[:-1])
        moved = [replace(b, vectors=b.vectors + s) for b, s in zip(bonds, step, strict=True)]
    shift = change[:n] - np.median(change[:n], axis=0)
    return Displacements(design @ change, shift, relative_residual(bonds), relative_residual(moved))


def _normal_equations(bonds: Sequence[Bonds]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """J^T J and J^T r of the residual of every bond by its vector, shapes (n_bonds, 3, 3) and (n_bonds, 3)."""
    curvature, slope = [], []
    for b in bonds:
        h = DIFFERENCE * np.linalg.norm(b.vectors, axis=1)[:, None]
        J = np.stack(
            [
                (replace(b, vectors=b.vectors + h * e).residual() - replace(b, vectors=b.vectors - h * e).residual())
                / (2 * h)
                for e in np.eye(3)
            ],
            axis=-1,
        )
        curvature.append(np.einsum("bcx,bcy->bxy", J, J))
        slope.append(np.einsum("bcx,bc->bx", J, b.residual()))
    return np.concatenate(curvature), np.concatenate(slope)
