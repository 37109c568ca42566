"""From another program's pairs and matrix elements to `PairBlocks`: the last step of every reader.

Sorted, complete (every pair has its reverse, every atom its on-site block), finite, in our orbital order.
What a file does not tell, the periodic axes and the orbital radii, is inferred from its pairs here too.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.sparse import coo_array, sparray

from ase_hybridham.errors import FormatError
from ase_hybridham.system import Basis, LCAOSystem, PairBlocks, PairList, convert_orbitals

__all__ = [
    "Orbitals",
    "block_name",
    "blocks_from_pairs",
    "blocks_from_sparse",
    "check_table",
    "periodic_axes",
    "sorted_pairs",
    "system_from_sparse",
    "with_fitted_radii",
]

CUTOFF_STEP = 1e-3  # angstrom
BLOCKS_AT_ONCE = 128  # converted together, so that they stay in the processor's cache
FARTHEST_CELL = 10**6  # a lattice shift beyond it is no lattice shift


@dataclass(frozen=True)
class Orbitals:
    """Where a program puts the orbitals of all atoms in the rows of a matrix.

    Parameters
    ----------
    atom : array of int, shape (n_rows,)
        Atom of each row.
    place : array of int, shape (n_rows,)
        Row within the block of that atom, in the program's orbital order; of a spinor first all up, then all down.
    """

    atom: NDArray[np.int64]
    place: NDArray[np.int64]

    @classmethod
    def in_order(cls, sizes: NDArray[np.int64]) -> "Orbitals":
        """Atom after atom, each with `sizes[atom]` rows."""
        start = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        atom = np.repeat(np.arange(len(sizes)), sizes)
        return cls(atom, np.arange(len(atom)) - start[atom])


def sorted_pairs(
    where: str | Path, atoms: Atoms, table: NDArray[np.int64], *, first: int = 1
) -> tuple[PairList, NDArray[np.int64]]:
    """The pair list of the blocks that a file holds in any order, and the row of each block in it.

    Parameters
    ----------
    where : str or Path
        Names the file in messages.
    atoms : ase.Atoms
    table : array of int, shape (n_blocks, 5)
        R1, R2, R3, i, j of each block, atoms from 0.
    first : int
        Number that the format gives the first atom: messages count as the file does.

    Raises
    ------
    FormatError
        If a block stands twice or names no atom, or an on-site block or the reverse of a pair is missing.
    """
    table = np.asarray(table, dtype=np.int64).reshape(-1, 5)
    check_table(where, table, len(atoms), first)
    try:
        pairs, position = PairList.sorted_from_indices(atoms, table[:, 3], table[:, 4], table[:, :3])
    except ValueError as error:
        raise FormatError(f"{where}: atoms counted from 0: {error}") from None
    if len(pairs) != len(table):
        atom = int(np.setdiff1d(np.arange(len(atoms)), position)[0]) + first
        raise FormatError(f"{where}: block [0, 0, 0, {atom}, {atom}] (on-site) is missing")
    return pairs, position


def blocks_from_pairs(
    where: str | Path,
    pairs: PairList,
    position: NDArray[np.int64],
    basis: Basis,
    operators: Iterable[NDArray],
    program: str,
    *,
    unit: float = 1.0,
    spinor: bool = False,
    first: int = 1,
) -> list[PairBlocks]:
    """Blocks in the order of a file to blocks of a pair list, for operators that a file holds in one order.

    Parameters
    ----------
    where, first
        As in `sorted_pairs`, which gives `pairs` and `position`.
    basis : Basis
        Shells in the program's order.
    operators : iterable of arrays, shape (n_values,)
        The blocks of each operator as the file orders them, row-major, orbitals in the order of `program`. An array
        is no longer needed when the next is asked for.
    program : str
        A key of `system.orbitals.ORBITAL_ORDERS`.
    unit : float
        What the values are multiplied by, to be in eV or 1.
    spinor : bool

    Raises
    ------
    FormatError
        If the number of values is not that of the blocks, or a value is not finite.
    """
    orbitals = basis.sizes(pairs.numbers) * (1 + spinor)
    sizes = orbitals[pairs.i] * orbitals[pairs.j]
    starts = np.concatenate([[0], np.cumsum(sizes[position])])
    start_of = np.empty(len(pairs), dtype=np.int64)
    start_of[position] = starts[:-1]
    offsets = np.cumsum(sizes) - sizes
    groups = []
    for (a, b), rows in pairs.element_groups.items():
        place, sign = _conversion(program, basis[a].degrees, basis[b].degrees, spinor)
        groups.append((start_of[rows], offsets[rows], place, sign * unit))
    out: list[PairBlocks] = []
    for values in operators:
        if len(values) != starts[-1]:
            raise FormatError(
                f"{where}: expected {starts[-1]} matrix elements in {len(pairs)} blocks, got {len(values)}"
            )
        ours = np.empty(len(values), values.dtype)
        total = _convert(values, ours, groups)
        blocks = out[0].with_values(ours) if out else PairBlocks(pairs, basis, ours, spinor)
        if not np.isfinite(total) and not np.isfinite(ours).all():
            offset = int(np.flatnonzero(~np.isfinite(ours))[0])
            p = int(np.searchsorted(blocks.offsets, offset, side="right")) - 1
            raise FormatError(f"{where}: block {block_name(pairs, p, first)}: expected finite numbers, got inf or nan")
        out.append(blocks)
    return out


def _convert(values: NDArray, ours: NDArray, groups: Sequence[tuple[NDArray, NDArray, NDArray, NDArray]]) -> Any:
    """Move and multiply blocks of one size each: starts there, starts here, places, factors. Returns their sum."""
    total = values.dtype.type(0)
    with np.errstate(over="ignore", invalid="ignore"):  # the sum is not finite then
        for there, here, place, factor in groups:
            n = len(place)
            blocks, targets = sliding_window_view(values, n), sliding_window_view(ours, n, writeable=True)
            for first in range(0, len(there), BLOCKS_AT_ONCE):
                some = slice(first, first + BLOCKS_AT_ONCE)
                stack, to = blocks[there[some]], here[some]
                stack *= factor
                total += stack.sum()
                if to[-1] - to[0] == n * (len(to) - 1):  # one after the other: no copy in between
                    target = ours[to[0] : to[-1] + n].reshape(-1, n)
                    np.take(stack, place, axis=1, out=target, mode="clip")  # "raise" would buffer
                else:
                    targets[to] = stack[:, place]
    return total


def block_name(pairs: PairList, p: int, first: int = 1) -> str:
    """How messages and files name a block: ``[R1, R2, R3, i, j]``, the first atom counted as `first`."""
    return str([*pairs.shifts[p].tolist(), int(pairs.i[p]) + first, int(pairs.j[p]) + first])


def blocks_from_sparse(
    where: str | Path,
    atoms: Atoms,
    basis: Basis,
    operators: Sequence[Mapping[tuple[int, int, int], sparray]],
    program: str,
    *,
    orbitals: Sequence[Orbitals] | None = None,
    spinor: Sequence[bool] | None = None,
) -> list[PairBlocks]:
    """Blocks of operators that a program keeps as one sparse matrix for every lattice shift R.

    The pairs are those for which some operator has a non-zero element there or at the reverse pair, the same for all.

    Parameters
    ----------
    where, atoms, basis, program
        As in `sorted_pairs` and `blocks_from_pairs`.
    operators : sequence of mapping
        For each operator R -> <row orbital in cell 0 | M | column orbital in cell R>, eV or 1.
    orbitals : sequence of Orbitals, optional
        For each operator; by default atom after atom.
    spinor : sequence of bool, optional
        For each operator; by default none.

    Returns
    -------
    list of PairBlocks
        On one pair list.

    Raises
    ------
    FormatError
        If a matrix has another shape than the orbitals, or an element is not finite.
    """
    spins = [False] * len(operators) if spinor is None else list(spinor)
    sizes = basis.sizes(atoms.numbers)
    places = [Orbitals.in_order(sizes * (1 + s)) for s in spins] if orbitals is None else list(orbitals)
    entries = [_entries(where, matrices, rows) for matrices, rows in zip(operators, places, strict=True)]
    tables = [np.unique(table, axis=0) for table, *_ in entries]
    forward = np.unique(np.concatenate([np.empty((0, 5), np.int64), *tables]), axis=0)
    check_table(where, forward, len(atoms), 1)
    backward = np.column_stack([-forward[:, :3], forward[:, 4], forward[:, 3]])
    both = np.unique(np.concatenate([forward, backward]), axis=0)
    pairs = PairList.from_indices(atoms, both[:, 3], both[:, 4], both[:, :3])
    listed = np.column_stack([pairs.shifts, pairs.i, pairs.j])
    out = []
    for (table, rows, columns, values), spin in zip(entries, spins, strict=True):
        blocks = PairBlocks.zeros(pairs, basis, spinor=spin, dtype=values.dtype)
        _, index = np.unique(np.concatenate([listed, table]), axis=0, return_inverse=True)
        index = index.ravel()
        row_of = np.empty(index.max(initial=-1) + 1, dtype=np.int64)
        row_of[index[: len(listed)]] = np.arange(len(listed))
        p = row_of[index[len(listed) :]]
        n_columns = blocks.orbitals[pairs.j[p]]
        np.add.at(blocks.values, blocks.offsets[p] + rows * n_columns + columns, values)
        for (a, b), group, stack in blocks.groups():
            ours = convert_orbitals(stack, program, basis[a].degrees, basis[b].degrees, spinor=spin)
            blocks.values[blocks.index(group)] = ours
        out.append(blocks)
    return out


def system_from_sparse(
    where: str | Path,
    atoms: Atoms,
    basis: Basis,
    hamiltonian: Sequence[Mapping[tuple[int, int, int], sparray]],
    overlap: Mapping[tuple[int, int, int], sparray] | None,
    program: str,
    *,
    energy_unit: float = 1.0,
    orbitals: Orbitals | None = None,
    spinor: bool = False,
    fermi_level: float | None = None,
    electrons: float | None = None,
    provenance: Mapping[str, Any],
) -> LCAOSystem:
    """The system of a program that keeps H and S as one sparse matrix for every lattice shift R.

    Axes with a pair across them are periodic; the radii are the smallest that allow all pairs.

    Parameters
    ----------
    where, atoms, basis, program
        As in `blocks_from_sparse`.
    hamiltonian : sequence of mapping
        None, one, or two (spin up, down): R -> <row orbital in cell 0 | H | column orbital in cell R>.
    overlap : mapping, optional
        The same of S, without spin, atom after atom.
    energy_unit : float
        That of H in eV, of the program's own value.
    orbitals : Orbitals, optional
        Of H; by default atom after atom.
    spinor : bool
        Whether H is one of spinors.
    fermi_level, electrons, provenance
        As in `LCAOSystem`.

    Raises
    ------
    FormatError
        If a matrix has another shape than the orbitals, or an element is not finite.
    """
    spins = [spinor] * len(hamiltonian) + [False] * (overlap is not None)
    in_order = Orbitals.in_order(basis.sizes(atoms.numbers) * (1 + spinor))
    places = [orbitals or in_order] * len(hamiltonian) + [Orbitals.in_order(basis.sizes(atoms.numbers))]
    operators = [*hamiltonian, *([] if overlap is None else [overlap])]
    found = blocks_from_sparse(where, atoms, basis, operators, program, orbitals=places[: len(operators)], spinor=spins)
    pairs = found[0].pairs
    atoms = atoms.copy()
    atoms.pbc = periodic_axes(pairs)
    basis = with_fitted_radii(basis, pairs)
    with np.errstate(over="ignore"):
        units = [energy_unit] * len(hamiltonian) + [1.0]
        blocks = [PairBlocks(pairs, basis, u * b.values, b.spinor) for u, b in zip(units, found, strict=False)]
    if not all(np.isfinite(one.values).all() for one in blocks):
        raise FormatError(f"{where}: expected energies, got numbers beyond all energies; is the file damaged?")
    return LCAOSystem(
        atoms,
        tuple(blocks[: len(hamiltonian)]),
        None if overlap is None else blocks[-1],
        spin="spinor" if spinor else "collinear" if len(hamiltonian) == 2 else "none",
        fermi_level=fermi_level,
        electrons=electrons,
        provenance=provenance,
    )


def periodic_axes(pairs: PairList) -> NDArray[np.bool_]:
    """Axes along which some pair has R != 0, shape (3,)."""
    return np.asarray(pairs.shifts.any(axis=0), dtype=bool)


def with_fitted_radii(basis: Basis, pairs: PairList) -> Basis:
    """The basis with the smallest radii that allow all pairs: |d| <= rc_i + rc_j.

    Half the longest distance between atoms of one element; what is lacking for two elements goes to the one whose
    radius is smaller, since the other's is borne out by its own pairs. An element whose atoms have no pair at all
    keeps no radius.
    """
    longest = {elements: float(pairs.distances[rows].max()) for elements, rows in pairs.element_groups.items()}
    radius = {z: 0.5 * longest.get((z, z), 0.0) for z in basis.numbers}
    for (a, b), distance in sorted(longest.items(), key=lambda item: -item[1]):
        lack = distance - radius[a] - radius[b]
        if lack > 0:
            small, large = sorted((a, b), key=lambda z: radius[z])
            alone = min(lack, radius[large] - radius[small])
            radius[small] += alone
            radius[a] += 0.5 * (lack - alone)
            radius[b] += 0.5 * (lack - alone)
    rounded = {z: math.ceil(r / CUTOFF_STEP) * CUTOFF_STEP for z, r in radius.items()}
    return Basis.of(
        *(replace(basis[z], cutoff=rounded[z] or None) for z in basis.numbers),
        name=basis.name,
        orthogonal=basis.orthogonal,
    )


@lru_cache(maxsize=256)
def _conversion(
    program: str, left: tuple[int, ...], right: tuple[int, ...], spinor: bool
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Place of our elements of a block among a program's, and sign of each of the program's, shapes (n_elements,)."""
    rows, columns = ((1 + spinor) * sum(2 * l + 1 for l in degrees) for degrees in (left, right))
    number = np.arange(rows * columns).reshape(rows, columns)
    place, ours = (
        convert_orbitals(table, program, left, right, spinor=spinor).ravel()
        for table in (number, np.ones(number.shape))
    )
    place = np.abs(place)
    sign = np.empty_like(ours)
    sign[place] = ours
    return place, sign


