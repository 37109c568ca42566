"""Reading a data set, structure by structure, when asked."""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, cast, get_args
from urllib.parse import quote, unquote

import h5py
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from ase_hybridham.errors import FormatError
from ase_hybridham.store.layout import FORMAT, SCHEMA, digest, read_arrays, read_word
from ase_hybridham.system import Basis, LCAOSystem, PairBlocks, PairList, SpinKind
from ase_hybridham.system.lcao import PotentialReference

__all__ = ["DataSet", "StructureHead", "is_data_set", "names_data_set", "read_structure"]

SUFFIXES = (".h5", ".hdf5")
# what HDF5, and making sense of what it gives, may raise
DAMAGE = (OSError, RuntimeError, ArithmeticError, LookupError, ValueError, TypeError, AttributeError, MemoryError)
ARRAYS = ("numbers", "positions", "cell", "pbc", "pairs", "hamiltonian", "overlap")


@dataclass(frozen=True)
class StructureHead:
    """What a data set tells of a structure besides atoms and matrix elements.

    Parameters
    ----------
    fermi_level, electrons : float or None
        eV; valence electrons in the cell.
    potential_reference : str
        What the zero of energy is.
    provenance : mapping
        Code, version, functional, mesh, ...: plain JSON types.
    n_pairs : int
    compact : bool
        Whether the matrix elements are stored in single precision.
    """

    fermi_level: float | None
    electrons: float | None
    potential_reference: PotentialReference
    provenance: Mapping[str, Any]
    n_pairs: int
    compact: bool


