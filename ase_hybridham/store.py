"""Where do computed structures wait for training? The data set: one HDF5 file.

Layout, schema 1::

    /                    attributes: format, schema, spin
    basis, splits, provenance       JSON texts
    structures/NAME/     attributes: fermi_level, electrons (NaN if unknown), potential_reference, provenance, digest
        numbers (n,)  positions (n, 3)  cell (3, 3)  pbc (3,)
        pairs (P, 5)                i, j, R in the order of `PairList`
        hamiltonian (n_operators, M)    eV, blocks one after the other, raw as computed
        overlap (M,)                without spin; may be absent

NAME is percent-encoded, so that a name may contain a slash. HDF5 cannot promise that a file survives a kill while it
is written; therefore nothing is ever written into a data set in place: a copy is extended and renamed over it.
"""

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from ase_hybridham.files import written_atomically
from ase_hybridham.system import Basis, LCAOSystem, PairBlocks, PairList, SpinKind
from ase_hybridham.system.lcao import PotentialReference

__all__ = [
    "DataSet",
    "append_systems",
    "is_data_set",
    "names_data_set",
    "random_splits",
    "read_structure",
    "set_splits",
    "set_valences",
]

FORMAT, SCHEMA = "ase_hybridham data set", 1
SUFFIXES = (".h5", ".hdf5")
# HDF5's own structures with checksums, which its default of 1998 lacks: there a flipped bit made it loop for ever
CHECKED = ("v110", "v110")
H_ROUNDING, S_ROUNDING = 2.0**-20, 2.0**-25  # of compact storage; eV and 1
COPY_SHARE = 0.1  # of the time may be spent on copying


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
        self.spin = cast(SpinKind, _word(file, "spin"))
        self.basis = _read_basis(self.path, file)
        self.splits = _read_splits(self.path, file)
        self.provenance: dict[str, Any] = _read_mapping(self.path, file, "provenance")
        with _readable(self.path, "the list of structures"):
            self.names = sorted(unquote(key) for key in file["structures"])
        lost = {name for names in self.splits.values() for name in names} - set(self.names)
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
        return name in self.names

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
        """Hash of names, structures, H, S and basis as stored; splits and compression do not enter."""
        digest = hashlib.sha256(json.dumps([self.spin, self.basis.to_dict()], sort_keys=True).encode())
        for name in self.names:
            with self._read(name) as group:
                digest.update(f"{name}\0{_word(group, 'digest')}\0".encode())
        return digest.hexdigest()

    def _open(self) -> h5py.File:
        if self._file is None or self._process != os.getpid():
            self._file, self._process = _opened(self.path), os.getpid()
        return self._file

    @contextmanager
    def _read(self, name: str) -> Iterator[h5py.Group]:
        """The group of a structure; what its damage raises inside becomes a FormatError."""
        if name not in self.names:
            shown = ", ".join(self.names[:3]) + (", ..." if len(self) > 3 else "")
            raise KeyError(f"{self.path}: no structure {name!r}, there are {len(self)} ({shown})")
        with _readable(self.path, f"structure {name}"):
            yield self._open()["structures"][quote(name, safe="")]

    def _system(self, group: h5py.Group) -> LCAOSystem:
        atoms = _atoms(group)
        table = group["pairs"][()].astype(np.int64)
        pairs = PairList.from_indices(atoms, table[:, 0], table[:, 1], table[:, 2:])
        if len(pairs) != len(table):
            raise ValueError("on-site pairs are missing")
        spinor = self.spin == "spinor"
        values = group["hamiltonian"][()].astype(complex if spinor else float, copy=False)
        overlap = group["overlap"][()].astype(float, copy=False) if "overlap" in group else None
        return LCAOSystem(
            atoms,
            tuple(PairBlocks(pairs, self.basis, row, spinor) for row in values),
            None if overlap is None else PairBlocks(pairs, self.basis, overlap),
            spin=self.spin,
            fermi_level=_optional(group.attrs["fermi_level"]),
            electrons=_optional(group.attrs["electrons"]),
            potential_reference=cast(PotentialReference, _word(group, "potential_reference")),
            provenance=json.loads(_word(group, "provenance")),
        )


