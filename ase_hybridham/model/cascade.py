"""Both stages in a row: baseline Hamiltonian, correction, blocks."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ase_hybridham.model.config import ModelConfig, Stage2Config
from ase_hybridham.model.coverage import Coverage
from ase_hybridham.model.equivariant import PREDICTION_EDGES, Stage1, Stage1Output
from ase_hybridham.model.frames import EdgeFrame, GlobalFrame
from ase_hybridham.model.graph import PairGraph, blocks_from_components
from ase_hybridham.model.layout import FeatureLayout
from ase_hybridham.model.pairrows import PairRows
from ase_hybridham.model.targets import TargetScale
from ase_hybridham.model.transformer import GraphTransformer
from ase_hybridham.model.vocabulary import Vocabulary
from ase_hybridham.system import Basis, PairBlocks, PairList
from ase_hybridham.system.lcao import SpinKind

__all__ = ["Cascade", "Domain", "Stage", "Stage2"]

Stage = Literal["mean", "stage1", "hybrid"]


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
        if stage not in (None, "stage1", "hybrid"):
            raise ValueError(f"stage: expected mean, stage1 or hybrid, got {stage!r}")
        if stage == "hybrid" and self.stage2 is None:
            raise ValueError("stage: expected mean or stage1, as this network has no second stage; got 'hybrid'")
        hybrid = self.stage2 is not None and stage != "stage1" and (stage == "hybrid" or self.hybrid)
        output = self.stage1(graph, features=hybrid)
        node, edge = self.scale1(graph, output.node_out, output.edge_out)
        if self.stage2 is None or not hybrid:
            return node, edge
        node_change, edge_change = self.scale2(graph, *self.stage2(graph, output))
        return node + node_change, edge + edge_change

    @torch.no_grad()
    def hamiltonian(self, pairs: PairList, stage: Stage | None = None) -> tuple[PairBlocks, ...]:
        """The Hamiltonian on a pair list, eV: one operator, or up and down (collinear spin).

        Hermitian to rounding unless the read-out of stage 1 is free.
        """
        node, edge = self(self.graph(pairs), stage)
        return blocks_from_components(node, edge, pairs, self.vocabulary)

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
