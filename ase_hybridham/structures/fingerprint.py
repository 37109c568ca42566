"""How alike are two structures, or surroundings of atoms? Distances, smeared, by elements; near pairs count more."""

from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

__all__ = ["distance_fingerprint", "environment_fingerprints", "farthest_of"]

REACH, WIDTH = 6.0, 0.1  # angstrom
CHUNK = 50_000  # pairs at a time


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
    rows = environment_fingerprints(atoms, elements)
    symbols, places = np.array(atoms.get_chemical_symbols()), sorted(set(elements))
    found = [rows[symbols == symbol].sum(axis=0) for symbol in places]
    return np.concatenate(found) / max(len(atoms), 1)


def environment_fingerprints(atoms: Atoms, elements: Sequence[str], width: float = WIDTH) -> NDArray[np.float64]:
    """Density of distances from every atom to those of each of the elements.

    Parameters
    ----------
    atoms : ase.Atoms
    elements : sequence of str
        Of all structures that are compared.
    width : float
        By which distances are smeared, angstrom.

    Returns
    -------
    array, shape (n_atoms, n)
        Each neighbor counts as the inverse square of its distance.
    """
    i, j, distances = neighbor_list("ijd", atoms, REACH)
    place = {symbol: n for n, symbol in enumerate(sorted(set(elements)))}
    of_atom = np.array([place[symbol] for symbol in atoms.symbols], dtype=np.int64)
    edges = np.arange(0.0, REACH + WIDTH, WIDTH)
    centers = 0.5 * (edges[1:] + edges[:-1])
    found = np.zeros((len(atoms) * len(place), len(centers)))
    row = i * len(place) + of_atom[j]
    order = np.argsort(row, kind="stable")
    for start in range(0, len(order), CHUNK):
        part = order[start : start + CHUNK]
        d = distances[part, None]
        spread = np.exp(-0.5 * ((d - centers) / width) ** 2) / d**2
        first = np.flatnonzero(np.diff(row[part], prepend=-1))
        found[row[part][first]] += np.add.reduceat(spread, first, axis=0)
    return found.reshape(len(atoms), -1)


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
