"""Band energies as OpenMX prints them (System.Name.Band).

Line 1: bands, spin switch (0 none, 1 collinear, 3 non-collinear), chemical potential in hartree.
Line 2: reciprocal vectors in bohr^-1. Line 3: number of path segments, then a line each (points,
first and last k-point, two labels). Then for every k-point `n k1 k2 k3` and its n energies in
hartree, absolute; collinear spin prints each k-point twice, up and down.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ase_hybridham.errors import FormatError

__all__ = ["HARTREE", "BandReference", "read_openmx_band"]

HARTREE = 27.2113845  # eV; OpenMX's own (openmx_common.h), not CODATA's


@dataclass(frozen=True, eq=False)
class BandReference:
    """Bands another program computed.

    Parameters
    ----------
    k_points : array, shape (n_k, 3)
        Fractional.
    eigenvalues : array, shape (n_spins, n_k, n_bands)
        eV, absolute, ascending.
    fermi_level : float
        eV, same zero of energy.
    ticks : tuple of (int, str)
        Row of `k_points` and the label of the special points, both ends of every path segment.
    """

    k_points: NDArray[np.float64]
    eigenvalues: NDArray[np.float64]
    fermi_level: float
    ticks: tuple[tuple[int, str], ...] = ()


def read_openmx_band(path: str | Path) -> BandReference:
    """The bands of a .Band file, in eV.

    Raises
    ------
    FormatError
        If the file is not of this format or ends early.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror or error}") from error
    try:
        n_bands, switch, chemical_potential = int(lines[0].split()[0]), int(lines[0].split()[1]), lines[0].split()[2]
        fermi_level = float(chemical_potential) * HARTREE
        n_segments = int(lines[2])
        segments = [line.split() for line in lines[3 : 3 + n_segments]]
        points = [int(segment[0]) for segment in segments]
        numbers = np.array(" ".join(lines[3 + n_segments :]).split(), dtype=float)
    except (IndexError, ValueError) as error:
        raise FormatError(f"{path}: not a .Band file of OpenMX ({error})") from error
    if switch not in (0, 1, 3) or n_bands < 1 or len(segments) < n_segments or min(points, default=0) < 1:
        raise FormatError(f"{path}: not a .Band file of OpenMX; its first lines do not describe bands and a path")
    n_spins, n_k = 2 if switch == 1 else 1, sum(points)
    expected = n_k * n_spins * (n_bands + 4)
    if len(numbers) != expected:
        raise FormatError(
            f"{path}: expected {expected} numbers for {n_k} k-points with {n_bands} bands, got {len(numbers)}; "
            "was the run stopped?"
        )
    records = numbers.reshape(n_k, n_spins, n_bands + 4)
    if (records[:, :, 0] != n_bands).any() or not np.isfinite(records).all() or not np.isfinite(fermi_level):
        raise FormatError(f"{path}: expected {n_bands} finite energies at every k-point; was the run stopped?")
    eigenvalues = np.sort(records[:, :, 4:], axis=2).transpose(1, 0, 2) * HARTREE
    return BandReference(records[:, 0, 1:4].copy(), eigenvalues, fermi_level, _ticks(segments, points))


def _ticks(segments: list[list[str]], points: list[int]) -> tuple[tuple[int, str], ...]:
    ticks = []
    for segment, end, n_points in zip(segments, np.cumsum(points).tolist(), points, strict=True):
        first, last = segment[7:9] if len(segment) >= 9 else ("", "")
        ticks += [(end - n_points, first), (end - 1, last)]
    return tuple(ticks)
