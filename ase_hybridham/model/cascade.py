"""Both stages in a row: baseline Hamiltonian, correction, blocks."""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from ase_hybridham.model.config import ModelConfig, Stage2Config
from ase_hybridham.model.coverage import Coverage
from ase_hybridham.model.equivariant import PREDICTION_EDGES, Stage1, Stage1Output
from ase_hybridham.model.frames import EdgeFrame
from ase_hybridham.model.globalframe import GlobalFrame
from ase_hybridham.model.graph import PairGraph, blocks_from_components, empty_operators, write_hermitian
from ase_hybridham.model.layout import FeatureLayout
from ase_hybridham.model.neighborhoods import ALONE, Processes, Share
from ase_hybridham.model.pairrows import PairRows
from ase_hybridham.model.streaming import ROWS, Correction, Features, Output
from ase_hybridham.model.targets import TargetScale
from ase_hybridham.model.transformer import GraphTransformer
from ase_hybridham.model.vocabulary import Vocabulary
from ase_hybridham.solve.memory import available_memory
from ase_hybridham.system import Basis, PairBlocks, PairList
from ase_hybridham.system.lcao import SpinKind

__all__ = ["Cascade", "Domain", "Stage", "Stage2"]

logger = logging.getLogger(__name__)

Stage = Literal["mean", "stage1", "hybrid"]

GB = 1e9
WORTH_TELLING = 1 * GB
FIXED = 0.2 * GB  # what passes take of a part
SMALL = 60e3  # bytes of a pair, where there are few of them
INDICES = 400  # bytes of a pair for its place among others, and what the search for it left
ACCELERATED = 32  # times as many edges at a time as on a CPU


@dataclass(frozen=True)
class Domain:
    """What a network is made for, measured on its training set.

    Parameters
    ----------
    basis : Basis
    reach : float
        Longest pair in angstrom.
    n_neighbors : float
        Average number of pairs of an atom.
    spin : {"none", "collinear", "spinor"}
    time_reversal : bool
        Whether spinor blocks are even under time reversal, as they are without magnetism.
    coverage : Coverage, optional
        Which surroundings of atoms were met.
    """

    basis: Basis
    reach: float
    n_neighbors: float
    spin: SpinKind = "none"
    time_reversal: bool = True
    coverage: Coverage | None = None

    def __post_init__(self) -> None:
        if self.spin not in get_args(SpinKind):
            raise ValueError(f"domain: expected spin {' or '.join(get_args(SpinKind))}, got {self.spin!r}")
        if not (0 < self.reach < math.inf and 0 < self.n_neighbors < math.inf):
            raise ValueError(
                f"domain: expected positive reach and n_neighbors, got {self.reach} and {self.n_neighbors}"
            )

    def vocabulary(self, *, selection: bool) -> Vocabulary:
        """What outputs of networks mean here; see `Vocabulary`."""
        return Vocabulary(self.basis, spin=self.spin, time_reversal=self.time_reversal, selection=selection)