def is_data_set(path: str | Path) -> bool:
    """Whether a file is a data set, whole enough to tell."""
    try:
        with h5py.File(path) as file:
            return _word(file, "format") == FORMAT
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
        for suffix in SUFFIXES:
            path, colon, name = source.partition(f"{suffix}:")
            if colon and name:
                return Path(path + suffix), name
    return Path(source), None


def append_systems(
    path: str | Path,
    systems: Iterable[tuple[str, LCAOSystem]],
    *,
    compact: bool = False,
    provenance: Mapping[str, Any] | None = None,
) -> int:
    """Add structures to a data set, which is made if it is not there.

    Systems are taken one by one and written at once when making one takes long, in batches when it does not (so that
    copying stays within a tenth of the time); whenever the process ends, `path` is a complete data set. If
    `systems` raises, what came before is kept and the error goes on.

    Parameters
    ----------
    path : str or Path
    systems : iterable of (name, LCAOSystem)
        All of one spin kind, with a Hamiltonian; elements and sizes mix freely.
    compact : bool
        float32, compressed, H rounded to 2^-20 eV (1e-6) and S to 2^-25: for data that travel.
    provenance : mapping, optional
        Of the whole set, plain JSON types; added to what the file has.

    Returns
    -------
    int
        Number of structures added.

    Raises
    ------
    FormatError
        If `path` is there and not a data set.
    ValueError
        If a name stands twice, spins mix, bases disagree, or a system has no Hamiltonian.
    """
    path, source = Path(path), iter(systems)
    added, last = 0, time.monotonic()
    failure: BaseException | None = None
    for name, system in source:
        begun = time.monotonic()
        with _extended(path) as file:
            copying = time.monotonic() - begun
            _check(path, file, name, system)
            while True:
                _write(file, name, system, compact)
                added += 1
                if time.monotonic() - last >= copying / COPY_SHARE:
                    break
                try:
                    name, system = next(source)
                    _check(path, file, name, system)
                except StopIteration:
                    break
                except BaseException as error:  # keep what is done, then let the error go on
                    failure = error
                    break
            if provenance:
                _write_json(file, "provenance", {**_read_mapping(path, file, "provenance"), **provenance})
        if failure is not None:
            raise failure
        last = time.monotonic()
    return added


def set_splits(path: str | Path, splits: Mapping[str, Sequence[str]]) -> None:
    """Store which structures are for training, validation, test; replaces the splits of the file.

    Parameters
    ----------
    path : str or Path
        A data set.
    splits : mapping
        ``"train"``, ``"val"``, ``"test"`` or any word -> names of structures.

    Raises
    ------
    ValueError
        If a name is not in the data set, or stands in two splits.
    """
    path = Path(path)
    with DataSet(path) as data:
        known = set(data)
    taken: dict[str, str] = {}
    for split, names in splits.items():
        for name in names:
            if name not in known:
                raise ValueError(f"split {split!r}: {path} has no structure {name!r}")
            if name in taken:
                raise ValueError(f"split {split!r}: structure {name!r} is already in {taken[name]!r}")
            taken[name] = split
    with _extended(path) as file:
        _write_json(file, "splits", {split: list(names) for split, names in splits.items()})


def set_valences(path: str | Path, valence: Mapping[str, float]) -> None:
    """Store valence electrons of elements that a data set has; others keep theirs."""
    path = Path(path)
    with _extended(path) as file:
        _write_json(file, "basis", _read_basis(path, file).with_valences(valence).to_dict())


