"""Derivatives of H by displacements of the atoms, by forward differentiation of the network.

An edge enters the network as its length d and the matrices D_l that turn the lab into its frame. When its
vector d e changes by v, the length changes by e.v, and the frame follows by the smallest rotation that does,
w = e x v / d: D_l changes by -D_l (w.G_l), with the generators G_l of rotations. What this leaves open, a turn
about the edge, changes no output. The derivative is exact for every direction of e, vertical ones too, where the
frame itself jumps. The reverse edge has the same w, so that D(ji) = S D(ij) goes on to hold. Components h in the
frames turn back with them: dH = (D^T dh as a block) + [w.G, H].
Letters: n displacement, p pair, x Cartesian axis.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.autograd import forward_ad
from torch_geometric.data import Batch

from ase_hybridham.model.cascade import Cascade, Stage
from ase_hybridham.model.graph import PairGraph, blocks_from_components
from ase_hybridham.model.linear import plain_operations
from ase_hybridham.symmetry import orbital_generators, rotation_generators
from ase_hybridham.system import PairBlocks, PairList

__all__ = ["block_derivatives"]

# Small structures are evaluated several at a time, up to so many edges: a network of few edges is all overhead.
EDGES = 1500


def block_derivatives(
    cascade: Cascade, pairs: PairList, displacements: ArrayLike, stage: Stage | None = None
) -> list[tuple[PairBlocks, ...]]:
    """dH/ds at s = 0 for atoms at r + s u, on pairs that stay what they are.

    Parameters
    ----------
    cascade : Cascade
    pairs : PairList
    displacements : array, shape (n, n_atoms, 3)
        u, one after the other. An atom moves with all its periodic images; the cell stays.
    stage : {"mean", "stage1", "hybrid"}, optional
        As in `Cascade.forward`.

    Returns
    -------
    list of n tuples of PairBlocks
        One operator, or up and down; Hermitian, in eV times the unit of u per angstrom.

    Raises
    ------
    ValueError
        If displacements have another shape or are not finite.
    """
    u = np.asarray(displacements, dtype=np.float64)
    if u.ndim != 3 or u.shape[1:] != (pairs.n_atoms, 3) or not np.isfinite(u).all():
        raise ValueError(f"displacements: expected finite numbers, shape (n, {pairs.n_atoms}, 3), got {u.shape}")
    graph, derivatives = cascade.graph(pairs), []
    with torch.no_grad(), plain_operations():
        node, edge = cascade(graph, stage)
        hamiltonian = blocks_from_components(node, edge, pairs, cascade.vocabulary)
        at_once = max(1, EDGES // max(1, pairs.n_hoppings))
        for first in range(0, len(u), at_once):
            stretch, turn = _changes(pairs, u[first : first + at_once])
            node, edge = _push_forward(cascade, graph, stage, stretch[:, pairs.hopping], turn[:, pairs.hopping])
            for n in range(len(turn)):
                moved = blocks_from_components(node[n], edge[n], pairs, cascade.vocabulary)
                of_spins = zip(moved, hamiltonian, strict=True)
                derivatives.append(tuple((dh + _turning(h, turn[n])).hermitian_part() for dh, h in of_spins))
    return derivatives


def _changes(pairs: PairList, displacements: NDArray) -> tuple[NDArray, NDArray]:
    """Change of length and rotation vector of every pair, shapes (n, n_pairs) and (n, n_pairs, 3); 0 on site."""
    change = displacements[:, pairs.j] - displacements[:, pairs.i]
    length = np.where(pairs.distances > 0, pairs.distances, 1.0)[:, None]
    unit = pairs.vectors / length
    return np.einsum("px,npx->np", unit, change), np.cross(unit, change / length)


def _push_forward(
    cascade: Cascade, graph: PairGraph, stage: Stage | None, stretch: NDArray, turn: NDArray
) -> tuple[Tensor, Tensor]:
    """Derivatives of on-site (n, N, size) and hopping components (n, E, size, edge frames)."""
    copies, n = Batch.from_data_list([graph] * len(stretch)), len(stretch)
    changes = {"distance": torch.from_numpy(stretch).to(graph.distance).flatten()}
    turns = torch.from_numpy(turn).to(graph.distance).flatten(0, 1)
    for l in range(1, cascade.lmax + 1):
        generators = torch.from_numpy(rotation_generators(l).copy()).to(turns)
        changes[f"align_{l}"] = -copies[f"align_{l}"] @ torch.tensordot(turns, generators, dims=1)
    with forward_ad.dual_level():
        for name, change in changes.items():
            copies[name] = forward_ad.make_dual(copies[name], change)
        node, edge = (_tangent(rows) for rows in cascade(copies, stage))
    return node.view(n, -1, node.shape[1]), edge.view(n, stretch.shape[1], edge.shape[1])


def _tangent(dual: Tensor) -> Tensor:
    """Its derivative; zeros if it does not depend on the geometry."""
    value, tangent = forward_ad.unpack_dual(dual)
    return torch.zeros_like(value) if tangent is None else tangent


def _turning(hamiltonian: PairBlocks, turn: NDArray) -> PairBlocks:
    """[w.G, H]: blocks that turn with their pairs, each with a rotation vector of its own, shape (n_pairs, 3)."""
    generators = {
        z: orbital_generators(hamiltonian.basis[z].degrees, spinor=hamiltonian.spinor)
        for z in np.unique(hamiltonian.pairs.numbers).tolist()
    }
    stacks = {
        (a, b): np.tensordot(turn[rows], generators[a], 1) @ stack - stack @ np.tensordot(turn[rows], generators[b], 1)
        for (a, b), rows, stack in hamiltonian.groups()
    }
    return PairBlocks.from_groups(hamiltonian.pairs, hamiltonian.basis, stacks, spinor=hamiltonian.spinor)
