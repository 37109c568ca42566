"""States that another program found and wrote, as bands; numbered by counts on this machine where that is wanted.

`mpi/slepc_bands.py` factorizes L U, which does not tell how many states are below an energy: what it found has no
numbers, and nobody knows whether a state is missing. Two counts of `Pencil` tell, in the gaps next to the lowest and
to the highest level of a k-point: these two may lack states, since a number of states that is asked for may cut them.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from ase.cell import Cell
from ase.dft.kpoints import BandPath
from numpy.typing import NDArray
from tqdm import tqdm

from ase_hybridham.errors import FormatError
from ase_hybridham.solve.bands import Bands
from ase_hybridham.solve.sparse import Pencil, SparseProblem
from ase_hybridham.solve.states import rectangle
from ase_hybridham.system import LCAOSystem

__all__ = ["StoredStates", "number_states", "read_states"]

FORMAT = "ase_hybridham states"
LEVEL = 1e-4  # eV; states that are nearer to each other are one level, and states are not counted within it


@dataclass(frozen=True, eq=False)
class StoredStates:
    """Energies next to `sigma`.

    Parameters
    ----------
    k_points : array, shape (n_k, 3)
        Fractional.
    energies, residuals : arrays, shape (n_spins, n_k, n_states)
        eV, ascending, |H c - E S c|; NaN where fewer states, or none so far, were found.
    sigma, fermi_level : float
        eV; the second is NaN if it is not known.
    cell, pbc : arrays, shape (3, 3), (3,)
        Of the structure; angstrom.
    first_bands, n_missing : arrays of int, shape (n_spins, n_k), optional
        Number of states below the first that was found, and of those between the outermost levels that were not.
    """

    k_points: NDArray[np.float64]
    energies: NDArray[np.float64]
    residuals: NDArray[np.float64]
    sigma: float
    fermi_level: float
    cell: NDArray[np.float64]
    pbc: NDArray[np.bool_]
    first_bands: NDArray[np.int64] | None = None
    n_missing: NDArray[np.int64] | None = None

    @property
    def reference(self) -> float:
        """What plots put at zero, eV: the Fermi level, or sigma where it is not known."""
        return self.sigma if np.isnan(self.fermi_level) else self.fermi_level

    def bands(self) -> Bands:
        """Band structure at these k-points. Without numbers a column is no band: plot points, not lines."""
        firsts = self.first_bands
        found = [
            [(_known(e), None if firsts is None else int(firsts[spin, row])) for spin, e in enumerate(at_k)]
            for row, at_k in enumerate(self.energies.transpose(1, 0, 2))
        ]
        energies, _, first = rectangle(found)
        cell = Cell(self.cell).complete()
        special = cell.bandpath(npoints=0, pbc=self.pbc).special_points if self.pbc.any() else {}
        return Bands(BandPath(cell, self.k_points, special), energies, self.reference, first)


def read_states(path: str | Path) -> StoredStates:
    """The states of a file that `mpi/slepc_bands.py` wrote.

    Raises
    ------
    FormatError
        If it is another file, or damaged.
    """
    try:
        with open(path, "rb") as raw, np.load(raw) as file:
            if str(file["format"]) != FORMAT:
                raise ValueError("it is another one's")
            arrays = [file[name] for name in ("k_points", "energies", "residuals", "sigma", "fermi_level")]
            k_points, energies, residuals, sigma, level = arrays
            states = StoredStates(
                k_points, energies, residuals, float(sigma), float(level), file["cell"], file["pbc"].astype(bool)
            )
    except (OSError, EOFError, ValueError, LookupError, BadZipFile, AttributeError, TypeError) as error:
        raise FormatError(f"{path}: expected states of slepc_bands.py, cannot read it: {error}") from None
    if energies.ndim != 3 or k_points.shape != (energies.shape[1], 3) or residuals.shape != energies.shape:
        raise FormatError(f"{path}: expected energies at {len(k_points)} k-points, got shape {energies.shape}")
    return states


def number_states(system: LCAOSystem, states: StoredStates, *, progress: bool = False) -> StoredStates:
    """The same with numbers: two factorizations L D L^dagger on this machine for every k-point and spin.

    Raises
    ------
    ValueError
        If the system has other spins, or fewer orbitals than states.
    OverlapError, LinAlgError
        As `SparseProblem` and `Pencil.count`.
    """
    n_spins, n_k, n_states = states.energies.shape
    if len(system.hamiltonian) != n_spins or system.n_orbitals < n_states:
        raise ValueError(
            f"system: expected {n_spins} spin(s) and {n_states} orbitals or more, got {len(system.hamiltonian)} and "
            f"{system.n_orbitals}; is it the one that was solved?"
        )
    problem = SparseProblem(system, overlap_threshold=0.0)  # the other program leaves nothing out
    first, missing = np.zeros((n_spins, n_k), dtype=np.int64), np.zeros((n_spins, n_k), dtype=np.int64)
    for row, k in enumerate(tqdm(states.k_points, desc="counts", leave=False, disable=None if progress else True)):
        for spin in range(n_spins):
            energies = _known(states.energies[spin, row])
            if not len(energies):
                continue
            first[spin, row], missing[spin, row] = _number(problem.pencil(k, spin), energies)
    return replace(states, first_bands=first, n_missing=missing)


def _number(pencil: Pencil, energies: NDArray) -> tuple[int, int]:
    """States below the first of these, and those that lack between the outermost levels."""
    gaps = np.flatnonzero(np.diff(energies) > LEVEL)
    if not len(gaps):
        return _count(pencil, energies[0] - LEVEL), 0
    low, high = gaps[[0, -1]]
    below, up_to = (_count(pencil, 0.5 * (energies[gap] + energies[gap + 1])) for gap in (low, high))
    return int(below - (low + 1)), int(up_to - below - (high - low))


def _count(pencil: Pencil, energy: float) -> int:
    count = pencil.count(energy)
    assert count is not None  # the default engine counts
    return count


def _known(energies: NDArray) -> NDArray:
    return energies[np.isfinite(energies)]
