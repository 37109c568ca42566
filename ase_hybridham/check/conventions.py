"""Do orbitals, positions, lattice and R stand in our conventions? S alone tells, and where not, which other fits."""

from collections.abc import Iterator

from ase_hybridham.check.covariance import relative_residual, strongest_bonds
from ase_hybridham.check.report import Finding, Verdict
from ase_hybridham.system import LCAOSystem

__all__ = ["check_conventions"]

# Residual of S against two-center integrals: 1e-13 from OpenMX, 1e-8 in float32, 5e-4 where S was summed on a grid
# (FHI-aims), 4e-3 with PAW corrections (GPAW); 0.1 to 1 with a wrong order, sign or lattice.
COVARIANT = (1e-3, 2e-2)


def check_conventions(system: LCAOSystem) -> Iterator[Finding]:
    """Findings about orbital order, signs, sign of R and lattice."""
    name = "S covariance"
    if system.overlap is None:
        yield Finding(name, "skipped", "there is no S")
        return
    bonds = strongest_bonds(system.overlap)
    if not any(b.directed.any() for b in bonds):
        yield Finding(name, "skipped", "no hopping has shells beyond s")
        return
    error = relative_residual([*bonds, *strongest_bonds(system.overlap, onsite=True)])
    warn, fail = COVARIANT
    verdict: Verdict = "ok" if error <= warn else "note" if error <= fail else "failed"
    message = f"S differs from two-center integrals by {error:.1e} of its size"
    advice = ""
    if verdict == "note":
        message += ", as with grids or PAW corrections"
    elif verdict == "failed":
        advice = "orbital order, signs, the lattice, positions or R are in another convention"
    yield Finding(name, verdict, message, error, "", fail, advice)
