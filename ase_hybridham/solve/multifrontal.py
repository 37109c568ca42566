"""A = L D L^dagger of a sparse Hermitian matrix, front by front, on SciPy's BLAS.

A front is a dense Hermitian matrix over its own orbitals 1 and its boundary 2 (`dissection`). With A_11 = L D L^dagger
and X = L^-1 A_12,

    A = [ L            0 ] [ D   0 ] [ L^dagger   D^-1 X ]        S = A_22 - X^dagger D^-1 X,
        [ X^dagger D^-1  1 ] [ 0   S ] [ 0          1      ]

and S is added to the parent's front. Own orbitals are treated in panels of about 416, with LAPACK's Bunch-Kaufman
factorization (?hetrf, ?sytrf) of the block on the diagonal; all else is matrix products. D has blocks of one or two
rows. By Sylvester's law and Haynsworth's additivity A has as many negative eigenvalues as all D together.

Pivots are chosen within a panel only, so nothing bounds the growth of elements; who uses a factor tests it by a solve.
J. W. H. Liu, SIAM Rev. 34, 82 (1992), https://doi.org/10.1137/1034004; J. R. Bunch and L. Kaufman, Math. Comput. 31,
163 (1977), https://doi.org/10.1090/S0025-5718-1977-0428694-0.

All arrays are in Fortran's order, since f2py copies others. Rows of a front from the diagonal on are kept, one array a
panel; what lies below the diagonal in the block on the diagonal has no meaning.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, ldl
from scipy.linalg.blas import get_blas_funcs

from ase_hybridham.solve.dissection import Dissection, Front, dissect
from ase_hybridham.solve.pattern import BlockMatrix, Pattern

__all__ = ["Multifrontal", "MultifrontalFactor"]

# In single precision less than this is nothing: 1e-11 of rounding, but products of it are denormal numbers, with which
# a processor is many times slower. Far from its diagonal the factor of an S is full of them.
TINY = 1e-18


@dataclass(frozen=True, eq=False)
class _Panel:
    """One panel of w own orbitals that was eliminated, before r others of the front.

    L is `triangle` (w, w) with its rows in another order: L[order] = triangle. D^-1 has `diagonal` (w,), and above it
    `above` (n_twos,) in the rows `twos`. `coupling` (w, r) is X.
    """

    triangle: NDArray
    order: NDArray
    diagonal: NDArray
    above: NDArray
    twos: NDArray
    coupling: NDArray

    @property
    def negative(self) -> int:
        """Negative eigenvalues of D^-1, which are as many as of D."""
        pair = self.diagonal[self.twos], self.diagonal[self.twos + 1]
        is_indefinite = pair[0] * pair[1] < np.abs(self.above) ** 2
        below = self.diagonal < 0
        below[self.twos] = is_indefinite | (pair[0] < 0)
        below[self.twos + 1] = ~is_indefinite & (pair[0] < 0)
        return int(below.sum())

    def divide(self, x: NDArray) -> NDArray:
        """D^-1 x."""
        out = np.asfortranarray(self.diagonal[:, None] * x)
        if len(self.twos):
            out[self.twos] += self.above[:, None] * x[self.twos + 1]
            out[self.twos + 1] += self.above.conj()[:, None] * x[self.twos]
        return out


@dataclass(frozen=True, eq=False)
class MultifrontalFactor:
    """A factorized matrix.

    Parameters
    ----------
    rows : list of array of int
        Orbitals of each front, its own first.
    panels : list of list of _Panel
        Of each front.
    dtype : dtype
        Of the matrix.
    """

    rows: list[NDArray[np.int64]]
    panels: list[list[_Panel]]
    dtype: np.dtype

    @property
    def negative(self) -> int:
        """Number of negative eigenvalues of A."""
        return sum(panel.negative for front in self.panels for panel in front)

    @property
    def n_kept(self) -> int:
        """Numbers in memory, but for those of D."""
        return sum(panel.triangle.size + panel.coupling.size for front in self.panels for panel in front)

    def solve(self, b: NDArray) -> NDArray:
        """A^-1 b in the precision of the factor, shape (n, n_columns)."""
        x = np.array(b, dtype=self.dtype, order="C")
        gemm, trsm = get_blas_funcs(("gemm", "trsm"), dtype=self.dtype)
        for rows, panels in zip(self.rows, self.panels, strict=True):
            v = np.asfortranarray(x[rows])
            for at, panel in _with_places(panels):
                y = trsm(1.0, panel.triangle, v[at][panel.order], diag=1)
                v[at] = y
                if panel.coupling.size:
                    v[at.stop :] -= gemm(1.0, panel.coupling, panel.divide(y), trans_a=2)
            x[rows] = v
        for rows, panels in zip(reversed(self.rows), reversed(self.panels), strict=True):
            v = np.asfortranarray(x[rows])
            for at, panel in reversed(list(_with_places(panels))):
                y = v[at]
                if panel.coupling.size:
                    y = y - gemm(1.0, panel.coupling, v[at.stop :])
                z = np.empty_like(y)
                z[panel.order] = trsm(1.0, panel.triangle, panel.divide(y), trans_a=2, diag=1, overwrite_b=1)
                v[at] = z
            n_own = sum(len(panel.order) for panel in panels)
            x[rows[:n_own]] = v[:n_own]
        return x


class Multifrontal:
    """The engine for one pattern.

    Parameters
    ----------
    pattern : Pattern
    dissection : Dissection, optional
        The order of elimination; nested dissection if not given.
    """

    def __init__(self, pattern: Pattern, dissection: Dissection | None = None) -> None:
        self.pattern = pattern
        self.dissection = dissect(pattern) if dissection is None else dissection
        order = self.dissection.order
        self._place = np.empty(pattern.n, dtype=np.int64)  # of each orbital in the order of elimination
        self._place[self._orbitals(order)] = np.arange(pattern.n)

    def factor(self, matrix: BlockMatrix) -> MultifrontalFactor:
        """Factorizes a Hermitian matrix in its precision: real or complex, single or double.

        Raises
        ------
        LinAlgError
            If it is singular, or an element is not a finite number.
        """
        fronts = self.dissection.fronts
        passed_on: dict[int, list[NDArray]] = {}
        local = np.empty(self.pattern.n, dtype=np.int64)
        all_rows: list[NDArray[np.int64]] = []
        all_panels: list[list[_Panel]] = []
        for number, front in enumerate(fronts):
            rows = np.concatenate([self._orbitals(front.own), self._orbitals(front.boundary)])
            local[rows] = np.arange(len(rows))
            bounds = np.concatenate([front.own_panels, front.n_own + front.boundary_panels[1:]])
            panels = [np.zeros((b - a, len(rows) - a), dtype=matrix.dtype, order="F") for a, b in pairwise(bounds)]
            self._add_elements(front, matrix, panels, bounds, local)
            for child in front.children:
                below = fronts[child]
                _add_front(passed_on.pop(child), below, local[all_rows[child][below.n_own :]], panels, bounds)
            n_own_panels = len(front.own_panels) - 1
            all_rows.append(rows)
            all_panels.append([_eliminate(panels, bounds, p) for p in range(n_own_panels)])
            passed_on[number] = panels[n_own_panels:]
        return MultifrontalFactor(all_rows, all_panels, matrix.dtype)

    def _orbitals(self, atoms: NDArray[np.int64]) -> NDArray[np.int64]:
        starts, sizes = self.pattern.starts[atoms], self.pattern.sizes[atoms]
        skip = np.cumsum(sizes) - sizes
        return np.repeat(starts - skip, sizes) + np.arange(sizes.sum())

    def _add_elements(
        self, front: Front, matrix: BlockMatrix, panels: list[NDArray], bounds: NDArray, local: NDArray
    ) -> None:
        """Rows of A of the own atoms, from the diagonal on; what is left of it was eliminated before."""
        for atom in front.own:
            row = local[self.pattern.starts[atom]]
            p = int(np.searchsorted(bounds, row, side="right")) - 1
            columns = self.pattern.columns(atom)
            later = np.flatnonzero(self._place[columns] >= self._place[self.pattern.starts[atom]])
            block = matrix.rows(atom, later)
            first = row - bounds[p]
            panels[p][first : first + len(block), local[columns[later]] - bounds[p]] = block


def _with_places(panels: list[_Panel]) -> Iterator[tuple[slice, _Panel]]:
    start = 0
    for panel in panels:
        yield slice(start, start + len(panel.order)), panel
        start += len(panel.order)


def _add_front(given: list[NDArray], child: Front, where: NDArray, panels: list[NDArray], bounds: NDArray) -> None:
    """Adds what a child passed on; `where` its rows stand in the parent. The child's panels are freed on the way."""
    runs = np.concatenate([[0], np.flatnonzero(np.diff(where) != 1) + 1, [len(where)]])
    panel_of = np.searchsorted(bounds, where, side="right") - 1
    breaks = np.unique(np.concatenate([runs, np.flatnonzero(np.diff(panel_of)) + 1, child.boundary_panels]))
    for a, b in pairwise(breaks):
        q = int(np.searchsorted(child.boundary_panels, a, side="right")) - 1
        if a == child.boundary_panels[q] and q:
            given[q - 1] = np.empty(0)
        first, p = child.boundary_panels[q], int(panel_of[a])
        source = given[q][a - first : b - first, a - first :]
        row = where[a] - bounds[p]
        target = panels[p][row : row + b - a]
        for c, d in pairwise([a, *runs[runs > a].tolist()]):  # slices are faster than a list of columns
            column = where[c] - bounds[p]
            target[:, column : column + d - c] += source[:, c - a : d - a]


