"""OpenMX's radial functions for tests: tests/golden/openmx/radial.json.gz, and what makes it again.

    python -m tests.overlap.radial_data DFT_DATA19/PAO

for a folder with the .pao files of OpenMX's database, plain or gzipped.
"""

import gzip
import json
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from ase_hybridham.system import AtomBasis, Basis

FILE = Path(__file__).parents[1] / "golden/openmx/radial.json.gz"
NAMES = {
    "H": "H6.0-s2p1",
    "C": "C6.0-s2p2d1",
    "O": "O6.0-s2p2d1",
    "S": "S7.0-s2p2d1",
    "Mo": "Mo7.0-s3p2d2",
    "Bi": "Bi8.0-s3p2d2",
}


@cache
def _everything() -> Basis:
    return Basis.from_dict(json.loads(gzip.decompress(FILE.read_bytes())))


def openmx_basis(symbols: str | Iterable[str]) -> Basis:
    """The basis of some of the elements of `NAMES`, with radial functions: ``openmx_basis(["Mo", "S"])``."""
    symbols = [symbols] if isinstance(symbols, str) else list(dict.fromkeys(symbols))
    basis = _everything()
    return Basis.of(*(basis[symbol] for symbol in symbols), name="/".join(NAMES[symbol] for symbol in symbols))


def make(folder: Path) -> None:
    """Write the file anew."""
    from ase_hybridham.io import attach_radial_functions
    from ase_hybridham.io.openmx_input import BOHR, parse_basis_name, shells_of

    atoms = []
    for symbol, name in NAMES.items():
        file, counts, _ = parse_basis_name("names", name)
        atoms.append(AtomBasis(symbol, shells_of(counts), cutoff=BOHR * float(file[len(symbol) :])))
    basis = attach_radial_functions(Basis.of(*atoms, name="OpenMX DFT_DATA19"), folder, NAMES)
    FILE.write_bytes(gzip.compress(json.dumps(basis.to_dict()).encode(), 9, mtime=0))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
