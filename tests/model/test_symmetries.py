"""What holds for every structure, untrained weights included: both stages, the exactly equivariant frame.

Values are some eV up to tens of eV; float64 rounding through the layers stays below 1e-11 eV. The bilayer and the
tiny cell are symmetric: features that vanish there must stay rounding noise in every layer.
"""

from itertools import pairwise

import numpy as np
import pytest
from ase import Atoms
from scipy.spatial.transform import Rotation
from torch_geometric.data import Batch

from ase_hybridham.symmetry import DirectSum, alignment_matrices, rotate_blocks
from ase_hybridham.system import PairBlocks, PairList
from tests.model.networks import (
    MIXED,
    assert_same_blocks,
    network,
    rows_of,
    structure,
    turned_pairs,
)

EXACT = 1e-10
STAGES = ["mean", "stage1", "hybrid"]


@pytest.fixture(scope="module")
def cascade():
    return network()


def bilayer() -> Atoms:
    """Vertical pairs whose x and y are rounding noise, and atoms in reach of their own images."""
    noise = 1e-16 * np.random.default_rng(0).normal(size=(4, 2))
    positions = np.array([[0, 0, 0], [1.4, 0, 0], [0, 0, 3.1], [1.4, 0, 3.1]])
    positions[:, :2] += noise
    return Atoms("CSCMo", positions, cell=[3.1, 2.6, 20], pbc=[True, True, False])


