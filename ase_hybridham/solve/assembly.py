"""H(k) and S(k) over one pattern, for large cells: what does not depend on k is put in its place once.

Of each pair of atoms one image is kept in the order of the rows, for which a k-point only has a phase. Other images of
the pair, which small cells have, are added for every k.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ase_hybridham.solve.pattern import BlockMatrix, Pattern
from ase_hybridham.system import PairBlocks

__all__ = ["Assembly"]

PAIRS = 2**14  # put in place together: their indices are a fraction of all elements


class Assembly:
    """The Bloch sums of some operators over the same pairs.

    Parameters
    ----------
    pattern : Pattern
    operators : sequence of PairBlocks
    """

    def __init__(self, pattern: Pattern, operators: Sequence[PairBlocks]) -> None:
        pairs, n_atoms = operators[0].pairs, len(pattern.sizes)
        self.pattern = pattern
        self.lattice_vectors, cell = np.unique(pairs.shifts, axis=0, return_inverse=True)
        cell = cell.ravel()
        _, first, place = np.unique(pairs.i * n_atoms + pairs.j, return_index=True, return_inverse=True)
        is_first = np.zeros(len(pairs), dtype=bool)
        is_first[first] = True
        self._cell = cell[first]
        left = np.cumsum(pattern.sizes[pattern.neighbors]) - pattern.sizes[pattern.neighbors]
        start = left - pattern.column_ends[pairs.i[first]] + pattern.row_ends[pairs.i[first]]
        self._values: list[NDArray] = [np.empty(pattern.n_entries, dtype=_double(blocks)) for blocks in operators]
        for rows, entries in self._entries(operators[0], np.flatnonzero(is_first), start[place]):
            for values, blocks in zip(self._values, operators, strict=True):
                values[entries] = blocks.values[blocks.index(rows)]
        # of every other lattice vector: where its elements go, and what they are
        self._others: list[tuple[int, NDArray[np.int64], list[NDArray]]] = []
        for number in np.unique(cell[~is_first]):
            for rows, entries in self._entries(
                operators[0], np.flatnonzero(~is_first & (cell == number)), start[place]
            ):
                self._others.append((int(number), entries, [blocks.values[blocks.index(rows)] for blocks in operators]))

    def _entries(
        self, blocks: PairBlocks, some: NDArray[np.int64], start: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Pairs of one shape, and where their elements go in the order of rows, shape (n_pairs, n_i, n_j)."""
        pairs, sizes = blocks.pairs, self.pattern.sizes
        width = np.diff(self.pattern.column_ends)
        shape = sizes[pairs.i[some]] * (sizes.max() + 1) + sizes[pairs.j[some]]
        for kind in np.unique(shape):
            of_kind = some[shape == kind]
            for at in range(0, len(of_kind), PAIRS):
                rows = of_kind[at : at + PAIRS]
                a, b = np.ogrid[: sizes[pairs.i[rows[0]]], : sizes[pairs.j[rows[0]]]]
                yield rows, start[rows][:, None, None] + a * width[pairs.i[rows]][:, None, None] + b

    def at(self, k_point: NDArray[np.float64], *, real: bool = False) -> list[BlockMatrix]:
        """The matrices at a fractional k-point; with real phases where k = -k modulo a reciprocal vector, if asked."""
        phases = np.exp(2j * np.pi * self.lattice_vectors @ k_point)
        if real:
            phases = phases.real
        of_columns = np.repeat(phases[self._cell], self.pattern.sizes[self.pattern.neighbors])
        matrices = [BlockMatrix(self.pattern, values, of_columns) for values in self._values]
        if not self._others:
            return matrices
        all_data = [matrix.data() for matrix in matrices]
        for cell, entries, of_operators in self._others:
            for data, values in zip(all_data, of_operators, strict=True):
                data[entries] += phases[cell] * values
        return [BlockMatrix(self.pattern, data) for data in all_data]

    def sizes(self, *, real: bool = False) -> tuple[int, int]:
        """Bytes that the matrices at a k-point take beside this, and bytes of one of their elements."""
        if not self._others:
            return 16 * int(self.pattern.column_ends[-1]), max(values.itemsize for values in self._values)
        width = 8 if real else 16
        return width * self.pattern.n_entries * len(self._values), width


def _double(blocks: PairBlocks) -> type:
    return np.complex128 if np.iscomplexobj(blocks.values) else np.float64
