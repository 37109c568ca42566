"""The bands that `hybridham demo` compares with: those OpenMX printed for a twisted bilayer, and its structure.

    python examples/make_twisted_reference.py FOLDER ase_hybridham/data/twisted_bilayer.json

FOLDER holds openmx.Band and the calculation in DeepH's layout, in deeph/.
"""

import json
import sys
from pathlib import Path

import numpy as np

from ase_hybridham.files import written_atomically
from ase_hybridham.io import read_deeph, read_openmx_band

WINDOW = 4.0  # eV; bands that come nearer to the Fermi level are kept
DIGITS = 6

folder, output = map(Path, sys.argv[1:])
atoms, bands = read_deeph(folder / "deeph").atoms, read_openmx_band(folder / "openmx.Band")
energies = bands.eigenvalues[0]
near = np.flatnonzero((np.abs(energies - bands.fermi_level) < WINDOW).any(axis=0))
reference = {
    "source": "OpenMX 3.9.9, GGA-PBE, C6.0-s2p2d1, C_PBE13, 150 Ry, 600 K, 3 x 3 k-points",
    "numbers": atoms.numbers.tolist(),
    "positions": atoms.positions.round(9).tolist(),
    "cell": atoms.cell.array.round(9).tolist(),
    "k_points": bands.k_points.round(9).tolist(),
    "ticks": [[row, label] for row, label in bands.ticks],
    "fermi_eV": round(bands.fermi_level, DIGITS),
    "first_band": int(near[0]),
    "bands_eV": energies[:, near[0] : near[-1] + 1].round(DIGITS).tolist(),
}
with written_atomically(output) as temporary:
    temporary.write_text(json.dumps(reference) + "\n", encoding="utf-8")
print(f"{output}: {len(atoms)} atoms, {len(near)} bands at {len(bands.k_points)} k-points")
