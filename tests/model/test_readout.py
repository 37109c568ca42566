"""From outputs to blocks: what the read-out makes Hermitian, and what it leaves alone."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ase_hybridham.io import read_system
from ase_hybridham.model import PairGraph, Vocabulary, blocks_from_components
from ase_hybridham.model.linear import row_types
from ase_hybridham.model.readout import Readout
from ase_hybridham.system import PairBlocks, PairList
from tests.model.networks import MIXED, structure

KINDS = [{}, {"spin": "spinor"}, {"spin": "spinor", "time_reversal": False, "selection": False}]


class Given(nn.Module):
    """A map whose outputs are the first numbers of its input rows."""

    def __init__(self, n_outputs: int) -> None:
        super().__init__()
        self.n_outputs = n_outputs

    def forward(self, rows: list[Tensor]) -> Tensor:
        return rows[0][:, : self.n_outputs]


def read_out(options: dict, *, hermitian: bool) -> tuple[PairBlocks, Vocabulary]:
    """Blocks of random outputs."""
    vocabulary = Vocabulary(MIXED, **options)
    pairs = PairList.from_atoms(structure(MIXED, 1, n_atoms=6), MIXED.cutoffs())
    graph = PairGraph.from_pairs(pairs, vocabulary, vocabulary.lmax, torch.float64)
    onsite = [vocabulary.targets[vocabulary.onsite_pair(s)] for s in range(vocabulary.n_species)]
    readout = Readout(
        vocabulary,
        [Given(int(t.onsite_scatter[0].max()) + 1) for t in onsite],
        [Given(int(t.scatter[0].max()) + 1) for t in vocabulary.targets],
        hermitian=hermitian,
    )
    node, edge = (
        torch.from_numpy(np.random.default_rng(seed).normal(size=(n, vocabulary.size)))
        for seed, n in enumerate((pairs.n_atoms, pairs.n_hoppings))
    )
    types = row_types(graph.species, vocabulary.n_species), row_types(graph.element_pair, vocabulary.n_pairs)
    out = readout([node], [edge], *types, graph.reverse)
    return blocks_from_components(*out, pairs, vocabulary)[0], vocabulary


@pytest.mark.parametrize("options", KINDS)
def test_free_outputs_have_the_hermitian_ones_as_their_hermitian_part(options):
    free, vocabulary = read_out(options, hermitian=False)
    hermitian, _ = read_out(options, hermitian=True)
    assert free.spinor == (vocabulary.spin == "spinor")
    assert free.hermiticity_error() > 0.1
    np.testing.assert_allclose(free.hermitian_part().values, hermitian.values, atol=1e-13)


@pytest.mark.parametrize("options", KINDS)
def test_every_component_that_is_allowed_is_an_output(options):
    """As many independent numbers as the read-out has places for; all of them without the selection rule."""
    free, vocabulary = read_out(options, hermitian=False)
    for elements, rows, blocks in free.groups():
        direct_sum = vocabulary.direct_sum(elements)
        components = np.real(direct_sum.to_sum(blocks))
        for onsite in (True, False):
            index = (rows < free.pairs.n_atoms) == onsite
            if index.any():
                h = components[index]
                assert vocabulary.targets[0].selection or (h != 0).all()
                if onsite:
                    forbidden = ~direct_sum.natural & vocabulary.targets[0].selection
                    np.testing.assert_array_equal(np.abs(h).max(axis=0) > 1e-12, ~forbidden)


@pytest.mark.parametrize("options", KINDS)
def test_blocks_give_their_components_back(options):
    """The way of a training target is the inverse of the way of a prediction."""
    blocks, vocabulary = read_out(options, hermitian=False)
    graph = PairGraph.with_targets((blocks,), vocabulary, vocabulary.lmax, torch.float64)
    (again,) = blocks_from_components(graph.node_target, graph.edge_target, blocks.pairs, vocabulary)
    np.testing.assert_allclose(again.values, blocks.values, atol=1e-12)


def test_real_spin_orbit_coupling_needs_no_other_output(golden):
    """Bismuthene from OpenMX, with half the components and the selection rule."""
    h = read_system(golden / "openmx/Bi_bismuthene_soc/deeph").hamiltonian[0]
    vocabulary = Vocabulary(h.basis, spin="spinor")
    graph = PairGraph.with_targets((h,), vocabulary, vocabulary.lmax, torch.float64)
    (target,) = vocabulary.targets
    assert target.direct_sum.size == 4 * 19**2
    node, edge = (
        torch.from_numpy(rows.numpy() * np.abs(sign))
        for rows, sign in ((graph.node_target, target.onsite_scatter[1]), (graph.edge_target, target.scatter[1]))
    )
    (again,) = blocks_from_components(node, edge, h.pairs, vocabulary)
    # eV: OpenMX keeps a spin density (1.6e-7) and integrates on a grid (1e-7)
    assert np.abs(again.values - h.values).max() < 5e-7
    assert np.abs(h.values.imag).max() > 1.0