class Stage2(nn.Module):
    """Transformer and frame: the correction in units of the residual's scale.

    Parameters
    ----------
    config : Stage2Config
    layout : FeatureLayout
        Of stage 1's features.
    vocabulary : Vocabulary
    domain : Domain

    Attributes
    ----------
    edges_per_chunk : int or None
        As in `Stage1`.
    """

    def __init__(self, config: Stage2Config, layout: FeatureLayout, vocabulary: Vocabulary, domain: Domain) -> None:
        super().__init__()
        self.edges_per_chunk: int | None = None
        self.layout, self.vocabulary = layout, vocabulary
        make = EdgeFrame if config.frame == "edge" else GlobalFrame
        self.frame = make(config, layout, vocabulary)
        self.transformer = GraphTransformer(
            config,
            vocabulary,
            self.frame.node_inputs,
            self.frame.edge_inputs,
            self.frame.onsite_inputs,
            domain.reach,
            domain.n_neighbors,
            self.layout.lmax,
        )

    def inputs(self, graph: PairGraph, output: Stage1Output) -> list[tuple[Tensor, ...]]:
        """What atoms, hoppings and on-site pairs are told in every group that is told anything: joined rows."""
        (chunk,) = graph.frames(self.layout.lmax).chunks(len(graph.reverse))
        return [told.joined(graph, chunk) for told in self.frame.groups(graph, output)]

    @torch.no_grad()
    def fit_inputs(self, examples: Iterable[tuple[PairGraph, Stage1Output]]) -> None:
        """Set the means and deviations of what the Transformer is told, over some structures."""
        told = ((graph, self.inputs(graph, output)) for graph, output in examples)
        self.transformer.fit_inputs(told, by_column=self.frame.invariant)

    def forward(self, graph: PairGraph, output: Stage1Output) -> tuple[Tensor, Tensor]:
        """Scaled corrections of on-site blocks (N, size) and hoppings (E, size)."""
        training, n_edges = torch.is_grad_enabled(), self.edges_per_chunk or len(graph.reverse)
        if not training and graph.distance.device.type == "cpu":
            n_edges = PREDICTION_EDGES
        again = training and self.edges_per_chunk is not None
        chunks = graph.frames(self.layout.lmax).chunks(max(n_edges, 1))
        ranges, told = [PairRows(graph, chunk) for chunk in chunks], self.frame.groups(graph, output)
        onsite, hopping = self.transformer(graph, ranges, told, again=again)
        return self.frame.read_out(graph, output, chunks, onsite, hopping, again=again)