def random_splits(names: Iterable[str], fractions: Mapping[str, float], seed: int = 0) -> dict[str, list[str]]:
    """Random disjoint splits; the same for the same names, whatever their order, and seed.

    Parameters
    ----------
    names : iterable of str
    fractions : mapping
        Split -> share of the structures; together at most 1.
    seed : int
    """
    total = sum(fractions.values())
    if not all(0 <= f <= 1 for f in fractions.values()) or total > 1 + 1e-9:
        raise ValueError(f"splits: expected shares between 0 and 1 that sum to at most 1, got {dict(fractions)}")
    shuffled = np.random.default_rng(seed).permutation(sorted(names)).tolist()
    ends = np.round(np.cumsum([0.0, *fractions.values()]) * len(shuffled)).astype(int)
    return {
        split: sorted(shuffled[a:b])
        for split, a, b in zip(fractions, ends[:-1].tolist(), ends[1:].tolist(), strict=True)
    }


# -- reading


@contextmanager
def _readable(path: Path, what: str) -> Iterator[None]:
    """Whatever HDF5 and what reads its content raise on damage is a FormatError that names the file."""
    try:
        yield
    except FormatError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, MemoryError) as error:
        raise FormatError(f"{path}: {what} cannot be read ({error}); copy or make the data set again") from error


def _opened(path: Path) -> h5py.File:
    """The open file, known to be a data set of our schema."""
    try:
        file = h5py.File(path)
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file") from None
    except (OSError, RuntimeError) as error:
        raise FormatError(f"{path}: not a complete HDF5 file ({error}); copy or make it again") from error
    try:
        with _readable(path, "its head"):
            if (
                "format" not in file.attrs
                or _word(file, "format") != FORMAT
                or not isinstance(file.get("structures"), h5py.Group)
            ):
                raise FormatError(f"{path}: an HDF5 file, but not a data set; make one with `hybridham convert`")
            schema, spin = int(file.attrs["schema"]), _word(file, "spin")
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


def _read_basis(path: Path, file: h5py.File) -> Basis:
    entry = _read_mapping(path, file, "basis")
    with _readable(path, "the basis"):
        return Basis.from_dict(entry)


def _read_splits(path: Path, file: h5py.File) -> dict[str, list[str]]:
    splits = _read_mapping(path, file, "splits")
    if not all(isinstance(names, list) and all(isinstance(n, str) for n in names) for names in splits.values()):
        raise FormatError(f"{path}: the splits are no lists of names; make the data set again")
    return splits


def _read_mapping(path: Path, file: h5py.File, name: str) -> dict[str, Any]:
    """A JSON object that the file holds as text."""
    with _readable(path, f"entry {name!r}"):
        content = json.loads(file[name].asstr()[()])
    if not isinstance(content, dict):
        raise FormatError(f"{path}: entry {name!r}: expected a JSON object; make the data set again")
    return content


def _word(group: h5py.Group, name: str) -> str:
    """A text attribute, of fixed length or not."""
    value = group.attrs[name]
    return value.decode() if isinstance(value, bytes) else str(value)


def _atoms(group: h5py.Group) -> Atoms:
    numbers = group["numbers"][()].astype(np.int64)
    if not ((numbers > 0) & (numbers < len(chemical_symbols))).all():
        raise ValueError(f"expected atomic numbers, got {numbers.min()} to {numbers.max()}")
    return Atoms(numbers, group["positions"][()], cell=group["cell"][()], pbc=group["pbc"][()])


