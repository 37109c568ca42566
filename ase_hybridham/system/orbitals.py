"""The one table of orbital orders: how programs order and sign the 2l+1 orbitals of a shell.

Inside this package a shell is m = -l .. l of the real spherical harmonics without
Condon-Shortley sign. A reader converts at its door; nothing inside permutes orbitals.
Sources of the table: the programs' own output, checked by the covariance of overlaps.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["ORBITAL_ORDERS", "convert_orbitals", "orbital_order"]

MAX_DEGREE = 6


def _ascending(l: int) -> list[int]:
    return list(range(-l, l + 1))


def _alternating(l: int) -> list[int]:
    """0, 1, -1, 2, -2, ..."""
    return [0] + [sign * m for m in range(1, l + 1) for sign in (1, -1)]


def _openmx(l: int) -> list[int]:
    return {1: [1, -1, 0], 2: [0, 2, -2, 1, -1]}.get(l, _alternating(l))


def _deeph_siesta(l: int) -> list[int]:
    return {3: [3, 1, -1, -3, -2, 0, 2]}.get(l, _openmx(l) if l < 3 else _ascending(l))


def _pyscf(l: int) -> list[int]:
    return [1, -1, 0] if l == 1 else _ascending(l)


def _odd(m: int) -> int:
    return -1 if m % 2 else 1


def _odd_positive(m: int) -> int:
    return -1 if m > 0 and m % 2 else 1


def _none(_: int) -> int:
    return 1


# program -> (m of the orbitals of a shell in the program's order, sign of the program's orbital)
ORBITAL_ORDERS = {
    "house": (_ascending, _none),
    "openmx": (_openmx, _none),
    "pyscf": (_pyscf, _none),
    "siesta": (_ascending, _odd),
    "abacus": (_alternating, _odd),
    "fhi-aims": (_ascending, _odd_positive),
    "gpaw": (_ascending, _none),
    "deeph-dock": (_ascending, _none),
    # DeepH's old folders: every parser of theirs converts to OpenMX's order
    "deeph": (_openmx, _none),
    # but DeepH-pack's parser of SIESTA permutes f shells by the inverse, and leaves l > 3 alone
    "deeph-siesta": (_deeph_siesta, _none),
}


def orbital_order(program: str, degrees: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Index and sign that bring a program's orbitals of an atom into our order.

    Parameters
    ----------
    program : str
        A key of `ORBITAL_ORDERS`.
    degrees : sequence of int
        l of the shells of the atom, in the program's shell order (which stays).

    Returns
    -------
    index, sign : arrays, shape (n_orbitals,)
        ``ours = sign * theirs[index]``.
    """
    if program not in ORBITAL_ORDERS:
        raise ValueError(f"orbital order: expected one of {', '.join(ORBITAL_ORDERS)}, got {program!r}")
    order, sign_of = ORBITAL_ORDERS[program]
    index: list[int] = []
    sign: list[int] = []
    for l in degrees:
        if l > MAX_DEGREE:
            raise ValueError(f"orbital order: l = {l} is not supported, l <= {MAX_DEGREE} is")
        theirs = order(l)
        start = len(index)
        index += [start + theirs.index(m) for m in range(-l, l + 1)]
        sign += [sign_of(m) for m in range(-l, l + 1)]
    return np.array(index, dtype=np.int64), np.array(sign, dtype=np.float64)


def convert_orbitals(
    blocks: NDArray, program: str, rows: Sequence[int], columns: Sequence[int], *, spinor: bool = False
) -> NDArray:
    """Blocks of a program in our orbital order.

    Parameters
    ----------
    blocks : array, shape (..., n_i, n_j), or (..., 2 n_i, 2 n_j) for spin-major spinors
        In the order of `program`.
    program : str
        A key of `ORBITAL_ORDERS`.
    rows, columns : sequence of int
        l of the shells of the two atoms.

    Returns
    -------
    array of the same shape
    """
    pick = []
    signs = []
    for degrees in (rows, columns):
        index, sign = orbital_order(program, degrees)
        if spinor:
            index, sign = np.concatenate([index, index + len(index)]), np.tile(sign, 2)
        pick.append(index)
        signs.append(sign)
    if blocks.shape[-2:] != (len(pick[0]), len(pick[1])):
        raise ValueError(f"blocks: expected (..., {len(pick[0])}, {len(pick[1])}), got {blocks.shape}")
    return blocks[..., pick[0][:, None], pick[1]] * (signs[0][:, None] * signs[1]).astype(blocks.real.dtype)
