"""Layers of several lattices, and the distances in them."""

import numpy as np
from ase import Atoms
from ase.build import graphene, mx2
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray


def molybdenum_disulfide() -> Atoms:
    return mx2("MoS2", a=3.16, thickness=3.13, vacuum=8.0)


def boron_nitride() -> Atoms:
    return graphene("BN", a=2.504)


def phosphorene() -> Atoms:
    """Puckered, on a rectangular cell."""
    scaled = [[0.0, 0.08, 0.0], [0.5, 0.42, 0.0], [0.5, 0.58, 0.13], [0.0, 0.92, 0.13]]
    return Atoms("P4", scaled_positions=scaled, cell=[3.3, 4.6, 16.0], pbc=(True, True, False))


def bismuth_selenide() -> Atoms:
    """A quintuple layer."""
    places = [("Se", 0, 0.0), ("Bi", 1, 1.6), ("Se", 2, 3.5), ("Bi", 0, 5.4), ("Se", 1, 7.0)]
    layer = Atoms(
        [symbol for symbol, _, _ in places],
        scaled_positions=[(n / 3, 2 * n / 3, 0.1 + z / 25) for _, n, z in places],
        cell=[4.14, 4.14, 25.0, 90, 90, 120],
        pbc=(True, True, False),
    )
    return layer


def oblique() -> Atoms:
    return Atoms("CO", [[0, 0, 0], [1.1, 0.3, 0.2]], cell=[3.1, 3.7, 15.0, 90, 90, 77], pbc=(True, True, False))


LAYERS = {
    "graphene": lambda: graphene(a=2.46, vacuum=6.0),
    "BN": boron_nitride,
    "MoS2": molybdenum_disulfide,
    "Bi2Se3": bismuth_selenide,
    "P": phosphorene,
    "CO": oblique,
}


def distances(atoms: Atoms, reach: float) -> list[NDArray[np.float64]]:
    """For every two elements in alphabetic order, all distances up to `reach` angstrom, ascending."""
    i, j, d = neighbor_list("ijd", atoms, reach)
    names = np.char.add(np.array(atoms.get_chemical_symbols())[i], np.array(atoms.get_chemical_symbols())[j])
    return [np.sort(d[names == name]) for name in np.unique(names)]
