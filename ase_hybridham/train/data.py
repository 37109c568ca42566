"""Graphs of a data set's splits; what phase 2 caches; rotated copies."""

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from tqdm import tqdm

from ase_hybridham.errors import CheckpointError, FormatError
from ase_hybridham.model import Cascade, Coverage, Domain, PairGraph, Stage1Output, TrainedModel, turn_components
from ase_hybridham.store import DataSet
from ase_hybridham.symmetry import time_reversal_error, wigner_D
from ase_hybridham.system import LCAOSystem, PairBlocks
from ase_hybridham.train.batches import Budget, Graphs

__all__ = [
    "ReadOnce",
    "add_stage1",
    "domain_of",
    "few_of",
    "graphs_of",
    "majority_up",
    "refuse_other_kinds",
    "rotated",
    "stage1_output",
]

logger = logging.getLogger(__name__)

# Of any element, eV: ten times less than networks err, a hundred times more than self-consistency and storage in
# single precision leave in non-magnetic bismuthene (1e-6); a magnetic atom breaks time reversal by 0.1 to 1 eV.
NON_MAGNETIC = 1e-4
# A mean splitting below this share of the largest is that of moments which cancel; its sign is noise.
COMPENSATED = 1e-3
MAGNETIC = 0.05  # eV: largest splitting that deserves a word
# room for structures a little wider than the training set
REACH_MARGIN = 0.05  # angstrom
FITTED = 500_000  # hoppings to which scales are fitted: far more than they need, and a gigabyte