def _eliminate(panels: list[NDArray], bounds: NDArray, p: int) -> _Panel:
    """Eliminates panel p of a front from the panels after it, and frees it."""
    rows = panels[p]
    panels[p] = np.empty(0)
    gemm, trsm = get_blas_funcs(("gemm", "trsm"), dtype=rows.dtype)
    width = len(rows)
    block = rows[:, :width].copy(order="F")
    if np.iscomplexobj(block):
        np.einsum("aa->a", block).imag = 0.0
    triangle, d, order = ldl(block, lower=False, overwrite_a=True, check_finite=False)
    triangle = np.asfortranarray(triangle[order])
    coupling = np.take(rows[:, width:].T, order, axis=1).T
    del rows
    coupling = trsm(1.0, triangle, coupling, diag=1, overwrite_b=1)
    if coupling.dtype.char in "fF":
        parts = coupling.T.view(np.float32)
        parts[np.abs(parts) < TINY] = 0.0
    panel = _Panel(triangle, order, *_inverse_of_pivots(d), coupling)
    if coupling.size:
        divided = panel.divide(coupling)
        for q in range(p + 1, len(panels)):
            a, b = bounds[q] - bounds[p + 1], bounds[q + 1] - bounds[p + 1]
            left, right = divided[:, a:b], coupling[:, a:]
            panels[q] = gemm(-1.0, left, right, beta=1.0, c=panels[q], trans_a=2, overwrite_c=1)
    return panel


def _inverse_of_pivots(d: NDArray) -> tuple[NDArray, NDArray, NDArray[np.int64]]:
    """Diagonal of D^-1, its elements above the diagonal, and the rows of these; in double precision on the way."""
    diagonal = np.diagonal(d).real.astype(np.float64)
    above = np.diagonal(d, 1).astype(np.result_type(d.dtype, np.float64))
    twos = np.flatnonzero(above)
    above = above[twos]
    determinant = diagonal[twos] * diagonal[twos + 1] - np.abs(above) ** 2
    inverse = np.zeros_like(diagonal)
    single = np.ones(len(diagonal), dtype=bool)
    single[twos] = single[twos + 1] = False
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        inverse[single] = 1 / diagonal[single]
        inverse[twos], inverse[twos + 1] = diagonal[twos + 1] / determinant, diagonal[twos] / determinant
        above = -above / determinant
    if not (np.isfinite(inverse).all() and np.isfinite(above).all()):
        raise LinAlgError("a pivot is zero or not a finite number")
    real = np.zeros(0, dtype=d.dtype).real.dtype
    return inverse.astype(real), above.astype(d.dtype), twos
