"""Structures in DeepH's one dataset a block, read again with h5py, against read from the data set they became.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.deeph_store

30 000 blocks of a supercell of golden graphene (13 orbitals an atom), and the twisted bilayer of HYBRIDHAM_DATA if
there is one. h5py reads H and S as `{key: file[key][()] for key in file}`: the blocks and their names, no more. The
data set gives the whole system.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import h5py
import numpy as np

from ase_hybridham.io import read_deeph, write_deeph
from ase_hybridham.store import DataSet, append_systems
from ase_hybridham.system import LCAOSystem, PairBlocks, PairList

CELLS = 18  # along each vector: 92 pairs a cell
REPEATS = 3
AT_LEAST = 50  # the project's promise
GOLDEN = Path(__file__).parents[1] / "golden/openmx"


def repeated(system: LCAOSystem, n: int) -> LCAOSystem:
    """The n x n supercell, by copying blocks."""
    cells = np.array([(a, b, 0) for a in range(n) for b in range(n)])
    pairs, n_atoms = system.pairs, len(system.atoms)
    atoms = system.atoms.repeat((n, n, 1))
    home = np.repeat(np.arange(len(cells)), len(pairs))
    row = np.tile(np.arange(len(pairs)), len(cells))
    target = cells[home] + pairs.shifts[row]
    shifts = np.floor_divide(target, (n, n, 1))
    inside = target - shifts * (n, n, 1)
    i = home * n_atoms + pairs.i[row]
    j = (inside[:, 0] * n + inside[:, 1]) * n_atoms + pairs.j[row]
    large, position = PairList.sorted_from_indices(atoms, i, j, shifts)
    source = np.empty(len(large), dtype=int)
    source[position] = row
    operators = [
        PairBlocks(large, m.basis, np.concatenate([m.block(int(p)).ravel() for p in source])) for m in system.operators
    ]
    return LCAOSystem(atoms, (operators[0],), operators[1], fermi_level=system.fermi_level)


def read_blocks(files: list[h5py.File]) -> list[dict[str, np.ndarray]]:
    """The blocks of each file by name: less than the data set gives, which also knows pairs and atoms."""
    return [{key: file[key][()] for key in file} for file in files]


def same(blocks: list[dict[str, np.ndarray]], system: LCAOSystem) -> bool:
    """Whether both readings hold the same numbers; sorted, as the two formats order orbitals differently."""
    return all(
        np.array_equal(np.sort(np.concatenate([block.ravel() for block in stack.values()])), np.sort(operator.values))
        for stack, operator in zip(blocks, system.operators, strict=True)
    )


def seconds(read: Callable[[], object]) -> float:
    """Processor time of one call: nothing waits for a disk here, and what else the machine does must not count."""
    start = process_time()
    read()
    return process_time() - start


def compare(name: str, folder: Path, store: Path) -> float:
    """Convert a folder, print the times, and return how many times longer h5py takes."""
    began = perf_counter()
    append_systems(store, [("a", read_deeph(folder))])
    converted = perf_counter() - began
    files = [h5py.File(folder / blocks) for blocks in ("hamiltonians.h5", "overlaps.h5")]
    with DataSet(store) as data:
        n_blocks = len(data["a"].pairs)
        assert same(read_blocks(files), data["a"])  # and both are warm
        slow, fast = [], []
        for _ in range(REPEATS):
            slow.append(seconds(lambda: read_blocks(files)))
            fast += [seconds(lambda: data["a"]) for _ in range(10)]
    for file in files:
        file.close()
    ratio = median(slow) / median(fast)
    print(f"{name}: {n_blocks} blocks of H and as many of S, converted in {converted:.1f} s")
    print(f"one dataset a block {median(slow):.2f} s, data set {median(fast) * 1e3:.1f} ms, ratio {ratio:.0f}")
    return ratio


def main() -> float:
    archive = Path(os.environ.get("HYBRIDHAM_DATA", "")) / "data/tbg28.tar.xz"
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if archive.is_file():
            shutil.unpack_archive(archive, scratch)
            compare("twisted bilayer, 28 atoms", scratch / "tbg28/deeph", scratch / "bilayer.h5")
        write_deeph(repeated(read_deeph(GOLDEN / "graphene/deeph"), CELLS), scratch / "blocks")
        ratio = compare(f"graphene {CELLS} x {CELLS}", scratch / "blocks", scratch / "graphene.h5")
    assert ratio >= AT_LEAST
    return ratio


if __name__ == "__main__":
    main()
