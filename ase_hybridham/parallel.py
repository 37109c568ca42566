"""Work over processes: results in the order of the items, few at a time, and no process left behind.

Processes are spawned: a fork copies locks that other threads hold (HDF5's, those of numerical libraries), and the
copy may wait for ever. Each has a pipe of its own, so that the end of a process closes its pipe: a killed worker is
noticed in the middle of a message, with the item it had; workers whose parent is killed see the end of theirs and
leave. (A `ProcessPoolExecutor` has one pipe for all: a worker killed while it sends a large result hangs it.)
"""

import os
import signal
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar, cast

__all__ = ["WorkerError", "available_cores", "ordered_results"]

Item = TypeVar("Item")
Result = TypeVar("Result")

START_UP = 3.0  # seconds of work that starting processes, a second or two, is worth
AHEAD = 2  # items in flight for each process: bounds the memory


class WorkerError(Exception):
    """A process ended while it had an `item`.

    Parameters
    ----------
    item : object
        What it worked on.
    status : int or None
        Exit status; negative: the signal that killed it.
    """

    def __init__(self, item: Any, status: int | None) -> None:
        ended = f"was killed by signal {-status}" if status and status < 0 else f"ended with status {status}"
        super().__init__(f"the process that had it {ended}; if memory ran out, use fewer processes")
        self.item = item


def available_cores() -> int:
    """Cores that this process may use."""
    with suppress(AttributeError):  # where the system knows no affinity
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ordered_results(
    function: Callable[[Item], Result], items: Sequence[Item], processes: int
) -> Generator[tuple[Item, Result], None, None]:
    """Every item with its result, in order; the first items in this process, until more of them pay.

    Close the generator when you do not take all: its processes then end at once, as they do when an error leaves it.

    Parameters
    ----------
    function : callable
        Of a module, so that other processes find it; it and its results can be pickled.
    items : sequence
    processes : int
        At most so many, each with one thread for linear algebra; 1 is this process.

    Raises
    ------
    WorkerError
        If a process ends from outside.
    Exception
        Whatever `function` raises, at the place of its item.
    """
    for number, item in enumerate(items):
        begun = time.monotonic()
        result = function(item)
        took = time.monotonic() - begun
        yield item, result
        left = len(items) - number - 1
        if processes > 1 and left > 1 and took * left > START_UP:
            yield from _over_processes(function, items[number + 1 :], min(processes, left))
            return


def _over_processes(function: Callable[[Item], Result], items: Sequence[Item], n: int) -> Iterator[tuple[Item, Result]]:
    workers: dict[Connection, BaseProcess] = {}
    try:
        for _ in range(n):
            connection, worker = _started(function)
            workers[connection] = worker
        idle, busy = list(workers), dict[Connection, int]()
        finished: dict[int, Result | Exception] = {}
        given = number = 0
        while number < len(items):
            while idle and given < min(len(items), number + AHEAD * n):
                busy[idle[-1]] = given
                with suppress(OSError):  # dead already: its end of the pipe tells so below
                    idle[-1].send(items[given])
                idle.pop()
                given += 1
            if number in finished:
                result = finished.pop(number)
                if isinstance(result, Exception):
                    raise result
                yield items[number], result
                number += 1
                continue
            for connection in cast(list[Connection], wait(list(busy))):
                at = busy.pop(connection)
                try:
                    finished[at] = connection.recv()
                    idle.append(connection)
                except (EOFError, OSError):
                    workers[connection].join()
                    finished[at] = WorkerError(items[at], workers[connection].exitcode)
    except BaseException:  # also that the caller wants no more
        for worker in workers.values():
            worker.terminate()
        raise
    finally:
        for connection, worker in workers.items():
            connection.close()
            worker.join()


def _started(function: Callable[[Item], Result]) -> tuple[Connection, BaseProcess]:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    worker = context.Process(target=_serve, args=(theirs, function), daemon=True)
    resource_tracker.ensure_running()  # it would let interrupts through again
    with _interrupts_held():
        worker.start()
    theirs.close()
    return ours, worker


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C reaches a whole group of processes; one that is started here inherits that it is blocked."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, function: Callable[[Item], Result]) -> None:
    """A worker: items in, results or errors out, until the other end closes."""
    import scipy.linalg  # noqa: F401  its libraries must be there to be limited
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), suppress(EOFError, OSError):
        while True:
            item = connection.recv()
            answer: Result | Exception
            try:
                answer = function(item)
            except Exception as error:
                error.add_note(traceback.format_exc())
                answer = error
            connection.send(answer)
