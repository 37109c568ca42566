"""Small untrained networks without a zero in them, and the structures they are tried on."""

from typing import Literal

import numpy as np
import torch
from ase import Atoms
from numpy.typing import ArrayLike, NDArray

from ase_hybridham.model import Cascade, Domain, ModelConfig, PairGraph
from ase_hybridham.symmetry import spinor_from_quaternion
from ase_hybridham.system import AtomBasis, Basis, PairBlocks, PairList
from tests.conftest import random_atoms

IRREPS = "6x0e+4x1o+3x2e+2x3o+2x4e"
MIXED = Basis.of(
    AtomBasis.from_degrees("C", [0, 0, 1, 1], valence=4, cutoff=2.0),
    AtomBasis.from_degrees("Mo", [0, 1, 2], valence=14, cutoff=2.5),
    AtomBasis.from_degrees("S", [0, 1], valence=6, cutoff=2.2),
    name="mixed",
)
CARBON = Basis.of(AtomBasis.from_degrees("C", [0, 1], valence=4, cutoff=1.6), name="carbon")


def config(irreps: str = IRREPS, updates: int = 3, dtype: str = "float64", **stage2: object) -> ModelConfig:
    """Small widths; `updates` is stage 1's n_blocks."""
    small = {"width": 8, "n_heads": 2, "n_blocks": 1, "n_gaussians": 8, "readout_channels": 4}
    small |= {"n_groups": min(updates, 3)}
    stage1 = {"irreps": irreps, "n_blocks": updates, "n_gaussians": 12, "radial_width": 8}
    return ModelConfig(stage1=stage1, stage2=small | stage2, dtype=dtype)


def network(
    basis: Basis = MIXED,
    settings: ModelConfig | None = None,
    *,
    seed: int = 0,
    device: str = "cpu",
    training: list[PairGraph] | None = None,
    stage2_weight: float = 1.0,
    spin: Literal["none", "spinor"] = "none",
) -> Cascade:
    """A hybrid with random weights, read-outs and biases too, whose scales are fitted to random Hamiltonians."""
    torch.manual_seed(seed)
    reach = 2 * max(basis.cutoffs().values())
    cascade = Cascade(settings or config(), Domain(basis, reach, 12.0, spin))
    perturb(cascade, seed)
    if training is None:
        training = [
            graph_of(random_hamiltonian(structure(basis, s), basis, s, spin == "spinor"), cascade) for s in range(3)
        ]
    cascade.scale1.fit(training)
    cascade.scale2.fit(training, centered=False)
    if cascade.stage2 is not None:
        with torch.no_grad():
            cascade.stage2.fit_inputs((graph, cascade.stage1(graph)) for graph in training)
    cascade.has_stage2.fill_(True)
    return cascade.to(device)


def perturb(module: torch.nn.Module, seed: int = 0) -> None:
    """Random numbers in place of zeros and ones: a read-out that starts at zero would hide what feeds it."""
    torch.manual_seed(seed + 1000)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any() or (parameter == 1).all():
                parameter.add_(0.3 * torch.randn_like(parameter))


def structure(basis: Basis, seed: int, n_atoms: int = 5, pbc: tuple[bool, bool, bool] = (True, True, False)) -> Atoms:
    """A random cell of the elements of a basis; some atoms lie outside it."""
    atoms = random_atoms(seed, n_atoms, pbc)
    atoms.numbers = np.random.default_rng(seed).choice(basis.numbers, size=n_atoms)
    return atoms


def random_hamiltonian(atoms: Atoms, basis: Basis, seed: int = 0, spinor: bool = False) -> PairBlocks:
    """Hermitian, of some eV; spinors are even under time reversal."""
    pairs = PairList.from_atoms(atoms, basis.cutoffs())
    zeros, rng = PairBlocks.zeros(pairs, basis), np.random.default_rng(seed)
    if not spinor:
        return zeros.with_values(3.0 * rng.normal(size=zeros.values.shape)).hermitian_part()
    stacks = {
        elements: spinor_from_quaternion(3.0 * rng.normal(size=(len(rows), 4, *blocks.shape[1:])))
        for elements, rows, blocks in zeros.groups()
    }
    return PairBlocks.from_groups(pairs, basis, stacks, spinor=True).hermitian_part()


def graph_of(hamiltonian: PairBlocks, cascade: Cascade) -> PairGraph:
    """The graph of a Hamiltonian as target, where the network is."""
    graph = PairGraph.with_targets((hamiltonian,), cascade.vocabulary, cascade.lmax, cascade.dtype)
    return graph.to(cascade.device)


def turned(atoms: Atoms, rotation: NDArray) -> Atoms:
    """The structure turned about the origin."""
    out = atoms.copy()
    out.set_cell(atoms.cell.array @ rotation.T)
    out.set_positions(atoms.get_positions() @ rotation.T)
    return out


def turned_pairs(atoms: Atoms, pairs: PairList, rotation: NDArray) -> PairList:
    """The same pairs of the turned structure, so that a pair at the very cutoff cannot get lost."""
    return PairList.from_indices(turned(atoms, rotation), pairs.i, pairs.j, pairs.shifts)


def rows_of(blocks: PairBlocks, i: ArrayLike, j: ArrayLike, shifts: ArrayLike) -> list[int]:
    """Rows of pairs in the list of some blocks; KeyError if one is not there."""
    p = blocks.pairs
    table = {key: row for row, key in enumerate(zip(p.i, p.j, map(tuple, p.shifts.tolist()), strict=True))}
    return [
        table[key] for key in zip(np.asarray(i), np.asarray(j), map(tuple, np.asarray(shifts).tolist()), strict=True)
    ]


def assert_same_blocks(blocks: PairBlocks, other: PairBlocks, rows: list[int], atol: float) -> None:
    """Block p equals block rows[p] of the other."""
    for p, row in enumerate(rows):
        np.testing.assert_allclose(blocks.block(p), other.block(row), atol=atol, rtol=0)
