"""Which surroundings of atoms a network has met in training, and what of a structure lies outside of them.

Six figures that a person can check, not a measure of the error: distances of pairs; the mean length of bonds (pairs up
to 1.25 times the sum of the covalent radii) in a structure; the bonds of an atom, and their mean length, which sees one
atom where the mean of a structure is blind; its pairs within reach; and its distance to the next atom that no chain of
bonds leads to, such as one of another layer.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ase_hybridham.system import PairList

__all__ = ["Coverage"]

BOND = 1.25  # times the sum of the covalent radii
GAP = 0.1  # angstrom without any pair: distances in there are unknown
MARGIN = 0.05  # angstrom; a network does not fail at once
MEAN_MARGIN = 0.01  # angstrom, of means of bonds
CROWDED = 0.1  # share of pairs that an atom may have more or less

Spans = tuple[tuple[float, float], ...]
GAPS = {"distances": GAP}  # other ranges are one interval


@dataclass(frozen=True)
class Coverage:
    """Ranges of a training set: "C", or "C-Mo" (alphabetic) -> smallest and largest.

    Parameters
    ----------
    distances : mapping
        Of pairs of two elements, angstrom: the intervals that hold all of them and no gap.
    bond_length : mapping
        Of two elements, mean over a structure, angstrom.
    bonds, neighbors : mapping
        Number of bonds and of pairs within reach of an atom.
    separation : mapping
        Distance to the nearest atom of another fragment in angstrom, where there are such within reach.
    atom_bonds : mapping, optional
        Mean bond length of an atom, angstrom. None, as in checkpoints that are older than it: not known, not checked.
    """

    distances: Mapping[str, Spans]
    bond_length: Mapping[str, Spans]
    bonds: Mapping[str, Spans]
    neighbors: Mapping[str, Spans]
    separation: Mapping[str, Spans]
    atom_bonds: Mapping[str, Spans] | None = None

    @classmethod
    def of(cls, structures: Iterable[PairList]) -> "Coverage":
        """The ranges of some structures."""
        met: dict[str, dict[str, list[NDArray]]] = {field.name: {} for field in fields(cls)}
        for pairs in structures:
            for elements, rows in _hoppings(pairs):
                d = pairs.distances[rows]
                met["distances"].setdefault(elements, []).append(np.unique(d.round(3)))
                if (bonds := _bonded(pairs, rows)).any():
                    met["bond_length"].setdefault(elements, []).append(np.array([d[bonds].mean()]))
            for name, values in _of_atoms(pairs).items():
                for number in np.unique(pairs.numbers[np.isfinite(values)]):
                    found = values[(pairs.numbers == number) & np.isfinite(values)]
                    met[name].setdefault(chemical_symbols[number], []).append(found)
        spans = {
            name: {key: _spans(np.concatenate(found), GAPS.get(name, np.inf)) for key, found in of_name.items()}
            for name, of_name in met.items()
        }
        return cls(**spans)

    def union(self, other: "Coverage") -> "Coverage":
        """The ranges of both training sets; what is not known of one is not known of both."""
        ranges: dict[str, Any] = {}
        for field in fields(self):
            mine, others = getattr(self, field.name), getattr(other, field.name)
            gap = GAPS.get(field.name, np.inf)
            ranges[field.name] = (
                None
                if mine is None or others is None
                else {key: _joined([*mine.get(key, ()), *others.get(key, ())], gap) for key in {**mine, **others}}
            )
        return Coverage(**ranges)

    def outside(self, pairs: PairList) -> list[str]:
        """What of a structure the training set had not, the worst case of each kind in words; empty if nothing."""
        return [*self._strange_pairs(pairs), *self._strange_atoms(pairs)] if pairs.n_atoms else []

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; lengths in angstrom."""
        return {
            field.name: {key: [list(span) for span in spans] for key, spans in ranges.items()}
            for field in fields(self)
            if (ranges := getattr(self, field.name)) is not None
        }

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> "Coverage":
        """Inverse of `to_dict`."""
        return cls(
            **{
                field.name: {
                    key: tuple((float(low), float(high)) for low, high in spans)
                    for key, spans in entries[field.name].items()
                }
                for field in fields(cls)
                if field.name in entries or field.default is MISSING
            }
        )

    def _strange_pairs(self, pairs: PairList) -> Iterator[str]:
        """Of two elements the distance that is farthest from any that was met, and their mean bond."""
        for elements, rows in _hoppings(pairs):
            if elements not in self.distances:
                continue  # the network refuses elements that never met
            d = pairs.distances[rows]
            low, high = np.array(self.distances[elements]).T
            after = np.searchsorted(high, d)  # the first interval that does not end below
            before = np.append(-np.inf, high)[after]
            beyond = np.append(low, np.inf)[after]
            away = np.minimum(beyond - d, d - before)
            p = int(np.argmax(away))
            if away[p] > MARGIN:
                i, j, start, end = pairs.i[rows[p]], pairs.j[rows[p]], before[p], beyond[p]
                where = f"between {start:.2f} and {end:.2f}" if np.isfinite(start) else f"below {end:.2f}"
                where = where if np.isfinite(end) else f"above {start:.2f}"
                yield f"{elements} at {d[p]:.2f} A (atoms {i} and {j}), where none is {where}"
            bonds = _bonded(pairs, rows)
            if bonds.any() and elements in self.bond_length:
                ((low_mean, high_mean),), mean = self.bond_length[elements], d[bonds].mean()
                if not low_mean - MEAN_MARGIN <= mean <= high_mean + MEAN_MARGIN:
                    yield f"{elements} bonds of {mean:.3f} A on average, not {low_mean:.3f} to {high_mean:.3f}"

    def _strange_atoms(self, pairs: PairList) -> Iterator[str]:
        """Of every element the atom that is farthest outside."""
        figures = _of_atoms(pairs)
        for name, what, share, margin in (
            ("bonds", "bonds", 0.0, 0.0),
            ("neighbors", "atoms within reach", CROWDED, 0.0),
            ("separation", "A to the next fragment", 0.0, MARGIN),
            ("atom_bonds", "A as its mean bond", 0.0, MEAN_MARGIN),
        ):
            for key, ((low, high),) in (getattr(self, name) or {}).items():
                counted = (pairs.numbers == chemical_symbols.index(key)) & np.isfinite(figures[name])
                values = np.where(counted, figures[name], low)
                away = np.maximum(low * (1 - share) - values, values - high * (1 + share)) - margin
                n = int(np.argmax(away))
                if away[n] > 0:
                    known = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
                    yield f"{key} (atom {n}) with {values[n]:.3g} {what}, not {known}"


