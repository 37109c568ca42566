"""Where H(k) and S(k) may have elements other than zero: the same places for every k, spin and shift.

A matrix over this pattern is one array of CSR data in the order of `BlochSum.indices`. All rows of one atom have the
same columns: they are a dense block (orbitals of the atom) x (orbitals of its neighbors), side by side in memory.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ase_hybridham.solve.bloch import BlochSum

__all__ = ["Pattern"]


@dataclass(frozen=True, eq=False)
class Pattern:
    """The pattern of a Hermitian matrix made of blocks of atoms.

    Parameters
    ----------
    sizes : array of int, shape (n_atoms,)
        Rows of each atom: its orbitals, times two for spinors.
    coordinates : array, shape (n_atoms, 3)
        Any along which the structure can be cut; fractional ones of a crystal.
    indices, indptr : arrays of int
        Of the CSR format.
    """

    sizes: NDArray[np.int64]
    coordinates: NDArray[np.float64]
    indices: NDArray
    indptr: NDArray

    @classmethod
    def of(cls, bloch: BlochSum, atoms: Atoms) -> "Pattern":
        """The pattern of a Bloch sum over the pairs of these atoms."""
        cell = atoms.cell.complete()
        scaled = np.linalg.solve(cell.T, atoms.get_positions().T).T
        scaled[:, atoms.pbc] %= 1.0
        return cls(bloch.blocks.orbitals, scaled, bloch.indices, bloch.indptr)

    @property
    def n(self) -> int:
        """Rows of the matrix."""
        return int(self.starts[-1])

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """First row of each atom, and the end, shape (n_atoms + 1,)."""
        return np.concatenate([[0], np.cumsum(self.sizes)])

    @cached_property
    def graph(self) -> csr_array:
        """1 where two atoms have a block, shape (n_atoms, n_atoms), the diagonal included."""
        n_atoms = len(self.sizes)
        is_first = np.zeros(self.n, dtype=bool)  # one orbital speaks for each neighbor
        is_first[self.starts[:-1]] = True
        atom = np.repeat(np.arange(n_atoms), self.sizes)
        neighbors = [self.columns(i) for i in range(n_atoms)]
        neighbors = [atom[columns[is_first[columns]]] for columns in neighbors]
        ends = np.concatenate([[0], np.cumsum([len(some) for some in neighbors])])
        j = np.concatenate(neighbors) if n_atoms else np.empty(0, dtype=np.int64)
        return csr_array((np.ones(len(j)), j, ends), shape=(n_atoms, n_atoms))

    def columns(self, atom: int) -> NDArray:
        """Columns of every row of an atom, shape (n_columns,)."""
        row = self.starts[atom]
        return self.indices[self.indptr[row] : self.indptr[row + 1]]

    def rows(self, atom: int, data: NDArray) -> NDArray:
        """The rows of an atom in an array of CSR data, a view of shape (orbitals, n_columns)."""
        first, last = self.starts[atom], self.starts[atom + 1]
        return data[self.indptr[first] : self.indptr[last]].reshape(self.sizes[atom], -1)

    def matrix(self, data: NDArray) -> csr_array:
        """The matrix of an array of CSR data, which is not copied."""
        return csr_array((data, self.indices, self.indptr), shape=(self.n, self.n))

    def product(self, data: NDArray, x: NDArray) -> NDArray:
        """The matrix times vectors, shape (n, n_columns); 8 take a third of the time of SciPy's sparse product."""
        x = np.ascontiguousarray(x)
        out = np.empty(x.shape, dtype=np.result_type(data, x))
        for atom, (a, b) in enumerate(pairwise(self.starts)):
            np.matmul(self.rows(atom, data), x[self.columns(atom)], out=out[a:b])
        return out
