"""Blocks of an operator over the pairs of a structure, in one flat array.

Block p of pair (i, j, R) is M[a, b] = <a of atom i, cell 0 | M | b of atom j, cell R>, shape
(n_i, n_j), row-major at `offsets[p]`. A spinor block is (2 n_i, 2 n_j), complex, spin-major:
[[up up, up down], [down up, down down]].
"""

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ase_hybridham.system.basis import Basis
from ase_hybridham.system.pairs import PairList

__all__ = ["PairBlocks"]


@dataclass(frozen=True, eq=False)
class PairBlocks:
    """Matrix elements over a `PairList` and a `Basis`.

    Parameters
    ----------
    pairs : PairList
    basis : Basis
        Knows every element of the pairs.
    values : array, shape (n_values,)
        All blocks, one after the other; real or complex.
    spinor : bool
        Whether blocks are (2 n_i, 2 n_j).
    """

    pairs: PairList
    basis: Basis
    values: NDArray
    spinor: bool = False

    def __post_init__(self) -> None:
        if self.values.shape != (self.offsets[-1],):
            raise ValueError(
                f"blocks: expected {self.offsets[-1]} values for {len(self.pairs)} pairs, got {self.values.shape}"
            )

    @classmethod
    def zeros(
        cls, pairs: PairList, basis: Basis, *, spinor: bool = False, dtype: DTypeLike = np.float64
    ) -> "PairBlocks":
        """Blocks of zeros."""
        orbitals = _orbitals(pairs, basis, spinor)
        n_values = int((orbitals[pairs.i] * orbitals[pairs.j]).sum())
        return cls(pairs, basis, np.zeros(n_values, dtype=dtype), spinor)

    @classmethod
    def from_groups(
        cls,
        pairs: PairList,
        basis: Basis,
        groups: Mapping[tuple[int, int], NDArray],
        *,
        spinor: bool = False,
    ) -> "PairBlocks":
        """Blocks given as one stack per element pair.

        Parameters
        ----------
        groups : mapping
            (atomic number of i, of j) -> array, shape (n_pairs_of_these, n_i, n_j), in the order of
            `pairs.element_groups`.

        Raises
        ------
        ValueError
            If the stack of an element pair is missing or has another shape.
        """
        dtype = np.result_type(*groups.values()) if groups else np.dtype(np.float64)
        blocks = cls.zeros(pairs, basis, spinor=spinor, dtype=dtype)
        for elements, rows in pairs.element_groups.items():
            index, stack = blocks.index(rows), groups.get(elements)
            if stack is None or stack.shape != index.shape:
                got = "none" if stack is None else stack.shape
                raise ValueError(f"blocks of elements {elements}: expected shape {index.shape}, got {got}")
            blocks.values[index] = stack
        return blocks

    @cached_property
    def orbitals(self) -> NDArray[np.int64]:
        """Rows of each atom (twice its orbitals for spinors), shape (n_atoms,)."""
        return _orbitals(self.pairs, self.basis, self.spinor)

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Start of each block in `values`, and the end, shape (n_pairs + 1,)."""
        return _offsets(self.pairs, self.basis, self.spinor)

    def shape(self, p: int) -> tuple[int, int]:
        """Rows and columns of block p."""
        return int(self.orbitals[self.pairs.i[p]]), int(self.orbitals[self.pairs.j[p]])

    def block(self, p: int) -> NDArray:
        """Block p, a view of shape (n_i, n_j)."""
        return self.values[self.offsets[p] : self.offsets[p + 1]].reshape(self.shape(p))

    def index(self, rows: NDArray) -> NDArray[np.int64]:
        """Positions in `values` of the blocks `rows` (all of one shape), shape (n_rows, n_i, n_j)."""
        n_i, n_j = self.shape(int(rows[0])) if len(rows) else (0, 0)
        return self.offsets[rows][:, None, None] + np.arange(n_i * n_j).reshape(n_i, n_j)

    def groups(self) -> Iterator[tuple[tuple[int, int], NDArray[np.int64], NDArray]]:
        """For every element pair: (atomic numbers), rows of the pairs, blocks of shape (n_rows, n_i, n_j)."""
        for elements, rows in self.pairs.element_groups.items():
            yield elements, rows, self.values[self.index(rows)]

    def with_values(self, values: NDArray) -> "PairBlocks":
        """The same pairs and basis with other values; what is known of their places is kept."""
        other = copy(self)
        object.__setattr__(other, "values", values)
        other.__post_init__()
        return other

    def adjoint(self) -> "PairBlocks":
        """M^dagger: block (i, j, R) is the conjugate transpose of block (j, i, -R)."""
        return self.with_values(self.values[self._transposed].conj())

    def hermitian_part(self) -> "PairBlocks":
        """(M + M^dagger) / 2."""
        return self.with_values(0.5 * (self.values + self.values[self._transposed].conj()))

    def hermiticity_error(self) -> float:
        """Largest |M - M^dagger| of any element, in the unit of the values."""
        return float(np.abs(self.values - self.values[self._transposed].conj()).max(initial=0.0))

    def __add__(self, other: "PairBlocks") -> "PairBlocks":
        return self.with_values(self.values + self._aligned(other))

    def __sub__(self, other: "PairBlocks") -> "PairBlocks":
        return self.with_values(self.values - self._aligned(other))

    def __mul__(self, factor: float) -> "PairBlocks":
        return self.with_values(self.values * factor)

    __rmul__ = __mul__

    def on_pairs(self, pairs: PairList) -> "PairBlocks":
        """The blocks of another pair list: zero where this one lacks a pair, dropped where only this one has it.

        Raises
        ------
        ValueError
            If the other list is one of other atoms.
        """
        if not np.array_equal(pairs.numbers, self.pairs.numbers):
            raise ValueError("blocks: the other pairs are those of other atoms")
        out = PairBlocks.zeros(pairs, self.basis, spinor=self.spinor, dtype=self.values.dtype)
        source = self.pairs.find(pairs)
        for rows in pairs.element_groups.values():
            known = rows[source[rows] >= 0]
            if len(known):
                out.values[out.index(known)] = self.values[self.index(source[known])]
        return out

    def to_spinor(self) -> "PairBlocks":
        """A spinless operator as 1 x M in spin space, block by block; a spinor is returned as it is."""
        if self.spinor:
            return self
        stacks = {elements: np.kron(np.eye(2), blocks) for elements, _, blocks in self.groups()}
        return PairBlocks.from_groups(self.pairs, self.basis, stacks, spinor=True)

    @cached_property
    def _transposed(self) -> NDArray[np.int64]:
        """Index that takes `values` to those of the transposed reverse blocks."""
        source = np.empty(len(self.values), dtype=np.int64)
        for rows in self.pairs.element_groups.values():
            there = self.index(self.pairs.reverse[rows])
            source[self.index(rows)] = there.transpose(0, 2, 1)
        return source

    def _aligned(self, other: "PairBlocks") -> NDArray:
        if self.spinor != other.spinor:
            raise ValueError("blocks: one operator has spin, the other not; see `to_spinor`")
        if self.pairs is not other.pairs and not self.pairs.same_pairs(other.pairs):
            raise ValueError("blocks: the operators stand on different pairs; see `on_pairs`")
        return other.values


def _orbitals(pairs: PairList, basis: Basis, spinor: bool) -> NDArray[np.int64]:
    return basis.sizes(pairs.numbers) * (2 if spinor else 1)


def _offsets(pairs: PairList, basis: Basis, spinor: bool) -> NDArray[np.int64]:
    orbitals = _orbitals(pairs, basis, spinor)
    return np.concatenate([[0], np.cumsum(orbitals[pairs.i] * orbitals[pairs.j])]).astype(np.int64)
