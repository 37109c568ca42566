"""From features to direct-sum components: per element and element pair, Hermitian by construction if wanted."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ase_hybridham.model.linear import RowTypes, by_type
from ase_hybridham.model.vocabulary import Vocabulary

__all__ = ["Readout"]

Kind = Literal["node", "edge"]


class Readout(nn.Module):
    """Maps of features, placed in the direct sum, averaged with the reverse pair (unless `hermitian` is False).

    Parameters
    ----------
    vocabulary : Vocabulary
    node_maps, edge_maps : lists of modules
        One per species and one per element pair; outputs as `TargetLayout` orders them.
    ordered : bool
        False if the maps give the components of the direct sum as they are, zero-padded.
    hermitian : bool
        False leaves the reverse pairs independent of each other, as networks of other programs have them.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        node_maps: list,
        edge_maps: list,
        *,
        ordered: bool = True,
        hermitian: bool = True,
    ) -> None:
        super().__init__()
        self.ordered, self.hermitian = ordered, hermitian
        self.node_maps, self.edge_maps = nn.ModuleList(node_maps), nn.ModuleList(edge_maps)
        onsite = [vocabulary.targets[vocabulary.onsite_pair(s)] for s in range(vocabulary.n_species)]
        self.size = vocabulary.size
        self._register("node", [t.onsite_scatter for t in onsite], vocabulary.onsite_partner)
        self._register("edge", [t.scatter for t in vocabulary.targets], vocabulary.partner)

    def _register(self, kind: str, scatters: list, partners: list) -> None:
        for t, (place, partner) in enumerate(zip(scatters, partners, strict=True)):
            for name, values in zip(("index", "sign"), place, strict=True):
                padded = np.concatenate([values, np.zeros(self.size - len(values))]).astype(values.dtype)
                self._buffer(f"{kind}_{name}_{t}", padded)
            for name, values in zip(("partner", "partner_sign"), partner, strict=True):
                self._buffer(f"{kind}_{name}_{t}", values)

    def _buffer(self, name: str, values: np.ndarray) -> None:
        self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def _get(self, kind: str, name: str, t: int) -> Tensor:
        return self.get_buffer(f"{kind}_{name}_{t}")

    def forward(
        self, node: list[Tensor], edge: list[Tensor], species: RowTypes, element_pairs: RowTypes, reverse: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Components of on-site blocks (N, size) and hoppings (E, size)."""
        node_out, edge_out = self.place("node", node, species), self.place("edge", edge, element_pairs)
        return (
            self.symmetrized("node", node_out, node_out, species),
            self.symmetrized("edge", edge_out, edge_out.index_select(0, reverse), element_pairs),
        )

    def place(self, kind: Kind, rows: list[Tensor], types: RowTypes) -> Tensor:
        """Outputs of the maps in the direct sum, (n_rows, size), zero-padded; hoppings in their frames."""
        maps = self.node_maps if kind == "node" else self.edge_maps

        def one(t: int, index: Tensor | None) -> Tensor:
            part = maps[t](rows if index is None else [row[index] for row in rows])
            if not self.ordered:
                return part
            return part.index_select(1, self._get(kind, "index", t)) * self._get(kind, "sign", t)

        return by_type(one, len(rows[0]), types)

    def allowed(self, kind: Kind, rows: Tensor, types: RowTypes) -> Tensor:
        """The components without those that the selection rule forbids; hoppings in the frames of the edges."""

        def one(t: int, index: Tensor | None) -> Tensor:
            return (rows if index is None else rows[index]) * self._get(kind, "sign", t).abs()

        return by_type(one, len(rows), types)

    def symmetrized(self, kind: Kind, rows: Tensor, reverse: Tensor, types: RowTypes) -> Tensor:
        """Averages with the rows of the reverse pairs (exact; in the frames of the edges it costs no turns)."""
        return 0.5 * (rows + self.mirrored(kind, reverse, types)) if self.hermitian else rows

    def mirrored(self, kind: Kind, reverse: Tensor, types: RowTypes) -> Tensor:
        """What the rows of the reverse pairs would be if all were Hermitian; `types` of the pairs, not the reverse."""

        def one(t: int, index: Tensor | None) -> Tensor:
            picked = reverse if index is None else reverse[index]
            return picked.index_select(1, self._get(kind, "partner", t)) * self._get(kind, "partner_sign", t)

        return by_type(one, len(reverse), types)
