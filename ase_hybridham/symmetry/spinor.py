"""Blocks with spin: quaternion parts, time reversal, and their direct sum.

A spinor block (spin-major, [[up up, up down], [down up, down down]]) is
H = h_0 1 + i (h_x s_x + h_y s_y + h_z s_z). Time reversal is complex conjugation of the four parts: in
a non-magnetic system they are real. Under a rotation h_0 is a scalar and (h_x, h_y, h_z) an axial
vector in spin space. Letters: s, t spin; q quaternion part (0, x, y, z); a, b orbitals.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_hybridham.symmetry.coupling import ComponentTable, DirectSum, DoubledDirectSum, Part, clebsch_gordan
from ase_hybridham.symmetry.wigner import proper_part
from ase_hybridham.system import PairBlocks

__all__ = [
    "MagneticDirectSum",
    "SpinorDirectSum",
    "SpinorPart",
    "quaternion_from_spinor",
    "spin_rotation",
    "spinor_from_quaternion",
    "time_reversal_error",
]

# 1, i s_x, i s_y, i s_z
UNITS = np.array([[[1, 0], [0, 1]], [[0, 1j], [1j, 0]], [[0, 1], [-1, 0]], [[1j, 0], [0, -1j]]])
# place of m = -1, 0, 1 (y, z, x) among the quaternion parts
VECTOR = [2, 3, 1]


def quaternion_from_spinor(blocks: NDArray) -> NDArray[np.complex128]:
    """Quaternion parts h_0, h_x, h_y, h_z of spinor blocks.

    Parameters
    ----------
    blocks : array, shape (..., 2 n_i, 2 n_j), complex
        Spin-major: the up orbitals of an atom, then its down orbitals.

    Returns
    -------
    array, shape (..., 4, n_i, n_j), complex
        In the unit of `blocks`; real (zero imaginary part) if the operator is even under time reversal.

    Raises
    ------
    ValueError
        If rows or columns are odd in number, as in a block without spin.
    """
    *lead, rows, columns = blocks.shape
    if rows % 2 or columns % 2:
        raise ValueError(f"blocks: expected shape (..., 2 n_i, 2 n_j), got {blocks.shape}")
    split = blocks.reshape(*lead, 2, rows // 2, 2, columns // 2)
    return 0.5 * np.einsum("qst,...satb->...qab", UNITS.conj(), split)


def spinor_from_quaternion(parts: NDArray) -> NDArray[np.complex128]:
    """Spinor blocks, shape (..., 2 n_i, 2 n_j), of their quaternion parts; inverse of `quaternion_from_spinor`."""
    *lead, _, n_i, n_j = parts.shape
    split = np.einsum("qst,...qab->...satb", UNITS, parts)
    return split.reshape(*lead, 2 * n_i, 2 * n_j)


def time_reversal_error(blocks: PairBlocks) -> float:
    """Largest |H - T H T^-1| of any element, in the unit of the values: 0 in a non-magnetic system.

    Raises
    ------
    ValueError
        If the blocks have no spin.
    """
    if not blocks.spinor:
        raise ValueError("blocks: expected spinor blocks, got blocks without spin")
    error = 0.0
    for _, _, stack in blocks.groups():
        odd = spinor_from_quaternion(2j * quaternion_from_spinor(stack).imag)
        error = max(error, float(np.abs(odd).max(initial=0.0)))
    return error


def spin_rotation(rotation: ArrayLike) -> NDArray[np.complex128]:
    """D^(1/2) of rotations: how (up, down) turns; an inversion leaves a spin as it is.

    Parameters
    ----------
    rotation : array, shape (..., 3, 3)
        Orthogonal, proper or not.

    Returns
    -------
    array, shape (..., 2, 2)
        U with U s_v U^dagger = sum_w R_wv s_w for proper R. One of the two matrices +-U; operators do not
        feel which.
    """
    R, _ = proper_part(rotation)
    # 4 q q^T of the unit quaternion q = (w, x, y, z); its largest column is q without cancellation
    outer = np.empty((*R.shape[:-2], 4, 4))
    trace = np.trace(R, axis1=-2, axis2=-1)
    outer[..., 1:, 1:] = R + np.swapaxes(R, -1, -2) + (1 - trace)[..., None, None] * np.eye(3)
    outer[..., 0, 0] = 1 + trace
    for row, (u, v) in enumerate(((2, 1), (0, 2), (1, 0)), start=1):
        outer[..., 0, row] = outer[..., row, 0] = R[..., u, v] - R[..., v, u]
    largest = np.argmax(np.diagonal(outer, axis1=-2, axis2=-1), axis=-1)
    q = np.take_along_axis(outer, largest[..., None, None], axis=-1)[..., 0]
    q /= np.linalg.norm(q, axis=-1, keepdims=True)
    return np.einsum("...q,qst->...st", q * [1, -1, -1, -1], UNITS)


@dataclass(frozen=True)
class SpinorPart(Part):
    """One irreducible part of the direct sum of a spinor block: a part without spin, times a spin.

    Spin is even under inversion, so that the parity stays (-1)^(l1+l2).

    Parameters
    ----------
    spin : int
        0 (h_0) or 1 (h_x, h_y, h_z).
    J : int
        Degree of the part, L x spin -> J; order m stands at ``start + J + m``.
    """

    spin: int
    J: int

    @property
    def degree(self) -> int:
        """Degree of the representation it turns with: J."""
        return self.J


@dataclass(frozen=True)
class SpinorDirectSum(ComponentTable):
    """Direct sum of spinor blocks: for each part of `DirectSum`, spin 0, then spin 1 with J ascending.

    Components are real for an operator even under time reversal, and orthonormal: |H|^2 = |h|^2.

    Parameters
    ----------
    rows, columns : tuple of int
        l of the shells of the two atoms, without spin.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def __post_init__(self) -> None:
        DirectSum(self.rows, self.columns)  # checks both

    @cached_property
    def orbital(self) -> DirectSum:
        """The direct sum without spin."""
        return DirectSum(self.rows, self.columns)

    @cached_property
    def parts(self) -> tuple[SpinorPart, ...]:
        """Every part: row shell, column shell, L, spin, J ascending."""
        out: list[SpinorPart] = []
        for part in self.orbital.parts:
            start = 4 * part.start
            for spin in (0, 1):
                for J in range(abs(part.L - spin), part.L + spin + 1):
                    out.append(SpinorPart(part.row_shell, part.column_shell, part.l1, part.l2, part.L, start, spin, J))
                    start += 2 * J + 1
        return tuple(out)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a spinor block."""
        n_i, n_j = self.orbital.shape
        return 2 * n_i, 2 * n_j

    @property
    def size(self) -> int:
        """Number of components, that of the elements of a spinor block."""
        return 4 * self.orbital.size

    def to_sum(self, blocks: NDArray) -> NDArray[np.complex128]:
        """Components of spinor blocks, shape (..., 2 n_i, 2 n_j) -> (..., size), complex.

        Their real part is that of the part of the operator that is even under time reversal.
        """
        if blocks.shape[-2:] != self.shape:
            raise ValueError(f"blocks: expected (..., {self.shape[0]}, {self.shape[1]}), got {blocks.shape}")
        parts = self.orbital.to_sum(quaternion_from_spinor(blocks))
        out = np.empty((*blocks.shape[:-2], self.size), dtype=np.complex128)
        for part in self.orbital.parts:
            here = parts[..., part.components]
            out[..., _components(part.start, part.L)] = here.reshape(*here.shape[:-2], -1) @ _spin_coupling(part.L)
        out *= sqrt(2.0)
        return out

    def to_blocks(self, components: NDArray) -> NDArray:
        """Spinor blocks of components, shape (..., size) -> (..., 2 n_i, 2 n_j); inverse of `to_sum`."""
        if components.shape[-1:] != (self.size,):
            raise ValueError(f"components: expected (..., {self.size}), got {components.shape}")
        lead = components.shape[:-1]
        parts = np.empty((*lead, 4, self.orbital.size), dtype=components.dtype)
        for part in self.orbital.parts:
            here = components[..., _components(part.start, part.L)] @ _spin_coupling(part.L).T
            parts[..., part.components] = here.reshape(*lead, 4, 2 * part.L + 1)
        return spinor_from_quaternion(self.orbital.to_blocks(parts)) * sqrt(0.5)

    def partner(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Where hermiticity finds the components of the reverse pair.

        ``h_ji = sign * conj(h_ij[index])`` in the lab; times S[J, m] of `wigner.reverse_sign` if each pair
        stands in its own edge frame.

        Returns
        -------
        index, sign : arrays, shape (size,)
            Of each component of the reverse pair: its place here, and (-1)^(l1+l2+L+spin).
        """
        key = [(p.row_shell, p.column_shell, p.L, p.spin, p.J) for p in self.parts]
        starts = dict(zip(key, (part.start for part in self.parts), strict=True))
        reverse = SpinorDirectSum(self.columns, self.rows)
        start = np.array([starts[p.column_shell, p.row_shell, p.L, p.spin, p.J] for p in reverse.parts])
        sign = np.array([(-1.0) ** (p.l1 + p.l2 + p.L + p.spin) for p in reverse.parts])
        return start[reverse.part_of] + reverse.order + reverse.degree, sign[reverse.part_of]


