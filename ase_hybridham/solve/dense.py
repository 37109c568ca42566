"""All bands of H(k) c = e S(k) c with LAPACK, for up to about 2500 orbitals."""

import logging
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import LinAlgError
from threadpoolctl import threadpool_limits

from ase_hybridham.errors import OverlapError
from ase_hybridham.solve.bloch import BlochSum, check_k_points
from ase_hybridham.solve.pencil import (
    OVERLAP_THRESHOLD,
    NotPositiveError,
    Orthonormal,
    Projected,
    Reduction,
    check_threshold,
    reduction,
)
from ase_hybridham.system import LCAOSystem, PairBlocks

__all__ = ["eigenstates", "eigenvalues"]

BATCH_BYTES = 3 * 2**24  # of one operator's matrices: many k-points share one product, and stay near the processor
# Below so many orbitals threads inside one matrix only wait for each other: with two on two busy cores 364 orbitals
# took 7 to 200 times as long as with one.
THREADED_ORBITALS = 1000
# Asymmetry of H (eV) and S that storage and other programs' quadratures explain; past it somebody should know.
ASYMMETRY = 1e-4
LARGE = 10**7  # elements

logger = logging.getLogger(__name__)


def eigenvalues(
    system: LCAOSystem, k_points: ArrayLike, *, overlap_threshold: float = OVERLAP_THRESHOLD
) -> NDArray[np.float64]:
    """Eigenvalues in eV, ascending, shape (n_spins, n_k, n_bands).

    At k-points where S(k) is nearly singular there are fewer states than orbitals; the last eigenvalues are then +inf,
    and a warning tells it.

    Parameters
    ----------
    system : LCAOSystem
        With H; with S unless its basis is orthogonal.
    k_points : array, shape (n_k, 3)
        Fractional.
    overlap_threshold : float
        Directions in which S(k) has an eigenvalue below it are left out; 0: none.

    Raises
    ------
    OverlapError
        If S is missing, or an eigenvalue of S(k) is below minus the threshold.
    ValueError
        If H is missing, a matrix element is not a finite number, the threshold is negative, or the k-points have
        another shape.
    """
    return _for_every_k(system, k_points, overlap_threshold, vectors=False)[0]


def eigenstates(
    system: LCAOSystem, k_points: ArrayLike, *, overlap_threshold: float = OVERLAP_THRESHOLD
) -> tuple[NDArray[np.float64], NDArray[np.complex128]]:
    """Eigenvalues and eigenvectors; arguments and errors as `eigenvalues`.

    Returns
    -------
    eigenvalues : array, shape (n_spins, n_k, n_bands)
        eV, ascending.
    eigenvectors : array, shape (n_spins, n_k, n_orbitals, n_bands), complex
        Column n belongs to eigenvalue n; c^dagger S(k) c = 1. Orbitals ordered atom, spin, orbital. Zero where the
        eigenvalue is +inf.
    """
    return _for_every_k(system, k_points, overlap_threshold, vectors=True)


