"""H part by part, in one process or several, is H of the whole: exact to rounding, and exactly Hermitian."""

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from ase import Atoms
from torch import Tensor

from ase_hybridham.model import Cascade, blocks_from_components
from ase_hybridham.system import PairBlocks, PairList
from tests.model.networks import CARBON, MIXED, config, network, structure
from tests.model.test_collinear import collinear
from tests.model.test_locality import with_norm

ATOMS = structure(MIXED, 11, n_atoms=7, pbc=(True, True, True))
EXACT = 1e-11  # eV, of some 10 eV


class Threads:
    """Processes that are threads."""

    def __init__(self, rank: int, barrier: threading.Barrier, slots: list) -> None:
        self.rank, self.size, self.n_local, self.barrier, self.slots = rank, len(slots), 1, barrier, slots

    def exchange(self, rows: Tensor) -> list[Tensor]:
        self.slots[self.rank] = rows.clone()
        self.barrier.wait()
        found = list(self.slots)
        self.barrier.wait()
        return found

    def joined(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        found = self.exchange(rows)
        assert [len(each) for each in found] == list(counts)
        return torch.cat(found)

    def add_up(self, rows: Tensor) -> Tensor:
        return torch.stack(self.exchange(rows)).sum(0)

    def collected(self, rows: Tensor, counts: Sequence[int]) -> Iterator[Tensor]:
        found = self.exchange(rows)
        assert [len(each) for each in found] == list(counts)
        yield from found if self.rank == 0 else []


def pairs_of(atoms: Atoms) -> PairList:
    return PairList.from_atoms(atoms, MIXED.cutoffs())


def whole(cascade: Cascade, pairs: PairList, stage: str | None = None) -> tuple[PairBlocks, ...]:
    with torch.no_grad():
        return blocks_from_components(*cascade(cascade.graph(pairs), stage), pairs, cascade.vocabulary)


def shared(cascade: Cascade, pairs: PairList, size: int) -> tuple[PairBlocks, ...]:
    """What the first of several threads returns."""
    barrier, slots, found = threading.Barrier(size, timeout=60), [None] * size, {}

    def work(rank: int) -> None:
        try:
            found[rank] = cascade.hamiltonian(pairs, processes=Threads(rank, barrier, slots))
        except BaseException:
            barrier.abort()
            raise

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[rank] for rank in range(1, size)] == [()] * (size - 1)
    return found[0]


def assert_same(found: tuple[PairBlocks, ...], expected: tuple[PairBlocks, ...]) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        assert np.abs(theirs.values).max() > 0.5
        np.testing.assert_allclose(mine.values, theirs.values, rtol=0, atol=EXACT * np.abs(theirs.values).max())
        assert np.array_equal(mine.adjoint().values, mine.values)


NETWORKS = {
    "default": network,
    "spinors": lambda: network(CARBON, spin="spinor"),
    "collinear": collinear,
    "global": lambda: network(settings=config(frame="global", n_blocks=2)),
    "shifted": lambda: network(settings=config(feature_shift=1, invariants="tuples", residual="paper")),
    "one group, told nothing": lambda: network(settings=config(feature_shift=1, n_groups=1)),
    "two groups of three": lambda: network(settings=config(n_groups=2)),
    "one update": lambda: network(settings=config(updates=1)),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_parts_are_the_whole(monkeypatch, kind):
    cascade = NETWORKS[kind]()
    basis = cascade.domain.basis
    pairs = PairList.from_atoms(structure(basis, 11, n_atoms=7, pbc=(True, True, True)), basis.cutoffs())
    expected = whole(cascade, pairs)
    for n_edges in (1, 40, 4000):
        monkeypatch.setattr("ase_hybridham.model.cascade.PREDICTION_EDGES", n_edges)
        assert_same(cascade.hamiltonian(pairs), expected)
    assert_same(shared(cascade, pairs, 3), expected)


@pytest.mark.parametrize("stage", ["mean", "stage1", "hybrid"])
def test_every_stage(monkeypatch, stage):
    monkeypatch.setattr("ase_hybridham.model.cascade.PREDICTION_EDGES", 30)
    monkeypatch.setattr("ase_hybridham.model.cascade.ROWS", 7)
    monkeypatch.setattr("ase_hybridham.model.streaming.ROWS", 7)
    cascade, pairs = network(), pairs_of(ATOMS)
    assert_same(cascade.hamiltonian(pairs, stage), whole(cascade, pairs, stage))


@pytest.mark.parametrize("size", [2, 7])
def test_processes_with_few_atoms_each(size):
    cascade, pairs = network(), pairs_of(ATOMS)
    assert_same(shared(cascade, pairs, size), whole(cascade, pairs))
    processes = Threads(0, threading.Barrier(1), [None] * 8)
    with pytest.raises(ValueError, match="processes: expected at most one per atom, got 8 for 7 atoms"):
        cascade.hamiltonian(pairs, processes=processes)


@pytest.mark.parametrize(("n", "pbc"), [(1, False), (1, True), (3, False)])
def test_few_pairs(n, pbc):
    """An atom alone, with its images only, and atoms out of each other's reach."""
    atoms = Atoms(
        ["Mo", "S", "C"][:n], [(9.0 * k, 0, 0) for k in range(n)], cell=[2.3, 30, 30], pbc=[pbc, False, False]
    )
    cascade, pairs = network(), pairs_of(atoms)
    assert (pairs.n_hoppings > 0) == pbc
    assert_same(cascade.hamiltonian(pairs), whole(cascade, pairs))


def test_weights_in_single_precision():
    cascade, pairs = network().float(), pairs_of(ATOMS)
    (found,), (expected,) = cascade.hamiltonian(pairs), whole(cascade, pairs)
    np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=2e-5 * np.abs(expected.values).max())
    assert found.values.dtype == np.float64


