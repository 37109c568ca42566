"""Linear maps of rows: one matrix per l in the lab, one per |m| in the frame of an edge."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ase_hybridham.model.layout import FeatureLayout

__all__ = ["DegreeLinear", "OrderLinear", "RowTypes", "Typed", "by_type", "row_types"]

# Rows of each type: (type, indices), or (type, None) if all rows are of one type.
RowTypes = list[tuple[int, Tensor | None]]


class _SegmentLinear(nn.Module):
    """One matrix per segment of a row, the same for all components (+m, -m; or m = -l .. l) of a segment.

    Parameters
    ----------
    inputs : list of lists of int
        Channels of the segments of every input; inputs are mixed side by side.
    outputs : tuple of int
        Channels of the output's segments.
    components : list of int
        Components of a segment.
    """

    def __init__(
        self, inputs: list[Sequence[int]], outputs: tuple[int, ...], components: list[int], bias: bool, scale: float
    ) -> None:
        super().__init__()
        self.outputs, self.components = outputs, components
        self.widths = [[n * c for n, c in zip(channels, components, strict=False)] for channels in inputs]
        self.weights = nn.ParameterList()
        for segment, n_out in enumerate(outputs):
            n_in = sum(channels[segment] for channels in inputs if segment < len(channels))
            self.weights.append(nn.Parameter(torch.randn(n_in, n_out) * (scale / max(n_in, 1) ** 0.5)))
        self.bias = nn.Parameter(torch.zeros(outputs[0])) if bias else None

    def forward(self, rows: list[Tensor]) -> Tensor:
        """Rows of the inputs, each (n_rows, size) -> (n_rows, output size)."""
        n_rows, out = len(rows[0]), []
        parts = [row.split(widths, dim=1) for row, widths in zip(rows, self.widths, strict=True)]
        for segment, (weight, n_out, n) in enumerate(zip(self.weights, self.outputs, self.components, strict=False)):
            if not weight.numel():
                out.append(rows[0].new_zeros(n_rows, n * n_out))
                continue
            present = [p[segment].reshape(n_rows * n, p[segment].shape[1] // n) for p in parts if segment < len(p)]
            joined = present[0] if len(present) == 1 else torch.cat(present, dim=1)
            # only the first segment (m = 0, or l = 0) is invariant and may have a bias
            bias = self.bias if segment == 0 else None
            product = joined @ weight if bias is None else torch.addmm(bias, joined, weight)
            out.append(product.view(n_rows, n * n_out))
        return torch.cat(out, dim=1)


class OrderLinear(_SegmentLinear):
    """Linear map of rows in the frames of their edges.

    Parameters
    ----------
    inputs : list of FeatureLayout
        Layouts of the inputs, which are mixed side by side.
    counts : tuple of int
        Output channels for every m.
    bias : bool
        On m = 0, which is invariant.
    scale : float
        Standard deviation of the weights is scale / sqrt(inputs); 0 gives a map that starts at zero.
    """

    def __init__(
        self, inputs: list[FeatureLayout], counts: tuple[int, ...], *, bias: bool = True, scale: float = 1.0
    ) -> None:
        longest = max(len(counts), *(len(layout.counts) for layout in inputs))
        super().__init__([layout.counts for layout in inputs], counts, [1] + [2] * (longest - 1), bias, scale)


class DegreeLinear(_SegmentLinear):
    """Linear map of rows in the lab frame, with a bias on the scalars.

    Parameters are those of `OrderLinear`, with the output channels of every l.
    """

    def __init__(
        self, inputs: list[FeatureLayout], multiplicities: tuple[int, ...], *, bias: bool = True, scale: float = 1.0
    ) -> None:
        longest = max(len(multiplicities), *(len(layout.multiplicities) for layout in inputs))
        components = [2 * l + 1 for l in range(longest)]
        super().__init__([layout.multiplicities for layout in inputs], multiplicities, components, bias, scale)


class Typed(nn.Module):
    """One map per row type (species, or pair of species).

    Parameters
    ----------
    maps : list of modules
        Map t takes the rows of type t; all have the same output size.
    """

    def __init__(self, maps: list[OrderLinear] | list[DegreeLinear]) -> None:
        super().__init__()
        self.maps = nn.ModuleList(maps)

    def forward(self, rows: list[Tensor], types: RowTypes) -> Tensor:
        """Rows of the inputs -> (n_rows, output size)."""
        return by_type(
            lambda t, index: self.maps[t](rows if index is None else [row[index] for row in rows]), len(rows[0]), types
        )


def by_type(one: Callable[[int, Tensor | None], Tensor], n_rows: int, types: RowTypes) -> Tensor:
    """Rows of every type from ``one(type, index)``, put together."""
    out: Tensor | None = None
    for t, index in types:
        part = one(t, index)
        if index is None:
            return part
        empty = part.new_zeros(n_rows, part.shape[1]) if out is None else out
        out = empty.index_copy(0, index, part)
    assert out is not None
    return out


def row_types(types: Tensor, n_types: int) -> RowTypes:
    """Rows of every type that occurs; with no rows at all they count as of type 0."""
    if n_types == 1 or not len(types):
        return [(0, None)]
    return [(int(t), torch.nonzero(types == t).ravel()) for t in torch.unique(types)]
