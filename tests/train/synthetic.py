"""Small structures with a Hamiltonian that a network can learn in seconds, and data sets of them."""

from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from ase_hybridham.model import Vocabulary, blocks_from_components
from ase_hybridham.store import append_systems, set_splits
from ase_hybridham.system import AtomBasis, Basis, LCAOSystem, PairBlocks, PairList
from ase_hybridham.system.lcao import SpinKind

BASIS = Basis.of(
    AtomBasis.from_degrees("C", [0, 1], valence=4, cutoff=1.6),
    AtomBasis.from_degrees("H", [0], valence=1, cutoff=1.2),
    name="synthetic",
)
SPLITS = {"train": ["a", "b", "c"], "val": ["d"], "test": ["e", "f"]}
OPTIONS = {
    "model": {
        "stage1": {"irreps": "6x0e+4x1o+3x2e", "n_blocks": 2, "n_gaussians": 12, "radial_width": 8},
        "stage2": {"width": 8, "n_groups": 2, "n_blocks": 1, "n_heads": 2, "n_gaussians": 8, "readout_channels": 4},
    },
    "phase1": {"epochs": 8, "learning_rate": 2e-2, "warmup_steps": 4},
    "phase2": {"epochs": 8, "learning_rate": 3e-2, "warmup_steps": 4},
    "device": "cpu",
}
# p x p with a spin couples to degrees up to 3
SPINOR_OPTIONS = OPTIONS | {
    "model": OPTIONS["model"] | {"stage1": OPTIONS["model"]["stage1"] | {"irreps": "6x0e+4x1o+3x2e+2x3o"}}
}


def atoms_of(seed: int) -> Atoms:
    """A C-H layer of three atoms."""
    rng = np.random.default_rng(seed)
    cell = np.diag([2.6, 2.8, 12.0]) + rng.normal(scale=0.05, size=(3, 3))
    positions = np.array([[0.2, 0.3, 6.0], [1.5, 1.4, 6.3], [0.3, 0.4, 7.1]]) + rng.normal(scale=0.06, size=(3, 3))
    return Atoms("CCH", positions, cell=cell, pbc=(True, True, False))


def system_of(atoms: Atoms, basis: Basis = BASIS, spin: SpinKind = "none") -> LCAOSystem:
    """Bonds that decay with the distance and feel how crowded their ends are; levels that do so, too.

    Of spinors every scalar and axial part of the total degree J is like that: spin-orbit coupling everywhere.
    Of collinear spin the mean and, ten times smaller, the splitting are like that.
    """
    pairs = PairList.from_atoms(atoms, basis.cutoffs())
    vocabulary = Vocabulary(basis, spin=spin)
    i, j, d = pairs.i[pairs.hopping], pairs.j[pairs.hopping], pairs.distances[pairs.hopping]
    crowd = np.tanh(np.bincount(i, np.exp(-2 * (d - 1)), len(atoms)) - 1)
    nodes = np.zeros((len(atoms), vocabulary.size))
    edges = np.zeros((len(d), vocabulary.size))
    for row, z in enumerate(atoms.numbers):
        direct_sum = vocabulary.direct_sum((z, z))
        scalar = direct_sum.natural & (direct_sum.degree == 0)
        nodes[row, : direct_sum.size][scalar] = -1.0 - 0.2 * z + crowd[row]
    for row in range(len(d)):
        a, b = atoms.numbers[i[row]], atoms.numbers[j[row]]
        direct_sum = vocabulary.direct_sum((int(a), int(b)))
        axial = np.flatnonzero(direct_sum.natural & (direct_sum.order == 0))
        bond = 2.0 * np.exp(-1.2 * (d[row] - 1)) * (1 + 0.3 * (crowd[i[row]] + crowd[j[row]]))
        edges[row, axial] = bond * np.array([np.cos(direct_sum.part_of[c] + 1) for c in axial])
    if spin == "collinear":
        for rows, columns in ((nodes, atoms.numbers[:, None]), (edges, atoms.numbers[np.stack([i, j], axis=1)])):
            for row, elements in zip(rows, columns.tolist(), strict=True):
                half = vocabulary.direct_sum((elements[0], elements[-1])).size // 2
                row[half : 2 * half] *= 0.1
    components = torch.from_numpy(nodes), torch.from_numpy(edges)
    operators = tuple(h.hermitian_part() for h in blocks_from_components(*components, pairs, vocabulary))
    s = 0.02 * (operators[0] if spin == "none" else system_of(atoms, basis).hamiltonian[0])
    for p in range(pairs.n_atoms):
        s.block(p)[:] = np.eye(s.shape(p)[0])
    electrons = basis.electrons(atoms.numbers)
    return LCAOSystem(
        atoms, operators, s, spin, electrons=electrons, potential_reference="vacuum", provenance={"code": "none"}
    )


def write_data_set(path: Path, splits: dict[str, list[str]] | None = None, spin: SpinKind = "none") -> Path:
    """Six structures."""
    append_systems(path, [(name, system_of(atoms_of(seed), spin=spin)) for seed, name in enumerate("abcdef")])
    set_splits(path, SPLITS if splits is None else splits)
    return path


def spinful(system: LCAOSystem) -> LCAOSystem:
    """The same without spin-orbit coupling, written with spin."""
    h = system.hamiltonian[0].to_spinor()
    complex_h = PairBlocks(h.pairs, h.basis, h.values.astype(complex), spinor=True)
    return LCAOSystem(system.atoms, (complex_h,), system.overlap, spin="spinor", electrons=system.electrons)
