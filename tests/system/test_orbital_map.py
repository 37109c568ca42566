"""Mean sizes of matrix elements by orbitals against a loop."""

from collections import defaultdict

import numpy as np
import pytest

from ase_hybridham.system import AtomBasis, OrbitalMap, PairBlocks, PairList
from ase_hybridham.system.orbital_map import orbital_names, shell_names
from tests.conftest import random_atoms


def random_blocks(basis, seed: int = 0, n_atoms: int = 5, *, spinor: bool = False) -> PairBlocks:
    pairs = PairList.from_atoms(random_atoms(seed, n_atoms), basis.cutoffs())
    zeros, rng = PairBlocks.zeros(pairs, basis, spinor=spinor), np.random.default_rng(seed)
    values = rng.normal(size=zeros.values.shape)
    return zeros.with_values(values + 2j * rng.normal(size=values.shape) if spinor else values)


def loop(blocks: PairBlocks) -> dict:
    """(pair, kind, a, b) -> numbers, one at a time."""
    numbers, spins = defaultdict(list), 2 if blocks.spinor else 1
    symbols = [blocks.basis[int(z)].symbol for z in blocks.pairs.numbers]
    for p, (i, j) in enumerate(zip(blocks.pairs.i, blocks.pairs.j, strict=True)):
        block, kind = blocks.block(p), "onsite" if p < blocks.pairs.n_atoms else "hopping"
        first, second = symbols[i], symbols[j]
        if first > second:
            first, second, block = second, first, block.T
        n, m = (length // spins for length in block.shape)
        for (a, b), value in np.ndenumerate(block):
            parts = [value.real, value.imag] if blocks.spinor else [value]
            numbers[f"{first}-{second}", kind, a % n, b % m] += [abs(part) for part in parts]
    return numbers


@pytest.mark.parametrize("spinor", [False, True])
def test_means_are_those_of_a_loop(mixed_basis, spinor):
    blocks = random_blocks(mixed_basis, 1, spinor=spinor)
    found, expected = OrbitalMap.of([blocks]), loop(blocks)
    assert {key[:2] for key in expected} == set(found.panels)
    for (pair, kind, a, b), numbers in expected.items():
        assert found.panels[pair, kind].mean[a, b] == pytest.approx(np.mean(numbers))
    everything = np.concatenate(list(expected.values()))
    assert found.mean() == pytest.approx(everything.mean())
    assert len({kind for _, kind in found.panels}) == 2


def test_shells_are_means_over_their_orbitals(mixed_basis):
    panel = OrbitalMap.of([random_blocks(mixed_basis)]).panels["C-Mo", "hopping"]
    rows, columns = mixed_basis["C"].slices, mixed_basis["Mo"].slices
    expected = [[panel.mean[a, b].mean() for b in columns] for a in rows]
    np.testing.assert_allclose(panel.shell_means(), expected)
    assert np.shape(expected) == (5, 3)


def test_every_structure_counts_alike_and_panels_add_up(mixed_basis):
    blocks = [random_blocks(mixed_basis, seed, n_atoms) for seed, n_atoms in enumerate((3, 9))]
    large = blocks[1].with_values(3.0 * blocks[1].values)
    total = OrbitalMap.of([blocks[0]]) + OrbitalMap.of([large])
    means = [np.abs(b.values).mean() for b in (blocks[0], large)]
    assert total.mean() == pytest.approx(np.mean(means))
    assert abs(np.mean(means) - np.abs(np.concatenate([blocks[0].values, large.values])).mean()) > 0.1
    panels = total.panels.values()
    assert sum(total.share(panel) for panel in panels) == pytest.approx(1)
    assert sum(total.share(panel) * panel.mean.mean() for panel in panels) == pytest.approx(total.mean())
    assert [kind for _, kind in total.panels] == sorted((kind for _, kind in total.panels), reverse=True)


def test_up_and_down_count_alike(mixed_basis):
    up = random_blocks(mixed_basis)
    both = OrbitalMap.of([up, up.with_values(3.0 * up.values)])
    assert both.mean() == pytest.approx(2 * OrbitalMap.of([up]).mean())


def test_names_of_shells_and_orbitals(mixed_basis):
    assert shell_names(mixed_basis["C"]) == ["s1", "s2", "p1", "p2", "d1"]
    names = orbital_names(mixed_basis["Mo"])
    assert names == ["s1", "p1 y", "p1 z", "p1 x", "d1 xy", "d1 yz", "d1 z2", "d1 xz", "d1 x2-y2"]
    assert orbital_names(AtomBasis.from_degrees("C", [3]))[:2] == ["f1 m=-3", "f1 m=-2"]
