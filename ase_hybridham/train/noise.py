"""How exact are the labels? No network errs less than the H it is compared with differs from itself.

A program's grid makes H depend on where a crystal lies on it. The same structures computed again with all atoms moved
together by a fraction of an angstrom differ from the first ones by the noise of both: by sqrt(2) of that of one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ase_hybridham.errors import FormatError
from ase_hybridham.store import DataSet
from ase_hybridham.system import LCAOSystem
from ase_hybridham.train.metrics import hamiltonian_error

__all__ = ["LabelNoise", "known_noise", "measured_noise"]

KEY = "label_noise_meV"
MOVED = 1e-3  # angstrom: more is another structure


@dataclass(frozen=True)
class LabelNoise:
    """MAE that a perfect network would have, meV, and where the number is from."""

    mae: float
    source: str

    def __post_init__(self) -> None:
        if not 0 < self.mae < math.inf:
            raise ValueError(f"label noise: expected an MAE above 0 meV, got {self.mae}")


def known_noise(data: DataSet, names: Sequence[str]) -> LabelNoise | None:
    """Mean of what the provenance of structures says (`label_noise_meV`); None if one of them says nothing."""
    told = [data.head(name).provenance.get(KEY) for name in names]
    numbers = [float(value) for value in told if isinstance(value, (int, float))]
    return LabelNoise(float(np.mean(numbers)), f"{KEY} of the data set") if len(numbers) == len(told) else None


def measured_noise(data: DataSet, other: DataSet, names: Sequence[str]) -> LabelNoise:
    """Noise from a second calculation of structures, all atoms moved together; gauge-free where S is known.

    Raises
    ------
    FormatError
        If `other` has none of the structures, or one of them is not the same.
    """
    common = [name for name in names if name in other]
    if not common:
        raise FormatError(f"{other.path}: expected structures such as {names[0]} again, has none of them")
    maes = []
    for name in common:
        first, second = data[name], other[name]
        if not _same_but_moved(first, second):
            raise FormatError(
                f"{other.path}: structure {name}: expected that of {data.path} with all atoms moved alike; compute it "
                "again without wrapping atoms"
            )
        error = hamiltonian_error(second.hamiltonian, first.hamiltonian, first.overlap)
        maes.append(error.mae if error.gauge_free_mae is None else error.gauge_free_mae)
    return LabelNoise(float(np.mean(maes)) / math.sqrt(2), f"{len(common)} structures of {other.path}")


def _same_but_moved(first: LCAOSystem, second: LCAOSystem) -> bool:
    if first.spin != second.spin or not first.basis.same_orbitals(second.basis):
        return False
    rows = second.pairs.find(first.pairs)
    known = rows >= 0
    same = np.array_equal(first.atoms.numbers, second.atoms.numbers) and known.mean() > 0.9
    return same and bool(np.abs(second.pairs.vectors[rows[known]] - first.pairs.vectors[known]).max() < MOVED)