class ReadOnce(DataSet):
    """A data set that keeps a structure in memory from the first time it is asked for until the second."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._kept: dict[str, LCAOSystem] = {}

    def __getitem__(self, name: str) -> LCAOSystem:
        """As of any data set."""
        if name in self._kept:
            return self._kept.pop(name)
        self._kept[name] = super().__getitem__(name)
        return self._kept[name]


def domain_of(data: DataSet, names: Sequence[str]) -> Domain:
    """Basis, longest pair, average number of neighbors, coverage and spin of some structures of a data set.

    The basis has the elements of these structures only: of others the network would learn nothing. Spinors that
    obey time reversal to 1e-4 eV are non-magnetic: the network then obeys it exactly, with half the outputs. A
    magnetic H is learned as far as positions determine it: the network is not told the directions of moments.

    Raises
    ------
    ValueError
        If no structure has a hopping, or the valence of an element is unknown.
    """
    if not names:
        raise ValueError(f"{data.path}: the training split is empty; see `hybridham convert --split`")
    pairs, splittings, magnetic = [], {}, []
    for name in names:
        system = data[name]
        pairs.append(system.pairs)
        if data.spin == "collinear":
            splittings[name] = _splitting(system)
        elif data.spin == "spinor" and time_reversal_error(system.hamiltonian[0]) > NON_MAGNETIC:
            magnetic.append(name)
    n_hoppings = sum(p.n_hoppings for p in pairs)
    if not n_hoppings:
        raise ValueError(f"{data.path}: no hopping in the training split; is the cutoff too small?")
    reach = max(float(p.distances.max()) for p in pairs) + REACH_MARGIN
    numbers = {int(z) for p in pairs for z in p.numbers}
    known = {symbol: atom for symbol, atom in data.basis.atoms.items() if atom.number in numbers}
    basis = replace(data.basis, atoms=known)
    basis.cutoffs()  # a clear error now, not at the first prediction
    unknown = [symbol for symbol, atom in known.items() if atom.valence is None]
    if unknown:
        raise ValueError(
            f"{data.path}: the valence of {', '.join(unknown)} is unknown, and the model would find no Fermi level; "
            f"convert again with --valence {'=? '.join(unknown)}=?"
        )
    n_neighbors = n_hoppings / sum(p.n_atoms for p in pairs)
    domain = Domain(basis, reach, n_neighbors, coverage=Coverage.of(pairs))
    if data.spin == "none":
        return domain
    if data.spin == "collinear":
        _tell_moments(data, splittings)
        return replace(domain, spin="collinear")
    if magnetic:
        logger.warning(
            "%s: %d of %d structures are magnetic (%s, ...); the network sees positions only, not the directions of "
            "moments",
            data.path,
            len(magnetic),
            len(names),
            magnetic[0],
        )
    return replace(domain, spin="spinor", time_reversal=not magnetic)


def refuse_other_kinds(data: DataSet, model: TrainedModel) -> None:
    """Check that H of a data set can be compared with that of a model.

    Raises
    ------
    CheckpointError
        If the spin is another, or an element that both know has other shells.
    """
    if data.spin != model.spin:
        raise CheckpointError(
            f"{data.path}: expected spin {model.spin!r}, which the model was trained for, got {data.spin!r}; take data "
            "of that spin, or another model"
        )
    for symbol, atom in model.basis.atoms.items():
        if symbol in data.basis and (found := data.basis[symbol].degrees) != atom.degrees:
            raise CheckpointError(
                f"{data.path}: expected {symbol} with shells {list(atom.degrees)}, which the model was trained for, "
                f"got {list(found)}; take data of that basis, or another model"
            )


def majority_up(system: LCAOSystem) -> LCAOSystem:
    """The system with up as the spin whose levels lie lower, on the average weighted with S.

    Without spin-orbit coupling both names of the two spins are the same physics, but only one can be learned.
    Systems of other spin, and those whose moments cancel, are returned as they are.
    """
    if system.spin != "collinear" or not system.hamiltonian:
        return system
    up, down = system.hamiltonian
    mean, largest = _splitting(system)
    return replace(system, hamiltonian=(down, up)) if mean > COMPENSATED * largest else system


def _splitting(system: LCAOSystem) -> tuple[float, float]:
    """Mean of H_up - H_down, weighted with S (or on the diagonal), and the largest element, eV."""
    up, down = system.hamiltonian
    difference = up - down
    if system.overlap is None:
        mean = np.concatenate([np.diagonal(difference.block(p)) for p in range(len(system.atoms))]).mean()
    else:
        S = system.overlap.values
        mean = (difference.values @ S) / (S @ S)
    return float(mean), float(np.abs(difference.values).max())


def _tell_moments(data: DataSet, splittings: Mapping[str, tuple[float, float]]) -> None:
    """Say how many structures are renamed, and which cannot be learned because their moments cancel."""
    swapped, compensated = 0, []
    for name, (mean, largest) in splittings.items():
        if largest > MAGNETIC and abs(mean) <= COMPENSATED * largest:
            compensated.append(name)
        swapped += mean > COMPENSATED * largest
    if swapped:
        logger.info(
            "%s: up is the minority in %d of %d structures; there the two spins are exchanged",
            data.path,
            swapped,
            len(splittings),
        )
    if compensated:
        logger.warning(
            "%s: in %d of %d structures the moments cancel (%s, ...); which atom is up cannot be told from positions",
            data.path,
            len(compensated),
            len(splittings),
            compensated[0],
        )


def graphs_of(
    data: DataSet,
    names: Sequence[str],
    cascade: Cascade,
    *,
    overlap: bool = False,
    budget: Budget | None = None,
    progress: bool = False,
) -> Graphs:
    """Graphs with targets in the dtype and on the device of the network; up is the majority, see `majority_up`.

    With `overlap` they carry S, too. What the budget of memory does not allow lies on disk.

    Raises
    ------
    FormatError
        If a Hamiltonian is not finite, or breaks the time reversal that the network obeys.
    ValueError
        If S is wanted and unknown.
    """
    graphs = Graphs(budget=budget)
    with tqdm(names, desc="structures", leave=False, disable=None if progress else True) as bar:
        for name in bar:
            system = majority_up(data[name])
            operators, S = system.hamiltonian, system.overlap
            if overlap and S is None and not data.basis.orthogonal:
                raise ValueError(
                    f"{data.path}: structure {name} has no overlap, which gauge_free and cell_zero need; add it "
                    "(`hybridham overlap`), or train without them"
                )
            if not all(np.isfinite(h.values).all() for h in operators):
                raise FormatError(
                    f"{data.path}: the Hamiltonian of structure {name} is not finite; leave it out of the splits"
                )
            obeys = cascade.domain.spin == "spinor" and cascade.domain.time_reversal
            if obeys and (error := time_reversal_error(operators[0])) > NON_MAGNETIC:
                raise FormatError(
                    f"{data.path}: structure {name}: expected time reversal as in the training split, H breaks it by "
                    f"{error:.2g} eV; leave it out of the splits"
                )
            S = (_unity(operators[0]) if S is None else S) if overlap else None
            graph = PairGraph.with_targets(operators, cascade.vocabulary, cascade.lmax, cascade.dtype, overlap=S)
            graphs.append(graph.to(cascade.device))
    return graphs


def _unity(like: PairBlocks) -> PairBlocks:
    """S of an orthogonal basis."""
    S = PairBlocks.zeros(like.pairs, like.basis)
    for p in range(like.pairs.n_atoms):
        np.fill_diagonal(S.block(p), 1.0)
    return S


def few_of(graphs: Sequence[PairGraph], n_hoppings: int = FITTED) -> Sequence[PairGraph]:
    """Evenly chosen graphs with about as many hoppings at most, and among them all pairs of elements that meet."""
    sizes = np.array([len(graph.distance) for graph in graphs])
    if sizes.sum() <= n_hoppings:
        return graphs
    every = -(-int(sizes.sum()) // n_hoppings)
    met, kept = torch.empty(0, dtype=torch.long), []
    for k, graph in enumerate(graphs):
        together = torch.cat([met, graph.element_pair.cpu()]).unique()
        if k % every == 0 or len(together) > len(met):
            kept.append(graph)
        met = together
    return kept


@torch.no_grad()
def add_stage1(graphs: list[PairGraph] | Graphs, cascade: Cascade) -> None:
    """Replace every graph by one with what stage 1 gives for it, and with what it leaves as targets."""
    for k in range(len(graphs)):
        graph = copy.copy(graphs[k])
        output = cascade.stage1(graph)
        node, edge = cascade.scale1(graph, output.node_out, output.edge_out)
        graph.node_target, graph.edge_target = graph.node_target - node, graph.edge_target - edge
        for block, (nodes, edges, onsite) in enumerate(zip(output.nodes, output.edges, output.onsite, strict=True)):
            graph[f"stage1_node_{block}"], graph[f"stage1_edge_{block}"] = nodes, edges
            graph[f"stage1_onsite_{block}"] = onsite
        graph.stage1_node_out, graph.stage1_edge_out = output.node_out, output.edge_out
        graphs[k] = graph


def stage1_output(graph: PairGraph, n_blocks: int) -> Stage1Output:
    """What `add_stage1` stored."""
    return Stage1Output(
        nodes=[graph[f"stage1_node_{b}"] for b in range(n_blocks)],
        edges=[graph[f"stage1_edge_{b}"] for b in range(n_blocks)],
        onsite=[graph[f"stage1_onsite_{b}"] for b in range(n_blocks)],
        node_out=graph.stage1_node_out,
        edge_out=graph.stage1_edge_out,
    )


def rotated(
    graph: PairGraph,
    cascade: Cascade,
    rng: np.random.Generator,
    *,
    n_drawn: int | None = None,
    share: slice = slice(None),
) -> PairGraph:
    """A copy of a batch, every structure turned by a random rotation, without running stage 1 again.

    If it is a share of a larger batch, rotations are drawn for all `n_drawn` structures of that one.

    Components in the frames of the edges stay; the frames turn, D(Q e) = D(e) D(Q)^T, and so do the features and
    on-site components in the lab.
    """
    graph = graph.clone()
    rotations = Rotation.random(n_drawn or graph.num_graphs, rng=rng).as_matrix()[share]
    of_node, of_edge = graph.batch, graph.batch[graph.edge_index[0]]
    layout = cascade.stage1.layout
    turns = [torch.ones(graph.num_nodes, 1, 1, dtype=cascade.dtype, device=cascade.device)]
    for l in range(1, max(cascade.lmax, cascade.vocabulary.lmax) + 1):
        D = torch.from_numpy(wigner_D(l, rotations)).to(turns[0])
        turns.append(D[of_node])
        if l <= cascade.lmax:
            graph[f"align_{l}"] = torch.bmm(graph[f"align_{l}"], D[of_edge].transpose(1, 2))
    for block in range(cascade.config.stage1.n_blocks):
        for kind in ("node", "onsite"):
            key = f"stage1_{kind}_{block}"
            graph[key] = _turn_rows(graph[key], layout.widths, turns)
    for key in ("node_target", "stage1_node_out"):
        graph[key] = _turn_onsite(graph[key], graph.species, cascade, turns)
    return graph


def _turn_rows(rows: Tensor, widths: list[int], turns: list[Tensor]) -> Tensor:
    parts = [
        torch.bmm(turns[l], part.unflatten(1, (2 * l + 1, -1))).flatten(1)
        for l, part in enumerate(rows.split(widths, dim=1))
    ]
    return torch.cat(parts, dim=1)


def _turn_onsite(rows: Tensor, species: Tensor, cascade: Cascade, turns: list[Tensor]) -> Tensor:
    out = torch.zeros_like(rows)
    for s in range(cascade.vocabulary.n_species):
        index = torch.nonzero(species == s).ravel()
        direct_sum = cascade.vocabulary.targets[cascade.vocabulary.onsite_pair(s)].direct_sum
        picked = rows[index, : direct_sum.size]
        out[index, : direct_sum.size] = turn_components(picked, direct_sum, [turn[index] for turn in turns])
    return out
