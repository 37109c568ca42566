"""A = L D L^dagger of a sparse Hermitian matrix by PARDISO of Intel's MKL, which is not free software.

It counts states for real matrices. For complex ones it does not tell the signs of D with the pivots that make it
stable (Bunch and Kaufman's), and is unstable without them; there `negative` is None. O. Schenk and K. Gartner,
Electron. Trans. Numer. Anal. 23, 158 (2006).
"""

import ctypes
import os
import weakref
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError

from ase_hybridham.solve.pattern import BlockMatrix, Pattern

__all__ = ["Pardiso", "PardisoFactor"]

INSTALL = "pip install 'ase-hybridham[mkl]'"
REAL, COMPLEX = -2, -4  # kinds of matrices: symmetric and Hermitian, indefinite
ANALYZE_AND_FACTORIZE, SOLVE, FREE = 12, 33, -1
SEQUENTIAL = 1  # MKL's threads would fight with those of SciPy's BLAS
ERRORS = {-4: "a pivot is zero", -7: "the diagonal is singular"}

# Places of the options, from 0, and what is asked of them: none of the defaults; indices from 0, Bunch-Kaufman pivots
# of one and two rows, pivots below 1e-13 of |A| replaced; the number of elements of L. In single precision also scaling
# and matching, without which residuals at 364 atoms were 1e-2 instead of 2e-4; they take a third more time.
OPTIONS = {0: 1, 1: 2, 9: 13, 17: -1, 20: 1, 34: 1}
IN_SINGLE = {10: 1, 12: 1, 27: 1}
N_ELEMENTS, N_NEGATIVE = 17, 22


@cache
def _library() -> ctypes.CDLL:
    """MKL.

    Raises
    ------
    ImportError
        If it is not installed, or cannot be loaded.
    """
    try:
        names = [file.locate() for file in files("mkl") or [] if "mkl_rt" in file.name and file.suffix != ".lib"]
        library = ctypes.CDLL(str(names[0]))
    except (PackageNotFoundError, IndexError):
        raise ImportError(f"pardiso: expected MKL, found none; {INSTALL}") from None
    except OSError as error:
        raise ImportError(f"pardiso: expected MKL to load, got {error}; {INSTALL}") from None
    if "MKL_THREADING_LAYER" not in os.environ:
        library.MKL_Set_Threading_Layer(SEQUENTIAL)
    return library


class PardisoFactor:
    """A factorized matrix.

    Parameters
    ----------
    n : int
        Rows.
    rows, columns : arrays of int32
        CSR format of the upper triangle, ascending.
    values : array
        Of the upper triangle.
    """

    def __init__(self, n: int, rows: NDArray[np.int32], columns: NDArray[np.int32], values: NDArray) -> None:
        self.dtype = values.dtype
        self._matrix = values, rows, columns
        self._handle = np.zeros(64, dtype=np.int64)
        self._options = np.zeros(64, dtype=np.int32)
        is_single = values.real.itemsize == 4
        for place, value in (OPTIONS | (IN_SINGLE if is_single else {})).items():
            self._options[place] = value
        self._n = n
        finalizer = weakref.finalize(self, _call, self._handle, self._options, FREE, n, self._matrix)
        finalizer.atexit = False  # the process frees it
        error = _call(self._handle, self._options, ANALYZE_AND_FACTORIZE, n, self._matrix)
        if error in ERRORS:
            raise LinAlgError(ERRORS[error])
        if error:
            _fail(error)

    @property
    def n_kept(self) -> int:
        """Numbers in L."""
        return int(self._options[N_ELEMENTS])

    @property
    def negative(self) -> int | None:
        """Number of negative eigenvalues of A; None if it is complex."""
        return None if np.issubdtype(self.dtype, np.complexfloating) else int(self._options[N_NEGATIVE])

    def solve(self, b: NDArray) -> NDArray:
        """A^-1 b in the precision of the factor, shape (n, n_columns)."""
        b = np.asfortranarray(b, dtype=self.dtype)
        x = np.empty_like(b)
        if error := _call(self._handle, self._options, SOLVE, self._n, self._matrix, b, x):
            _fail(error)
        return x


class Pardiso:
    """The engine for one pattern.

    Parameters
    ----------
    pattern : Pattern

    Raises
    ------
    ImportError
        If MKL is not installed.
    ValueError
        If the matrix has too many elements.
    """

    def __init__(self, pattern: Pattern) -> None:
        _library()
        if pattern.n_entries >= 2**31:
            raise ValueError(f"pardiso: expected less than 2^31 elements, got {pattern.n_entries}; use multifrontal")
        self.pattern = pattern
        rows = np.repeat(np.arange(pattern.n, dtype=np.int32), np.diff(pattern.indptr))
        is_upper = pattern.indices >= rows
        self._upper = np.flatnonzero(is_upper)
        self._columns = pattern.indices[is_upper]
        self._rows = np.searchsorted(rows[is_upper], np.arange(pattern.n + 1)).astype(np.int32)

    def factor(self, matrix: BlockMatrix) -> PardisoFactor:
        """Factorizes a Hermitian matrix in its precision: real or complex, single or double.

        Raises
        ------
        LinAlgError
            If it is singular.
        MemoryError
        """
        return PardisoFactor(self.pattern.n, self._rows, self._columns, matrix.data()[self._upper])


def _call(handle: NDArray, options: NDArray, phase: int, n: int, matrix: tuple[NDArray, ...], *vectors: NDArray) -> int:
    """One call; `vectors` are b and x, with columns one after the other. Returns the number of an error, or 0."""
    values, rows, columns = matrix
    kind = COMPLEX if np.iscomplexobj(values) else REAL
    n_columns = vectors[0].shape[1] if vectors else 0
    one, kind_, phase_, n_, n_columns_, silent = (ctypes.c_int(some) for some in (1, kind, phase, n, n_columns, 0))
    error, by = ctypes.c_int(0), ctypes.byref
    a, ia, ja, to, options_ = (_pointer(some) for some in (values, rows, columns, handle, options))
    b, x = (_pointer(some) for some in vectors) if vectors else (None, None)
    problem = by(one), by(one), by(kind_), by(phase_), by(n_), a, ia, ja
    _library().pardiso(to, *problem, None, by(n_columns_), options_, by(silent), b, x, by(error))
    return error.value


def _pointer(array: NDArray) -> Any:
    return ctypes.c_void_p(array.ctypes.data)


def _fail(error: int) -> None:
    if error in (-2, -9):
        raise MemoryError("pardiso: not enough memory; factorize in single precision, or use multifrontal")
    raise RuntimeError(f"pardiso: expected no error, got {error}; use multifrontal")