class DataSet(Mapping[str, LCAOSystem]):
    """The structures of a data set, read when they are asked for.

    A mapping from name to `LCAOSystem`, names ascending. Use it as a context manager or `close` it. It may be pickled
    and used in forked workers: each process opens the file for itself.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    FormatError
        If the file is missing, not a data set, incomplete, or of a schema this version does not know.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: h5py.File | None = None
        self._process = 0
        file = self._open()
        self.spin = cast(SpinKind, read_word(file, "spin"))
        self.basis = read_basis(self.path, file)
        self.splits = _read_splits(self.path, file)
        self.provenance: dict[str, Any] = read_mapping(self.path, file, "provenance")
        with _readable(self.path, "the list of structures"):
            self.names = sorted(unquote(key) for key in file["structures"])
        self._known = frozenset(self.names)
        lost = {name for names in self.splits.values() for name in names} - self._known
        if lost:
            raise FormatError(f"{self.path}: structure {min(lost)} of its splits is not there; make the data set again")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_process": 0}

    def __enter__(self) -> "DataSet":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; it opens again when something is read."""
        if self._file is not None and self._process == os.getpid():
            self._file.close()
        self._file = None

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def __getitem__(self, name: str) -> LCAOSystem:
        """The system of one structure, float64.

        Raises
        ------
        KeyError
            If no structure has this name.
        FormatError
            If the file is broken there.
        """
        with self._read(name) as group:
            return self._system(group)

    def atoms(self, name: str) -> Atoms:
        """The structure alone, without reading H and S."""
        with self._read(name) as group:
            return _atoms(group)

    def head(self, name: str) -> StructureHead:
        """What is known of a structure without reading its matrix elements."""
        with self._read(name) as group:
            return _head(group)

    def fermi_level(self, name: str) -> float | None:
        """Fermi level in eV, without reading H and S."""
        with self._read(name) as group:
            return _optional(group.attrs["fermi_level"])

    def electrons(self, name: str) -> float | None:
        """Valence electrons in the cell, without reading H and S."""
        with self._read(name) as group:
            return _optional(group.attrs["electrons"])

    def split(self, name: str) -> list[str]:
        """Names of the structures of a split, e.g. ``"train"``.

        Raises
        ------
        ValueError
            If the data set has no split of this name.
        """
        if name not in self.splits:
            stored = ", ".join(self.splits) or "none"
            raise ValueError(f"{self.path}: no split {name!r}, stored are {stored}; see `hybridham convert --split`")
        return list(self.splits[name])

    def content_hash(self) -> str:
        """Hash of names, structures, shells, H and S as stored.

        Splits, compression, and what may be told of the elements later (valences, radii, radial functions) do not
        enter.
        """
        shells = {symbol: atom.degrees for symbol, atom in self.basis.atoms.items()}
        digest = hashlib.sha256(json.dumps([self.spin, self.basis.orthogonal, shells], sort_keys=True).encode())
        for name in self.names:
            with self._read(name) as group:
                digest.update(f"{name}\0{read_word(group, 'digest')}\0".encode())
        return digest.hexdigest()

    def verify(self, name: str) -> None:
        """Read all of a structure and compare it with the digest stored when it was written.

        `data[name]` finds changed bytes too, except in files of earlier versions, which have no checksums.

        Raises
        ------
        FormatError
            If a byte has changed.
        """
        with self._read(name) as group:
            keys = [key for key in ARRAYS if key in group]
            head = _head(group)
            values = [head.fermi_level, head.electrons, head.potential_reference]
            if digest(dict(zip(keys, read_arrays(group, *keys), strict=True)), values) != read_word(group, "digest"):
                raise ValueError("its bytes have changed since they were written")

    def _open(self) -> h5py.File:
        if self._file is None or self._process != os.getpid():
            self._file, self._process = opened(self.path), os.getpid()
        return self._file

    @contextmanager
    def _read(self, name: str) -> Iterator[h5py.Group]:
        """The group of a structure; what its damage raises inside becomes a FormatError."""
        if name not in self._known:
            shown = ", ".join(self.names[:3]) + (", ..." if len(self) > 3 else "")
            raise KeyError(f"{self.path}: no structure {name!r}, there are {len(self)} ({shown})")
        with _readable(self.path, f"structure {name}"):
            yield self._open()["structures"][quote(name, safe="")]

    def _system(self, group: h5py.Group) -> LCAOSystem:
        atoms, head = _atoms(group), _head(group)
        names = [name for name in ("pairs", "hamiltonian", "overlap") if name in group or name != "overlap"]
        table, hamiltonian, *overlap = read_arrays(group, *names)
        table = table.astype(np.int64)
        pairs = PairList.from_indices(atoms, table[:, 0], table[:, 1], table[:, 2:])
        if len(pairs) != len(table):
            raise ValueError("on-site pairs are missing")
        spinor = self.spin == "spinor"
        values = hamiltonian.astype(complex if spinor else float, copy=False)
        return LCAOSystem(
            atoms,
            tuple(PairBlocks(pairs, self.basis, row, spinor) for row in values),
            PairBlocks(pairs, self.basis, overlap[0].astype(float, copy=False)) if overlap else None,
            spin=self.spin,
            fermi_level=head.fermi_level,
            electrons=head.electrons,
            potential_reference=head.potential_reference,
            provenance=head.provenance,
        )


def is_data_set(path: str | Path) -> bool:
    """Whether a file is a data set, whole enough to tell."""
    try:
        with h5py.File(path) as file:
            return read_word(file, "format") == FORMAT
    except (OSError, RuntimeError, KeyError, ValueError, TypeError):
        return False


def names_data_set(source: str | Path) -> bool:
    """Whether a source is ``data.h5``, ``data.h5:NAME``, or a data set under any other name."""
    path, _ = _split_source(source)
    return path.suffix in SUFFIXES or (path.is_file() and is_data_set(path))


def read_structure(source: str | Path) -> LCAOSystem:
    """The system that ``data.h5:NAME`` means, or ``data.h5`` if it holds one structure.

    Raises
    ------
    FormatError
        If the data set cannot be read, or the source does not say which structure is meant.
    """
    path, name = _split_source(source)
    with DataSet(path) as data:
        if name is None and len(data) == 1:
            name = data.names[0]
        if name is None or name not in data:
            known = ", ".join(f"{path}:{known}" for known in data.names[:3])
            raise FormatError(f"{source}: expected one of {len(data)} structures, e.g. {known}")
        return data[name]


