"""Where the numbers of a .scfout are: checked before a count in the file is believed.

The order of the fields: six integers (atoms, spin switch + 4 version, three of transport, translations), in 3.9 the
number of powers of r; translations, neighbours, cell, positions; the operators; solver, ten numbers, the input's text.
Element 0 of every 4-vector is padding and may hold anything.
"""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_hybridham.errors import FormatError

__all__ = ["Layout", "Results", "ScfoutFile", "open_scfout"]

MOST_COMPRESSED = 64  # times; matrices with all their zeros reach 4
CHUNK = 1 << 20  # bytes
MOST_ORBITALS = 10_000  # of an atom
MOST_POWERS = 16
NOT_EXACT = 1e-6  # relative; the translations are sums of cell vectors in double precision
FARTHEST = 1e6  # bohr; no structure is as large
LINE = 256  # bytes of a record of the input


@dataclass(frozen=True, eq=False)
class Layout:
    """Everything before the operators; lengths in bohr.

    Parameters
    ----------
    version : int
        3 for OpenMX 3.9, 0 for 3.8 and older.
    spin : int
        0 without, 1 collinear, 3 non-collinear.
    n_powers : int
        Powers of r among the position matrices.
    sizes : array of int, shape (n_atoms,)
        Orbitals of every atom.
    pairs : array of int, shape (n_pairs, 5)
        R1, R2, R3, i, j of every block, atoms from 0.
    cell : array, shape (3, 3)
        Vectors as rows.
    positions : array, shape (n_atoms, 3)
    """

    version: int
    spin: int
    n_powers: int
    sizes: NDArray[np.int64]
    pairs: NDArray[np.int64]
    cell: NDArray[np.float64]
    positions: NDArray[np.float64]

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.sizes)

    @property
    def n_values(self) -> int:
        """Numbers of one operator."""
        return int((self.sizes[self.pairs[:, 3]] * self.sizes[self.pairs[:, 4]]).sum())

    @property
    def operators(self) -> dict[str, int]:
        """How many there are of each kind, in the order of the file."""
        new = self.version > 0
        return {
            "hamiltonian": self.spin + 1,
            "imaginary": 3 if self.spin == 3 else 0,
            "overlap": 1,
            "position": 3 * self.n_powers,
            "momentum": 3 if new else 0,
            "density": self.spin + 1,
            "density_imaginary": 2 if new else 0,
        }


@dataclass(frozen=True)
class Results:
    """What follows the operators: Fermi level in hartree, temperature in kelvin, valence electrons, input."""

    fermi_level: float
    temperature: float
    electrons: float
    input_text: str


@contextmanager
def open_scfout(path: str | Path) -> Iterator["ScfoutFile"]:
    """A .scfout, plain or gzipped, with its layout read.

    Raises
    ------
    FormatError
        If it cannot be read, ends early, is of another version or contradicts itself.
    """
    path = Path(path)
    try:
        with path.open("rb") as raw:
            compressed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            n_bytes = path.stat().st_size
            if compressed:
                with gzip.GzipFile(fileobj=raw) as file:
                    yield ScfoutFile(path, _Bytes(path, file, MOST_COMPRESSED * n_bytes, compressed))
            else:
                yield ScfoutFile(path, _Bytes(path, raw, n_bytes, compressed))
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(f"{path}: cannot be read ({error})") from None