def _for_every_k(
    system: LCAOSystem, k_points: ArrayLike, threshold: float, *, vectors: bool
) -> tuple[NDArray, NDArray]:
    k = check_k_points(k_points)
    check_threshold(threshold)
    hamiltonians, overlap = bloch_sums(system)
    n, n_spins = system.n_orbitals, len(hamiltonians)
    is_real = not any(np.iscomplexobj(h.blocks.values) for h in hamiltonians)
    values = np.empty((n_spins, len(k), n))
    states = np.empty((n_spins, len(k), n, n if vectors else 0), dtype=np.complex128)
    # k = -k modulo a reciprocal vector: all phases are +1 or -1, and real arithmetic costs a third
    invariant = is_real & ~np.any(2 * k % 1, axis=1)
    dropped: list[tuple[float, int, int]] = []  # smallest eigenvalue, directions left out, row of k
    batch = max(1, min(len(k), BATCH_BYTES // (16 * n * n)))
    room = np.empty((n_spins + 1, batch, n, n), dtype=np.complex128)
    with _blas_threads(n):
        for start in range(0, len(k), batch):
            some = k[start : start + batch]
            h = [operator.dense(some, out) for operator, out in zip(hamiltonians, room[:, : len(some)], strict=False)]
            s = overlap.dense(some, room[-1, : len(some)]) if overlap else None
            for at, row in enumerate(range(start, start + len(some))):
                real = invariant[row]
                try:
                    reduced: Reduction = Orthonormal()
                    if s is not None:
                        reduced = reduction(s[at].real if real else s[at], threshold)
                    for spin, matrices in enumerate(h):
                        matrix = matrices[at].real if real else matrices[at]
                        values[spin, row], found = reduced.solve(matrix, vectors=vectors)
                        if found is not None:
                            states[spin, row] = found
                except LinAlgError as error:
                    raise failure(k[row], error, threshold) from None
                if isinstance(reduced, Projected):
                    dropped.append((reduced.smallest, reduced.n_dropped, row))
    if dropped:
        warn_of(dropped, k, n, threshold)
    return values, states


def warn_of(dropped: list[tuple[float, int, int]], k: NDArray, n: int, threshold: float) -> None:
    """One line about directions that are left out: (smallest eigenvalue of S(k), how many, row of k)."""
    smallest, _, row = min(dropped)
    most = max(count for _, count, _ in dropped)
    logger.warning(
        "overlap: smallest eigenvalue of S(k) %.1e at k = %s, below the threshold %g: "
        "%d direction%s of %d projected out%s",
        smallest,
        np.round(k[row], 6).tolist(),
        threshold,
        most,
        "s" if most > 1 else "",
        n,
        f", at {len(dropped)} of {len(k)} k-points" if len(k) > 1 else "",
    )


def _blas_threads(n: int) -> AbstractContextManager:
    return threadpool_limits(1, user_api="blas") if n < THREADED_ORBITALS else nullcontext()


def bloch_sums(system: LCAOSystem) -> tuple[list[BlochSum], BlochSum | None]:
    """Sums of the Hamiltonians and of S, checked; None for S where the basis is orthogonal. Errors as `eigenvalues`."""
    hamiltonians, overlap = checked_operators(system)
    return [BlochSum(h) for h in hamiltonians], None if overlap is None else BlochSum(overlap)


def checked_operators(system: LCAOSystem) -> tuple[list[PairBlocks], PairBlocks | None]:
    """Hermitian parts of the Hamiltonians and of S, a spinor if they are; errors and None as of `bloch_sums`."""
    if not system.hamiltonian:
        raise ValueError("system: expected a Hamiltonian, got only an overlap")
    if system.overlap is None and not system.basis.orthogonal:
        raise OverlapError("overlap: expected S, since the basis is not orthogonal, got none; read or compute it")
    hamiltonians = [_checked(h, "Hamiltonian") for h in system.hamiltonian]
    if system.overlap is None:
        return hamiltonians, None
    overlap = _checked(system.overlap, "overlap")
    return hamiltonians, overlap.to_spinor() if system.spin == "spinor" else overlap


def _checked(blocks: PairBlocks, name: str) -> PairBlocks:
    """The hermitian part: LAPACK reads one triangle only and would not notice what the other holds."""
    bad = np.flatnonzero(~np.isfinite(blocks.values))
    if len(bad):
        pairs, p = blocks.pairs, int(np.searchsorted(blocks.offsets, bad[0], side="right")) - 1
        raise ValueError(
            f"{name}: expected finite numbers, got {blocks.values[bad[0]]} in pair "
            f"({pairs.i[p]}, {pairs.j[p]}, R={pairs.shifts[p].tolist()})"
        )
    if len(blocks.values) > LARGE:  # what the next line remembers would double the memory of what the caller holds
        blocks = blocks.with_values(blocks.values)
    asymmetry = blocks.hermiticity_error()
    if asymmetry > ASYMMETRY:
        logger.warning("%s: differs from its adjoint by up to %.1e; its hermitian part is solved", name, asymmetry)
    return blocks.hermitian_part() if asymmetry else blocks


def failure(k: NDArray, error: LinAlgError, threshold: float) -> Exception:
    """What went wrong at a k-point that LAPACK gave up on."""
    where = f"k = {np.round(k, 6).tolist()}"
    if not isinstance(error, NotPositiveError):
        return ValueError(f"eigenvalues at {where}: LAPACK did not converge ({error})")
    return OverlapError(
        f"overlap at {where}: expected a positive definite matrix, its smallest eigenvalue is {error.smallest:.2e} "
        f"(threshold {threshold:g}); "
        "pairs are missing (raise the cutoff, check the cell and pbc), or S belongs to another basis or structure"
    )
