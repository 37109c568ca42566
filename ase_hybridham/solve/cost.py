"""What an eigenproblem costs, before it starts.

Operations of a factorization follow from the dissection exactly; the rest is counted. How fast the processor is tells a
product of matrices, which takes some hundredths of a second once a process. EFFICIENCY and the like are shares of that
speed, measured at 28 to 1324 atoms of carbon.
"""

from dataclasses import dataclass
from functools import cache
from time import process_time

import numpy as np
from scipy.linalg.blas import get_blas_funcs
from threadpoolctl import threadpool_limits

from ase_hybridham.solve.bloch import STACK_LIMIT
from ase_hybridham.solve.dense import BATCH_BYTES
from ase_hybridham.solve.dissection import Dissection
from ase_hybridham.system import LCAOSystem

__all__ = ["Cost", "dense_cost", "gemm_rate", "sparse_cost"]

SIZE, REPEATS = 384, 3  # of the product that is timed; panels of fronts are as wide
# Shares of the rate of a product of square matrices: factorization in double and single precision; solutions of eight
# columns, which wait for memory in single precision as long; products with S; orthogonalization.
EFFICIENCY = {"d": 0.75, "f": 0.6}
SOLVE, PRODUCT, ORTHOGONALIZE = 0.35, 0.3, 0.4
ASSEMBLE = 1.2e-8  # seconds for a number of H(k) or S(k)
PER_VALUE = 36  # bytes that assembly holds for an element of H(R) or S(R)
# Of LAPACK, values only and with vectors: n^3 products, and n^2 times this many, since the last steps are small.
DENSE = {False: (2.2, 1000), True: (3.7, 900)}


@dataclass(frozen=True)
class Cost:
    """What something costs. The sum of two is what they cost one after the other.

    Parameters
    ----------
    flops : float
        Floating-point operations that are counted.
    bytes : int
        Memory that it takes at its worst moment, beside what is taken before it starts.
    seconds : float
        Of one processor core.
    """

    flops: float
    bytes: int
    seconds: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.flops + other.flops, max(self.bytes, other.bytes), self.seconds + other.seconds)

    def describe(self) -> str:
        """One line: time, memory and operations."""
        return f"about {_time(self.seconds)} of a core, {_metric(self.bytes)}B of memory, {_metric(self.flops)}Flop"


@cache
def gemm_rate(dtype: str) -> float:
    """Operations a second of a product of two matrices of 'f', 'd', 'F' or 'D' on one core; measured once."""
    rng = np.random.default_rng(0)
    a = np.asfortranarray(rng.normal(size=(SIZE, SIZE)).astype(dtype))
    gemm, times = get_blas_funcs("gemm", dtype=a.dtype), []
    with threadpool_limits(1, user_api="blas"):
        for _ in range(REPEATS + 1):  # the first one wakes things up
            start = process_time()
            gemm(1.0, a, a, trans_a=2)
            times.append(process_time() - start)
    operations = (8 if np.iscomplexobj(a) else 2) * SIZE**3
    return float(operations / max(np.median(times[1:]), 1e-6))


def dense_cost(system: LCAOSystem, n_k: int = 1, *, vectors: bool = False) -> Cost:
    """Of all states at some k-points by LAPACK, those of spins included.

    Parameters
    ----------
    system : LCAOSystem
    n_k : int
        k-points.
    vectors : bool
        With eigenvectors, which are all kept.
    """
    n, n_spins, n_operators = system.n_orbitals, len(system.hamiltonian), len(system.hamiltonian) + 1
    cubes, squares = DENSE[vectors]
    flops = 8 * n_spins * n_k * (cubes * n**3 + squares * n**2)
    matrix, pairs = 16 * n**2, system.hamiltonian[0].pairs
    stack = len(np.unique(pairs.shifts, axis=0)) * matrix
    values = PER_VALUE * n_operators * len(system.hamiltonian[0].values)
    if stack > STACK_LIMIT:
        stack, values = 0, 2 * values
    batch = max(1, min(n_k, BATCH_BYTES // matrix))
    states = (n_operators * batch + (5 + n_spins * n_k if vectors else 3)) * matrix
    # the stack of one operator more than its size while it is made
    return Cost(flops, values + n_operators * stack + max(5 * stack // 4, states), flops / gemm_rate("D"))


def sparse_cost(
    dissection: Dissection,
    n: int,
    n_entries: int,
    n_wanted: int,
    n_k: int = 1,
    *,
    count: bool = True,
    real: bool = False,
    single: bool = False,
    looks: int = 0,
    matrices: int = 0,
    width: int = 16,
) -> Cost:
    """Of some states by a factorization, with block Lanczos.

    Parameters
    ----------
    dissection : Dissection
    n, n_entries : int
        Orbitals, and elements of H(k) that may not be zero.
    n_wanted : int
        States at a k-point; 0: a count only.
    n_k : int
        k-points, times the number of spins.
    count : bool
        Two counts, in single precision, tell whether states are missing.
    real : bool
        At k-points where H(k) is real.
    single : bool
        Factorized in single precision, and refined.
    looks : int
        At S(k), whether it is nearly singular: a factorization each, in single precision. What follows where it is,
        is not in the cost.
    matrices : int
        Bytes of H(k) and S(k).
    width : int
        Bytes of an element of H - sigma S before its phase is multiplied.
    """
    n_vectors, counts = _vectors(n_wanted), 2 * (count and n_wanted > 0)
    unit, number = (2, 8) if real else (8, 16)  # operations of a product, bytes of a number
    one = dissection.flops(not real)
    solutions = unit * 2 * dissection.n_kept * n_vectors * (1 + single)
    products = unit * n_entries * (n_vectors * (1 + single) + 3 * n_wanted)
    orthogonalization = unit * 2 * n * n_vectors**2
    rate, fast = (gemm_rate(kind) for kind in ("df" if real else "DF"))
    seconds = {False: one / (EFFICIENCY["d"] * rate), True: one / (EFFICIENCY["f"] * fast)}
    time = seconds[single] + counts * seconds[True]
    time += (solutions / SOLVE + products / PRODUCT + orthogonalization / ORTHOGONALIZE) / rate
    time += ASSEMBLE * 2 * n_entries
    # H - sigma S beside the fronts; or the factor, vectors with room to grow and candidates; or the fronts of a count
    shifted, half = width * n_entries * (1 + 0.5 * single), number // 2
    vectors = number * n * (2 * 1.25 * n_vectors + 6 * n_wanted)
    kept, peak = (some * number / (1 + single) for some in (dissection.n_kept, dissection.n_peak))
    counting = width * n_entries * 2.5 + half * dissection.n_peak
    worst = max(shifted + peak, shifted + kept + vectors, counting + vectors if counts else 0, counting if looks else 0)
    flops = (1 + counts) * one + solutions + products + orthogonalization
    return Cost(n_k * flops + looks * one, int(matrices + worst), n_k * time + looks * seconds[True])


def _vectors(n_wanted: int) -> int:
    """Vectors that Lanczos took to find so many states, in cells of carbon."""
    return 3 * n_wanted + 95 if n_wanted else 0


def _time(seconds: float) -> str:
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def _metric(number: float) -> str:
    for power, letter in ((15, "P"), (12, "T"), (9, "G"), (6, "M")):
        if number >= 10**power:
            return f"{number / 10**power:.3g} {letter}"
    return f"{number:.3g} "