def _hoppings(pairs: PairList) -> Iterator[tuple[str, NDArray]]:
    """Elements in alphabetic order and the rows of their hoppings, one direction of unlike elements."""
    for (a, b), rows in pairs.element_groups.items():
        first, second = chemical_symbols[a], chemical_symbols[b]
        rows = rows[rows >= pairs.n_atoms]
        if first <= second and len(rows):
            yield f"{first}-{second}", rows


def _bonded(pairs: PairList, rows: NDArray | slice) -> NDArray[np.bool_]:
    """Which of some hoppings are bonds."""
    radii = covalent_radii[pairs.numbers]
    return pairs.distances[rows] <= BOND * (radii[pairs.i[rows]] + radii[pairs.j[rows]])


def _of_atoms(pairs: PairList) -> dict[str, NDArray]:
    """Figures of every atom by range; inf where it has no bond, or no other fragment is within reach."""
    i, j, d = (values[pairs.hopping] for values in (pairs.i, pairs.j, pairs.distances))
    n, bonds = pairs.n_atoms, _bonded(pairs, pairs.hopping)
    graph = coo_matrix((np.ones(bonds.sum()), (i[bonds], j[bonds])), shape=(n, n))
    fragment = connected_components(graph, directed=False)[1]
    separation, other = np.full(n, np.inf), fragment[i] != fragment[j]
    np.minimum.at(separation, i[other], d[other])
    n_bonds = np.bincount(i[bonds], minlength=n).astype(float)
    mean = np.bincount(i[bonds], d[bonds], minlength=n) / np.maximum(n_bonds, 1)
    return {
        "bonds": n_bonds,
        "atom_bonds": np.where(n_bonds > 0, mean, np.inf),
        "neighbors": np.bincount(i, minlength=n).astype(float),
        "separation": separation,
    }


def _spans(values: NDArray, gap: float) -> Spans:
    """The fewest intervals that hold all values and no gap."""
    values = np.sort(values)
    parts = np.split(values, np.flatnonzero(np.diff(values) > gap) + 1)
    return tuple((round(float(part[0]), 3), round(float(part[-1]), 3)) for part in parts)


def _joined(spans: Iterable[tuple[float, float]], gap: float) -> Spans:
    """The fewest intervals that hold all intervals and no gap."""
    joined: list[tuple[float, float]] = []
    for low, high in sorted(spans):
        if joined and low - joined[-1][1] <= gap:
            joined[-1] = joined[-1][0], max(high, joined[-1][1])
        else:
            joined.append((low, high))
    return tuple(joined)
