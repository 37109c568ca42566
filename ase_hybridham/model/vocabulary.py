"""What the outputs of the network mean: elements, pairs of elements, and their direct sums."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray
from torch import Tensor

from ase_hybridham.errors import CheckpointError
from ase_hybridham.model.layout import FeatureLayout
from ase_hybridham.symmetry import DirectSum, reverse_sign
from ase_hybridham.system import Basis

__all__ = ["TargetLayout", "Vocabulary"]


@dataclass(frozen=True)
class TargetLayout:
    """Network outputs of one element pair, m outermost, and where they go in the direct sum.

    A natural part gives one output per m; an unnatural one has none at m = 0 (the selection rule: a local
    potential has a mirror plane through the bond) and is stored swapped, z(+m) = -y(-m), z(-m) = y(+m).
    """

    direct_sum: DirectSum

    @property
    def lmax(self) -> int:
        """Largest degree."""
        return int(self.direct_sum.degree.max())

    def _parts(self, m: int) -> list[int]:
        return [p for p, part in enumerate(self.direct_sum.parts) if m <= part.L and (m > 0 or part.natural)]

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Parts with outputs at m, for every m."""
        return tuple(len(self._parts(m)) for m in range(self.lmax + 1))

    @cached_property
    def natural_multiplicities(self) -> tuple[int, ...]:
        """Natural parts of every L: what an on-site block has."""
        return tuple(sum(part.L == L and part.natural for part in self.direct_sum.parts) for L in range(self.lmax + 1))

    @cached_property
    def scatter(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Index into the outputs and sign of every component of the direct sum; sign 0 where there is none."""
        index = np.zeros(self.direct_sum.size, dtype=np.int64)
        sign = np.zeros(self.direct_sum.size)
        start = 0
        for m in range(self.lmax + 1):
            parts = self._parts(m)
            for place, p in enumerate(parts):
                part = self.direct_sum.parts[p]
                center = part.start + part.L
                plus, minus = start + place, start + len(parts) + place
                if m == 0:
                    index[center], sign[center] = plus, 1.0
                elif part.natural:
                    index[center + m], sign[center + m] = plus, 1.0
                    index[center - m], sign[center - m] = minus, 1.0
                else:
                    index[center - m], sign[center - m] = plus, -1.0
                    index[center + m], sign[center + m] = minus, 1.0
            start += len(parts) * (1 if m == 0 else 2)
        return index, sign

    @cached_property
    def onsite_scatter(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The same for on-site outputs, lab rows of `natural_multiplicities`."""
        index = np.zeros(self.direct_sum.size, dtype=np.int64)
        sign = np.zeros(self.direct_sum.size)
        place = [0] * (self.lmax + 1)
        starts = np.cumsum([0, *FeatureLayout(self.natural_multiplicities).widths])
        for part in self.direct_sum.parts:
            if part.natural:
                channels = self.natural_multiplicities[part.L]
                index[part.components] = starts[part.L] + np.arange(2 * part.L + 1) * channels + place[part.L]
                sign[part.components] = 1.0
                place[part.L] += 1
        return index, sign


class Vocabulary:
    """What the network's outputs mean: elements, pairs of elements, their direct sums.

    Parameters
    ----------
    basis : Basis
        Of the training set; its elements are the species, in order of atomic number.
    """

    def __init__(self, basis: Basis) -> None:
        self.basis = basis
        self.numbers = basis.numbers
        self.species = {z: s for s, z in enumerate(self.numbers)}
        # element pair t = n_species * species of i + species of j
        self.element_pairs = [(a, b) for a in self.numbers for b in self.numbers]
        self.targets = [TargetLayout(DirectSum(basis[a].degrees, basis[b].degrees)) for a, b in self.element_pairs]
        self.size = max(target.direct_sum.size for target in self.targets)
        self.lmax = max(target.lmax for target in self.targets)

    @property
    def n_species(self) -> int:
        """Number of elements."""
        return len(self.numbers)

    @property
    def n_pairs(self) -> int:
        """Number of ordered pairs of elements."""
        return len(self.element_pairs)

    def onsite_pair(self, species: int) -> int:
        """Element pair of an atom with itself."""
        return species * (self.n_species + 1)

    def reverse_pair(self, t: int) -> int:
        """Element pair (b, a) of element pair t = (a, b)."""
        return t % self.n_species * self.n_species + t // self.n_species

    def pair_reach(self, reach: float) -> Tensor:
        """Where messages end for every element pair, angstrom, float64: where its pairs end, at most at `reach`."""
        radii = [self.basis[z].cutoff or np.inf for z in self.numbers]
        return torch.tensor([[min(reach, a + b) for b in radii] for a in radii], dtype=torch.float64).ravel()

    def species_of(self, numbers: NDArray) -> NDArray[np.int64]:
        """Species of atomic numbers.

        Raises
        ------
        CheckpointError
            If the network does not know an element.
        """
        unknown = sorted(set(numbers.tolist()) - set(self.numbers))
        if unknown:
            known = ", ".join(chemical_symbols[z] for z in self.numbers)
            raise CheckpointError(
                f"model: trained for {known}, the structure has {chemical_symbols[unknown[0]]}; "
                "train on data with that element"
            )
        return np.array([self.species[int(z)] for z in numbers], dtype=np.int64)

    @cached_property
    def partner(self) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """For every element pair, index and sign that take the reverse edge's components (in its frame) to this one's.

        Padded to `size`; h_ij = (-1)^(l1+l2+L) S[L, m] h_ji with S of `reverse_sign`.
        """
        flips = reverse_sign(self.lmax)
        out = []
        for target in self.targets:
            reverse = DirectSum(target.direct_sum.columns, target.direct_sum.rows)
            index, sign = reverse.partner()
            flip = np.array(
                [flips[L][L + m] for L, m in zip(target.direct_sum.degree, target.direct_sum.order, strict=True)]
            )
            out.append((_padded(index, self.size, np.int64), _padded(sign * flip, self.size, np.float64)))
        return out

    @cached_property
    def onsite_partner(self) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """For every species, index and sign of the transposed on-site block."""
        out = []
        for s in range(self.n_species):
            index, sign = self.targets[self.onsite_pair(s)].direct_sum.partner()
            out.append((_padded(index, self.size, np.int64), _padded(sign, self.size, np.float64)))
        return out


def _padded(values: NDArray, size: int, dtype: Any) -> NDArray:
    return np.concatenate([values, np.zeros(size - len(values))]).astype(dtype)
