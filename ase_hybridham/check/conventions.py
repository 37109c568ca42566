"""Do orbitals, positions, lattice and R stand in our conventions? S alone tells, and where not, which other fits."""

from collections.abc import Iterator, Sequence

import numpy as np

from ase_hybridham.check.covariance import Bonds, relative_residual, strongest_bonds
from ase_hybridham.check.diagnosis import EXPLAINS, explain
from ase_hybridham.check.hamiltonian import check_hamiltonian_order
from ase_hybridham.check.positions import MOST_ATOMS, fit_displacements
from ase_hybridham.check.report import Finding, Verdict
from ase_hybridham.system import LCAOSystem

__all__ = ["check_conventions"]

COVARIANCE, POSITIONS = "S covariance", "positions"
# Residual of S against two-center integrals: 1e-10 from OpenMX, 1e-8 in float32, 5e-4 where S was summed on a grid
# (FHI-aims), 4e-3 with PAW corrections (GPAW); 0.1 to 1 with a wrong order, sign or lattice.
COVARIANT = (1e-3, 2e-2)
EXACT = 1e-6  # a residual that no atom that stands elsewhere could leave
DISPLACED = (1e-4, 5e-4)  # angstrom: warning, failed; files print positions to 1e-6 or better


def check_conventions(system: LCAOSystem) -> Iterator[Finding]:
    """Findings about orbital order, signs, sign of R, lattice and positions."""
    if system.overlap is None:
        yield from (Finding(name, "skipped", "there is no S") for name in (COVARIANCE, POSITIONS))
        return
    hoppings, onsite = strongest_bonds(system.overlap), strongest_bonds(system.overlap, onsite=True)
    if not any(b.directed.any() for b in (*hoppings, *onsite)):
        yield from (Finding(name, "skipped", "the basis has only s shells") for name in (COVARIANCE, POSITIONS))
        return
    error = max(relative_residual(hoppings), relative_residual(onsite))
    warn, fail = COVARIANT
    message = f"S differs from two-center integrals by {error:.1e} of its size"
    explained = explain(system.overlap, hoppings, onsite, system.atoms) if error > fail else None
    if explained is not None and explained.residual > fail:  # less wrong is not right
        explained = None
    positions = _positions(system, hoppings, error) if explained is None else None
    if explained is not None:
        message += f", by {explained.residual:.0e} if {explained.words}"
        yield Finding(COVARIANCE, "failed", message, error, "", fail, explained.advice)
        yield Finding(POSITIONS, "skipped", f"{COVARIANCE} has another explanation")
        return
    if error <= warn:
        yield Finding(COVARIANCE, "ok", message, error, "", fail)
    elif positions is not None and positions.verdict == "failed":
        yield Finding(COVARIANCE, "failed", f"{message}: atoms stand elsewhere", error, "", fail, positions.advice)
    elif error <= fail:
        yield Finding(COVARIANCE, "note", f"{message}, as with grids or PAW corrections", error, "", fail)
    else:
        advice = "orbital order, signs, lattice, positions or R follow a convention that is none of those tried"
        yield Finding(COVARIANCE, "failed", message, error, "", fail, advice)
    if positions is not None:
        yield positions
    if system.hamiltonian:
        yield check_hamiltonian_order(system)


def _positions(system: LCAOSystem, hoppings: Sequence[Bonds], error: float) -> Finding:
    """Where S says that the atoms stand."""
    if not any(b.directed.any() for b in hoppings):
        return Finding(POSITIONS, "skipped", "no two atoms whose S has a direction")
    if error <= EXACT:
        return Finding(POSITIONS, "ok", "S points along the bonds", 0.0, "A", DISPLACED[1])
    found = fit_displacements(hoppings, system.pairs, system.atoms)
    if found is None:
        return Finding(POSITIONS, "skipped", f"{len(system.atoms)} atoms; displacements are fitted up to {MOST_ATOMS}")
    if found.after > EXPLAINS * found.before:
        return Finding(POSITIONS, "ok", "no displacement of atoms makes S more of a two-center integral")
    size = float(np.linalg.norm(found.vectors, axis=1).max(initial=0.0))
    warn, fail = DISPLACED
    verdict: Verdict = "ok" if size <= warn else "warning" if size <= fail else "failed"
    far = np.linalg.norm(found.atoms, axis=1)
    n = int(far.argmax())
    who = f"atom {n} ({system.atoms.symbols[n]}) stands {far[n]:.1e} A" if far[n] > size / 4 else "the lattice is"
    message = f"bonds differ from those of S by up to {size:.1e} A, most likely {who} off"
    advice = "" if verdict == "ok" else "positions, lattice and S are of different geometries, or were rounded"
    return Finding(POSITIONS, verdict, message, size, "A", fail, advice)
