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
from ase_hybridham.symmetry import (
    AnyDirectSum,
    CollinearDirectSum,
    DirectSum,
    MagneticDirectSum,
    SpinorDirectSum,
    reverse_sign,
)
from ase_hybridham.system import Basis
from ase_hybridham.system.lcao import SpinKind

__all__ = ["TargetLayout", "Vocabulary"]


@dataclass(frozen=True)
class TargetLayout:
    """Network outputs of one element pair, and where they go in the direct sum.

    Hoppings, in the frame of their edge: m outermost, then +m and -m, then the parts in the order of the direct
    sum; at m >= 1 an unnatural part is stored swapped, z(+m) = -y(-m), z(-m) = y(+m). On-site blocks, in the lab:
    degree outermost, then m, then the natural and then the unnatural parts.

    Parameters
    ----------
    direct_sum : DirectSum, CollinearDirectSum, SpinorDirectSum or MagneticDirectSum
    selection : bool
        The selection rule: an unnatural part has no m = 0 in hoppings and is absent on-site, because every local
        potential and every projector has a mirror plane through the bond. With spin-orbit coupling it holds for the
        total degree J, but not where there is magnetism.
    """

    direct_sum: AnyDirectSum
    selection: bool = True

    @property
    def lmax(self) -> int:
        """Largest degree."""
        return int(self.direct_sum.degree.max())

    def parts_at(self, m: int) -> list[int]:
        """Positions in the direct sum of the parts with outputs at m in hoppings."""
        parts = enumerate(self.direct_sum.parts)
        return [p for p, part in parts if m <= part.degree and (m > 0 or part.natural or not self.selection)]

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Parts with outputs at m, for every m."""
        return tuple(len(self.parts_at(m)) for m in range(self.lmax + 1))

    @cached_property
    def natural_multiplicities(self) -> tuple[int, ...]:
        """Natural parts of every degree: what an on-site block has."""
        return self._multiplicities(natural=True)

    @cached_property
    def unnatural_multiplicities(self) -> tuple[int, ...]:
        """Unnatural parts of every degree that an on-site block has: none where the selection rule holds."""
        return tuple([0] * (self.lmax + 1)) if self.selection else self._multiplicities(natural=False)

    @property
    def onsite_multiplicities(self) -> tuple[int, ...]:
        """Both."""
        return FeatureLayout(self.natural_multiplicities, self.unnatural_multiplicities).multiplicities

    def _multiplicities(self, *, natural: bool) -> tuple[int, ...]:
        degrees = [part.degree for part in self.direct_sum.parts if part.natural == natural]
        return tuple(degrees.count(l) for l in range(self.lmax + 1))

    @cached_property
    def scatter(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Index into the outputs and sign of every component of the direct sum; sign 0 where there is none."""
        index = np.zeros(self.direct_sum.size, dtype=np.int64)
        sign = np.zeros(self.direct_sum.size)
        start = 0
        for m in range(self.lmax + 1):
            parts = self.parts_at(m)
            for place, p in enumerate(parts):
                part = self.direct_sum.parts[p]
                center = part.start + part.degree
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
        """The same for on-site outputs, lab rows."""
        index = np.zeros(self.direct_sum.size, dtype=np.int64)
        sign = np.zeros(self.direct_sum.size)
        natural, unnatural = self.natural_multiplicities, self.unnatural_multiplicities
        layout = FeatureLayout(natural, unnatural)
        channels, starts = layout.multiplicities, np.cumsum([0, *layout.widths])
        place = {True: [0] * len(natural), False: list(natural)}
        for part in self.direct_sum.parts:
            l = part.degree
            if part.natural or not self.selection:
                index[part.components] = starts[l] + np.arange(2 * l + 1) * channels[l] + place[part.natural][l]
                sign[part.components] = 1.0
                place[part.natural][l] += 1
        return index, sign


class Vocabulary:
    """What the network's outputs mean: elements, pairs of elements, their direct sums.

    Parameters
    ----------
    basis : Basis
        Of the training set; its elements are the species, in order of atomic number.
    spin : {"none", "collinear", "spinor"}
        One operator, two without spin-orbit coupling (up, down), or one of spinors.
    time_reversal : bool
        Whether spinor blocks are even under time reversal: then they have half the components.
    selection : bool
        See `TargetLayout`.
    """

    def __init__(
        self,
        basis: Basis,
        *,
        spin: SpinKind = "none",
        time_reversal: bool = True,
        selection: bool = True,
    ) -> None:
        self.basis, self.spin = basis, spin
        self.numbers = basis.numbers
        self.species = {z: s for s, z in enumerate(self.numbers)}
        # element pair t = n_species * species of i + species of j
        self.element_pairs = [(a, b) for a in self.numbers for b in self.numbers]
        kinds: dict[SpinKind, type[AnyDirectSum]] = {
            "none": DirectSum,
            "collinear": CollinearDirectSum,
            "spinor": SpinorDirectSum if time_reversal else MagneticDirectSum,
        }
        kind = kinds[spin]
        self.targets = [
            TargetLayout(kind(basis[a].degrees, basis[b].degrees), selection) for a, b in self.element_pairs
        ]
        self.size = max(target.direct_sum.size for target in self.targets)
        self.lmax = max(target.lmax for target in self.targets)

    @property
    def n_species(self) -> int:
        """Number of elements."""
        return len(self.numbers)

    @property
    def n_operators(self) -> int:
        """Hamiltonians of a structure: two for collinear spin."""
        return 2 if self.spin == "collinear" else 1

    @property
    def n_pairs(self) -> int:
        """Number of ordered pairs of elements."""
        return len(self.element_pairs)

    def direct_sum(self, elements: tuple[int, int]) -> AnyDirectSum:
        """Components of the blocks between two elements, given by their atomic numbers."""
        a, b = (self.species[z] for z in elements)
        return self.targets[a * self.n_species + b].direct_sum

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

        Padded to `size`; h_ij = sign S[L, m] h_ji with the sign of the direct sum's `partner`, S of `reverse_sign`.
        """
        flips = reverse_sign(self.lmax)
        out = []
        for t, target in enumerate(self.targets):
            index, sign = self.targets[self.reverse_pair(t)].direct_sum.partner()
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
