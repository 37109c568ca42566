"""Which cells do two lattices nearly share, one turned against the other? Angle, strain and size, and which to take.

Letters: A, B rows of lattice vectors of the lower and the upper layer; M, N integer matrices of their common cell,
M A = N B T F, where T turns clockwise by the angle that was asked for and F is what is left: its rotation is the
error of the angle, its stretch the strain. Rows u of M A and v of N B T that lie near each other are found first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, radians, sin, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Twist", "best_twist", "common_cells", "misfit"]

THINNEST = 2.0  # ratio of the lengths of the cell vectors
MOST_VECTORS = 1500  # that make pairs
CHUNK = 100  # of them at a time
NOTICEABLE = 1.25  # ratio of sizes, errors and strains that a person would weigh against each other
LEAST_ERROR, LEAST_STRAIN = 2e-3, 2e-4  # degrees; what lies below is as good as none
ROUNDING = 1e-6  # degrees of angle, and relative strain, that count as none


@dataclass(frozen=True, eq=False)  # arrays have no truth value
class Twist:
    """A common cell of two lattices.

    Parameters
    ----------
    lower, upper : array of int, shape (2, 2)
        M and N: rows are the vectors of the common cell in the lattice vectors of each layer.
    angle : float
        By which the upper layer is turned clockwise against the lower, seen from above; degrees.
    angle_error : float
        `angle` minus that which was asked for, degrees.
    strain : float
        Larger of the two principal strains by which the lattices differ, without sign.
    n_atoms : int
        Of one layer of each.
    """

    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    angle: float
    angle_error: float
    strain: float
    n_atoms: int

    @property
    def is_exact(self) -> bool:
        """Whether no layer needs strain."""
        return self.strain < ROUNDING


def common_cells(
    lower: ArrayLike,
    upper: ArrayLike,
    angle: float,
    *,
    angle_tolerance: float,
    strain: float,
    max_area: float,
    atoms: tuple[int, int] = (1, 1),
) -> list[Twist]:
    """Common cells of two lattices, those that no other beats noticeably in size, angle and strain; smallest first.

    Parameters
    ----------
    lower, upper : array, shape (2, 2)
        Rows of lattice vectors, angstrom.
    angle : float
        Of the upper against the lower, clockwise, degrees.
    angle_tolerance, strain : float
        Largest difference of the angle in degrees, and `Twist.strain`.
    max_area : float
        Of the common cell, angstrom^2.
    atoms : tuple of 2 int
        In a cell of each lattice.
    """
    A, B = np.asarray(lower, dtype=float), np.asarray(upper, dtype=float)
    turned = B @ _clockwise(angle)
    ours, theirs = _near_vectors(A, turned, sqrt(max_area * THINNEST / sqrt(0.75)), strain + radians(angle_tolerance))
    found = []
    for start in range(0, len(ours), CHUNK):
        M, N = _with_partners(slice(start, start + CHUNK), ours, theirs, A, max_area)
        error, stretch = misfit(M @ A, N @ turned)
        fits = (np.abs(error) <= angle_tolerance + ROUNDING) & (stretch <= strain + ROUNDING)
        sizes = atoms[0] * np.linalg.det(M[fits]).round() + atoms[1] * np.linalg.det(N[fits]).round()
        found.append((M[fits], N[fits], error[fits], stretch[fits], sizes))
    if not found:
        return []
    M, N, error, stretch, sizes = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return [
        Twist(M[n], N[n], angle + float(error[n]), float(error[n]), float(stretch[n]), int(sizes[n]))
        for n in _front(M @ A, sizes, error, stretch)
    ]


def best_twist(candidates: Sequence[Twist]) -> Twist:
    """The smallest cell that needs no strain; if each does, the smallest."""
    return min(candidates, key=lambda twist: (not twist.is_exact, twist.n_atoms, abs(twist.angle_error)))


def misfit(cells: NDArray[np.float64], turned: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Clockwise rotation in degrees and largest principal strain of F with cells = turned F, both (n, 2, 2)."""
    (a, b), (c, d) = np.moveaxis(np.linalg.solve(turned, cells), 0, -1)
    rotation = np.degrees(np.arctan2(c - b, a + d))
    mean, half = 0.5 * np.hypot(a + d, b - c), 0.5 * np.hypot(a - d, b + c)
    return rotation, np.maximum(np.abs(mean + half - 1), np.abs(mean - half - 1))


