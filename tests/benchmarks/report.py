"""Lines of a benchmark, with targets that are met or not."""

import os
import re
from pathlib import Path


class Report:
    """Prints lines and remembers whether all targets that count were met; of a quick run, only what always counts."""

    def __init__(self, quick: bool) -> None:
        self.quick, self.failed = quick, False

    def check(self, line: str, passed: bool, target: str, *, always: bool = False) -> None:
        counts = always or not self.quick
        self.failed |= counts and not passed
        print(f"{('pass' if passed else 'FAIL') if counts else '    '}  {line}   (target: {target})", flush=True)


def processor() -> str:
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return f"{found[1] if found else 'unknown processor'}, {os.cpu_count()} cores, one thread"
