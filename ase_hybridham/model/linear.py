"""Linear maps of rows: one matrix per l in the lab, one per |m| in the frame of an edge.

Rows hold their segments side by side, so that each matrix product reads and writes slices of them: nothing is
copied together first. The derivative is written out for that; `plain_operations` gives the same in operations
that every mode of automatic differentiation knows.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ase_hybridham.model.layout import FeatureLayout

__all__ = ["DegreeLinear", "OrderLinear", "RowTypes", "Typed", "by_type", "plain_operations", "row_types", "use_plain"]

# Rows of each type: (type, indices), or (type, None) if all rows are of one type.
RowTypes = list[tuple[int, Tensor | None]]

_plain = ContextVar("plain operations", default=False)


@contextmanager
def plain_operations() -> Iterator[None]:
    """Within, networks run without hand-written derivatives: slower, but open to forward mode."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def use_plain() -> bool:
    """Whether hand-written derivatives are to be avoided: on request, and where the compiler writes its own."""
    return torch.compiler.is_compiling() or _plain.get()


@dataclass(frozen=True)
class _Segment:
    """One matrix and the slices it connects.

    Parameters
    ----------
    components : int
        Of every channel in this segment: they share the matrix.
    inputs : tuple of (int, int, int)
        Input, first column, channels.
    start, channels : int
        Of the output.
    """

    components: int
    inputs: tuple[tuple[int, int, int], ...]
    start: int
    channels: int

    def blocks(self, *matrices: Tensor) -> Iterator[tuple[Any, ...]]:
        """Every input with its rows of the matrices."""
        first = 0
        for entry in self.inputs:
            yield entry, *(matrix[first : first + entry[2]] for matrix in matrices)
            first += entry[2]


def _columns(rows: Tensor, start: int, channels: int, components: int) -> list[Tensor]:
    """Columns of one segment as matrices (., channels): a view for +m and for -m, or all 2l+1 of the lab in a copy."""
    n, stride, place = rows.shape[0], rows.stride(0), rows.storage_offset() + start
    if components == 1:
        return [rows.as_strided((n, channels), (stride, 1), place)]
    if components == 2:
        shape, strides = (n, channels), (stride, 1)
        return [rows.as_strided(shape, strides, place), rows.as_strided(shape, strides, place + channels)]
    # rows of the lab are few
    return [rows.as_strided((n, components, channels), (stride, channels, 1), place).reshape(n * components, channels)]


def _room(rows: Tensor, start: int, channels: int, components: int) -> list[Tensor]:
    """Matrices as those of `_columns` to be written to; `_put_back` ends that."""
    if components > 2:
        return [rows.new_empty(rows.shape[0] * components, channels)]
    return _columns(rows, start, channels, components)


def _put_back(matrices: list[Tensor], rows: Tensor, start: int, channels: int, components: int) -> None:
    """Write what was not a view."""
    if components > 2:
        width = components * channels
        rows[:, start : start + width] = matrices[0].view(rows.shape[0], width)


class _SegmentProduct(torch.autograd.Function):
    """All products of a `_SegmentLinear` on (n_rows, .) inputs, written side by side into one output."""

    @staticmethod
    def forward(ctx: Any, segments: list[_Segment], mirrored: int | None, bias: Tensor | None, *tensors: Tensor) -> Any:
        n, last = len(tensors) - len(segments), segments[-1]
        rows, weights = [_dense(row) for row in tensors[:n]], tensors[n:]
        out = rows[0].new_empty(len(rows[0]), last.start + last.channels * last.components)
        for segment, weight in zip(segments, weights, strict=True):
            place = (segment.start, segment.channels, segment.components)
            begun = segment.start == 0 and bias is not None
            y = _room(out, *place)
            if bias is not None and begun:
                y[0].copy_(bias)
            for (k, start, channels), w in segment.blocks(weight):
                _multiply(_columns(rows[k], start, channels, segment.components), w, y, begun, k == mirrored)
                begun = True
            if not begun:
                for matrix in y:
                    matrix.zero_()
            _put_back(y, out, *place)
        ctx.segments, ctx.mirrored, ctx.one_bias = segments, mirrored, bias is not None and bias.dim() == 1
        ctx.save_for_backward(*rows, *weights)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        saved, needs, n_weights = ctx.saved_tensors, ctx.needs_input_grad, len(ctx.segments)
        rows, weights, d_out = saved[:-n_weights], saved[-n_weights:], _dense(grads[0])
        d_rows = [_gradient_of(row, k, ctx.segments) if needs[3 + k] else None for k, row in enumerate(rows)]
        d_weights = [torch.empty_like(weight) for weight in weights]
        for segment, weight, d_weight in zip(ctx.segments, weights, d_weights, strict=True):
            dy = _columns(d_out, segment.start, segment.channels, segment.components)
            for (k, start, channels), w, dw in segment.blocks(weight, d_weight):
                d_row, place = d_rows[k], (start, channels, segment.components)
                if d_row is not None:
                    dx = _room(d_row, *place)
                    _multiply(dy, w.t(), dx, False, k == ctx.mirrored)
                    _put_back(dx, d_row, *place)
                _accumulate(_columns(rows[k], *place), dy, dw, k == ctx.mirrored)
        d_bias = None
        if needs[2]:
            d_bias = d_out[:, : ctx.segments[0].channels]
            d_bias = d_bias.sum(0) if ctx.one_bias else d_bias
        return None, None, d_bias, *d_rows, *d_weights


