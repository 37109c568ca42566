"""How alike are two structures? Their distances, smeared, by elements; near pairs count more."""

from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

__all__ = ["distance_fingerprint", "farthest_of"]

REACH, WIDTH = 6.0, 0.1  # angstrom


def distance_fingerprint(atoms: Atoms, elements: Sequence[str]) -> NDArray[np.float64]:
    """Density of distances per atom, for every two of the elements; no choice of cell or origin changes it.

    Parameters
    ----------
    atoms : ase.Atoms
    elements : sequence of str
        Of all structures that are compared.

    Returns
    -------
    array, shape (n,)
        Each pair counts as the inverse square of its distance.
    """
    i, j, distances = neighbor_list("ijd", atoms, REACH)
    place = {symbol: n for n, symbol in enumerate(sorted(elements))}
    of_atom = np.array([place[symbol] for symbol in atoms.symbols])
    edges = np.arange(0.0, REACH + WIDTH, WIDTH)
    centers, n_kinds = 0.5 * (edges[1:] + edges[:-1]), len(place) ** 2
    kind = of_atom[i] * len(place) + of_atom[j]
    found = np.zeros((n_kinds, len(centers)))
    for k in np.unique(kind):
        rows = distances[kind == k]
        spread = np.exp(-0.5 * ((rows[:, None] - centers) / WIDTH) ** 2)
        found[k] = (spread / rows[:, None] ** 2).sum(axis=0)
    return found.ravel() / max(len(atoms), 1)


def farthest_of(fingerprints: Mapping[str, NDArray[np.float64]], n: int) -> list[str]:
    """Names of `n` structures that differ: the first given, then always the one farthest from all taken."""
    names, rows = list(fingerprints), np.array(list(fingerprints.values()))
    taken = [0]
    nearest = np.linalg.norm(rows - rows[0], axis=1)
    while len(taken) < min(n, len(names)):
        nearest[taken] = -1.0
        taken.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, np.linalg.norm(rows - rows[taken[-1]], axis=1))
    return [names[k] for k in taken]
