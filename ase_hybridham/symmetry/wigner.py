"""Wigner matrices of real spherical harmonics, from matrix entries alone: no angles, no exponentials.

Y_l(R v) = D_l(R) Y_l(v); D acts on column vectors of orbitals. Every rotation is
R = Rz(a) Ry(b) Rz(c). Rz is diagonal in |m| (`_turn`); Ry is Rz in a frame in which x stays and y
becomes z, so D_l(Ry(b)) = J Z(b) J^T with one constant matrix J per degree, a polynomial of the cosines
and sines of b .. l b: one table F per degree, one matrix product for all rotations.
Letters: a, b, c Euler angles (only their cosines and sines occur); e edge.
"""

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_hybridham.symmetry.harmonics import spherical_harmonics

__all__ = ["alignment_matrices", "reverse_sign", "wigner_D"]

# A vertical pair of a real structure has x, y of 1e-16, whose azimuth is noise and unrelated in (ij)
# and (ji): below this fraction of the length a vector counts as vertical.
POLE = 1e-9
ORTHOGONAL = 1e-8


def alignment_matrices(vectors: ArrayLike, lmax: int) -> list[NDArray[np.float64]]:
    """Matrices that turn orbitals into the frame of each edge, whose z axis is the edge.

    D_l Y_l(v) = sqrt(2l+1) e_{m=0}. The frame's rotation about the edge follows from the azimuth;
    of the reverse vector it is such that D_l(-v) = S_l D_l(v) with `reverse_sign`, at the poles too.

    Parameters
    ----------
    vectors : array, shape (E, 3)
        Any lengths. A vector within 1e-9 of the z axis counts as vertical; a zero vector has the frame
        of the lab (and no reverse).
    lmax : int
        Largest degree.

    Returns
    -------
    list over l of arrays, shape (E, 2l+1, 2l+1)
        Edge frame <- lab.

    Raises
    ------
    ValueError
        If `vectors` is not (E, 3).
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    if vectors.ndim != 2 or vectors.shape[1] != 3:
        raise ValueError(f"vectors: expected shape (E, 3), got {vectors.shape}")
    lengths = np.linalg.norm(vectors, axis=1)
    unit = vectors / np.where(lengths > 0, lengths, 1.0)[:, None]
    sin_b = np.hypot(unit[:, 0], unit[:, 1])
    pole = sin_b <= POLE
    down = pole & (unit[:, 2] < 0)
    cos_b = np.where(pole, np.where(down, -1.0, 1.0), unit[:, 2])
    safe = np.where(pole, 1.0, sin_b)
    # azimuth 0 upward and pi downward: what reversing a vector does to the azimuth elsewhere
    cos_a = np.where(pole, np.where(down, -1.0, 1.0), unit[:, 0] / safe)
    sin_a = np.where(pole, 0.0, unit[:, 1] / safe)
    sin_b = np.where(pole, 0.0, sin_b)

    cosines_a, sines_a = _multiples(cos_a, sin_a, lmax)
    cosines_b, sines_b = _multiples(cos_b, sin_b, lmax)
    out = []
    for l in range(lmax + 1):
        polar = _polar(l, cosines_b, sines_b)
        out.append(_turn(polar.transpose(0, 2, 1), cosines_a, sines_a))
    return out


def wigner_D(l: int, rotation: ArrayLike) -> NDArray[np.float64]:
    """Matrix of a rotation, proper or not, on the orbitals of degree l.

    An inversion multiplies harmonics of natural parity by (-1)^l.

    Parameters
    ----------
    l : int
        Degree.
    rotation : array, shape (..., 3, 3)
        Orthogonal, on column vectors x, y, z.

    Returns
    -------
    array, shape (..., 2l+1, 2l+1)
        D with Y_l(R v) = D Y_l(v).

    Raises
    ------
    ValueError
        If a matrix is not orthogonal (to 1e-8).
    """
    proper, det = proper_part(rotation)
    lead = proper.shape[:-2]
    R = proper.reshape(-1, 3, 3)
    sin_b = np.hypot(R[:, 0, 2], R[:, 1, 2])
    vertical = sin_b == 0
    safe = np.where(vertical, 1.0, sin_b)
    cos_a, sin_a = np.where(vertical, 1.0, R[:, 0, 2] / safe), np.where(vertical, 0.0, R[:, 1, 2] / safe)
    # row y of Rz(-a) R = Ry(b) Rz(c); whatever error a has near a pole, c takes it back
    sin_c = cos_a * R[:, 1, 0] - sin_a * R[:, 0, 0]
    cos_c = cos_a * R[:, 1, 1] - sin_a * R[:, 0, 1]
    norm = np.hypot(sin_c, cos_c)

    polar = _polar(l, *_multiples(R[:, 2, 2], sin_b, l))
    right = _turn(polar, *_multiples(cos_c / norm, -sin_c / norm, l))  # Z(c) = Z(-c)^T
    D = _turn(right.transpose(0, 2, 1), *_multiples(cos_a, sin_a, l)).transpose(0, 2, 1)
    return D.reshape(*lead, 2 * l + 1, 2 * l + 1) * (det[..., None, None] if l % 2 else 1.0)


def reverse_sign(lmax: int) -> list[NDArray[np.float64]]:
    """Signs between the frames of an edge and of its reverse: D_l(-v) = diag(S_l) D_l(v).

    Returns
    -------
    list over l of arrays, shape (2l+1,)
        (-1)^(l+m) for m >= 0, -(-1)^(l+m) for m < 0.
    """
    orders = [np.arange(-l, l + 1) for l in range(lmax + 1)]
    return [np.where(m < 0, -1.0, 1.0) * (-1.0) ** ((l + m) % 2) for l, m in enumerate(orders)]


def proper_part(rotation: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """det(R) R and det(R) = +-1 of orthogonal matrices, shapes (..., 3, 3) and (...)."""
    R = np.asarray(rotation, dtype=np.float64)
    if R.shape[-2:] != (3, 3):
        raise ValueError(f"rotation: expected shape (..., 3, 3), got {R.shape}")
    error = np.abs(R @ np.swapaxes(R, -1, -2) - np.eye(3)).max(initial=0.0)
    if not error <= ORTHOGONAL:
        raise ValueError(f"rotation: expected an orthogonal matrix, got max|R R^T - 1| = {error:.1e}")
    det = np.sign(np.linalg.det(R))
    return R * det[..., None, None], det


def _multiples(cos: NDArray, sin: NDArray, lmax: int) -> tuple[NDArray, NDArray]:
    """Cosines and sines of 0, 1, .. lmax times an angle, each of shape (E, lmax+1)."""
    phase = np.empty((len(cos), lmax + 1), dtype=np.complex128)
    phase[:, 0] = 1.0
    for m in range(1, lmax + 1):
        phase[:, m] = phase[:, m - 1] * (cos + 1j * sin)
    return phase.real, phase.imag


def _turn(matrices: NDArray, cosines: NDArray, sines: NDArray) -> NDArray[np.float64]:
    """matrices @ Z(a)^T: mixes only columns +m and -m. Z(a) Y = Y of azimuth + a."""
    l = matrices.shape[-1] // 2
    out = np.array(matrices)
    for m in range(1, l + 1):
        plus, minus = matrices[:, :, l + m], matrices[:, :, l - m]
        cos, sin = cosines[:, m, None], sines[:, m, None]
        out[:, :, l + m] = plus * cos - minus * sin
        out[:, :, l - m] = plus * sin + minus * cos
    return out


def _polar(l: int, cosines: NDArray, sines: NDArray) -> NDArray[np.float64]:
    """D_l(Ry(b)), shape (E, 2l+1, 2l+1)."""
    waves = np.concatenate([cosines[:, : l + 1], sines[:, 1 : l + 1]], axis=1)
    return (waves @ _polar_table(l)).reshape(-1, 2 * l + 1, 2 * l + 1)


@cache
def _polar_table(l: int) -> NDArray[np.float64]:
    """F with D_l(Ry(b)) = sum_k cos(k b) F[k] + sin(k b) F[l + k], shape (2l+1, (2l+1)^2)."""
    J = _axis_change(l)
    table = np.zeros((2 * l + 1, 2 * l + 1, 2 * l + 1))
    table[0] = np.outer(J[:, l], J[:, l])
    for k in range(1, l + 1):
        plus, minus = J[:, l + k], J[:, l - k]
        table[k] = np.outer(plus, plus) + np.outer(minus, minus)
        table[l + k] = np.outer(minus, plus) - np.outer(plus, minus)
    return table.reshape(2 * l + 1, -1)


def _axis_change(l: int) -> NDArray[np.float64]:
    """J = D_l(K) of the quarter turn K about x that takes z to y, so that Ry(b) = K Rz(b) K^T."""
    K = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
    points = np.random.default_rng(0).normal(size=(8 * (2 * l + 1), 3))
    before, after = spherical_harmonics(points, l)[l], spherical_harmonics(points @ K.T, l)[l]
    J = np.asarray(np.linalg.lstsq(before, after, rcond=None)[0].T, dtype=np.float64)
    J[np.abs(J) < 1e-13] = 0.0  # half of the entries vanish by symmetry
    return J
