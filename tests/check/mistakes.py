"""Mistakes people and converters make, planted into right systems."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.linalg import block_diag

from ase_hybridham.system import LCAOSystem, PairBlocks, PairList, orbital_order
from ase_hybridham.system.pairs import pair_vectors


def turned(system: LCAOSystem, matrices: Mapping[int, NDArray]) -> LCAOSystem:
    """Orbitals of every element mixed: matrix @ block @ matrix^T."""

    def operator(blocks: PairBlocks) -> PairBlocks:
        full = {z: np.kron(np.eye(2), m) if blocks.spinor else m for z, m in matrices.items()}
        stacks = {(a, b): full[a] @ stack @ full[b].T for (a, b), _, stack in blocks.groups()}
        return PairBlocks.from_groups(blocks.pairs, blocks.basis, stacks, spinor=blocks.spinor)

    return with_operators(system, operator)


def with_operators(system: LCAOSystem, change) -> LCAOSystem:
    overlap = None if system.overlap is None else change(system.overlap)
    return replace(system, hamiltonian=tuple(map(change, system.hamiltonian)), overlap=overlap)


def matrices_of(program: str, system: LCAOSystem) -> dict[int, NDArray]:
    """ours = matrix @ theirs, for every element."""
    out = {}
    for z in np.unique(system.atoms.numbers).tolist():
        index, sign = orbital_order(program, system.basis[z].degrees)
        out[z] = np.eye(len(index))[index] * sign[:, None]
    return out


def read_as(system: LCAOSystem, program: str, written_by: str) -> LCAOSystem:
    """A file of one program, read with the orbital order of another."""
    theirs, ours = matrices_of(written_by, system), matrices_of(program, system)
    return turned(system, {z: ours[z] @ theirs[z].T for z in theirs})


def of_degree(system: LCAOSystem, l: int, matrix: NDArray) -> LCAOSystem:
    """The orbitals of one degree mixed by a matrix."""
    return turned(
        system,
        {
            z: block_diag(*(matrix if d == l else np.eye(2 * d + 1) for d in system.basis[z].degrees))
            for z in np.unique(system.atoms.numbers).tolist()
        },
    )


def with_atoms(system: LCAOSystem, atoms: Atoms) -> LCAOSystem:
    """The same blocks under the same labels (i, j, R), on other positions or another lattice."""
    vectors = pair_vectors(atoms, system.pairs.i, system.pairs.j, system.pairs.shifts)
    pairs = replace(system.pairs, vectors=vectors)
    return replace(with_operators(system, lambda m: PairBlocks(pairs, m.basis, m.values, m.spinor)), atoms=atoms)


def moved(system: LCAOSystem, positions: NDArray | None = None, cell: NDArray | None = None) -> LCAOSystem:
    atoms = system.atoms.copy()
    if cell is not None:
        atoms.set_cell(cell)
    if positions is not None:
        atoms.set_positions(positions)
    return with_atoms(system, atoms)


def relabeled(system: LCAOSystem, shifts: NDArray) -> LCAOSystem:
    """The same blocks under other R."""
    old = system.pairs
    pairs, position = PairList.sorted_from_indices(system.atoms, old.i, old.j, shifts)

    def operator(blocks: PairBlocks) -> PairBlocks:
        out = PairBlocks.zeros(pairs, blocks.basis, spinor=blocks.spinor, dtype=blocks.values.dtype)
        for p, q in enumerate(position):
            out.block(q)[:] = blocks.block(p)
        return out

    return with_operators(system, operator)


def reversed_shifts(system: LCAOSystem) -> LCAOSystem:
    """R of the row taken for R of the column."""
    return relabeled(system, -system.pairs.shifts)


def wrapped(system: LCAOSystem, seed: int = 0) -> LCAOSystem:
    """Atoms moved into the cell, or by lattice vectors if they are in it, while R stays."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(-1, 2, size=(len(system.atoms), 3))
    return moved(system, system.atoms.get_positions() + steps @ system.atoms.cell.array)


def interleaved(system: LCAOSystem, l: int = 1) -> LCAOSystem:
    """The first two shells of one degree of every element merged orbital by orbital."""
    matrices = {}
    for z in np.unique(system.atoms.numbers).tolist():
        atom = system.basis[z]
        same = [n for n, d in enumerate(atom.degrees) if d == l][:2]
        order = np.arange(atom.size)
        if len(same) == 2:
            first, second = (np.arange(atom.size)[atom.slices[n]] for n in same)
            order[np.concatenate([first, second])] = np.column_stack([first, second]).ravel()
        matrices[z] = np.eye(atom.size)[order]
    return turned(system, matrices)


def with_spin_blocks(system: LCAOSystem, change) -> LCAOSystem:
    """Spin blocks replaced: change(uu, ud, du, dd) -> the same four, of every pair."""

    def operator(blocks: PairBlocks) -> PairBlocks:
        stacks = {}
        for elements, _, stack in blocks.groups():
            n_i, n_j = (n // 2 for n in stack.shape[1:])
            four = stack[:, :n_i, :n_j], stack[:, :n_i, n_j:], stack[:, n_i:, :n_j], stack[:, n_i:, n_j:]
            uu, ud, du, dd = change(*four)
            stacks[elements] = np.concatenate([np.concatenate([uu, ud], 2), np.concatenate([du, dd], 2)], 1)
        return PairBlocks.from_groups(blocks.pairs, blocks.basis, stacks, spinor=True)

    return replace(system, hamiltonian=tuple(map(operator, system.hamiltonian)))


def scaled(system: LCAOSystem, h: float = 1.0, level: float = 1.0) -> LCAOSystem:
    """H and the Fermi level in other units."""
    hamiltonian = tuple(m.with_values(h * m.values) for m in system.hamiltonian)
    assert system.fermi_level is not None
    return replace(system, hamiltonian=hamiltonian, fermi_level=level * system.fermi_level)


def standardized(system: LCAOSystem) -> LCAOSystem:
    """H - mu S with mu = <H,S> / <S,S>; the Fermi level stays."""
    assert system.overlap is not None
    s = (system.overlap.to_spinor() if system.spin == "spinor" else system.overlap).values
    mu = float(np.mean([np.vdot(s, h.values).real for h in system.hamiltonian]) / np.vdot(s, s))
    return replace(system, hamiltonian=tuple(h.with_values(h.values - mu * s) for h in system.hamiltonian))
