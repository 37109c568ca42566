"""Networks of two operators, up and down: symmetries, derivatives, checkpoints."""

import numpy as np
import pytest
import torch
from ase import Atoms
from scipy.spatial.transform import Rotation

from ase_hybridham.errors import CheckpointError
from ase_hybridham.model import (
    Cascade,
    Domain,
    PairGraph,
    TrainedModel,
    Vocabulary,
    blocks_from_components,
    load_model,
    read_metadata,
    save_model,
)
from ase_hybridham.symmetry import CollinearDirectSum, alignment_matrices, rotate_blocks
from ase_hybridham.system import PairBlocks, PairList
from tests.model.networks import MIXED, config, perturb, random_hamiltonian, structure, turned_pairs

STAGES = ["mean", "stage1", "hybrid"]
EXACT = 1e-10  # eV, of some eV
SPLITTING = 0.05  # of the mean


def hamiltonian(atoms, seed: int = 0) -> tuple[PairBlocks, PairBlocks]:
    mean, splitting = (random_hamiltonian(atoms, MIXED, s) for s in (seed, seed + 100))
    return mean + SPLITTING * splitting, mean - SPLITTING * splitting


def collinear(settings=None) -> Cascade:
    """A hybrid without a zero in it, fitted to operators that differ by a twentieth."""
    torch.manual_seed(0)
    cascade = Cascade(settings or config(), Domain(MIXED, 2 * max(MIXED.cutoffs().values()), 12.0, "collinear"))
    perturb(cascade)
    graphs = [
        PairGraph.with_targets(hamiltonian(structure(MIXED, s), s), cascade.vocabulary, cascade.lmax, cascade.dtype)
        for s in range(3)
    ]
    cascade.scale1.fit(graphs)
    cascade.scale2.fit(graphs, centered=False)
    cascade.has_stage2.fill_(True)
    return cascade


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    return collinear()


@pytest.fixture(scope="module")
def atoms():
    return structure(MIXED, 4, n_atoms=6)


def test_targets_come_back_in_the_frames_of_the_edges(atoms):
    vocabulary, h = Vocabulary(MIXED, spin="collinear"), hamiltonian(atoms)
    graph = PairGraph.with_targets(h, vocabulary, vocabulary.lmax, torch.float64)
    again = blocks_from_components(graph.node_target, graph.edge_target, h[0].pairs, vocabulary)
    assert np.abs(h[0].values - h[1].values).max() > 0.1
    for found, expected in zip(again, h, strict=True):
        np.testing.assert_allclose(found.values, expected.values, atol=1e-12)
    with pytest.raises(ValueError, match=r"expected 2 operator\(s\), got 1"):
        PairGraph.with_targets(h[:1], vocabulary, vocabulary.lmax)


def test_mean_and_splitting_have_scales_of_their_own(cascade):
    """Fitted to noise of 1 and 0.05: the outputs of the network are alike in size for both."""
    for t, target in enumerate(cascade.vocabulary.targets):
        half, met = target.direct_sum.size // 2, cascade.scale1.knots[t] < torch.inf
        sigma = cascade.scale1.log_sigma[t, met][:, 3].exp()
        ratio = (sigma[:, half : 2 * half] / sigma[:, :half]).log().mean().exp()
        assert 0.5 * SPLITTING < float(ratio) < 2 * SPLITTING


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", ["rotation", "reflection"])
def test_both_operators_turn_with_the_structure_and_are_hermitian(cascade, atoms, stage, kind):
    Q = Rotation.random(random_state=3).as_matrix() @ np.diag([1, 1, 1 if kind == "rotation" else -1])
    pairs = PairList.from_atoms(atoms, MIXED.cutoffs())
    before, after = cascade.hamiltonian(pairs, stage), cascade.hamiltonian(turned_pairs(atoms, pairs, Q), stage)
    assert len(before) == 2
    assert np.abs(before[0].values - before[1].values).max() > 0.01
    for h, h_turned in zip(before, after, strict=True):
        assert np.abs(h_turned.values - h.values).max() > 0.1
        np.testing.assert_allclose(h_turned.values, rotate_blocks(h, Q).values, atol=EXACT, rtol=0)
        assert h.hermiticity_error() < EXACT


@pytest.mark.parametrize("stage", STAGES)
def test_order_of_the_atoms_does_not_matter(cascade, atoms, stage):
    order = np.random.default_rng(1).permutation(len(atoms))
    place = np.argsort(order)
    pairs = PairList.from_atoms(atoms, MIXED.cutoffs())
    permuted = PairList.from_indices(atoms[order], place[pairs.i], place[pairs.j], pairs.shifts)
    ends = zip(permuted.i, permuted.j, permuted.shifts.tolist(), strict=True)
    key = {(i, j, *shift): p for p, (i, j, shift) in enumerate(ends)}
    for h, other in zip(cascade.hamiltonian(pairs, stage), cascade.hamiltonian(permuted, stage), strict=True):
        for p in range(len(pairs)):
            q = key[place[pairs.i[p]], place[pairs.j[p]], *pairs.shifts[p].tolist()]
            np.testing.assert_allclose(other.block(q), h.block(p), atol=EXACT, rtol=0)


