"""Work over processes: order, errors and death, with functions that any process finds."""

import math
import multiprocessing
import os
import signal
import time

import pytest

from ase_hybridham import parallel
from ase_hybridham.parallel import WorkerError, available_cores, ordered_results


@pytest.fixture(autouse=True)
def _pool_pays_always_and_leaves_nobody(monkeypatch):
    monkeypatch.setattr(parallel, "START_UP", 0.0)
    yield
    assert not multiprocessing.active_children()


def test_results_come_in_order_from_several_processes():
    items = [0.0, 0.3, 0.0, 0.0, 0.2, 0.0]  # the second is the slowest
    begun = time.monotonic()
    assert [item for item, _ in ordered_results(time.sleep, items, 2)] == items
    assert time.monotonic() - begun < 20  # nobody waits for ever
    assert list(ordered_results(abs, [-1, 2, -3], 1)) == [(-1, 1), (2, 2), (-3, 3)]
    assert list(ordered_results(abs, [], 2)) == []


def test_processes_are_others_and_only_where_they_pay(monkeypatch):
    def ids() -> set[int]:
        return {result for _, result in ordered_results(eval, ["__import__('os').getpid()"] * 5, 2)}

    assert len(ids()) in (2, 3)  # this one and one or two more
    monkeypatch.setattr(parallel, "START_UP", 3.0)
    assert ids() == {os.getpid()}


def test_an_error_comes_at_its_place_and_ends_the_others():
    results = ordered_results(math.sqrt, [4.0, 9.0, -1.0, 16.0, *[1.0] * 1000], 2)
    assert [next(results), next(results)] == [(4.0, 2.0), (9.0, 3.0)]
    with pytest.raises(ValueError, match="math domain error") as caught:
        next(results)
    assert "in _serve" in caught.value.__notes__[0]  # where it happened


def test_a_killed_worker_names_its_item():
    results = ordered_results(signal.raise_signal, [0, 0, signal.SIGKILL, 0], 2)
    assert [next(results), next(results)] == [(0, None), (0, None)]
    with pytest.raises(WorkerError, match="was killed by signal 9; if memory ran out") as caught:
        next(results)
    assert caught.value.item == signal.SIGKILL


def test_a_worker_killed_in_the_middle_of_a_long_message_is_noticed():
    # 100 MB, of which a pipe takes some kB until we read: dead before that
    results = ordered_results(eval, ["0", "0", "b'x' * 10**8"], 2)
    assert [next(results)[1], next(results)[1]] == [0, 0]
    time.sleep(0.5)
    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(WorkerError):
        next(results)


def test_who_takes_not_all_leaves_nobody_behind():
    results = ordered_results(time.sleep, [0.0, 0.0, 1000.0, 1000.0], 2)
    assert [next(results), next(results)] == [(0.0, None), (0.0, None)]
    begun = time.monotonic()
    results.close()
    assert time.monotonic() - begun < 5
    assert not multiprocessing.active_children()


def test_cores_are_those_of_this_process():
    assert 1 <= available_cores() <= os.cpu_count()
