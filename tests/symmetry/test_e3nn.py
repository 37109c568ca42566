"""Our conventions are e3nn's (0.5 and later) when its vectors are fed as (y, z, x)."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ase_hybridham.symmetry import clebsch_gordan, polar_coupling, spherical_harmonics, wigner_D

AXES = [1, 2, 0]


@pytest.fixture
def o3():
    """e3nn.o3 while torch makes float64 by default, as e3nn's tables need."""
    torch = pytest.importorskip("torch")
    o3 = pytest.importorskip("e3nn.o3")
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield o3
    torch.set_default_dtype(default)


@pytest.mark.parametrize("l", range(7))
def test_harmonics(o3, l):
    import torch

    v = np.random.default_rng(0).normal(size=(20, 3))
    theirs = o3.spherical_harmonics(l, torch.tensor(v[:, AXES]), normalize=True, normalization="component")
    np.testing.assert_allclose(spherical_harmonics(v, l)[l], theirs.numpy(), atol=1e-13)


@pytest.mark.parametrize("l", range(5))
@pytest.mark.parametrize("det", [1, -1])
def test_wigner(o3, l, det):
    import torch

    R = det * Rotation.random(random_state=2).as_matrix()
    theirs = o3.Irrep(l, (-1) ** l).D_from_matrix(torch.tensor(R[np.ix_(AXES, AXES)]))
    # matrix exponentials of a multiple of pi
    np.testing.assert_allclose(wigner_D(l, R), theirs.numpy(), atol=1e-12)


def test_coupling_has_their_signs(o3):
    for l1 in range(7):
        for l2 in range(7):
            for l3 in range(abs(l1 - l2), min(6, l1 + l2) + 1):
                theirs = o3.wigner_3j(l1, l2, l3).numpy()
                ours = clebsch_gordan(l1, l2, l3) / np.sqrt(2 * l3 + 1)
                np.testing.assert_allclose(ours, theirs, atol=1e-14, err_msg=f"{l1, l2, l3}")
                m = np.arange(min(l1, l3) + 1)
                even = (l1 + l2 + l3) % 2 == 0
                along = theirs[l1 + m, l2, l3 + m] if even else -theirs[l1 + m, l2, l3 - m]
                np.testing.assert_allclose(polar_coupling(l1, l2, l3), along, atol=1e-14)
