"""H(k) at 100 k-points of 28 atoms: `BlochSum` against a Python loop over a dictionary of blocks.

    OMP_NUM_THREADS=1 python tests/benchmarks/bloch_sum.py

The twisted bilayer tbg28 of HYBRIDHAM_DATA where it is there, else a supercell of the golden
bilayer. Both assemble the k-points one batch after the other, as a solver wants them.
"""

import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import make_supercell
from threadpoolctl import threadpool_limits

from ase_hybridham.io import read_system
from ase_hybridham.solve import BlochSum
from ase_hybridham.system import PairBlocks, PairList

N_K, BATCH, REPEATS = 100, 20, 5
AT_LEAST = 20
GOLDEN = Path(__file__).parents[1] / "golden/openmx/bilayer_graphene_AB/deeph"


def hamiltonian() -> tuple[str, PairBlocks]:
    """H of 28 carbon atoms, 13 orbitals each."""
    archive = Path(os.environ.get("HYBRIDHAM_DATA", "")) / "data/tbg28.tar.xz"
    if not archive.is_file():
        system = read_system(GOLDEN)
        P = np.array([[3, 1, 0], [-1, 2, 0], [0, 0, 1]])
        return "sqrt7 x sqrt7 supercell of AB bilayer graphene", supercell(system.hamiltonian[0], system.atoms, P)
    with tempfile.TemporaryDirectory() as folder, tarfile.open(archive, "r:xz") as tar:
        tar.extractall(folder, filter="data")
        return "twisted bilayer graphene", read_system(Path(folder) / "tbg28/deeph").hamiltonian[0]


def supercell(blocks: PairBlocks, atoms: Atoms, P: np.ndarray) -> PairBlocks:
    """The operator of a crystal in the cell P A; A is the cell of its atoms."""
    many = make_supercell(atoms, P, order="cell-major", wrap=False)
    n_copies, pairs = len(many) // len(atoms), blocks.pairs
    origins = np.rint(atoms.cell.scaled_positions(many.positions[:: len(atoms)] - atoms.positions[0])).astype(int)
    copy, pair = np.divmod(np.arange(n_copies * len(pairs)), len(pairs))
    target = origins[copy] + pairs.shifts[pair]
    # the copy that lies at the target modulo the supercell, and the supercell it lies in
    shifts = (target[:, None] - origins) @ np.linalg.inv(P)
    there = np.abs(shifts - np.rint(shifts)).sum(axis=2).argmin(axis=1)
    shifts = np.rint(shifts[np.arange(len(there)), there]).astype(int)
    i, j = pairs.i[pair] + copy * len(atoms), pairs.j[pair] + there * len(atoms)
    listed, row = PairList.sorted_from_indices(many, i, j, shifts)
    np.testing.assert_allclose(listed.vectors[row], pairs.vectors[pair], atol=1e-9)
    out = PairBlocks.zeros(listed, blocks.basis, spinor=blocks.spinor, dtype=blocks.values.dtype)
    for p, q in zip(pair, row, strict=True):
        out.block(q)[:] = blocks.block(p)
    return out


def loop(blocks: dict[tuple, np.ndarray], ends: np.ndarray, k_points: np.ndarray, out: np.ndarray) -> np.ndarray:
    """The sum written down: what tools do that keep blocks in a dictionary (or an HDF5 file) keyed by R, i, j."""
    out[:] = 0.0
    for matrix, k in zip(out, k_points, strict=True):
        for (R, i, j), block in blocks.items():
            matrix[ends[i] : ends[i + 1], ends[j] : ends[j + 1]] += np.exp(2j * np.pi * np.dot(k, R)) * block
    return out


def seconds(assemble: Callable[[np.ndarray, np.ndarray], np.ndarray], k_points: np.ndarray, out: np.ndarray) -> float:
    start = time.perf_counter()
    for at in range(0, N_K, BATCH):
        assemble(k_points[at : at + BATCH], out)
    return time.perf_counter() - start


def test_bloch_sums_are_much_faster_than_a_loop_over_blocks() -> None:
    name, h = hamiltonian()
    pairs = h.pairs
    keys = zip(map(tuple, pairs.shifts.tolist()), pairs.i.tolist(), pairs.j.tolist(), strict=True)
    blocks = {key: h.block(p) for p, key in enumerate(keys)}
    ends = np.concatenate([[0], np.cumsum(h.orbitals)])
    bloch = BlochSum(h)
    k_points = np.random.default_rng(0).uniform(size=(N_K, 3))
    first, out = k_points[:BATCH], np.empty((BATCH, bloch.n, bloch.n), dtype=complex)
    with threadpool_limits(1):
        np.testing.assert_allclose(bloch.dense(first), loop(blocks, ends, first, out), atol=1e-12)
        times = [
            (seconds(lambda k, out: loop(blocks, ends, k, out), k_points, out), seconds(bloch.dense, k_points, out))
            for _ in range(REPEATS)
        ]
    slow, fast = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"{name}, {pairs.n_atoms} atoms, {len(pairs)} pairs, {ends[-1]} orbitals, {N_K} k-points, one thread")
    print(f"loop over blocks {slow:.3f} s   BlochSum {fast:.4f} s   ratio {slow / fast:.1f}   (at least {AT_LEAST})")
    assert slow / fast >= AT_LEAST


if __name__ == "__main__":
    test_bloch_sums_are_much_faster_than_a_loop_over_blocks()
