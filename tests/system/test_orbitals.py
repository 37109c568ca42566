"""The one table of orbital orders: explicit polynomials, PySCF's own orbitals, permutations."""

import numpy as np
import pytest
from scipy import special

from ase_hybridham.system import ORBITAL_ORDERS, convert_orbitals, orbital_order


def directions(n: int = 40) -> np.ndarray:
    v = np.random.default_rng(0).normal(size=(n, 3))
    return v / np.linalg.norm(v, axis=1)[:, None]


def harmonics(l: int, v: np.ndarray) -> np.ndarray:
    """Our order, shape (n, 2l+1), from associated Legendre functions."""
    phi = np.arctan2(v[:, 1], v[:, 0])
    columns = []
    for m in range(-l, l + 1):
        k = abs(m)
        legendre = (-1) ** k * special.lpmv(k, l, v[:, 2])
        norm = np.sqrt((2 * l + 1) / (4 * np.pi) * special.factorial(l - k) / special.factorial(l + k))
        angular = np.sqrt(2) * (np.cos(k * phi) if m > 0 else np.sin(k * phi)) if m else 1.0
        columns.append(norm * legendre * angular)
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("program", ORBITAL_ORDERS)
def test_an_order_is_a_permutation_within_each_shell(program):
    degrees = [0, 0, 1, 2, 3, 1, 4]
    index, sign = orbital_order(program, degrees)
    assert set(np.abs(sign)) == {1.0}
    start = 0
    for l in degrees:
        stop = start + 2 * l + 1
        assert sorted(index[start:stop]) == list(range(start, stop))
        start = stop
    assert len(index) == len(sign) == start


def test_our_order_is_left_as_it_is():
    index, sign = orbital_order("house", [0, 1, 2, 3])
    np.testing.assert_array_equal(index, np.arange(16))
    np.testing.assert_array_equal(sign, 1)


def test_openmx_order_by_explicit_polynomials():
    """OpenMX: s; x, y, z; 3z2-r2, x2-y2, xy, xz, yz; 5z3-3z, 5xz2-x, 5yz2-y, z(x2-y2), xyz, x3-3xy2, 3yx2-y3."""
    v = directions()
    x, y, z = v.T
    theirs = {
        0: [np.ones_like(x)],
        1: [x, y, z],
        2: [3 * z**2 - 1, x**2 - y**2, x * y, x * z, y * z],
        3: [
            z * (5 * z**2 - 3),
            x * (5 * z**2 - 1),
            y * (5 * z**2 - 1),
            z * (x**2 - y**2),
            x * y * z,
            x * (x**2 - 3 * y**2),
            y * (3 * x**2 - y**2),
        ],
    }
    for program in ("openmx", "deeph"):
        for l, columns in theirs.items():
            index, sign = orbital_order(program, [l])
            ours = sign * np.stack(columns, axis=1)[:, index]
            expected = harmonics(l, v)
            scale = np.linalg.norm(expected, axis=0) / np.linalg.norm(ours, axis=0)  # polynomials without norm
            np.testing.assert_allclose(ours * scale, expected, atol=1e-13)


@pytest.mark.parametrize("l", range(5))
def test_pyscf_order_by_its_own_orbitals(l):
    gto = pytest.importorskip("pyscf.gto")
    mol = gto.M(atom="Ne 0 0 0", basis={"Ne": [[l, [0.7, 1.0]]]}, verbose=0, spin=None)
    v = directions()
    theirs = mol.eval_gto("GTOval_sph", v)  # on the unit sphere of 1 bohr: one radial factor
    index, sign = orbital_order("pyscf", [l])
    ours, expected = sign * theirs[:, index], harmonics(l, v)
    factor = np.linalg.norm(ours) / np.linalg.norm(expected)
    np.testing.assert_allclose(ours, factor * expected, atol=1e-12)


@pytest.mark.parametrize(
    ("program", "l", "expected"),
    [
        # m of their orbitals in their order, and their sign in front of ours
        ("siesta", 1, [(-1, -1), (0, 1), (1, -1)]),
        ("siesta", 3, [(-3, -1), (-2, 1), (-1, -1), (0, 1), (1, -1), (2, 1), (3, -1)]),
        ("abacus", 1, [(0, 1), (1, -1), (-1, -1)]),
        ("abacus", 2, [(0, 1), (1, -1), (-1, -1), (2, 1), (-2, 1)]),
        ("fhi-aims", 3, [(-3, 1), (-2, 1), (-1, 1), (0, 1), (1, -1), (2, 1), (3, -1)]),
        ("gpaw", 2, [(-2, 1), (-1, 1), (0, 1), (1, 1), (2, 1)]),
        ("deeph-dock", 3, [(m, 1) for m in range(-3, 4)]),
        ("openmx", 4, [(m, 1) for m in (0, 1, -1, 2, -2, 3, -3, 4, -4)]),
    ],
)
def test_other_orders_as_tabulated(program, l, expected):
    v = directions()
    Y = harmonics(l, v)
    theirs = np.stack([sign * Y[:, l + m] for m, sign in expected], axis=1)
    index, sign = orbital_order(program, [l])
    np.testing.assert_allclose(sign * theirs[:, index], Y, atol=1e-14)


@pytest.mark.parametrize("program", ORBITAL_ORDERS)
@pytest.mark.parametrize("spinor", [False, True])
def test_blocks_convert_as_products_of_orbitals(program, spinor):
    rows, columns = [1, 0, 2], [3, 1]
    rng = np.random.default_rng(1)
    copies = 2 if spinor else 1
    bra, ket = (rng.normal(size=(copies, sum(2 * l + 1 for l in degrees))) for degrees in (rows, columns))

    def ours(orbitals, degrees):
        index, sign = orbital_order(program, degrees)
        return (sign * orbitals[:, index]).ravel()

    theirs = np.outer(bra.ravel(), ket.ravel())[None]
    found = convert_orbitals(theirs, program, rows, columns, spinor=spinor)
    np.testing.assert_allclose(found[0], np.outer(ours(bra, rows), ours(ket, columns)), atol=1e-14)
    single = convert_orbitals(theirs.astype(np.complex64), program, rows, columns, spinor=spinor)
    assert single.dtype == np.complex64


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="orbital order: expected one of house, openmx"):
        orbital_order("vasp", [0])
    with pytest.raises(ValueError, match="l = 7 is not supported"):
        orbital_order("openmx", [7])
    with pytest.raises(ValueError, match=r"blocks: expected \(\.\.\., 4, 1\), got \(2, 4, 4\)"):
        convert_orbitals(np.zeros((2, 4, 4)), "openmx", [0, 1], [0])
