"""Networks of DeepH-E3 as networks of this package: the same function (Gong et al. 2023).

Their tensor products with the harmonics of an edge become one matrix per |m| in the frame of the edge, their
self edges on-site pairs (only the harmonic l = 0 is not zero there), the linear maps in front of products part
of them. Components of their outputs are larger than ours by sqrt(2 L+1), signs of couplings are those of
e3nn 0.3.5, and their spinor blocks are s + t.sigma where ours are h_0 + i h.sigma.

A matrix here has a row for every channel of the input and a column for every channel of the output, in the
order of `FeatureLayout`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols
from e3nn.o3 import Irrep, Irreps
from numpy.typing import NDArray

from ase_hybridham.errors import CheckpointError
from ase_hybridham.model.cascade import Cascade, Domain
from ase_hybridham.model.checkpoint import TrainedModel
from ase_hybridham.model.config import ModelConfig, Stage1Config
from ase_hybridham.model.deephe3_files import DeepHE3Checkpoint, read_deephe3
from ase_hybridham.model.deephe3_weights import SCALAR, Product, Update, coupling_sign
from ase_hybridham.symmetry import Part, SpinorPart, polar_coupling
from ase_hybridham.system import AtomBasis, Basis

__all__ = ["import_deephe3"]

Parameters = dict[str, NDArray[np.float64]]


def import_deephe3(folder: str | Path) -> TrainedModel:
    """The network of a checkpoint folder of DeepH-E3.

    It predicts H of any pair list as DeepH-E3 does: the files know no cutoff of pairs, and H is not made
    Hermitian (`TrainedModel.predict(..., hermitian=False)` gives it as it is).

    Parameters
    ----------
    folder : str or Path
        As for `read_deephe3`.

    Raises
    ------
    CheckpointError
        If the folder does not hold a network that is known here.
    """
    checkpoint = read_deephe3(folder)
    reached, wanted = checkpoint.edge_updates[-1].after.lmax, checkpoint.out.lmax
    if reached < wanted:
        raise CheckpointError(
            f"{folder}: no path of this network reaches its outputs of l = {wanted}, only up to {reached}: parts of H "
            "are always 0; train one with a larger spherical_harmonics_lmax"
        )
    cascade = Cascade(_config(checkpoint), _domain(checkpoint))
    parameters = _parameters(checkpoint, cascade)
    own = dict(cascade.stage1.named_parameters())
    assert own.keys() == parameters.keys(), own.keys() ^ parameters.keys()
    with torch.no_grad():
        for name, parameter in own.items():
            assert parameter.shape == parameters[name].shape, name
            parameter.copy_(torch.from_numpy(parameters[name]))
        cascade.scale1.log_sigma.zero_()  # outputs are in eV
    cascade.eval().requires_grad_(False)
    return TrainedModel(cascade, provenance={"imported_from": "DeepH-E3"})


def _config(checkpoint: DeepHE3Checkpoint) -> ModelConfig:
    nodes, edges = checkpoint.node_updates, checkpoint.edge_updates
    widest = max((update.after for update in nodes), key=lambda irreps: irreps.dim)
    stage1 = Stage1Config(
        irreps=str(widest),
        n_blocks=len(nodes),
        n_gaussians=len(checkpoint.state["basis.offsets"]),
        radial_width=len(checkpoint.state["node_update_blocks.0.conv.fc.0.bias"]),
        gates="channel",
        norm="graph",
        pair_maps="separate",
        envelope=False,
        readout="free",
        n_embedding=nodes[0].before.dim,
        edge_reach=checkpoint.embedding_reach,
        block_irreps=tuple((str(n.after), str(e.after)) for n, e in zip(nodes, edges, strict=True)),
    )
    return ModelConfig(stage1=stage1, stage2=None, dtype="float64")


def _domain(checkpoint: DeepHE3Checkpoint) -> Domain:
    atoms = [AtomBasis.from_degrees(chemical_symbols[z], degrees) for z, degrees in checkpoint.bases.items()]
    return Domain(
        Basis.of(*atoms, name="DeepH-E3"),
        reach=checkpoint.r_max,
        n_neighbors=1.0,
        spin="spinor" if checkpoint.spinful else "none",
        time_reversal=False,
    )


def _parameters(checkpoint: DeepHE3Checkpoint, cascade: Cascade) -> Parameters:
    """Every parameter of our stage 1."""
    state, n_species = checkpoint.state, len(checkpoint.bases)
    n_scalars = checkpoint.node_updates[0].before.dim
    own_pairs = cascade.stage1.edge_embedding(torch.zeros(1, dtype=torch.float64)).numpy()
    out: Parameters = {
        "node_embedding.weight": state["embedding.weight"].reshape(n_species, n_scalars) / np.sqrt(n_species),
        "onsite_embedding.weight": np.repeat(own_pairs, n_species, axis=0),
    }
    zero = cascade.stage1.gaussians(torch.zeros(1, dtype=torch.float64)).numpy()
    for block, (node, edge) in enumerate(zip(checkpoint.node_updates, checkpoint.edge_updates, strict=True)):
        update = _node_update(node, state, zero)
        out |= {f"node_updates.{block}.{name}": values for name, values in update.items()}
        update = _edge_update(edge, state, zero, n_species)
        out |= {f"edge_updates.{block}.{name}": values for name, values in update.items()}
    out |= {f"readout.{name}": values for name, values in _readout(checkpoint, cascade).items()}
    return out


# -- channels


def _in_our_order(irreps: Irreps) -> list[tuple[int, Irrep]]:
    """By l, natural ones first."""
    return sorted(((mul, ir) for mul, ir in irreps), key=lambda entry: (entry[1].l, not _natural(entry[1])))


def _natural(ir: Irrep) -> bool:
    return bool(ir.p == (-1) ** ir.l)


def _channels(irreps: Irreps) -> dict[Irrep, NDArray[np.int64]]:
    """Numbers of the channels of every irrep."""
    out, start = {}, 0
    for mul, ir in _in_our_order(irreps):
        out[ir] = np.arange(start, start + mul)
        start += mul
    return out


def _degrees(irreps: Irreps) -> NDArray[np.int64]:
    """l of every channel."""
    return np.array([ir.l for mul, ir in _in_our_order(irreps) for _ in range(mul)], dtype=np.int64)


def _per_channel(values: NDArray, irreps: Irreps) -> NDArray[np.float64]:
    """Values (channels, ...) from DeepH-E3's order of channels to ours."""
    place = np.concatenate([_channels(irreps)[ir] for _, ir in irreps])
    out = np.empty_like(values)
    out[place] = values
    return out