class MagneticDirectSum(DoubledDirectSum):
    """Direct sum of any spinor blocks as real numbers: the parts even under time reversal, then the odd ones.

    Components are the real and then the imaginary parts of those of `SpinorDirectSum`; orthonormal.

    Parameters
    ----------
    rows, columns : tuple of int
        l of the shells of the two atoms, without spin.
    """

    partner_sign = -1.0  # complex conjugation

    @cached_property
    def half(self) -> SpinorDirectSum:
        """The half without magnetism."""
        return SpinorDirectSum(self.rows, self.columns)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a spinor block."""
        return self.half.shape

    def to_sum(self, blocks: NDArray) -> NDArray[np.float64]:
        """Components of spinor blocks, shape (..., 2 n_i, 2 n_j) -> (..., size)."""
        h = self.half.to_sum(blocks)
        return np.concatenate([h.real, h.imag], axis=-1)

    def to_blocks(self, components: NDArray) -> NDArray:
        """Spinor blocks of components, shape (..., size) -> (..., 2 n_i, 2 n_j); inverse of `to_sum`."""
        even, odd = self.halves(components)
        return self.half.to_blocks(even + 1j * odd)


def _components(start: int, L: int) -> slice:
    """Components of all spin parts of one part without spin."""
    return slice(4 * start, 4 * (start + 2 * L + 1))


@cache
def _spin_coupling(L: int) -> NDArray[np.float64]:
    """Orthogonal matrix from (q, m) of one L to its components [spin 0 | J = |L-1| | .. | L+1]."""
    size = 2 * L + 1
    out = np.zeros((4, size, 4 * size))
    out[0, :, :size] = np.eye(size)
    start = size
    for J in range(abs(L - 1), L + 2):
        out[VECTOR, :, start : start + 2 * J + 1] = clebsch_gordan(L, 1, J).transpose(1, 0, 2)
        start += 2 * J + 1
    return out.reshape(4 * size, 4 * size)
