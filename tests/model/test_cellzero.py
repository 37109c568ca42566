"""H carries a shift that depends on the cell, and the network that knows its coefficients predicts it for any cell."""

from typing import Literal

import numpy as np
import pytest
import torch
from ase import Atoms
from torch_geometric.data import Batch

from ase_hybridham.model import Cascade, Domain, PairGraph, TargetScale, Vocabulary
from ase_hybridham.overlap import overlap_from_basis
from ase_hybridham.system import PairBlocks, PairList
from tests.model.networks import config, perturb
from tests.overlap.radial_data import openmx_basis

BASIS = openmx_basis(["H", "C"])
COEFFICIENTS = {"C": 10.0, "H": -4.0}  # eV angstrom^3


def molecule(seed: int, height: float = 8.0) -> Atoms:
    rng = np.random.default_rng(seed)
    positions = np.array([[0, 0, 4.0], [1.3, 0.4, 4.2], [-0.9, 0.5, 4.1], [1.9, -0.4, 4.6]])
    cell = np.diag([5.0, 5.5, height])
    return Atoms("CCHH", positions + rng.normal(scale=0.1, size=(4, 3)), cell=cell, pbc=(True, True, False))


def overlap_of(atoms: Atoms) -> PairBlocks:
    return overlap_from_basis(atoms, BASIS, PairList.from_atoms(atoms, BASIS.cutoffs()))


def shift_of(atoms: Atoms) -> float:
    return sum(COEFFICIENTS[symbol] for symbol in atoms.symbols) / atoms.cell.volume


def graph_of(
    atoms: Atoms, vocabulary: Vocabulary, spin: Literal["none", "collinear", "spinor"] = "none", shift: float = 1.0
) -> PairGraph:
    """The target is what depends on the cell, and a constant of the elements in all blocks on site."""
    S = overlap_of(atoms)
    h = S.with_values(shift * shift_of(atoms) * S.values)
    h = h.to_spinor() if spin == "spinor" else h
    operators = (h, h) if spin == "collinear" else (h,)
    return PairGraph.with_targets(operators, vocabulary, 4, torch.float64, overlap=S)


@pytest.fixture(scope="module")
def training() -> list[Atoms]:
    return [molecule(seed, 8.0 + 0.5 * seed) for seed in range(8)]


@pytest.mark.parametrize("spin", ["none", "collinear", "spinor"])
def test_shift_of_a_cell_that_was_not_there(spin, training):
    """mu_0 S with a polynomial for S: of other distances and another volume; a batch of two cells."""
    vocabulary = Vocabulary(BASIS, spin=spin)
    scale = TargetScale(vocabulary).double()
    graphs = [graph_of(atoms, vocabulary, spin) for atoms in training]
    scale.zero.fit(graphs, COEFFICIENTS)
    batch = Batch.from_data_list([graph_of(molecule(20, height), vocabulary, spin) for height in (6.5, 20.0)])
    node, edge = scale.zero(batch)
    assert float(batch.node_target.abs().max()) > 0.02
    assert float(batch.edge_target.abs().max()) > 0.01
    torch.testing.assert_close(node, batch.node_target, atol=1e-9, rtol=0)
    torch.testing.assert_close(edge, batch.edge_target, atol=3e-5, rtol=0)  # 0.2 % of the shift
    scale.fit(graphs)  # nothing is left to be scaled
    assert float(scale.node_sigma.max()) < 1e-4
    assert float(scale.mean.abs().max()) < 1e-4


def network(training: list[Atoms], coefficients: dict[str, float]) -> Cascade:
    torch.manual_seed(0)
    cascade = Cascade(config(updates=1), Domain(BASIS, 2 * max(BASIS.cutoffs().values()), 12.0))
    perturb(cascade)
    graphs = [graph_of(atoms, cascade.vocabulary, shift=3.0) for atoms in training]
    if coefficients:
        cascade.scale1.zero.fit(graphs, coefficients)
    cascade.scale1.fit(graphs)
    return cascade


def test_prediction_moves_with_the_cell(training):
    """The same surroundings in a taller cell: H differs by mu_0 S, which only the cell tells."""
    cascade = network(training, COEFFICIENTS)
    low, high = molecule(20, 7.0), molecule(20, 14.0)
    one, other = (cascade.predict(PairList.from_atoms(atoms, BASIS.cutoffs())) for atoms in (low, high))
    expected = (shift_of(high) - shift_of(low)) * overlap_of(low).values
    assert np.abs(one.values).max() > 0.1
    np.testing.assert_allclose(other.values - one.values, expected, atol=3e-5)
    assert other.hermiticity_error() < 1e-12
    without = network(training, {})
    one, other = (without.predict(PairList.from_atoms(atoms, BASIS.cutoffs())) for atoms in (low, high))
    np.testing.assert_allclose(other.values, one.values, atol=1e-12)


def test_no_cell_is_an_infinite_one(training):
    cascade = network(training, COEFFICIENTS)
    flat = molecule(20)
    flat.set_cell(np.diag([5.0, 5.5, 0.0]))
    far = molecule(20, 1e12)
    one, other = (cascade.predict(PairList.from_atoms(atoms, BASIS.cutoffs())).values for atoms in (flat, far))
    np.testing.assert_allclose(one, other, atol=1e-9)


def test_checkpoints_without_it_load(training):
    cascade = network(training, {})
    tensors = {name: tensor for name, tensor in cascade.state_dict().items() if ".zero." not in name}
    assert len(tensors) < len(cascade.state_dict())
    other = network(training[:2], {})
    other.load_state_dict(tensors)
    assert not other.scale1.zero.is_active
    pairs = PairList.from_atoms(molecule(20), BASIS.cutoffs())
    np.testing.assert_array_equal(other.predict(pairs).values, cascade.predict(pairs).values)


def test_elements_that_are_not_there(training):
    with pytest.raises(ValueError, match=r"cell_zero: expected elements of the training split \(H, C\), got 'Mo'"):
        network(training, {"Mo": 1.0})
