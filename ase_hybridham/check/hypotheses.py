"""What a person or a converter may have got wrong: other vectors for the pairs, other orders of the orbitals.

A hypothesis undoes one mistake. Geometry: vectors of all pairs. Orbitals: a matrix for each element with
right = matrix @ read. The mistakes are those of known programs: the orders of `system.orbitals`, and what public
converters are known to write.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations, permutations, product

import numpy as np
from ase import Atoms
from ase.units import Bohr
from numpy.typing import NDArray

from ase_hybridham.system import ORBITAL_ORDERS, AtomBasis, PairList, orbital_order
from ase_hybridham.system.pairs import pair_vectors

__all__ = ["Geometry", "Orbitals", "geometries", "interleavings", "program_orders", "shell_orders"]

LETTERS = "spdfghi"
ORBITAL_NAMES = {1: ("y", "z", "x"), 2: ("xy", "yz", "z2", "xz", "x2-y2")}
# An order that no program of the table has: m of l = 1, of l = 2, of l = 3, all signs +.
WANNIER90 = ((0, 1, -1), (0, 1, -1, 2, -2), (0, 1, -1, 2, -2, 3, -3))


@dataclass(frozen=True, eq=False)
class Geometry:
    """Other vectors of the pairs and the mistake they undo.

    Parameters
    ----------
    words, advice : str
        The mistake, and what to do.
    vectors : array, shape (n_pairs, 3)
        Angstrom.
    common : bool
        Whether the mistake is seen together with mistakes in the orbitals.
    """

    words: str
    advice: str
    vectors: NDArray[np.float64]
    common: bool = False


@dataclass(frozen=True, eq=False)
class Orbitals:
    """Matrices with right = matrix @ read, and the mistake they undo.

    Parameters
    ----------
    words, advice : str
        The mistake, and what to do.
    orders : mapping
        l -> matrix of its shells, shape (2l+1, 2l+1).
    matrices : mapping
        Atomic number -> matrix of the whole atom.
    """

    words: str
    advice: str
    orders: Mapping[int, NDArray[np.float64]] = field(default_factory=dict)
    matrices: Mapping[int, NDArray[np.float64]] = field(default_factory=dict)


def geometries(atoms: Atoms, pairs: PairList) -> Iterator[Geometry]:
    """The vectors as they are, and those of other readings of lattice, positions and R."""
    cell, positions = atoms.cell.array, atoms.get_positions()

    def vectors(lattice: NDArray = cell, at: NDArray = positions, sign: int = 1) -> NDArray[np.float64]:
        other = Atoms(atoms.numbers, positions=at, cell=lattice)
        return pair_vectors(other, pairs.i, pairs.j, sign * pairs.shifts)

    yield Geometry("", "", vectors())
    yield Geometry(
        "R has the wrong sign (it belongs to the row, not to the column)",
        "use -R, or transpose the blocks and exchange i and j",
        vectors(sign=-1),
        common=True,
    )
    if not np.allclose(cell, cell.T):
        advice = "give lattice vectors as rows where rows are expected, as columns where columns are"
        yield Geometry("the lattice is transposed", advice, vectors(cell.T), common=True)
        yield Geometry("the lattice is transposed and R has the wrong sign", advice, vectors(cell.T, sign=-1))
    for words, advice, other in (
        (
            "the lattice is in angstrom, the positions are in bohr",
            "multiply positions by 0.529177",
            vectors(cell / Bohr),
        ),
        (
            "the lattice is in bohr, the positions are in angstrom",
            "multiply the lattice by 0.529177",
            vectors(cell * Bohr),
        ),
        ("positions are fractional, taken for angstrom", "multiply them by the lattice", vectors(at=positions @ cell)),
    ):
        yield Geometry(words, advice, other)
    if len(atoms) > 1:
        yield Geometry(
            "the table of positions is transposed",
            "atoms are columns in one of the two places",
            vectors(at=positions.reshape(3, -1).T),
        )


@cache
def program_orders(lmax: int) -> tuple[Orbitals, ...]:
    """Orbitals in the order of one program, read as if they were another's, or converted backwards."""
    tables, found = _tables(lmax), []
    seen: list[tuple[NDArray, ...]] = []
    advice = "read the files with the orbital order of the program that wrote them"
    for (read, ours), (right, theirs) in permutations(tables.items(), 2):
        matrices = tuple(t @ o.T for t, o in zip(theirs, ours, strict=True))
        if _is_new(matrices, seen):
            words = f"the orbitals stand in the order of {right} and were read in that of {read}"
            if all(_same(m, m.T) for m in matrices):
                words += ", or the other way round"
            found.append(Orbitals(words, advice, dict(enumerate(matrices))))
    for name, table in tables.items():
        matrices = tuple(t @ t for t in table)
        if _is_new(matrices, seen):
            words = f"the orbitals stand in the order of {name} and were converted with the inverse permutation"
            found.append(Orbitals(words, advice, dict(enumerate(matrices))))
    return tuple(found)


