"""Counts of states against LAPACK's at hundreds of energies, where a dissection makes many fronts.

Half of the energies are anywhere, half next to a state. None may be wrong at the energy at which the count says it was
made. HYBRIDHAM_SHIFTS is how many energies a case has (20 unless given).
"""

import os
from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms
from scipy.linalg import eigh

from ase_hybridham.solve.dissection import dissect
from ase_hybridham.solve.multifrontal import Multifrontal
from ase_hybridham.solve.pattern import Pattern
from ase_hybridham.solve.sparse import SparseProblem
from ase_hybridham.system import LCAOSystem
from tests.solve.sparse_systems import nanoribbon, repeated

N_SHIFTS = int(os.environ.get("HYBRIDHAM_SHIFTS", "20"))
POINTS = {"complex": [0.13, 0.27, 0.31], "gamma": [0.0, 0.0, 0.0]}
# An energy of LAPACK's own error, of a spectrum of 200 eV: counts so near to a state cannot be compared.
NEAR = 1e-10

Make = Callable[[Atoms], LCAOSystem]


def slab(make: Make, crystal: Atoms) -> LCAOSystem:
    """Two elements, five cells thick."""
    many = crystal * (2, 2, 5)
    many.pbc = (True, True, False)
    return make(many)


CELLS: dict[str, tuple[Callable[[Make, Atoms], LCAOSystem], int]] = {  # and how many fronts
    "nanoribbon": (lambda make, _: make(nanoribbon(14)), 7),
    "1 x 8 bilayer": (lambda *_: repeated("bilayer_graphene_AB", 1, 8, 1), 3),
    "1 x 16 graphene": (lambda *_: repeated("graphene", 1, 16, 1), 7),
    "slab": (slab, 5),
    "spinors, 1 x 10": (lambda *_: repeated("Bi_bismuthene_soc", 1, 10, 1), 7),
}


def engine(pattern: Pattern) -> Multifrontal:
    """With so small fronts that there are many."""
    return Multifrontal(pattern, dissect(pattern, leaf=int(5 * pattern.sizes.max()), panel=50))


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("k", POINTS)
@pytest.mark.parametrize("single", [False, True], ids=["double", "single"])
def test_no_count_is_wrong(make_system, crystal, name, k, single):
    make, n_fronts = CELLS[name]
    problem = SparseProblem(make(make_system, crystal), engine, single=single)
    assert len(problem.engine.dissection.fronts) >= n_fronts
    pencil = problem.pencil(POINTS[k])
    assert (pencil.h.dtype == "float64") == (k == "gamma" and "spinors" not in name)
    energies = eigh(pencil.h.csr().toarray(), pencil.s.csr().toarray(), eigvals_only=True)
    rng = np.random.default_rng(len(name))
    anywhere = rng.uniform(energies[0] - 1, energies[-1] + 1, size=N_SHIFTS // 2)
    beside = rng.choice([-1, 1], N_SHIFTS // 2) * 10 ** rng.uniform(-9, -3, size=N_SHIFTS // 2)
    n_compared = 0
    for energy in np.concatenate([anywhere, rng.choice(energies, len(beside)) + beside]):
        factor = pencil.factor(energy)
        assert abs(factor.sigma - energy) < 1.1e-4
        if np.abs(energies - factor.sigma).min() > NEAR:
            n_compared += 1
            assert factor.negative == (energies < factor.sigma).sum()
    assert n_compared > 0.8 * N_SHIFTS