def test_values_are_written_where_one_wants(tmp_path):
    cascade, pairs = network(), pairs_of(ATOMS)
    (expected,) = cascade.hamiltonian(pairs)
    values = np.memmap(tmp_path / "H", np.float64, "w+", shape=expected.values.shape)
    (found,) = cascade.hamiltonian(pairs, out=[values])
    assert found.values is values
    assert np.array_equal(np.fromfile(tmp_path / "H"), expected.values)
    with pytest.raises(ValueError, match=r"out: expected 1 array\(s\) of float64, got float32"):
        cascade.hamiltonian(pairs, out=[values.astype(np.float32)])


def test_features_in_files(tmp_path, monkeypatch):
    """None of which is left."""
    monkeypatch.setattr("ase_hybridham.model.cascade.PREDICTION_EDGES", 40)
    cascade, pairs = network(), pairs_of(ATOMS)
    (expected,), (found,) = cascade.hamiltonian(pairs), cascade.hamiltonian(pairs, scratch=tmp_path)
    assert np.array_equal(found.values, expected.values)
    assert not [*tmp_path.iterdir()]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        cascade.hamiltonian(pairs, scratch=tmp_path / "nowhere")


def test_refused_before_memory_is_taken(monkeypatch, caplog):
    cascade, pairs = network(), pairs_of(ATOMS)
    need, in_files, shared = (cascade.memory(pairs, **o) for o in ({}, {"scratch": True}, {"n_processes": 2}))
    values = cascade.hamiltonian(pairs)[0].values.nbytes
    assert values < in_files < need
    assert values < shared < need
    monkeypatch.setattr("ase_hybridham.model.cascade.available_memory", lambda: need - 1)
    message = (
        r"H of 7 atoms: expected 0\.0 GB of free memory, got 0\.0; give scratch= \(--scratch\), a folder .* or start"
    )
    with pytest.raises(ValueError, match=message):
        cascade.hamiltonian(pairs)
    monkeypatch.setattr("ase_hybridham.model.cascade.WORTH_TELLING", 0)
    monkeypatch.setattr("ase_hybridham.model.cascade.available_memory", lambda: need)
    with caplog.at_level("INFO", logger="ase_hybridham.model.cascade"):
        cascade.hamiltonian(pairs)
    assert caplog.messages == ["H of 7 atoms takes 0.0 GB of memory, 0.0 are free"]


def test_norms_over_the_structure_need_one_process():
    cascade, pairs = network(settings=with_norm("graph", config())), pairs_of(ATOMS)
    assert not cascade.streams
    assert np.array_equal(cascade.hamiltonian(pairs)[0].values, whole(cascade, pairs)[0].values)
    with pytest.raises(ValueError, match="norms over the whole structure; start one process"):
        cascade.hamiltonian(pairs, processes=Threads(0, threading.Barrier(1), [None] * 2))
