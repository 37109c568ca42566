"""Scales of the targets: what the network need not learn.

Hoppings: h_c(d) = mean_c(d) + sigma_c(d) * output per element pair, part of the direct sum and |m|, smooth
in the distance d; only natural m = 0 components have a mean. On-site blocks: a mean for scalars and one
standard deviation per part. Neither depends on the orientation. Unscaled, on-site blocks and nearest
neighbors would dominate the loss. To both comes what depends on the cell (`cellzero`).
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from torch import Tensor, nn

from ase_hybridham.model.cellzero import CellZero
from ase_hybridham.model.graph import PairGraph
from ase_hybridham.model.linear import row_types
from ase_hybridham.model.polynomials import chebyshev_rows
from ase_hybridham.model.vocabulary import Vocabulary
from ase_hybridham.symmetry import AnyDirectSum
from ase_hybridham.system import PairList

__all__ = ["TargetScale"]

MEAN_DEGREE = 10
FLOOR = 3e-5  # eV: parts that vanish by symmetry or distance must not be blown up to noise
ROWS_PER_BIN, MAX_BINS = 40, 24
GAP = 0.1  # angstrom without any pair: no bin reaches across, or shells of neighbors would share a sigma
RESOLUTION = 1e-3  # angstrom: bins nearer than this are one (ideal lattices have many pairs of one length)
RIDGE = 1e-4  # of the rows whose sigma is largest, near neighbors, whose mean would otherwise be lost


class TargetScale(nn.Module):
    """Fitted scales, kept in the checkpoint.

    Parameters
    ----------
    vocabulary : Vocabulary
    """

    reach: Tensor
    mean: Tensor
    knots: Tensor
    log_sigma: Tensor
    node_mean: Tensor
    node_sigma: Tensor

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        n_pairs, n_species, size = vocabulary.n_pairs, vocabulary.n_species, vocabulary.size
        self.register_buffer("reach", torch.tensor([[0.0, 1.0]] * n_pairs, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(n_pairs, MEAN_DEGREE + 1, size, dtype=torch.float64))
        # log sigma is a monotone cubic between the bins; unused knots lie at infinity
        knots = torch.full((n_pairs, MAX_BINS), torch.inf, dtype=torch.float64)
        log_sigma = torch.zeros(n_pairs, MAX_BINS, 4, size, dtype=torch.float64)
        # two elements that never meet in the training set: next to nothing
        knots[:, 0], log_sigma[:, 0, 3] = 0.0, np.log(FLOOR)
        self.register_buffer("knots", knots)
        self.register_buffer("log_sigma", log_sigma)
        self.register_buffer("node_mean", torch.zeros(n_species, size, dtype=torch.float64))
        self.register_buffer("node_sigma", torch.ones(n_species, size, dtype=torch.float64))
        self.zero = CellZero(vocabulary)

    def forward(self, graph: PairGraph, node_out: Tensor, edge_out: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of a network in eV: on-site (N, size) and hopping (E, size) components."""
        node = self.node_mean[graph.species] + self.node_sigma[graph.species] * node_out
        mean, sigma = self.edge_statistics(graph)
        edge = mean + sigma * edge_out
        if self.zero.is_active:
            node_zero, edge_zero = self.zero(graph)
            return node + node_zero, edge + edge_zero
        return node, edge

    def set_unit(self) -> None:
        """No mean and a sigma of 1 eV: outputs are matrix elements, as where nothing is scaled."""
        for name, buffer in TargetScale(self.vocabulary).named_buffers():
            if not name.startswith("zero."):  # what depends on the cell is no scale
                getattr(self, name).copy_(buffer)
        self.log_sigma[:, 0] = 0.0

    def never_met(self, pairs: PairList) -> tuple[int, int] | None:
        """Atomic numbers of a hopping for which the fit had none, if there is one; None before any fit."""
        fitted = self.knots[:, 0] > 0
        if not fitted.any():
            return None
        for elements, rows in pairs.element_groups.items():
            if rows[-1] >= pairs.n_atoms and not fitted[self.vocabulary.element_pairs.index(elements)]:
                return elements
        return None

    def edge_statistics(self, graph: PairGraph) -> tuple[Tensor, Tensor]:
        """Mean and sigma of the hoppings in eV, shape (E, size)."""
        types = row_types(graph.element_pair, self.vocabulary.n_pairs)
        if len(types) == 1 and types[0][1] is None:
            return self._evaluate(graph.distance, 0)
        mean = graph.distance.new_zeros(len(graph.distance), self.vocabulary.size)
        sigma = torch.zeros_like(mean)
        for t, index in types:
            mean[index], sigma[index] = self._evaluate(graph.distance[index], t)
        return mean, sigma

    def _evaluate(self, distance: Tensor, t: int) -> tuple[Tensor, Tensor]:
        mean = chebyshev_rows(distance, self.reach[t], MEAN_DEGREE) @ self.mean[t]
        knots = self.knots[t]
        last = knots[torch.isfinite(knots)][-1]
        d = torch.minimum(torch.maximum(distance, knots[0]), last)
        interval = (torch.searchsorted(knots, d, right=True) - 1).clamp(min=0)
        step = (d - knots[interval])[:, None]
        c = self.log_sigma[t][interval]
        return mean, torch.exp(((c[:, 0] * step + c[:, 1]) * step + c[:, 2]) * step + c[:, 3])

    def fit(self, graphs: Sequence[PairGraph], *, centered: bool = True) -> None:
        """Fit to the targets of a training set.

        Parameters
        ----------
        graphs : sequence of PairGraph
            With `node_target` and `edge_target` in eV.
        centered : bool
            Whether there are means; residuals of a first stage have none left.

        What depends on the cell is taken off first.
        """
        if not graphs:
            raise ValueError("target scale: expected at least one structure to fit to, got none")
        species = torch.cat([g.species for g in graphs]).cpu().numpy()
        targets = [self._without_zero(g) for g in graphs]
        nodes = torch.cat([node for node, _ in targets]).double().cpu().numpy()
        pair = torch.cat([g.element_pair for g in graphs]).cpu().numpy()
        edges = torch.cat([edge for _, edge in targets]).double().cpu().numpy()
        distance = torch.cat([g.distance for g in graphs]).double().cpu().numpy()
        for s in range(self.vocabulary.n_species):
            if (species == s).any():
                mean, sigma = self._onsite_statistics(nodes[species == s], s, centered)
                self.node_mean[s], self.node_sigma[s] = torch.from_numpy(mean), torch.from_numpy(sigma)
        for t, (a, b) in enumerate(self.vocabulary.element_pairs):
            if a <= b and (pair == t).any():
                self._fit_pair(t, distance[pair == t], edges[pair == t], centered)

    def _without_zero(self, graph: PairGraph) -> tuple[Tensor, Tensor]:
        if not self.zero.is_active:
            return graph.node_target, graph.edge_target
        node, edge = self.zero(graph)
        return graph.node_target - node, graph.edge_target - edge

    def _onsite_statistics(self, values: NDArray, s: int, centered: bool) -> tuple[NDArray, NDArray]:
        direct_sum = self.vocabulary.targets[self.vocabulary.onsite_pair(s)].direct_sum
        size = direct_sum.size
        mean, sigma = np.zeros(self.vocabulary.size), np.full(self.vocabulary.size, FLOOR)
        if centered:
            mean[:size] = np.where(direct_sum.natural & (direct_sum.degree == 0), values[:, :size].mean(0), 0.0)
        square = ((values[:, :size] - mean[:size]) ** 2).mean(0)
        for part in direct_sum.parts:  # over m too: a scale per m would not be invariant
            sigma[part.components] = max(np.sqrt(square[part.components].mean()), FLOOR)
        index, sign = self.vocabulary.onsite_partner[s]
        return 0.5 * (mean + sign * mean[index]), 0.5 * (sigma + sigma[index])

    def _fit_pair(self, t: int, distance: NDArray, values: NDArray, centered: bool) -> None:
        direct_sum = self.vocabulary.targets[t].direct_sum
        size = direct_sum.size
        values = values[:, :size]
        low, high = distance.min(), max(distance.max(), distance.min() + GAP)
        bins = _bins(distance)
        has_mean = np.flatnonzero(direct_sum.natural & (direct_sum.order == 0))
        mean = np.zeros((MEAN_DEGREE + 1, size))
        residual = values
        if centered and len(has_mean):
            sigma = np.exp(_interpolate(distance, *_log_sigma(distance, values, bins, direct_sum)))
            x = (2.0 * distance - low - high) / (high - low)
            n_distances = len(np.unique(np.round(distance, 3)))
            for c in has_mean:
                mean[:, c] = _polynomial(x, values[:, c], n_distances, 1.0 / sigma[:, c])
            residual = values - chebyshev.chebvander(x, MEAN_DEGREE) @ mean
        knots, coefficients = _log_sigma(distance, residual, bins, direct_sum)
        padding = [(0, self.vocabulary.size - size)]
        mean, log_sigma = np.pad(mean, [(0, 0), *padding]), np.pad(coefficients, [(0, 0), (0, 0), *padding])
        # Hermitian to the last bit: the reverse pairs get the same numbers, not a fit of their own
        reverse = self.vocabulary.reverse_pair(t)
        index, sign = self.vocabulary.partner[reverse]
        mirrored_mean, mirrored_log_sigma = sign * mean[:, index], log_sigma[:, :, index]
        if reverse == t:
            mirrored_mean = mean = 0.5 * (mean + mirrored_mean)
            mirrored_log_sigma = log_sigma = 0.5 * (log_sigma + mirrored_log_sigma)
        self._store(t, low, high, mean, knots, log_sigma)
        self._store(reverse, low, high, mirrored_mean, knots, mirrored_log_sigma)

    def _store(self, t: int, low: float, high: float, mean: NDArray, knots: NDArray, log_sigma: NDArray) -> None:
        self.reach[t] = torch.tensor([low, high])
        self.mean[t] = torch.from_numpy(mean)
        self.knots[t] = torch.inf
        self.knots[t, : len(knots)] = torch.from_numpy(knots)
        self.log_sigma[t, : len(knots)] = torch.from_numpy(log_sigma)


