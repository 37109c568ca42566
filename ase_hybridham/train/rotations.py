"""How much does H depend on how a structure is turned, and what does averaging over rotations gain and cost?

H(x) is D(Q)^dagger H(Qx) D(Q) for every rotation Q if a network is exactly equivariant. One with `frame: global` is
not: the mean over K rotations is closer to equivariance, its error smaller, its cost K times as large.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ase_hybridham.model import Ensemble, Stage, TrainedModel
from ase_hybridham.symmetry import rotate_blocks, rotate_system
from ase_hybridham.system import LCAOSystem, PairBlocks, PairList
from ase_hybridham.train.metrics import hamiltonian_error

__all__ = ["RotationRow", "is_equivariant", "rotation_average", "rotation_error", "rotation_table"]

SEED = 0


class Predictor(Protocol):
    """A network, or an ensemble."""

    def hamiltonian(
        self, atoms: Atoms, pairs: PairList | None = None, stage: Stage | None = None, *, hermitian: bool = True
    ) -> tuple[PairBlocks, ...]: ...


@dataclass(frozen=True)
class RotationRow:
    """Predictions averaged over so many rotations.

    Parameters
    ----------
    rotations : int
        K; the first is no rotation.
    mae_all, mae_cha : float
        meV, as in `Evaluation`.
    rotation_rms : float
        rms over elements of the difference of two such averages over K rotations each, of the first structure, meV.
    seconds : float
        Of a prediction, mean over structures.
    """

    rotations: int
    mae_all: float
    mae_cha: float
    rotation_rms: float
    seconds: float

    def to_dict(self) -> dict[str, float]:
        """Plain JSON types, keys with their unit."""
        units = {"mae_all": "mae_all_meV", "mae_cha": "mae_cha_meV", "rotation_rms": "rotation_rms_meV"}
        return {units.get(key, key): value for key, value in asdict(self).items()}


def is_equivariant(model: TrainedModel | Ensemble) -> bool:
    """Whether all networks turn with the structure, so that averaging over rotations changes nothing."""
    models = model.models if isinstance(model, Ensemble) else (model,)
    configs = [m.cascade.config.stage2 for m in models if m.cascade.hybrid]
    return not any(config is not None and config.frame == "global" for config in configs)


def rotation_error(model: Predictor, system: LCAOSystem, seed: int = SEED) -> float:
    """Largest |H(Qx) - D(Q) H(x) D(Q)^dagger| in meV for one random rotation Q, spin included."""
    rotation = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    expected = [rotate_blocks(h, rotation) for h in model.hamiltonian(system.atoms, system.pairs, hermitian=False)]
    turned = rotate_system(system, rotation)
    found = model.hamiltonian(turned.atoms, turned.pairs, hermitian=False)
    errors = [np.abs(f.values - e.values).max() for f, e in zip(found, expected, strict=True)]
    return 1e3 * float(max(errors))


def rotation_average(
    model: Predictor, system: LCAOSystem, rotations: int, seed: int = SEED
) -> Iterator[tuple[int, tuple[PairBlocks, ...]]]:
    """Mean of H over 1, 2, 4, ... and at last `rotations` rotations, with their number; the first is no rotation.

    Parameters
    ----------
    model : TrainedModel or Ensemble
    system : LCAOSystem
        Its atoms and pairs.
    rotations : int
        At least 1.
    seed : int
        Of the random rotations.
    """
    matrices = [np.eye(3), *Rotation.random(rotations - 1, rng=np.random.default_rng(seed)).as_matrix()]
    total: tuple[PairBlocks, ...] = ()
    bare = LCAOSystem(system.atoms, (), system.overlap or PairBlocks.zeros(system.pairs, system.basis))
    for n, rotation in enumerate(matrices, start=1):
        turned = rotate_system(bare, rotation)
        found = (rotate_blocks(h, rotation.T) for h in model.hamiltonian(turned.atoms, turned.pairs))
        total = tuple(t + f for t, f in zip(total, _on(found, system), strict=True)) if total else _on(found, system)
        if n == rotations or n.bit_count() == 1:
            yield n, tuple((1 / n) * t for t in total)


def _on(operators: Iterator[PairBlocks], system: LCAOSystem) -> tuple[PairBlocks, ...]:
    """The same values on the pairs of the system, whose vectors have no rounding of rotations."""
    return tuple(PairBlocks(system.pairs, h.basis, h.values, h.spinor) for h in operators)


def rotation_table(model: Predictor, systems: Iterable[LCAOSystem], rotations: int) -> list[RotationRow]:
    """Error and cost of averages over 1, 2, 4, ... and at last `rotations` rotations.

    Raises
    ------
    ValueError
        If there is less than one rotation.
    """
    if rotations < 1:
        raise ValueError(f"rotations: expected a number of at least 1, got {rotations}")
    maes: dict[int, list[float]] = {}
    seconds: dict[int, list[float]] = {}
    apart: dict[int, float] = {}
    for system in systems:
        if not apart:
            apart = _distances(model, system, rotations)
        began = time.perf_counter()
        averages = [(*average, time.perf_counter() - began) for average in rotation_average(model, system, rotations)]
        for n, operators, taken in averages:
            seconds.setdefault(n, []).append(taken)
            maes.setdefault(n, []).append(hamiltonian_error(operators, system.hamiltonian).mae)
    return [RotationRow(n, float(np.mean(maes[n])), max(maes[n]), apart[n], float(np.mean(seconds[n]))) for n in maes]


def _distances(model: Predictor, system: LCAOSystem, rotations: int) -> dict[int, float]:
    """rms in meV between averages over K rotations of a structure and over K others of it turned, turned back."""
    rotation = Rotation.random(rng=np.random.default_rng(SEED + 1)).as_matrix()
    averages = rotation_average(model, system, rotations)
    others = rotation_average(model, rotate_system(system, rotation), rotations, SEED + 2)
    found = {}
    for (n, here), (_, there) in zip(averages, others, strict=True):
        back = _on((rotate_blocks(h, rotation.T) for h in there), system)
        found[n] = 1e3 * float(np.sqrt(np.mean([_mean_square(a, b) for a, b in zip(here, back, strict=True)])))
    return found


def _mean_square(first: PairBlocks, second: PairBlocks) -> float:
    difference: NDArray = np.abs(first.values - second.values) ** 2
    return float(difference.mean()) / (2 if np.iscomplexobj(first.values) else 1)
