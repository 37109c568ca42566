"""Some states of H(k) c = E S(k) c near an energy, of systems too large for LAPACK.

`SparseProblem` is a system, `Pencil` its H and S at a k-point, `Factor` a factorization of A = H - sigma S, which
solves A x = b and counts the states below sigma. The engine behind it is one that `Engine` describes.

Where S(k) is nearly singular all of them leave the same directions out as the dense solver (`pencil`): states and
counts are those of vectors in the others.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh, qr

from ase_hybridham.solve.assembly import Assembly
from ase_hybridham.solve.bloch import check_k_points
from ase_hybridham.solve.cost import Cost, sparse_cost
from ase_hybridham.solve.deflation import directions_below
from ase_hybridham.solve.dense import checked_operators, failure
from ase_hybridham.solve.dissection import dissect
from ase_hybridham.solve.factor import Engine, Factor, LeftOut, tries_at
from ase_hybridham.solve.lanczos import BlockLanczos, rayleigh_ritz
from ase_hybridham.solve.multifrontal import Multifrontal
from ase_hybridham.solve.pattern import BlockMatrix, Pattern
from ase_hybridham.solve.pencil import OVERLAP_THRESHOLD, NotPositiveError, check_threshold
from ase_hybridham.system import LCAOSystem, PairBlocks

__all__ = ["Eigenpairs", "Pencil", "SparseProblem"]

# A single-precision factorization counts where no energy that was found is so near, in eV.
CLEAR = 1e-4
# Vectors that Lanczos may take, for each state that is wanted, and besides.
MOST_VECTORS = 12
# Steps between two looks at the projected matrix, which begin at so many vectors for each candidate.
STEPS = 2
LEAST_VECTORS = 2.5
# Steps that random vectors are given to bring up what was missed.
AGAIN = 8
# Up to so many orbitals LAPACK finds all states where more than half are wanted, for which Lanczos has no room.
FEW = 400

logger = logging.getLogger(__name__)


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
    left_out : LeftOut, optional
        Directions in which S is nearly singular: no state has a part in them.
    """

    engine: Engine
    h: BlockMatrix
    s: BlockMatrix
    single: bool = False
    left_out: LeftOut | None = None

    @property
    def pattern(self) -> Pattern:
        """Where the matrices have elements."""
        return self.h.pattern

    @property
    def n_states(self) -> int:
        """Of all energies: orbitals, less directions that are left out."""
        return self.pattern.n - (0 if self.left_out is None else self.left_out.vectors.shape[1])

    def shifted(self, sigma: float) -> BlockMatrix:
        """H - sigma S."""
        return self.h.minus(sigma, self.s)

    def factor(self, sigma: float, *, single: bool | None = None) -> Factor:
        """H - sigma S, factorized; sigma in eV, moved by 1e-4 at most where it cannot be used."""
        tries = tries_at(sigma, single=self.single if single is None else single)
        return Factor(self.engine, self.shifted, tries, self.left_out)

    def count(self, energy: float) -> int | None:
        """Number of states below an energy in eV; None if the engine does not tell."""
        return self.factor(energy).negative

    def eigenpairs(
        self, n_wanted: int, sigma: float, *, block: int = 8, tolerance: float = 1e-4, count: bool = True
    ) -> Eigenpairs:
        """The states nearest to an energy: at least as many as wanted, and multiplets as a whole.

        Of few orbitals, where they are more than about half of the states, LAPACK finds all.

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
        n, m = self.pattern.n, self.n_states
        half = (m - 2 * block) // 2
        most = m if n <= FEW else half
        if not 1 <= n_wanted <= most:
            raise ValueError(
                f"eigenpairs: expected 1 to {most} states of {n} orbitals, got {n_wanted}; use the dense solver"
            )
        if n_wanted > half:
            return self._all()
        factor = self.factor(sigma)
        without = None if self.left_out is None else self.left_out.vectors
        lanczos = BlockLanczos(factor.solve, self.s.product, n, self.h.dtype, block, without=without)
        most = min(m, MOST_VECTORS * (n_wanted + 2 * block))
        for again in (False, True):
            found = self._converged(lanczos, factor, n_wanted, block, tolerance, most, count)
            if not found.n_missing:
                return found
            if not again:
                lanczos.add_random()
                most = min(m, most + lanczos.n_applied)
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
        energies, vectors, residuals = rayleigh_ritz(self._h_product, self.s.product, lanczos.vectors(y))
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
            a, b = (self.factor(edge, single=single).negative for edge in (low, high))
            counted = None if a is None or b is None else b - a
            if counted == expected:
                break
        return counted

    def _h_product(self, x: NDArray) -> NDArray:
        h_x = self.h.product(x)
        return h_x if self.left_out is None else self.left_out.project(h_x)

    def _all(self) -> Eigenpairs:
        """All states, by LAPACK, in a basis Q of what is not left out."""
        n = self.pattern.n
        without = np.empty((n, 0)) if self.left_out is None else self.left_out.vectors
        q = qr(without)[0][:, without.shape[1] :]
        h, s = (q.conj().T @ matrix.product(q) for matrix in (self.h, self.s))
        energies, vectors = eigh(h, s)
        vectors = q @ vectors
        residuals = np.linalg.norm(self._h_product(vectors) - self.s.product(vectors) * energies, axis=0)
        return Eigenpairs(energies, vectors, residuals, (-np.inf, np.inf), 0, len(energies), 0)


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
    overlap_threshold : float
        As in `eigenvalues`; with 0 nobody looks at S(k).

    Raises
    ------
    OverlapError
        If S is missing.
    ValueError
        If H is missing, a matrix element is not a finite number, or the threshold is negative.
    """

    def __init__(
        self,
        system: LCAOSystem,
        engine: Callable[[Pattern], Engine] = Multifrontal,
        *,
        single: bool = False,
        overlap_threshold: float = OVERLAP_THRESHOLD,
    ) -> None:
        check_threshold(overlap_threshold)
        hamiltonians, overlap = checked_operators(system)
        self.n_spins = len(hamiltonians)
        self.single = single
        self.overlap_threshold = 0.0 if overlap is None else overlap_threshold
        self.pattern = Pattern.of(hamiltonians[0], system.atoms)
        self.engine = engine(self.pattern)
        self._is_real = not any(np.iscomplexobj(h.values) for h in hamiltonians)
        self._assembly = Assembly(self.pattern, [*hamiltonians, _one(hamiltonians[0]) if overlap is None else overlap])
        self._left_out: dict[bytes, LeftOut | None] = {}  # of k-points: where it is nothing, and the last one

    def pencil(self, k_point: ArrayLike, spin: int = 0) -> Pencil:
        """H and S at a fractional k-point; real where k = -k modulo a reciprocal vector.

        Raises
        ------
        OverlapError
            If an eigenvalue of S(k) is below minus the threshold.
        """
        (k,) = check_k_points(np.asarray(k_point, dtype=float)[None])
        *h, s = self._assembly.at(k, real=self._is_real and not np.any(2 * k % 1))
        return Pencil(self.engine, h[spin], s, self.single, self._directions(k, s))

    def _directions(self, k: NDArray, s: BlockMatrix) -> LeftOut | None:
        """What is left out at a k-point, of all spins."""
        if not self.overlap_threshold:
            return None
        if k.tobytes() not in self._left_out:
            try:
                found = directions_below(self._counting, s, self.overlap_threshold)
            except NotPositiveError as error:
                raise failure(k, error, self.overlap_threshold) from None
            self._left_out = {at: some for at, some in self._left_out.items() if not some}
            self._left_out[k.tobytes()] = found
        return self._left_out[k.tobytes()]

    @cached_property
    def _counting(self) -> Engine:
        """An engine that counts at every k-point, which others do not."""
        return self.engine if isinstance(self.engine, Multifrontal) else Multifrontal(self.pattern)

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
        return self._cost(n_wanted, n_k * self.n_spins, n_k, count=count, real=real, single=self.single)

    def cost_of_counts(self, n_counts: int, n_k: int = 1) -> Cost:
        """What so many counts at some k-points cost, those of all spins, in single precision."""
        return self._cost(0, n_counts * n_k * self.n_spins, n_k, count=False, real=False, single=True)

    def _cost(self, n_wanted: int, n_pencils: int, n_k: int, *, count: bool, real: bool, single: bool) -> Cost:
        dissection = self.engine.dissection if isinstance(self.engine, Multifrontal) else dissect(self.pattern)
        real = real and self._is_real
        matrices, width = self._assembly.sizes(real=real)
        looks = n_k if self.overlap_threshold else 0
        sizes = {"looks": looks, "matrices": matrices, "width": width}
        n, n_entries = self.pattern.n, self.pattern.n_entries
        return sparse_cost(
            dissection, n, n_entries, n_wanted, n_pencils, count=count, real=real, single=single, **sizes
        )


def _one(like: PairBlocks) -> PairBlocks:
    """The overlap of an orthogonal basis."""
    one = PairBlocks.zeros(like.pairs, like.basis, spinor=like.spinor)
    for atom in range(like.pairs.n_atoms):  # their pairs with themselves come first
        np.fill_diagonal(one.block(atom), 1.0)
    return one


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
