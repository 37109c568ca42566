"""Bloch sums against the definition, and the properties every later step relies on."""

import numpy as np
import pytest

from ase_hybridham.solve import BlochSum
from ase_hybridham.solve import bloch as module
from ase_hybridham.system import PairBlocks

K_POINTS = np.random.default_rng(0).uniform(-1, 1, size=(7, 3))


def by_definition(blocks: PairBlocks, k_points: np.ndarray) -> np.ndarray:
    ends = np.concatenate([[0], np.cumsum(blocks.orbitals)])
    out = np.zeros((len(k_points), ends[-1], ends[-1]), dtype=complex)
    for p, (i, j, R) in enumerate(zip(blocks.pairs.i, blocks.pairs.j, blocks.pairs.shifts, strict=True)):
        phase = np.exp(2j * np.pi * k_points @ R)[:, None, None]
        out[:, ends[i] : ends[i + 1], ends[j] : ends[j + 1]] += phase * blocks.block(p)
    return out


def random_blocks(system, kind: str) -> PairBlocks:
    """Not Hermitian: the sum must not assume it."""
    rng = np.random.default_rng(1)
    blocks = PairBlocks.zeros(system.pairs, system.basis, spinor=kind == "spinor")
    values = rng.normal(size=blocks.values.shape)
    return blocks.with_values(values if kind == "real" else values + 1j * rng.normal(size=values.shape))


@pytest.mark.parametrize("kind", ["real", "complex", "spinor"])
def test_dense_and_sparse_sums_are_the_definition(make_system, crystal, kind):
    blocks = random_blocks(make_system(crystal), kind)
    expected = by_definition(blocks, K_POINTS)
    bloch = BlochSum(blocks)
    np.testing.assert_allclose(bloch.dense(K_POINTS), expected, atol=1e-12)
    np.testing.assert_allclose([m.toarray() for m in bloch.sparse(K_POINTS)], expected, atol=1e-12)


def test_dense_sum_does_not_depend_on_how_much_memory_it_may_use(make_system, crystal, monkeypatch):
    blocks = random_blocks(make_system(crystal), "real")
    expected = BlochSum(blocks).dense(K_POINTS)
    monkeypatch.setattr(module, "STACK_LIMIT", 0)
    np.testing.assert_allclose(BlochSum(blocks).dense(K_POINTS), expected, atol=1e-12)


def test_unconnected_atoms_leave_holes_in_the_pattern(make_system, crystal):
    crystal.positions[2] += [0, 0, 50]
    crystal.pbc = (True, True, False)
    system = make_system(crystal)
    bloch = BlochSum(system.overlap)
    assert len(bloch.indices) < bloch.n**2  # atom 2 has no neighbors but its own images
    np.testing.assert_allclose(bloch.dense(K_POINTS), by_definition(system.overlap, K_POINTS), atol=1e-12)
    np.testing.assert_allclose(next(bloch.sparse(K_POINTS)).toarray(), bloch.dense(K_POINTS)[0], atol=1e-12)


def test_a_hermitian_operator_has_hermitian_sums(make_system, crystal):
    bloch = BlochSum(make_system(crystal).hamiltonian[0])
    m = bloch.dense(K_POINTS)
    assert np.abs(m.imag).max() > 0.1
    np.testing.assert_allclose(m, m.conj().transpose(0, 2, 1), atol=1e-13)
    np.testing.assert_allclose(bloch.dense(-K_POINTS), m.conj(), atol=1e-13)


def test_overlap_expands_in_spin_space_atom_by_atom(make_system, crystal):
    system = make_system(crystal)
    plain, spinor = (BlochSum(system.overlap, spinor=s).dense(K_POINTS) for s in (False, True))
    sizes = system.basis.sizes(system.atoms.numbers)
    first = np.cumsum(sizes) - sizes
    up = np.concatenate([2 * f + np.arange(n) for f, n in zip(first, sizes, strict=True)])
    down = np.concatenate([2 * f + n + np.arange(n) for f, n in zip(first, sizes, strict=True)])
    for spin in (up, down):
        np.testing.assert_allclose(spinor[:, spin[:, None], spin], plain, atol=1e-13)
    assert not spinor[:, up[:, None], down].any()


def test_operators_on_the_same_pairs_share_the_order_of_their_entries(make_system, crystal):
    system = make_system(crystal)
    h, s = BlochSum(system.hamiltonian[0]), BlochSum(system.overlap)
    np.testing.assert_array_equal(h.indices, s.indices)
    shifted = BlochSum(system.hamiltonian[0] - 0.3 * system.overlap)
    np.testing.assert_allclose(h.data(K_POINTS) - 0.3 * s.data(K_POINTS), shifted.data(K_POINTS), atol=1e-13)


@pytest.mark.parametrize("bad", [[0, 0, 0], [[0, 0]], [[0, 0, np.nan]]])
def test_k_points_of_another_shape_are_refused(make_system, crystal, bad):
    with pytest.raises(ValueError, match="k-points: expected"):
        BlochSum(make_system(crystal).overlap).dense(bad)


def test_sums_can_be_written_into_given_memory(make_system, crystal, monkeypatch):
    crystal.positions[2] += [0, 0, 50]  # unconnected: there are places no entry writes to
    crystal.pbc = (True, True, False)
    blocks = random_blocks(make_system(crystal), "real")
    bloch = BlochSum(blocks)
    expected = bloch.dense(K_POINTS)
    for limit in (module.STACK_LIMIT, 0):
        monkeypatch.setattr(module, "STACK_LIMIT", limit)
        out = np.full_like(expected, np.nan)
        assert bloch.dense(K_POINTS, out) is out
        np.testing.assert_allclose(out, expected, atol=1e-12)
    for bad in (out[:3], out.real.copy(), out.transpose(0, 2, 1)):
        with pytest.raises(ValueError, match="out: expected contiguous"):
            bloch.dense(K_POINTS, bad)