def _split_source(source: str | Path) -> tuple[Path, str | None]:
    """A path, and the name of a structure after a colon."""
    source = str(source)
    if not Path(source).exists():
        for at in re.finditer(":", source):
            file, name = source[: at.start()], source[at.end() :]
            if name and Path(file).is_file():
                return Path(file), name
        for suffix in SUFFIXES:
            path, colon, name = source.partition(f"{suffix}:")
            if colon and name:
                return Path(path + suffix), name
    return Path(source), None


@contextmanager
def _readable(path: Path, what: str) -> Iterator[None]:
    """Whatever HDF5 and what reads its content raise on damage is a FormatError that names the file."""
    try:
        yield
    except FormatError:
        raise
    except DAMAGE as error:
        raise FormatError(f"{path}: {what} cannot be read ({error}); copy or make the data set again") from error


def opened(path: Path) -> h5py.File:
    """The open file, known to be a data set of our schema."""
    if path.is_dir():
        raise FormatError(f"{path}: is a folder, a data set is a file")
    try:
        file = h5py.File(path)
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file") from None
    except (OSError, RuntimeError) as error:
        raise FormatError(
            f"{path}: not a complete HDF5 file ({error}); copy or make it again by `hybridham convert`"
        ) from error
    try:
        with _readable(path, "its head"):
            if (
                "format" not in file.attrs
                or read_word(file, "format") != FORMAT
                or not isinstance(file.get("structures"), h5py.Group)
            ):
                raise FormatError(
                    f"{path}: an HDF5 file, but not a data set; `hybridham convert` makes one, of DeepH's whole folder"
                )
            schema, spin = int(file.attrs["schema"]), read_word(file, "spin")
            if schema != SCHEMA:
                raise FormatError(
                    f"{path}: expected schema {SCHEMA}, got {schema}; a newer version of the package reads it"
                )
            if spin not in get_args(SpinKind):
                raise FormatError(f"{path}: expected spin {' or '.join(get_args(SpinKind))}, got {spin!r}")
    except BaseException:
        file.close()
        raise
    return file


def read_basis(path: Path, file: h5py.File) -> Basis:
    entry = read_mapping(path, file, "basis")
    with _readable(path, "the basis"):
        return Basis.from_dict(entry)


def _read_splits(path: Path, file: h5py.File) -> dict[str, list[str]]:
    splits = read_mapping(path, file, "splits")
    if not all(isinstance(names, list) and all(isinstance(n, str) for n in names) for names in splits.values()):
        raise FormatError(f"{path}: the splits are no lists of names; make the data set again")
    return splits


def read_mapping(path: Path, file: h5py.File, name: str) -> dict[str, Any]:
    """A JSON object that the file holds as text."""
    with _readable(path, f"entry {name!r}"):
        content = json.loads(read_arrays(file, name)[0])
    if not isinstance(content, dict):
        raise FormatError(f"{path}: entry {name!r}: expected a JSON object; make the data set again")
    return content


def numbers_of(group: h5py.Group) -> NDArray[np.int64]:
    """Atomic numbers of a structure."""
    numbers = read_arrays(group, "numbers")[0].astype(np.int64)
    if not ((numbers > 0) & (numbers < len(chemical_symbols))).all():
        raise ValueError(f"expected atomic numbers, got {numbers.min()} to {numbers.max()}")
    return numbers


def _atoms(group: h5py.Group) -> Atoms:
    positions, cell, pbc = read_arrays(group, "positions", "cell", "pbc")
    return Atoms(numbers_of(group), positions, cell=cell, pbc=pbc)


def _head(group: h5py.Group) -> StructureHead:
    hamiltonian = group["hamiltonian"]
    return StructureHead(
        fermi_level=_optional(group.attrs["fermi_level"]),
        electrons=_optional(group.attrs["electrons"]),
        potential_reference=cast(PotentialReference, read_word(group, "potential_reference")),
        provenance=json.loads(read_word(group, "provenance")),
        n_pairs=len(group["pairs"]),
        compact=hamiltonian.dtype.itemsize * (1 if hamiltonian.dtype.kind == "f" else 0.5) < 8,
    )


def _optional(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
