"""What writing and reading a data set agree on: names, units, and what tells that bytes have changed."""

import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

__all__ = ["FORMAT", "SCHEMA", "UNITS", "checksum", "digest", "read_arrays", "read_word", "text", "write_checksums"]

FORMAT, SCHEMA = "ase_hybridham data set", 1
# attribute `unit` of the arrays that have one
UNITS = {"positions": "angstrom", "cell": "angstrom", "hamiltonian": "eV", "overlap": "1"}
CHECKSUMS = "checksums"  # attribute of a group: name of an array in it -> its checksum
BLOCK = 4096  # 64-bit words


def checksum(content: NDArray | bytes) -> int:
    """A number that differs when a byte has changed: CRC-32 of the sums of every 4096 64-bit words and of the rest.

    A sum of words finds any change of one word, and all but one in 2^64 changes of several; it costs a tenth of the
    time of reading, a CRC of everything half of it.
    """
    if isinstance(content, bytes):
        return zlib.crc32(content)
    every = np.ascontiguousarray(content).reshape(-1).view(np.uint8)
    n_summed = len(every) // (8 * BLOCK) * (8 * BLOCK)
    sums = every[:n_summed].view(np.uint64).reshape(-1, BLOCK).sum(axis=1, dtype=np.uint64)
    return zlib.crc32(every[n_summed:].tobytes(), zlib.crc32(sums.tobytes()))


def write_checksums(group: h5py.Group, sums: Mapping[str, int]) -> None:
    """Store checksums beside those the group has."""
    group.attrs[CHECKSUMS] = text(json.dumps({**_checksums(group), **sums}))


def read_arrays(group: h5py.Group, *names: str) -> list[Any]:
    """The arrays of these names, or the bytes where it is a text.

    Raises
    ------
    KeyError
        If one is not there.
    ValueError
        If one is not what was written: HDF5 guards its own structures, but no numbers. Files of earlier versions have
        no checksums.
    """
    sums = _checksums(group)
    contents = [group[name][()] for name in names]
    for name, content in zip(names, contents, strict=True):
        if name in sums and checksum(content) != sums[name]:
            raise ValueError(f"bytes of {name} have changed since they were written")
    return contents


def digest(arrays: Mapping[str, NDArray], head: list[Any]) -> str:
    """SHA-256 of the arrays of a structure, in their order, and of Fermi level, electrons and zero of energy."""
    total = hashlib.sha256()
    for key, array in arrays.items():
        total.update(f"{key} {array.dtype.str} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    total.update(json.dumps(head).encode())
    return total.hexdigest()


def read_word(group: h5py.Group, name: str) -> str:
    """A text attribute, of fixed length or not."""
    value = group.attrs[name]
    return value.decode() if isinstance(value, bytes) else str(value)


def text(content: str) -> NDArray:
    """Of fixed length: HDF5 keeps others in a heap without checksum, whose damage makes it loop."""
    return np.array(content.encode(), dtype=h5py.string_dtype("utf-8", len(content.encode())))


def _checksums(group: h5py.Group) -> dict[str, int]:
    return json.loads(read_word(group, CHECKSUMS)) if CHECKSUMS in group.attrs else {}
