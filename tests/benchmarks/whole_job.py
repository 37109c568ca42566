"""From atoms to bands of a twisted bilayer: processor seconds of every part, and whether they were told before.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.whole_job [M N] [--states 50] [--npoints 10] [--single]

(1, 2) by default, 28 atoms; (5, 6) 364, (10, 11) 1324. The model in the package predicts H, S comes from the radial
functions it carries; then some states at every k-point of Gamma-M-K-Gamma, with counts. The Fermi level, for which a
mesh is solved besides, is not in it: sigma is where a count finds as many states as there are pairs of electrons.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from ase_hybridham import HybridHamCalculator
from ase_hybridham.solve import SparseSolver, band_path
from ase_hybridham.solve.counting import energy_with, local_level
from ase_hybridham.structures import twisted_bilayer
from tests.benchmarks.report import processor

Result = TypeVar("Result")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("numbers", type=int, nargs="*", metavar="M N", default=[1, 2])
    parser.add_argument("--states", type=int, default=50)
    parser.add_argument("--npoints", type=int, default=10)
    parser.add_argument("--single", action="store_true")
    args = parser.parse_args(arguments)
    parts: dict[str, float] = {}

    def timed(name: str, action: Callable[[], Result]) -> Result:
        start = time.process_time()
        result = action()
        parts[name] = parts.get(name, 0.0) + time.process_time() - start
        return result

    def memory() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    print(processor())
    m, n = args.numbers
    with threadpool_limits(1):
        calculator = timed("model read", lambda: HybridHamCalculator("graphene-bilayer"))
        atoms = timed("structure", lambda: twisted_bilayer(m, n))
        atoms.calc = calculator
        timed("S", lambda: calculator.overlap.of(atoms))
        system = timed("H", calculator.get_system)
        solver = SparseSolver(args.states, single=args.single)
        problem = timed("places and dissection", lambda: solver.problem(system))
        below, before = round(system.electrons / 2), memory()
        cost = problem.cost(args.states, args.npoints)
        print(f"{len(atoms)} atoms, {system.n_orbitals} orbitals; {before:.2f} GB so far; told: {cost.describe()}")
        pencil = problem.pencil([0.0, 0.0, 0.0])
        sigma = timed("where E_F is", lambda: energy_with(pencil, below - 5, below + 5, local_level(system, below)))
        missing, spent = 0, sum(parts.values())
        for k in band_path(atoms, "GMKG", args.npoints).kpts:
            pencil = timed("H(k) and S(k), is S(k) singular", partial(problem.pencil, k))
            timed("factorization", partial(pencil.factor, sigma))
            found = timed("states, with a factorization and two counts", partial(pencil.eigenpairs, args.states, sigma))
            missing += abs(found.n_missing or 0)
        told = sum(parts.values()) - spent - parts["factorization"]
    total = sum(parts.values()) - parts["factorization"]
    for name, seconds in parts.items():
        note = "  (of these, once more)" if name == "factorization" else ""
        print(f"{name:45}{seconds:9.2f} s{100 * seconds / total:6.1f} %{note}")
    print(f"{'all':45}{total:9.2f} s")
    print(f"states: {told:.1f} s, told {cost.seconds:.1f}: {told / cost.seconds:.2f}")
    grown = memory() - before
    print(f"memory: {grown:.2f} GB more, told {cost.bytes / 2**30:.2f}; {memory():.2f} GB in all")
    print(f"{missing} states missing")
    return int(missing > 0 or not np.isfinite(total))


if __name__ == "__main__":
    sys.exit(main())
