"""Updates of DeepH-E3 as parameters of ours.

Their tensor products with the harmonics of an edge become one matrix per |m| in the frame of the edge, their
self edges on-site pairs (only the harmonic l = 0 is not zero there), the linear maps in front of products part
of them. A matrix here has a row for every channel of the input and a column for every channel of the output,
in the order of `FeatureLayout`.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from e3nn.o3 import Irrep, Irreps
from numpy.typing import NDArray

from ase_hybridham.model.deephe3_weights import SCALAR, Convention, Product, Update
from ase_hybridham.symmetry import polar_coupling

__all__ = ["Parameters", "by_degree", "by_order", "channels_of", "degrees_of", "edge_update", "node_update", "numbered"]

Parameters = dict[str, NDArray[np.float64]]


def _in_our_order(irreps: Irreps) -> list[tuple[int, Irrep]]:
    """By l, natural ones first."""
    return sorted(((mul, ir) for mul, ir in irreps), key=lambda entry: (entry[1].l, not _natural(entry[1])))


def _natural(ir: Irrep) -> bool:
    return bool(ir.p == (-1) ** ir.l)


def channels_of(irreps: Irreps) -> dict[Irrep, NDArray[np.int64]]:
    """Numbers of the channels of every irrep, shape (multiplicity,) each, in the order of `FeatureLayout`."""
    out, start = {}, 0
    for mul, ir in _in_our_order(irreps):
        out[ir] = np.arange(start, start + mul)
        start += mul
    return out


def degrees_of(irreps: Irreps) -> NDArray[np.int64]:
    """l of every channel, shape (n_channels,), in the order of `FeatureLayout`."""
    return np.array([ir.l for mul, ir in _in_our_order(irreps) for _ in range(mul)], dtype=np.int64)


def _per_channel(values: NDArray, irreps: Irreps) -> NDArray[np.float64]:
    """Values (channels, ...) from DeepH-E3's order of channels to ours."""
    place = np.concatenate([channels_of(irreps)[ir] for _, ir in irreps])
    out = np.empty_like(values)
    out[place] = values
    return out


def by_order(matrices: Sequence[NDArray], rows: NDArray, columns: NDArray) -> Iterator[NDArray]:
    """Weights of an `OrderLinear`: for every m the part of its matrix between channels with l >= m.

    Parameters
    ----------
    matrices : sequence of arrays, shape (n_rows, n_columns)
        For every m, or one for all.
    rows, columns : arrays of int, shape (n_rows,) and (n_columns,)
        l of the channels.
    """
    for m in range(int(columns.max()) + 1):
        yield matrices[min(m, len(matrices) - 1)][rows >= m][:, columns >= m]


def by_degree(matrix: NDArray, rows: NDArray, columns: NDArray) -> Iterator[NDArray]:
    """Weights of a `DegreeLinear`: for every l the part of a matrix between its channels.

    `rows` (n_rows,) and `columns` (n_columns,) are the l of the channels.
    """
    for l in range(int(columns.max()) + 1):
        yield matrix[rows == l][:, columns == l]


def numbered(prefix: str, weights: Iterator[NDArray], bias: NDArray | None = None) -> Parameters:
    """Names of the parameters of a linear map."""
    out = {f"{prefix}.weights.{n}": weight for n, weight in enumerate(weights)}
    return out if bias is None else out | {f"{prefix}.bias": bias}


# -- linear maps


def _linear_matrix(weight: NDArray, before: Irreps, after: Irreps, n_types: int = 1) -> NDArray[np.float64]:
    """Matrices (n_types, rows, columns) of a linear map, or of one for every type."""
    rows, columns = channels_of(before), channels_of(after)
    out, start = np.zeros((n_types, before.num_irreps, after.num_irreps)), 0
    for mul_in, ir in before:
        for mul_out, other in after:
            if ir == other:
                size = mul_in * n_types * mul_out
                part = weight[start : start + size].reshape(mul_in, n_types, mul_out) / np.sqrt(mul_in * n_types)
                out[:, rows[ir][:, None], columns[ir]] = part.swapaxes(0, 1)
                start += size
    return out


def _scalar_bias(bias: NDArray, irreps: Irreps) -> NDArray[np.float64]:
    """The bias of the even scalars among all channels."""
    out = np.zeros(irreps.num_irreps)
    out[channels_of(irreps)[SCALAR]] = bias
    return out


