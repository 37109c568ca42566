"""What an action costs: seconds, memory, and on which kinds of operations the seconds go."""

import ctypes
import gc
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

Action = Callable[[], object]

KINDS = {  # operations of PyTorch; the first pattern that fits counts
    "GEMM": r"(mm|addmm|bmm|baddbmm|addbmm|addmv|mv|dot)_?$",
    "gather": r"(index|gather|scatter|embedding|segment)",
    "copy": r"(cat|copy_|clone|contiguous|fill_|zero_|stack)$",
    "reduction": r"(sum|mean|norm|linalg_|var|std|max$|amax|any|all|cumsum|_unique|sort|argsort)",
    "elementwise": r"(mul|add|sub|div|neg|pow|rsub|sqrt|rsqrt|exp|sigmoid|tanh|silu|clamp|masked|square|where|recip"
    r"|minimum|eq|ne|lt|gt|le|ge|bitwise|abs|lerp|copysign)",
}


def timed(action: Action, device: str = "cpu") -> float:
    """Seconds: of the processor, which what else the machine does hardly changes, or of the clock for a GPU."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    _synchronize(device)
    start = clock()
    action()
    _synchronize(device)
    return clock() - start


def best(actions: Sequence[Action], repeats: int, device: str = "cpu") -> list[float]:
    """Least seconds of each, measured in alternation."""
    return np.min([[timed(action, device) for action in actions] for _ in range(repeats)], axis=0).tolist()


def _synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def tensor_memory(action: Action, device: str = "cpu") -> float:
    """Peak MiB of the tensors that an action makes."""
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        action()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with _profile(profile_memory=True) as found:
        action()
    events = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(0, *np.cumsum(sizes)) / 2**20


def resident_memory(action: Action) -> tuple[float, float] | None:
    """MiB of this process at the peak of an action, and how much of it is more than before; None without Linux."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what is free already must not hide what the action takes
        Path("/proc/self/clear_refs").write_text("5")
    except (AttributeError, OSError, TypeError):
        return None
    before = _status("VmRSS")
    action()
    peak = _status("VmHWM")
    return peak, peak - before


def _profile(profile_memory: bool = False) -> profile:
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it tells on stderr that it starts and stops
    return profile(activities=[ProfilerActivity.CPU], profile_memory=profile_memory)


def _status(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def shares(action: Action, repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a call by kind of operation and by operation, on the processor and under the profiler."""
    with _profile() as found:
        for _ in range(repeats):
            action()
    times: dict[str, dict[str, float]] = defaultdict(dict)
    for event in found.key_averages():
        name = event.key.removeprefix("aten::")
        named = (kind for kind, pattern in KINDS.items() if re.match(pattern, name))
        kind = next(named, "rest") if event.key.startswith("aten::") else "rest"
        times[kind][name] = event.self_cpu_time_total / 1e3 / repeats
    return times


def print_shares(title: str, times: dict[str, dict[str, float]]) -> None:
    """A table with the largest operations of every kind."""
    total = sum(sum(kind.values()) for kind in times.values())
    print(f"profile of {title}, {total:.0f} ms under the profiler, per cent")
    for kind, by_name in sorted(times.items(), key=lambda entry: -sum(entry[1].values())):
        largest = sorted(by_name, key=lambda key: -by_name[key])[:5]
        words = ", ".join(f"{key} {100 * by_name[key] / total:.1f}" for key in largest)
        print(f"      {kind:12s}{100 * sum(by_name.values()) / total:5.1f}   {words}")
