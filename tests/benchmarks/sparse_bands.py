"""Fifty states next to the Fermi level at one general k-point: sparse against dense LAPACK and SciPy's eigsh.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.sparse_bands [--large] [--sizes]

Processor seconds with one BLAS thread, S included, H(k) and S(k) at hand; each method has its own factorization. All
energies are compared with LAPACK's. Short: supercells of the golden bilayer of 80 and 144 atoms, where LAPACK is about
as fast. --large: 364 atoms of a twisted bilayer, H of the model in the package, which takes some minutes; only there
the ratios count. --sizes: twisted bilayers of 148, 364 and 1324 atoms, time and memory against what was told before,
and what is told of larger ones; some minutes.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

import numpy as np
from ase.build import make_supercell
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.sparse.linalg import eigsh
from threadpoolctl import threadpool_limits

from ase_hybridham.io import read_system
from ase_hybridham.solve.cost import Cost, sparse_cost
from ase_hybridham.solve.dissection import dissect
from ase_hybridham.solve.multifrontal import Multifrontal
from ase_hybridham.solve.pardiso import Pardiso
from ase_hybridham.solve.pattern import Pattern
from ase_hybridham.solve.sparse import Eigenpairs, Pencil, SparseProblem
from ase_hybridham.solve.superlu import SuperLU
from ase_hybridham.structures import twisted_bilayer
from ase_hybridham.system import LCAOSystem, PairList
from tests.benchmarks.bloch_sum import GOLDEN, supercell
from tests.benchmarks.costs import resident_memory
from tests.benchmarks.report import Report, processor

Result = TypeVar("Result")
N_STATES, K = 50, np.array([0.13, 0.27, 0.0])
# Dense LAPACK and eigsh with its defaults against sparse with counts, SuperLU against multifrontal; 6.6, 4.3 and 4.7
# were seen.
DENSE, EIGSH, FACTOR = 3.0, 2.0, 2.3
LEVEL, RADII = -3.6, {6: 3.175}  # eV, near the Fermi level of these bilayers; angstrom, of the model's orbitals
LARGEST = 100.0  # seconds, 1324 atoms
PARDISO = 1.6  # multifrontal against MKL's, where that is installed


def systems(large: bool) -> Iterator[LCAOSystem]:
    if large:
        yield twisted(5)
        return
    bilayer = read_system(GOLDEN)
    for times in ((5, 4, 1), (6, 6, 1)):
        many = make_supercell(bilayer.atoms, np.diag(times), order="cell-major", wrap=False)
        h, s = (supercell(blocks, bilayer.atoms, np.diag(times)) for blocks in bilayer.operators)
        yield LCAOSystem(many, (h,), s.with_values(s.values), electrons=4.0 * len(many))


def has_mkl() -> bool:
    try:
        return bool(version("mkl"))
    except PackageNotFoundError:
        return False


def twisted(m: int) -> LCAOSystem:
    from ase_hybridham import HybridHamCalculator

    atoms = twisted_bilayer(m, m + 1)
    atoms.calc = HybridHamCalculator("graphene-bilayer")
    return atoms.calc.get_system()


def timed(action: Callable[[], Result]) -> tuple[float, Result]:
    start = time.process_time()
    result = action()
    return time.process_time() - start, result


def by_lapack(pencil: Pencil, first: int) -> NDArray[np.float64]:
    h, s = (matrix.csr().toarray() for matrix in (pencil.h, pencil.s))
    return eigh(h, s, subset_by_index=[first, first + N_STATES - 1], driver="gvx")[0]


def by_scipy(pencil: Pencil, sigma: float) -> NDArray[np.float64]:
    return np.sort(eigsh(pencil.h.csr().tocsc(), N_STATES, M=pencil.s.csr().tocsc(), sigma=sigma)[0])


def compare(system: LCAOSystem, report: Report) -> None:
    bare = SparseProblem(system, overlap_threshold=0.0)
    assembly, _ = timed(lambda: bare.pencil(K).shifted(0.0).data())
    look, pencil = timed(partial(SparseProblem(system).pencil, K))
    dissection = Multifrontal(pencil.pattern).dissection
    half = round(system.electrons / 2)
    n, n_atoms = pencil.pattern.n, len(system.atoms)
    title = f"{n_atoms} atoms, {n} orbitals, {len(dissection.fronts)} fronts, {dissection.flops() / 1e9:.1f} GFlop"
    print(f"{title}, {16e-9 * dissection.n_peak:.2f} GB")
    dense, energies = timed(partial(by_lapack, pencil, half - N_STATES // 2))
    sigma = 0.5 * float(energies[N_STATES // 2 - 1] + energies[N_STATES // 2])
    times = {}
    for name, engine, single in (
        ("multifrontal", Multifrontal, False),
        ("multifrontal, single", Multifrontal, True),
        ("SuperLU", SuperLU, False),
        *([("PARDISO", Pardiso, False)] if has_mkl() else []),
    ):
        p = SparseProblem(system, engine, single=single).pencil(K)
        factor, _ = timed(partial(p.factor, sigma))
        without, found = timed(partial(p.eigenpairs, N_STATES, sigma, count=False))
        counted = np.nan  # four more factorizations of the slowest engine tell nothing
        if engine is Multifrontal:
            counted, found = timed(partial(p.eigenpairs, N_STATES, sigma))
        times[name] = (factor, without, counted)
        states = f"states {without:.2f} s" + ("" if np.isnan(counted) else f"   with two counts {counted:.2f} s")
        print(f"      {name}: factorization {factor:.2f} s   {states}", flush=True)
        if found.first_band is None:
            print(f"      {name}: does not count at this k-point")
            continue
        both = range(max(found.first_band, half - 25), min(found.first_band + len(found.energies), half + 25))
        off = max(abs(found.energies[i - found.first_band] - energies[i - half + 25]) for i in both)
        report.check(
            f"{name}: {len(found.energies)} states, {len(both)} in common with LAPACK's, off by {off:.0e} eV, "
            f"{found.n_missing} missing, {found.n_vectors} vectors",
            off < 1e-7 and not found.n_missing and len(both) >= 40,
            "1e-7 eV, none",
            always=True,
        )
    scipy, _ = timed(partial(by_scipy, pencil, sigma))
    print(f"      dense LAPACK {dense:.2f} s   eigsh(sigma, M=S) {scipy:.2f} s")
    factor, _, counted = times["multifrontal"]
    report.check(f"dense LAPACK / sparse with counts: {dense / counted:.1f}", dense / counted >= DENSE, f"{DENSE}")
    report.check(f"eigsh / sparse with counts: {scipy / counted:.1f}", scipy / counted >= EIGSH, f"{EIGSH}")
    ratio = times["SuperLU"][0] / factor
    report.check(f"factorization, SuperLU / multifrontal: {ratio:.1f}", ratio >= FACTOR, f"{FACTOR}")
    if "PARDISO" in times:
        ratio = factor / times["PARDISO"][0]
        report.check(f"factorization, multifrontal / PARDISO: {ratio:.2f}", ratio <= PARDISO, f"at most {PARDISO}")
    print(f"      whether S(k) is nearly singular: {look:.2f} s")
    title = f"H(k), S(k) and all of H - sigma S {assembly:.3f} s, {assembly / factor:.1%} of a factorization"
    report.check(title, assembly < 0.05 * factor, "5 %")


def sizes(report: Report) -> None:
    """States with two counts at growing sizes: what was told before, and what happened."""
    atoms, times = [], []
    for m in (3, 5, 10):
        system = twisted(m)
        problem = SparseProblem(system)
        told = problem.cost(N_STATES)
        seconds, pairs, memory = measured(problem)
        atoms.append(len(system.atoms))
        times.append(seconds)
        title = f"{atoms[-1]} atoms: {len(pairs.energies)} states, {pairs.n_missing} missing, "
        report.check(
            f"{title}{seconds:.1f} s, told {told.seconds:.1f}", 0.5 < told.seconds / seconds < 2, "twice", always=True
        )
        if memory is not None:
            line = f"{title}{memory / 1e9:.2f} GB, told {told.bytes / 1e9:.2f}"
            report.check(line, abs(told.bytes - memory) < 0.3 * memory, "30 %", always=True)
        report.check(f"{title}residuals up to {pairs.residuals.max():.0e} eV", not pairs.n_missing, "none", always=True)
    exponent, _ = np.polyfit(np.log(atoms), np.log(times), 1)
    print(f"      time grows as the power {exponent:.2f} of the number of atoms")
    report.check(f"1324 atoms: {times[-1]:.0f} s", times[-1] < LARGEST, f"{LARGEST} s", always=True)
    for m in (15, 20, 24, 28, 31):
        told = [plan(m, single) for single in (False, True)]
        double, single = (f"{cost.seconds / 60:.0f} min, {total / 1e9:.1f} GB" for cost, total in told)
        print(f"      {4 * (3 * m * (m + 1) + 1)} atoms, told: {double}; in single precision {single}", flush=True)


def measured(problem: SparseProblem) -> tuple[float, Eigenpairs, float | None]:
    """Seconds, states, and bytes that were taken, None where that cannot be told."""
    found: list[tuple[float, Eigenpairs]] = []
    memory = resident_memory(lambda: found.append(timed(lambda: problem.pencil(K).eigenpairs(N_STATES, LEVEL))))
    return *found[0], None if memory is None else memory[1] * 2**20


def plan(m: int, single: bool) -> tuple[Cost, float]:
    """What the states of a twisted bilayer cost, and bytes together with H(R) and S(R), which are held twice."""
    atoms = twisted_bilayer(m, m + 1)
    pattern = Pattern.of_pairs(PairList.from_atoms(atoms, RADII), np.full(len(atoms), 13), atoms)
    cost = sparse_cost(dissect(pattern), pattern.n, pattern.n_entries, N_STATES, single=single, looks=1, width=8)
    return cost, cost.bytes + 32 * pattern.n_entries


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--sizes", action="store_true")
    options = parser.parse_args(arguments)
    large = options.large
    print(processor())
    report = Report(quick=not large)
    with threadpool_limits(1):
        for system in systems(large) if large or not options.sizes else ():
            compare(system, report)
        if options.sizes:
            sizes(report)
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(main())
