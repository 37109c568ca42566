"""The frame of the lab for stage 2, as the paper is read literally (Eq. 6).

Components in the lab frame go in, components come out; what equivariance there is, is learned from rotated copies.
"""

from torch import Tensor, nn

from ase_hybridham.model.config import Stage2Config
from ase_hybridham.model.edgeframes import EdgeFrames
from ase_hybridham.model.frames import Frame, last_more, zero_linear
from ase_hybridham.model.graph import turn_components
from ase_hybridham.model.layout import FeatureLayout
from ase_hybridham.model.linear import RowTypes, by_type
from ase_hybridham.model.readout import Readout
from ase_hybridham.model.transformer import Part
from ase_hybridham.model.vocabulary import Vocabulary

__all__ = ["GlobalFrame"]


class _PlainMap(nn.Module):
    """A linear map that starts at zero: what the global frame reads out."""

    def __init__(self, width: int, n_out: int) -> None:
        super().__init__()
        self.linear = zero_linear(width, n_out)

    def forward(self, rows: list[Tensor]) -> Tensor:
        return self.linear(rows[0])


class GlobalFrame(Frame):
    """Components of the lab frame in and out."""

    invariant = False

    def __init__(self, config: Stage2Config, layout: FeatureLayout, vocabulary: Vocabulary) -> None:
        super().__init__(config, layout, vocabulary)
        n = config.n_groups - config.feature_shift
        self.node_inputs = [layout.size] * n
        self.edge_inputs = last_more(layout.size, vocabulary.size, n)
        self.onsite_inputs = list(self.edge_inputs)
        width = 2 * config.width
        self.readout = Readout(
            vocabulary,
            [_PlainMap(width, vocabulary.size) for _ in range(vocabulary.n_species)],
            [_PlainMap(width, vocabulary.size) for _ in range(vocabulary.n_pairs)],
            ordered=False,
        )

    def of_atoms(self, nodes: Tensor, onsite: Tensor) -> tuple[list[Part], list[Part]]:
        """Components in the lab frame."""
        return [(0, nodes)], [(0, onsite)]

    def of_hoppings(self, edges: Tensor, frames: EdgeFrames) -> list[Part]:
        """Components in the lab frame."""
        return [(0, frames.to_lab(edges, self.layout))]

    def of_onsite_output(self, node_out: Tensor, species: RowTypes) -> Part:
        """Components."""
        return self.layout.size, node_out

    def of_hopping_output(self, edge_out: Tensor, frames: EdgeFrames, types: RowTypes) -> Part:
        """Components in the lab frame."""
        return self.layout.size, self._turn(edge_out, frames, types, back=True)

    def onsite_out(self, nodes: Tensor, onsite: Tensor, hidden: Tensor, species: RowTypes) -> Tensor:
        """A linear map, without what the selection rule forbids."""
        return self.readout.allowed("node", self.readout.place("node", [hidden], species), species)

    def hopping_out(
        self, edges: Tensor, ends: tuple[Tensor, ...], hidden: Tensor, frames: EdgeFrames, types: RowTypes
    ) -> Tensor:
        """The same, turned into the frames of the edges."""
        rows = self._turn(self.readout.place("edge", [hidden], types), frames, types, back=False)
        return self.readout.allowed("edge", rows, types)

    def _turn(self, rows: Tensor, frames: EdgeFrames, types: RowTypes, *, back: bool) -> Tensor:
        """Direct-sum components of every element pair between the lab and the frames of the edges."""
        matrices = [rows.new_ones(len(rows), 1, 1), *frames.by_edge]

        def one(t: int, index: Tensor | None) -> Tensor:
            direct_sum = self.vocabulary.targets[t].direct_sum
            picked = rows if index is None else rows[index]
            frames_of = matrices if index is None else [matrix[index] for matrix in matrices]
            turned = turn_components(picked[:, : direct_sum.size], direct_sum, frames_of, back=back)
            return nn.functional.pad(turned, (0, rows.shape[1] - direct_sum.size))

        return by_type(one, len(rows), types)
