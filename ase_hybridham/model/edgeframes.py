"""Turning features of atoms into the frames of their edges, and messages back."""

import torch
from torch import Tensor

from ase_hybridham.model.layout import FeatureLayout
from ase_hybridham.symmetry import reverse_sign

__all__ = ["EdgeFrames"]


class EdgeFrames:
    """Turns node features into the frames of their edges and sums messages back.

    The edges of a node are padded to the largest number of neighbors, so that turning is one matrix product
    per l and node (shape (neighbors (2l+1), 2l+1)) instead of thousands of tiny ones.

    Parameters
    ----------
    alignments : list of tensors, shape (E, 2l+1, 2l+1), l = 1 .. lmax
    center : LongTensor, shape (E,)
        i, ascending.
    reverse : LongTensor, shape (E,)
    n_nodes : int
    """

    def __init__(self, alignments: list[Tensor], center: Tensor, reverse: Tensor, n_nodes: int) -> None:
        degree = torch.bincount(center, minlength=n_nodes)
        self.n_nodes, self.n_edges, self.reverse = n_nodes, len(center), reverse
        self.width = int(degree.max()) if len(center) else 0
        self.dense = self.n_edges == n_nodes * self.width
        first = torch.cumsum(degree, 0) - degree
        self.slot = center * self.width + torch.arange(len(center), device=center.device) - first[center]
        self.by_edge = alignments
        self.alignments = [self._pad(a.flatten(1)).view(n_nodes, -1, a.shape[-1]) for a in alignments]
        self.signs: dict[FeatureLayout, Tensor] = {}
        self.indices: dict[FeatureLayout, tuple[Tensor, Tensor]] = {}

    def _pad(self, rows: Tensor) -> Tensor:
        """(E, n) -> (n_nodes, width, n), zeros where a node has fewer edges."""
        if not self.dense:
            rows = rows.new_zeros(self.n_nodes * self.width, rows.shape[1]).index_copy(0, self.slot, rows)
        return rows.view(self.n_nodes, self.width, rows.shape[1])

    def _index(self, layout: FeatureLayout, device: torch.device) -> tuple[Tensor, Tensor]:
        """Edge row -> lab row of components, and back."""
        if layout not in self.indices:
            to_lab = torch.from_numpy(layout.edge_to_lab).to(device)
            self.indices[layout] = (to_lab, torch.argsort(to_lab))
        return self.indices[layout]

    def into(self, nodes: Tensor, layout: FeatureLayout) -> Tensor:
        """Features of atom i in the frame of every edge, (N, size) -> (E, size)."""
        _, to_edge = self._index(layout, nodes.device)
        parts = []
        for l, part in enumerate(nodes.split(layout.widths, dim=1)):
            if l == 0:
                parts.append(part[:, None].expand(-1, self.width, -1))
            else:
                turned = torch.bmm(self.alignments[l - 1], part.unflatten(1, (2 * l + 1, -1)))
                parts.append(turned.view(self.n_nodes, self.width, layout.widths[l]))
        out = torch.cat(parts, dim=2).flatten(0, 1)
        if not self.dense:
            out = out.index_select(0, self.slot)
        return out.index_select(1, to_edge)

    def partner(self, turned: Tensor, layout: FeatureLayout) -> Tensor:
        """Features of atom j in the frame of every edge, from `into`: D(ij) = S D(ji)."""
        if layout not in self.signs:
            flips = reverse_sign(layout.lmax)
            degree = layout.channel_degree[layout.edge.channel]
            sign = [flips[l][l + m] for l, m in zip(degree, layout.edge.order, strict=True)]
            self.signs[layout] = torch.tensor(sign, dtype=turned.dtype, device=turned.device)
        return turned.index_select(0, self.reverse) * self.signs[layout]

    def to_lab(self, rows: Tensor, layout: FeatureLayout) -> Tensor:
        """Features of edges in the lab, (E, size) -> (E, size)."""
        to_lab, _ = self._index(layout, rows.device)
        parts = list(rows.index_select(1, to_lab).split(layout.widths, dim=1))
        for l, mul in enumerate(layout.multiplicities[1:], start=1):
            columns = parts[l].unflatten(1, (2 * l + 1, mul))
            parts[l] = torch.bmm(self.by_edge[l - 1].transpose(1, 2), columns).flatten(1)
        return torch.cat(parts, dim=1)

    def sum_out(self, messages: Tensor, layout: FeatureLayout) -> Tensor:
        """Sum over the edges of every node of messages turned back to the lab, (E, size) -> (N, size)."""
        to_lab, _ = self._index(layout, messages.device)
        padded = self._pad(messages.index_select(1, to_lab))
        parts = []
        for l, part in enumerate(padded.split(layout.widths, dim=2)):
            if l == 0:
                parts.append(part.sum(1))
            else:
                columns = part.reshape(self.n_nodes, self.width * (2 * l + 1), layout.multiplicities[l])
                parts.append(torch.bmm(self.alignments[l - 1].transpose(1, 2), columns).flatten(1))
        return torch.cat(parts, dim=1)