class Cascade(nn.Module):
    """The whole network; `hybrid` is False while only stage 1 is trained.

    Parameters
    ----------
    config : ModelConfig
    domain : Domain
    """

    has_stage2: Tensor

    def __init__(self, config: ModelConfig, domain: Domain) -> None:
        super().__init__()
        self.config, self.domain = config, domain
        self.vocabulary = domain.vocabulary(selection=config.stage1.readout == "hermitian")
        self.stage1 = Stage1(config.stage1, self.vocabulary, domain.reach, domain.n_neighbors)
        self.scale1 = TargetScale(self.vocabulary)
        # stage 2 corrects what the selection rule allows, whatever stage 1 may give, unless told otherwise
        self.stage2: Stage2 | None = None
        if config.stage2 is not None:
            vocabulary = domain.vocabulary(selection=config.stage2.selection)
            self.stage2 = Stage2(config.stage2, config.stage1.layout, vocabulary, domain)
        self.scale2 = TargetScale(self.vocabulary)
        self.register_buffer("has_stage2", torch.tensor(False))
        self.to(getattr(torch, config.dtype))

    @property
    def hybrid(self) -> bool:
        """Whether stage 2 has been trained."""
        return bool(self.has_stage2)

    @property
    def lmax(self) -> int:
        """Degrees of alignment matrices that graphs must carry."""
        return self.stage1.lmax

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return next(self.parameters()).device

    def graph(self, pairs: PairList) -> PairGraph:
        """The graph of a pair list as this network takes it."""
        return PairGraph.from_pairs(pairs, self.vocabulary, self.lmax, self.dtype).to(self.device)

    def forward(self, graph: PairGraph, stage: Stage | None = None) -> tuple[Tensor, Tensor]:
        """On-site (N, size) and hopping (E, size, edge frames) components in eV.

        Parameters
        ----------
        graph : PairGraph
        stage : {"mean", "stage1", "hybrid"}, optional
            The hybrid if stage 2 has been trained, else stage 1; "mean" is what the target scale knows alone.
        """
        if stage == "mean":
            return self.scale1(graph, *self._zeros(graph))
        hybrid = self._is_hybrid(stage)
        output = self.stage1(graph, features=hybrid)
        node, edge = self.scale1(graph, output.node_out, output.edge_out)
        if self.stage2 is None or not hybrid:
            return node, edge
        node_change, edge_change = self.scale2(graph, *self.stage2(graph, output))
        return node + node_change, edge + edge_change

    @property
    def streams(self) -> bool:
        """Whether `hamiltonian` evaluates part by part, and is exactly Hermitian; not of networks of other programs."""
        return self.config.stage1.norm == "local" and self.config.stage1.readout == "hermitian"

    @torch.no_grad()
    def hamiltonian(
        self,
        pairs: PairList,
        stage: Stage | None = None,
        *,
        processes: Processes = ALONE,
        progress: bool | None = False,
        out: Sequence[NDArray] | None = None,
        scratch: str | Path | None = None,
    ) -> tuple[PairBlocks, ...]:
        """The Hamiltonian on a pair list, eV: one operator, or up and down (collinear spin).

        Hermitian to rounding unless the read-out of stage 1 is free.

        Parameters
        ----------
        pairs : PairList
        stage : {"mean", "stage1", "hybrid"}, optional
            As in `forward`.
        processes : Processes
            Share the work; the first has the result, and the others an empty tuple.
        progress : bool, optional
            Show a bar on stderr; None: if it takes more than a GB of memory.
        out : sequence of arrays, shape (n_values,), float64 or for spinors complex128
            Where to write the values of the operators: memory-mapped files, say.
        scratch : str or Path, optional
            Folder for temporary files that hold features of pairs instead of memory.

        Raises
        ------
        ValueError
            If `out` does not fit, there are more processes than atoms, or several for a network that is evaluated as a
            whole; if memory does not suffice.
        """
        need, free = self.memory(pairs, n_processes=processes.size, scratch=scratch is not None), available_memory()
        need *= processes.n_local
        progress = (need > WORTH_TELLING if progress is None else progress) and not processes.rank
        if need > free:
            raise ValueError(_too_large(need, free, pairs, scratch))
        if need > WORTH_TELLING and not processes.rank:
            logger.info("H of %d atoms takes %.1f GB of memory, %.1f are free", pairs.n_atoms, need / GB, free / GB)
        operators = () if processes.rank else empty_operators(pairs, self.vocabulary, out)
        if not pairs.n_atoms:
            return operators
        if not self.streams:
            if processes.size > 1:
                raise ValueError("processes: this network has norms over the whole structure; start one process")
            onsite, hopping = self(self.graph(pairs), stage)
            whole = blocks_from_components(onsite, hopping, pairs, self.vocabulary)
            for operator, made in zip(operators, whole, strict=True):
                operator.values[:] = made.values
            return operators
        n_edges = PREDICTION_EDGES * (1 if self.device.type == "cpu" else ACCELERATED)
        share = Share(pairs, self.vocabulary, self.lmax, self.scale1.node_mean, n_edges, processes, scratch)
        onsite, hopping = self._in_parts(share, stage, progress=progress)
        # of every undirected hopping the process writes that has the direction that comes first
        forward = np.flatnonzero(pairs.reverse > np.arange(len(pairs)))
        for numbers, rows, counts in (
            (np.arange(pairs.n_atoms), onsite, share.n_atoms),
            (forward, hopping, share.n_half),
        ):
            start = 0
            for of_process in processes.collected(rows, counts):
                for part in of_process.split(ROWS):
                    write_hermitian(operators, part, numbers[start : start + len(part)], self.vocabulary)
                    start += len(part)
        return operators

    def memory(self, pairs: PairList, *, n_processes: int = 1, scratch: bool = False) -> int:
        """Bytes that `hamiltonian` takes at its peak beside the network, about, with H, in the first process."""
        number, n_edges = torch.finfo(self.dtype).bits // 8, pairs.n_hoppings / n_processes
        fixed = min(FIXED, SMALL * n_edges)
        orbitals = self.vocabulary.basis.sizes(pairs.numbers)
        n_elements = int((orbitals[pairs.i] * orbitals[pairs.j]).sum())
        values = self.vocabulary.n_operators * n_elements * (64 if self.vocabulary.spin == "spinor" else 8)
        layouts = [edge for _, edge in self.stage1.layouts]
        features = max(layout.size for layout in layouts) + self.vocabulary.size
        frames = sum((2 * l + 1) ** 2 for l in range(1, self.lmax + 1))
        if self.stage2 is not None:
            features += self.stage2.transformer.config.width
        if not self.streams:
            return int(fixed + values + n_edges * number * (2 * frames + (len(layouts) + 3) * features))
        kept = INDICES + number * max(layout.n_channels for layout in layouts)
        kept += 0 if scratch else number * (features + frames)
        return int(fixed + values + n_edges * kept)

    def _in_parts(self, share: Share, stage: Stage | None, *, progress: bool) -> tuple[Tensor, Tensor]:
        """Components in eV of the on-site pairs of a share, and of its undirected hoppings that come first here."""
        stage2 = self.stage2 if stage != "mean" and self._is_hybrid(stage) else None
        n_passes = 0 if stage == "mean" else 1 + self.config.stage1.n_blocks
        n_passes += 0 if stage2 is None else 1 + len(stage2.transformer.blocks)
        hidden = None if progress else True  # None: where stderr is no terminal
        outputs = []
        with tqdm(total=n_passes * len(share.parts), desc="H", leave=False, disable=hidden) as bar:
            if stage == "mean":
                outputs.append((self.scale1, Output(share, self.stage1.readout)))
            else:
                correction = None
                if stage2 is not None:
                    correction = Correction(stage2.transformer, stage2.frame, share, bar.update)
                features = Features(self.stage1, share, bar.update)
                outputs.append((self.scale1, features.run(correction)))
                if correction is not None:
                    outputs.append((self.scale2, correction.run(features, outputs[0][1])))
        _, total = outputs[0]
        graph, no_hopping = share.onsites(), total.hopping[:0]
        onsite = torch.stack([scale(graph, output.onsite, no_hopping)[0] for scale, output in outputs]).sum(0)
        first, no_atom = len(share.first) - share.n_half[share.processes.rank], torch.zeros_like(onsite[:1])
        for start in range(first, len(share.first), ROWS):
            rows = slice(start, start + ROWS)
            graph = share.undirected(rows)
            parts = [scale(graph, no_atom, output.hopping[rows])[1] for scale, output in outputs]
            total.hopping[rows] = torch.stack(parts).sum(0)
        return onsite, total.hopping[first:]

    def predict(self, pairs: PairList, stage: Stage | None = None) -> PairBlocks:
        """The only operator of `hamiltonian`.

        Raises
        ------
        ValueError
            If there are two.
        """
        (hamiltonian,) = self.hamiltonian(pairs, stage)
        return hamiltonian

    def _zeros(self, graph: PairGraph) -> tuple[Tensor, Tensor]:
        size = self.vocabulary.size
        return graph.distance.new_zeros(len(graph.species), size), graph.distance.new_zeros(len(graph.distance), size)

    def _is_hybrid(self, stage: Stage | None) -> bool:
        """Whether stage 2 is asked for."""
        if stage not in (None, *get_args(Stage)):
            raise ValueError(f"stage: expected mean, stage1 or hybrid, got {stage!r}")
        if stage == "hybrid" and self.stage2 is None:
            raise ValueError("stage: expected mean or stage1, as this network has no second stage; got 'hybrid'")
        return self.stage2 is not None and (stage == "hybrid" or (stage is None and self.hybrid))


def _too_large(need: int, free: int, pairs: PairList, scratch: str | Path | None) -> str:
    remedy = "" if scratch is not None else "give scratch= (--scratch), a folder for temporary files, or "
    return (
        f"H of {pairs.n_atoms} atoms: expected {need / GB:.1f} GB of free memory, got {free / GB:.1f}; "
        f"{remedy}start processes on several machines (docs/large.md)"
    )
