"""Rigid twisted bilayers of graphene, of any size."""

from ase import Atoms
from ase.build import graphene, make_supercell

LATTICE, INTERLAYER = 2.46, 3.35  # angstrom


def twisted_bilayer(i: int) -> Atoms:
    """The rigid commensurate bilayer number i, of 4 (3 i^2 + 3 i + 1) atoms."""
    layers = []
    for n in (i, i + 1):  # supercells of the same shape, mirror images of each other
        m = 2 * i + 1
        layer = make_supercell(graphene(a=LATTICE, vacuum=10.0), [[m, n, 0], [-n, m - n, 0], [0, 0, 1]])
        layer.set_cell([*layer.cell.lengths(), 90, 90, 120], scale_atoms=True)
        layers.append(layer)
    atoms = layers[0] + layers[1]
    atoms.positions[len(layers[0]) :, 2] += INTERLAYER
    atoms.pbc = (True, True, False)
    return atoms
