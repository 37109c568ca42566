"""Records of Fortran's unformatted sequential files: each between two markers that tell its length in bytes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ase_hybridham.errors import FormatError

__all__ = ["Records"]

MARKER = 4  # bytes; records beyond 2 GB, which are split, are refused


class Records:
    """The records of one file, taken one after the other; every length is checked before memory is asked for.

    Parameters
    ----------
    path : str or Path
    first : sequence of int
        Lengths in bytes that the first record may have, which tell the byte order.

    Raises
    ------
    FormatError
        If the file cannot be read, or does not begin with such a record.
    """

    def __init__(self, path: str | Path, first: Sequence[int]) -> None:
        self.path = Path(path)
        try:
            self._content = memoryview(self.path.read_bytes())
        except OSError as error:
            raise FormatError(f"{path}: cannot be read ({error})") from error
        self._at = 0
        self.number = 0
        self.order = "<"
        for order in ("<", ">"):
            if len(self._content) >= MARKER and np.frombuffer(self._content, f"{order}i4", 1)[0] in first:
                self.order = order
                return
        raise FormatError(f"{path}: expected a Fortran file whose first record has {_or(first)} bytes")

    def __len__(self) -> int:
        """Bytes that were not yet taken."""
        return len(self._content) - self._at

    def next(self, what: str, n_bytes: int | None = None) -> memoryview:
        """The content of the next record, of that many bytes if given; `what` names it in messages."""
        self.number += 1
        place = f"{self.path}: record {self.number} ({what}) at byte {self._at}"
        if len(self) < 2 * MARKER:
            raise FormatError(f"{place}: the file ends there; was the run stopped?")
        size = self._marker(self._at)
        start, end = self._at + MARKER, self._at + MARKER + size
        if size < 0 or end + MARKER > len(self._content) or self._marker(end) != size:
            raise FormatError(
                f"{place}: its length, {size} bytes, does not fit the file; damaged, or stopped in between"
            )
        if n_bytes is not None and size != n_bytes:
            raise FormatError(f"{place}: expected {n_bytes} bytes, got {size}")
        self._at = end + MARKER
        return self._content[start:end]

    def array(self, what: str, kind: str, count: int | None = None) -> NDArray:
        """The next record as numbers: `kind` as numpy's, without byte order ("i4", "f8"); of that many if given."""
        dtype = np.dtype(self.order + kind)
        record = self.next(what, None if count is None else count * dtype.itemsize)
        if len(record) % dtype.itemsize:
            raise FormatError(f"{self.path}: record {self.number} ({what}): expected numbers of {dtype.itemsize} bytes")
        return np.frombuffer(record, dtype).astype(dtype.newbyteorder("="))

    def rows(self, what: str, kind: str, counts: NDArray[np.int64]) -> NDArray:
        """As many records as `counts`, each of that many numbers, in one array."""
        size = np.dtype(kind).itemsize * int(counts.sum())
        if size + 2 * MARKER * len(counts) > len(self):
            raise FormatError(
                f"{self.path}: record {self.number + 1} ({what}): expected {size} bytes in {len(counts)} rows, "
                f"the file has {len(self)} more"
            )
        return np.concatenate([np.empty(0, kind), *(self.array(what, kind, int(n)) for n in counts)])

    def _marker(self, at: int) -> int:
        return int(np.frombuffer(self._content, f"{self.order}i4", 1, at)[0])


def _or(numbers: Sequence[int]) -> str:
    return " or ".join(map(str, numbers))
