"""Remakes the golden data of this folder; needs GPAW with its data sets (`gpaw install-data`).

Every case: H and S by our engine (CASE.h5), and, from a calculation that GPAW does by itself on the structure as it
is, the Fermi level and the eigenvalues at k-points that are on no mesh (CASE.json).
"""

import json
from pathlib import Path

import gpaw
import numpy as np
from ase import Atoms

from ase_hybridham.scf.gpaw import GPAWEngine
from ase_hybridham.store import append_systems

HERE = Path(__file__).parent
K_POINTS = np.array([[0.0, 0.0, 0.0], [0.21, 0.13, 0.0], [-0.37, 0.45, 0.0], [1 / 3, 1 / 3, 0.0], [0.5, 0.07, 0.0]])


def boron_nitride() -> Atoms:
    """A displaced layer in an oblique cell, one atom outside it; amid the vacuum, where the engine puts it."""
    cell = np.array([[2.5, 0.0, 0.0], [-1.25, 2.165, 0.0], [0.0, 0.0, 8.8]])
    atoms = Atoms("BN", [[0.02, -0.03, 4.35], [0.05, 1.42, 4.45]], cell=cell, pbc=(True, True, False))
    atoms.positions[1] += atoms.cell[0]
    return atoms


def oxygen() -> Atoms:
    """A chain of molecules with unpaired spins."""
    return Atoms(
        "O2", [[0.4, 3.85, 3.9], [1.5, 4.15, 4.3]], cell=[3.4, 8.0, 8.2], pbc=(True, False, False), magmoms=[1.0, 1.0]
    )


CASES = {
    "boron_nitride": (boron_nitride(), GPAWEngine(basis="szp(dzp)", spacing=0.22, kpts=(4, 4, 1))),
    "oxygen": (oxygen(), GPAWEngine(basis="dzp", xc="lda", spin="collinear", spacing=0.25, kpts=(4, 1, 1))),
}


def bands_of_gpaw(atoms: Atoms, engine: GPAWEngine, grid: list[int]) -> tuple[float, list]:
    """Fermi level and eigenvalues (spin, k, band) of GPAW alone; its grid is that of the engine."""
    assert engine.kpts is not None
    atoms = atoms.copy()
    atoms.calc = gpaw.GPAW(
        mode="lcao",
        basis=engine.basis,
        xc=engine.xc.upper(),
        gpts=grid,
        kpts={"size": engine.kpts, "gamma": True},
        symmetry={"point_group": False},
        occupations={"name": "fermi-dirac", "width": engine.smearing},
        convergence={"density": engine.conv_tol},
        txt=None,
    )
    atoms.get_potential_energy()
    k_points = np.where(atoms.pbc, K_POINTS, 0.0)
    fixed = atoms.calc.fixed_density(kpts=k_points, symmetry="off", nbands="nao", txt=None)
    spins = range(fixed.get_number_of_spins())
    energies = [[fixed.get_eigenvalues(kpt=k, spin=s).tolist() for k in range(len(k_points))] for s in spins]
    return float(atoms.calc.get_fermi_level()), energies


def main() -> None:
    for name, (atoms, engine) in CASES.items():
        system = engine.run(atoms)
        file = HERE / f"{name}.h5"
        file.unlink(missing_ok=True)
        append_systems(file, [(name, system)], provenance={"made_by": "tests/golden/gpaw/make.py"})
        level, energies = bands_of_gpaw(atoms, engine, system.provenance["grid"])
        reference = {
            "program": f"GPAW {gpaw.__version__}",
            "fermi_level": level,
            "k_points": np.where(atoms.pbc, K_POINTS, 0.0).tolist(),
            "eigenvalues": energies,
        }
        (HERE / f"{name}.json").write_text(json.dumps(reference) + "\n", encoding="utf-8")
        print(name, system.provenance["checked_band_error_eV"], system.provenance["largest_beyond_H_eV"])


if __name__ == "__main__":
    main()
