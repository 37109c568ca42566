"""Damaged files: what every reader must survive.

A reader may refuse a damaged file with a one-line FormatError that names it, or read it. What it reads must then be
the structure that was written (same atoms, pairs, shells and spin, positions and lattice where they were), or fail
the physics checks that every conversion makes: a text file has no checksum, but S does not fit a moved atom. Single
matrix elements may differ, and a file that is gone may leave an operator out.
"""

import resource
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ase_hybridham.errors import FormatError
from ase_hybridham.system import LCAOSystem

LONGEST = 20.0  # seconds for one file; damage must not hang a reader
MOST_MEMORY = 600e6  # bytes more than before; a count of 2^30 in a header must not be believed
MOST_CHANGED = 0.02  # of the matrix elements


def mutants(content: bytes, n: int, seed: int = 0, *, head: int = 512) -> Iterator[tuple[str, bytes]]:
    """`n` damaged copies with a name for each: cut, bytes changed, shuffled, doubled, huge counts and NaN put in.

    Half of the damage goes to the first `head` bytes, where binary formats keep their counts.
    """
    rng = np.random.default_rng(seed)
    kinds = ["cut", "flip", "flips", "shuffle", "huge", "negative", "nan", "zeros", "insert", "remove"]
    for number in range(n):
        kind = kinds[number % len(kinds)]
        end = min(head, len(content)) if rng.random() < 0.5 else len(content)
        at = int(rng.integers(end))
        word, wide = 4 * (at // 4), 8 * (at // 8)
        data = bytearray(content)
        if kind == "cut":
            data = data[:at]
        elif kind == "flip":
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == "flips":
            for place in rng.integers(end, size=20):
                data[place] = int(rng.integers(256))
        elif kind == "shuffle":
            chunk = np.frombuffer(bytes(data[at : at + 256]), np.uint8)
            data[at : at + 256] = rng.permutation(chunk).tobytes()
        elif kind == "huge":
            data[word : word + 4] = np.int32(2**30).tobytes()
        elif kind == "negative":
            data[word : word + 4] = np.int32(-1).tobytes()
        elif kind == "nan":
            data[wide : wide + 8] = np.float64(np.nan).tobytes()
        elif kind == "zeros":
            data[at : at + 64] = bytes(len(data[at : at + 64]))
        elif kind == "insert":
            data[at:at] = rng.bytes(int(rng.integers(1, 9)))
        else:
            del data[at : at + int(rng.integers(1, 9))]
        yield f"{number} {kind} at {at}", bytes(data)


def mutated_folders(folder: Path, to: Path, n: int, seed: int = 0) -> Iterator[tuple[str, Path]]:
    """`n` copies of a folder, each with one file damaged or missing; a copy is gone when the next one is asked for."""
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    rng = np.random.default_rng(seed)
    for number in range(n):
        name = files[number % len(files)]
        copy = to / "damaged"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        if rng.random() < 0.05:
            (copy / name).unlink()
            yield f"{number} {name} is missing", copy
            continue
        damage, content = next(mutants_from(rng, (folder / name).read_bytes()))
        (copy / name).write_bytes(content)
        yield f"{number} {name} {damage}", copy


def mutants_from(rng: np.random.Generator, content: bytes) -> Iterator[tuple[str, bytes]]:
    """Damaged copies of one kind after the other, starting anywhere."""
    everything = list(mutants(content, 10, int(rng.integers(2**31))))
    yield everything[int(rng.integers(len(everything)))]


def assert_survives(
    read: Callable[[Path], LCAOSystem],
    damage: str,
    path: Path,
    original: LCAOSystem,
    caught: Callable[[LCAOSystem], bool] = lambda system: False,
) -> bool:
    """Whether a reader refused a damaged path; fails if it did anything but refuse it well or read the structure.

    `caught` tells whether the checks of a conversion refuse the system.
    """
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        system = read(path)
    except FormatError as error:
        message = str(error)
        assert str(path) in message, f"{damage}: the message does not name the file: {message}"
        assert "\n" not in message, f"{damage}: {message}"
        refused = True
    else:
        refused = caught(system)
        if not refused:
            _assert_same_structure(system, original, damage)
    assert time.monotonic() - began < LONGEST, f"{damage}: took too long"
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < MOST_MEMORY, f"{damage}: took {grown / 1e6:.0f} MB"
    return refused


def _assert_same_structure(system: LCAOSystem, original: LCAOSystem, damage: str) -> None:
    assert system.spin == original.spin, damage
    assert system.pairs.same_pairs(original.pairs), damage
    assert system.basis.same_orbitals(original.basis), damage
    np.testing.assert_allclose(system.pairs.vectors, original.pairs.vectors, atol=1e-3, err_msg=damage)
    if len(system.operators) < len(original.operators):
        return
    for found, expected in zip(system.operators, original.operators, strict=True):
        assert np.isfinite(found.values).all(), damage
        assert (found.values != expected.values).mean() < MOST_CHANGED, damage
