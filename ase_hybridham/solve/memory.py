"""How much memory this process may still take."""

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["available_memory"]


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that can be had without swapping: what the machine has free, or what is left of a limit of a cgroup.

    Batch systems and containers set such limits, in version 1 or 2, on the group of a process or one above it. Where
    there is no /proc, all memory of the machine.

    Parameters
    ----------
    root : Path
        Where /proc and /sys are looked for.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(0, min([free, *_left_of_limits(root)]))


def _left_of_limits(root: Path) -> Iterator[int]:
    try:
        groups = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return
    for _, controllers, group in groups:
        if controllers == "":
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file ")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")
        else:
            continue
        within = Path(group.lstrip("/"))
        for folder in (within, *within.parents):  # within a container some may not be seen
            left = _left(base / folder, *names)
            if left is not None:
                yield left


def _left(folder: Path, limit: str, usage: str, cache: str) -> int | None:
    """Limit less usage, None without a limit; the cache of files is no usage, since it is given back when needed."""
    try:
        most, used = (folder / limit).read_text().strip(), int((folder / usage).read_text())
        statistics = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return None
    if most == "max":
        return None
    return int(most) - used + sum(int(line.split()[1]) for line in statistics if line.startswith(cache))
