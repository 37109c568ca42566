"""Eigenpairs near a shift: block Lanczos with A^-1 S, where A = H - sigma S, and Rayleigh-Ritz of H and S at its end.

H c = E S c is A^-1 S c = theta c with theta = 1 / (E - sigma): energies near sigma are the largest |theta|, which
Lanczos finds first. A^-1 S is self-adjoint in the inner product of S, so the basis V is orthonormal there,
V^dagger S V = 1, and T = V^dagger S A^-1 S V is small and Hermitian. A block holds as many vectors as a level may have
states, or more; then no member of a multiplet is missed. Orthogonalization is against the whole basis, twice.

Candidates are the eigenvectors of T with the largest |theta|; Rayleigh-Ritz of (H, S) on the whole basis would put
values without meaning among them. Then H and S themselves, on the candidates only, give energies whose error is of
second order in that of the vectors. T. Ericsson and A. Ruhe, Math. Comput. 35, 1251 (1980),
https://doi.org/10.1090/S0025-5718-1980-0583502-2; R. G. Grimes, J. G. Lewis and H. D. Simon, SIAM J. Matrix Anal.
Appl. 15, 228 (1994), https://doi.org/10.1137/S0895479888151111.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.linalg.blas import get_blas_funcs

__all__ = ["BlockLanczos", "Product", "rayleigh_ritz"]

Product = Callable[[NDArray], NDArray]

# Of a new block, directions whose square is smaller than this share of what it was before orthogonalization are
# rounding errors.
NOISE = 1e-22
# Blocks whose directions differ in length by more than this are orthogonalized once more.
UNEVEN = 1e-8


class BlockLanczos:
    """A basis that grows.

    Parameters
    ----------
    solve : function
        (n, b) -> A^-1 times it.
    overlap : function
        (n, b) -> S times it.
    n : int
        Orbitals.
    dtype : dtype
        float64 or complex128.
    block : int
        Vectors a step.
    seed : int
        Of the random vectors it starts with.
    without : array, shape (n, m), optional
        Orthonormal directions of which the basis has nothing, and solutions should not.
    """

    def __init__(
        self,
        solve: Product,
        overlap: Product,
        n: int,
        dtype: np.dtype,
        block: int = 8,
        seed: int = 0,
        without: NDArray | None = None,
    ) -> None:
        self._solve, self._overlap, self._block, self._without = solve, overlap, block, without
        self._size = n if without is None else n - without.shape[1]  # of the whole space
        self._rng = np.random.default_rng(seed)
        self._gemm = get_blas_funcs("gemm", dtype=dtype)
        self.n_applied = 0  # vectors that A^-1 S was applied to
        self.n_basis = 0  # those and the last block
        self._basis: NDArray = np.empty((n, 0), dtype=dtype, order="F")
        self._s_basis = self._basis.copy(order="F")
        self._t: NDArray = np.empty((0, 0), dtype=dtype)
        self.add_random()

    def add_random(self) -> None:
        """Adds random vectors to the last block: of multiplets larger than the block, or an exhausted space."""
        if self.n_basis == self._size:
            return
        shape = len(self._basis), min(self._block, self._size - self.n_basis)
        w = self._rng.normal(size=shape).astype(self._basis.dtype)
        if np.iscomplexobj(w):
            w += 1j * self._rng.normal(size=w.shape)
        self._append(np.asfortranarray(w))

    def step(self) -> None:
        """One more block, unless the basis spans all."""
        start, stop = self.n_applied, self.n_basis
        if start == stop:
            return
        h, r = self._append(np.asfortranarray(self._solve(self._s_basis[:, start:stop])))
        self.n_applied = stop
        self._t[:stop, start:stop] = h
        self._t[stop : self.n_basis, start:stop] = r
        if self.n_basis == stop < self._size:  # the space is invariant
            self.add_random()

    def ritz(self) -> tuple[NDArray[np.float64], NDArray, NDArray[np.float64]]:
        """Theta, largest first; eigenvectors of T; norms of A^-1 S c - theta c. Shapes (m,), (m, m), (m,)."""
        m = self.n_applied
        theta, y = np.linalg.eigh(self._t[:m, :m], UPLO="U")
        order = np.argsort(-np.abs(theta))
        y = y[:, order]
        rest = np.linalg.norm(self._t[m : self.n_basis, :m] @ y, axis=0)
        return theta[order], y, rest

    def vectors(self, y: NDArray) -> NDArray:
        """A^-1 S V y, which costs no solve, since A^-1 S V is known in the basis; shape (n, n_columns)."""
        return self._basis[:, : self.n_basis] @ (self._t[: self.n_basis, : self.n_applied] @ y)

    def _append(self, w: NDArray) -> tuple[NDArray, NDArray]:
        """Orthonormalizes a block w = V h + Q r, and appends Q, which may have fewer columns; returns h and r."""
        m = self.n_basis
        h = np.zeros((m, w.shape[1]), dtype=w.dtype)
        r = np.eye(w.shape[1], dtype=w.dtype)
        before = 0.0
        for attempt in range(4):
            h, w = self._project_out(h, r, w)
            if attempt == 0:
                h, w = self._project_out(h, r, w)
            s_w = self._overlap(w)
            gram = self._gemm(1.0, w, s_w, trans_a=2)
            if attempt == 0:
                before = float((np.abs(np.diagonal(gram)) + np.linalg.norm(h, axis=0) ** 2).max())
            lengths, u = np.linalg.eigh(gram)
            keep = lengths > NOISE * before
            keep[: max(0, len(keep) - (self._size - m))] = False  # there are no more; S that is singular makes noise
            if not keep.any():
                return h, np.zeros((0, r.shape[1]), dtype=r.dtype)
            lengths, u = lengths[keep], u[:, keep]
            scale = np.sqrt(lengths)
            w, s_w = self._gemm(1.0, w, u / scale), self._gemm(1.0, s_w, u / scale)
            r = (scale[:, None] * u.conj().T) @ r
            if lengths.min() > UNEVEN * lengths.max():
                break
        self._reserve(m + w.shape[1])
        self._basis[:, m : m + w.shape[1]] = w
        self._s_basis[:, m : m + w.shape[1]] = s_w
        self.n_basis = m + w.shape[1]
        return h, r

    def _project_out(self, h: NDArray, r: NDArray, w: NDArray) -> tuple[NDArray, NDArray]:
        """Takes V c out of w, the block so far being V h + w r."""
        m = self.n_basis
        if self._without is not None:  # S would not see it
            w = np.asfortranarray(w - self._without @ (self._without.conj().T @ w))
        if not m:
            return h, w
        c = self._gemm(1.0, self._s_basis[:, :m], w, trans_a=2)
        return h + c @ r, self._gemm(-1.0, self._basis[:, :m], c, beta=1.0, c=w, overwrite_c=1)

    def _reserve(self, m: int) -> None:
        """Memory for m vectors."""
        n, capacity = self._basis.shape
        if m <= capacity:
            return
        capacity = min(self._size, max(m, 12 * self._block, 3 * capacity // 2))
        for name in ("_basis", "_s_basis"):
            old, new = getattr(self, name), np.empty((n, capacity), dtype=self._basis.dtype, order="F")
            new[:, : old.shape[1]] = old
            setattr(self, name, new)
        t = np.zeros((capacity, capacity), dtype=self._basis.dtype)
        t[: len(self._t), : len(self._t)] = self._t
        self._t = t


def rayleigh_ritz(h: Product, s: Product, x: NDArray) -> tuple[NDArray[np.float64], NDArray, NDArray[np.float64]]:
    """Best solutions of H c = E S c among the combinations of some vectors.

    Parameters
    ----------
    h, s : functions
        (n, m) -> H, S times it.
    x : array, shape (n, m)

    Returns
    -------
    energies : array, shape (m,)
        Ascending.
    vectors : array, shape (n, m)
        c^dagger S c = 1.
    residuals : array, shape (m,)
        |H c - E S c|, in the unit of H.
    """
    h_x, s_x = h(x), s(x)
    scale = 1 / np.sqrt(np.abs(np.einsum("na,na->a", x.conj(), s_x)))
    h_x, s_x, x = h_x * scale, s_x * scale, x * scale
    energies, y = eigh(x.conj().T @ h_x, x.conj().T @ s_x)
    return energies, x @ y, np.linalg.norm(h_x @ y - (s_x @ y) * energies, axis=0)
