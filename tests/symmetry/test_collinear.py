"""Direct sum of the blocks of collinear spin."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ase_hybridham.symmetry import CollinearDirectSum, DirectSum, orbital_rotation, wigner_D

SHELLS = [((0, 1, 2, 4), (3, 1)), ((0, 0, 1, 1, 2), (0, 1, 2)), ((0,), (0,))]


@pytest.fixture(params=SHELLS, ids=str)
def shells(request):
    return request.param


def random_blocks(seed, direct, n=3):
    return np.random.default_rng(seed).normal(size=(n, *direct.shape))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_round_trip_keeps_blocks_norm_and_dtype(shells, dtype):
    direct = CollinearDirectSum(*shells)
    blocks = random_blocks(0, direct).astype(dtype)
    h = direct.to_sum(blocks)
    exact = 20 * np.finfo(dtype).eps
    assert h.shape == (3, direct.size)
    assert h.dtype == direct.to_blocks(h).dtype == dtype
    np.testing.assert_allclose(direct.to_blocks(h), blocks, atol=10 * exact)
    np.testing.assert_allclose(np.linalg.norm(h, axis=-1), np.sqrt((blocks**2).sum(axis=(1, 2, 3))), rtol=exact)


def test_halves_are_mean_and_splitting(shells):
    """Equal spins have no second half; exchanged spins change its sign and nothing else."""
    direct, one = CollinearDirectSum(*shells), DirectSum(*shells)
    blocks = random_blocks(1, direct)
    mean, splitting = np.split(direct.to_sum(blocks), 2, axis=-1)
    np.testing.assert_allclose(mean * np.sqrt(2), one.to_sum(blocks.sum(axis=1)), atol=1e-13)
    np.testing.assert_allclose(splitting * np.sqrt(2), one.to_sum(blocks[:, 0] - blocks[:, 1]), atol=1e-13)
    assert np.abs(splitting).max() > 0.1
    np.testing.assert_allclose(direct.to_sum(blocks[:, ::-1]), np.concatenate([mean, -splitting], axis=-1), atol=1e-13)


@pytest.mark.parametrize("det", [1, -1])
def test_every_part_turns_by_its_own_degree(shells, det):
    direct = CollinearDirectSum(*shells)
    blocks = random_blocks(2, direct)
    R = det * Rotation.random(random_state=1).as_matrix()
    left, right = (orbital_rotation(degrees, R) for degrees in shells)
    turned, h = direct.to_sum(left @ blocks @ right.T), direct.to_sum(blocks)
    assert len(direct.parts) == 2 * len(direct.half.parts)
    for part in direct.parts:
        parity = 1 if part.natural else det
        expected = parity * h[:, part.components] @ wigner_D(part.L, R).T
        np.testing.assert_allclose(turned[:, part.components], expected, atol=1e-12)
    if max(shells[0]) > 0:
        assert np.abs(turned - h).max() > 0.1


def test_partner_is_the_transposed_block(shells):
    direct, reverse = CollinearDirectSum(*shells), CollinearDirectSum(*shells[::-1])
    blocks = random_blocks(3, direct)
    index, sign = direct.partner()
    found = reverse.to_sum(blocks.swapaxes(-1, -2))
    np.testing.assert_allclose(found, sign * direct.to_sum(blocks)[:, index], atol=1e-13)


def test_wrong_input_is_named():
    direct = CollinearDirectSum((0, 1), (0,))
    with pytest.raises(ValueError, match=r"blocks: expected \(\.\.\., 2, 4, 1\), got \(3, 4, 1\)"):
        direct.to_sum(np.zeros((3, 4, 1)))
    with pytest.raises(ValueError, match=r"components: expected \(\.\.\., 8\)"):
        direct.to_blocks(np.zeros(9))
    with pytest.raises(ValueError, match="at least one shell"):
        CollinearDirectSum((), (0,))
