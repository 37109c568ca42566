"""30 000 blocks of DeepH's one dataset a pair: read again with h5py, against read from the data set they became.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.deeph_store

A supercell of golden graphene (13 orbitals an atom), written as a DeepH folder and converted once. h5py reads H and S
as `{key: file[key][()] for key in file}`: the blocks and their names, no more. The data set gives the whole system.
"""

import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import h5py

from ase_hybridham.io import read_deeph, write_deeph
from ase_hybridham.store import DataSet, append_systems
from tests.benchmarks.store_read import read_blocks, repeated, same, seconds

CELLS = 18  # along each vector: 92 pairs a cell
REPEATS = 3
AT_LEAST = 50  # the project's promise
GOLDEN = Path(__file__).parents[1] / "golden/openmx/graphene/deeph"


def main() -> float:
    with tempfile.TemporaryDirectory() as scratch:
        folder, store = Path(scratch) / "blocks", Path(scratch) / "data.h5"
        write_deeph(repeated(read_deeph(GOLDEN), CELLS), folder)
        began = perf_counter()
        append_systems(store, [("a", read_deeph(folder))])
        converted = perf_counter() - began
        files = [h5py.File(folder / name) for name in ("hamiltonians.h5", "overlaps.h5")]
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
    print(f"graphene {CELLS} x {CELLS}: {n_blocks} blocks of H and as many of S, converted in {converted:.1f} s")
    print(f"one dataset a block {median(slow):.2f} s, data set {median(fast) * 1e3:.1f} ms, ratio {ratio:.0f}")
    assert ratio >= AT_LEAST
    return ratio


if __name__ == "__main__":
    main()