def shell_orders(l: int) -> Iterator[Orbitals]:
    """Orders of the orbitals of one degree: all of p; programs', two exchanged or one of another sign of the others."""
    size = 2 * l + 1
    unit = np.eye(size)
    candidates: list[NDArray] = []
    if l == 1:
        for places in permutations(range(3)):
            for signs in product((1.0, -1.0), repeat=2):
                candidates.append(unit[list(places)] * np.array([*signs, 1.0])[:, None])
    else:
        candidates += [unit * np.where(np.arange(size) == m, -1.0, 1.0) for m in range(size)]
        for a, b in combinations(range(size), 2):
            order = list(range(size))
            order[a], order[b] = b, a
            candidates.append(unit[order])
        for theirs, ours in permutations([table[l] for table in _tables(l).values()], 2):
            candidates.append(theirs @ ours.T)
    seen: list[tuple[NDArray, ...]] = []
    for matrix in candidates:
        if _is_new((matrix,), seen):
            yield Orbitals(_in_words(matrix, l), "convert the orbitals of these shells", {l: matrix})


def interleavings(atom: AtomBasis) -> Iterator[list[Orbitals]]:
    """For each degree the ways in which neighboring shells of an element may be merged (first by m, then by shell)."""
    slices = atom.slices
    for l in sorted(set(atom.degrees) - {0}):
        shells = [n for n, degree in enumerate(atom.degrees) if degree == l]
        found = []
        for first, last in combinations(range(len(shells)), 2):
            group = shells[first : last + 1]
            places = np.concatenate([np.arange(atom.size)[slices[n]] for n in group])
            # place m * k + s of what was read holds order m of shell s
            k, size = len(group), 2 * l + 1
            held = [m * k + s for s in range(k) for m in range(size)]
            matrix = np.eye(atom.size)
            matrix[places] = np.eye(atom.size)[places[held]]
            words = f"{LETTERS[l]} shells {first + 1} to {last + 1} of {atom.symbol} are interleaved, m before shell"
            found.append(Orbitals(words, "sort the orbitals by shell, then by m", matrices={atom.number: matrix}))
        if found:
            yield found


@cache
def _tables(lmax: int) -> dict[str, tuple[NDArray, ...]]:
    """Names of the programs of an order -> for each l the matrix with ours = matrix @ theirs."""
    found: list[tuple[list[str], tuple[NDArray, ...]]] = []
    for name, matrices in [*_known_orders(lmax), ("wannier90", _wannier90(lmax))]:
        same = next((names for names, known in found if all(map(np.array_equal, known, matrices))), None)
        if same is None:
            found.append(([name], matrices))
        else:
            same.append(name)
    return {", ".join(names): matrices for names, matrices in found}


def _known_orders(lmax: int) -> Iterator[tuple[str, tuple[NDArray, ...]]]:
    for program in ORBITAL_ORDERS:
        orders = (orbital_order(program, [l]) for l in range(lmax + 1))
        name = "this package" if program == "house" else program
        yield name, tuple(np.eye(len(sign))[index] * sign[:, None] for index, sign in orders)


def _wannier90(lmax: int) -> tuple[NDArray, ...]:
    places = [[0], *([order.index(m) for m in range(-l, l + 1)] for l, order in enumerate(WANNIER90, start=1))]
    places += [list(range(2 * l + 1)) for l in range(len(places), lmax + 1)]
    return tuple(np.eye(2 * l + 1)[places[l]] for l in range(lmax + 1))


def _is_new(matrices: tuple[NDArray, ...], seen: list[tuple[NDArray, ...]]) -> bool:
    """Whether these are not known yet, up to a sign for each l, which does not show; remembers them."""
    for known in [tuple(np.eye(len(m)) for m in matrices), *seen]:
        if all(_same(a, b) for a, b in zip(matrices, known, strict=True)):
            return False
    seen.append(matrices)
    return True


def _same(a: NDArray, b: NDArray) -> bool:
    return np.array_equal(a, b) or np.array_equal(a, -b)


def _in_words(matrix: NDArray, l: int) -> str:
    """What the places of a shell hold, e.g. 'the p orbitals y, z, x hold x, y, -z'."""
    names = ORBITAL_NAMES.get(l, tuple(f"m={m}" for m in range(-l, l + 1)))
    held = matrix.T
    which = np.abs(held).argmax(axis=1)
    content = [("-" if held[row, at] < 0 else "") + names[at] for row, at in enumerate(which)]
    return f"the {LETTERS[l]} orbitals read as {', '.join(names)} are {', '.join(content)}"
