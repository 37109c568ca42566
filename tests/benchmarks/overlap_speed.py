"""S of twisted bilayers: pairs a second against PySCF's integrals and against a loop over pairs, and large structures.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.overlap_speed [--quick]

Race: carbon of GTH-DZVP (two s, two p and one d shell, up to four Gaussians each), pairs up to 10 angstrom, where S
ends. PySCF gets one call for each atom with all its neighbors; the loop does what tools do that go from pair to pair in
Python. S is compared first. Then carbon of OpenMX (C6.0-s2p2d1, pairs up to 6.35 angstrom): time and memory of up to
11908 atoms, list of pairs apart, and what tables of radial integrals cost when they are made and when they are read.
Times are processor times of one thread, the best of alternating repeats. --quick: small bilayers; only S counts.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ase_hybridham.overlap import overlap_from_basis, overlap_gradient
from ase_hybridham.overlap.tables import radial_functions
from ase_hybridham.overlap.twocenter import gaunt
from ase_hybridham.symmetry import spherical_harmonics
from ase_hybridham.system import AtomBasis, Basis, GaussianRadial, PairBlocks, PairList, Shell, orbital_order
from tests.benchmarks.bilayers import twisted_bilayer
from tests.benchmarks.costs import best, resident_memory
from tests.benchmarks.report import Report, processor
from tests.overlap.radial_data import openmx_basis

SAME = 1e-8  # largest difference of two S: the tables are good for 1e-9
RANGE = 5.0  # angstrom, of an orbital; the widest Gaussians have an S of 1e-9 at twice this
LOOP_RANGE = 3.0  # angstrom; few pairs tell the time of one
# about half of what was seen
FASTER_THAN_PYSCF, FASTER_THAN_LOOP = 1.5, 100.0
# the project's promises; per pair: of the largest and of a small structure
LARGE_SECONDS, PER_PAIR, MEMORY, READY_SECONDS = 1.0, 1.3, 1.15, 0.01

ROOT = Path(__file__).parents[2]
FIRST_USE = """
import time
from ase_hybridham.overlap import overlap_from_basis
from ase_hybridham.system import PairList
from tests.benchmarks.bilayers import twisted_bilayer
from tests.overlap.radial_data import openmx_basis
atoms, basis = twisted_bilayer(1), openmx_basis("C")
pairs = PairList.from_atoms(atoms, basis.cutoffs())
for _ in range(2):
    start = time.process_time()
    overlap_from_basis(atoms, basis, pairs)
    print(time.process_time() - start)
"""


@dataclass(frozen=True)
class Size:
    """Twists of the race and of the large structures (those of `twisted_bilayer`), repeats."""

    race: int = 5
    twists: tuple[int, ...] = (1, 5, 10, 18, 31)  # 28, 364, 1324, 4108 and 11908 atoms
    repeats: int = 5


QUICK = Size(1, (1, 2), 1)


def gaussian_carbon() -> tuple[Basis, list[list]]:
    """GTH-DZVP, as ours and as PySCF's."""
    from pyscf.gto import basis

    shells = []
    for l, *rows in basis.load("gth-dzvp", "C"):
        exponents, *contractions = np.array(rows).T
        for contraction in contractions:
            used = contraction != 0
            shells.append(Shell(l, radial=GaussianRadial(tuple(exponents[used]), tuple(contraction[used]))))
    entries = [[s.l, *zip(s.radial.exponents, s.radial.coefficients, strict=True)] for s in shells]
    return Basis.of(AtomBasis("C", tuple(shells), 4.0, RANGE), name="GTH-DZVP"), entries


def with_pyscf(atoms: Atoms, pairs: PairList, entries: list[list], order: NDArray) -> NDArray:
    """Blocks of all pairs, shape (n, 13, 13), in the order of the pairs sorted by the first atom."""
    from pyscf.gto import make_env
    from pyscf.gto.mole import PTR_ENV_START
    from pyscf.gto.moleintor import getints

    here = atoms.positions / GaussianRadial.bohr
    vectors = pairs.vectors / GaussianRadial.bohr
    n_shells, starts = len(entries), np.searchsorted(pairs.i[order], np.arange(len(atoms) + 1))
    out = []
    # one molecule of an atom and as many others as any has; their places are filled in
    n_most = int(np.diff(starts).max())
    members = [["C", (0.0, 0.0, 0.0)]] * (n_most + 1)
    atm, bas, env = make_env(members, {"C": entries}, np.zeros(PTR_ENV_START))
    places = atm[:, 1][:, None] + np.arange(3)
    for n in range(len(atoms)):
        mine = order[starts[n] : starts[n + 1]]
        env[places[0]] = here[n]
        env[places[1 : len(mine) + 1]] = here[n] + vectors[mine]
        slices = (0, n_shells, n_shells, n_shells * (len(mine) + 1))
        table = getints("int1e_ovlp_sph", atm, bas, env, shls_slice=slices)
        out.append(table.reshape(len(table), len(mine), -1).transpose(1, 0, 2))
    return np.concatenate(out)


def with_loop(pairs: PairList, basis: Basis) -> PairBlocks:
    """From pair to pair: integrals from a table, then shell after shell."""
    atom, out = basis["C"], PairBlocks.zeros(pairs, basis)
    radial = radial_functions(atom, atom, float(pairs.distances.max()) / GaussianRadial.bohr)
    for p, vector in enumerate(pairs.vectors):
        distance = np.linalg.norm(vector[None], axis=1) / GaussianRadial.bohr
        harmonics, block = spherical_harmonics(vector, 4), out.block(p)
        for c, value in zip(radial.channels, radial.at(distance)[0], strict=True):
            block[atom.slices[c.row], atom.slices[c.column]] += value * (gaunt(c.l1, c.l2, c.L) @ harmonics[c.L])
    return out