class ScfoutFile:
    """An open .scfout: its layout and results are read, its operators when they are asked for.

    Parameters
    ----------
    path : Path
    source : _Bytes
    """

    def __init__(self, path: Path, source: "_Bytes") -> None:
        self.path = path
        self._source = source
        self.layout = _read_layout(path, source)
        self._n_values = self.layout.n_values
        self._start = source.position
        n_operators = sum(self.layout.operators.values())
        source.check_room(n_operators * 8 * self._n_values + 84, f"{n_operators} matrices of {self._n_values} numbers")
        source.skip_to(self._start + 8 * n_operators * self._n_values)
        self.results = self._read_results()
        self._buffer: NDArray | None = None

    def operators(self, kind: str) -> Iterator[NDArray[np.float64]]:
        """The operators of a kind as the file holds them, shape (n_values,); each is overwritten by the next."""
        if self._buffer is None:
            self._buffer = np.empty(self._n_values, f"{self._source.order}f8")
        kinds = list(self.layout.operators)
        before = sum(self.layout.operators[other] for other in kinds[: kinds.index(kind)])
        self._source.skip_to(self._start + 8 * before * self._n_values)
        for _ in range(self.layout.operators[kind]):
            self._source.fill(self._buffer)
            yield self._buffer.astype(np.float64, copy=False)

    def _read_results(self) -> Results:
        """What follows the operators; the file is then read to its end, if it is compressed, to check its sum."""
        source = self._source
        solver, scalars = int(source.ints(1)[0]), source.doubles(10)
        fermi_level, temperature, electrons = (float(scalars[n]) for n in (0, 1, 8))
        if not 1 <= solver <= 64 or not (abs(fermi_level) < 1e4 and 0 <= temperature < 1e9 and 0 <= electrons < 1e9):
            raise FormatError(
                f"{self.path}: expected solver, Fermi level and electrons at byte {source.position - 84}, "
                f"got {solver}, {fermi_level:g}, {electrons:g}; was the file changed?"
            )
        text = self._input_text()
        source.finish()
        return Results(fermi_level, temperature, electrons, text)

    def _input_text(self) -> str:
        source, lacking = self._source, "which alone names elements and basis; give OpenMX its input as a file"
        if source.ended():
            raise FormatError(f"{self.path}: expected a copy of the input after the matrices, {lacking}")
        n_lines = int(source.ints(1)[0])
        if n_lines <= 0 or not source.has(LINE * n_lines):
            raise FormatError(
                f"{self.path}: expected the lines of a copy of the input at byte {source.position - 4}, "
                f"got {n_lines} lines, {lacking}"
            )
        records = source.array(np.dtype(f"S{LINE}"), n_lines)
        return b"".join(record.split(b"\0", 1)[0] for record in records.tolist()).decode("utf-8", "replace")


class _Bytes:
    """A file read forwards, which never believes a count that the file has no room for."""

    def __init__(self, path: Path, file: Any, most: int, compressed: bool) -> None:
        self.path, self.position, self.order = path, 0, "<"
        self._file, self._most, self._compressed = file, most, compressed

    def has(self, n_bytes: int) -> bool:
        return self.position + n_bytes <= self._most

    def check_room(self, n_bytes: int, what: str) -> None:
        if not self.has(n_bytes):
            size = f"can hold at most {self._most}" if self._compressed else f"ends at byte {self._most}"
            raise FormatError(
                f"{self.path}: expected {what}, {n_bytes} bytes from byte {self.position}, the file {size}; "
                "was the run stopped?"
            )

    def array(self, dtype: np.dtype, n: int) -> NDArray:
        self.check_room(dtype.itemsize * n, f"{n} values")
        values = np.empty(n, dtype)
        self.fill(values)
        return values

    def fill(self, values: NDArray) -> None:
        """Read an array of any length that the file is known to have room for."""
        view = values.view(np.uint8).data if len(values) else memoryview(b"")
        done = 0
        while done < len(view):
            count = self._file.readinto(view[done:])
            if not count:
                raise FormatError(
                    f"{self.path}: expected {len(view)} bytes from byte {self.position}, "
                    f"file ends at byte {self.position + done}; was the run stopped?"
                )
            done += count
        self.position += done

    def ints(self, n: int) -> NDArray[np.int64]:
        return self.array(np.dtype(f"{self.order}i4"), n).astype(np.int64)

    def doubles(self, n: int) -> NDArray[np.float64]:
        return self.array(np.dtype(f"{self.order}f8"), n).astype(np.float64, copy=False)

    def skip_to(self, position: int) -> None:
        if position != self.position:
            self._file.seek(position)
            self.position = position

    def ended(self) -> bool:
        """Whether nothing follows."""
        if self._compressed:
            return not self._file.peek(1)
        return self.position >= self._most

    def finish(self) -> None:
        """Read what follows, so that a damaged archive is noticed."""
        while self._compressed and self._file.read(CHUNK):
            self.position += CHUNK
            if self.position > self._most:
                raise FormatError(f"{self.path}: expands more than {MOST_COMPRESSED} times; unpack it first")


