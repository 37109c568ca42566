"""Bands of a Hamiltonian that OpenMX computed, no network: are they the bands that OpenMX printed?

    python examples/01_bands_from_openmx.py [FOLDER]

FOLDER holds deeph/ (H and S in DeepH's layout) and openmx.Band; by default AB bilayer graphene of this repository.
"""

import sys
from pathlib import Path

import numpy as np
from ase.dft.kpoints import BandPath

from ase_hybridham.io import read_openmx_band, read_system
from ase_hybridham.plot import plot_bands, save_figure
from ase_hybridham.solve import bands

GOLDEN = Path(__file__).parents[1] / "tests/golden/openmx"


def main(folder: Path) -> None:
    system = read_system(folder / "deeph")
    openmx = read_openmx_band(folder / "openmx.Band")

    # OpenMX's own k-points, and its names of the special ones
    path = BandPath(system.atoms.cell, openmx.k_points, {name: openmx.k_points[row] for row, name in openmx.ticks})
    ours = bands(system, path)  # H(k) c = e S(k) c

    difference = np.abs(ours.energies - openmx.eigenvalues)
    _, n_k, n_bands = ours.energies.shape
    print(f"{system.atoms.symbols}: {n_bands} bands at {n_k} k-points, E_F = {ours.reference:.3f} eV")
    print(f"largest difference to OpenMX's .Band file: {difference.max():.1e} eV")

    save_figure(plot_bands(ours, window=(-15, 5)), "bands.png")
    print("picture: bands.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN / "bilayer_graphene_AB")
