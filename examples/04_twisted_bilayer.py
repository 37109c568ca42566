"""A twisted bilayer of graphene, from its angle to the bands at the Fermi level; no DFT.

    python examples/04_twisted_bilayer.py [M N [NPOINTS]]

(1, 2) is 21.8 degrees and 28 atoms, drawn over OpenMX's bands. (5, 6) is 6.0 degrees and 364 atoms, minutes; (10, 11)
is 3.1 degrees and 1324, where the two bands on each side of the Fermi level begin to be flat, an hour (docs/moire.md).
What large ones will cost is told before: of H memory, of the states memory beside it and time of one core.
"""

import json
import logging
import resource
import sys
import time
from importlib.resources import files

import numpy as np
from ase.dft.kpoints import BandPath
from ase.spectrum.band_structure import BandStructure

from ase_hybridham import HybridHamCalculator
from ase_hybridham.plot import plot_bands, save_figure
from ase_hybridham.structures import twisted_bilayer


def openmx_bands(cell) -> BandStructure:
    """Those of 28 atoms near the Fermi level, which come with the package."""
    known = json.loads((files("ase_hybridham") / "data/twisted_bilayer.json").read_text(encoding="utf-8"))
    k_points = np.array(known["k_points"])
    path = BandPath(cell, k_points, {label: k_points[row] for row, label in known["ticks"]})
    return BandStructure(path, np.array([known["bands_eV"]]), reference=known["fermi_eV"])


def main(m: int = 1, n: int = 2, npoints: int = 40) -> None:
    atoms = twisted_bilayer(m, n)
    # a mesh of 3 x 3 has K, where the bands of the layers touch; the width is OpenMX's 600 K
    atoms.calc = HybridHamCalculator("graphene-bilayer", kpts=(3, 3, 1), width=0.0517)
    bands = atoms.calc.band_structure("GMKG", npoints)
    below = round(atoms.calc.get_system().electrons / 2) - bands.first_band  # bands that are filled
    middle = bands.energies[0, :, below - 2 : below + 2]
    angle = np.degrees(np.arccos((m * m + 4 * m * n + n * n) / (2 * (m * m + m * n + n * n))))
    print(f"{len(atoms)} atoms, {angle:.2f} degrees, E_F = {bands.reference:.3f} eV")
    print(f"the two bands below E_F and the two above span {np.ptp(middle):.3f} eV")
    reference = openmx_bands(atoms.cell) if (m, n) == (1, 2) else None
    save_figure(plot_bands(bands, reference, labels=("network", "OpenMX"), window=1.5), "twisted.png")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(f"took {time.process_time():.0f} CPU s and {memory:.2f} GB at most, with 0.6 GB of Python and PyTorch")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(*map(int, sys.argv[1:]))