@pytest.mark.parametrize("stage", ["stage1", "hybrid"])
def test_selection_rule_holds_for_mean_and_splitting(cascade, atoms, stage):
    """Unnatural parts vanish on-site and at m = 0 in the frame of the bond; all others are there, in both halves."""
    up, down = cascade.hamiltonian(PairList.from_atoms(atoms, MIXED.cutoffs()), stage)
    frames = alignment_matrices(up.pairs.vectors, 4)
    for (elements, rows, blocks), (_, _, others) in zip(up.groups(), down.groups(), strict=True):
        direct_sum = CollinearDirectSum(MIXED[elements[0]].degrees, MIXED[elements[1]].degrees)
        components, onsite = direct_sum.to_sum(np.stack([blocks, others], axis=1)), rows < up.pairs.n_atoms
        for part in direct_sum.parts:
            size = np.abs(np.einsum("pmn,pn->pm", frames[part.L][rows], components[:, part.components]))
            if part.natural:
                assert size[~onsite].max() > 1e-5
            else:
                assert size[onsite].max(initial=0) < EXACT
                assert size[~onsite, part.L].max(initial=0) < EXACT


def test_global_frame_predicts_both(atoms):
    up, down = collinear(config(frame="global")).hamiltonian(PairList.from_atoms(atoms, MIXED.cutoffs()))
    assert np.isfinite(up.values).all()
    assert max(up.hermiticity_error(), down.hermiticity_error()) < EXACT


class TestTrainedModel:
    """What users call."""

    def test_one_operator_is_given_by_its_spin(self, cascade, atoms):
        model = TrainedModel(cascade)
        both = model.hamiltonian(atoms)
        for spin in (0, 1):
            np.testing.assert_array_equal(model.predict(atoms, spin=spin).values, both[spin].values)
            assert both[spin].hermiticity_error() == 0
        for call in (model.predict, model.gradient, lambda a: model.derivatives(a, np.zeros((1, len(a), 3)))):
            with pytest.raises(ValueError, match=r"spin: .*two operators; give spin=0 \(up\) or 1"):
                call(atoms)
        with pytest.raises(ValueError, match="spin: expected 0 or 1, got 2"):
            model.predict(atoms, spin=2)

    def test_derivatives_are_those_of_differences(self, cascade):
        model, atoms, step = TrainedModel(cascade), structure(MIXED, 4, n_atoms=3, pbc=(False, False, False)), 1e-4
        pairs = PairList.from_atoms(atoms, MIXED.cutoffs())
        u = np.random.default_rng(2).normal(size=(len(atoms), 3))

        def moved(s: float) -> tuple[PairBlocks, ...]:
            there = atoms.copy()
            there.positions += s * u
            return model.hamiltonian(there, PairList.from_indices(there, pairs.i, pairs.j, pairs.shifts))

        for spin, (ahead, behind) in enumerate(zip(moved(step), moved(-step), strict=True)):
            (found,) = model.derivatives(atoms, u[None], pairs, spin=spin)
            expected = (ahead.values - behind.values) / (2 * step)
            # the error of a difference is of the order step^2 times the third derivative
            np.testing.assert_allclose(found.values, expected, atol=1e-5 * np.abs(expected).max())
        assert model.gradient(atoms, [0], spin=1)[0][2].hermiticity_error() == 0

    def test_checkpoint_keeps_the_spin(self, cascade, atoms, tmp_path):
        save_model(tmp_path / "m.hham", TrainedModel(cascade))
        assert read_metadata(tmp_path / "m.hham")["spin"] == "collinear"
        loaded = load_model(tmp_path / "m.hham", "cpu")
        assert loaded.spin == "collinear"
        for found, expected in zip(loaded.hamiltonian(atoms), TrainedModel(cascade).hamiltonian(atoms), strict=True):
            np.testing.assert_array_equal(found.values, expected.values)

    def test_a_net_of_one_operator_knows_no_second_spin(self, atoms):
        model = TrainedModel(Cascade(config(), Domain(MIXED, 5.0, 12.0)))
        assert model.spin == "none"
        (h,) = model.hamiltonian(atoms)
        np.testing.assert_array_equal(model.predict(atoms, spin=0).values, h.values)
        with pytest.raises(ValueError, match="spin: expected 0, got 1"):
            model.predict(atoms, spin=1)
        with pytest.raises(CheckpointError, match="trained for"):
            model.hamiltonian(Atoms("H"))