def _clockwise(angle: float) -> NDArray[np.float64]:
    """What turns row vectors."""
    c, s = cos(radians(angle)), sin(radians(angle))
    return np.array([[c, -s], [s, c]])


def _near_vectors(
    A: NDArray[np.float64], turned: NDArray[np.float64], longest: float, tolerance: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Integer vectors of both lattices, one of each u and -u, whose ends differ by at most tolerance times |u|.

    Of random lattices the best differ by about area / |u|. That product ranks them, so that short and long ones,
    hence small and large cells, have the same chance.
    """
    reach = np.ceil(longest * np.linalg.norm(np.linalg.inv(A), axis=0) + 1e-9).astype(int)
    p, q = np.meshgrid(np.arange(-reach[0], reach[0] + 1), np.arange(reach[1] + 1), indexing="ij")
    ours = np.stack([p, q], axis=-1).reshape(-1, 2)
    ours = ours[(ours[:, 1] > 0) | (ours[:, 0] > 0)]
    u = ours @ A
    lengths = np.linalg.norm(u, axis=1)
    near = lengths <= longest * (1 + 1e-9)
    ours, u, lengths = ours[near], u[near], lengths[near]
    nearest = np.rint(u @ np.linalg.inv(turned)).astype(np.int64)
    around = np.array([[s, t] for s in (-1, 0, 1) for t in (-1, 0, 1)])
    theirs = (nearest[:, None] + around).reshape(-1, 2)
    ours, u, lengths = (np.repeat(values, len(around), axis=0) for values in (ours, u, lengths))
    apart = np.linalg.norm(theirs @ turned - u, axis=1)
    close = np.flatnonzero(apart <= tolerance * lengths + 1e-9)
    best = close[np.lexsort([lengths[close], (apart * lengths)[close].round(6)])[:MOST_VECTORS]]
    return ours[best], theirs[best]


def _with_partners(
    rows: slice, ours: NDArray[np.int64], theirs: NDArray[np.int64], A: NDArray[np.float64], max_area: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """M and N of compact, right-handed cells whose shorter vector is one of these."""
    u, others = ours[rows] @ A, ours @ A
    area = u[:, :1] * others[:, 1] - u[:, 1:] * others[:, 0]
    length, lengths = np.linalg.norm(u, axis=1)[:, None], np.linalg.norm(others, axis=1)
    compact = np.abs(u @ others.T) <= 0.5 * length**2 * (1 + 1e-6)
    compact &= (lengths >= length * (1 - 1e-6)) & (lengths <= THINNEST * length * (1 + 1e-6))
    first, second = np.nonzero(compact & (np.abs(area) > 1e-3) & (np.abs(area) <= max_area * (1 + 1e-9)))
    signs = np.sign(area[first, second]).astype(np.int64)[:, None]
    M, N = (np.stack([near[rows][first], signs * near[second]], axis=1) for near in (ours, theirs))
    proper = N[:, 0, 0] * N[:, 1, 1] > N[:, 0, 1] * N[:, 1, 0]
    return M[proper], N[proper]


def _front(
    cells: NDArray[np.float64], sizes: NDArray[np.float64], error: NDArray[np.float64], stretch: NDArray[np.float64]
) -> list[int]:
    """Rows that no other beats noticeably, smallest first; of equal ones the most compact cell, at an obtuse angle.

    Taken one by one, each with all it beats, or nearly, away: in an order in which what beats comes first.
    """
    figures = np.column_stack([sizes, np.abs(error) + LEAST_ERROR, stretch + LEAST_STRAIN])
    lengths = np.linalg.norm(cells, axis=2).sum(axis=1).round(4)
    obtuse = np.einsum("nx,nx->n", cells[:, 0], cells[:, 1]).round(4) <= 0
    waiting, front = np.lexsort([~obtuse, lengths, np.log(figures).sum(axis=1).round(6)]), []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        front.append(int(best))
        waiting = waiting[(figures[best] > NOTICEABLE * figures[waiting]).any(axis=1)]
    return sorted(front, key=lambda n: (sizes[n], abs(error[n])))
