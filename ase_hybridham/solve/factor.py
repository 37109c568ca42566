"""A = H - sigma S, factorized: solves A x = b and counts the states below sigma, also without some directions.

Directions V are those in which S(k) is nearly singular (`deflation`), m orthonormal columns. Without them the pencil is
the one of vectors in their orthogonal complement, and A x = b becomes

    [ A          V ] [ x ]   [ b ]
    [ V^dagger   0 ] [ y ] = [ 0 ].

H V and S V may both be next to nothing, so A may be singular at every sigma. Instead A' = A + h E E^dagger is
factorized: h on the diagonal in m orbitals E that V lives in. With B = (E, V), W = A'^-1 B and the matrix
C = diag(1 / h, 0) - B^dagger W of 2m rows

    x = A'^-1 b + W C^-1 B^dagger A'^-1 b,     negative(A without V) = negative(A') + negative(C) - m,

since both sides of the second count the negative eigenvalues of A' bordered by B, less 2m or m (E. V. Haynsworth,
Linear Algebra Appl. 1, 73 (1968), https://doi.org/10.1016/0024-3795(68)90050-5).
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, qr

from ase_hybridham.solve.pattern import BlockMatrix

__all__ = ["Engine", "Factor", "Factorized", "LeftOut", "tries_at"]

# |A x - b| / |b| of one solution, above which a factorization is not trusted: sigma is next to an eigenvalue, or
# elements grew. Of 44 counts next to eigenvalues those that were wrong had more than 0.05 in single precision.
TRUSTED = {"f": 1e-2, "d": 1e-6}
# In double precision as much is trusted where all else fails: the growth of elements may stay when sigma moves. A count
# is wrong where a residual is as large as a component of one vector in n.
AT_LAST = 1e-4
# Then sigma moves by these, in eV, one after the other, and at last the precision becomes double.
MOVES = (0.0, 1e-6, 1e-5, 1e-4)
STIFFNESS = 30.0  # eV, h of the module: as large as elements of H

logger = logging.getLogger(__name__)


class Factorized(Protocol):
    """A matrix that an engine factorized."""

    @property
    def negative(self) -> int | None:
        """Number of negative eigenvalues; None if the engine cannot tell."""

    def solve(self, b: NDArray) -> NDArray:
        """A^-1 b, shape (n, n_columns), in the precision of the matrix."""


class Engine(Protocol):
    """What factorizes Hermitian matrices of one pattern, which it has analyzed when it is made."""

    def factor(self, matrix: BlockMatrix) -> Factorized:
        """Of a matrix real or complex, in single or double precision; LinAlgError if it is singular."""


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Directions that vectors stay out of.

    Parameters
    ----------
    vectors : array, shape (n, m)
        V, orthonormal.
    smallest : float
        Smallest eigenvalue of S(k).
    """

    vectors: NDArray
    smallest: float

    @cached_property
    def orbitals(self) -> NDArray[np.int64]:
        """m of them in which V is well conditioned."""
        _, order = qr(self.vectors.conj().T, mode="r", pivoting=True)
        return order[: self.vectors.shape[1]]

    def project(self, x: NDArray) -> NDArray:
        """Vectors, shape (n, n_columns), less their part in V."""
        return x - self.vectors @ (self.vectors.conj().T @ x)

    def factor(self, engine: Engine, matrix: BlockMatrix) -> Factorized:
        """A without V."""
        n, m = self.vectors.shape
        diagonal, corner = np.zeros(n), np.zeros(2 * m)
        diagonal[self.orbitals], corner[:m] = STIFFNESS, 1 / STIFFNESS
        border = np.hstack([np.zeros((n, m)), self.vectors])
        border[self.orbitals, np.arange(m)] = 1.0
        return _Bordered(engine.factor(matrix.plus_diagonal(diagonal)), border, corner)


class _Bordered:
    """A without V, of A', B and the diagonal of the corner."""

    def __init__(self, factorized: Factorized, border: NDArray, corner: NDArray) -> None:
        self._factorized, self._border = factorized, border
        self._w = factorized.solve(border)
        c = np.diag(corner) - border.conj().T @ self._w
        self._values, self._vectors = np.linalg.eigh(0.5 * (c + c.conj().T))

    @property
    def negative(self) -> int | None:
        below = self._factorized.negative
        return None if below is None else below + int((self._values < 0).sum()) - len(self._values) // 2

    def solve(self, b: NDArray) -> NDArray:
        x = self._factorized.solve(b)
        u = self._vectors
        y = u @ ((u.conj().T @ (self._border.conj().T @ x)) / self._values[:, None])
        return (x + self._w @ y).astype(x.dtype)


