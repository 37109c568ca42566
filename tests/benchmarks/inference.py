"""Time and memory of H and S of twisted bilayers of graphene, by the model in the package.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.inference [--quick | --large]

Every size in a process of its own, with one thread: processor seconds of the calculator's `get_system`, for H and for
the rest (pairs and S), and how much the resident memory of the process grows at most since the model was loaded, beside
what was said before (of 28 atoms, what the cell of 76 takes that is computed first).
What else runs on the machine slows a processor down, by half as was seen: so that is also told how long an atom takes
against those of a cell of 76, once before and once after. --large: 4108 and 11 908 atoms, too, which takes six minutes.
--quick: 28 and 76 atoms, for the tests.
"""

import argparse
import json
import logging
import resource
import subprocess
import sys
import time

from tests.benchmarks.report import Report, processor

REFERENCE, N_REFERENCE = (2, 3), 76  # indices and atoms
REPEATS, SHORT = 4, 15.0  # runs at most, and CPU seconds of them all from which none is added
SIZES = {"quick": [(1, 2), (2, 3)], "usual": [(1, 2), (5, 6), (10, 11)], "large": [(18, 19), (31, 32)]}
# Least atoms from which time is proportional to them, slowest over fastest, predicted over measured memory, and GB
LEAST, EQUAL, PREDICTED, MOST = 300, 1.2, 1.3, 16.0


def measure(m: int, n: int) -> dict[str, float]:
    """Of one size, in this process."""
    import numpy as np
    import torch

    from ase_hybridham import HybridHamCalculator
    from ase_hybridham.structures import twisted_bilayer
    from ase_hybridham.system import LCAOSystem

    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO)
    calculator = HybridHamCalculator("graphene-bilayer", device="cpu")
    model, seconds, told = calculator.model, [], []
    original = model.cascade.hamiltonian

    def timed(pairs, *args, **options):
        told.append(model.cascade.memory(pairs))
        begun = time.process_time()
        found = original(pairs, *args, **options)
        seconds.append(time.process_time() - begun)
        return found

    object.__setattr__(model.cascade, "hamiltonian", timed)
    spacings = iter(np.arange(3.35, 3.36, 1e-4))  # the calculator knows cells that it has met

    def run(*indices: int) -> tuple[float, float, LCAOSystem, float]:
        """CPU seconds of H and of all, the least of some runs where they are short; memory after the first."""
        times, n_before = [], len(seconds)
        while not times or (len(times) < REPEATS and sum(times) < SHORT):
            calculator.set_atoms(twisted_bilayer(*indices, spacing=next(spacings)))
            begun = time.process_time()
            system = calculator.get_system()
            times.append(time.process_time() - begun)
            if len(times) == 1:
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        return min(seconds[n_before:]), min(times), system, peak

    before = resident()
    _, reference, _, _ = run(*REFERENCE)
    of_h, total, system, peak = run(m, n)
    n_atoms, told_of_h = len(system.atoms), told[-1]
    reference = (reference + run(*REFERENCE)[1]) / 2
    return {
        "atoms": n_atoms,
        "relative": total / n_atoms / (reference / N_REFERENCE),
        "pairs": len(system.pairs),
        "H": of_h,
        "rest": total - of_h,
        "grown": peak - before,
        "told": (told_of_h + system.overlap.values.nbytes) / 1e9,
    }


def resident() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e9


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--one", type=int, nargs=2, metavar=("M", "N"), help="one twist only, as JSON")
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(measure(*args.one)))
        return 0
    report, found = Report(quick=args.quick), []
    print(processor())
    print(f"{'atoms':>7}{'pairs':>9}{'H, s':>8}{'rest, s':>9}{'ms/atom':>9}{'of 76':>7}{'GB':>7}{'told':>7}")
    for m, n in SIZES["quick"] if args.quick else SIZES["usual"] + (SIZES["large"] if args.large else []):
        words = [sys.executable, "-m", "tests.benchmarks.inference", "--one", str(m), str(n)]
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
        one = json.loads(done.stdout)
        one["ms"] = 1e3 * (one["H"] + one["rest"]) / one["atoms"]
        found.append(one)
        print(
            "{atoms:7d}{pairs:9d}{H:8.2f}{rest:9.2f}{ms:9.1f}{relative:7.2f}{grown:7.2f}{told:7.2f}".format(**one),
            flush=True,
        )
    large = [one for one in found if one["atoms"] >= LEAST] or found
    times = [one["relative"] for one in large]
    ratio = max(times) / min(times)
    report.check(f"time of an atom, slowest over fastest: {ratio:.2f}", ratio <= EQUAL, f"{EQUAL}")
    worst = max(max(one["told"] / one["grown"], one["grown"] / one["told"]) for one in large)
    report.check(f"memory, told or taken: {worst:.2f}", worst <= PREDICTED, f"{PREDICTED}")
    most = max(one["grown"] for one in found)
    report.check(f"memory: {most:.2f} GB", most <= MOST, f"{MOST:g} GB", always=True)
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(main())
