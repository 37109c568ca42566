"""One generalized eigenproblem H c = e S c, also where S is nearly singular.

Well conditioned: S = R^dagger R (Cholesky), and the eigenvalues are those of R^-dagger H R^-1. Orbitals that are
nearly dependent give S an eigenvalue s near zero; in its direction every error of H is divided by s, which pulls states
that do not exist ("ghost bands") through the spectrum. There S = U s U^dagger is diagonalized and directions with s
below a threshold are left out: X = U s^-1/2 of the others, and the eigenvalues are those of X^dagger H X (canonical
orthogonalization: P.-O. Loewdin, Adv. Quantum Chem. 5, 185 (1970), https://doi.org/10.1016/S0065-3276(08)60339-1).

A state that is left out is one at infinite energy: eigenvalue +inf, a column of zeros. So every k-point has as many
numbers, ascending, and nothing fills such a state.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError
from scipy.linalg.lapack import get_lapack_funcs

__all__ = [
    "OVERLAP_THRESHOLD",
    "PREDICTED_THRESHOLD",
    "Factored",
    "NotPositiveError",
    "Orthonormal",
    "Projected",
    "Reduction",
    "check_threshold",
    "reduction",
]

# Of H that a DFT program computed: what is left out moved bands by 1 to 10 meV. Of H with errors of 0.2 meV, as of a
# network: 1e-5 left ghost bands, 1e-4 none (docs/singular.md). Numerical basis sets in use have 6e-4 and more.
OVERLAP_THRESHOLD = 1e-5
PREDICTED_THRESHOLD = 1e-4
# LAPACK estimates |S^-1| from below. Of 3700 random S, dependent in many ways, its inverse was above the smallest
# eigenvalue by more than 4 % once (54 %); of real ones it is a half to a third of it, and few are looked at twice.
ESTIMATE = 1.5


class NotPositiveError(LinAlgError):
    """S has an eigenvalue that a threshold does not explain.

    Parameters
    ----------
    smallest : float
    """

    def __init__(self, smallest: float) -> None:
        super().__init__(f"smallest eigenvalue {smallest:.2e}")
        self.smallest = smallest


class Reduction(Protocol):
    """What turns H c = e S c into an ordinary eigenproblem; several H may share it."""

    def solve(self, h: NDArray, *, vectors: bool) -> tuple[NDArray, NDArray | None]:
        """Eigenvalues, shape (n,), and eigenvectors, shape (n, n), or None for them."""


class Orthonormal:
    """S = 1."""

    def solve(self, h: NDArray, *, vectors: bool) -> tuple[NDArray, NDArray | None]:
        return _standard(h, vectors=vectors)


@dataclass(frozen=True, eq=False)
class Factored:
    """S* = R^dagger R.

    LAPACK reads by columns what lies in rows, the transpose, which is the complex conjugate: the same eigenvalues, and
    eigenvectors are conjugated back. That saves two copies.

    Parameters
    ----------
    factor : array, shape (n, n), in Fortran's order
        R in its upper triangle.
    """

    factor: NDArray

    def solve(self, h: NDArray, *, vectors: bool) -> tuple[NDArray, NDArray | None]:
        reduced, _ = _lapack("hegst", h.dtype)(h.T, self.factor, lower=0)
        values, states = _standard(reduced, vectors=vectors, overwrite=True)
        if states is not None:
            states = _lapack("trtrs", h.dtype)(self.factor, states, lower=0, overwrite_b=1)[0].conj()
        return values, states


@dataclass(frozen=True, eq=False)
class Projected:
    """S where some directions are left out.

    Parameters
    ----------
    columns : array, shape (n, n_kept)
        X with X^dagger S X = 1.
    smallest : float
        Smallest eigenvalue of S.
    """

    columns: NDArray
    smallest: float

    @property
    def n_dropped(self) -> int:
        """Directions left out."""
        return self.columns.shape[0] - self.columns.shape[1]

    def solve(self, h: NDArray, *, vectors: bool) -> tuple[NDArray, NDArray | None]:
        n, kept = self.columns.shape
        values = np.full(n, np.inf)
        values[:kept], states = _standard(self.columns.conj().T @ h @ self.columns, vectors=vectors, overwrite=True)
        if states is not None:
            states = np.hstack([self.columns @ states, np.zeros((n, n - kept))])
        return values, states


def check_threshold(threshold: float) -> None:
    """ValueError for one of S that is negative or not a finite number."""
    if not (np.isfinite(threshold) and threshold >= 0):
        raise ValueError(f"overlap threshold: expected a number >= 0, got {threshold}")


def reduction(s: NDArray, threshold: float) -> Factored | Projected:
    """How to solve with S(k): Cholesky where it is well conditioned, else without the directions below a threshold.

    Parameters
    ----------
    s : array, shape (n, n)
        Hermitian.
    threshold : float
        Of the eigenvalues of S; 0: nothing is left out.

    Raises
    ------
    NotPositiveError
        If an eigenvalue is below -threshold, no eigenvalue is above it, or it is 0 and Cholesky fails.
    """
    factor, failed = _lapack("potrf", s.dtype)(s.T, lower=0, clean=0)
    # 1 / |S^-1| in the norm of columns is a lower bound of the smallest eigenvalue, and costs O(n^2)
    if not failed and (threshold == 0 or _lapack("pocon", s.dtype)(factor, 1.0)[0] > ESTIMATE * threshold):
        return Factored(factor)
    values, vectors = _standard(s.T, vectors=True)
    assert vectors is not None
    vectors = vectors.conj()
    kept = values >= threshold
    if kept.all() and not failed:
        return Factored(factor)
    if values[0] < -threshold or threshold == 0 or not kept.any():
        raise NotPositiveError(float(values[0]))
    return Projected(vectors[:, kept] / np.sqrt(values[kept]), float(values[0]))


def _standard(h: NDArray, *, vectors: bool, overwrite: bool = False) -> tuple[NDArray, NDArray | None]:
    """By divide and conquer, of a matrix whose upper triangle counts."""
    options = {"compute_v": vectors, "lower": 0, "overwrite_a": overwrite, **_room(len(h), h.dtype, vectors)}
    values, states, failed = _lapack("heevd", h.dtype)(h, **options)
    if failed:
        raise LinAlgError(f"{failed} off-diagonal elements are left")
    return values, states if vectors else None


@cache
def _lapack(name: str, dtype: np.dtype) -> Callable[..., Any]:
    """SciPy's functions check and convert for as long as LAPACK needs for 20 orbitals."""
    real = np.issubdtype(dtype, np.floating)
    return get_lapack_funcs(name.replace("he", "sy", 1) if real and name.startswith("he") else name, dtype=dtype)


@cache
def _room(n: int, dtype: np.dtype, vectors: bool) -> dict[str, int]:
    """Sizes of the workspace that LAPACK likes best; with the least it uses no blocks."""
    *sizes, _ = _lapack("heevd_lwork", dtype)(n, compute_v=vectors, lower=0)
    room = dict(zip(("lwork", "liwork", "lrwork"), (int(size.real) for size in sizes), strict=False))
    room["lwork"] += (
        64 * n
    )  # ?heevd forgets what ?unmtr likes: without, vectors of 1924 orbitals took 3.5 times as long
    return room
