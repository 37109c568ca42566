"""Bloch sums M(k) = sum_R exp(2 pi i k.R) M(R), k fractional, for many k at once.

Rows and columns are ordered atom, spin (if any), orbital. The sum has one term for every
atom pair and R, but the matrix only one place for every atom pair: *where* the terms go does
not depend on k and is worked out once. What remains per k-point is a product with phases:

* dense: exp(ik.R) M(R) + exp(-ik.R) M(-R) = cos(k.R) P(R) + sin(k.R) Q(R), with
  P = M(R) + M(-R) and Q = i (M(R) - M(-R)). One real matrix product does all k-points;
* sparse: a matrix (places x lattice vectors) times the phases gives the CSR data.
"""

from collections.abc import Iterator
from copy import copy

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from ase_hybridham.system import PairBlocks

__all__ = ["BlochSum", "check_k_points"]

# Above this size of P and Q (bytes) dense matrices are filled from the sparse sum: slower, but
# the memory grows with the pairs instead of with orbitals^2 times lattice vectors.
STACK_LIMIT = 2**27


def check_k_points(k_points: ArrayLike) -> NDArray[np.float64]:
    """Fractional k-points as an array of shape (n_k, 3).

    Raises
    ------
    ValueError
        If the shape is another, or a number is not finite.
    """
    k = np.asarray(k_points, dtype=np.float64)
    if k.ndim != 2 or k.shape[1] != 3:
        raise ValueError(f"k-points: expected shape (n_k, 3), got {k.shape}")
    if not np.isfinite(k).all():
        raise ValueError("k-points: expected finite numbers")
    return k