STRUCTURES = {
    "slab": structure(MIXED, 10),
    "bulk": structure(MIXED, 11, n_atoms=6, pbc=(True, True, True)),
    "molecule": Atoms("CMoSSCCMo", np.random.default_rng(12).uniform(0, 4, size=(7, 3))),
    "poles": bilayer(),
    "tiny cell": Atoms("Mo", cell=[2.4, 2.5, 2.6], pbc=True),
    "one atom": Atoms("S", [[1.0, 2.0, 3.0]]),
    "no hopping": Atoms("CMoS", np.diag([9.0, 9.0, 9.0])),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("kind", ["rotation", "inversion", "reflection"])
def test_hamiltonian_turns_with_the_structure(cascade, name, stage, kind):
    atoms = STRUCTURES[name]
    pairs = PairList.from_atoms(atoms, MIXED.cutoffs())
    Q = Rotation.random(random_state=3).as_matrix()
    if kind == "reflection":
        Q = Q @ np.diag([1, 1, -1])
    if kind == "inversion":
        Q = -np.eye(3)
    before = cascade.predict(pairs, stage)
    after = cascade.predict(turned_pairs(atoms, pairs, Q), stage)
    np.testing.assert_allclose(after.values, rotate_blocks(before, Q).values, atol=EXACT, rtol=0)
    if pairs.n_hoppings and kind != "inversion":
        assert np.abs(after.values - before.values).max() > 0.1  # something had to turn


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_stage_adds_something(cascade, name):
    pairs = PairList.from_atoms(STRUCTURES[name], MIXED.cutoffs())
    blocks = [cascade.predict(pairs, stage) for stage in STAGES]
    values, n_onsite = [b.values for b in blocks], blocks[0].offsets[pairs.n_atoms]
    for one, next_one in pairwise(values):
        change = np.abs(one - next_one)
        assert change[:n_onsite].max() > 0.01
        assert change[n_onsite:].max(initial=0) > 0.01 or not pairs.n_hoppings
    np.testing.assert_array_equal(values[2], cascade.predict(pairs).values)
    assert np.isfinite(values).all()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", STRUCTURES)
def test_hamiltonian_is_hermitian_before_its_hermitian_part_is_taken(cascade, name, stage):
    pairs = PairList.from_atoms(STRUCTURES[name], MIXED.cutoffs())
    assert cascade.predict(pairs, stage).hermiticity_error() < EXACT


@pytest.mark.parametrize("stage", ["stage1", "hybrid"])
@pytest.mark.parametrize("name", ["slab", "bulk", "molecule", "tiny cell", "no hopping"])
def test_selection_rule(cascade, name, stage):
    """Unnatural parts vanish on-site, and at m = 0 in the frame of the edge."""
    h = cascade.predict(PairList.from_atoms(STRUCTURES[name], MIXED.cutoffs()), stage)
    frames = alignment_matrices(h.pairs.vectors, 4)
    unnatural_elsewhere = 0.0
    for elements, rows, blocks in h.groups():
        direct_sum = DirectSum(MIXED[elements[0]].degrees, MIXED[elements[1]].degrees)
        components = direct_sum.to_sum(blocks)
        for part in direct_sum.parts:
            if part.natural:
                continue
            turned = np.einsum("pmn,pn->pm", frames[part.L][rows], components[:, part.components])
            onsite = rows < h.pairs.n_atoms
            assert np.abs(turned[onsite]).max(initial=0) < EXACT
            assert np.abs(turned[~onsite, part.L]).max(initial=0) < EXACT
            unnatural_elsewhere = max(unnatural_elsewhere, np.abs(turned[~onsite]).max(initial=0))
    if name in ("slab", "bulk", "molecule"):
        assert unnatural_elsewhere > 0.01


@pytest.mark.parametrize("stage", ["stage1", "hybrid"])
class TestDescription:
    """The same matter described in another way."""

    def predict(self, cascade, atoms: Atoms, stage: str) -> PairBlocks:
        return cascade.predict(PairList.from_atoms(atoms, MIXED.cutoffs()), stage)

    @pytest.mark.parametrize("name", ["slab", "bulk", "molecule", "no hopping"])
    def test_order_of_atoms(self, cascade, stage, name):
        atoms = STRUCTURES[name]
        order = np.random.default_rng(0).permutation(len(atoms))
        h, permuted = self.predict(cascade, atoms, stage), self.predict(cascade, atoms[order], stage)
        p = permuted.pairs
        assert len(p) == len(h.pairs)
        assert_same_blocks(permuted, h, rows_of(h, order[p.i], order[p.j], p.shifts), EXACT)

    @pytest.mark.parametrize("name", ["slab", "bulk"])
    def test_atoms_moved_by_lattice_vectors(self, cascade, stage, name):
        atoms = STRUCTURES[name]
        moves = np.random.default_rng(1).integers(-2, 3, size=(len(atoms), 3)) * atoms.pbc
        assert moves.any()
        moved = atoms.copy()
        moved.positions += moves @ atoms.cell.array
        h, other = self.predict(cascade, atoms, stage), self.predict(cascade, moved, stage)
        p = other.pairs
        assert len(p) == len(h.pairs)
        assert_same_blocks(other, h, rows_of(h, p.i, p.j, p.shifts + moves[p.j] - moves[p.i]), EXACT)

    @pytest.mark.parametrize("name", ["slab", "tiny cell"])
    def test_supercell(self, cascade, stage, name):
        atoms, times = STRUCTURES[name], np.array([2, 3, 1])
        h, large = self.predict(cascade, atoms, stage), self.predict(cascade, atoms.repeat(times), stage)
        n, p = len(atoms), large.pairs
        cells = np.array(list(np.ndindex(*times)))  # the order of Atoms.repeat
        assert len(p) == 6 * len(h.pairs)
        shifts = p.shifts * times + cells[p.j // n] - cells[p.i // n]
        assert_same_blocks(large, h, rows_of(h, p.i % n, p.j % n, shifts), EXACT)

    def test_moved_origin(self, cascade, stage):
        atoms = STRUCTURES["molecule"].copy()
        h = self.predict(cascade, atoms, stage)
        atoms.positions += [3.0, -2.0, 40.0]
        np.testing.assert_allclose(self.predict(cascade, atoms, stage).values, h.values, atol=EXACT, rtol=0)

    def test_structures_of_a_batch_do_not_see_each_other(self, cascade, stage):
        names = ["slab", "one atom", "tiny cell", "no hopping", "molecule"]
        graphs = [cascade.graph(PairList.from_atoms(STRUCTURES[name], MIXED.cutoffs())) for name in names]
        node, edge = cascade(Batch.from_data_list(graphs), stage)
        nodes, edges = zip(*(cascade(graph, stage) for graph in graphs), strict=True)
        for together, alone in ((node, nodes), (edge, edges)):
            joined = np.concatenate([rows.detach().numpy() for rows in alone])
            np.testing.assert_allclose(together.detach().numpy(), joined, atol=EXACT, rtol=0)


def test_devices_agree(cascade, device):
    pairs = PairList.from_atoms(STRUCTURES["slab"], MIXED.cutoffs())
    np.testing.assert_allclose(
        network(device=device).predict(pairs).values, cascade.predict(pairs).values, atol=EXACT, rtol=0
    )


def test_single_precision_is_good_to_its_rounding(cascade):
    """1e-7 of some tens of eV, through a dozen layers."""
    pairs = PairList.from_atoms(STRUCTURES["bulk"], MIXED.cutoffs())
    exact = cascade.predict(pairs).values
    single = network().float().predict(pairs).values
    assert 0 < np.abs(single - exact).max() < 2e-4
