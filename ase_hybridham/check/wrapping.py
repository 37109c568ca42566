"""Atoms that stand a lattice vector away from where R counts from: which, and by how much, as S tells."""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

from ase_hybridham.check.covariance import Bonds
from ase_hybridham.check.hypotheses import Geometry
from ase_hybridham.system import PairList

__all__ = ["unwrapped"]

FARTHEST = 2  # lattice vectors that two atoms may have been moved against each other
MOST_NAMED = 4  # atoms in a message


def unwrapped(pairs: PairList, bonds: Sequence[Bonds], atoms: Atoms) -> Iterator[Geometry]:
    """The vectors after whole lattice vectors are added to the atoms whose bonds ask for it, if some do."""
    cell = atoms.cell.array
    reach = [range(-FARTHEST, FARTHEST + 1) if vector.any() else (0,) for vector in cell]
    # nearest first: of two translations that leave as little the smaller one is taken
    steps = np.array(sorted(product(*reach), key=lambda t: (np.abs(t).sum(), t)))
    code, residual, weight = _by_atom_pair(pairs, bonds, steps @ cell)
    if not len(code):
        return
    step = steps[(residual <= residual.min(axis=1, keepdims=True) * 1.01 + 1e-12 * weight[:, None]).argmax(axis=1)]
    shift = _shifts(pairs.n_atoms, code, step, weight)
    if not shift.any():
        return
    vectors = pairs.vectors + (shift[pairs.j] - shift[pairs.i]) @ cell
    yield Geometry(_words(shift), "take the positions that R counts from, as the program used them", vectors)


def _by_atom_pair(
    pairs: PairList, bonds: Sequence[Bonds], moves: NDArray
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """i * n_atoms + j of connected atoms; |residual|^2 for every move, shape (n, n_moves); |S|^2, shape (n,)."""
    n = pairs.n_atoms
    codes = [pairs.i[b.rows] * n + pairs.j[b.rows] for b in bonds]
    rest = [np.stack([b.with_vectors(b.vectors + move).squares()[0] for move in moves], axis=1) for b in bonds]
    whole = [b.squares()[1] for b in bonds]
    if not codes:
        return np.empty(0, np.int64), np.empty((0, len(moves))), np.empty(0)
    code, place = np.unique(np.concatenate(codes), return_inverse=True)
    residual, weight = np.zeros((len(code), len(moves))), np.zeros(len(code))
    np.add.at(residual, place.ravel(), np.concatenate(rest))
    np.add.at(weight, place.ravel(), np.concatenate(whole))
    between = (code // n != code % n) & (weight > 0)
    return code[between], residual[between], weight[between]


def _shifts(n_atoms: int, code: NDArray, step: NDArray, weight: NDArray) -> NDArray[np.int64]:
    """Lattice vectors to add to each atom, most to none: step = shift_j - shift_i along the strongest bonds."""
    i, j = code // n_atoms, code % n_atoms
    # a tree of the strongest bonds; weights are made lengths that are short where S is large
    length = csr_array((1.0 / weight, (i, j)), shape=(n_atoms, n_atoms))
    tree = minimum_spanning_tree(length)
    known = dict(zip(code.tolist(), step, strict=True))
    shift = np.zeros((n_atoms, 3), dtype=np.int64)
    left = set(range(n_atoms))
    while left:
        order, before = breadth_first_order(tree, min(left), directed=False)
        left -= set(order.tolist())
        for atom in order[1:]:
            origin = int(before[atom])
            forward = known.get(origin * n_atoms + int(atom))
            move = forward if forward is not None else -known[int(atom) * n_atoms + origin]
            shift[atom] = shift[origin] + move
        found, count = np.unique(shift[order], axis=0, return_counts=True)
        shift[order] -= found[count.argmax()]
    return shift


def _words(shift: NDArray[np.int64]) -> str:
    moved = np.flatnonzero(shift.any(axis=1))
    named = ", ".join(f"atom {n} by {shift[n].tolist()}" for n in moved[:MOST_NAMED])
    more = f" and {len(moved) - MOST_NAMED} more" if len(moved) > MOST_NAMED else ""
    return f"positions were wrapped and R was not (to go back: {named}{more}, in lattice vectors)"