def node_update(update: Update, state: Mapping[str, NDArray], convention: Convention, zero: NDArray) -> Parameters:
    """Parameters of an update of nodes; `zero` (1, n_gaussians) are the Gaussians at distance 0."""
    s = _Named(state, update.prefix)
    before, after = degrees_of(update.before), degrees_of(update.after)
    out = _convolution(update, s, convention, zero, linear_inputs=(0, 1), shortened=True)
    post, bias = _linear_matrix(s["lin_post.weight"], update.after, update.after)[0], s["lin_post.bias"]
    out |= numbered("post", by_degree(post, after, after), _scalar_bias(bias, update.after)[after == 0])
    for t, own in enumerate(_linear_matrix(s["sc.weight"], update.before, update.after, update.n_types)):
        out |= numbered(f"own.maps.{t}", by_degree(own, before, after))
    if update.before != update.after:
        skip = _linear_matrix(s["skip_connect.sc.weight"], update.before, update.after)[0]
        out |= numbered("skip", by_degree(skip, before, after))
    return out | _norm(update, s)


def edge_update(
    update: Update, state: Mapping[str, NDArray], convention: Convention, zero: NDArray, n_species: int, joined: bool
) -> Parameters:
    """Parameters of an update of pairs.

    Parameters
    ----------
    update : Update
    state : mapping of str to array
        Of the checkpoint.
    convention : Convention
    zero : array, shape (1, n_gaussians)
        The Gaussians at distance 0.
    n_species : int
    joined : bool
        Whether the self connection of hoppings stands below lin_post in one matrix, as it can with one element.
    """
    s = _Named(state, update.prefix)
    before, after = degrees_of(update.before), degrees_of(update.after)
    out = _convolution(update, s, convention, zero, linear_inputs=(2,))
    post = _linear_matrix(s["lin_post.weight"], update.after, update.after)[0]
    bias = _scalar_bias(s["lin_post.bias"], update.after)
    owns = _linear_matrix(s["sc.weight"], update.before, update.after, update.n_types)
    both, rows = (np.concatenate([post, *owns]), np.concatenate([after, before])) if joined else (post, after)
    out |= numbered("post", by_order([both], rows, after), bias)
    out |= numbered("onsite_post", by_degree(post, after, after), bias[after == 0])
    for t, own in enumerate(owns):
        if not joined:
            out |= numbered(f"own.maps.{t}", by_order([own], before, after))
        if t % (n_species + 1) == 0:  # two atoms of one element
            out |= numbered(f"onsite_own.maps.{t // (n_species + 1)}", by_degree(own, before, after))
    if update.before != update.after:
        skip = _linear_matrix(s["skip_connect.sc.weight"], update.before, update.after)[0]
        out |= numbered("skip", by_order([skip], before, after))
        out |= numbered("onsite_skip", by_degree(skip, before, after))
    return out | _norm(update, s)


class _Named:
    """The parameters of one update, by the rest of their names."""

    def __init__(self, state: Mapping[str, NDArray], prefix: str) -> None:
        self.state, self.prefix = state, prefix

    def __getitem__(self, name: str) -> NDArray:
        return self.state[f"{self.prefix}.{name}"]


def _norm(update: Update, s: _Named) -> Parameters:
    return {"norm.weight": _per_channel(s["norm.weight"], update.after), "norm.bias": s["norm.bias"]}


# -- tensor products


def _convolution(
    update: Update,
    s: _Named,
    convention: Convention,
    zero: NDArray,
    linear_inputs: tuple[int, ...],
    *,
    shortened: bool = False,
) -> Parameters:
    """Matrices, radial network and its value at distance zero; `linear_inputs` pass lin_pre first."""
    product = update.product
    hopping, onsite = _product_matrices(product, s, convention)
    bias, onsite_bias = np.zeros(onsite.shape[1]), np.zeros(onsite.shape[1])
    linear = _linear_matrix(s["lin_pre.weight"], update.before, update.before)[0]
    constant = _scalar_bias(s["lin_pre.bias"], update.before)
    for place in linear_inputs:
        rows = _input_rows(product, place)
        bias += constant @ hopping[0][rows]
        onsite_bias += constant @ onsite[rows]
        for matrix in (*hopping, onsite):
            matrix[rows] = linear @ matrix[rows]
    degrees = [degrees_of(irreps) for irreps in product.inputs]
    columns = _product_degrees(product)
    of_rows = np.concatenate(degrees)
    atoms = of_rows == 0
    atoms[_input_rows(product, 2)] = False
    both = np.split(hopping[0][atoms], 2)  # scalars of atom i and of atom j
    out = {
        "convolution.scalars.weight": np.concatenate(both, axis=1).T,
        "convolution.scalars.bias": np.concatenate([bias, np.zeros_like(bias)]),
    }
    n_orders = 1 + max(irreps.lmax for irreps in product.inputs) if shortened else None
    matrices = itertools.islice(by_order([matrix[~atoms] for matrix in hopping], of_rows[~atoms], columns), n_orders)
    out |= numbered("convolution.hopping", matrices)
    # both atoms of an on-site pair are the same
    i, j, pair = (onsite[_input_rows(product, place)] for place in range(3))
    weights = by_degree(np.concatenate([i + j, pair]), np.concatenate(degrees[1:]), columns)
    out |= numbered("convolution.onsite", weights, onsite_bias[columns == 0])
    hidden = zero
    for layer in (0, 2, 4):
        weight, shift = s[f"conv.fc.{layer}.weight"], s[f"conv.fc.{layer}.bias"]
        hidden = hidden @ weight.T + shift
        if layer == 4:
            weight, shift, hidden = (_per_channel(a, product.features) for a in (weight, shift, hidden.T))
        else:
            hidden = hidden / (1 + np.exp(-hidden))
        out |= {f"convolution.radial.{layer}.weight": weight, f"convolution.radial.{layer}.bias": shift}
    return out | {"convolution.onsite_weight": hidden.T}


