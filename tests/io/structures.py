"""Structures whose S a reader's mistake would spoil: covariant, of several shells, small enough to write as text."""

import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigvalsh

from ase_hybridham.symmetry import DirectSum, spherical_harmonics
from ase_hybridham.system import Basis, LCAOSystem, PairBlocks, PairList
from tests.conftest import random_atoms
from tests.symmetry.test_real_data import covariance_error

__all__ = [
    "assert_same",
    "caught",
    "covariance_error",
    "covariant_system",
    "eigenvalues",
    "matrices",
    "reordered",
    "unpacked",
]

CAUGHT = 1e-3  # eV, and of S; the checks of data find less


def unpacked(source: Path, to: Path) -> Path:
    """A folder of samples in another place, with its .xz files decompressed."""
    for path in source.rglob("*"):
        if path.is_file():
            target = to / path.relative_to(source).with_name(path.name.removesuffix(".xz"))
            target.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes()
            target.write_bytes(lzma.decompress(content) if path.suffix == ".xz" else content)
    return to


def covariant_system(
    seed: int, basis: Basis, spin: Literal["none", "collinear", "spinor"], n_atoms: int = 4, center: bool = False
) -> LCAOSystem:
    """A random H, Hermitian, and an S of two-centre form, sum_L x_L(d) Q_L(d); atoms in order of their elements.

    With `center` they are in the cell around the origin.
    """
    rng = np.random.default_rng(seed)
    atoms = random_atoms(seed, n_atoms)
    if center:
        scaled = atoms.get_scaled_positions(wrap=False)
        atoms.set_scaled_positions(scaled - np.round(scaled))
    atoms = atoms[np.argsort(atoms.numbers, kind="stable")]
    pairs = PairList.from_atoms(atoms, basis.cutoffs())
    atoms.pbc = pairs.shifts.any(axis=0)
    basis = Basis.of(*(basis[z] for z in sorted(set(atoms.numbers.tolist()))))
    hamiltonian = tuple(_noise(rng, pairs, basis, spin == "spinor") for _ in range(1 + (spin == "collinear")))
    return LCAOSystem(
        atoms, hamiltonian, _two_centre(rng, pairs, basis), spin=spin, fermi_level=float(np.round(rng.normal(), 6))
    )


def _noise(rng: np.random.Generator, pairs: PairList, basis: Basis, spinor: bool) -> PairBlocks:
    zeros = PairBlocks.zeros(pairs, basis, spinor=spinor, dtype=complex if spinor else float)
    values = rng.normal(size=zeros.values.shape) + (1j * rng.normal(size=zeros.values.shape) if spinor else 0)
    return zeros.with_values(values).hermitian_part()


def _two_centre(rng: np.random.Generator, pairs: PairList, basis: Basis) -> PairBlocks:
    blocks = PairBlocks.zeros(pairs, basis)
    for (a, b), rows, stack in blocks.groups():
        table = DirectSum(basis[a].degrees, basis[b].degrees)
        components = table.to_sum(stack)
        harmonics = spherical_harmonics(pairs.vectors[rows], max(part.L for part in table.parts))
        decay = np.exp(-0.3 * pairs.distances[rows] ** 2)
        for part in table.parts:
            if part.natural:
                components[:, part.components] = rng.normal() * decay[:, None] * harmonics[part.L]
        blocks.values[blocks.index(rows)] = table.to_blocks(components)
    hopping = np.ones(len(blocks.values), dtype=bool)
    hopping[: blocks.offsets[pairs.n_atoms]] = False
    onsite = PairBlocks.from_groups(
        pairs,
        basis,
        {
            elements: np.where((pairs.distances[rows] == 0)[:, None, None], np.eye(*stack.shape[1:]), 0.0)
            for elements, rows, stack in blocks.groups()
        },
    )
    return blocks.with_values(np.where(hopping, blocks.values, 0.0)).hermitian_part() + onsite


def caught(system: LCAOSystem) -> bool:
    """Whether checks of physics would refuse the system: Hermitian operators, a covariant S."""
    asymmetric = any(blocks.hermiticity_error() > CAUGHT for blocks in system.operators)
    return asymmetric or system.overlap is None or not covariance_error(system.overlap, system.basis) < CAUGHT


def matrices(blocks: PairBlocks) -> dict[tuple[int, int, int], NDArray]:
    """R -> dense M(R), orbitals of all atoms one after the other, by a plain loop."""
    pairs, start = blocks.pairs, np.concatenate([[0], np.cumsum(blocks.orbitals)])
    out: dict[tuple[int, int, int], NDArray] = {}
    for p, (i, j, shift) in enumerate(zip(pairs.i, pairs.j, pairs.shifts.tolist(), strict=True)):
        matrix = out.setdefault(tuple(shift), np.zeros((start[-1], start[-1]), dtype=blocks.values.dtype))
        matrix[start[i] : start[i + 1], start[j] : start[j + 1]] = blocks.block(p)
    return out


def reordered(
    blocks: PairBlocks, order: Callable[[int], list[int]], sign: Callable[[int], int]
) -> dict[tuple[int, int, int], NDArray]:
    """R -> M(R) as a program with these m and signs has it; of spinors still up, then down, of an atom."""
    index: list[int] = []
    signs: list[int] = []
    for z in blocks.pairs.numbers.tolist():
        for _ in range(1 + blocks.spinor):
            for l in blocks.basis[z].degrees:
                start = len(index)
                index += [start + l + m for m in order(l)]
                signs += [sign(m) for m in order(l)]
    s = np.array(signs)
    return {shift: s[:, None] * matrix[np.ix_(index, index)] * s for shift, matrix in matrices(blocks).items()}


def eigenvalues(system: LCAOSystem, k: NDArray, spin: int = 0) -> NDArray:
    """Of H(k), S(k), by the plain loop."""
    phase = {shift: np.exp(2j * np.pi * np.dot(k, shift)) for shift in matrices(system.hamiltonian[spin])}
    hamiltonian = system.hamiltonian[spin]
    h = sum(phase[shift] * matrix for shift, matrix in matrices(hamiltonian).items())
    if system.overlap is None:
        return eigvalsh(h)
    overlap = system.overlap.to_spinor() if hamiltonian.spinor else system.overlap
    return eigvalsh(h, sum(phase[shift] * matrix for shift, matrix in matrices(overlap).items()))


def assert_same(found: LCAOSystem, expected: LCAOSystem, tolerance: float) -> None:
    """The same structure, spin, shells and matrix elements."""
    assert found.spin == expected.spin
    assert found.pairs.same_pairs(expected.pairs)
    assert [a.degrees for a in found.basis.atoms.values()] == [a.degrees for a in expected.basis.atoms.values()]
    np.testing.assert_allclose(found.pairs.vectors, expected.pairs.vectors, atol=1e-5)
    np.testing.assert_array_equal(found.atoms.pbc, expected.atoms.pbc)
    for ours, theirs in zip(found.operators, expected.operators, strict=True):
        np.testing.assert_allclose(ours.values, theirs.values, rtol=0, atol=tolerance)