def _dense(rows: Tensor) -> Tensor:
    """Rows whose components lie side by side (those of an expanded gradient do not)."""
    return rows if rows.stride(1) == 1 else rows.contiguous()


def _gradient_of(row: Tensor, k: int, segments: list[_Segment]) -> Tensor:
    """Room for the gradient of an input; zeros where some of its components meet no matrix."""
    widths = [channels * s.components for s in segments for number, _, channels in s.inputs if number == k]
    return row.new_empty(row.shape) if sum(widths) == row.shape[1] else row.new_zeros(row.shape)


def _multiply(x: list[Tensor], w: Tensor, y: list[Tensor], add: bool, mirrored: bool) -> None:
    """y = x w, or y += x w; the second matrix with the other sign if it is mirrored."""
    for sign, x_one, y_one in zip((1.0, -1.0 if mirrored else 1.0), x, y, strict=False):
        y_one.addmm_(x_one, w, beta=float(add), alpha=sign)


def _accumulate(x: list[Tensor], dy: list[Tensor], dw: Tensor, mirrored: bool) -> None:
    """dw = sum of x^T dy over the components."""
    torch.mm(x[0].t(), dy[0], out=dw)
    if len(x) == 2:
        dw.addmm_(x[1].t(), dy[1], alpha=-1.0 if mirrored else 1.0)


class _SegmentLinear(nn.Module):
    """One matrix per segment of a row, the same for all components (+m, -m; or m = -l .. l) of a segment.

    Parameters
    ----------
    inputs : list of sequences of int
        Channels of the segments of every input; inputs are mixed side by side.
    outputs : tuple of int
        Channels of the output's segments.
    components : list of int
        Components of a segment.
    mirrored : int, optional
        An input whose second components (-m) change sign.
    """

    def __init__(
        self,
        inputs: list[Sequence[int]],
        outputs: tuple[int, ...],
        components: list[int],
        *,
        bias: bool,
        scale: float,
        mirrored: int | None = None,
    ) -> None:
        super().__init__()
        self.mirrored = mirrored
        self.segments: list[_Segment] = []
        self.weights = nn.ParameterList()
        starts, out_start = [0] * len(inputs), 0
        for s, n_out in enumerate(outputs):
            present = tuple((k, starts[k], chans[s]) for k, chans in enumerate(inputs) if s < len(chans) and chans[s])
            self.segments.append(_Segment(components[s], present, out_start, n_out))
            out_start += components[s] * n_out
            starts = [
                b + components[s] * chans[s] if s < len(chans) else b for b, chans in zip(starts, inputs, strict=True)
            ]
            n_in = sum(channels for _, _, channels in present)
            self.weights.append(nn.Parameter(torch.randn(n_in, n_out) * (scale / max(n_in, 1) ** 0.5)))
        # only the first segment (m = 0, or l = 0) is invariant and may have a bias
        self.bias = nn.Parameter(torch.zeros(outputs[0])) if bias else None

    def forward(self, rows: list[Tensor], start: Tensor | None = None) -> Tensor:
        """Rows of the inputs, each (n_rows, size) -> (n_rows, output size); `start` is a bias for every row."""
        bias = self.bias if start is None else start
        if not use_plain():
            return _SegmentProduct.apply(self.segments, self.mirrored, bias, *rows, *self.weights)
        out = []
        for segment, weight in zip(self.segments, self.weights, strict=True):
            n = segment.components
            y = rows[0].new_zeros(len(rows[0]), n, segment.channels)
            for (k, start, channels), w in segment.blocks(weight):
                x = rows[k][:, start : start + n * channels].unflatten(1, (n, channels))
                x = torch.stack([x[:, 0], -x[:, 1]], 1) if k == self.mirrored and n == 2 else x
                # one product of matrices: of three axes it would become one for every row
                y = y + (x.reshape(-1, channels) @ w).view(len(x), n, segment.channels)
            if segment.start == 0 and bias is not None:
                y = y + bias[..., None, :]
            out.append(y.flatten(1))
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
    mirrored : int, optional
        An input that stands in the frame of the reverse edge. Its -m components change sign; what else the frames
        differ by is one sign per l, parity and |m|, which the weights absorb.
    """

    def __init__(
        self,
        inputs: list[FeatureLayout],
        counts: tuple[int, ...],
        *,
        bias: bool = True,
        scale: float = 1.0,
        mirrored: int | None = None,
    ) -> None:
        longest = max(len(counts), *(len(layout.counts) for layout in inputs))
        components = [1] + [2] * (longest - 1)
        channels: list[Sequence[int]] = [layout.counts for layout in inputs]
        super().__init__(channels, counts, components, bias=bias, scale=scale, mirrored=mirrored)


class DegreeLinear(_SegmentLinear):
    """Linear map of rows in the lab frame, with a bias on the scalars.

    Parameters are those of `OrderLinear`, with the output channels of every l.
    """

    def __init__(
        self, inputs: list[FeatureLayout], multiplicities: tuple[int, ...], *, bias: bool = True, scale: float = 1.0
    ) -> None:
        longest = max(len(multiplicities), *(len(layout.multiplicities) for layout in inputs))
        components = [2 * l + 1 for l in range(longest)]
        channels: list[Sequence[int]] = [layout.multiplicities for layout in inputs]
        super().__init__(channels, multiplicities, components, bias=bias, scale=scale)


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
