"""Networks of DeepH-E3 as networks of this package: the same function (Gong et al. 2023).

Components of their outputs are larger than ours by sqrt(2 L+1), signs of couplings are those of their e3nn, and
their spinor blocks are s + t.sigma where ours are h_0 + i h.sigma. All other differences are in `deephe3_updates`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols
from e3nn.o3 import Irreps
from numpy.typing import NDArray

from ase_hybridham.model.cascade import Cascade, Domain
from ase_hybridham.model.checkpoint import TrainedModel
from ase_hybridham.model.config import ModelConfig, Stage1Config
from ase_hybridham.model.deephe3_files import DeepHE3Checkpoint, read_deephe3
from ase_hybridham.model.deephe3_updates import (
    Parameters,
    by_degree,
    by_order,
    channels_of,
    degrees_of,
    edge_update,
    node_update,
    numbered,
)
from ase_hybridham.model.deephe3_weights import SCALAR, Convention
from ase_hybridham.symmetry import Part, SpinorPart
from ase_hybridham.system import AtomBasis, Basis

__all__ = ["import_deephe3"]


def import_deephe3(folder: str | Path, e3nn: str | None = None) -> TrainedModel:
    """The network of a checkpoint folder of DeepH-E3.

    It predicts H of any pair list as DeepH-E3 does: the files know no cutoff of pairs, and H is not made
    Hermitian (`TrainedModel.predict(..., hermitian=False)` gives it as it is).

    Parameters
    ----------
    folder, e3nn
        As for `read_deephe3`.

    Raises
    ------
    CheckpointError
        If the folder does not hold a network that is known here.
    """
    checkpoint = read_deephe3(folder, e3nn)
    cascade = Cascade(_config(checkpoint), _domain(checkpoint))
    parameters = _parameters(checkpoint, cascade)
    own = dict(cascade.stage1.named_parameters())
    assert own.keys() == parameters.keys(), own.keys() ^ parameters.keys()
    with torch.no_grad():
        for name, parameter in own.items():
            assert parameter.shape == parameters[name].shape, name
            parameter.copy_(torch.from_numpy(parameters[name]))
        cascade.scale1.log_sigma.zero_()  # outputs are in eV
    cascade.eval().requires_grad_(False)
    return TrainedModel(cascade, provenance={"imported_from": "DeepH-E3", "e3nn": checkpoint.convention.versions})


def _config(checkpoint: DeepHE3Checkpoint) -> ModelConfig:
    nodes, edges = checkpoint.node_updates, checkpoint.edge_updates
    widest = max((update.after for update in nodes), key=lambda irreps: irreps.dim)
    stage1 = Stage1Config(
        irreps=str(widest),
        n_blocks=len(nodes),
        n_gaussians=len(checkpoint.state["basis.offsets"]),
        radial_width=len(checkpoint.state["node_update_blocks.0.conv.fc.0.bias"]),
        gates="channel",
        norm="graph",
        pair_maps="separate",
        envelope=False,
        readout="free",
        n_embedding=nodes[0].before.dim,
        edge_reach=checkpoint.embedding_reach,
        block_irreps=tuple((str(n.after), str(e.after)) for n, e in zip(nodes, edges, strict=True)),
    )
    return ModelConfig(stage1=stage1, stage2=None, dtype="float64")


def _domain(checkpoint: DeepHE3Checkpoint) -> Domain:
    atoms = [AtomBasis.from_degrees(chemical_symbols[z], degrees) for z, degrees in checkpoint.bases.items()]
    return Domain(
        Basis.of(*atoms, name="DeepH-E3"),
        reach=checkpoint.r_max,
        n_neighbors=1.0,
        spin="spinor" if checkpoint.spinful else "none",
        time_reversal=False,
    )


def _parameters(checkpoint: DeepHE3Checkpoint, cascade: Cascade) -> Parameters:
    """Every parameter of our stage 1."""
    state, n_species = checkpoint.state, len(checkpoint.bases)
    n_scalars = checkpoint.node_updates[0].before.dim
    own_pairs = cascade.stage1.edge_embedding(torch.zeros(1, dtype=torch.float64)).numpy()
    out: Parameters = {
        "node_embedding.weight": state["embedding.weight"].reshape(n_species, n_scalars) / np.sqrt(n_species),
        "onsite_embedding.weight": np.repeat(own_pairs, n_species, axis=0),
    }
    names = dict(cascade.stage1.named_parameters())
    zero = cascade.stage1.gaussians(torch.zeros(1, dtype=torch.float64)).numpy()
    for block, (node, edge) in enumerate(zip(checkpoint.node_updates, checkpoint.edge_updates, strict=True)):
        update = node_update(node, state, checkpoint.convention, zero)
        out |= {f"node_updates.{block}.{name}": values for name, values in update.items()}
        joined = f"edge_updates.{block}.own.maps.0.weights.0" not in names
        update = edge_update(edge, state, checkpoint.convention, zero, n_species, joined)
        out |= {f"edge_updates.{block}.{name}": values for name, values in update.items()}
    out |= {f"readout.{name}": values for name, values in _readout(checkpoint, cascade).items()}
    return out


def _readout(checkpoint: DeepHE3Checkpoint, cascade: Cascade) -> Parameters:
    """Maps of every element and pair of elements to the components of our direct sums."""
    edge, vocabulary = checkpoint.edge_updates[-1].after, cascade.vocabulary
    matrix, constant = _output_matrix(checkpoint, edge)
    rows = degrees_of(edge)
    out: Parameters = {}
    for t, (pair, target) in enumerate(zip(vocabulary.element_pairs, vocabulary.targets, strict=True)):
        parts = target.direct_sum.parts
        place, factor = _output_places(checkpoint, pair, parts)
        weights, bias = matrix[:, place] * factor, constant[place] * factor
        degrees = np.array([part.degree for part in parts])
        out |= numbered(f"edge_maps.{t}", by_order([weights], rows, degrees), bias)
        if pair[0] == pair[1]:
            natural = np.array([part.natural for part in parts])
            order = np.argsort(~natural, kind="stable")
            weights, bias, degrees = weights[:, order], bias[order], degrees[order]
            name = f"node_maps.{vocabulary.species[pair[0]]}"
            out |= numbered(name, by_degree(weights, rows, degrees), bias[degrees == 0])
    return out


def _output_matrix(checkpoint: DeepHE3Checkpoint, edge: Irreps) -> tuple[NDArray, NDArray]:
    """lin_edge as a matrix (channels, outputs), and its bias."""
    weight, rows = checkpoint.state["lin_edge.weight"], channels_of(edge)
    matrix, start = np.zeros((edge.num_irreps, len(checkpoint.out))), 0
    for mul, ir in edge:
        for column, (_, other) in enumerate(checkpoint.out):
            if ir == other:
                matrix[rows[ir], column] = weight[start : start + mul] / np.sqrt(mul)
                start += mul
    constant = np.zeros(len(checkpoint.out))
    constant[[ir == SCALAR for _, ir in checkpoint.out]] = checkpoint.state["lin_edge.bias"]
    return matrix, constant


def _output_places(
    checkpoint: DeepHE3Checkpoint, pair: tuple[int, int], parts: Sequence[Part]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Which output every part of our direct sum is, and the factor to it."""
    found: dict[tuple[int, ...], tuple[int, float]] = {}
    start = 0
    for target in checkpoint.targets:
        (a, b), (row, column) = next(iter(target.items()))
        l1, l2 = checkpoint.bases[a][row], checkpoint.bases[b][column]
        keys = [(L, 0, L) for L in range(abs(l1 - l2), l1 + l2 + 1)]
        if checkpoint.spinful:
            keys += [(L, 1, J) for L, _, _ in keys for J in range(abs(L - 1), L + 2)]
        if pair in target:
            found |= {
                (*target[pair], *key): (n, _output_factor(checkpoint.convention, l1, l2, *key))
                for n, key in enumerate(keys, start)
            }
        start += len(keys)
    half = len(parts) // 2 if checkpoint.spinful else len(parts)
    place, factors = np.empty(len(parts), dtype=np.int64), np.empty(len(parts))
    for p, part in enumerate(parts):
        spin, imaginary = part.spin if isinstance(part, SpinorPart) else 0, p >= half
        n, factor = found[part.row_shell, part.column_shell, part.L, spin, part.degree]
        if spin:  # h = -i t: its real part is the imaginary part of t, its imaginary part minus the real one
            factor, imaginary = -factor if imaginary else factor, not imaginary
        place[p], factors[p] = n + (len(checkpoint.out) // 2 if imaginary else 0), factor
    return place, factors


def _output_factor(convention: Convention, l1: int, l2: int, L: int, spin: int, J: int) -> float:
    """Our component over theirs: 3j symbols of norm 1 couple l1 x l2 -> L, and L x 1 -> J."""
    factor = convention.sign(l1, l2, L) / np.sqrt(2 * L + 1)
    return float(factor * convention.sign(L, 1, J) / np.sqrt(2 * J + 1) if spin else factor)
