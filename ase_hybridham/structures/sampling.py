"""Random structures around a crystal, for training sets: strained, sheared, displaced, layers shifted.

Displacements of a primitive cell repeat with the lattice, so that atoms two apart always move
together; a network trained on them alone fails where they do not. `repeat` makes cells whose
atoms move independently. Repeated cells of one lattice can share one set of k-points, folded; a
rectangular cell cannot, and a coarse k-mesh then gives it other on-site energies (by 27 meV
where the primitive cell has 4 x 4).
"""

import numpy as np
from ase import Atoms

__all__ = ["random_graphene"]

LATTICE_CONSTANT = 2.46


def random_graphene(
    rng: np.random.Generator,
    layers: int = 1,
    *,
    repeat: tuple[int, int] = (1, 1),
    strain: float = 0.01,
    displacement: float = 0.03,
    spacing: tuple[float, float] = (3.2, 3.6),
    height: float = 12.0,
) -> Atoms:
    """A strained and displaced graphene layer, or several of random lateral shift.

    Parameters
    ----------
    rng : numpy Generator
    layers : int
        Each above the last by a random distance within `spacing`, shifted by a random vector.
    repeat : tuple of 2 int
        Cells along the two lattice vectors, before atoms are displaced.
    strain : float
        Each component of the in-plane strain is uniform within plus and minus this.
    displacement : float
        Standard deviation of every coordinate, angstrom.
    spacing : tuple of 2 float
        Angstrom.
    height : float
        Height of the cell, angstrom; the atoms stand in its middle.

    Returns
    -------
    ase.Atoms
        pbc (True, True, False).
    """
    a = LATTICE_CONSTANT
    lattice = np.array([[a, 0], [-a / 2, np.sqrt(3) / 2 * a]])
    scaled = np.array([[0, 0], [1 / 3, 2 / 3]])
    n1, n2 = repeat
    cells = np.array([[m, n] for m in range(n1) for n in range(n2)])
    scaled = (cells[:, None] + scaled).reshape(-1, 2) / repeat
    deformation = rng.uniform(-strain, strain, size=(2, 2))
    lattice = (lattice * np.array(repeat)[:, None]) @ (np.eye(2) + 0.5 * (deformation + deformation.T))

    heights = np.cumsum(rng.uniform(*spacing, size=layers))
    shifts = rng.uniform(size=(layers, 2)) @ lattice
    flat = scaled @ lattice + shifts[:, None]
    positions = np.concatenate([flat, np.broadcast_to(heights[:, None, None], (*flat.shape[:2], 1))], axis=2)
    positions = positions.reshape(-1, 3) + rng.normal(scale=displacement, size=(layers * len(scaled), 3))
    positions[:, 2] += 0.5 * (height - positions[:, 2].min() - positions[:, 2].max())
    cell = np.zeros((3, 3))
    cell[:2, :2], cell[2, 2] = lattice, height
    return Atoms(f"C{len(positions)}", positions, cell=cell, pbc=(True, True, False))
