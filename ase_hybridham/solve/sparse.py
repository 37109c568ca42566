"""Some states of H(k) c = E S(k) c near an energy, of systems too large for LAPACK.

`SparseProblem` is a system, `Pencil` its H and S at a k-point, `Factor` a factorization of A = H - sigma S, which
solves A x = b and counts the states below sigma. The engine behind it is one that `Engine` describes.

Nothing here inverts S or leaves directions out. Where S is nearly singular the ghost states of `pencil` are states as
others are, found and counted. c^dagger S c / c^dagger c tells which they are: it is hardly above the smallest
eigenvalue of S. Of a state that is below the threshold of `pencil` a part at least is in what the dense solver leaves
out.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import LinAlgError

from ase_hybridham.solve.assembly import Assembly
from ase_hybridham.solve.bloch import check_k_points
from ase_hybridham.solve.cost import Cost, sparse_cost
from ase_hybridham.solve.dense import checked_operators
from ase_hybridham.solve.dissection import dissect
from ase_hybridham.solve.lanczos import BlockLanczos, rayleigh_ritz
from ase_hybridham.solve.multifrontal import Multifrontal
from ase_hybridham.solve.pattern import BlockMatrix, Pattern
from ase_hybridham.system import LCAOSystem, PairBlocks

__all__ = ["Eigenpairs", "Engine", "Factor", "Factorized", "Pencil", "SparseProblem"]

# |A x - b| / |b| of one solution, above which a factorization is not trusted: sigma is next to an eigenvalue, or
# elements grew. Of 44 counts next to eigenvalues those that were wrong had more than 0.05 in single precision.
TRUSTED = {"f": 1e-2, "d": 1e-6}
# Then sigma moves by these, in eV, one after the other, and at last the precision becomes double.
MOVES = (0.0, 1e-6, 1e-5, 1e-4)
# A single-precision factorization counts where no energy that was found is so near, in eV.
CLEAR = 1e-4
# Vectors that Lanczos may take, for each state that is wanted, and besides.
MOST_VECTORS = 12
# Steps between two looks at the projected matrix, which begin at so many vectors for each candidate.
STEPS = 2
LEAST_VECTORS = 2.5
# Steps that random vectors are given to bring up what was missed.
AGAIN = 8

logger = logging.getLogger(__name__)


class Factorized(Protocol):
    """A matrix that an engine factorized."""

    @property
    def negative(self) -> int | None:
        """Number of negative eigenvalues; None if the engine cannot tell."""

    def solve(self, b: NDArray) -> NDArray:
        """A^-1 b, shape (n, n_columns), in the precision of the matrix."""


class Engine(Protocol):
    """What factorizes Hermitian matrices of one pattern, which it has analyzed when it is made."""

    def factor(self, matrix: BlockMatrix) -> Factorized:
        """Of a matrix real or complex, in single or double precision; LinAlgError if it is singular."""


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """All states between two energies.

    Parameters
    ----------
    energies : array, shape (n,)
        eV, ascending.
    vectors : array, shape (n_orbitals, n)
        c^dagger S c = 1; orbitals ordered atom, spin, orbital.
    residuals : array, shape (n,)
        |H c - E S c|, eV.
    window : tuple of float
        Energies in eV between which these are.
    first_band : int or None
        Number of states below the first of these, from 0; None if the engine does not count.
    n_counted : int or None
        States in the window by the difference of two counts; None if nobody counted.
    n_vectors : int
        Vectors that A^-1 S was applied to.
    """

    energies: NDArray[np.float64]
    vectors: NDArray
    residuals: NDArray[np.float64]
    window: tuple[float, float]
    first_band: int | None
    n_counted: int | None
    n_vectors: int

    @property
    def n_missing(self) -> int | None:
        """States in the window that were not found; None if nobody counted."""
        return None if self.n_counted is None else self.n_counted - len(self.energies)

    @property
    def overlaps(self) -> NDArray[np.float64]:
        """c^dagger S c / c^dagger c, shape (n,); of a ghost state hardly above the smallest eigenvalue of S."""
        return 1 / np.einsum("na,na->a", self.vectors.conj(), self.vectors).real


class Factor:
    """A = H - sigma S, factorized.

    Parameters
    ----------
    pencil : Pencil
    sigma : float
        eV. Where it cannot be used it is moved, by 1e-4 eV at most.
    single : bool
        In single precision; solutions are refined to double.

    Raises
    ------
    LinAlgError
        If no factorization near sigma passes the test.
    """

    sigma: float
    residual: float  # |A x - b| / |b| of a test

    def __init__(self, pencil: "Pencil", sigma: float, *, single: bool = False) -> None:
        rng = np.random.default_rng(0)
        self._b = rng.normal(size=(pencil.pattern.n, 1))
        self._engine = pencil.engine
        tries = [(sigma + move, kind) for kind in ((True, False) if single else (False,)) for move in MOVES]
        for self.sigma, self.single in tries:
            self._factorized: Factorized | None = None
            self._matrix = pencil.shifted(self.sigma)
            try:
                self.residual = self._test()
            except LinAlgError:
                self.residual = np.inf
                continue
            if self.residual < TRUSTED["f" if self.single else "d"]:
                return
            logger.debug("factorization at %.9f eV: residual %.1e; sigma moves", self.sigma, self.residual)
        raise LinAlgError(
            f"sparse factorization at {sigma:.6f} eV: expected a residual below {TRUSTED['d']:g}, got "
            f"{self.residual:.1e}; choose another energy or engine"
        )

    @cached_property
    def negative(self) -> int | None:
        """Number of states below sigma; None if the engine does not tell."""
        return self._again().negative

    def release(self) -> None:
        """Frees the factorization, to make room for others; the next solution makes it once more."""
        self._factorized = None

    def solve(self, b: NDArray) -> NDArray:
        """A^-1 b, in double precision, shape (n, n_columns)."""
        x = self._once(b)
        return x + self._once(b - self._matrix.product(x)) if self.single else x

    def _again(self) -> Factorized:
        if self._factorized is None:
            matrix = self._matrix
            self._factorized = self._engine.factor(matrix.astype(_single(matrix.dtype)) if self.single else matrix)
        return self._factorized

    def _once(self, b: NDArray) -> NDArray:
        if not self.single:
            return self._again().solve(b)
        scale = np.abs(b).max(axis=0)
        scale[scale == 0] = 1.0
        x = self._again().solve((b / scale).astype(_single(b.dtype)))
        return x.astype(b.dtype) * scale

    def _test(self) -> float:
        with np.errstate(all="ignore"):  # what is not a finite number fails the test
            b = self._b.astype(self._matrix.dtype)
            return float(np.linalg.norm(self._matrix.product(self._once(b)) - b) / np.linalg.norm(b))


@dataclass(frozen=True, eq=False)
class Pencil:
    """H(k) and S(k).

    Parameters
    ----------
    engine : Engine
    h, s : BlockMatrix
        In double precision, over one pattern and with the same phases; eV, and 1.
    single : bool
        Factorize in single precision, and refine.
    """

    engine: Engine
    h: BlockMatrix
    s: BlockMatrix
    single: bool = False

    @property
    def pattern(self) -> Pattern:
        """Where the matrices have elements."""
        return self.h.pattern

    def shifted(self, sigma: float) -> BlockMatrix:
        """H - sigma S."""
        return self.h.minus(sigma, self.s)

    def factor(self, sigma: float) -> Factor:
        """H - sigma S, factorized."""
        return Factor(self, sigma, single=self.single)

    def count(self, energy: float) -> int | None:
        """Number of states below an energy in eV; None if the engine does not tell."""
        return Factor(self, energy, single=self.single).negative

    def eigenpairs(
        self, n_wanted: int, sigma: float, *, block: int = 8, tolerance: float = 1e-4, count: bool = True
    ) -> Eigenpairs:
        """The states nearest to an energy: at least as many as wanted, and multiplets as a whole.

        Parameters
        ----------
        n_wanted : int
        sigma : float
            eV.
        block : int
            Vectors a step of Lanczos; not less than a level has states.
        tolerance : float
            Bound of the error of energies, in eV, before the last step, which squares it: 1e-4 gave 1e-11.
        count : bool
            Compare the number of states with two counts, which cost a factorization each. If some are missing, look
            again; if they still are, a warning tells it.

        Raises
        ------
        ValueError
            If the system is too small for so many, or Lanczos does not converge.
        """
        n = self.pattern.n
        if not 1 <= n_wanted <= (n - 2 * block) // 2:
            raise ValueError(
                f"eigenpairs: expected 1 to {max((n - 2 * block) // 2, 0)} states of {n} orbitals, got {n_wanted}; "
                "use the dense solver"
            )
        factor = self.factor(sigma)
        lanczos = BlockLanczos(factor.solve, self.s.product, n, self.h.dtype, block)
        most = min(n, MOST_VECTORS * (n_wanted + 2 * block))
        for again in (False, True):
            found = self._converged(lanczos, factor, n_wanted, block, tolerance, most, count)
            if not found.n_missing:
                return found
            if not again:
                lanczos.add_random()
                most = min(n, most + lanczos.n_applied)
                logger.info("eigenpairs: %d states missing; looking again", found.n_missing)
                for _ in range(AGAIN):
                    lanczos.step()
        logger.warning(
            "eigenpairs near %.6f eV: found %d states between %.6f and %.6f eV, counted %d; "
            "use larger blocks or another energy",
            factor.sigma,
            len(found.energies),
            *found.window,
            found.n_counted,
        )
        return found

    def _converged(
        self, lanczos: BlockLanczos, factor: Factor, n_wanted: int, block: int, tolerance: float, most: int, count: bool
    ) -> Eigenpairs:
        candidates = n_wanted + block
        y = _converge(lanczos, candidates, tolerance, most)
        energies, vectors, residuals = rayleigh_ritz(self.h.product, self.s.product, lanczos.vectors(y))
        low, high = _window(energies, factor.sigma, n_wanted)
        inside = (energies > low) & (energies < high)
        below = None if factor.negative is None else factor.negative - int((energies[inside] < factor.sigma).sum())
        counted = None
        if count:
            factor.release()
            counted = self._count_between(low, high, energies, int(inside.sum()))
        return Eigenpairs(
            energies[inside], vectors[:, inside], residuals[inside], (low, high), below, counted, lanczos.n_applied
        )

    def _count_between(self, low: float, high: float, energies: NDArray, expected: int) -> int | None:
        """States between two energies; in single precision where that is safe, as long as it is as expected."""
        clear = min(np.abs(energies - edge).min() for edge in (low, high)) > CLEAR
        counted = None
        for single in (True, False) if clear else (False,):
            a, b = (Factor(self, edge, single=single).negative for edge in (low, high))
            counted = None if a is None or b is None else b - a
            if counted == expected:
                break
        return counted


class SparseProblem:
    """The pencils of a system.

    Parameters
    ----------
    system : LCAOSystem
        With H, and S unless its basis is orthogonal.
    engine : function
        Pattern -> Engine.
    single : bool
        Factorize in single precision, and refine: half the memory, 0.55 of the time.

    Raises
    ------
    OverlapError
        If S is missing.
    ValueError
        If H is missing, or a matrix element is not a finite number.
    """

    def __init__(
        self, system: LCAOSystem, engine: Callable[[Pattern], Engine] = Multifrontal, *, single: bool = False
    ) -> None:
        hamiltonians, overlap = checked_operators(system)
        self.n_spins = len(hamiltonians)
        self.single = single
        self.pattern = Pattern.of(hamiltonians[0], system.atoms)
        self.engine = engine(self.pattern)
        self._is_real = not any(np.iscomplexobj(h.values) for h in hamiltonians)
        self._assembly = Assembly(self.pattern, [*hamiltonians, _one(hamiltonians[0]) if overlap is None else overlap])

    def pencil(self, k_point: ArrayLike, spin: int = 0) -> Pencil:
        """H and S at a fractional k-point; real where k = -k modulo a reciprocal vector."""
        (k,) = check_k_points(np.asarray(k_point, dtype=float)[None])
        *h, s = self._assembly.at(k, real=self._is_real and not np.any(2 * k % 1))
        return Pencil(self.engine, h[spin], s, self.single)

    def cost(self, n_wanted: int, n_k: int = 1, *, count: bool = True, real: bool = False) -> Cost:
        """What states at some k-points cost, those of all spins, if the engine is the multifrontal one.

        Nothing is computed for it but, the first time, a product of matrices that tells how fast the processor is.

        Parameters
        ----------
        n_wanted : int
            States at a k-point; 0: a count only.
        n_k : int
            k-points.
        count : bool
            As `Pencil.eigenpairs` takes it.
        real : bool
            At k-points where H(k) is real.
        """
        dissection = self.engine.dissection if isinstance(self.engine, Multifrontal) else dissect(self.pattern)
        n, n_entries, n_pencils = self.pattern.n, self.pattern.n_entries, n_k * self.n_spins
        real = real and self._is_real
        matrices, width = self._assembly.sizes(real=real)
        options = {"count": count, "real": real, "single": self.single}
        return sparse_cost(dissection, n, n_entries, n_wanted, n_pencils, **options, matrices=matrices, width=width)


def _one(like: PairBlocks) -> PairBlocks:
    """The overlap of an orthogonal basis."""
    one = PairBlocks.zeros(like.pairs, like.basis, spinor=like.spinor)
    for atom in range(like.pairs.n_atoms):  # their pairs with themselves come first
        np.fill_diagonal(one.block(atom), 1.0)
    return one


def _single(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.complex64 if np.issubdtype(dtype, np.complexfloating) else np.float32)


def _converge(lanczos: BlockLanczos, n_wanted: int, tolerance: float, most: int) -> NDArray:
    """Steps until so many candidates are converged: their eigenvectors of T, shape (n_applied, n_wanted)."""
    while lanczos.n_applied < min(LEAST_VECTORS * n_wanted, most):
        lanczos.step()
    while True:
        theta, y, rest = (some[..., :n_wanted] for some in lanczos.ritz())
        error = float((rest / theta**2).max())
        if error < tolerance:
            return y
        if lanczos.n_applied >= most:
            raise ValueError(
                f"eigenpairs: expected errors below {tolerance:g} eV, got {error:.1e} after {lanczos.n_applied} "
                "vectors; ask for fewer states, another energy, or use the dense solver"
            )
        for _ in range(STEPS):
            lanczos.step()


def _window(energies: NDArray, sigma: float, n_wanted: int) -> tuple[float, float]:
    """Energies around sigma between which are at least so many, with edges in the widest gap that follows."""
    distances = np.sort(np.abs(energies - sigma))
    gaps = np.diff(distances[n_wanted - 1 :])
    cut = n_wanted + int(np.argmax(gaps))
    inside = energies[np.abs(energies - sigma) <= distances[cut - 1]]
    reach = [max(side, default=0.0) for side in (sigma - inside[inside < sigma], inside[inside >= sigma] - sigma)]
    low, high = (0.5 * (distance + distances[cut]) for distance in reach)
    return float(sigma - low), float(sigma + high)
