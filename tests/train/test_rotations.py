"""Averages over rotations: closer to equivariance, of exactly equivariant networks the same H."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ase_hybridham.model import Ensemble, TrainedModel
from ase_hybridham.symmetry import rotate_blocks, rotate_system
from ase_hybridham.train.metrics import hamiltonian_error
from ase_hybridham.train.rotations import is_equivariant, rotation_average, rotation_table
from tests.model.networks import config, network
from tests.train.synthetic import BASIS, atoms_of, system_of

IRREPS = "4x0e+3x1o+2x2e"
SYSTEM = system_of(atoms_of(0))


@pytest.fixture(scope="module")
def models() -> dict[str, TrainedModel]:
    return {f: TrainedModel(network(BASIS, config(IRREPS, frame=f, updates=1))) for f in ("edge", "global")}


def test_the_average_is_that_of_a_loop(models):
    model = models["global"]
    matrices = [np.eye(3), *Rotation.random(4, rng=np.random.default_rng(7)).as_matrix()]
    turned_back = []
    for Q in matrices:
        turned = rotate_system(SYSTEM, Q)
        turned_back.append(rotate_blocks(model.predict(turned.atoms, turned.pairs), Q.T).values)
    found = dict(rotation_average(model, SYSTEM, 5, seed=7))
    assert list(found) == [1, 2, 4, 5]
    for n, (h,) in found.items():
        np.testing.assert_allclose(h.values, np.mean(turned_back[:n], axis=0), atol=1e-10)
        assert h.hermiticity_error() < 1e-10
        assert h.pairs is SYSTEM.pairs
    assert np.abs(turned_back[0] - turned_back[1]).max() > 1e-3


def test_of_equivariant_networks_every_average_is_the_same(models):
    averages = [h.values for _, (h,) in rotation_average(models["edge"], SYSTEM, 2)]
    np.testing.assert_allclose(averages[1], averages[0], atol=1e-10)


def test_averages_turn_with_the_structure_the_better_the_more_rotations(models):
    rows = rotation_table(models["global"], [SYSTEM, system_of(atoms_of(1))], 16)
    assert [row.rotations for row in rows] == [1, 2, 4, 8, 16]
    assert rows[-1].rotation_rms < 0.6 * rows[0].rotation_rms
    plain = [
        hamiltonian_error(models["global"].predict(s.atoms, s.pairs), s.hamiltonian).mae
        for s in (SYSTEM, system_of(atoms_of(1)))
    ]
    assert (rows[0].mae_all, rows[0].mae_cha) == pytest.approx((np.mean(plain), max(plain)))
    assert rows[-1].seconds > 4 * rows[0].seconds > 0
    assert set(rows[0].to_dict()) == {"rotations", "mae_all_meV", "mae_cha_meV", "rotation_rms_meV", "seconds"}


def test_who_is_equivariant(models):
    assert is_equivariant(models["edge"])
    assert not is_equivariant(models["global"])
    assert not is_equivariant(Ensemble([models["edge"], models["global"]]))
    alone = TrainedModel(network(BASIS, config(IRREPS, frame="global", updates=1)))
    alone.cascade.has_stage2.fill_(False)
    assert is_equivariant(alone)


def test_no_rotation_at_all_is_an_error(models):
    with pytest.raises(ValueError, match="expected a number of at least 1, got 0"):
        rotation_table(models["global"], [SYSTEM], 0)