def race(size: Size, report: Report) -> None:
    """Ours, PySCF and the loop on one structure."""
    basis, entries = gaussian_carbon()
    atoms, few = twisted_bilayer(size.race), twisted_bilayer(1)
    pairs, few_pairs = PairList.from_atoms(atoms, basis.cutoffs()), PairList.from_atoms(few, LOOP_RANGE)
    order = np.argsort(pairs.i, kind="stable")
    ours = partial(overlap_from_basis, atoms, basis, pairs)
    pyscf = partial(with_pyscf, atoms, pairs, entries, order)
    loop = partial(with_loop, few_pairs, basis)

    orbitals, _ = orbital_order("pyscf", basis["C"].degrees)
    found = ours().values.reshape(len(pairs), 13, 13)[order]
    error = np.abs(found - pyscf()[:, orbitals][:, :, orbitals]).max()
    report.check(f"S differs from PySCF's by {error:.1e}", error <= SAME, f"{SAME:.0e}", always=True)
    error = np.abs(overlap_from_basis(few, basis, few_pairs).values - loop().values).max()
    report.check(f"S differs from the loop's by {error:.1e}", error <= 1e-12, "1e-12", always=True)
    n = np.array([len(pairs), len(pairs), len(few_pairs)])
    a, b, c = n / best([ours, pyscf, loop], size.repeats)
    print(f"      {len(atoms)} atoms, {len(pairs)} pairs; loop: {len(few)} atoms, {len(few_pairs)} pairs")
    print(f"      pairs a second: ours {a:,.0f}, PySCF {b:,.0f}, loop {c:,.0f}")
    report.check(f"faster than PySCF by {a / b:.1f}", a / b >= FASTER_THAN_PYSCF, f"{FASTER_THAN_PYSCF:g}")
    report.check(f"faster than the loop by {a / c:.1f}", a / c >= FASTER_THAN_LOOP, f"{FASTER_THAN_LOOP:g}")


def large(size: Size, report: Report) -> None:
    """Time and memory of small and large structures."""
    basis = openmx_basis("C")
    per_pair = {}
    for twist in size.twists:
        atoms = twisted_bilayer(twist)
        (listing,) = best([partial(PairList.from_atoms, atoms, basis.cutoffs())], 2)
        pairs = PairList.from_atoms(atoms, basis.cutoffs())
        action = partial(overlap_from_basis, atoms, basis, pairs)
        memory = resident_memory(action)
        (seconds,) = best([action], size.repeats)
        (slopes,) = best([partial(overlap_gradient, atoms, basis, pairs)], 2) if twist == 10 else (None,)
        per_pair[len(atoms)] = seconds / len(pairs)
        result = len(pairs) * 13 * 13 * 8 / 2**20
        line = f"{len(atoms)} atoms, {len(pairs)} pairs: list of pairs {listing:.3f} s, S {seconds:.3f} s"
        line += f", {1e6 * seconds / len(pairs):.2f} us a pair"
        line += f", gradient {slopes:.3f} s" if slopes else ""
        line += f"; {memory[1]:.0f} MiB, of which S {result:.0f}" if memory else ""
        if twist == 10:
            report.check(line, seconds <= LARGE_SECONDS, f"{LARGE_SECONDS:g} s")
        elif memory and result > 1000:
            report.check(line, memory[1] <= MEMORY * result, f"{MEMORY:g} times the memory of S")
        else:
            print(f"      {line}")
    sizes = [n for n in per_pair if n > 300]
    if len(sizes) > 1:
        ratio = per_pair[sizes[-1]] / per_pair[sizes[0]]
        line = f"time of a pair, {sizes[-1]} atoms to {sizes[0]}: {ratio:.2f}"
        report.check(line, ratio <= PER_PAIR, f"{PER_PAIR:g}")


def start_up(report: Report) -> None:
    """First S of a process, of 28 atoms, with tables to be made and with tables on disk."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", FIRST_USE]
        environment = {**os.environ, "HYBRIDHAM_CACHE": folder}
        printed = [
            subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment).stdout
            for _ in range(2 if report.quick else 4)
        ]
    (cold, *_), *warm = ([float(word) for word in line.split()] for line in printed)
    first, again = np.min(warm, axis=0)
    print(f"      tables made: {cold:.2f} s for the first S of 28 atoms")
    line = f"tables from disk: {1e3 * first:.1f} ms for the first S of 28 atoms, {1e3 * again:.1f} ms for the next"
    report.check(line, first <= READY_SECONDS, f"{1e3 * READY_SECONDS:g} ms")


def run(quick: bool) -> bool:
    """Whether all targets that count were met."""
    size, report = QUICK if quick else Size(), Report(quick)
    print(processor())
    with threadpool_limits(1):
        race(size, report)
        large(size, report)
    start_up(report)
    return not report.failed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="two-center integrals against PySCF's and against a loop over pairs")
    parser.add_argument("--quick", action="store_true", help="small bilayers; only the comparison of S counts")
    return 0 if run(parser.parse_args(arguments).quick) else 1


if __name__ == "__main__":
    sys.exit(main())