def check_table(where: str | Path, table: NDArray[np.int64], n_atoms: int, first: int = 1) -> None:
    """Raise the FormatError of `sorted_pairs` for a block that names no atom or a cell out of reach."""
    shifts, ends = table[:, :3], table[:, 3:]
    far = (shifts <= -FARTHEST_CELL) | (shifts >= FARTHEST_CELL)  # |-2^63| is no int64
    bad = (ends < 0).any(axis=1) | (ends >= n_atoms).any(axis=1) | far.any(axis=1)
    if bad.any():
        row = table[int(np.flatnonzero(bad)[0])].tolist()
        name = [*row[:3], *(end + first for end in row[3:])]
        last = n_atoms - 1 + first
        raise FormatError(f"{where}: block {name}: expected atoms {first} to {last} and a cell within reach")


def _entries(
    where: str | Path, matrices: Mapping[tuple[int, int, int], sparray], orbitals: Orbitals
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray]:
    """(R1, R2, R3, i, j), row and column in the block, and value of all elements that are not zero."""
    size = len(orbitals.atom)
    tables, rows, columns, values = [np.empty((0, 5), np.int64)], [], [], [np.empty(0)]
    for shift, matrix in matrices.items():
        coo = coo_array(matrix)
        if coo.shape != (size, size):
            raise FormatError(f"{where}: R = {list(shift)}: expected {size} x {size} for these atoms, got {coo.shape}")
        if not np.isfinite(coo.data).all():
            raise FormatError(f"{where}: R = {list(shift)}: expected finite numbers, got inf or nan")
        kept = coo.data != 0
        row, column = (index[kept].astype(np.int64) for index in (coo.row, coo.col))
        i, j = orbitals.atom[row], orbitals.atom[column]
        tables.append(np.column_stack([np.tile(np.array(shift, dtype=np.int64), (len(row), 1)), i, j]))
        rows.append(orbitals.place[row])
        columns.append(orbitals.place[column])
        values.append(coo.data[kept])
    empty = np.empty(0, np.int64)
    return (
        np.concatenate(tables),
        np.concatenate([empty, *rows]),
        np.concatenate([empty, *columns]),
        np.concatenate(values),
    )
