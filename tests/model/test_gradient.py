"""dH/dR: what finite differences of predictions find, and what symmetries ask of it; untrained weights."""

import numpy as np
import pytest
from ase import Atoms
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ase_hybridham.errors import CheckpointError
from ase_hybridham.model import ModelConfig, TrainedModel, equivariant, gradient
from ase_hybridham.symmetry import orbital_generators, rotate_blocks, time_reversal_error
from ase_hybridham.system import PairBlocks, PairList
from tests.model.networks import (
    IRREPS,
    MIXED,
    assert_same_blocks,
    config,
    network,
    rows_of,
    structure,
    turned,
    turned_pairs,
)

STEP = 2e-5  # angstrom: norms of stage 2 that nearly vanish bend within 1e-4 of their feature; below it rounding grows
DIFFERENCES = 1e-7  # of the largest element; found 3e-9
EXACT = 1e-12  # the same, without differences


def tilted(by: float) -> Atoms:
    """A pair along z but for some angstrom, of different elements, and a third atom."""
    return Atoms("CMoS", [[0, 0, 0], [by, -0.3 * by, 2.0], [1.8, 0.3, 0.9]])


STRUCTURES = {
    "slab": structure(MIXED, 10),
    "molecule": Atoms("CMoSSC", np.random.default_rng(12).uniform(0, 3.5, size=(5, 3))),
    "pole": tilted(0.0),
    "rounding of a pole": tilted(1e-16),
    "near a pole": tilted(1e-7),
    "next to a pole": tilted(1e-3),
    "tiny cell": Atoms(
        "MoC", [[0, 0, 0], [1.0, 1.5, 1.3]], cell=[[2.4, 0.2, 0], [0, 2.5, 0.3], [0.4, 0, 2.6]], pbc=True
    ),
}


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    return TrainedModel(network())


def displacements(atoms: Atoms, n: int = 2, seed: int = 0) -> NDArray:
    return np.random.default_rng(seed).normal(size=(n, len(atoms), 3))


def differences(model: TrainedModel, atoms: Atoms, u: NDArray, stage: str | None = None) -> NDArray:
    """dH/ds of r + s u on the pairs of s = 0, central differences of fourth order."""
    pairs = PairList.from_atoms(atoms, MIXED.cutoffs())

    def values(steps: int) -> NDArray:
        moved = atoms.copy()
        moved.positions += steps * STEP * u
        return model.predict(moved, PairList.from_indices(moved, pairs.i, pairs.j, pairs.shifts), stage).values

    return (8.0 * (values(1) - values(-1)) - (values(2) - values(-2))) / (12.0 * STEP)


