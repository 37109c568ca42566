"""Boxes, grids and k-meshes: what a strain, a supercell or an unusual cell makes of them."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import graphene

from ase_hybridham.scf import PySCFEngine
from ase_hybridham.scf.box import GRID_SIZES, Box, grid_sizes, k_mesh_of_length
from ase_hybridham.system import PairList


def layer(strain: float = 0.0) -> Atoms:
    atoms = graphene(a=2.46 * (1 + strain))
    atoms.pbc = (True, True, False)
    atoms.cell[2] = [0.3, -0.2, 12.0]
    return atoms


def random_atoms(seed: int, pbc: tuple[bool, bool, bool]) -> Atoms:
    rng = np.random.default_rng(seed)
    cell = np.diag([7.0, 8.0, 9.0])[rng.permutation(3)] + rng.normal(scale=0.5, size=(3, 3))
    return Atoms("C4", rng.uniform(-2, 2, size=(4, 3)), cell=cell, pbc=pbc)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("pbc", [(1, 1, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 0, 0), (0, 0, 1), (0, 0, 0)])
def test_pairs_have_the_same_vectors_in_the_box(seed, pbc):
    atoms = random_atoms(seed, pbc)
    box = Box.of(atoms, vacuum=12.0, reach=1.0)
    pairs = PairList.from_atoms(atoms, 6.0)
    vectors = box.positions[pairs.j] - box.positions[pairs.i]
    vectors += box.shifts(pairs.i, pairs.j, pairs.shifts) @ box.lattice
    np.testing.assert_allclose(vectors, pairs.vectors, atol=1e-12)
    assert np.linalg.det(box.lattice) > 0
    normals = box.lattice[box.n_periodic :]
    products = normals @ box.lattice.T
    np.testing.assert_allclose(products, np.diag(np.diag(box.lattice @ box.lattice.T))[box.n_periodic :], atol=1e-10)
    scaled = box.positions @ np.linalg.inv(box.lattice)
    assert scaled.min() > -1e-12
    assert scaled.max() < 1 + 1e-12


def test_atoms_stand_in_the_middle_of_the_vacuum():
    atoms = layer()
    atoms.positions[:, 2] = [-20.0, -18.0]
    box = Box.of(atoms, vacuum=15.0, reach=7.0)
    np.testing.assert_allclose(np.sort(box.positions[:, 2]), [5.0, 7.0])
    atoms.cell[2] = 0
    np.testing.assert_allclose(np.sort(Box.of(atoms, vacuum=15.0, reach=7.0).positions[:, 2]), [6.5, 8.5])


def test_grids_are_as_fine_as_those_of_pyscf():
    tools = pytest.importorskip("pyscf.pbc.tools.pbc")
    from pyscf.data.nist import BOHR

    lattice = Box.of(layer(), 12.0, 7.0).lattice
    theirs = tools.cutoff_to_mesh(lattice / BOHR, 100.0)
    np.testing.assert_allclose(grid_sizes(lattice, 100.0), theirs, rtol=0.1)


@pytest.mark.parametrize("strain", [-0.02, -0.01, 0.01, 0.02])
def test_a_small_strain_does_not_change_meshes(strain):
    strained, plain = Box.of(layer(strain), 12.0, 7.0), Box.of(layer(), 12.0, 7.0)
    np.testing.assert_array_equal(grid_sizes(strained.lattice, 100.0), grid_sizes(plain.lattice, 100.0))
    np.testing.assert_array_equal(k_mesh_of_length(strained, 17.0), [8, 8, 1])


def test_supercells_keep_the_spacing_of_grids_and_k_points():
    large = Box.of(layer() * (2, 2, 1), 12.0, 7.0)
    np.testing.assert_array_equal(grid_sizes(large.lattice, 100.0), [48, 48, 108])
    np.testing.assert_array_equal(k_mesh_of_length(large, 8.5), [2, 2, 1])
    assert set(2 * GRID_SIZES[GRID_SIZES < 2000]) <= set(GRID_SIZES)


def test_k_meshes_avoid_the_dirac_point():
    np.testing.assert_array_equal(k_mesh_of_length(Box.of(layer(), 12.0, 7.0), 6.4), [4, 4, 1])


def test_alike_cells_of_a_data_set_share_a_grid():
    pytest.importorskip("pyscf")
    # by themselves the first would get 20 points and the second 24
    near = [layer(-0.06), layer(-0.03)]
    alone = [grid_sizes(Box.of(atoms, 12.0, 7.0).lattice, 100.0)[0] for atoms in near]
    assert alone == [20, 24]
    meshes = [engine.mesh for engine in PySCFEngine().for_structures([*near, layer(0.02), layer() * (2, 1, 1)])]
    assert meshes == [(20, 20, 108), (20, 20, 108), (24, 24, 108), (48, 24, 108)]


def test_a_structure_that_does_not_fit_is_named_by_its_number():
    pytest.importorskip("pyscf")
    thick = layer()
    thick.positions[0, 2] = 9.0
    with pytest.raises(ValueError, match="structure 2 of 2: cell: axis 2"):
        PySCFEngine().for_structures([layer(), thick])
