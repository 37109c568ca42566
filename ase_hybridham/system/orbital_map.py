"""How large matrix elements are between which orbitals: mean |M| for every two elements, on-site and hopping apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from ase_hybridham.system.basis import AtomBasis
from ase_hybridham.system.blocks import PairBlocks

__all__ = ["OrbitalMap", "OrbitalPanel", "shell_names"]

Kind = Literal["onsite", "hopping"]
LETTERS = "spdfghi"
# real harmonics, m = -l .. l
ORDERS = {0: ("",), 1: ("y", "z", "x"), 2: ("xy", "yz", "z2", "xz", "x2-y2")}


@dataclass(frozen=True, eq=False)
class OrbitalPanel:
    """Two elements, on-site or hopping.

    Parameters
    ----------
    rows, columns : AtomBasis
        Elements in the order of the alphabet; of blocks between them in the other order the transpose counts.
    kind : {"onsite", "hopping"}
    sums : array, shape (n_rows, n_columns)
        Sum of |M| over blocks.
    weight : float
        Numbers that were summed for every two orbitals.
    """

    rows: AtomBasis
    columns: AtomBasis
    kind: Kind
    sums: NDArray[np.float64]
    weight: float

    @property
    def pair(self) -> str:
        """Elements, as "C-H"."""
        return f"{self.rows.symbol}-{self.columns.symbol}"

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean |M| of every two orbitals, in the unit of M."""
        return self.sums / self.weight

    @property
    def elements(self) -> float:
        """Numbers that were summed in all."""
        return self.weight * self.sums.size

    def shell_means(self) -> NDArray[np.float64]:
        """Mean |M| of every two shells."""
        means = self.mean
        return np.array([[means[a, b].mean() for b in self.columns.slices] for a in self.rows.slices])


@dataclass(frozen=True, eq=False)
class OrbitalMap:
    """Panels of all elements. The sum of two is that of all their structures, in which every structure counts alike.

    Parameters
    ----------
    panels : mapping
        (pair, kind) -> OrbitalPanel, the numbers of one structure weighing 1 together.
    """

    panels: Mapping[tuple[str, Kind], OrbitalPanel] = field(default_factory=dict)

    @classmethod
    def of(cls, operators: Sequence[PairBlocks]) -> "OrbitalMap":
        """Of one structure: one operator, or up and down, whose elements count alike.

        Of complex M real and imaginary parts are numbers of their own; the spins of spinor blocks are summed over.
        """
        total = cls()
        n_values = sum(h.values.size * (2 if np.iscomplexobj(h.values) else 1) for h in operators)
        for blocks in operators:
            for elements, rows, stack in blocks.groups():
                n_onsite = int((rows < blocks.pairs.n_atoms).sum())  # they come first
                kinds: dict[Kind, NDArray] = {"onsite": stack[:n_onsite], "hopping": stack[n_onsite:]}
                for kind, picked in kinds.items():
                    if len(picked):
                        panel = _panel(blocks, elements, kind, picked, n_values)
                        total += cls({(panel.pair, panel.kind): panel})
        return total

    def __add__(self, other: "OrbitalMap") -> "OrbitalMap":
        panels = dict(self.panels)
        for key, panel in other.panels.items():
            mine = panels.get(key)
            if mine is not None:
                panel = replace(mine, sums=mine.sums + panel.sums, weight=mine.weight + panel.weight)
            panels[key] = panel
        return OrbitalMap(dict(sorted(panels.items(), key=lambda item: (item[0][1] == "hopping", item[0][0]))))

    def mean(self) -> float:
        """Mean |M| of all elements, every structure counting alike."""
        sums = sum(float(panel.sums.sum()) for panel in self.panels.values())
        return sums / sum(panel.elements for panel in self.panels.values())

    def share(self, panel: OrbitalPanel) -> float:
        """Of all numbers, how many belong to a panel: means times shares add up to `mean`."""
        return panel.elements / sum(other.elements for other in self.panels.values())


def shell_names(atom: AtomBasis) -> list[str]:
    """Labels of the shells; s1, s2, p1, ... where they have none, or two have the same."""
    labels = [shell.label for shell in atom.shells]
    if all(labels) and len(set(labels)) == len(labels):
        return labels
    degrees = atom.degrees
    return [f"{LETTERS[l] if l < len(LETTERS) else f'l{l}_'}{degrees[:n].count(l) + 1}" for n, l in enumerate(degrees)]


def orbital_names(atom: AtomBasis) -> list[str]:
    """Shell and order of every orbital, as "p1 y"; m itself beyond d."""
    names = []
    for shell, label in zip(atom.shells, shell_names(atom), strict=True):
        orders = ORDERS.get(shell.l, tuple(f"m={m}" for m in range(-shell.l, shell.l + 1)))
        names += [f"{label} {order}".strip() for order in orders]
    return names


def _panel(blocks: PairBlocks, elements: tuple[int, int], kind: Kind, stack: NDArray, n_values: int) -> OrbitalPanel:
    """Of the blocks of two elements of one structure that has `n_values` numbers."""
    first, second = (blocks.basis[z] for z in elements)
    # |re| and |im|: two numbers
    parts = [np.abs(stack.real), np.abs(stack.imag)] if np.iscomplexobj(stack) else [np.abs(stack)]
    sums, weight = np.sum([part.sum(axis=0) for part in parts], axis=0), len(stack) * len(parts)
    if blocks.spinor:
        sums, weight = sums.reshape(2, first.size, 2, second.size).sum(axis=(0, 2)), 4 * weight
    if chemical_symbols[elements[0]] > chemical_symbols[elements[1]]:
        first, second, sums = second, first, sums.T
    return OrbitalPanel(first, second, kind, sums / n_values, weight / n_values)
