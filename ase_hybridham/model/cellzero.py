"""The part of the zero of energy that depends on the cell, which no network of surroundings can know.

Periodic programs set the mean of a Hartree potential over the cell to zero. The same atoms in a larger cell then
have another H: it carries mu_0 S with mu_0 = sum_z c_z N_z / V (N_z atoms of element z in the cell of volume V).
S of two atoms depends on their distance alone: a polynomial per element pair and component, fitted to the S of the
training set, gives it without radial functions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols
from numpy.polynomial import chebyshev
from torch import Tensor, nn

from ase_hybridham.model.graph import PairGraph
from ase_hybridham.model.polynomials import chebyshev_rows
from ase_hybridham.model.vocabulary import Vocabulary

__all__ = ["CellZero"]

DEGREE = 18
RIDGE = 1e-9  # where distances are few, low degrees


class CellZero(nn.Module):
    """mu_0 S of a structure; nothing until `fit` has been called.

    Parameters
    ----------
    vocabulary : Vocabulary
    """

    coefficient: Tensor
    onsite: Tensor
    hopping: Tensor
    reach: Tensor

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        n_pairs, n_species, size = vocabulary.n_pairs, vocabulary.n_species, vocabulary.size
        self.register_buffer("coefficient", torch.zeros(n_species, dtype=torch.float64))
        self.register_buffer("onsite", torch.zeros(n_species, size, dtype=torch.float64))
        self.register_buffer("hopping", torch.zeros(n_pairs, DEGREE + 1, size, dtype=torch.float64))
        self.register_buffer("reach", torch.tensor([[0.0, 1.0]] * n_pairs, dtype=torch.float64))

    @property
    def is_active(self) -> bool:
        """Whether there is anything to add."""
        return bool(self.coefficient.any())

    def has(self, coefficients: Mapping[str, float]) -> bool:
        """Whether these are the coefficients; errors as `fit`."""
        return torch.allclose(self.coefficient, self._of(coefficients))

    def forward(self, graph: PairGraph) -> tuple[Tensor, Tensor]:
        """On-site (N, size) and hopping (E, size) components of mu_0 S in eV."""
        mu = graph.density @ self.coefficient
        of_node = graph.get("batch", torch.zeros_like(graph.species))
        edge = torch.zeros_like(graph.distance)[:, None].repeat(1, self.vocabulary.size)
        for t in range(self.vocabulary.n_pairs):
            rows = torch.nonzero(graph.element_pair == t).ravel()
            if len(rows):
                edge = edge.index_copy(0, rows, self._overlap(graph.distance[rows], t))
        node = self.onsite[graph.species]
        return mu[of_node, None] * node, mu[of_node[graph.edge_index[0]], None] * edge

    def fit(self, graphs: Sequence[PairGraph], coefficients: Mapping[str, float]) -> None:
        """Take the coefficients, and S from the graphs of a training set.

        Parameters
        ----------
        graphs : sequence of PairGraph
            With `node_overlap` and `edge_overlap`.
        coefficients : mapping
            Element -> c in eV angstrom^3; elements that are left out have 0.

        Raises
        ------
        ValueError
            If an element is not one of the training set.
        """
        self.coefficient.copy_(self._of(coefficients))
        species, S = (torch.cat([g[key] for g in graphs]) for key in ("species", "node_overlap"))
        for s in range(self.vocabulary.n_species):
            if (species == s).any():
                self.onsite[s] = S[species == s].mean(dim=0)
        pair, d, S = (torch.cat([g[key] for g in graphs]) for key in ("element_pair", "distance", "edge_overlap"))
        for t, (a, b) in enumerate(self.vocabulary.element_pairs):
            if a <= b and (pair == t).any():
                self._fit_pair(t, d[pair == t], S[pair == t])

    def _of(self, coefficients: Mapping[str, float]) -> Tensor:
        """c of every species."""
        values = torch.zeros_like(self.coefficient)
        for symbol, value in coefficients.items():
            if atomic_numbers.get(symbol) not in self.vocabulary.species:
                known = ", ".join(chemical_symbols[z] for z in self.vocabulary.numbers)
                raise ValueError(f"cell_zero: expected elements of the training split ({known}), got {symbol!r}")
            values[self.vocabulary.species[atomic_numbers[symbol]]] = value
        return values

    def _overlap(self, distance: Tensor, t: int) -> Tensor:
        return chebyshev_rows(distance, self.reach[t], DEGREE) @ self.hopping[t]

    def _fit_pair(self, t: int, distance: Tensor, S: Tensor) -> None:
        d, values = distance.double().cpu().numpy(), S.double().cpu().numpy()
        low, high = float(d.min()), max(float(d.max()), float(d.min()) + 0.1)
        degrees = min(DEGREE, len(np.unique(np.round(d, 3))) - 1) + 1
        basis = chebyshev.chebvander((2.0 * d - low - high) / (high - low), degrees - 1)
        ridge = np.sqrt(RIDGE * len(d)) * np.diag(np.arange(degrees) ** 2.0)
        fitted = np.zeros((DEGREE + 1, values.shape[1]))
        rows = np.concatenate([values, np.zeros((degrees, values.shape[1]))])
        fitted[:degrees] = np.linalg.lstsq(np.concatenate([basis, ridge]), rows, rcond=None)[0]
        direct_sum = self.vocabulary.targets[t].direct_sum
        axial = np.zeros(values.shape[1], dtype=bool)
        axial[: direct_sum.size] = direct_sum.natural & (direct_sum.order == 0)
        fitted[:, ~axial] = 0.0  # S of two atoms has no other component in the frame of their edge
        # Hermitian to the last bit: the reverse pairs get the same numbers
        reverse = self.vocabulary.reverse_pair(t)
        index, sign = self.vocabulary.partner[reverse]
        mirrored = sign * fitted[:, index]
        if reverse == t:
            mirrored = fitted = 0.5 * (fitted + mirrored)
        for place, polynomial in ((t, fitted), (reverse, mirrored)):
            self.hopping[place], self.reach[place] = torch.from_numpy(polynomial), torch.tensor([low, high])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name, buffer in self.named_buffers():  # checkpoints from before there was such a thing have none
            state_dict.setdefault(prefix + name, buffer)
        super()._load_from_state_dict(state_dict, prefix, *args)
