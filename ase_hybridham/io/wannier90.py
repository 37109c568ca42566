"""Wannier90's tight-binding models: <seedname>_tb.dat (`write_tb = true`), with <seedname>_wsvec.dat where it is.

Of <0m|H|nR> in eV the file holds what is to be divided by the degeneracy of R; _wsvec.dat spreads each
element over equivalent R, as Wannier90's own interpolation does. The functions are orthonormal. They are
no shells of atoms and have no rule of rotation: each becomes a nameless site, X with one orbital, at its
center. Such a system has bands, a density of states and exports; a network cannot learn from it.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ase_hybridham.errors import FormatError
from ase_hybridham.io.assemble import FARTHEST_CELL, system_from_sparse
from ase_hybridham.io.atoms import checked_atoms
from ase_hybridham.io.format import Format
from ase_hybridham.io.text import numbers_in, read_text
from ase_hybridham.system import AtomBasis, Basis, LCAOSystem

__all__ = ["FORMAT", "read_wannier90"]

TABLE, PLAIN, SPREAD = "_tb.dat", "_hr.dat", "_wsvec.dat"
IMAGINARY = 1e-4  # eV; real functions keep less, by their last digits


def read_wannier90(path: str | Path) -> LCAOSystem:
    """The system of one model without spin; real Wannier functions only.

    Raises
    ------
    FormatError
        If the file is damaged, is an _hr.dat without its _tb.dat (which holds lattice and centers), or the model is
        complex, as with spinors, whose order no file tells.
    """
    path = Path(path)
    seed = path.name.removesuffix(TABLE).removesuffix(PLAIN)
    table = path.with_name(seed + TABLE)
    if not table.is_file():
        raise FormatError(f"{table}: is missing; run Wannier90 with write_tb = true, it holds lattice and centers")
    cell, shifts, hamiltonian, centers = _read_table(table)
    if np.abs(hamiltonian.imag).max() > IMAGINARY:
        raise FormatError(f"{table}: the model is complex, as spinors are; only real Wannier functions are read")
    spread = path.with_name(seed + SPREAD)
    elements = _spread(spread, shifts, hamiltonian.real) if spread.is_file() else _plain(shifts, hamiltonian.real)
    basis = Basis.of(AtomBasis.from_degrees("X", [0]), name="Wannier functions", orthogonal=True)
    atoms = checked_atoms(table, ["X"] * len(centers), centers, cell)
    return system_from_sparse(table, atoms, basis, [elements], None, "house", provenance={"format": FORMAT.name})


def _sniff(path: Path) -> bool:
    return path.is_file() and path.name.endswith((TABLE, PLAIN))


def _is_second(path: Path) -> bool:
    return path.name.endswith(PLAIN) and path.with_name(path.name.removesuffix(PLAIN) + TABLE).is_file()


FORMAT = Format(
    "wannier90",
    "Wannier90's <seedname>_tb.dat, with <seedname>_wsvec.dat beside it",
    _sniff,
    read_wannier90,
    is_second=_is_second,
)


def _read_table(
    path: Path,
) -> tuple[NDArray, NDArray[np.int64], NDArray, NDArray]:
    """Cell, R, H divided by the degeneracies, shape (n_shifts, n, n), and centers."""
    numbers = _numbers(path)
    head = numbers[:11]
    whole = len(head) == 11 and np.isfinite(head).all() and (head[9:] == np.round(head[9:])).all()
    if not whole or head[9:].min() < 1:
        raise FormatError(f"{path}: expected a comment, three lattice vectors, num_wann, nrpts")
    n, n_shifts = int(head[9]), int(head[10])
    expected = 11 + n_shifts + n_shifts * (3 + 4 * n * n) + n_shifts * (3 + 8 * n * n)
    if len(numbers) != expected:
        raise FormatError(f"{path}: expected {expected} numbers for {n} functions and {n_shifts} R, got {len(numbers)}")
    degeneracy = numbers[11 : 11 + n_shifts]
    split = 11 + n_shifts + n_shifts * (3 + 4 * n * n)
    energies = numbers[11 + n_shifts : split].reshape(n_shifts, -1)
    places = numbers[split:].reshape(n_shifts, -1)
    shifts = energies[:, :3]
    labels = np.stack(np.meshgrid(np.arange(n), np.arange(n)), axis=-1).reshape(-1, 2) + 1  # m runs fastest
    table, positions = energies[:, 3:].reshape(n_shifts, -1, 4), places[:, 3:].reshape(n_shifts, -1, 8)
    if not (np.isfinite(numbers).all() and (degeneracy >= 1).all() and (degeneracy == np.round(degeneracy)).all()):
        raise FormatError(f"{path}: expected finite numbers and degeneracies from 1 on")
    if (table[..., :2] != labels).any() or (positions[..., :2] != labels).any() or (places[:, :3] != shifts).any():
        raise FormatError(f"{path}: expected rows 1 to {n} of columns 1 to {n} under every R")
    if (shifts != np.round(shifts)).any() or np.abs(shifts).max() >= FARTHEST_CELL:
        raise FormatError(f"{path}: expected whole numbers for R")
    home = np.flatnonzero(~shifts.any(axis=1))
    if len(home) != 1 or len(np.unique(shifts, axis=0)) != n_shifts:
        raise FormatError(f"{path}: expected every R once, and R = 0 among them")
    centers = positions[home[0], np.arange(n) * (n + 1)][:, [2, 4, 6]]
    elements = (table[..., 2] + 1j * table[..., 3]) / degeneracy[:, None]
    hamiltonian = elements.reshape(n_shifts, n, n).transpose(0, 2, 1)
    return head[:9].reshape(3, 3), shifts.astype(np.int64), hamiltonian, centers


def _numbers(path: Path) -> NDArray[np.float64]:
    """All numbers of a file after its comment."""
    _, _, rest = read_text(path).partition("\n")
    return numbers_in(path, rest)


def _plain(shifts: NDArray, hamiltonian: NDArray) -> dict[tuple[int, int, int], csr_array]:
    return {(r[0], r[1], r[2]): csr_array(h) for r, h in zip(shifts.tolist(), hamiltonian, strict=True)}


def _spread(path: Path, shifts: NDArray, hamiltonian: NDArray) -> dict[tuple[int, int, int], csr_array]:
    """Every element shared by the equivalent R that the file lists: R, m, n, how many, and that many further shifts."""
    numbers = _numbers(path)
    index = {tuple(r): number for number, r in enumerate(shifts.tolist())}
    n = hamiltonian.shape[1]
    out: dict[tuple[int, int, int], NDArray] = {}
    seen: set[tuple[float, ...]] = set()
    at = 0
    while at + 6 <= len(numbers):
        head = numbers[at : at + 6]
        key, count = tuple(head[:5]), head[5]
        end = at + 6 + 3 * int(count) if 1 <= count < len(numbers) and count == round(count) else -1
        further = numbers[at + 6 : end].reshape(-1, 3) if at < end <= len(numbers) else np.full((1, 3), np.nan)
        known = key[:3] in index and key[3] in range(1, n + 1) and key[4] in range(1, n + 1) and key not in seen
        if not known or not (np.abs(further) < FARTHEST_CELL).all() or (further != np.round(further)).any():
            raise FormatError(f"{path}: entry {len(seen) + 1}: expected R, m, n of the model and its further shifts")
        seen.add(key)
        m, o = int(key[3]) - 1, int(key[4]) - 1
        share = hamiltonian[index[key[:3]], m, o] / count
        for shift in (further + head[:3]).astype(np.int64).tolist():
            out.setdefault((shift[0], shift[1], shift[2]), np.zeros((n, n)))[m, o] += share
        at = end
    if at != len(numbers) or len(seen) != hamiltonian.size:
        raise FormatError(f"{path}: expected entries of {hamiltonian.size} elements, got {len(seen)}")
    return {shift: csr_array(matrix) for shift, matrix in out.items()}