def _by_order(matrices: Sequence[NDArray], rows: NDArray, columns: NDArray) -> Iterator[NDArray]:
    """For every m the part of its matrix between channels with l >= m; `rows` and `columns` are their l."""
    for m in range(int(columns.max()) + 1):
        yield matrices[min(m, len(matrices) - 1)][rows >= m][:, columns >= m]


def _by_degree(matrix: NDArray, rows: NDArray, columns: NDArray) -> Iterator[NDArray]:
    """For every l the part between its channels."""
    for l in range(int(columns.max()) + 1):
        yield matrix[rows == l][:, columns == l]


def _numbered(prefix: str, weights: Iterator[NDArray], bias: NDArray | None = None) -> Parameters:
    out = {f"{prefix}.weights.{n}": weight for n, weight in enumerate(weights)}
    return out if bias is None else out | {f"{prefix}.bias": bias}


# -- linear maps


def _linear_matrix(weight: NDArray, before: Irreps, after: Irreps, n_types: int = 1) -> NDArray[np.float64]:
    """Matrices (n_types, rows, columns) of a linear map, or of one for every type."""
    rows, columns = _channels(before), _channels(after)
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
    out[_channels(irreps)[SCALAR]] = bias
    return out


def _node_update(update: Update, state: Mapping[str, NDArray], zero: NDArray) -> Parameters:
    s = _Named(state, update.prefix)
    before, after = _degrees(update.before), _degrees(update.after)
    out = _convolution(update, s, zero, linear_inputs=(0, 1))
    post, bias = _linear_matrix(s["lin_post.weight"], update.after, update.after)[0], s["lin_post.bias"]
    out |= _numbered("post", _by_degree(post, after, after), _scalar_bias(bias, update.after)[after == 0])
    for t, own in enumerate(_linear_matrix(s["sc.weight"], update.before, update.after, update.n_types)):
        out |= _numbered(f"own.maps.{t}", _by_degree(own, before, after))
    if update.before != update.after:
        skip = _linear_matrix(s["skip_connect.sc.weight"], update.before, update.after)[0]
        out |= _numbered("skip", _by_degree(skip, before, after))
    return out | _norm(update, s)


