"""What a loss must not feel, and what it is in closed form."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch_geometric.data import Batch

from ase_hybridham.model import PairGraph, TargetScale, Vocabulary, load_model
from ase_hybridham.store import DataSet, append_systems, set_splits
from ase_hybridham.symmetry import rotate_system
from ase_hybridham.system import LCAOSystem, PairBlocks
from ase_hybridham.train import PhaseConfig, TrainConfig, evaluate, hamiltonian_error, train
from ase_hybridham.train.loss import Loss, aligned, shifts, without_shift
from tests.train.synthetic import BASIS, OPTIONS, SPLITS, atoms_of, system_of

SPINS = ["none", "collinear", "spinor"]
KINDS = ["mse", "mae", "smooth_l1"]


def graph_of(system: LCAOSystem, vocabulary: Vocabulary) -> PairGraph:
    return PairGraph.with_targets(system.hamiltonian, vocabulary, 4, torch.float64, overlap=system.overlap)


def batch_of(systems: list[LCAOSystem], vocabulary: Vocabulary) -> PairGraph:
    return Batch.from_data_list([graph_of(system, vocabulary) for system in systems])


def noisy(system: LCAOSystem, seed: int = 0, size: float = 1e-2) -> LCAOSystem:
    """The same with a Hermitian error that obeys time reversal."""
    rng = np.random.default_rng(seed)
    other = tuple(
        h.with_values(h.values + rng.normal(scale=size, size=h.values.shape) * (h.values != 0)).hermitian_part()
        for h in system.hamiltonian
    )
    return replace(system, hamiltonian=other)


def shifted(system: LCAOSystem, eps: float) -> LCAOSystem:
    S = system.overlap
    assert S is not None
    S = S.to_spinor() if system.spin == "spinor" else S
    return replace(system, hamiltonian=tuple(h.with_values(h.values + eps * S.values) for h in system.hamiltonian))


@pytest.fixture(params=SPINS)
def case(request) -> tuple[list[LCAOSystem], list[LCAOSystem], Vocabulary]:
    """Structures, the same with errors, and what components mean."""
    exact = [system_of(atoms_of(seed), spin=request.param) for seed in range(3)]
    vocabulary = Vocabulary(BASIS, spin=request.param, time_reversal=False)
    return exact, [noisy(s, seed) for seed, s in enumerate(exact)], vocabulary


def loss_of(predicted: list[LCAOSystem], exact: list[LCAOSystem], vocabulary: Vocabulary, **options: Any) -> float:
    one, other = batch_of(predicted, vocabulary), batch_of(exact, vocabulary)
    scale = TargetScale(vocabulary).double()
    scale.fit([graph_of(system, vocabulary) for system in exact])
    loss = Loss(PhaseConfig(**options), vocabulary, scale)
    return float(loss(one.node_target - other.node_target, one.edge_target - other.edge_target, other))


class TestKinds:
    def test_mean_square_is_that_of_the_matrices(self, case):
        exact, predicted, vocabulary = case
        pairs = [(p, e) for one, other in zip(predicted, exact, strict=True) for p, e in operators(one, other)]
        d = np.concatenate([(p - e).values for p, e in pairs])
        d = np.concatenate([d.real, d.imag]) if np.iscomplexobj(d) else d
        assert loss_of(predicted, exact, vocabulary, loss="mse") == pytest.approx((d**2).mean(), rel=1e-10)

    def test_smooth_l1_lies_between_the_two(self, case):
        exact, predicted, vocabulary = case
        kinds = {kind: loss_of(predicted, exact, vocabulary, loss=kind) for kind in KINDS[:2]}
        wide = loss_of(predicted, exact, vocabulary, loss="smooth_l1", beta_meV=1e6)
        narrow = loss_of(predicted, exact, vocabulary, loss="smooth_l1", beta_meV=1e-6)
        assert wide * 2e3 == pytest.approx(kinds["mse"], rel=1e-10)
        assert narrow == pytest.approx(kinds["mae"], rel=1e-6)


def operators(one: LCAOSystem, other: LCAOSystem) -> list[tuple[PairBlocks, PairBlocks]]:
    return list(zip(one.hamiltonian, other.hamiltonian, strict=True))


class TestGauge:
    EPS = (0.3, -0.2, 0.05)  # eV

    @pytest.mark.parametrize("kind", KINDS)
    def test_shifts_of_single_structures_are_not_felt(self, case, kind):
        exact, predicted, vocabulary = case
        moved = [shifted(system, eps) for system, eps in zip(predicted, self.EPS, strict=True)]
        for extra in ({"scale_power": 0.5}, {"trace_weight": 1.0}, {}):
            options = {"loss": kind, "gauge_free": True, **extra}
            free = [loss_of(p, exact, vocabulary, **options) for p in (predicted, moved)]
            assert free[1] == pytest.approx(free[0], rel=1e-9)
        plain = [loss_of(p, exact, vocabulary, loss=kind) for p in (predicted, moved)]
        assert plain[1] > 1.1 * plain[0]
        if kind == "mse":  # least squares
            assert 0 < free[0] < plain[0]

    def test_shift_is_that_of_the_evaluation(self, case):
        exact, predicted, vocabulary = case
        moved = [shifted(system, eps) for system, eps in zip(predicted, self.EPS, strict=True)]
        one, other = batch_of(moved, vocabulary), batch_of(exact, vocabulary)
        node, edge = one.node_target - other.node_target, one.edge_target - other.edge_target
        mu = shifts(node, edge, other)
        expected = [
            hamiltonian_error(m.hamiltonian, e.hamiltonian, e.overlap).shift for m, e in zip(moved, exact, strict=True)
        ]
        np.testing.assert_allclose(1e3 * mu.numpy(), expected, rtol=1e-9)
        np.testing.assert_allclose(mu.numpy(), self.EPS, atol=0.02)
        left = shifts(*without_shift(node, edge, other, mu), other)
        np.testing.assert_allclose(left.numpy(), 0, atol=1e-12)

    def test_gradient_of_a_free_loss_has_no_part_along_s(self, case):
        exact, predicted, vocabulary = case
        one, other = batch_of(predicted, vocabulary), batch_of(exact, vocabulary)
        node = (one.node_target - other.node_target).requires_grad_()
        edge = (one.edge_target - other.edge_target).requires_grad_()
        Loss(PhaseConfig(gauge_free=True), vocabulary, TargetScale(vocabulary))(node, edge, other).backward()
        assert node.grad is not None
        assert edge.grad is not None
        along = shifts(node.grad, edge.grad, other)
        assert float(node.grad.abs().max()) > 1e-4
        np.testing.assert_allclose(along.numpy(), 0, atol=1e-15)

    def test_scales_of_aligned_targets_do_not_feel_shifts(self, case):
        exact, _, vocabulary = case
        moved = [shifted(system, eps) for system, eps in zip(exact, self.EPS, strict=True)]
        sigma = {}
        for name, systems in (("exact", exact), ("moved", moved)):
            scale, graphs = TargetScale(vocabulary).double(), [graph_of(system, vocabulary) for system in systems]
            scale.fit(graphs)
            sigma[name, "raw"] = scale.node_sigma.clone()
            scale.fit(aligned(graphs, scale))
            sigma[name, "aligned"] = scale.node_sigma
        known = sigma["exact", "raw"] > 1e-3
        assert (sigma["moved", "raw"][known] > 1.1 * sigma["exact", "raw"][known]).any()
        torch.testing.assert_close(sigma["moved", "aligned"], sigma["exact", "aligned"], rtol=0.05, atol=1e-4)

    def test_data_without_s(self, tmp_path):
        path = tmp_path / "d.h5"
        append_systems(path, [(n, replace(system_of(atoms_of(k)), overlap=None)) for k, n in enumerate("ad")])
        set_splits(path, {"train": ["a"], "val": ["d"]})
        phase = {"epochs": 1, "gauge_free": True}
        config = TrainConfig(data=path, output=tmp_path / "run", **{**OPTIONS, "phase1": phase})
        with pytest.raises(ValueError, match="structure a has no overlap, which gauge_free and cell_zero need"):
            train(config, progress=False)

    def test_orthogonal_basis_needs_no_s(self, tmp_path):
        """S = 1: the mean of the levels is free."""
        basis = replace(BASIS, orthogonal=True)
        systems = [(n, replace(system_of(atoms_of(k), basis), overlap=None)) for k, n in enumerate("ad")]
        append_systems(tmp_path / "d.h5", systems)
        set_splits(tmp_path / "d.h5", {"train": ["a"], "val": ["d"]})
        assert float(losses(tmp_path / "d.h5", tmp_path / "run", {"gauge_free": True})[-1]) > 0


def test_coefficients_of_the_cell_reach_the_checkpoint(data_set, tmp_path):
    """The same surroundings in a taller cell have another H."""
    atoms, high = atoms_of(7), atoms_of(7)
    high.set_cell(atoms.cell.array * [[1], [1], [2]])
    for coefficients in ({}, {"C": 5.0}):
        losses(data_set, tmp_path / f"run{len(coefficients)}", {"epochs": 1}, cell_zero=coefficients)
        model = load_model(tmp_path / f"run{len(coefficients)}/model.hham", "cpu")
        diagonal = [np.diag(model.predict(cell).block(0)) for cell in (atoms, high)]
        expected = -5.0 / atoms.cell.volume if coefficients else 0.0  # two C atoms in twice the volume
        np.testing.assert_allclose(diagonal[1] - diagonal[0], expected, atol=1e-6)


class TestScales:
    def test_weights_are_those_of_the_scales(self, case):
        """Power 2: squares of errors in units of their scale, up to one factor."""
        exact, predicted, vocabulary = case
        once, twice = predicted, [noisy(s, seed, 2e-2) for seed, s in enumerate(exact)]
        one = [loss_of(p, exact, vocabulary, loss="mse", scale_power=2.0) for p in (once, twice)]
        assert one[1] == pytest.approx(4 * one[0], rel=1e-9)
        flat = loss_of(once, exact, vocabulary, loss="mse", scale_power=1e-12)
        assert flat == pytest.approx(loss_of(once, exact, vocabulary, loss="mse"), rel=1e-9)
        other, graph = batch_of(exact, vocabulary), batch_of(once, vocabulary)
        scale = TargetScale(vocabulary).double()
        scale.fit([graph_of(system, vocabulary) for system in exact])
        above = below = 0.0
        onsite = [vocabulary.onsite_pair(int(s)) for s in other.species]
        for d, sigma, types in (
            (graph.node_target - other.node_target, scale.node_sigma[other.species], onsite),
            (graph.edge_target - other.edge_target, scale.edge_statistics(other)[1], other.element_pair.tolist()),
        ):
            for row, of_row, t in zip(d, sigma, types, strict=True):
                size = vocabulary.targets[t].direct_sum.size
                weight = 1 / of_row[:size].clamp(min=1e-3) ** 2
                above, below = above + float((weight * row[:size] ** 2).sum()), below + float(weight.sum())
        assert one[0] == pytest.approx(above / below, rel=1e-9)


class TestTrace:
    def test_norms_are_those_of_the_blocks_of_two_shells(self):
        vocabulary = Vocabulary(BASIS)
        exact = system_of(atoms_of(0))
        predicted = noisy(exact)
        shells = {6: [slice(0, 1), slice(1, 4)], 1: [slice(0, 1)]}
        expected = []
        for (one, other), numbers in zip(operators(predicted, exact), [exact.atoms.numbers], strict=True):
            for p in range(len(one.pairs)):
                for rows in shells[int(numbers[one.pairs.i[p]])]:
                    for columns in shells[int(numbers[one.pairs.j[p]])]:
                        norms = [np.linalg.norm(h.block(p)[rows, columns]) for h in (one, other)]
                        expected.append(abs(norms[0] - norms[1]))
        plain, both = (
            loss_of([predicted], [exact], vocabulary, loss="mae", trace_weight=weight) for weight in (0.0, 3.0)
        )
        assert both - plain == pytest.approx(3 * np.mean(expected), rel=1e-4)

    def test_vanishing_blocks_have_a_gradient(self):
        vocabulary = Vocabulary(BASIS)
        graph = graph_of(system_of(atoms_of(0)), vocabulary)
        node = (-graph.node_target).clone().requires_grad_()
        edge = (-graph.edge_target).clone().requires_grad_()
        Loss(PhaseConfig(trace_weight=1.0), vocabulary, TargetScale(vocabulary))(node, edge, graph).backward()
        assert node.grad is not None
        assert torch.isfinite(node.grad).all()


@pytest.mark.parametrize("options", [{}, {"gauge_free": True}, {"scale_power": 1.0}, {"trace_weight": 1.0}], ids=str)
def test_squares_do_not_feel_rotations(options, case):
    exact, predicted, vocabulary = case
    Q = Rotation.random(random_state=3).as_matrix()
    turned = [[rotate_system(system, Q) for system in systems] for systems in (predicted, exact)]
    before = loss_of(predicted, exact, vocabulary, loss="mse", **options)
    # the scales are fitted to the turned structures: they do not feel it either
    assert loss_of(*turned, vocabulary, loss="mse", **options) == pytest.approx(before, rel=1e-6)


def losses(data: Path, output: Path, phase: dict[str, Any], **options: Any) -> list[str]:
    short = {"epochs": 3, "learning_rate": 1e-2, "warmup_steps": 1, **phase}
    model = {**OPTIONS["model"], "stage2": None}
    config = TrainConfig(data=data, output=output, device="cpu", model=model, phase1=short, **options)
    train(config, progress=False)
    return [row.split(",")[2] for row in (output / "log.csv").read_text().splitlines()[1:]]


@pytest.mark.parametrize(
    "phase",
    [{"loss": "mae"}, {"gauge_free": True}, {"scale_power": 1.0}, {"trace_weight": 1.0}],
    ids=str,
)
def test_training_lowers_it(phase, data_set, tmp_path):
    found = [float(x) for x in losses(data_set, tmp_path / "run", phase)]
    assert found[-1] < found[0]


def test_best_epoch_of_free_training_is_chosen_gauge_free(data_set, tmp_path):
    """By the gauge-free error of the evaluation."""
    losses(data_set, tmp_path / "run", {"gauge_free": True})
    model = load_model(tmp_path / "run/model.hham", "cpu")
    with DataSet(data_set) as data:
        found = evaluate(model, data, SPLITS["val"], bands=False)
    best = model.metrics["phase1_valid_mae_meV"]
    assert best == pytest.approx(found.mean_of("stage1", "gauge_free_mae"), abs=2e-3)
    assert abs(best - found.mae_all("stage1")) > 1e-2