def _bins(distance: NDArray) -> list[NDArray]:
    """Rows in bins of similar distance, as equal in number as gaps between shells of neighbors allow."""
    order = np.argsort(distance, kind="stable")
    shells = np.split(order, np.flatnonzero(np.diff(distance[order]) > GAP) + 1)
    while len(shells) > MAX_BINS:  # join the two nearest
        k = int(np.argmin([distance[b[0]] - distance[a[-1]] for a, b in pairwise(shells)]))
        shells[k : k + 2] = [np.concatenate(shells[k : k + 2])]
    spare = MAX_BINS - len(shells)
    bins: list[NDArray] = []
    for shell in shells:
        n = 1 + min(len(shell) // ROWS_PER_BIN, int(spare * len(shell) / len(order)))
        for k, part in enumerate(np.array_split(shell, n)):
            if k and distance[part].mean() - distance[bins[-1]].mean() < RESOLUTION:
                bins[-1] = np.concatenate([bins[-1], part])
            else:
                bins.append(part)
    return bins


def _log_sigma(
    distance: NDArray, values: NDArray, bins: list[NDArray], direct_sum: AnyDirectSum
) -> tuple[NDArray, NDArray]:
    """Knots and cubic coefficients (n_knots, 4, size) of log sigma, one sigma per part and |m|."""
    knots = np.array([distance[rows].mean() for rows in bins])
    square = np.stack([(values[rows] ** 2).mean(0) for rows in bins])
    group = direct_sum.part_of * (2 * int(direct_sum.degree.max()) + 1) + np.abs(direct_sum.order)
    for g in np.unique(group):
        square[:, group == g] = square[:, group == g].mean(1, keepdims=True)
    logs = np.log(np.maximum(np.sqrt(square), FLOOR))
    coefficients = np.zeros((len(bins), 4, direct_sum.size))
    if len(bins) > 1:
        coefficients[:-1] = PchipInterpolator(knots, logs).c.transpose(1, 0, 2)
    coefficients[-1, 3] = logs[-1]
    return knots, coefficients


def _interpolate(distance: NDArray, knots: NDArray, coefficients: NDArray) -> NDArray:
    d = np.clip(distance, knots[0], knots[-1])
    interval = np.maximum(np.searchsorted(knots, d, side="right") - 1, 0)
    step = (d - knots[interval])[:, None]
    c = coefficients[interval]
    return ((c[:, 0] * step + c[:, 1]) * step + c[:, 2]) * step + c[:, 3]


def _polynomial(x: NDArray, values: NDArray, n_distances: int, weight: NDArray) -> NDArray:
    """Weighted Chebyshev fit with a slight preference for low degrees where data are thin."""
    degree = min(MEAN_DEGREE, n_distances - 1)
    basis = chebyshev.chebvander(x, degree) * weight[:, None]
    ridge = np.sqrt(RIDGE * len(x)) * weight.min() * np.diag(np.arange(degree + 1.0) ** 2)
    target = np.concatenate([values * weight, np.zeros(degree + 1)])
    out = np.zeros(MEAN_DEGREE + 1)
    out[: degree + 1] = np.linalg.lstsq(np.concatenate([basis, ridge]), target, rcond=None)[0]
    return out
