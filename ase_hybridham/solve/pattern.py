"""Matrices whose elements other than zero come in blocks of atoms, the same for every k, spin and shift.

All rows of one atom have the same columns: they are a dense block (orbitals of the atom) x (orbitals of its neighbors),
side by side in memory in the order of the CSR format. In a large cell two atoms meet in one periodic image only; then
H(k) is H(R) with a phase for each column of an atom, and neither is multiplied out.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from ase import Atoms
from numpy.typing import DTypeLike, NDArray
from scipy.sparse import csr_array

from ase_hybridham.system import PairBlocks, PairList

__all__ = ["BlockMatrix", "Pattern"]


@dataclass(frozen=True, eq=False)
class Pattern:
    """Which atoms have a block.

    Parameters
    ----------
    sizes : array of int, shape (n_atoms,)
        Rows of each atom: its orbitals, times two for spinors.
    coordinates : array, shape (n_atoms, 3)
        Any along which the structure can be cut; fractional ones of a crystal.
    neighbors : array of int, shape (n_places,)
        Atoms that atom 0, 1, ... have a block with, itself included, ascending for each.
    ends : array of int, shape (n_atoms + 1,)
        Where the neighbors of each atom begin and end.
    """

    sizes: NDArray[np.int64]
    coordinates: NDArray[np.float64]
    neighbors: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, blocks: PairBlocks, atoms: Atoms) -> "Pattern":
        """The pattern of the Bloch sums of an operator of these atoms."""
        return cls.of_pairs(blocks.pairs, blocks.orbitals, atoms)

    @classmethod
    def of_pairs(cls, pairs: PairList, sizes: NDArray[np.int64], atoms: Atoms) -> "Pattern":
        """The pattern of operators over some pairs, before there are any; `sizes` as of the class."""
        cell = atoms.cell.complete()
        scaled = np.linalg.solve(cell.T, atoms.get_positions().T).T
        scaled[:, atoms.pbc] %= 1.0
        n_atoms = len(atoms)
        connected = np.unique(pairs.i * n_atoms + pairs.j)
        ends = np.searchsorted(connected, np.arange(n_atoms + 1) * n_atoms)
        return cls(sizes, scaled, connected % n_atoms if n_atoms else connected, ends)

    @property
    def n(self) -> int:
        """Rows of the matrix."""
        return int(self.starts[-1])

    @property
    def n_entries(self) -> int:
        """Elements that may not be zero."""
        return int(self.row_ends[-1])

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """First row of each atom, and the end, shape (n_atoms + 1,)."""
        return np.concatenate([[0], np.cumsum(self.sizes)])

    @cached_property
    def column_ends(self) -> NDArray[np.int64]:
        """Where the columns of each atom begin and end, if those of all stand one after the other."""
        return np.concatenate([[0], np.cumsum(self.sizes[self.neighbors])])[self.ends]

    @cached_property
    def row_ends(self) -> NDArray[np.int64]:
        """Where the rows of each atom begin and end in an array of all elements."""
        return np.concatenate([[0], np.cumsum(self.sizes * np.diff(self.column_ends))])

    @cached_property
    def all_columns(self) -> NDArray[np.int64]:
        """The columns of every atom, one after the other."""
        sizes = self.sizes[self.neighbors]
        skip = np.cumsum(sizes) - sizes
        return np.repeat(self.starts[self.neighbors] - skip, sizes) + np.arange(sizes.sum())

    @cached_property
    def graph(self) -> csr_array:
        """1 where two atoms have a block, shape (n_atoms, n_atoms), the diagonal included."""
        n_atoms = len(self.sizes)
        return csr_array((np.ones(len(self.neighbors)), self.neighbors, self.ends), shape=(n_atoms, n_atoms))

    @cached_property
    def indptr(self) -> NDArray:
        """Of the CSR format."""
        widths = np.repeat(np.diff(self.column_ends), self.sizes)
        return np.concatenate([[0], np.cumsum(widths)]).astype(np.int32 if self.n_entries < 2**31 else np.int64)

    @cached_property
    def indices(self) -> NDArray:
        """Of the CSR format."""
        all_rows = [np.tile(self.columns(atom), size) for atom, size in enumerate(self.sizes)]
        return np.concatenate([np.empty(0, dtype=np.int64), *all_rows]).astype(self.indptr.dtype)

    @cached_property
    def diagonal(self) -> NDArray[np.int64]:
        """Where the elements of the diagonal are in an array of all elements, shape (n,)."""
        places = [np.empty(0, dtype=np.int64)]
        for atom, size in enumerate(self.sizes):
            columns = self.columns(atom)
            first = self.row_ends[atom] + np.searchsorted(columns, self.starts[atom])
            places.append(first + np.arange(size) * (len(columns) + 1))
        return np.concatenate(places)

    def columns(self, atom: int) -> NDArray[np.int64]:
        """Columns of every row of an atom, shape (n_columns,)."""
        return self.all_columns[self.column_ends[atom] : self.column_ends[atom + 1]]


@dataclass(frozen=True, eq=False)
class BlockMatrix:
    """A Hermitian matrix over a pattern.

    Parameters
    ----------
    pattern : Pattern
    values : array, shape (n_entries,)
        In the order of the CSR format.
    phases : array, optional
        Factors of the columns of each atom, in the order of `Pattern.all_columns`; 1 if not given.
    """

    pattern: Pattern
    values: NDArray
    phases: NDArray | None = None

    @property
    def dtype(self) -> np.dtype:
        """Of the elements."""
        return np.result_type(self.values) if self.phases is None else np.result_type(self.values, self.phases)

    def rows(self, atom: int, some: NDArray | slice = slice(None)) -> NDArray:
        """The rows of an atom in some of its columns, shape (orbitals, n_columns)."""
        rows = self._rows(atom)[:, some]
        return rows if self.phases is None else rows * self._phases(self.phases, atom)[some]

    def data(self) -> NDArray:
        """All elements in the order of the CSR format."""
        if self.phases is None:
            return self.values
        out = BlockMatrix(self.pattern, np.empty(len(self.values), dtype=self.dtype))
        for atom in range(len(self.pattern.sizes)):
            np.multiply(self._rows(atom), self._phases(self.phases, atom), out=out._rows(atom))
        return out.values

    def csr(self) -> csr_array:
        """The matrix as SciPy has it."""
        n = self.pattern.n
        return csr_array((self.data(), self.pattern.indices, self.pattern.indptr), shape=(n, n))

    def minus(self, factor: float, other: "BlockMatrix") -> "BlockMatrix":
        """This less a multiple of another one with the same phases."""
        values = np.multiply(other.values, -factor, dtype=np.result_type(self.values, other.values))
        values += self.values
        return BlockMatrix(self.pattern, values, self.phases)

    def plus_diagonal(self, numbers: NDArray[np.float64] | float) -> "BlockMatrix":
        """This with numbers added on the diagonal, shape (n,), where phases are 1."""
        values = self.values.copy()
        values[self.pattern.diagonal] += numbers
        return BlockMatrix(self.pattern, values, self.phases)

    def astype(self, dtype: DTypeLike) -> "BlockMatrix":
        """In another precision, that of a complex type for real values too."""
        real = np.empty(0, dtype=dtype).real.dtype
        values, phases = (
            some if some is None else some.astype(dtype if np.iscomplexobj(some) else real)
            for some in (self.values, self.phases)
        )
        assert values is not None
        return BlockMatrix(self.pattern, values, phases)

    def product(self, x: NDArray) -> NDArray:
        """The matrix times vectors, shape (n, n_columns)."""
        x = np.ascontiguousarray(x)
        out = np.empty(x.shape, dtype=np.result_type(self.dtype, x))
        # real values times complex vectors: two columns instead of each, half the work
        halves = np.isrealobj(self.values) and np.iscomplexobj(out)
        kind = out.real.dtype if halves else out.dtype
        x, target = x.astype(out.dtype, copy=False), out.view(kind)
        widest = int(np.diff(self.pattern.column_ends).max(initial=0))
        room = np.empty((widest, x.shape[1]), dtype=out.dtype)  # one for all: fresh memory takes longer than the rest
        for atom, (a, b) in enumerate(pairwise(self.pattern.starts)):
            columns = self.pattern.columns(atom)
            v = np.take(x, columns, axis=0, out=room[: len(columns)], mode="clip")
            if self.phases is not None:
                v *= self._phases(self.phases, atom)[:, None]
            np.matmul(self._rows(atom), v.view(kind), out=target[a:b])
        return out

    def _rows(self, atom: int) -> NDArray:
        a, b = self.pattern.row_ends[atom], self.pattern.row_ends[atom + 1]
        return self.values[a:b].reshape(self.pattern.sizes[atom], -1)

    def _phases(self, phases: NDArray, atom: int) -> NDArray:
        return phases[self.pattern.column_ends[atom] : self.pattern.column_ends[atom + 1]]
