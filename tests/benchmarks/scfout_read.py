"""Read a .scfout, against a loop over its blocks with numpy.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.scfout_read

Takes the AB bilayer's own file of HYBRIDHAM_DATA if there is one, and a file of its 5 x 5 supercell made here. The
loop goes through the file as OpenMX's own read_scfout.c and ASE's reader do, every matrix, and brings H and S to our
units and orbital order; a second loop knows to stop after H and S.
"""

import gzip
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np
from numpy.typing import NDArray

from ase_hybridham.io import read_deeph, read_openmx
from ase_hybridham.io.openmx_band import HARTREE
from ase_hybridham.system import LCAOSystem, orbital_order
from tests.benchmarks.deeph_store import GOLDEN, repeated
from tests.io.scfout import input_text, scfout

REPEATS = 7
AT_LEAST = 20  # the project's promise

Blocks = dict[tuple[int, ...], NDArray]


def read_by_loop(path: Path, everything: bool = True) -> tuple[Blocks, Blocks]:
    """(R, i, j) -> block of H in eV and of S, in our orbital order, of carbon s2p2d1 and OpenMX 3.9 without spin."""
    order, _ = orbital_order("openmx", (0, 0, 1, 1, 2))
    with path.open("rb") as file:
        n_atoms, _, _, _, _, n_cells, n_powers = np.fromfile(file, "<i4", 7).tolist()
        np.fromfile(file, "<f8", 4 * (n_cells + 1))
        cells = np.fromfile(file, "<i4", 4 * (n_cells + 1)).reshape(-1, 4)[:, 1:]
        sizes, counts = np.fromfile(file, "<i4", n_atoms), np.fromfile(file, "<i4", n_atoms)
        neighbors = [np.fromfile(file, "<i4", count + 1) - 1 for count in counts]
        cells_of = [np.fromfile(file, "<i4", count + 1) for count in counts]
        np.fromfile(file, "<f8", 24 + 4 * n_atoms)
        matrices = []
        for n in range(2 + 3 * n_powers + 3 + 3 if everything else 2):
            blocks: Blocks = {}
            for i in range(n_atoms):
                for j, cell in zip(neighbors[i], cells_of[i], strict=True):
                    block = np.fromfile(file, "<f8", sizes[i] * sizes[j]).reshape(sizes[i], sizes[j])
                    if n < 2:
                        block = block[np.ix_(order, order)] * (HARTREE if n == 0 else 1.0)
                    blocks[(*cells[cell].tolist(), i, int(j))] = block
            matrices.append(blocks)
    return matrices[0], matrices[1]


def same(blocks: Blocks, system: LCAOSystem, n: int) -> bool:
    """Whether the loop found what operator n of the system holds."""
    operator = system.operators[n]
    pairs = operator.pairs
    keys = zip(*pairs.shifts.T.tolist(), pairs.i.tolist(), pairs.j.tolist(), strict=True)
    return len(blocks) == len(pairs) and all(
        np.array_equal(blocks[key], operator.block(p)) for p, key in enumerate(keys)
    )


def seconds(read: Callable[[], object]) -> float:
    """Processor time of one call; the file is in memory, and what else the machine does must not count."""
    start = process_time()
    read()
    return process_time() - start


def compare(name: str, path: Path) -> float:
    """Print the times, and return how many times longer the loop takes."""
    loop, system = read_by_loop(path), read_openmx(path)
    assert all(same(blocks, system, n) for n, blocks in enumerate(loop))
    whole, short, ours = [], [], []
    for _ in range(REPEATS):
        whole.append(seconds(lambda: read_by_loop(path)))
        short.append(seconds(lambda: read_by_loop(path, everything=False)))
        ours += [seconds(lambda: read_openmx(path)) for _ in range(3)]
    fast = median(ours)
    print(f"{name}: {len(system.pairs)} pairs; read_openmx {fast * 1e3:.2f} ms")
    for what, times in (("all matrices", whole), ("H and S only", short)):
        print(f"  loop, {what}: {median(times) * 1e3:.1f} ms, ratio {median(times) / fast:.1f}")
    return median(whole) / fast


def main() -> float:
    archive = Path(os.environ.get("HYBRIDHAM_DATA", "")) / "data/raw/bilayer_graphene_AB/openmx.scfout.gz"
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "x.scfout"
        if archive.is_file():
            path.write_bytes(gzip.decompress(archive.read_bytes()))
            compare("AB bilayer, OpenMX's own file", path)
        system = repeated(read_deeph(GOLDEN / "bilayer_graphene_AB/deeph"), 5)
        path.write_bytes(scfout(system, text=input_text(system).replace("C_own", "C6.0")))
        ratio = compare("AB bilayer 5 x 5", path)
    assert ratio >= AT_LEAST
    return ratio


if __name__ == "__main__":
    main()
