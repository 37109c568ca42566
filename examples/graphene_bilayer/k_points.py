"""How far H of one crystal depends on the cell it is computed in: what no network can learn.

    python k_points.py            # OpenMX, see docs/openmx.md; four minutes of one core

AA-stacked graphene in its own cell and in supercells, each with the k-points that cells of its size have in the data of
the model graphene-bilayer, and with more. Prints the mean |dH| of the pairs of the first atom, of its on-site block,
and the shift mu in mu S, all against the first row, in meV.
"""

import numpy as np
from ase import Atoms
from ase.build import graphene, make_supercell

from ase_hybridham.scf import OpenMXEngine
from ase_hybridham.system import LCAOSystem

CELLS = {
    "4 atoms, 9 x 9": ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], (9, 9, 1)),
    "8 atoms, 9 x 5": ([[1, 0, 0], [1, 2, 0], [0, 0, 1]], (9, 5, 1)),
    "12 atoms, 5 x 5": ([[2, 1, 0], [1, 2, 0], [0, 0, 1]], (5, 5, 1)),
    "4 atoms, 12 x 12": ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], (12, 12, 1)),
    "4 atoms, 18 x 18": ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], (18, 18, 1)),
}


def bilayer() -> Atoms:
    """Both layers above each other, 3.35 A apart, in a cell 16 A high."""
    layer = graphene(a=2.46, vacuum=6.325)
    upper = layer.copy()
    upper.positions[:, 2] += 3.35
    atoms = layer + upper
    atoms.set_cell([*layer.cell.lengths()[:2], 16.0, 90, 90, 120])
    atoms.center(axis=2)
    atoms.pbc = (True, True, False)
    return atoms


def blocks(system: LCAOSystem) -> dict[tuple[float, ...], tuple[np.ndarray, np.ndarray]]:
    """Bond vector -> H and S, of the pairs of the first atom."""
    of_first = np.flatnonzero(system.pairs.i == 0)
    vectors = np.round(system.pairs.vectors[of_first], 2) + 0.0
    both = (system.hamiltonian[0], system.overlap)
    return {
        tuple(vector): tuple(matrix.values[matrix.offsets[n] : matrix.offsets[n + 1]] for matrix in both)
        for vector, n in zip(vectors, of_first, strict=True)
    }


def main() -> None:
    first = None
    for name, (matrix, kpts) in CELLS.items():
        engine = OpenMXEngine(basis="C6.0-s2p2d1", energy_cutoff=150, temperature=600, kpts=kpts)
        found = blocks(engine.run(make_supercell(bilayer(), matrix)))
        first = first or found
        same = [vector for vector in found if vector in first]
        change = np.concatenate([found[vector][0] - first[vector][0] for vector in same])
        overlap = np.concatenate([first[vector][1] for vector in same])
        onsite = found[0.0, 0.0, 0.0][0] - first[0.0, 0.0, 0.0][0]
        mu = change @ overlap / (overlap @ overlap)
        print(
            f"{name:18s} {len(same):3d} pairs  H {1e3 * np.abs(change).mean():.3f}  "
            f"on-site {1e3 * np.abs(onsite).mean():.2f}  shift {1e3 * mu:+.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
