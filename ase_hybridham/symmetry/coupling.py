"""Coupling of two real angular momenta, and the direct sum of a block.

The product of shells l1 and l2 is the sum of L = |l1-l2| .. l1+l2:
block[a, b] = sum_L,m C[a, b, m] h_L[m], orthonormal, so that |block|^2 = sum_L |h_L|^2.
Signs are e3nn's `wigner_3j` (0.5 and later) for orbitals m = -l .. l. Letters: a, b orders of l1 and l2;
m order of L.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import factorial, sqrt
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["DirectSum", "Part", "clebsch_gordan", "polar_coupling"]


@cache
def clebsch_gordan(l1: int, l2: int, l3: int) -> NDArray[np.float64]:
    """Coupling tensor of real harmonics, l1 x l2 -> l3.

    Returns
    -------
    array, shape (2 l1+1, 2 l2+1, 2 l3+1), read-only
        Orthonormal: sum_ab C[a,b,m] C[a,b,n] = delta_mn (sqrt(2 l3+1) times a 3j of norm 1), and
        C(D1 u, D2 v) = D3 C(u, v) for proper rotations.

    Raises
    ------
    ValueError
        If the three do not fulfil the triangle rule.
    """
    if min(l1, l2, l3) < 0 or not abs(l1 - l2) <= l3 <= l1 + l2:
        raise ValueError(f"coupling: expected |l1-l2| <= l3 <= l1+l2, got ({l1}, {l2}, {l3})")
    standard = np.zeros((2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1))
    for m1 in range(-l1, l1 + 1):
        for m2 in range(max(-l2, -l3 - m1), min(l2, l3 - m1) + 1):
            standard[l1 + m1, l2 + m2, l3 + m1 + m2] = _racah(l1, m1, l2, m2, l3)
    real = np.einsum(
        "ap,bq,cr,pqr->abc", _real_basis(l1).conj(), _real_basis(l2).conj(), _real_basis(l3), standard, optimize=True
    )
    # the factor (-i)^l of each harmonic that makes the tensor real when l1+l2+l3 is odd, too
    tensor = np.ascontiguousarray((real * (-1j) ** ((l1 + l2 - l3) % 4)).real)
    tensor.flags.writeable = False
    return tensor


@cache
def polar_coupling(l1: int, l2: int, l3: int) -> NDArray[np.float64]:
    """Coupling of l1 with the harmonics of an edge in its own frame, where only m = 0 of l2 is not zero.

    With C of norm 1 (`clebsch_gordan` / sqrt(2 l3+1)): for l1+l2+l3 even, out(+-m) = c[m] in(+-m) with
    c[m] = C[m,0,m]. For odd sums the coupling takes +m to -m; with the unnatural side stored swapped,
    z(+m) = -y(-m), z(-m) = y(+m), it is m -> m again.

    Returns
    -------
    array, shape (min(l1, l3) + 1,), over m >= 0, read-only
        Even sums: C[m,0,m]. Odd sums: -C[+m,0,-m], the coefficient natural -> unnatural (swapped), and
        0 at m = 0; unnatural (swapped) -> natural has the opposite sign.
    """
    tensor = clebsch_gordan(l1, l2, l3)[:, l2, :] / sqrt(2 * l3 + 1)
    m = np.arange(min(l1, l3) + 1)
    out = tensor[l1 + m, l3 + m] if (l1 + l2 + l3) % 2 == 0 else -tensor[l1 + m, l3 - m]
    out.flags.writeable = False
    return out


@dataclass(frozen=True)
class Part:
    """One irreducible part of a direct sum.

    Parameters
    ----------
    row_shell, column_shell : int
        Positions of the two shells.
    l1, l2 : int
        Their degrees.
    L : int
        Degree of the part.
    start : int
        Component of m = -L; order m stands at ``start + L + m``.
    """

    row_shell: int
    column_shell: int
    l1: int
    l2: int
    L: int
    start: int

    @property
    def degree(self) -> int:
        """Degree of the representation it turns with: L."""
        return self.L

    @property
    def natural(self) -> bool:
        """Whether its parity (-1)^(l1+l2) is (-1)^degree."""
        return (self.l1 + self.l2 + self.degree) % 2 == 0

    @property
    def components(self) -> slice:
        """Its 2 degree + 1 components."""
        return slice(self.start, self.start + 2 * self.degree + 1)


class ComponentTable:
    """What is known of every component of a direct sum, from the list of its parts."""

    @property
    def parts(self) -> Sequence[Part]:
        """The parts, in the order of their components."""
        raise NotImplementedError

    @cached_property
    def part_of(self) -> NDArray[np.int64]:
        """Position in `parts` of every component, shape (size,)."""
        return np.repeat(np.arange(len(self.parts)), [2 * part.degree + 1 for part in self.parts])

    @cached_property
    def degree(self) -> NDArray[np.int64]:
        """Degree of the part of every component, shape (size,)."""
        return np.array([part.degree for part in self.parts])[self.part_of]

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """m of every component, shape (size,)."""
        return np.concatenate([np.arange(-part.degree, part.degree + 1) for part in self.parts])

    @cached_property
    def natural(self) -> NDArray[np.bool_]:
        """Whether the part of a component has the parity (-1)^degree, shape (size,)."""
        return np.array([part.natural for part in self.parts])[self.part_of]


@dataclass(frozen=True)
class DoubledDirectSum(ComponentTable):
    """A direct sum twice over: a second half with the parts of the first.

    Parameters
    ----------
    rows, columns : tuple of int
        l of the shells of the two atoms, without spin.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    partner_sign: ClassVar[float] = 1.0  # of the second half under hermiticity

    def __post_init__(self) -> None:
        _ = self.half  # checks both

    @property
    def half(self) -> Any:
        """The direct sum of one half."""
        raise NotImplementedError

    @cached_property
    def parts(self) -> tuple[Any, ...]:
        """The parts of `half` twice."""
        second = (replace(part, start=part.start + self.half.size) for part in self.half.parts)
        return (*self.half.parts, *second)

    @property
    def size(self) -> int:
        """Number of components."""
        return 2 * int(self.half.size)

    def halves(self, components: NDArray) -> tuple[NDArray, NDArray]:
        """Components of the two halves, shape (..., size) -> (..., size / 2) each."""
        if components.shape[-1:] != (self.size,):
            raise ValueError(f"components: expected (..., {self.size}), got {components.shape}")
        first, second = np.split(components, 2, axis=-1)
        return first, second

    def partner(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Where hermiticity finds the components of the reverse pair, as the `partner` of `half`."""
        index, sign = self.half.partner()
        return np.concatenate([index, index + len(index)]), np.concatenate([sign, self.partner_sign * sign])


@dataclass(frozen=True)
class DirectSum(ComponentTable):
    """Direct sum of the blocks between two atoms: shell pairs in row order, and for each L ascending.

    Parameters
    ----------
    rows, columns : tuple of int
        l of the shells of the two atoms.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def __post_init__(self) -> None:
        for name, degrees in (("rows", self.rows), ("columns", self.columns)):
            if not degrees or min(degrees) < 0:
                raise ValueError(f"direct sum: expected the l >= 0 of at least one shell as {name}, got {degrees}")

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Every part: row shell, column shell, L ascending."""
        out, start = [], 0
        for row, l1 in enumerate(self.rows):
            for column, l2 in enumerate(self.columns):
                for L in range(abs(l1 - l2), l1 + l2 + 1):
                    out.append(Part(row, column, l1, l2, L, start))
                    start += 2 * L + 1
        return tuple(out)

    @property
    def shape(self) -> tuple[int, int]:
        """Orbitals of the two atoms."""
        return sum(2 * l + 1 for l in self.rows), sum(2 * l + 1 for l in self.columns)

    @property
    def size(self) -> int:
        """Number of components, that of the elements of a block."""
        n_rows, n_columns = self.shape
        return n_rows * n_columns

    @cached_property
    def matrix(self) -> NDArray[np.float64]:
        """Orthogonal matrix, shape (n_i n_j, size): ``block.ravel() = matrix @ h``."""
        tensor = np.zeros((*self.shape, self.size))
        for part, rows, columns in self._placed_parts():
            tensor[rows, columns, part.components] = clebsch_gordan(part.l1, part.l2, part.L)
        out = tensor.reshape(self.size, self.size)
        out.flags.writeable = False
        return out

    def to_sum(self, blocks: NDArray) -> NDArray:
        """Components of blocks, shape (..., n_i, n_j) -> (..., size); keeps the dtype and the norm."""
        if blocks.shape[-2:] != self.shape:
            raise ValueError(f"blocks: expected (..., {self.shape[0]}, {self.shape[1]}), got {blocks.shape}")
        return blocks.reshape(*blocks.shape[:-2], self.size) @ self.matrix.astype(blocks.real.dtype, copy=False)

    def to_blocks(self, components: NDArray) -> NDArray:
        """Blocks of components, shape (..., size) -> (..., n_i, n_j); inverse of `to_sum`."""
        if components.shape[-1:] != (self.size,):
            raise ValueError(f"components: expected (..., {self.size}), got {components.shape}")
        blocks = components @ self.matrix.T.astype(components.real.dtype, copy=False)
        return blocks.reshape(*components.shape[:-1], *self.shape)

    def partner(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Where hermiticity finds the components of the reverse pair.

        For a real symmetric operator the components of block (j, i, -R), a
        ``DirectSum(columns, rows)``, are ``h_ji = sign * h_ij[index]`` in the lab (conjugated if the
        operator is complex Hermitian). If each pair stands in its own edge frame, multiply by the S[L, m]
        of `wigner.reverse_sign` too, since D(ji) = S D(ij).

        Returns
        -------
        index, sign : arrays, shape (size,)
            Of each component of the reverse pair: its place here, and (-1)^(l1+l2+L).
        """
        starts = {(part.row_shell, part.column_shell, part.L): part.start for part in self.parts}
        reverse = DirectSum(self.columns, self.rows)
        start = np.array([starts[part.column_shell, part.row_shell, part.L] for part in reverse.parts])
        index = start[reverse.part_of] + reverse.order + reverse.degree
        return index, np.where(reverse.natural, 1.0, -1.0)

    def _placed_parts(self) -> Iterator[tuple[Part, slice, slice]]:
        """Every part with its rows and columns of the block."""
        starts = [np.cumsum([0, *(2 * l + 1 for l in degrees)]) for degrees in (self.rows, self.columns)]
        for part in self.parts:
            row, column = starts[0][part.row_shell], starts[1][part.column_shell]
            yield part, slice(row, row + 2 * part.l1 + 1), slice(column, column + 2 * part.l2 + 1)


def _racah(l1: int, m1: int, l2: int, m2: int, l3: int) -> float:
    """<l1 m1 l2 m2 | l3 m1+m2>, Condon-Shortley phases: Racah's sum in integers, one rounding at the end."""
    m3 = m1 + m2
    total = 0
    least = max(0, l2 - l3 - m1, l1 - l3 + m2)
    most = min(l1 + l2 - l3, l1 - m1, l2 + m2)
    # over a common denominator each term is a product of integers
    common = factorial(l1 + l2 - l3) * factorial(l1 - m1) * factorial(l2 + m2)
    common *= factorial(l3 - l2 + m1 + most) * factorial(l3 - l1 - m2 + most) * factorial(most)
    for k in range(least, most + 1):
        term = factorial(k) * factorial(l1 + l2 - l3 - k) * factorial(l1 - m1 - k) * factorial(l2 + m2 - k)
        term *= factorial(l3 - l2 + m1 + k) * factorial(l3 - l1 - m2 + k)
        total += (-1) ** k * (common // term)
    square = (2 * l3 + 1) * factorial(l3 + l1 - l2) * factorial(l3 - l1 + l2) * factorial(l1 + l2 - l3)
    for l, m in ((l1, m1), (l2, m2), (l3, m3)):
        square *= factorial(l + m) * factorial(l - m)
    return total * sqrt(square / (factorial(l1 + l2 + l3 + 1) * common**2))


def _real_basis(l: int) -> NDArray[np.complex128]:
    """U with Y_m (real) = sum_n U[m, n] Y^n (complex, Condon-Shortley), shape (2l+1, 2l+1)."""
    U = np.zeros((2 * l + 1, 2 * l + 1), dtype=np.complex128)
    U[l, l] = 1.0
    for m in range(1, l + 1):
        U[l + m, l + m], U[l + m, l - m] = (-1) ** m * sqrt(0.5), sqrt(0.5)
        U[l - m, l + m], U[l - m, l - m] = -1j * (-1) ** m * sqrt(0.5), 1j * sqrt(0.5)
    return U