def _input_rows(product: Product, place: int) -> slice:
    start = sum(irreps.num_irreps for irreps in product.inputs[:place])
    return slice(start, start + product.inputs[place].num_irreps)


def _product_degrees(product: Product) -> NDArray[np.int64]:
    """l of every column of a product: channels of l = 0, gates, all other channels."""
    degrees = degrees_of(product.features)
    return np.concatenate([degrees[degrees == 0], np.zeros(product.n_gates, dtype=np.int64), degrees[degrees > 0]])


def _product_columns(product: Product) -> dict[Irrep, NDArray[np.int64]]:
    """Where the columns of every irrep that the product makes stand among ours."""
    channels, n_gates = channels_of(product.features), product.n_gates
    gates = [channels[ir] for _, ir in product.features if ir.l > 0]
    columns = {ir: numbers + (n_gates if ir.l > 0 else 0) for ir, numbers in channels.items()}
    # channel c of l > 0 has gate c
    columns[SCALAR] = np.concatenate([columns[SCALAR], *gates])
    return columns


def _product_matrices(product: Product, s: _Named, convention: Convention) -> tuple[list[NDArray], NDArray]:
    """Matrices for every m of hoppings in their frames, and the matrix of on-site pairs.

    out = sqrt(2 l3+1) / sqrt(n) * W * C[m, 0, m] sqrt(2 l2+1) for each path, W = w1 w2, n = paths into l3 * rows or
    the rows of all these paths.
    """
    columns, degrees = _product_columns(product), _product_degrees(product)
    channels = [channels_of(irreps) for irreps in product.inputs]
    n_rows = sum(irreps.num_irreps for irreps in product.inputs)
    hopping = [np.zeros((n_rows, len(degrees))) for _ in range(int(degrees.max()) + 1)]
    onsite = np.zeros((n_rows, len(degrees)))
    rows_into: dict[Irrep, list[int]] = {}
    for _, mul, _, _, ir, _ in product.paths:
        rows_into.setdefault(ir, []).append(mul)
    for number, (place, mul, ir1, l2, ir, _) in enumerate(product.paths):
        weight = s[f"conv.tp.weights1.{number}"] * s[f"conv.tp.weights2.{number}"]
        weight = weight / np.sqrt(sum(rows_into[ir]) if convention.element else len(rows_into[ir]) * mul)
        where = np.ix_(_input_rows(product, place).start + channels[place][ir1], columns[ir])
        if l2 == 0:
            onsite[where] += weight
        factor = np.sqrt((2 * ir.l + 1) * (2 * l2 + 1)) * convention.sign(ir1.l, l2, ir.l)
        coupling = factor * polar_coupling(ir1.l, l2, ir.l)
        if _natural(ir) and not _natural(ir1):
            coupling = -coupling
        if place == 1:
            coupling = coupling * _reverse_factor(ir1, len(coupling))
        for m, value in enumerate(coupling):
            hopping[m][where] += value * weight
    return hopping, onsite


def _reverse_factor(ir: Irrep, n: int) -> NDArray[np.float64]:
    """For m = 0 .. n-1, what features in the frame of the reverse edge differ by, but for the sign of -m."""
    sign = (-1.0) ** (ir.l + np.arange(n))
    if not _natural(ir):
        sign[1:] *= -1  # they are stored swapped
    return sign
