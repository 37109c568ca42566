"""Writing a data set: a copy is extended and renamed over it, so that it is whole at any moment."""

import errno
import json
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import h5py
import numpy as np
from numpy.typing import NDArray

from ase_hybridham.files import written_atomically
from ase_hybridham.store.layout import FORMAT, SCHEMA, UNITS, checksum, digest, read_word, text, write_checksums
from ase_hybridham.store.reading import DataSet, numbers_of, opened, read_basis, read_mapping
from ase_hybridham.system import Basis, LCAOSystem

__all__ = ["append_systems", "random_splits", "set_basis", "set_splits", "set_valences"]

# HDF5's own structures with checksums, which its default of 1998 lacks: there a flipped bit made it loop for ever
CHECKED = ("v110", "v110")
H_ROUNDING, S_ROUNDING = 2.0**-20, 2.0**-25  # of compact storage; eV and 1
COPY_SHARE = 0.1  # of the time may be spent on copying
LARGEST_CHUNK = 2**27  # numbers
ROOM = 2**20  # bytes that HDF5 may still hold in memory, at least
GZIP_LEVEL = 6  # a third of the time of 9, one per cent larger


def append_systems(
    path: str | Path,
    systems: Iterable[tuple[str, LCAOSystem]],
    *,
    compact: bool = False,
    provenance: Mapping[str, Any] | None = None,
    refused: Callable[[str, ValueError], None] | None = None,
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
    refused : callable, optional
        Gets the name of a structure that does not fit and the error, which without it is raised.

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
            fits = _fits(path, file, name, system, refused)
            while True:
                if fits:
                    _write(file, name, system, compact)
                    added += 1
                if time.monotonic() - last >= copying / COPY_SHARE:
                    break
                try:
                    name, system = next(source)
                    fits = _fits(path, file, name, system, refused)
                except StopIteration:
                    break
                except BaseException as error:  # keep what is done, then let the error go on
                    failure = error
                    break
            if provenance:
                _write_json(file, "provenance", {**read_mapping(path, file, "provenance"), **provenance})
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
        _write_json(file, "basis", read_basis(path, file).with_valences(valence).to_dict())


def set_basis(path: str | Path, basis: Basis) -> None:
    """Store what is known of elements that a data set has, such as their radial functions; others stay as they are.

    Raises
    ------
    ValueError
        If an element has other shells than in the data set.
    """
    path = Path(path)
    with DataSet(path) as data:
        known = data.basis
    if not known.same_orbitals(basis):
        symbol = next(s for s in basis.atoms if s in known and basis[s].degrees != known[s].degrees)
        raise ValueError(f"{path}: {symbol} has shells l = {known[symbol].degrees}, got {basis[symbol].degrees}")
    atoms = {symbol: basis.atoms.get(symbol, atom) for symbol, atom in known.atoms.items()}
    if atoms == known.atoms:
        return
    with _extended(path) as file:
        _write_json(file, "basis", replace(known, atoms=atoms).to_dict())


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
        _find_room(path)
        if before is None:
            with h5py.File(temporary, "w", libver=CHECKED) as file:
                file.attrs.update({"format": text(FORMAT), "schema": SCHEMA, "spin": text("none")})
                file.create_group("structures")
                for name, content in {"basis": Basis({}).to_dict(), "splits": {}, "provenance": {}}.items():
                    _write_json(file, name, content)
        else:
            opened(path).close()
            shutil.copyfile(path, temporary)
        with _writable(path, temporary) as file:
            yield file
        if _identity(path) != before:
            raise ValueError(f"{path}: another process has changed it meanwhile; run again")


@contextmanager
def _writable(path: Path, temporary: Path) -> Iterator[h5py.File]:
    """The open file; where a disk is full, closing it fails once more, and with an error of another type."""
    try:
        with h5py.File(temporary, "r+", libver=CHECKED) as file:
            yield file
    except (OSError, RuntimeError) as error:
        told = re.search(r"error message = '([^']+)'", str(error))
        words = told[1] if told else getattr(error, "strerror", None) or error
        raise OSError(f"{path}: cannot be written ({words}); what it held is still there") from error


def _find_room(path: Path, n_bytes: int = 0) -> None:
    """Raise OSError where so much more does not fit beside `path`: HDF5 may crash in the middle of a full disk."""
    if hasattr(os, "posix_fallocate"):
        with tempfile.TemporaryFile(dir=path.parent) as probe:
            try:
                os.posix_fallocate(probe.fileno(), 0, n_bytes + ROOM)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # others: not every disk can tell
                    raise OSError(error.errno, error.strerror, str(path)) from None


def _fits(
    path: Path, file: h5py.File, name: str, system: LCAOSystem, refused: Callable[[str, ValueError], None] | None
) -> bool:
    try:
        _check(path, file, name, system)
    except ValueError as error:
        if refused is None:
            raise
        refused(name, error)
        return False
    return True


def _check(path: Path, file: h5py.File, name: str, system: LCAOSystem) -> None:
    """Refuse what does not fit; otherwise make the head of the file fit the system."""
    structures = file["structures"]
    if not name or quote(name, safe="") in structures:
        raise ValueError(
            f"{path}: a structure named {name!r} is already there; choose another name, or run again if "
            "another process has added it meanwhile"
        )
    if not system.hamiltonian:
        raise ValueError(f"structure {name}: expected a Hamiltonian, got the overlap alone")
    if not system.atoms.numbers.all():
        raise ValueError(f"structure {name}: its sites (X) are no elements, a network cannot learn from them")
    if not len(structures):
        basis = system.basis
        file.attrs["spin"] = text(system.spin)
    else:
        spin = read_word(file, "spin")
        if system.spin != spin:
            raise ValueError(
                f"structure {name}: spin {system.spin!r}, but {path} holds spin {spin!r}, "
                f"e.g. structure {unquote(next(iter(structures)))}; use a data set for each"
            )
        known = read_basis(path, file)
        try:
            basis = known.merged(system.basis)
        except ValueError as error:
            other = _one_with(file, _at_odds(known, system.basis))
            raise ValueError(
                f"structure {name}: does not fit structure {other} of {path}: {error}; use another data set"
            ) from None
        if basis == known:
            return
    _write_json(file, "basis", basis.to_dict())


def _at_odds(known: Basis, other: Basis) -> set[int]:
    """Atomic numbers of the elements that two bases describe in two ways."""
    found = set()
    for symbol in set(known.atoms) & set(other.atoms):
        try:
            Basis.of(known[symbol]).merged(Basis.of(other[symbol]))
        except ValueError:
            found.add(known[symbol].number)
    return found


def _one_with(file: h5py.File, numbers: Collection[int]) -> str:
    """Name of a structure with one of these elements, or of any."""
    names = list(file["structures"])
    found = (name for name in names if set(numbers_of(file["structures"][name]).tolist()) & set(numbers))
    return unquote(next(found, names[0]))


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
    _find_room(Path(file.filename), sum(array.nbytes for array in arrays.values()))
    group = file["structures"].create_group(quote(name, safe=""))
    for key, array in arrays.items():
        packed = {"compression": "gzip", "compression_opts": GZIP_LEVEL, "shuffle": True, "chunks": _chunks(array)}
        stored = group.create_dataset(key, data=array, **(packed if compact and array.nbytes > 1000 else {}))
        if key in UNITS:
            stored.attrs["unit"] = text(UNITS[key])
    write_checksums(group, {key: checksum(array) for key, array in arrays.items()})
    head = {"fermi_level": system.fermi_level, "electrons": system.electrons}
    group.attrs.update({key: math.nan if value is None else value for key, value in head.items()})
    group.attrs["potential_reference"] = text(system.potential_reference)
    group.attrs["provenance"] = text(json.dumps(dict(system.provenance)))
    group.attrs["digest"] = text(digest(arrays, [*head.values(), system.potential_reference]))


def _chunks(array: NDArray) -> tuple[int, ...]:
    """All at once, as it is read, up to the 4 GB that HDF5 allows."""
    return tuple(min(length, LARGEST_CHUNK) for length in array.shape)


def _rounded(values: NDArray, step: float) -> NDArray:
    """Single precision on a grid: the trailing zero bits compress."""
    is_complex = np.iscomplexobj(values)
    reals = values.astype(np.complex128 if is_complex else np.float64).view(np.float64)
    rounded = (np.round(reals / step) * step).astype(np.float32)
    return rounded.view(np.complex64) if is_complex else rounded


def _write_json(file: h5py.File, name: str, content: Any) -> None:
    if name in file:
        del file[name]
    written = json.dumps(content)
    file[name] = text(written)
    write_checksums(file, {name: checksum(written.encode())})
