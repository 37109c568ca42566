"""Systems whose blocks are a function of the elements and the bond vector only, as real ones nearly are."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import make_supercell
from ase.build.supercells import lattice_points_in_supercell

from ase_hybridham.system import AtomBasis, Basis, LCAOSystem, PairBlocks, PairList

BASIS = Basis.of(
    AtomBasis.from_degrees("C", [0, 1], valence=4, cutoff=1.9),
    AtomBasis.from_degrees("S", [0, 0, 2], valence=6, cutoff=2.4),
)
REACH = 4.8


def _blocks(pairs: PairList, basis: Basis, seed: int) -> PairBlocks:
    """M_ij(v) = g_ij(v) + g_ji(-v)^T with a random g that ends smoothly at the cutoff."""
    rng = np.random.default_rng(seed)
    shapes = {(a, b): (4, basis[a].size, basis[b].size) for a in basis.numbers for b in basis.numbers}
    tensors = {elements: rng.normal(size=shape) for elements, shape in shapes.items()}
    stacks = {}
    for (a, b), rows in pairs.element_groups.items():
        v = pairs.vectors[rows]
        decay = np.exp(-0.7 * pairs.distances[rows]) * (1 - (pairs.distances[rows] / REACH) ** 2).clip(0) ** 2
        forward = np.column_stack([np.ones(len(v)), v])
        backward = np.column_stack([np.ones(len(v)), -v])
        block = np.einsum("px,xab->pab", forward, tensors[a, b]) + np.einsum("px,xba->pab", backward, tensors[b, a])
        stacks[a, b] = decay[:, None, None] * block
    return PairBlocks.from_groups(pairs, basis, stacks)


def _overlap(pairs: PairList, basis: Basis) -> PairBlocks:
    """Close enough to 1 to be positive definite in every cell used here."""
    overlap = _blocks(pairs, basis, seed=99) * 0.02
    for p in range(pairs.n_atoms):
        overlap.block(p)[:] = np.eye(overlap.shape(p)[0])
    return overlap


@pytest.fixture
def make_system() -> Callable[[Atoms], LCAOSystem]:
    """atoms -> system without spin; the same atoms in any order, cell or supercell are the same physics."""

    def make(atoms: Atoms) -> LCAOSystem:
        pairs = PairList.from_atoms(atoms, BASIS.cutoffs())
        return LCAOSystem(atoms, (_blocks(pairs, BASIS, seed=7),), _overlap(pairs, BASIS))

    return make


@pytest.fixture
def crystal() -> Atoms:
    """Four atoms, two elements, in an oblique cell smaller than the range of the orbitals."""
    rng = np.random.default_rng(5)
    cell = np.array([[3.6, 0.2, 0.0], [-0.9, 3.9, 0.3], [0.4, 0.1, 5.5]])
    return Atoms("CSSC", rng.uniform(size=(4, 3)) @ cell, cell=cell, pbc=True)


def pz_graphene(hopping: float, overlap: float | None) -> LCAOSystem:
    """One orbital an atom and nearest neighbors only: the textbook model; without overlap an orthogonal basis."""
    a = 2.46
    cell = np.array([[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [0, 0, 10]])
    atoms = Atoms("C2", np.array([[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]]) @ cell, cell=cell, pbc=(True, True, False))
    basis = Basis.of(AtomBasis.from_degrees("C", [0], valence=1), orthogonal=overlap is None)
    pairs = PairList.from_atoms(atoms, 1.6)
    is_bond = np.arange(len(pairs)) >= pairs.n_atoms
    h = PairBlocks(pairs, basis, np.where(is_bond, hopping, 0.0))
    s = None if overlap is None else PairBlocks(pairs, basis, np.where(is_bond, overlap, 1.0))
    return LCAOSystem(atoms, (h,), s)


@pytest.fixture
def make_graphene() -> Callable[[float, float | None], LCAOSystem]:
    """(hopping in eV, overlap or None) -> graphene with one orbital an atom."""
    return pz_graphene


def supercell(system: LCAOSystem, matrix: np.ndarray) -> LCAOSystem:
    """The same crystal in the cell M a, atom after atom of a primitive cell, cell after cell; blocks are copied."""
    unit, n = system.pairs, len(system.atoms)
    atoms = make_supercell(system.atoms, matrix, wrap=False)
    points = np.rint(lattice_points_in_supercell(matrix) @ matrix).astype(int)  # of `make_supercell`, in its order
    index = {tuple(np.round(point @ np.linalg.inv(matrix) % 1 % 1, 6) % 1): c for c, point in enumerate(points)}
    i, j, shifts, origin = [], [], [], []
    for c, point in enumerate(points):
        target = point + unit.shifts
        other = np.array([index[tuple(place)] for place in np.round(target @ np.linalg.inv(matrix) % 1 % 1, 6) % 1])
        i.append(c * n + unit.i)
        j.append(other * n + unit.j)
        shifts.append(np.rint((target - points[other]) @ np.linalg.inv(matrix)).astype(int))
        origin.append(np.arange(len(unit)))
    pairs, position = PairList.sorted_from_indices(atoms, *map(np.concatenate, (i, j, shifts)))

    def repeated(blocks: PairBlocks) -> PairBlocks:
        many = PairBlocks.zeros(pairs, blocks.basis, spinor=blocks.spinor, dtype=blocks.values.dtype)
        for row, p in zip(position, np.concatenate(origin), strict=True):
            many.block(row)[:] = blocks.block(p)
        return many

    return replace(
        system,
        atoms=atoms,
        hamiltonian=tuple(map(repeated, system.hamiltonian)),
        overlap=None if system.overlap is None else repeated(system.overlap),
        electrons=None if system.electrons is None else system.electrons * len(points),
    )


@pytest.fixture
def repeat() -> Callable[[LCAOSystem, np.ndarray], LCAOSystem]:
    """(system, M) -> its supercell."""
    return supercell
