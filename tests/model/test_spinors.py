"""Networks for spinors: what holds with spin-orbit coupling for every structure, untrained weights included."""

import numpy as np
import pytest
from ase import Atoms
from scipy.spatial.transform import Rotation

from ase_hybridham.model import Cascade, Domain, TrainedModel, load_model, read_metadata, save_model
from ase_hybridham.solve import eigenvalues
from ase_hybridham.symmetry import (
    SpinorDirectSum,
    alignment_matrices,
    rotate_blocks,
    spinor_from_quaternion,
    time_reversal_error,
)
from ase_hybridham.system import AtomBasis, Basis, LCAOSystem, PairBlocks, PairList
from tests.model.networks import IRREPS, config, graph_of, network, perturb, random_hamiltonian, structure, turned_pairs

BASIS = Basis.of(
    AtomBasis.from_degrees("Bi", [0, 1, 2], valence=15, cutoff=2.3),
    AtomBasis.from_degrees("Te", [0, 1, 1], valence=6, cutoff=2.1),
    name="heavy",
)
WIDE = IRREPS + "+2x5o"  # d x d with a spin couples to degrees up to 5
STAGES = ["mean", "stage1", "hybrid"]
EXACT = 1e-10  # eV, as for networks without spin


def crystal(*, inverted: bool) -> Atoms:
    """Four atoms in a cell with a center of inversion, or not."""
    cell = np.array([[3.6, 0.1, 0.0], [0.2, 3.8, 0.3], [0.1, 0.2, 4.1]])
    half = np.array([[0.11, 0.17, 0.23], [0.31, 0.42, 0.68]])
    scaled = np.concatenate([half, -half if inverted else -half + 0.05 * np.sin(np.arange(6)).reshape(2, 3)])
    return Atoms("BiTeBiTe", scaled @ cell, cell=cell, pbc=True)


STRUCTURES = {
    "slab": structure(BASIS, 10),
    "molecule": Atoms("BiTeTeBi", np.random.default_rng(12).uniform(0, 3.5, size=(4, 3))),
    "poles": Atoms("BiTe", [[0, 0, 0], [0, 0, 2.8]], cell=[2.9, 3.0, 20], pbc=[True, True, False]),
    "one atom": Atoms("Bi", [[1.0, 2.0, 3.0]]),
}


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    return network(BASIS, config(WIDE), spin="spinor")


def pairs_of(atoms: Atoms) -> PairList:
    return PairList.from_atoms(atoms, BASIS.cutoffs())


def predicted_system(cascade: Cascade, atoms: Atoms) -> LCAOSystem:
    """With a positive definite S that turns with the structure: from another network, whose numbers are as random."""
    pairs = pairs_of(atoms)
    S = 2e-3 * network(BASIS, config(), seed=7).predict(pairs, "stage1").hermitian_part()
    for p in range(len(atoms)):
        S.block(p)[:] = np.eye(S.shape(p)[0])
    return LCAOSystem(atoms, (cascade.predict(pairs).hermitian_part(),), S, "spinor")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("kind", ["rotation", "inversion", "reflection"])
def test_hamiltonian_turns_with_the_structure_and_its_spins(cascade, name, stage, kind):
    atoms, Q = STRUCTURES[name], Rotation.random(random_state=3).as_matrix()
    Q = {"rotation": Q, "inversion": -np.eye(3), "reflection": Q @ np.diag([1, 1, -1])}[kind]
    pairs = pairs_of(atoms)
    before, after = cascade.predict(pairs, stage), cascade.predict(turned_pairs(atoms, pairs, Q), stage)
    np.testing.assert_allclose(after.values, rotate_blocks(before, Q).values, atol=EXACT, rtol=0)
    if kind != "inversion" and pairs.n_hoppings:
        assert np.abs(after.values - before.values).max() > 0.1


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", STRUCTURES)
def test_hermiticity_and_time_reversal_are_exact(cascade, name, stage):
    h = cascade.predict(pairs_of(STRUCTURES[name]), stage)
    assert h.spinor
    assert h.hermiticity_error() < EXACT
    for blocks in (h, h.hermitian_part()):
        assert time_reversal_error(blocks) < 1e-12


@pytest.mark.parametrize("stage", ["stage1", "hybrid"])
def test_every_allowed_part_is_there_and_no_other(cascade, stage):
    """Unnatural J vanish on-site, and at m = 0 in the frame of the edge; spin 0 and 1 are both predicted."""
    h = cascade.predict(pairs_of(STRUCTURES["slab"]), stage)
    frames = alignment_matrices(h.pairs.vectors, 5)
    for elements, rows, blocks in h.groups():
        direct_sum = SpinorDirectSum(BASIS[elements[0]].degrees, BASIS[elements[1]].degrees)
        components, onsite = direct_sum.to_sum(blocks).real, rows < h.pairs.n_atoms
        for part in direct_sum.parts:
            turned = np.einsum("pmn,pn->pm", frames[part.J][rows], components[:, part.components])
            size = np.abs(turned)
            if part.natural:
                assert size[~onsite].max() > 1e-5
                # the diagonal block of a shell with itself has no antisymmetric part
                own = part.row_shell == part.column_shell and (part.L + part.spin) % 2 == 1
                assert size[onsite].max(initial=0) > 1e-5 or own or not onsite.any()
            else:
                assert size[onsite].max(initial=0) < EXACT
                assert size[~onsite, part.J].max(initial=0) < EXACT
                assert size[~onsite].max(initial=0) > 1e-5 or part.J == 0


def trim_points() -> np.ndarray:
    return 0.5 * np.array(list(np.ndindex(2, 2, 2)))


