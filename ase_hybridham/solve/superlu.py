"""A = L U of a sparse Hermitian matrix by SciPy's SuperLU, kept symmetric: the cross-check of the multifrontal engine.

Without interchanges off the diagonal L D L^dagger is hidden in it, D the diagonal of U, and its signs count
eigenvalues. That takes all three options below, and holds only if rows and columns were ordered alike and D is real,
which is looked at. X. S. Li, ACM Trans. Math. Softw. 31, 302 (2005), https://doi.org/10.1145/1089014.1089017.
"""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError
from scipy.sparse import csc_array
from scipy.sparse.linalg import splu
from threadpoolctl import threadpool_limits

from ase_hybridham.solve.pattern import BlockMatrix, Pattern

__all__ = ["SuperLU", "SuperLUFactor"]

# Imaginary parts of D, of its largest element: more is not rounding, but interchanges.
ROUNDING = {"f": 1e-3, "d": 1e-6}


class SuperLUFactor:
    """A factorized matrix.

    Parameters
    ----------
    lu : scipy.sparse.linalg.SuperLU
    dtype : dtype
        Of the matrix.
    """

    def __init__(self, lu: Any, dtype: np.dtype) -> None:
        self._lu, self._dtype = lu, dtype

    @property
    def n_kept(self) -> int:
        """Numbers in L and U."""
        return int(self._lu.nnz)

    @cached_property
    def negative(self) -> int | None:
        """Number of negative eigenvalues of A; None if this factorization does not tell. Reading it copies L and U."""
        if (self._lu.perm_r != self._lu.perm_c).any():
            return None
        d = self._lu.U.diagonal()
        if np.abs(d.imag).max(initial=0.0) > ROUNDING[d.real.dtype.char] * np.abs(d).max(initial=0.0):
            return None
        return int((d.real < 0).sum())

    def solve(self, b: NDArray) -> NDArray:
        """A^-1 b in the precision of the factor, shape (n, n_columns)."""
        with threadpool_limits(1, user_api="blas"):
            return self._lu.solve(b.astype(self._dtype, copy=False))


class SuperLU:
    """The engine for one pattern.

    Parameters
    ----------
    pattern : Pattern
    """

    def __init__(self, pattern: Pattern) -> None:
        if pattern.n_entries >= 2**31:
            raise ValueError(f"superlu: expected less than 2^31 elements, got {pattern.n_entries}; use multifrontal")
        self.pattern = pattern
        self._indices, self._indptr = (some.astype(np.intc, copy=False) for some in (pattern.indices, pattern.indptr))

    def factor(self, matrix: BlockMatrix) -> SuperLUFactor:
        """Factorizes a Hermitian matrix in its precision.

        Raises
        ------
        LinAlgError
            If it is singular.
        """
        n = self.pattern.n
        # what CSR calls rows CSC calls columns: the transpose, and of that the conjugate
        columns = csc_array((matrix.data().conj(), self._indices, self._indptr), shape=(n, n))
        options = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
        try:
            with threadpool_limits(1, user_api="blas"):  # two threads on two busy cores took 30 times as long as one
                return SuperLUFactor(splu(columns, **options), matrix.dtype)
        except RuntimeError as error:
            raise LinAlgError(str(error)) from None
