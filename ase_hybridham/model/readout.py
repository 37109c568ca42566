"""From features to direct-sum components: per element and element pair, Hermitian by construction if wanted."""

import numpy as np
import torch
from torch import Tensor, nn

from ase_hybridham.model.linear import RowTypes, by_type
from ase_hybridham.model.vocabulary import Vocabulary

__all__ = ["HermitianReadout"]


class HermitianReadout(nn.Module):
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
        """Components of on-site blocks (N, size) and hoppings (E, size, in their frames), zero-padded."""
        placed = self.place(node, edge, species, element_pairs)
        if not self.hermitian:
            return placed
        return self.symmetrize(*placed, species, element_pairs, reverse)

    def place(
        self, node: list[Tensor], edge: list[Tensor], species: RowTypes, element_pairs: RowTypes
    ) -> tuple[Tensor, Tensor]:
        """Outputs of the maps in the direct sum."""

        def put(kind: str, maps: nn.ModuleList, rows: list[Tensor], types: RowTypes) -> Tensor:
            def one(t: int, index: Tensor | None) -> Tensor:
                part = maps[t](rows if index is None else [row[index] for row in rows])
                if not self.ordered:
                    return part
                return part.index_select(1, self._get(kind, "index", t)) * self._get(kind, "sign", t)

            return by_type(one, len(rows[0]), types)

        return put("node", self.node_maps, node, species), put("edge", self.edge_maps, edge, element_pairs)

    def allowed(
        self, node_out: Tensor, edge_out: Tensor, species: RowTypes, element_pairs: RowTypes
    ) -> tuple[Tensor, Tensor]:
        """The components without those that the selection rule forbids; hoppings in the frames of the edges."""

        def masked(kind: str, rows: Tensor, types: RowTypes) -> Tensor:
            def one(t: int, index: Tensor | None) -> Tensor:
                return (rows if index is None else rows[index]) * self._get(kind, "sign", t).abs()

            return by_type(one, len(rows), types)

        return masked("node", node_out, species), masked("edge", edge_out, element_pairs)

    def symmetrize(
        self, node_out: Tensor, edge_out: Tensor, species: RowTypes, element_pairs: RowTypes, reverse: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Averages with the reverse pairs (exact; in the frames of the edges it costs no turns)."""

        def mirrored(kind: str, rows: Tensor, types: RowTypes) -> Tensor:
            def one(t: int, index: Tensor | None) -> Tensor:
                picked = rows if index is None else rows[index]
                return picked.index_select(1, self._get(kind, "partner", t)) * self._get(kind, "partner_sign", t)

            return by_type(one, len(rows), types)

        node_mirror = mirrored("node", node_out, species)
        edge_mirror = mirrored("edge", edge_out.index_select(0, reverse), element_pairs)
        return 0.5 * (node_out + node_mirror), 0.5 * (edge_out + edge_mirror)