class BlochSum:
    """The matrices M(k) of one operator.

    Parameters
    ----------
    blocks : PairBlocks
        M(R).
    spinor : bool
        Expand an operator without spin (an overlap) to 1 x M in spin space, block by block.
    """

    def __init__(self, blocks: PairBlocks, spinor: bool = False) -> None:
        self.blocks = blocks.to_spinor() if spinor else blocks
        pairs, sizes = self.blocks.pairs, self.blocks.orbitals
        n_atoms = pairs.n_atoms
        self.n = int(sizes.sum())
        # ascending and closed under R -> -R, so that row -1-r is minus row r and the middle is R = 0
        self.lattice_vectors, cell = np.unique(pairs.shifts, axis=0, return_inverse=True)

        # One place of the matrix for every connected atom pair (i, j), in order of rows: within the rows
        # of atom i the blocks lie side by side, `left` columns in; `width` is the length of such a row.
        connected, place = np.unique(pairs.i * n_atoms + pairs.j, return_inverse=True)
        i, j = connected // n_atoms, connected % n_atoms
        width = np.bincount(i, weights=sizes[j], minlength=n_atoms).astype(np.int64)
        left = np.cumsum(sizes[j]) - sizes[j] - (np.cumsum(width) - width)[i]
        rows_start = np.cumsum(width * sizes) - width * sizes
        row_width = np.repeat(width, sizes)
        self.indptr = np.concatenate([[0], np.cumsum(row_width)])

        self._entry = np.empty(len(self.blocks.values), dtype=np.int64)
        self._cell = np.repeat(cell.ravel(), np.diff(self.blocks.offsets)).astype(np.int32)
        self.indices = np.empty(int(self.indptr[-1]), dtype=np.int32)
        first_orbital = np.cumsum(sizes) - sizes
        for rows in pairs.element_groups.values():
            atom, neighbor = pairs.i[rows], pairs.j[rows]
            a, b = np.ogrid[: sizes[atom[0]], : sizes[neighbor[0]]]
            start = (rows_start[atom] + left[place[rows]])[:, None, None]
            entry = start + a * width[atom][:, None, None] + b
            self._entry[self.blocks.index(rows)] = entry
            self.indices[entry] = first_orbital[neighbor][:, None, None] + b
        self.indptr = self.indptr.astype(np.int32 if self.indptr[-1] < 2**31 else np.int64)
        self.indices = self.indices.astype(self.indptr.dtype, copy=False)
        self._stack: NDArray | None = None
        self._fold: csr_array | None = None

    def with_blocks(self, blocks: PairBlocks) -> "BlochSum":
        """The sum of another operator over the same pairs and orbitals, which shares what is known of places.

        Raises
        ------
        ValueError
            If the pairs or orbitals are others.
        """
        known = self.blocks
        same = known.pairs is blocks.pairs or known.pairs.same_pairs(blocks.pairs)
        if not same or known.spinor != blocks.spinor or len(known.values) != len(blocks.values):
            raise ValueError(
                "Bloch sum: expected an operator on the same pairs and orbitals; see `PairBlocks.on_pairs`"
            )
        other = copy(self)
        other.blocks, other._stack, other._fold = blocks, None, None
        return other

    def dense(self, k_points: ArrayLike, out: NDArray[np.complex128] | None = None) -> NDArray[np.complex128]:
        """M(k), shape (n_k, n, n); all of it in memory, so give many k-points in batches.

        Parameters
        ----------
        k_points : array, shape (n_k, 3)
            Fractional.
        out : array, shape (n_k, n, n), complex, contiguous, optional
            Where to write. Fresh memory costs as much as the sum, so batches should share theirs.
        """
        k = check_k_points(k_points)
        if out is None:
            out = np.empty((len(k), self.n, self.n), dtype=np.complex128)
        elif out.shape != (len(k), self.n, self.n) or out.dtype != np.complex128 or not out.flags.c_contiguous:
            raise ValueError(f"out: expected contiguous complex128 of shape {(len(k), self.n, self.n)}")
        n_vectors = len(self.lattice_vectors)
        if 16 * n_vectors * self.n**2 > STACK_LIMIT:
            out[:] = 0.0
            out.reshape(len(k), -1)[:, self._flat] = self.data(k)
            return out
        if self._stack is None:
            self._stack = self._cosine_sine_stack()
        angle = 2 * np.pi * k @ self.lattice_vectors[n_vectors // 2 :].T
        weights = np.concatenate([np.cos(angle), np.sin(angle[:, 1:])], axis=1)
        np.matmul(weights, self._stack, out=out.reshape(len(k), -1).view(np.float64))
        return out

    def data(self, k_points: ArrayLike) -> NDArray[np.complex128]:
        """The CSR data of M(k) in the order of `indices`, shape (n_k, n_entries).

        Operators over the same pairs share this order: (H - sigma S).data = H.data - sigma S.data.
        """
        k = check_k_points(k_points)
        if self._fold is None:
            shape = (len(self.indices), len(self.lattice_vectors))
            self._fold = csr_array((self.blocks.values.astype(_double(self.blocks)), (self._entry, self._cell)), shape)
        phases = np.exp(2j * np.pi * k @ self.lattice_vectors.T)
        out = np.empty((len(k), len(self.indices)), dtype=np.complex128)
        for row, phase in zip(out, phases, strict=True):
            if np.iscomplexobj(self.blocks.values):
                row[:] = self._fold @ phase
            else:  # real values times (cos, sin): half the work, and the pairs are complex numbers as they lie
                row[:] = (self._fold @ phase.view(np.float64).reshape(-1, 2)).view(np.complex128).ravel()
        return out

    def sparse(self, k_points: ArrayLike) -> Iterator[csr_array]:
        """M(k) one k-point after the other, each (n, n); the index arrays are shared, do not change them."""
        for k in check_k_points(k_points):
            yield csr_array((self.data(k[None])[0], self.indices, self.indptr), shape=(self.n, self.n))

    @property
    def _flat(self) -> NDArray[np.int64]:
        """Position of every entry in the flattened dense matrix."""
        return np.repeat(np.arange(self.n), np.diff(self.indptr)) * self.n + self.indices

    def _cosine_sine_stack(self) -> NDArray[np.float64]:
        """Rows P(0), P(R > 0), Q(R > 0), complex numbers seen as pairs of floats, shape (n_vectors, 2 n^2)."""
        n_vectors = len(self.lattice_vectors)
        matrices: NDArray = np.zeros((n_vectors, self.n * self.n), dtype=_double(self.blocks))
        matrices[self._cell, self._flat[self._entry]] = self.blocks.values
        forward, backward = matrices[n_vectors // 2 + 1 :], matrices[: n_vectors // 2][::-1]
        stack = np.concatenate([matrices[n_vectors // 2][None], forward + backward, 1j * (forward - backward)])
        return stack.astype(np.complex128, copy=False).view(np.float64)


def _double(blocks: PairBlocks) -> type:
    return np.complex128 if np.iscomplexobj(blocks.values) else np.float64
