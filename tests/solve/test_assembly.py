"""H(k) and S(k) by rows of atoms, against the sums over pairs."""

from dataclasses import replace

import numpy as np
import pytest

from ase_hybridham.solve import BlochSum, assembly
from ase_hybridham.solve.pattern import BlockMatrix, Pattern
from ase_hybridham.solve.sparse import SparseProblem
from ase_hybridham.system import LCAOSystem
from tests.solve.sparse_systems import repeated

POINTS = {"general": [0.1, 0.2, 0.3], "gamma": [0.0, 0.0, 0.0], "edge": [0.5, -1.5, 0.0]}


@pytest.fixture(params=["several elements", "apart", "spinor", "many images"])
def system(request, make_system, crystal) -> LCAOSystem:
    if request.param == "spinor":
        return repeated("Bi_bismuthene_soc", 1, 3, 1)
    if request.param == "many images":
        return repeated("graphene", 1, 6, 1)
    if request.param == "apart":
        crystal.positions[2] += [0, 0, 50]  # unconnected
        crystal.pbc = (True, True, False)
        return make_system(crystal)
    return make_system(crystal * (5, 5, 4))  # one image of each pair


@pytest.mark.parametrize("k", POINTS)
@pytest.mark.parametrize("pairs", [7, 10**6])
def test_matrices_are_the_bloch_sums(system, k, pairs, monkeypatch):
    monkeypatch.setattr(assembly, "PAIRS", pairs)
    pencil = SparseProblem(system).pencil(POINTS[k])
    sums = BlochSum(system.hamiltonian[0]), BlochSum(system.overlap, spinor=system.spin == "spinor")
    assert (pencil.h.dtype == "float64") == (k != "general" and system.spin != "spinor")
    for matrix, expected in zip((pencil.h, pencil.s), sums, strict=True):
        dense = expected.dense([POINTS[k]])[0]
        assert np.abs(dense).max() > 0.1
        np.testing.assert_allclose(matrix.csr().toarray(), dense, atol=1e-13)
        np.testing.assert_array_equal(matrix.pattern.indices, expected.indices)
        np.testing.assert_array_equal(matrix.pattern.indptr, expected.indptr)
    shifted = pencil.shifted(-0.7).csr().toarray()
    np.testing.assert_allclose(shifted, sums[0].dense([POINTS[k]])[0] + 0.7 * dense, atol=1e-12)


def test_rows_and_products_are_those_of_the_matrix(system):
    matrix = SparseProblem(system).pencil(POINTS["general"]).h
    pattern, dense = matrix.pattern, matrix.csr().toarray()
    for atom, (a, b) in enumerate(zip(pattern.starts[:-1], pattern.starts[1:], strict=True)):
        np.testing.assert_allclose(matrix.rows(atom), dense[a:b, pattern.columns(atom)], atol=1e-15)
        np.testing.assert_allclose(matrix.rows(atom, [1, 0]), dense[a:b, pattern.columns(atom)[[1, 0]]], atol=1e-15)
    single = matrix.astype("complex64")
    assert single.dtype == single.data().dtype == single.rows(0).dtype == "complex64"
    x = np.random.default_rng(0).normal(size=(pattern.n, 3))
    for vectors in (x, np.asfortranarray(x + 1j)):
        np.testing.assert_allclose(matrix.product(vectors), dense @ vectors, atol=1e-12)
        np.testing.assert_allclose(BlockMatrix(pattern, matrix.data()).product(vectors), dense @ vectors, atol=1e-12)
        np.testing.assert_allclose(single.product(vectors.astype("complex64")), dense @ vectors, atol=1e-3)


def test_phases_are_multiplied_out_only_where_a_pair_has_many_images(make_system, crystal):
    phases = [SparseProblem(make_system(crystal * n)).pencil(POINTS["general"]).h.phases for n in (1, (5, 5, 4))]
    assert phases[0] is None
    assert np.iscomplexobj(phases[1])


def test_graph_is_that_of_blocks(system):
    pattern = Pattern.of(system.hamiltonian[0], system.atoms)
    dense = np.abs(BlochSum(system.hamiltonian[0]).dense([POINTS["general"]])[0])
    blocks = np.add.reduceat(np.add.reduceat(dense, pattern.starts[:-1], 0), pattern.starts[:-1], 1)
    np.testing.assert_array_equal(pattern.graph.toarray() > 0, blocks > 0)


def test_two_spins_and_an_orthogonal_basis(make_graphene):
    system = make_graphene(-2.7, None)
    (h,) = system.hamiltonian
    two = SparseProblem(replace(system, hamiltonian=(h, h * 2.0), spin="collinear"))
    up, down = (two.pencil(POINTS["general"], spin) for spin in (0, 1))
    np.testing.assert_allclose(2 * up.h.csr().toarray(), down.h.csr().toarray(), atol=1e-13)
    np.testing.assert_allclose(up.s.csr().toarray(), np.eye(len(up.s.csr().toarray())), atol=1e-15)
    np.testing.assert_allclose(up.s.product(np.ones((up.pattern.n, 1))), 1.0)
