"""What a two-center integral may be, and how much of a block is none."""

import numpy as np
import pytest

from ase_hybridham.check.covariance import Bonds, relative_residual
from ase_hybridham.check.diagnosis import ShellBlocks
from ase_hybridham.symmetry import DirectSum, spherical_harmonics


def bonds_of(table: DirectSum, parity: int, seed: int) -> Bonds:
    """Random multiples of Y_L(d) in the parts whose l1 + l2 + L is even (parity 0) or odd (1)."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(6, 3))
    harmonics = spherical_harmonics(vectors, 6)
    components = np.zeros((6, table.size))
    for part in table.parts:
        if (part.l1 + part.l2 + part.L) % 2 == parity:
            components[:, part.components] = rng.normal(size=(6, 1)) * harmonics[part.L]
    return Bonds(np.arange(6), components, vectors, table, (6, 16))


@pytest.mark.parametrize("seed", range(3))
def test_two_center_integrals_leave_nothing_and_parts_of_odd_sum_everything(seed):
    table = DirectSum((0, 1, 1, 2, 3), (0, 1, 2, 2))
    even, odd = bonds_of(table, 0, seed), bonds_of(table, 1, seed)
    assert relative_residual([even]) < 1e-14
    assert relative_residual([odd]) == pytest.approx(1, abs=1e-12)
    assert np.linalg.norm(odd.components) > 1
    other = even.with_vectors(even.vectors[::-1])
    assert relative_residual([other]) > 0.1


@pytest.mark.parametrize("seed", range(3))
def test_both_ways_to_the_residual_agree(seed):
    """The one of many hypotheses works on blocks between shells, the other on the direct sum."""
    bonds = bonds_of(DirectSum((0, 1, 2), (1, 2, 0)), 0, seed)
    rng = np.random.default_rng(seed)
    orders = {l: np.linalg.qr(rng.normal(size=(2 * l + 1, 2 * l + 1)))[0] for l in (1, 2)}
    from scipy.linalg import block_diag

    left, right = block_diag(1.0, orders[1], orders[2]), block_diag(orders[1], orders[2], 1.0)
    expected = relative_residual([bonds.turned({6: left, 16: right})])
    assert expected > 0.1
    assert ShellBlocks.of([bonds]).residual(orders) == pytest.approx(expected, rel=1e-9)