def _edge_update(update: Update, state: Mapping[str, NDArray], zero: NDArray, n_species: int) -> Parameters:
    s = _Named(state, update.prefix)
    before, after = _degrees(update.before), _degrees(update.after)
    out = _convolution(update, s, zero, linear_inputs=(2,))
    post = _linear_matrix(s["lin_post.weight"], update.after, update.after)[0]
    bias = _scalar_bias(s["lin_post.bias"], update.after)
    out |= _numbered("post", _by_order([post], after, after), bias)
    out |= _numbered("onsite_post", _by_degree(post, after, after), bias[after == 0])
    for t, own in enumerate(_linear_matrix(s["sc.weight"], update.before, update.after, update.n_types)):
        out |= _numbered(f"own.maps.{t}", _by_order([own], before, after))
        if t % (n_species + 1) == 0:  # two atoms of one element
            out |= _numbered(f"onsite_own.maps.{t // (n_species + 1)}", _by_degree(own, before, after))
    if update.before != update.after:
        skip = _linear_matrix(s["skip_connect.sc.weight"], update.before, update.after)[0]
        out |= _numbered("skip", _by_order([skip], before, after))
        out |= _numbered("onsite_skip", _by_degree(skip, before, after))
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


def _convolution(update: Update, s: _Named, zero: NDArray, linear_inputs: tuple[int, ...]) -> Parameters:
    """Matrices, radial network and its value at distance zero; `linear_inputs` pass lin_pre first."""
    product = update.product
    hopping, onsite = _product_matrices(product, s)
    bias, onsite_bias = np.zeros(onsite.shape[1]), np.zeros(onsite.shape[1])
    linear = _linear_matrix(s["lin_pre.weight"], update.before, update.before)[0]
    constant = _scalar_bias(s["lin_pre.bias"], update.before)
    for place in linear_inputs:
        rows = _input_rows(product, place)
        bias += constant @ hopping[0][rows]
        onsite_bias += constant @ onsite[rows]
        for matrix in (*hopping, onsite):
            matrix[rows] = linear @ matrix[rows]
    degrees = [_degrees(irreps) for irreps in product.inputs]
    columns = _product_degrees(product)
    out = _numbered("convolution.hopping", _by_order(hopping, np.concatenate(degrees), columns), bias)
    # both atoms of an on-site pair are the same
    i, j, pair = (onsite[_input_rows(product, place)] for place in range(3))
    weights = _by_degree(np.concatenate([i + j, pair]), np.concatenate(degrees[1:]), columns)
    out |= _numbered("convolution.onsite", weights, onsite_bias[columns == 0])
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
    degrees = _degrees(product.features)
    return np.concatenate([degrees[degrees == 0], np.zeros(product.n_gates, dtype=np.int64), degrees[degrees > 0]])


def _product_columns(product: Product) -> dict[Irrep, NDArray[np.int64]]:
    """Where the columns of every irrep that the product makes stand among ours."""
    channels, n_gates = _channels(product.features), product.n_gates
    gates = [channels[ir] for _, ir in product.features if ir.l > 0]
    columns = {ir: numbers + (n_gates if ir.l > 0 else 0) for ir, numbers in channels.items()}
    # channel c of l > 0 has gate c
    columns[SCALAR] = np.concatenate([columns[SCALAR], *gates])
    return columns


def _product_matrices(product: Product, s: _Named) -> tuple[list[NDArray], NDArray]:
    """Matrices for every m of hoppings in their frames, and the matrix of on-site pairs.

    out = sqrt(2 l3+1) / sqrt(paths into l3 * rows) * W * C[m, 0, m] sqrt(2 l2+1) for each path, W = w1 w2.
    """
    columns, degrees = _product_columns(product), _product_degrees(product)
    channels = [_channels(irreps) for irreps in product.inputs]
    n_rows = sum(irreps.num_irreps for irreps in product.inputs)
    hopping = [np.zeros((n_rows, len(degrees))) for _ in range(int(degrees.max()) + 1)]
    onsite = np.zeros((n_rows, len(degrees)))
    made = [ir for *_, ir, _ in product.paths]
    for number, (place, mul, ir1, l2, ir, _) in enumerate(product.paths):
        weight = s[f"conv.tp.weights1.{number}"] * s[f"conv.tp.weights2.{number}"]
        weight = weight / np.sqrt(made.count(ir) * mul)
        where = np.ix_(_input_rows(product, place).start + channels[place][ir1], columns[ir])
        if l2 == 0:
            onsite[where] += weight
        factor = np.sqrt((2 * ir.l + 1) * (2 * l2 + 1)) * coupling_sign(ir1.l, l2, ir.l)
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


