"""How far S is from two-center integrals of the orbitals and positions that come with it.

A two-center integral between shells l1 and l2 is sum_L x_L C_L Y_L(d), l1 + l2 + L even: in the direct sum of a
block, part L is a multiple of the harmonics of the bond vector d, and the parts with an odd sum vanish. What is
left over is round-off if orbital order, signs, lattice and R are right, and a tenth to a third of the block if one
is wrong. No radial functions are needed. One sign for a whole shell, and an exchange of shells of equal l, do not
show.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ase_hybridham.symmetry import DirectSum, spherical_harmonics
from ase_hybridham.system import PairBlocks

__all__ = ["Bonds", "relative_residual", "strongest_bonds"]

BONDS = 24  # of each atom, those with the largest S
LEAST_BOND = 1e-6  # of the largest block: what is smaller is rounding
MOST_NUMBERS = 2**23  # matrix elements that are looked at, at most


@dataclass(frozen=True, eq=False)
class Bonds:
    """Blocks of one element pair with the vectors they should be two-center integrals of.

    Parameters
    ----------
    rows : array of int, shape (n_bonds,)
        Places in the pair list.
    components : array, shape (n_bonds, size)
        The blocks in their direct sum.
    vectors : array, shape (n_bonds, 3)
        Angstrom.
    table : DirectSum
        Of the shells of the two elements.
    elements : tuple of int
        Atomic numbers.
    """

    rows: NDArray[np.int64]
    components: NDArray[np.float64]
    vectors: NDArray[np.float64]
    table: DirectSum
    elements: tuple[int, int]

    @cached_property
    def directed(self) -> NDArray[np.bool_]:
        """Components that a direction can be wrong for: all but those between two s shells."""
        parts = self.table.parts
        return np.array([parts[p].l1 + parts[p].l2 > 0 for p in self.table.part_of])

    def residual(self) -> NDArray[np.float64]:
        """Components of the blocks that are no two-center integral, shape (n_bonds, size)."""
        out = np.array(self.components)
        harmonics = spherical_harmonics(self.vectors, max(part.L for part in self.table.parts))
        for part in self.table.parts:
            if part.natural:
                here = out[:, part.components]
                Y = harmonics[part.L] / np.sqrt(2 * part.L + 1)
                here -= np.einsum("nm,nm->n", here, Y)[:, None] * Y
        return out

    def squares(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """|residual|^2 and |block|^2 of each bond, s-s parts left out, shapes (n_bonds,)."""
        rest, whole = self.residual()[:, self.directed], self.components[:, self.directed]
        return (rest**2).sum(axis=1), (whole**2).sum(axis=1)

    def take(self, which: NDArray) -> "Bonds":
        """Some of the bonds."""
        return replace(self, rows=self.rows[which], components=self.components[which], vectors=self.vectors[which])

    def with_vectors(self, vectors: NDArray) -> "Bonds":
        """The same blocks on other bond vectors."""
        return replace(self, vectors=vectors)

    def turned(self, matrices: Mapping[int, NDArray]) -> "Bonds":
        """The blocks with the orbitals of elements mixed: left @ block @ right^T."""
        blocks = self.table.to_blocks(self.components)
        left, right = (matrices.get(element) for element in self.elements)
        blocks = blocks if left is None else left @ blocks
        blocks = blocks if right is None else blocks @ right.T
        return replace(self, components=self.table.to_sum(blocks))


def strongest_bonds(blocks: PairBlocks, *, onsite: bool = False) -> list[Bonds]:
    """The hoppings of each atom with the largest blocks, or the on-site blocks.

    Parameters
    ----------
    blocks : PairBlocks
        An operator without spin.
    onsite : bool
        The self pairs instead of the hoppings.

    Returns
    -------
    list of Bonds
        One for each element pair.
    """
    pairs = blocks.pairs
    sizes = blocks.orbitals[pairs.i] * blocks.orbitals[pairs.j]
    norm = np.sqrt(np.add.reduceat(np.abs(blocks.values) ** 2, blocks.offsets[:-1])) if len(pairs) else np.empty(0)
    chosen = np.zeros(len(pairs), dtype=bool)
    if onsite:
        chosen[pairs.onsite] = True
    else:
        order = np.lexsort((-norm, pairs.i))
        place = np.empty(len(pairs), dtype=np.int64)
        first = np.searchsorted(pairs.i[order], pairs.i[order])
        place[order] = np.arange(len(pairs)) - first
        # the self pair is the strongest of each atom; like two atoms in one place it has no direction
        chosen = (place <= BONDS) & (norm > LEAST_BOND * norm.max(initial=0.0)) & (pairs.distances > 0)
    if sizes[chosen].sum() > MOST_NUMBERS:
        keep = np.random.default_rng(0).random(len(pairs)) < MOST_NUMBERS / sizes[chosen].sum()
        chosen &= keep
    out = []
    for (a, b), group in pairs.element_groups.items():
        rows = group[chosen[group]]
        if len(rows):
            table = DirectSum(blocks.basis[a].degrees, blocks.basis[b].degrees)
            stack = blocks.values[blocks.index(rows)].real.astype(np.float64)
            out.append(Bonds(rows, table.to_sum(stack), pairs.vectors[rows], table, (a, b)))
    return out


def relative_residual(bonds: Sequence[Bonds]) -> float:
    """Root of sum |residual|^2 / sum |block|^2 over bonds, s-s parts left out; 0 without bonds."""
    squares = [b.squares() for b in bonds]
    rest, whole = (sum(float(s[at].sum()) for s in squares) for at in (0, 1))
    return (rest / whole) ** 0.5 if whole else 0.0
