"""dH/dR by a coordinate against one prediction of H; central differences would take two, and err.

    OMP_NUM_THREADS=1 python tests/benchmarks/gradient_cost.py

Untrained hybrids of default width in float64 on graphene cells with random displacements, 6.4 angstrom.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import graphene
from threadpoolctl import threadpool_limits

from ase_hybridham.model import Cascade, Domain, ModelConfig, TrainedModel
from ase_hybridham.system import AtomBasis, Basis, PairList

N_COORDINATES, REPEATS, STEP = 6, 5, 1e-4
AT_MOST = 10  # predictions for a coordinate; 3 to 5 were seen
BASIS = Basis.of(AtomBasis.from_degrees("C", [0, 0, 1, 1, 2], valence=4, cutoff=3.2))


def untrained() -> TrainedModel:
    """With random numbers where training starts at zero."""
    torch.manual_seed(0)
    cascade = Cascade(ModelConfig(dtype="float64"), Domain(BASIS, 6.4, 46.0)).requires_grad_(False)
    for parameter in cascade.parameters():
        if not parameter.any():
            parameter.normal_(std=0.3)
    for scale in (cascade.scale1, cascade.scale2):
        scale.log_sigma.zero_()  # 1 eV
    cascade.has_stage2.fill_(True)
    return TrainedModel(cascade)


def difference(model: TrainedModel, atoms: Atoms, pairs: PairList, u: np.ndarray) -> np.ndarray:
    """dH/ds by the values at s = +-STEP."""
    values = []
    for s in (STEP, -STEP):
        moved = atoms.copy()
        moved.positions += s * u
        fixed = PairList.from_indices(moved, pairs.i, pairs.j, pairs.shifts)
        values.append(model.predict(moved, fixed).values)
    return (values[0] - values[1]) / (2 * STEP)


def seconds(action: Callable[[], Any]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def test_a_coordinate_costs_a_few_predictions() -> None:
    model, ratios = untrained(), []
    print("untrained hybrid of default width, float64, one thread; medians of CPU seconds")
    for repeat in (1, 2, 4):
        atoms = graphene(a=2.46, vacuum=6.0).repeat((repeat, repeat, 1))
        atoms.rattle(0.05, seed=0)
        pairs = PairList.from_atoms(atoms, BASIS.cutoffs())
        directions = np.zeros((N_COORDINATES, len(atoms), 3))
        directions[np.arange(N_COORDINATES), np.arange(N_COORDINATES) // 3, np.arange(N_COORDINATES) % 3] = 1.0
        with threadpool_limits(1):
            exact = model.derivatives(atoms, directions[:1], pairs)[0].values
            error = np.abs(difference(model, atoms, pairs, directions[0]) - exact).max() / np.abs(exact).max()
            assert error < 1e-4
            times = [
                (
                    seconds(lambda: model.predict(atoms, pairs)),  # noqa: B023
                    seconds(lambda: model.derivatives(atoms, directions, pairs)) / N_COORDINATES,  # noqa: B023
                )
                for _ in range(REPEATS)
            ]
        predict, derive = (statistics.median(column) for column in zip(*times, strict=True))
        ratios.append(derive / predict)
        print(
            f"{len(atoms):3d} atoms {len(pairs):5d} pairs   prediction {predict:.4f} s   coordinate {derive:.4f} s"
            f"   ratio {ratios[-1]:.1f}   (at most {AT_MOST})   central difference off by {error:.0e}"
        )
    assert max(ratios) <= AT_MOST


if __name__ == "__main__":
    test_a_coordinate_costs_a_few_predictions()