# -- outputs


def _readout(checkpoint: DeepHE3Checkpoint, cascade: Cascade) -> Parameters:
    """Maps of every element and pair of elements to the components of our direct sums."""
    edge, vocabulary = checkpoint.edge_updates[-1].after, cascade.vocabulary
    matrix, constant = _output_matrix(checkpoint, edge)
    rows = _degrees(edge)
    out: Parameters = {}
    for t, (pair, target) in enumerate(zip(vocabulary.element_pairs, vocabulary.targets, strict=True)):
        parts = target.direct_sum.parts
        place, factor = _output_places(checkpoint, pair, parts)
        weights, bias = matrix[:, place] * factor, constant[place] * factor
        degrees = np.array([part.degree for part in parts])
        out |= _numbered(f"edge_maps.{t}", _by_order([weights], rows, degrees), bias)
        if pair[0] == pair[1]:
            natural = np.array([part.natural for part in parts])
            order = np.argsort(~natural, kind="stable")
            weights, bias, degrees = weights[:, order], bias[order], degrees[order]
            name = f"node_maps.{vocabulary.species[pair[0]]}"
            out |= _numbered(name, _by_degree(weights, rows, degrees), bias[degrees == 0])
    return out


def _output_matrix(checkpoint: DeepHE3Checkpoint, edge: Irreps) -> tuple[NDArray, NDArray]:
    """lin_edge as a matrix (channels, outputs), and its bias."""
    weight, rows = checkpoint.state["lin_edge.weight"], _channels(edge)
    matrix, start = np.zeros((edge.num_irreps, len(checkpoint.out))), 0
    for mul, ir in edge:
        for column, (_, other) in enumerate(checkpoint.out):
            if ir == other:
                matrix[rows[ir], column] = weight[start : start + mul] / np.sqrt(mul)
                start += mul
    constant = np.zeros(len(checkpoint.out))
    constant[[ir == SCALAR for _, ir in checkpoint.out]] = checkpoint.state["lin_edge.bias"]
    return matrix, constant


def _output_places(
    checkpoint: DeepHE3Checkpoint, pair: tuple[int, int], parts: Sequence[Part]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Which output every part of our direct sum is, and the factor to it."""
    found: dict[tuple[int, ...], tuple[int, float]] = {}
    start = 0
    for target in checkpoint.targets:
        (a, b), (row, column) = next(iter(target.items()))
        l1, l2 = checkpoint.bases[a][row], checkpoint.bases[b][column]
        keys = [(L, 0, L) for L in range(abs(l1 - l2), l1 + l2 + 1)]
        if checkpoint.spinful:
            keys += [(L, 1, J) for L, _, _ in keys for J in range(abs(L - 1), L + 2)]
        if pair in target:
            found |= {(*target[pair], *key): (n, _output_factor(l1, l2, *key)) for n, key in enumerate(keys, start)}
        start += len(keys)
    half = len(parts) // 2 if checkpoint.spinful else len(parts)
    place, factors = np.empty(len(parts), dtype=np.int64), np.empty(len(parts))
    for p, part in enumerate(parts):
        spin, imaginary = part.spin if isinstance(part, SpinorPart) else 0, p >= half
        n, factor = found[part.row_shell, part.column_shell, part.L, spin, part.degree]
        if spin:  # h = -i t: its real part is the imaginary part of t, its imaginary part minus the real one
            factor, imaginary = -factor if imaginary else factor, not imaginary
        place[p], factors[p] = n + (len(checkpoint.out) // 2 if imaginary else 0), factor
    return place, factors


def _output_factor(l1: int, l2: int, L: int, spin: int, J: int) -> float:
    """Our component over theirs: 3j symbols of norm 1 couple l1 x l2 -> L, and L x 1 -> J."""
    factor = coupling_sign(l1, l2, L) / np.sqrt(2 * L + 1)
    return float(factor * coupling_sign(L, 1, J) / np.sqrt(2 * J + 1) if spin else factor)
