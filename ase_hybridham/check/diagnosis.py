"""Which mistake explains that S does not fit its orbitals and positions? The simplest that leaves nothing over."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.linalg import block_diag

from ase_hybridham.check.covariance import Bonds, relative_residual
from ase_hybridham.check.hypotheses import Geometry, Orbitals, geometries, interleavings, program_orders, shell_orders
from ase_hybridham.check.wrapping import unwrapped
from ase_hybridham.symmetry import clebsch_gordan, spherical_harmonics
from ase_hybridham.system import Basis, PairBlocks
from ase_hybridham.system.orbitals import MAX_DEGREE

__all__ = ["EXPLAINS", "Explanation", "ShellBlocks", "explain", "sample"]

SAMPLE = 80  # bonds of all element pairs that hypotheses are tried on, and on-site blocks; but LEAST of each
LEAST = 8
EXPLAINS = 0.1  # of the residual: what a hypothesis that explains it may leave
HELPS = 0.9  # of the residual: what a part of an explanation may leave
AS_GOOD = 2.0  # factor between residuals that do not tell which of two hypotheses is right
EXACT = 1e-7  # a difference of squares leaves so much


@dataclass(frozen=True)
class Explanation:
    """The mistake that explains a residual, what to do, and the residual once it is undone."""

    words: str
    advice: str
    residual: float


@dataclass(frozen=True, eq=False)
class ShellBlocks:
    """Blocks between shells of two degrees with what two-center integrals may be: fast for many orders of orbitals.

    Parameters
    ----------
    blocks : mapping
        (l1, l2) -> array, shape (n, 2 l1+1, 2 l2+1): every pair of shells of every bond.
    allowed : mapping
        (l1, l2) -> array, shape (n, n_L, 2 l1+1, 2 l2+1): orthonormal blocks along the bond, one for each L.
    """

    blocks: Mapping[tuple[int, int], NDArray[np.float64]]
    allowed: Mapping[tuple[int, int], NDArray[np.float64]]

    @classmethod
    def of(cls, bonds: Sequence[Bonds]) -> "ShellBlocks":
        """Of all bonds, without the s-s blocks, which are always allowed."""
        blocks: dict[tuple[int, int], list[NDArray]] = {}
        allowed: dict[tuple[int, int], list[NDArray]] = {}
        for bond in bonds:
            table, stack = bond.table, bond.table.to_blocks(bond.components)
            harmonics = spherical_harmonics(bond.vectors, max(table.rows) + max(table.columns))
            starts = [np.cumsum([0, *(2 * l + 1 for l in degrees)]) for degrees in (table.rows, table.columns)]
            along = {}
            for a, l1 in enumerate(table.rows):
                for b, l2 in enumerate(table.columns):
                    if (l1, l2) == (0, 0):
                        continue
                    if (l1, l2) not in along:
                        degrees = range(abs(l1 - l2), l1 + l2 + 1, 2)
                        along[l1, l2] = np.stack([_along(l1, l2, L, harmonics[L]) for L in degrees], axis=1)
                    rows = slice(starts[0][a], starts[0][a + 1])
                    columns = slice(starts[1][b], starts[1][b + 1])
                    blocks.setdefault((l1, l2), []).append(stack[:, rows, columns])
                    allowed.setdefault((l1, l2), []).append(along[l1, l2])
        joined = ({key: np.concatenate(parts) for key, parts in made.items()} for made in (blocks, allowed))
        return cls(*joined)

    def residual(self, orders: Mapping[int, NDArray], degrees: Iterable[int] | None = None) -> float:
        """Relative residual with the orbitals of each l mixed by a matrix; of the shells of some degrees only."""
        rest = whole = 0.0
        known = None if degrees is None else set(degrees) | {0}
        for (l1, l2), stack in self.blocks.items():
            if known is not None and not {l1, l2} <= known:
                continue
            turned = stack
            turned = orders[l1] @ turned if l1 in orders else turned
            turned = turned @ orders[l2].T if l2 in orders else turned
            size = float((turned**2).sum())
            whole += size
            rest += size - float((np.einsum("nLab,nab->nL", self.allowed[l1, l2], turned) ** 2).sum())
        return (max(rest, 0.0) / whole) ** 0.5 if whole else 0.0


def explain(blocks: PairBlocks, hoppings: Sequence[Bonds], onsite: Sequence[Bonds], atoms: Atoms) -> Explanation | None:
    """The simplest mistake after which S is made of two-center integrals.

    Geometry alone, then orbitals alone, then both; of one kind the one that leaves least, and of those that are as
    good the one that is tried first.

    Parameters
    ----------
    blocks : PairBlocks
        S.
    hoppings, onsite : sequences of Bonds
        Of S.
    atoms : ase.Atoms

    Returns
    -------
    Explanation or None
        None if nothing that is tried explains it.
    """
    as_read, *others = [*geometries(atoms, blocks.pairs), *unwrapped(blocks.pairs, hoppings, atoms)]
    bonds = [*sample(hoppings), *sample(onsite)]
    nothing = Orbitals("", "")
    before = ShellBlocks.of(bonds).residual({})
    kinds: tuple[Callable[[], Iterator[tuple[Geometry, Orbitals, float]]], ...] = (
        lambda: ((g, nothing, ShellBlocks.of(_moved(bonds, g)).residual({})) for g in others),
        lambda: ((as_read, *found) for found in _orbitals(blocks, bonds)),
        lambda: ((g, *found) for g in others if g.common for found in _orbitals(blocks, _moved(bonds, g))),
    )
    for kind in kinds:
        found = [attempt for attempt in kind() if attempt[2] < EXPLAINS * before]
        if found:
            least = min(left for *_, left in found)
            geometry, orbitals, _ = next(f for f in found if f[2] <= AS_GOOD * least + EXACT)
            undone = [b.turned(_matrices(orbitals, blocks.basis)) for b in _moved(bonds, geometry)]
            mistakes = [h for h in (geometry, orbitals) if h.words]
            words, advice = " and ".join(h.words for h in mistakes), "; ".join(h.advice for h in mistakes)
            return Explanation(words, advice, relative_residual(undone))
    return None


def _orbitals(blocks: PairBlocks, bonds: Sequence[Bonds]) -> Iterator[tuple[Orbitals, float]]:
    """Mistakes in the orbitals and what they leave: of one program; merged shells; any order of each degree in turn."""
    shells = ShellBlocks.of(bonds)
    numbers = np.unique(blocks.pairs.numbers).tolist()
    degrees = sorted({l for z in numbers for l in blocks.basis[z].degrees} - {0})
    if not degrees:
        return
    for orbitals in program_orders(degrees[-1]):
        yield orbitals, shells.residual(orbitals.orders)
    yield from _merged_shells(blocks, bonds, numbers, shells.residual({}))
    yield from _degree_by_degree(shells, degrees)


def _degree_by_degree(shells: ShellBlocks, degrees: Sequence[int]) -> Iterator[tuple[Orbitals, float]]:
    """The best order of p, then of d given p, and so on."""
    chosen: list[Orbitals] = []
    orders: dict[int, NDArray] = {}
    for at, l in enumerate(degrees):
        known = degrees[: at + 1]
        attempts = ((o, shells.residual({**orders, **o.orders}, known)) for o in shell_orders(l))
        best, left = min(attempts, key=lambda attempt: attempt[1])
        if left < HELPS * shells.residual(orders, known) - EXACT:
            chosen.append(best)
            orders |= best.orders
    if chosen:
        words = ", ".join(o.words for o in chosen)
        yield Orbitals(words, chosen[0].advice, orders), shells.residual(orders)


def _merged_shells(
    blocks: PairBlocks, bonds: Sequence[Bonds], numbers: Sequence[int], before: float
) -> Iterator[tuple[Orbitals, float]]:
    """The best merging of shells of each element in turn."""
    chosen: list[Orbitals] = []
    matrices: dict[int, NDArray] = {}
    left = before
    for candidates in chain.from_iterable(interleavings(blocks.basis[z]) for z in numbers):
        best, least = None, HELPS * left - EXACT
        for orbitals in candidates:
            both = _product(orbitals.matrices, matrices)
            residual = ShellBlocks.of([b.turned(both) for b in bonds]).residual({})
            if residual < least:
                best, least = orbitals, residual
        if best is not None:
            chosen.append(best)
            matrices, left = _product(best.matrices, matrices), least
    if chosen:
        yield Orbitals(", ".join(o.words for o in chosen), chosen[0].advice, matrices=matrices), left


def _product(left: Mapping[int, NDArray], right: Mapping[int, NDArray]) -> dict[int, NDArray]:
    """The matrices of `left` applied after those of `right`."""
    return {**right, **{z: matrix @ right[z] if z in right else matrix for z, matrix in left.items()}}


def _matrices(orbitals: Orbitals, basis: Basis) -> dict[int, NDArray]:
    """Matrices of whole atoms."""
    unit = {l: np.eye(2 * l + 1) for l in range(MAX_DEGREE + 1)}
    orders = {
        z: block_diag(*({**unit, **orbitals.orders}[l] for l in basis[z].degrees))
        for z in (basis.numbers if orbitals.orders else ())
    }
    return _product(orbitals.matrices, orders)


def _along(l1: int, l2: int, L: int, harmonics: NDArray) -> NDArray[np.float64]:
    """The block of norm 1 that part L of a two-center integral is a multiple of; 0 for no direction and L > 0."""
    return np.einsum("abm,nm->nab", clebsch_gordan(l1, l2, L), harmonics) / np.sqrt(2 * L + 1)


def _moved(bonds: Sequence[Bonds], geometry: Geometry) -> list[Bonds]:
    return [replace(b, vectors=geometry.vectors[b.rows]) for b in bonds]


def sample(bonds: Sequence[Bonds], size: int = SAMPLE) -> list[Bonds]:
    """About `size` bonds, some of every element pair, always the same."""
    rng = np.random.default_rng(0)
    most = max(LEAST, size // max(len(bonds), 1))
    return [b.take(np.sort(rng.permutation(len(b.rows))[:most])) for b in bonds]
