"""Which atoms and shells a state consists of: Mulliken's populations of groups of orbitals; fat bands.

A group is what ASE's DOS collections call `info`: {"symbol": "C", "l": "p"}. All orbitals with the same values of some
keys form a group, so groups are disjoint and their populations in a state add up to 1. With a basis that is not
orthogonal single populations may be a little negative.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.dft.kpoints import BandPath
from numpy.typing import ArrayLike, NDArray

from ase_hybridham.solve.bands import Bands, as_path, picked_around
from ase_hybridham.solve.occupations import Smearing, smeared_delta
from ase_hybridham.solve.pencil import OVERLAP_THRESHOLD
from ase_hybridham.solve.states import States, rectangle, states_of
from ase_hybridham.solve.windowed import Solver
from ase_hybridham.system import LCAOSystem

__all__ = ["OrbitalGroups", "WeightedBands", "fat_bands", "weighted_bands"]

LETTERS = "spdfghik"
KEYS = ("index", "symbol", "l")


@dataclass(frozen=True, eq=False)
class OrbitalGroups:
    """Groups of orbitals.

    Parameters
    ----------
    infos : tuple of dict
        What the orbitals of each group have in common, as in ASE's DOS collections; in order of appearance.
    group : array of int, shape (n_orbitals,)
        Of every orbital; spinor orbitals count twice.
    """

    infos: tuple[dict[str, str], ...]
    group: NDArray[np.int64]

    @classmethod
    def of(
        cls, system: LCAOSystem, by: Sequence[str] = KEYS, labels: Mapping[str, Sequence[str]] | None = None
    ) -> "OrbitalGroups":
        """Orbitals with the same values of the keys together.

        Parameters
        ----------
        by : sequence of str
            ``index`` (the atom), ``symbol`` (the element), ``l`` (s, p, d, ...) or keys of `labels`; none: one group
            of all.
        labels : mapping, optional
            Further keys, each with a word for every atom, such as ``{"layer": ["1", "1", "2", "2"]}``.

        Raises
        ------
        ValueError
            If a key is unknown, or does not have as many words as there are atoms.
        """
        symbols, labels = system.atoms.get_chemical_symbols(), labels or {}
        known = (*KEYS, *labels)
        if isinstance(by, str) or not {*by} <= {*known}:
            raise ValueError(f"projection: expected a list of {', '.join(known)}, got {by!r}")
        for key, words in labels.items():
            if len(words) != len(symbols):
                raise ValueError(f"projection: expected {len(symbols)} words of {key!r}, one an atom, got {len(words)}")
        numbers: dict[tuple[str, ...], int] = {}
        group: list[int] = []
        for index, symbol in enumerate(symbols):
            of_atom = {"index": str(index), "symbol": symbol} | {
                key: str(words[index]) for key, words in labels.items()
            }
            rows = []
            for l in system.basis[symbol].degrees:
                values = tuple((of_atom | {"l": _letter(l)})[key] for key in by)
                rows += [numbers.setdefault(values, len(numbers))] * (2 * l + 1)
            group += rows * (2 if system.spin == "spinor" else 1)  # ordered atom, spin, orbital
        infos = tuple(dict(zip(by, values, strict=True)) for values in numbers)
        return cls(infos, np.array(group, dtype=np.int64))

    def populations(self, states: States) -> NDArray[np.float64]:
        """Of every group in every state, shape (n_states, n_groups); the sum over groups is 1."""
        found = np.zeros((len(self.infos), len(states.energies)))
        np.add.at(found, self.group, states.populations)
        return found.T


@dataclass(frozen=True, eq=False)
class WeightedBands:
    """Bands with one weight or several on each state.

    Parameters
    ----------
    bands : Bands
        eV, (n_spins, n_k, n_bands); +inf or -inf where there is no state.
    weights : array, shape (n_spins, n_k, n_bands, n_groups)
        0 where there is no state.
    infos : tuple of dict
        What each group is, as in `OrbitalGroups`.
    """

    bands: Bands
    weights: NDArray[np.float64]
    infos: tuple[dict[str, str], ...]

    def spectral_function(
        self, energies: ArrayLike, *, width: float = 0.05, smearing: Smearing = "gaussian"
    ) -> NDArray[np.float64]:
        """A(k, E) = sum_n w_n(k) delta(E - e_n(k)) in 1/eV, shape (n_spins, n_k, n_groups, n_energies).

        Parameters
        ----------
        energies : array, shape (n_energies,)
            eV, as those of the bands.
        width, smearing
            Of the delta function, as in `smeared_delta`.
        """
        grid = np.asarray(energies, dtype=np.float64)
        n_spins, n_k, _, n_groups = self.weights.shape
        spectrum = np.zeros((n_spins, n_k, n_groups, len(grid)))
        for s, k in np.ndindex(n_spins, n_k):
            found = np.isfinite(self.bands.energies[s, k])
            delta = smeared_delta(grid, self.bands.energies[s, k, found][:, None], width=width, smearing=smearing)
            spectrum[s, k] = self.weights[s, k, found].T @ delta
        return spectrum


def fat_bands(
    system: LCAOSystem,
    path: BandPath | ArrayLike,
    *,
    by: Sequence[str] = ("symbol", "l"),
    labels: Mapping[str, Sequence[str]] | None = None,
    reference: float | None = None,
    solver: Solver = "auto",
    overlap_threshold: float = OVERLAP_THRESHOLD,
    progress: bool = False,
) -> WeightedBands:
    """Bands with the populations of groups of orbitals.

    Parameters
    ----------
    system, path, reference, overlap_threshold
        As in `bands`.
    by, labels
        As in `OrbitalGroups.of`.
    solver, progress
        As in `states_of`.

    Raises
    ------
    OverlapError, ValueError
        As `bands`, `OrbitalGroups.of`.
    """
    path = as_path(system, path)
    groups = OrbitalGroups.of(system, by, labels)
    picked, zero = picked_around(system, solver, reference, overlap_threshold)
    found = [
        [(states, groups.populations(states)) for states in of_spins]
        for of_spins in states_of(
            system, path.kpts, solver=picked, overlap_threshold=overlap_threshold, progress=progress
        )
    ]
    return weighted_bands(path, found, groups.infos, zero)


def weighted_bands(
    path: BandPath,
    found: Sequence[Sequence[tuple[States, NDArray]]],
    infos: tuple[dict[str, str], ...],
    reference: float,
) -> WeightedBands:
    """Together what was found: for every k-point and spin states, and their weights (n_states, n_groups)."""
    energies, columns, first = rectangle(
        [[(states.energies, states.first_band) for states, _ in of_spins] for of_spins in found]
    )
    weights = np.zeros((*energies.shape, len(infos)))
    for row, of_spins in enumerate(found):
        for spin, (_, of_groups) in enumerate(of_spins):
            column = columns[spin, row]
            weights[spin, row, column : column + len(of_groups)] = of_groups
    return WeightedBands(Bands(path, energies, reference, first), weights, infos)


def _letter(l: int) -> str:
    return LETTERS[l] if l < len(LETTERS) else f"l={l}"
