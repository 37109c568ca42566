"""The ASE calculator on a structure nobody has computed: no self-consistency, then the same with DFT.

    python examples/03_calculator.py [CHECKPOINT]

CHECKPOINT: of a Gaussian basis, by default the one that `make demo` trains.
"""

import sys

import numpy as np
from ase.dft.bandgap import bandgap
from ase.dft.dos import DOS

from ase_hybridham import HybridHamCalculator
from ase_hybridham.scf import PySCFEngine
from ase_hybridham.solve import eigenvalues
from ase_hybridham.structures import random_graphene

K = [[1 / 3, 1 / 3, 0]]


def main(checkpoint: str) -> None:
    atoms = random_graphene(np.random.default_rng(7), layers=2)  # slid, strained, displaced
    atoms.calc = HybridHamCalculator(checkpoint, kpts=(24, 24, 1))
    level = atoms.calc.get_fermi_level()
    at_k = atoms.calc.band_structure(K).energies[0, 0]
    gap, *_ = bandgap(atoms.calc, output=None)

    dft = PySCFEngine(k_length=8.5).run(atoms)
    dft_at_k = eigenvalues(dft, K)[0, 0]
    n = round(dft.electrons / 2)  # occupied bands
    dft_mesh = eigenvalues(dft, atoms.calc.get_ibz_k_points())[0]
    dft_gap = dft_mesh[:, n].min() - dft_mesh[:, n - 1].max()

    print(f"{atoms.symbols}, a bilayer        network      DFT")
    print(f"Fermi level (vacuum 0), eV {level:8.3f} {dft.fermi_level:8.3f}")
    print(f"gap on a 24 x 24 mesh, eV  {gap:8.3f} {dft_gap:8.3f}")
    print(f"gap at K, eV               {at_k[n] - at_k[n - 1]:8.3f} {dft_at_k[n] - dft_at_k[n - 1]:8.3f}")
    print(f"outer pi bands at K, eV    {at_k[n + 1] - at_k[n - 2]:8.3f} {dft_at_k[n + 1] - dft_at_k[n - 2]:8.3f}")

    dos = DOS(atoms.calc, width=0.2, window=(-3, 0), npts=4)
    states = ", ".join(f"{d:.2f} at {e:g} eV" for e, d in zip(dos.get_energies(), dos.get_dos(), strict=True))
    print(f"network's states per eV, E_F at 0: {states}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "demo/bands_run/model.hham")