class Factor:
    """A, factorized.

    Parameters
    ----------
    engine : Engine
    shifted : function
        sigma -> H - sigma S.
    tries : iterable of (float, bool)
        Sigma in eV, and whether in single precision (solutions are refined to double); one after the other, until a
        factorization passes the test.
    left_out : LeftOut, optional

    Raises
    ------
    LinAlgError
        If none passes the test.
    """

    sigma: float
    single: bool
    residual: float  # |A x - b| / |b| of a test

    def __init__(
        self,
        engine: Engine,
        shifted: Callable[[float], BlockMatrix],
        tries: Iterable[tuple[float, bool]],
        left_out: LeftOut | None = None,
    ) -> None:
        self._engine, self._left_out = engine, left_out
        tries = list(tries)
        strict = [TRUSTED["d" if left_out is None and not single else "f"] for _, single in tries]
        at_last = [(AT_LAST, sigma, False) for sigma, single in tries if not single]
        for limit, self.sigma, self.single in [*((a, *b) for a, b in zip(strict, tries, strict=True)), *at_last]:
            self._factorized: Factorized | None = None
            self._matrix = shifted(self.sigma)
            try:
                self.residual = self._test()
            except LinAlgError:
                self.residual = np.inf
                continue
            if self.residual < limit:
                return
            logger.debug("factorization at %.9f: residual %.1e; sigma moves", self.sigma, self.residual)
        raise LinAlgError(
            f"sparse factorization at {tries[0][0]:.6f} eV: expected a residual below {AT_LAST:g}, got "
            f"{self.residual:.1e}; choose another energy or engine, or leave nearly dependent orbitals out "
            "(overlap_threshold)"
        )

    @cached_property
    def negative(self) -> int | None:
        """Number of states below sigma; None if the engine does not tell."""
        return self._again().negative

    def release(self) -> None:
        """Frees the factorization, to make room for others; the next solution makes it once more."""
        self._factorized = None

    def product(self, x: NDArray) -> NDArray:
        """A x, shape (n, n_columns), less its part in the directions that are left out."""
        out = self._matrix.product(x)
        return out if self._left_out is None else self._left_out.project(out)

    def solve(self, b: NDArray) -> NDArray:
        """A^-1 b, in double precision, shape (n, n_columns)."""
        x = self._once(b)
        # A' may be next to singular where A without V is not
        wanted = int(np.ceil(np.log(TRUSTED["d"]) / np.log(max(self.residual, TRUSTED["d"] ** 2)))) - 1
        for _ in range(max(wanted, int(self.single))):
            x = x + self._once(b - self.product(x))
        return x

    def _again(self) -> Factorized:
        if self._factorized is None:
            matrix = self._matrix.astype(_single(self._matrix.dtype)) if self.single else self._matrix
            left_out, engine = self._left_out, self._engine
            self._factorized = engine.factor(matrix) if left_out is None else left_out.factor(engine, matrix)
        return self._factorized

    def _once(self, b: NDArray) -> NDArray:
        if not self.single:
            return self._again().solve(b)
        scale = np.abs(b).max(axis=0)
        scale[scale == 0] = 1.0
        x = self._again().solve((b / scale).astype(_single(b.dtype)))
        return x.astype(b.dtype) * scale

    def _test(self) -> float:
        b = np.random.default_rng(0).normal(size=(self._matrix.pattern.n, 1)).astype(self._matrix.dtype)
        if self._left_out is not None:
            b = self._left_out.project(b)
        with np.errstate(all="ignore"):  # what is not a finite number fails the test
            return float(np.linalg.norm(self.product(self._once(b)) - b) / np.linalg.norm(b))


def tries_at(sigma: float, *, single: bool) -> list[tuple[float, bool]]:
    """Next to an energy in eV, within 1e-4 eV: in single precision, if asked, at last in double."""
    return [(sigma + move, kind) for kind in ((True, False) if single else (False,)) for move in MOVES]


def _single(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.complex64 if np.issubdtype(dtype, np.complexfloating) else np.float32)
