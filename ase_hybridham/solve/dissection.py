"""The order in which atoms are eliminated: nested dissection, and what a factorization in this order costs.

A set of atoms is cut along a coordinate into a left part, a right part and a separator, the neighbors of the left part,
so that no element connects left and right. Both parts are cut again; the separator is eliminated after them. Atoms
eliminated together are a *front*: a dense matrix over its own atoms and its *boundary*, the later atoms that it or its
children touch. Periodic images need no care, since they are neighbors: the first separator of a crystal consists of two
walls.

A. George, SIAM J. Numer. Anal. 10, 345 (1973), https://doi.org/10.1137/0710032; fronts: I. S. Duff and J. K. Reid, ACM
Trans. Math. Softw. 9, 302 (1983), https://doi.org/10.1145/356044.356047. Atoms are ordered, not orbitals: the graph is
169 times smaller for 13 orbitals, and nothing is lost, since an atom's orbitals all have the same neighbors.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ase_hybridham.solve.pattern import Pattern

__all__ = ["Dissection", "Front", "dissect"]

# A set of so few orbitals is not cut: cuts save nothing where the range of orbitals is a good part of the set.
LEAF = 520
# Columns that are eliminated together: enough for matrix products to be fast, few enough for the pivoting within.
PANEL = 416
# A cut must leave at least this share of the set to the right, or the set stays whole.
LEAST_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class Front:
    """Atoms eliminated together.

    Parameters
    ----------
    own : array of int
        Atoms that are eliminated here, in this order.
    boundary : array of int
        Atoms eliminated later that this touches, in the order of their elimination.
    children : tuple of int
        Fronts that end in this one, places in `Dissection.fronts`.
    own_panels, boundary_panels : arrays of int
        Bounds in orbitals, from 0 to all, between which rows are treated together; never within an atom.
    """

    own: NDArray[np.int64]
    boundary: NDArray[np.int64]
    children: tuple[int, ...]
    own_panels: NDArray[np.int64]
    boundary_panels: NDArray[np.int64]

    @property
    def n_own(self) -> int:
        """Orbitals eliminated here."""
        return int(self.own_panels[-1])

    @property
    def n_boundary(self) -> int:
        """Orbitals of the boundary."""
        return int(self.boundary_panels[-1])

    @property
    def n_passed_on(self) -> int:
        """Numbers kept for the parent: rows of the boundary from the diagonal on, in panels."""
        return _trapezoid(self.boundary_panels, self.n_boundary)

    @property
    def n_kept(self) -> int:
        """Numbers that solving with the factorization needs."""
        return _trapezoid(self.own_panels, self.n_own + self.n_boundary)


@dataclass(frozen=True, eq=False)
class Dissection:
    """Fronts in an order where children stand before their parent.

    Parameters
    ----------
    fronts : tuple of Front
    """

    fronts: tuple[Front, ...]

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """Atoms in the order of their elimination."""
        return np.concatenate([front.own for front in self.fronts])

    @property
    def n_entries(self) -> int:
        """Numbers in L, the diagonal included."""
        return sum(f.n_own * (f.n_own + 1) // 2 + f.n_own * f.n_boundary for f in self.fronts)

    @property
    def n_kept(self) -> int:
        """Numbers the multifrontal engine keeps: L, and the other half of the blocks on the diagonal."""
        return sum(front.n_kept for front in self.fronts)

    @property
    def n_products(self) -> int:
        """Multiplications, each with its addition, that the factorization takes."""
        # column j of a front of m rows updates the triangle of the m - j - 1 that follow
        return sum(_pyramid(f.n_own + f.n_boundary) - _pyramid(f.n_boundary) for f in self.fronts)

    def flops(self, is_complex: bool = True) -> int:
        """Floating-point operations of the factorization; a complex product with its addition has eight."""
        return (8 if is_complex else 2) * self.n_products

    @property
    def n_peak(self) -> int:
        """Numbers in memory at the worst moment of the factorization, what is kept included."""
        kept = passed_on = peak = 0
        for front in self.fronts:
            whole = front.n_kept + front.n_passed_on
            # a copy of the widest panel is alive while it is eliminated
            widths = np.diff(front.own_panels)
            copies = int((widths * (front.n_own + front.n_boundary - front.own_panels[1:])).max(initial=0))
            peak = max(peak, kept + passed_on + whole)
            passed_on -= sum(self.fronts[child].n_passed_on for child in front.children)
            peak = max(peak, kept + passed_on + whole + copies)
            passed_on += front.n_passed_on
            kept += front.n_kept
        return peak


def dissect(pattern: Pattern, *, leaf: int = LEAF, panel: int = PANEL) -> Dissection:
    """Nested dissection of a structure.

    Parameters
    ----------
    pattern : Pattern
    leaf : int
        Sets of at most so many orbitals are not cut.
    panel : int
        Orbitals treated together, at least one atom.
    """
    if leaf < 1 or panel < 1:
        raise ValueError(f"dissection: expected leaf and panel of at least 1 orbital, got {leaf} and {panel}")
    own: list[NDArray[np.int64]] = []
    children: list[tuple[int, ...]] = []

    def visit(atoms: NDArray[np.int64]) -> tuple[int, ...]:
        """Appends the fronts of a set of atoms; the places of those without a parent yet."""
        parts = _cut(pattern, atoms) if pattern.sizes[atoms].sum() > leaf else None
        below: tuple[int, ...] = ()
        if parts is not None:
            left, atoms, right = parts
            below = (*visit(left), *visit(right))
            if not len(atoms):  # two pieces that do not touch
                return below
        own.append(atoms)
        children.append(below)
        return (len(own) - 1,)

    if len(pattern.sizes):
        visit(np.arange(len(pattern.sizes)))
    return _with_boundaries(pattern, own, children, panel)


def _with_boundaries(
    pattern: Pattern, own: list[NDArray[np.int64]], children: list[tuple[int, ...]], panel: int
) -> Dissection:
    rank = np.empty(len(pattern.sizes), dtype=np.int64)
    order = np.concatenate(own) if own else np.empty(0, dtype=np.int64)
    rank[order] = np.arange(len(order))
    graph, fronts = pattern.graph, list[Front]()
    for atoms, below in zip(own, children, strict=True):
        touched = [graph[atoms].indices, *(fronts[child].boundary for child in below)]
        ranks = np.unique(rank[np.concatenate(touched)])
        boundary = order[ranks[ranks > rank[atoms[-1]]]]
        bounds = (_panels(pattern.sizes[some], panel) for some in (atoms, boundary))
        fronts.append(Front(atoms, boundary, below, *bounds))
    return Dissection(tuple(fronts))


def _cut(
    pattern: Pattern, atoms: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]] | None:
    """Left, separator and right part of the best cut, or None where no cut is worth it."""
    graph, weights = pattern.graph[atoms][:, atoms], pattern.sizes[atoms].astype(float)
    best, least = None, np.inf
    for coordinate in pattern.coordinates[atoms].T:
        order = np.argsort(coordinate, kind="stable")
        low, high = 0, len(atoms)
        while high - low > 1:  # the left part grows with the cut, the right part shrinks
            middle = (low + high) // 2
            part = _parts(graph, order[:middle])
            left, _, right = (weights[part == p].sum() for p in (0, 1, 2))
            low, high = (middle, high) if left <= right else (low, middle)
        for at in {low, high} - {0, len(atoms)}:
            part = _parts(graph, order[:at])
            left, separator, right = (weights[part == p].sum() for p in (0, 1, 2))
            cost = separator + 0.5 * abs(left - right)
            if cost < least and min(left, right) >= LEAST_SHARE * weights.sum():
                best, least = part, cost
    if best is None:
        return None
    return tuple(_along(pattern, atoms[best == p]) for p in (0, 1, 2))  # type: ignore[return-value]


def _parts(graph: csr_array, first: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 left, 1 separator, 2 right, of every atom; what the separator need not hold goes left."""
    is_left = np.zeros(graph.shape[0])
    is_left[first] = 1.0
    is_right = (graph @ is_left == 0).astype(float)
    is_right[first] = 0.0
    touches_right = graph @ is_right > 0
    return np.where(is_right > 0, 2, np.where((is_left > 0) | ~touches_right, 0, 1))


def _along(pattern: Pattern, atoms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Atoms in the order of the coordinate in which they are spread most, so that neighbors are often adjacent."""
    if not len(atoms):
        return atoms
    coordinates = pattern.coordinates[atoms]
    return atoms[np.argsort(coordinates[:, np.ptp(coordinates, axis=0).argmax()], kind="stable")]


def _panels(sizes: NDArray[np.int64], panel: int) -> NDArray[np.int64]:
    """Bounds of runs of whole atoms of about so many orbitals, nearly equal."""
    ends = np.concatenate([[0], np.cumsum(sizes)])
    n_panels = max(1, -(-int(ends[-1]) // panel))
    wanted = np.linspace(0, ends[-1], n_panels + 1)
    return np.unique(ends[np.searchsorted(ends, wanted)])


def _trapezoid(bounds: NDArray[np.int64], width: int) -> int:
    """Numbers in rows from the diagonal to a width, stored in panels."""
    return int((np.diff(bounds) * (width - bounds[:-1])).sum())


def _pyramid(m: int) -> int:
    """Sum of triangles with 1 to m - 1 rows: j (j + 1) / 2 over j < m."""
    return (m - 1) * m * (m + 1) // 6
