"""Statistics of |M| against distance, by brute force."""

import numpy as np
import pytest

from ase_hybridham.system import Decay, PairBlocks, PairList
from tests.conftest import random_atoms


def random_blocks(basis, seed: int, spinor: bool = False) -> PairBlocks:
    rng = np.random.default_rng(seed)
    pairs = PairList.from_atoms(random_atoms(seed), basis.cutoffs())
    zeros = PairBlocks.zeros(pairs, basis, spinor=spinor, dtype=complex if spinor else float)
    sizes = 10.0 ** rng.uniform(-6, 1, size=zeros.values.shape)
    return zeros.with_values(sizes * (np.exp(1j * rng.uniform(0, 6, size=sizes.shape)) if spinor else -1))


def brute(blocks: PairBlocks, names: str | None = None) -> dict[float, np.ndarray]:
    """End of each bin -> |M| of all elements in it."""
    found: dict[float, list] = {}
    symbols = {6: "C", 42: "Mo", 16: "S"}
    for p in range(len(blocks.pairs)):
        i, j = (symbols[int(blocks.pairs.numbers[n[p]])] for n in (blocks.pairs.i, blocks.pairs.j))
        if names is None or sorted((i, j)) == names.split("-"):
            end = 0.5 * (np.floor(blocks.pairs.distances[p] / 0.5) + 1) if p >= blocks.pairs.n_atoms else 0.0
            found.setdefault(float(end), []).extend(np.abs(blocks.block(p)).ravel())
    return {end: np.array(sizes) for end, sizes in sorted(found.items())}


@pytest.mark.parametrize("spinor", [False, True])
@pytest.mark.parametrize("pair", [None, "Mo-S", "Mo-Mo"])
def test_statistics_are_those_of_all_elements_in_a_bin(mixed_basis, spinor, pair):
    blocks = random_blocks(mixed_basis, 0, spinor)
    rows, expected = Decay.of(blocks).rows(*[pair] if pair else []), brute(blocks, pair)
    assert [row.end for row in rows] == list(expected)
    assert len(rows) > 2
    for row, sizes in zip(rows, expected.values(), strict=True):
        assert row.start == max(row.end - 0.5, 0)
        assert row.elements == len(sizes)
        assert row.mean == pytest.approx(sizes.mean())
        assert row.largest == sizes.max()
        for value, share in zip((row.low, row.median, row.high), (10, 50, 90), strict=True):
            exact = np.percentile(sizes, share, method="inverted_cdf")
            assert abs(np.log10(value / exact)) < 0.0501  # half a bin of a tenth of a decade


def test_a_sum_is_the_statistics_of_both(mixed_basis):
    one, other = (random_blocks(mixed_basis, seed) for seed in (1, 2))
    total = Decay.of(one) + Decay.of(other)
    first, second = brute(one), brute(other)
    assert set(total.pairs) >= set(Decay.of(one).pairs)
    for row in total.rows():
        sizes = np.concatenate([first.get(row.end, []), second.get(row.end, [])])
        assert (row.elements, row.largest) == (len(sizes), sizes.max())
        assert row.mean == pytest.approx(sizes.mean())
    assert sum((Decay.of(one) for _ in range(2)), Decay()).rows()[0].elements == 2 * Decay.of(one).rows()[0].elements


def test_zeros_are_counted_and_nothing_gives_nothing(mixed_basis):
    blocks = random_blocks(mixed_basis, 1)
    rows = Decay.of(blocks.with_values(np.zeros_like(blocks.values))).rows()
    assert sum(row.elements for row in rows) == len(blocks.values)
    assert {(row.low, row.median, row.high, row.mean, row.largest) for row in rows} == {(0, 0, 0, 0, 0)}
    assert Decay().rows() == []
