"""Radial functions that files sample on a uniform mesh from r = 0: read with suspicion, for text has no checksum."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ase_hybridham.errors import FormatError
from ase_hybridham.system import SampledRadial

__all__ = ["checked_samples"]

NORM = 1e-3  # found: 3e-7 in files of SIESTA, 1e-13 in those of ABACUS
JUMP = 2e-3  # of the largest value, from the cubic through four neighbors; found 2e-4
UNIFORM = 1e-9  # of the cutoff radius; meshes have 12 digits


def checked_samples(
    where: str | Path,
    mesh: NDArray[np.float64],
    values: NDArray[np.float64],
    cutoff: float,
    step: float,
    *,
    rule: str,
    bohr: float,
) -> SampledRadial:
    """A normalized radial function with a mesh of equal steps from 0 to the cutoff radius.

    Parameters
    ----------
    where : str or Path
        File and function, for messages.
    mesh, values : arrays, shape (n,)
        r in bohr and R, as the file has them.
    cutoff, step : float
        In bohr, as the file has them.
    rule, bohr
        See `SampledRadial`.

    Raises
    ------
    FormatError
        If they contradict each other, or are not finite, not normalized, with jumps, or not zero at the end.
    """
    if len(mesh) < 20 or not 0 < cutoff < 100:
        raise FormatError(f"{where}: expected 20 or more radii up to 100 bohr, got {len(mesh)} up to {cutoff:g}")
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        uniform = np.abs(mesh - step * np.arange(len(mesh))).max() < UNIFORM * cutoff
        if not uniform or not abs(mesh[-1] - cutoff) < UNIFORM * cutoff:
            raise FormatError(f"{where}: expected radii from 0 to {cutoff:g} bohr in steps of {step:g}")
        norm = step * ((values * mesh) ** 2).sum()  # vanishes at both ends
        middle = (4 * (values[1:-3] + values[3:-1]) - values[:-4] - values[4:]) / 6
        ends = np.array([values[0] - 3 * values[1] + 3 * values[2] - values[3], values[-1]])
        jump = np.abs([*(values[2:-2] - middle), *ends]).max() / np.abs(values).max()
    if not abs(norm - 1) < NORM or not jump < JUMP:
        raise FormatError(
            f"{where}: expected a smooth function of norm 1, got norm {norm:.6g} and a jump of {jump:.2g} of its "
            "largest value; is the file damaged?"
        )
    return SampledRadial(mesh, values, cutoff, rule, bohr)