def kramers_splitting(levels: np.ndarray) -> np.ndarray:
    """Largest distance within pairs of neighboring levels, per k-point, eV."""
    return (levels[0, :, 1::2] - levels[0, :, ::2]).max(axis=-1)


def test_bands_are_kramers_pairs(cascade):
    """At k = -k always, with inversion everywhere; and only there."""
    general = np.random.default_rng(0).uniform(-0.5, 0.5, size=(5, 3))
    system = predicted_system(cascade, crystal(inverted=False))
    levels = eigenvalues(system, np.concatenate([trim_points(), general]))
    splitting = kramers_splitting(levels)
    # eigenvalues of some tens of eV in float64
    assert splitting[:8].max() < 1e-8
    assert splitting[8:].min() > 1e-3
    np.testing.assert_allclose(eigenvalues(system, -general)[0], levels[0, 8:], atol=1e-8)
    centered = predicted_system(cascade, crystal(inverted=True))
    assert kramers_splitting(eigenvalues(centered, general)).max() < 1e-8


def test_spinless_part_alone_is_not_all(cascade):
    """Spin-orbit coupling is learned: H does not commute with the spin."""
    h = cascade.predict(pairs_of(STRUCTURES["slab"]))
    flipped = PairBlocks.from_groups(
        h.pairs, h.basis, {e: _spin_flipped(blocks) for e, _, blocks in h.groups()}, spinor=True
    )
    assert np.abs(h.values - flipped.values).max() > 0.1


def _spin_flipped(blocks: np.ndarray) -> np.ndarray:
    n_i, n_j = (n // 2 for n in blocks.shape[1:])
    left, right = (np.kron([[0, 1], [1, 0]], np.eye(n)) for n in (n_i, n_j))
    return left @ blocks @ right


@pytest.fixture(scope="module")
def magnetic() -> Cascade:
    cascade = Cascade(config(WIDE), Domain(BASIS, 4.6, 12.0, "spinor", time_reversal=False))
    perturb(cascade)
    training = []
    for seed in range(3):
        h = random_hamiltonian(structure(BASIS, seed), BASIS, seed, spinor=True)
        noise = np.random.default_rng(seed).normal(size=(2, len(h.values)))
        training.append(graph_of(h.with_values(h.values + noise[0] + 1j * noise[1]).hermitian_part(), cascade))
    cascade.scale1.fit(training)
    cascade.scale2.fit(training, centered=False)
    cascade.has_stage2.fill_(True)
    return cascade


class TestMagnetic:
    """Data that break time reversal: twice the outputs, the same symmetries else."""

    def test_twice_the_outputs(self, magnetic, cascade):
        assert magnetic.vocabulary.size == 2 * cascade.vocabulary.size
        h = magnetic.predict(pairs_of(STRUCTURES["slab"]))
        assert h.hermiticity_error() < EXACT
        assert time_reversal_error(h) > 0.1

    @pytest.mark.parametrize("kind", ["rotation", "inversion", "reflection"])
    def test_hamiltonian_turns_with_the_structure_and_its_spins(self, magnetic, kind):
        test_hamiltonian_turns_with_the_structure_and_its_spins(magnetic, "slab", "hybrid", kind)

    def test_checkpoint_knows(self, magnetic, tmp_path):
        save_model(tmp_path / "m.hham", TrainedModel(magnetic))
        assert read_metadata(tmp_path / "m.hham")["time_reversal"] is False
        assert load_model(tmp_path / "m.hham", device="cpu").cascade.domain == magnetic.domain


def test_global_frame_obeys_time_reversal_and_hermiticity():
    h = network(BASIS, config(WIDE, frame="global"), spin="spinor").predict(pairs_of(STRUCTURES["slab"]))
    assert h.hermiticity_error() < EXACT
    assert time_reversal_error(h) < 1e-12


class TestCheckpoint:
    def test_round_trip(self, cascade, tmp_path):
        save_model(tmp_path / "m.hham", TrainedModel(cascade))
        model = load_model(tmp_path / "m.hham", device="cpu")
        assert model.cascade.domain == cascade.domain
        assert (model.cascade.domain.spin, read_metadata(tmp_path / "m.hham")["spin"]) == ("spinor", "spinor")
        pairs = pairs_of(STRUCTURES["slab"])
        np.testing.assert_array_equal(model.cascade.predict(pairs).values, cascade.predict(pairs).values)
        assert model.predict(STRUCTURES["slab"]).spinor

    def test_checkpoints_without_a_word_on_time_reversal_load(self, tmp_path, monkeypatch):
        """Written before spinors were known."""
        from ase_hybridham.model import checkpoint

        plain, dumps = network(), checkpoint.json.dumps
        monkeypatch.setattr(
            checkpoint.json, "dumps", lambda m: dumps({k: v for k, v in m.items() if k != "time_reversal"})
        )
        save_model(tmp_path / "m.hham", TrainedModel(plain))
        assert "time_reversal" not in read_metadata(tmp_path / "m.hham")
        assert load_model(tmp_path / "m.hham", device="cpu").cascade.domain == plain.domain


def test_targets_even_under_time_reversal_lose_nothing(cascade):
    """A random Hamiltonian that obeys it comes back from the real components of its graph."""
    h = random_hamiltonian(STRUCTURES["slab"], BASIS, 3, spinor=True)
    assert np.abs(h.values.imag).max() > 1
    for elements, _, blocks in h.groups():
        components = cascade.vocabulary.direct_sum(elements).to_sum(blocks)
        assert np.abs(components.imag).max() < 1e-12
    with_field = spinor_from_quaternion(1j * np.ones((1, 4, 3, 3)))
    assert np.abs(SpinorDirectSum((1,), (1,)).to_sum(with_field).imag).max() > 0.1