def assert_close(found: PairBlocks, expected: NDArray, tolerance: float = EXACT) -> None:
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("stage", ["mean", "stage1", "hybrid"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_derivatives_are_those_of_predictions(model, name, stage):
    atoms = STRUCTURES[name]
    directions = displacements(atoms)
    for found, u in zip(model.derivatives(atoms, directions, stage=stage), directions, strict=True):
        assert found.hermiticity_error() == 0
        assert_close(found, differences(model, atoms, u, stage), DIFFERENCES)


def other_networks() -> dict[str, ModelConfig]:
    wide = "5x0e+2x0o+3x1o+2x1e+3x2e+2x3o+1x3e+2x4e"
    deephe3 = {"norm": "graph", "gates": "channel", "pair_maps": "separate", "envelope": False, "readout": "free"}
    return {
        "global frame": config(frame="global"),
        "letter of the paper": config(invariants="tuples", residual="paper"),
        "DeepH-E3": ModelConfig(
            stage1=dict(config().stage1) | deephe3 | {"irreps": wide}, stage2=None, dtype="float64"
        ),
    }


@pytest.mark.parametrize("name", other_networks())
def test_other_networks(name):
    cascade = network(settings=other_networks()[name])
    model, atoms = TrainedModel(cascade), STRUCTURES["slab"]
    (u,) = displacements(atoms, 1)
    assert_close(model.derivatives(atoms, u[None])[0], differences(model, atoms, u), DIFFERENCES)


@pytest.mark.parametrize("name", ["slab", "pole", "next to a pole"])
def test_spinors(name):
    """Spin-orbit coupling: spins turn with the pairs, and time reversal is kept."""
    wide = config(IRREPS + "+2x5o")  # d x d with a spin couples to degrees up to 5
    model, atoms = TrainedModel(network(settings=wide, spin="spinor")), STRUCTURES[name]
    for found, u in zip(model.derivatives(atoms, displacements(atoms)), displacements(atoms), strict=True):
        assert_close(found, differences(model, atoms, u), DIFFERENCES)
        assert time_reversal_error(found) < EXACT * np.abs(found.values).max()


def test_gradient_holds_the_derivatives_by_single_coordinates(model):
    """More of them than are computed at a time, in the order that was asked for."""
    atoms, indices = STRUCTURES["slab"], [4, 0, 1]
    u = np.zeros((1, len(atoms), 3))
    u[0, indices] = displacements(atoms, 1)[0, indices]
    of_atoms = model.gradient(atoms, indices)
    assert [len(of_atom) for of_atom in of_atoms] == [3, 3, 3]
    found = sum(u[0, a, x] * of_atoms[n][x].values for n, a in enumerate(indices) for x in range(3))
    assert_close(model.derivatives(atoms, u)[0], found)
    last = model.gradient(atoms)[4]
    np.testing.assert_allclose(last[2].values, of_atoms[0][2].values, atol=1e-11)


@pytest.mark.parametrize("name", ["slab", "tiny cell", "pole"])
def test_acoustic_sum_rule(model, name):
    values = np.array([[b.values for b in of_atom] for of_atom in model.gradient(STRUCTURES[name])])
    assert np.abs(values).max() > 1
    np.testing.assert_allclose(values.sum(axis=0), 0, atol=EXACT * np.abs(values).max())


@pytest.mark.parametrize("name", ["molecule", "pole", "near a pole"])
def test_rigid_rotation_turns_the_orbitals_only(model, name):
    """u = w x r gives (w.G_i) H - H (w.G_j), whatever the network is."""
    atoms, w = STRUCTURES[name], np.array([0.3, -0.8, 0.5])
    h = model.predict(atoms)
    G = {z: np.tensordot(w, orbital_generators(MIXED[z].degrees), 1) for z in MIXED.numbers}
    turn = PairBlocks.from_groups(h.pairs, MIXED, {(a, b): G[a] @ m - m @ G[b] for (a, b), _, m in h.groups()})
    assert_close(model.derivatives(atoms, np.cross(w, atoms.positions)[None])[0], turn.values)


@pytest.mark.parametrize("improper", [False, True])
def test_gradient_turns_with_the_structure(model, improper):
    atoms = STRUCTURES["slab"]
    pairs = PairList.from_atoms(atoms, MIXED.cutoffs())
    Q = Rotation.random(random_state=5).as_matrix() * (-1 if improper else 1)
    before = model.gradient(atoms, [2])[0]
    after = model.gradient(turned(atoms, Q), [2], turned_pairs(atoms, pairs, Q))[0]
    for y in range(3):
        assert_close(after[y], sum(Q[y, x] * rotate_blocks(before[x], Q).values for x in range(3)))


def test_an_atom_moves_with_its_images(model):
    """The derivatives by all copies of an atom in a supercell add up to the one of the cell."""
    atoms, times = STRUCTURES["tiny cell"], (2, 1, 1)
    small, large = model.gradient(atoms, [1])[0], model.gradient(atoms.repeat(times), [1, 3])
    cells, p = np.array(list(np.ndindex(*times))), large[0][0].pairs
    shifts = p.shifts * times + cells[p.j // 2] - cells[p.i // 2]
    rows = rows_of(small[0], p.i % 2, p.j % 2, shifts)
    for x in range(3):
        together = large[0][x] + large[1][x]
        assert np.abs(together.values).max() > 1
        assert np.abs((together - large[0][x]).values).max() > 1
        assert_same_blocks(together, small[x], rows, 1e-10)


def test_far_atoms_do_not_matter(model):
    """Beyond the receptive field of stage 1 the derivative is zero, not small."""
    chain = Atoms("CS" * 12, [(0.3 * (n % 2), 0.2 * (n % 3), 2.0 * n) for n in range(24)])
    derivative = model.gradient(chain, [0], stage="stage1")[0][0]
    reached = [np.abs(derivative.block(n)).max() > 0 for n in range(24)]
    assert reached[0]
    assert reached[4]
    assert not any(reached[14:])


@pytest.mark.parametrize("atoms", [Atoms("S", [[1.0, 2.0, 3.0]]), Atoms("CMo", np.diag([9.0, 9.0, 9.0])[:2])], ids=len)
def test_lone_atoms_have_no_gradient(model, atoms):
    for of_atom in model.gradient(atoms):
        for blocks in of_atom:
            assert len(blocks.pairs) == len(atoms)
            np.testing.assert_allclose(blocks.values, 0, atol=1e-14)
    assert model.gradient(atoms, []) == []


def test_large_structures_pass_in_chunks(model, monkeypatch):
    """One displacement at a time, and stage 1 a few edges at a time, written into one place."""
    atoms = STRUCTURES["slab"]
    u = displacements(atoms, 3)
    together = model.derivatives(atoms, u)
    monkeypatch.setattr(gradient, "EDGES", 1)
    monkeypatch.setattr(equivariant, "PREDICTION_EDGES", 8)
    for found, expected in zip(model.derivatives(atoms, u), together, strict=True):
        assert_close(found, expected.values)


def test_single_precision_is_good_to_its_rounding(model):
    atoms = STRUCTURES["slab"]
    u = displacements(atoms, 1)
    single = TrainedModel(network().float()).derivatives(atoms, u)[0]
    assert_close(single, model.derivatives(atoms, u)[0].values, 2e-5)


def test_devices_agree(model, device):
    atoms = STRUCTURES["slab"]
    u = displacements(atoms, 1)
    assert_close(TrainedModel(network(device=device)).derivatives(atoms, u)[0], model.derivatives(atoms, u)[0].values)


def test_what_does_not_fit_is_refused(model):
    atoms = STRUCTURES["pole"]
    for u in (np.zeros((3, 3)), np.zeros((1, 4, 3)), np.full((1, 3, 3), np.nan)):
        with pytest.raises(ValueError, match="displacements: expected"):
            model.derivatives(atoms, u)
    with pytest.raises(IndexError):
        model.gradient(atoms, [3])
    with pytest.raises(CheckpointError, match="the structure has N"):
        model.gradient(Atoms("CN", [[0, 0, 0], [0, 0, 1.2]]))
