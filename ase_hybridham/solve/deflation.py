"""The directions in which a large S(k) is nearly singular, the same that the dense solver leaves out (`pencil`).

How many eigenvalues of S are below a threshold t tells the inertia of S - t, by a factorization. If there are some,
none may be below -t, which that of S + t tells; then (S + t)^-1 is positive, those that are wanted are its largest,
and Lanczos finds them first.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError

from ase_hybridham.solve.factor import Engine, Factor, LeftOut
from ase_hybridham.solve.lanczos import BlockLanczos, Product, rayleigh_ritz
from ase_hybridham.solve.pattern import BlockMatrix
from ase_hybridham.solve.pencil import NotPositiveError

__all__ = ["directions_below"]

# |A x - b| / |b| of one solution in single precision, above which S is factorized in double precision: below, rounding
# is some hundred times less than the distance of the threshold to the next eigenvalue.
TRUSTED = 1e-4
# Where a threshold is next to an eigenvalue it moves up by these shares of it.
MOVES = (0.0, 1e-4, 1e-3, 1e-2)
REFINEMENTS = 2  # of solutions that were refined once
ROUGH = 1e-6  # of the largest of (S + t)^-1, from which on residuals of S are looked at
ACCURATE = 1e-13  # residuals of eigenvectors of S
STEPS = 2  # of Lanczos between two looks
MOST_VECTORS = 40  # of Lanczos for each vector of a block, and each that is wanted
BLOCK = 8, 32  # at least and at most; of so many as are wanted


def directions_below(engine: Engine, s: BlockMatrix, threshold: float) -> LeftOut | None:
    """Eigenvectors of S(k) with eigenvalues below a threshold > 0; None if there are none.

    Parameters
    ----------
    engine : Engine
        One that counts.
    s : BlockMatrix
        Hermitian.
    threshold : float

    Raises
    ------
    NotPositiveError
        If an eigenvalue is below -threshold, or none is above it.
    LinAlgError
        If no factorization next to it passes the test, or Lanczos does not converge.
    """
    n, edge = s.pattern.n, _factor(engine, s, threshold)
    assert edge.negative is not None
    if not edge.negative:
        return None
    shift = -threshold
    while (factor := _factor(engine, s, shift)).negative:  # where it is too low an error tells the smallest
        shift *= 4
    if shift < -threshold or edge.negative == n:
        raise NotPositiveError(float(_smallest(factor, s, 1, np.inf)[0][0]))
    values, vectors = _smallest(factor, s, edge.negative, edge.sigma)
    return LeftOut(vectors[:, values < threshold], float(values[0]))  # the threshold may have moved


def _factor(engine: Engine, s: BlockMatrix, shift: float) -> Factor:
    """S - shift; in single precision where that is safe."""
    tries = [(shift, True), *((shift * (1 + move), False) for move in MOVES)]
    factor = Factor(engine, lambda at: s.plus_diagonal(-at), tries)
    if factor.single and factor.residual > TRUSTED:
        return Factor(engine, lambda at: s.plus_diagonal(-at), tries[1:])
    return factor


def _smallest(factor: Factor, s: BlockMatrix, count: int, below: float) -> tuple[NDArray[np.float64], NDArray]:
    """So many eigenvalues of S next to a shift below all of them, ascending, and vectors, shapes (m,), (n, m)."""
    n, block = s.pattern.n, min(max(count + 2, BLOCK[0]), BLOCK[1])
    lanczos = BlockLanczos(_precise(factor), _same, n, s.dtype, block)
    most = min(n, MOST_VECTORS * (count + block))
    while True:
        for _ in range(STEPS):
            lanczos.step()
        if lanczos.n_applied < count:
            continue
        theta, y, rest = lanczos.ritz()
        if lanczos.n_applied < most and rest[:count].max() > ROUGH * theta[count - 1]:
            continue
        values, vectors, residuals = rayleigh_ritz(s.product, _same, lanczos.vectors(y[:, :count]))
        if residuals.max() < ACCURATE and values[-1] < below:
            return values, vectors
        if lanczos.n_applied >= most:
            raise LinAlgError(
                f"eigenvectors of S: expected residuals below {ACCURATE:g}, got {residuals.max():.1e} after "
                f"{lanczos.n_applied} vectors; use the dense solver, or another overlap_threshold"
            )
        if values[-1] >= below:  # of a multiplet larger than a block some are missing
            lanczos.add_random()


def _precise(factor: Factor) -> Product:
    """Solutions in double precision of a factorization in single precision too."""

    def solve(b: NDArray) -> NDArray:
        x = factor.solve(b)
        for _ in range(REFINEMENTS if factor.single else 0):
            x = x + factor.solve(b - factor.product(x))
        return x

    return solve


def _same(x: NDArray) -> NDArray:
    return x
