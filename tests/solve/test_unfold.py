"""Unfolding: exact supercells, sum rules, displacements, layers, defects."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import make_supercell

from ase_hybridham.io import read_system
from ase_hybridham.solve import SiteMap, band_path, eigenvalues, k_mesh, states_of, unfold
from ase_hybridham.solve.states import dense_states
from ase_hybridham.structures import layers_of, primitive_cell, twisted_bilayer
from ase_hybridham.system import PairBlocks

SHAPES = {"2x2": [[2, 0, 0], [0, 2, 0], [0, 0, 1]], "sqrt3": [[2, 1, 0], [1, 2, 0], [0, 0, 1]]}
OBLIQUE = np.array([[1, 1, 0], [-1, 2, 0], [0, 1, 2]])
K = np.array([[0.1234, 0.3421, 0.0], [-0.71, 0.05, 0.0], [1 / 3, 1 / 3, 0.0], [0.0, 0.0, 0.0]])


def all_k(sites: SiteMap, k: np.ndarray) -> np.ndarray:
    """The vectors k + G that fold onto the same K, shape (n_cells, 3)."""
    steps = np.stack(np.meshgrid(*[np.arange(sites.n_cells)] * 3), axis=-1).reshape(-1, 3)
    offsets = steps @ np.linalg.inv(sites.matrix).T
    _, first = np.unique(np.round(offsets % 1, 9) % 1, axis=0, return_index=True)
    assert len(first) == sites.n_cells
    return k + offsets[first]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sample", ["graphene", "Bi_bismuthene_soc"])
def test_exact_supercells_of_real_systems_have_the_primitive_bands_and_no_others(repeat, golden, sample, shape):
    unit = read_system(golden / "openmx" / sample / "deeph")
    many = repeat(unit, np.array(SHAPES[shape]))
    few = K[:2] if sample == "graphene" else K[:1]
    at_gamma = eigenvalues(unit, all_k(SiteMap.of(many.atoms, unit.atoms), np.zeros(3))).ravel()
    np.testing.assert_allclose(eigenvalues(many, [[0.0, 0.0, 0.0]]).ravel(), np.sort(at_gamma), atol=1e-7)
    sites = SiteMap.of(many.atoms, unit.atoms)
    assert sites.displacement < 1e-6
    unfolded = unfold(many, sites, few, reference=0.0)
    expected = eigenvalues(unit, few)[0]
    for row in range(len(few)):
        weights, energies = unfolded.weights[0, row, :, 0], unfolded.bands.energies[0, row]
        if sample == "graphene":  # Kramers pairs may mix k and -k of one energy
            np.testing.assert_allclose(weights, np.rint(weights), atol=1e-8)
        assert weights.sum() == pytest.approx(unit.n_orbitals, abs=1e-8)
        kept = weights > 0.5
        assert kept.sum() == unit.n_orbitals < len(weights)
        np.testing.assert_allclose(energies[kept], expected[row], atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES)
def test_spectral_function_of_an_exact_supercell_is_that_of_the_primitive_cell(repeat, golden, shape):
    """Also where states of different k are degenerate."""
    unit = read_system(golden / "openmx/graphene/deeph")
    many = repeat(unit, np.array(SHAPES[shape]))
    found = primitive_cell(many.atoms)
    assert len(found) == 2
    sites = SiteMap.of(many.atoms, found)
    path = band_path(found, "GMKG", npoints=6)
    grid = np.linspace(-25, 10, 400)
    unfolded = unfold(many, sites, path, reference=unit.fermi_level)
    assert unfolded.bands.path is path
    spectrum = unfolded.spectral_function(grid, width=0.2)[0, :, 0]
    # k of the found cell, in that of the unit
    k = path.kpts @ np.linalg.inv(found.cell.array @ np.linalg.inv(unit.atoms.cell.complete().array)).T
    plain = unfold(unit, SiteMap.of(unit.atoms, unit.atoms), k, reference=0.0)
    np.testing.assert_allclose(plain.weights, 1, atol=1e-9)
    expected = plain.spectral_function(grid, width=0.2)[0, :, 0]
    assert expected.max() > 2
    np.testing.assert_allclose(spectrum, expected, atol=1e-5)


@pytest.fixture
def displaced(make_system, crystal):
    """A supercell with displaced atoms in any order and any cell, and the crystal it came from."""
    rng = np.random.default_rng(3)
    atoms = make_supercell(crystal, OBLIQUE)
    atoms.positions += rng.normal(scale=0.03, size=(len(atoms), 3))
    atoms.translate([0.4, -0.2, 7.1])
    atoms.positions += rng.integers(-1, 2, size=(len(atoms), 3)) @ atoms.cell.array
    return make_system(atoms[rng.permutation(len(atoms))]), crystal


def test_weights_of_a_state_over_all_k_are_one_however_the_atoms_move(displaced):
    system, crystal = displaced
    sites = SiteMap.of(system.atoms, crystal)
    assert sites.n_cells == abs(round(np.linalg.det(OBLIQUE))) == 6
    assert 0.03 < sites.displacement < 0.15
    k = all_k(sites, np.array([0.13, -0.4, 0.21]))
    unfolded = unfold(system, sites, k, reference=0.0)
    energies, weights = unfolded.bands.energies[0], unfolded.weights[0, :, :, 0]
    np.testing.assert_allclose(energies, np.broadcast_to(energies[0], energies.shape), atol=1e-9)
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-10)
    np.testing.assert_allclose(weights.sum(axis=1), weights.shape[1] / 6, atol=0.3)
    largest = weights.max(axis=0)
    assert 0.1 < np.mean(largest < 0.95) < 1  # blurred
    assert weights.min() > -0.05


def test_weights_are_those_of_the_projector_built_by_hand(displaced):
    system, crystal = displaced
    sites, k = SiteMap.of(system.atoms, crystal), np.array([0.3, 0.1, -0.2])
    ((states,),) = states_of(system, sites.folded([k]))
    where = {int(atom): (int(q), r) for atom, q, r in zip(sites.members, sites.sites, sites.cells, strict=True)}
    ends = np.cumsum(system.overlap.orbitals)
    P = np.zeros((len(states.vectors),) * 2, dtype=complex)
    for i, (p, r) in where.items():
        for j, (q, other) in where.items():
            if p == q:
                n = system.overlap.orbitals[i]
                block = np.exp(2j * np.pi * k @ (r - other)) / sites.n_cells * np.eye(n)
                P[ends[i] - n : ends[i], ends[j] - n : ends[j]] = block
    np.testing.assert_allclose(P @ P, P, atol=1e-12)
    expected = np.einsum("an,ab,bn->n", states.dual.conj(), P, states.vectors).real
    np.testing.assert_allclose(sites.weights(system, k, states), expected, atol=1e-12)


def test_smaller_displacements_blur_less(make_system, crystal):
    atoms = make_supercell(crystal, np.diag([2, 1, 1]))
    step = np.random.default_rng(8).normal(size=(len(atoms), 3))
    blur = []
    for scale in (0.0, 0.001, 0.002):
        moved = atoms.copy()
        moved.positions += scale * step
        weights = unfold(make_system(moved), SiteMap.of(moved, crystal), [[0.2, 0.1, 0.4]], reference=0.0).weights
        blur.append(np.median(np.abs(weights - np.rint(weights))))  # two states nearly cross and mix at once
    assert blur[0] < 1e-8
    assert 3 < blur[2] / blur[1] < 5  # the square of the displacement


@pytest.fixture
def twisted(make_system):
    """21.8 degrees, 28 atoms, s and p orbitals; layers, their cells and sites."""
    atoms = twisted_bilayer(1, 2)
    layers = layers_of(atoms).members
    cells = [primitive_cell(atoms, layer) for layer in layers]
    return make_system(atoms), layers, [SiteMap.of(atoms, *each) for each in zip(cells, layers, strict=True)]


def test_both_layers_of_a_twisted_bilayer_add_up_to_one(twisted):
    system, layers, sites = twisted
    assert [(len(each.primitive), each.n_cells) for each in sites] == [(2, 7), (2, 7)]
    assert not np.allclose(sites[0].matrix, sites[1].matrix)
    K = np.array([0.21, 0.34, 0.0])
    total = np.zeros(system.n_orbitals)
    for each, layer in zip(sites, layers, strict=True):
        k = all_k(each, K @ np.linalg.inv(each.matrix).T)
        np.testing.assert_allclose((each.folded(k) - K) - np.rint(each.folded(k) - K), 0, atol=1e-7)
        weights = unfold(system, each, k, reference=0.0).weights[0, :, :, 0].sum(axis=0)
        ((states,),) = states_of(system, [K])
        own = np.isin(np.repeat(np.arange(28), system.overlap.orbitals), layer)
        np.testing.assert_allclose(weights, states.populations[own].sum(axis=0), atol=1e-8)
        total += weights
    np.testing.assert_allclose(total, 1, atol=1e-8)


def test_a_layer_that_feels_no_other_unfolds_to_its_own_bands(twisted, make_system):
    system, layers, sites = twisted
    upper = np.isin(np.arange(28), layers[1])
    between = upper[system.pairs.i] != upper[system.pairs.j]

    def cut(blocks: PairBlocks) -> PairBlocks:
        return blocks.with_values(np.where(np.repeat(between, np.diff(blocks.offsets)), 0.0, blocks.values))

    apart = replace(system, hamiltonian=(cut(system.hamiltonian[0]),), overlap=cut(system.overlap))
    for each in sites:
        unfolded = unfold(apart, each, K[:2], reference=0.0)
        expected = eigenvalues(make_system(each.primitive), K[:2])[0]
        for row in range(2):
            kept = unfolded.weights[0, row, :, 0] > 0.99
            np.testing.assert_allclose(unfolded.weights[0, row, :, 0], kept, atol=1e-8)
            np.testing.assert_allclose(unfolded.bands.energies[0, row, kept], expected[row], atol=1e-7)


def test_vacancies_and_other_elements_keep_the_sum(make_system, crystal):
    atoms = make_supercell(crystal, np.diag([3, 1, 1]))
    atoms.symbols[1] = "C"
    del atoms[6]
    system, sites = make_system(atoms), SiteMap.of(atoms, crystal)
    assert (len(sites.members), sites.n_cells) == (11, 3)
    weights = unfold(system, sites, all_k(sites, np.array([0.1, 0.2, 0.3])), reference=0.0).weights[0, :, :, 0]
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-10)
    assert 0.1 < np.median(weights.max(axis=0)) < 0.95


def test_orthogonal_bases_and_windows(make_graphene, repeat):
    unit = make_graphene(-2.7, None)
    many = repeat(unit, np.array(SHAPES["2x2"]))
    sites = SiteMap.of(many.atoms, unit.atoms)

    def valence(system, k):
        for of_spins in dense_states(system, k):
            yield [(e[e < 0], c[:, e < 0]) for e, c, _ in of_spins]

    found = unfold(many, sites, K[:2], reference=0.0, solver=valence)
    assert found.weights.shape == (1, 2, 4, 1)
    np.testing.assert_allclose((found.weights[..., 0] * found.bands.energies).sum(-1), eigenvalues(unit, K[:2])[..., 0])


def test_a_mesh_of_the_primitive_cell_unfolds_to_its_density(repeat, golden):
    unit = read_system(golden / "openmx/graphene/deeph")
    many = repeat(unit, np.array(SHAPES["sqrt3"]))
    k, _ = k_mesh(unit.atoms, (2, 2, 1))
    found = unfold(many, SiteMap.of(many.atoms, unit.atoms), k, reference=0.0)
    np.testing.assert_allclose(found.weights.sum(axis=(2, 3)), unit.n_orbitals, atol=1e-8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, p: p.set_cell(p.cell.array * 1.3), "integer combinations of those of the primitive cell"),
        (lambda a, p: p.__delitem__(slice(0, 3)), "one atom on each site of the primitive cell, got atoms"),
        (lambda a, p: p.__delitem__(slice(0, 4)), "expected atoms in both cells, got 8 and 0"),
    ],
)
def test_cells_that_do_not_belong_together_are_refused(crystal, change, message):
    atoms = make_supercell(crystal, np.diag([2, 1, 1]))
    change(atoms, crystal)
    with pytest.raises(ValueError, match=message):
        SiteMap.of(atoms, crystal)