def _read_layout(path: Path, source: _Bytes) -> Layout:
    n_atoms, spin, version, n_cells = _read_header(path, source)
    n_powers = int(source.ints(1)[0]) if version else 1
    if not 1 <= n_powers <= MOST_POWERS:
        raise FormatError(f"{path}: expected 1 to {MOST_POWERS} powers of r at byte 24, got {n_powers}")
    translations = source.doubles(4 * (n_cells + 1)).reshape(-1, 4)[:, 1:]
    cells = source.ints(4 * (n_cells + 1)).reshape(-1, 4)[:, 1:]
    sizes, n_neighbors = source.ints(n_atoms), source.ints(n_atoms)
    if not ((sizes >= 1) & (sizes <= MOST_ORBITALS) & (n_neighbors >= 0)).all():
        raise FormatError(
            f"{path}: expected 1 to {MOST_ORBITALS} orbitals and no negative count of neighbours of an atom"
        )
    lengths = n_neighbors + 1
    source.check_room(8 * int(lengths.sum()), f"{lengths.sum()} pairs")
    j, cell_of = source.ints(int(lengths.sum())) - 1, source.ints(int(lengths.sum()))
    first = np.cumsum(lengths) - lengths
    i = np.repeat(np.arange(n_atoms), lengths)
    inside = (j >= 0).all() and (j < n_atoms).all() and (cell_of >= 0).all() and (cell_of <= n_cells).all()
    if not inside or (j[first] != np.arange(n_atoms)).any() or cell_of[first].any() or cells[0].any():
        raise FormatError(
            f"{path}: the neighbours of an atom: expected itself first, then atoms and cells of the header"
        )
    cell, reciprocal = (source.doubles(12).reshape(3, 4)[:, 1:] for _ in range(2))
    positions = source.doubles(4 * n_atoms).reshape(-1, 4)[:, 1:]
    _check_cell(path, cell, reciprocal, translations, cells)
    if not (np.abs(positions) < 1e6).all():
        raise FormatError(
            f"{path}: expected finite positions in bohr, got {positions[~(np.abs(positions) < 1e6)][0]:g}"
        )
    return Layout(version, spin, n_powers, sizes, np.column_stack([cells[cell_of], i, j]), cell, positions)


def _read_header(path: Path, source: _Bytes) -> tuple[int, int, int, int]:
    """Atoms, spin switch, version, number of translations; finds the byte order."""
    raw = source.array(np.dtype("<i4"), 6)
    # both readings of a version 0 without spin are legal: no count of atoms is small either way
    readings = {order: raw.view(f"{order}i4").tolist() for order in "<>"}
    legal = {order: words for order, words in readings.items() if words[1] in range(16) and words[1] % 4 != 2}
    if not legal:
        raise FormatError(f"{path}: not a .scfout of OpenMX; expected the spin switch at byte 4, got {raw[1]}")
    source.order = min(legal, key=lambda order: legal[order][0] % 2**32)
    n_atoms, switch, *electrodes, n_cells = legal[source.order]
    if switch // 4 not in (0, 3):
        raise FormatError(f"{path}: written by a development version of OpenMX ({switch // 4}); 3.8 and 3.9 are known")
    if any(electrodes):
        raise FormatError(f"{path}: a transport calculation with electrodes {electrodes}, which is not supported")
    if n_atoms < 1 or n_cells < 0:
        raise FormatError(f"{path}: expected counts of atoms and cells in the header, got {n_atoms} and {n_cells}")
    return n_atoms, switch % 4, switch // 4, n_cells


def _check_cell(path: Path, cell: NDArray, reciprocal: NDArray, translations: NDArray, cells: NDArray) -> None:
    with np.errstate(all="ignore"):
        product = cell @ reciprocal.T / (2 * np.pi)
        wrong = np.abs(cells @ cell - translations) > NOT_EXACT * (1 + np.abs(translations))
    if not (np.abs(cell) < FARTHEST).all() or not (np.abs(product - np.eye(3)) < NOT_EXACT).all():
        raise FormatError(f"{path}: expected cell and reciprocal vectors that fit, got the cell {cell.tolist()} bohr")
    if wrong.any() or not np.isfinite(translations).all():
        row = int(np.flatnonzero(wrong.any(axis=1))[0]) if wrong.any() else 0
        raise FormatError(
            f"{path}: translation {row}: expected {(cells[row] @ cell).tolist()} bohr for R = {cells[row].tolist()}, "
            f"got {translations[row].tolist()}"
        )