def _optional(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


# -- writing


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


@contextmanager
def _extended(path: Path) -> Iterator[h5py.File]:
    """A copy of the data set, or a new one, open for writing; replaces the data set when the block ends well."""
    before = _identity(path)
    with written_atomically(path) as temporary:
        if before is None:
            with h5py.File(temporary, "w", libver=CHECKED) as file:
                file.attrs.update({"format": _text(FORMAT), "schema": SCHEMA, "spin": _text("none")})
                file.create_group("structures")
                for name, content in {"basis": Basis({}).to_dict(), "splits": {}, "provenance": {}}.items():
                    _write_json(file, name, content)
        else:
            _opened(path).close()
            shutil.copyfile(path, temporary)
        with h5py.File(temporary, "r+", libver=CHECKED) as file:
            yield file
        if _identity(path) != before:
            raise ValueError(f"{path}: another process has changed it meanwhile; run again")


def _check(path: Path, file: h5py.File, name: str, system: LCAOSystem) -> None:
    """Refuse what does not fit; otherwise make the head of the file fit the system."""
    structures = file["structures"]
    if not name or quote(name, safe="") in structures:
        raise ValueError(f"{path}: a structure named {name!r} is already there; choose another name")
    if not system.hamiltonian:
        raise ValueError(f"structure {name}: expected a Hamiltonian, got the overlap alone")
    if not len(structures):
        basis = system.basis
        file.attrs["spin"] = _text(system.spin)
    else:
        if system.spin != _word(file, "spin"):
            raise ValueError(
                f"structure {name}: spin {system.spin!r}, but {path} holds spin {_word(file, 'spin')!r}; "
                "use a data set for each"
            )
        known = _read_basis(path, file)
        try:
            basis = known.merged(system.basis)
        except ValueError as error:
            raise ValueError(f"structure {name}: does not fit {path}: {error}; use another data set") from None
        if basis == known:
            return
    _write_json(file, "basis", basis.to_dict())


def _write(file: h5py.File, name: str, system: LCAOSystem, compact: bool) -> None:
    pairs = system.pairs
    arrays = {
        "numbers": system.atoms.numbers.astype(np.int16),
        "positions": system.atoms.get_positions(),
        "cell": system.atoms.cell.array,
        "pbc": np.asarray(system.atoms.pbc),
        "pairs": np.column_stack([pairs.i, pairs.j, pairs.shifts]).astype(np.int32),
        "hamiltonian": np.stack([blocks.values for blocks in system.hamiltonian]),
    }
    if system.overlap is not None:
        arrays["overlap"] = system.overlap.values
    if compact:
        arrays["hamiltonian"] = _rounded(arrays["hamiltonian"], H_ROUNDING)
        if system.overlap is not None:
            arrays["overlap"] = _rounded(arrays["overlap"], S_ROUNDING)
    group = file["structures"].create_group(quote(name, safe=""))
    digest = hashlib.sha256()
    for key, array in arrays.items():
        packed = {"compression": "gzip", "compression_opts": 9, "shuffle": True, "chunks": array.shape}
        group.create_dataset(key, data=array, **(packed if compact and array.nbytes > 1000 else {}))
        digest.update(f"{key} {array.dtype.str} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    head = {"fermi_level": system.fermi_level, "electrons": system.electrons}
    group.attrs.update({key: math.nan if value is None else value for key, value in head.items()})
    group.attrs["potential_reference"] = _text(system.potential_reference)
    group.attrs["provenance"] = _text(json.dumps(dict(system.provenance)))
    digest.update(json.dumps([*head.values(), system.potential_reference]).encode())
    group.attrs["digest"] = _text(digest.hexdigest())


def _rounded(values: NDArray, step: float) -> NDArray:
    """Single precision on a grid: the trailing zero bits compress."""
    is_complex = np.iscomplexobj(values)
    reals = values.astype(np.complex128 if is_complex else np.float64).view(np.float64)
    rounded = (np.round(reals / step) * step).astype(np.float32)
    return rounded.view(np.complex64) if is_complex else rounded


def _text(text: str) -> NDArray:
    """Of fixed length: HDF5 keeps others in a heap without checksum, whose damage makes it loop."""
    return np.array(text.encode(), dtype=h5py.string_dtype("utf-8", len(text.encode())))


def _write_json(file: h5py.File, name: str, content: Any) -> None:
    if name in file:
        del file[name]
    file[name] = _text(json.dumps(content))
