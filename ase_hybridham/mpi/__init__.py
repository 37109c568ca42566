"""How is an eigenproblem solved by several machines? A script that stands alone, for the Python that has SLEPc.

`SCRIPT` is its path. It imports nothing of this package, and may be copied to where it runs (docs/mpi.md).
"""

from pathlib import Path

__all__ = ["SCRIPT"]

SCRIPT = Path(__file__).with_name("slepc_bands.py")
