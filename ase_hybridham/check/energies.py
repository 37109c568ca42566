"""What eigenvalues tell: S(k) positive, bands symmetric in k, Kramers pairs; electrons and unit; the zero of energy."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ase_hybridham.check.electrons import (
    ELECTRONS,
    UNIT,
    check_electrons,
    check_unit,
    is_standardized,
    overlap_shift,
)
from ase_hybridham.check.report import Finding, Verdict
from ase_hybridham.check.spectrum import MOST_ORBITALS, Spectrum
from ase_hybridham.check.spin import is_magnetic
from ase_hybridham.errors import OverlapError
from ase_hybridham.solve import OVERLAP_THRESHOLD, PREDICTED_THRESHOLD
from ase_hybridham.system import LCAOSystem

__all__ = ["check_energies"]

SYMMETRIC = (1e-4, 1e-2)  # eV
NOISE = 3e-9  # eV; what H of a converged run has of it, nearly dependent orbitals multiply by 1 / S

POSITIVE_S, REVERSED, KRAMERS, ZERO = "S(k) positive", "e(k) = e(-k)", "Kramers pairs", "zero of energy"
SOLVED = (ELECTRONS, UNIT, REVERSED)  # checks that need the bands


def check_energies(system: LCAOSystem) -> Iterator[Finding]:
    """Findings that need eigenvalues; skipped with the reason where there are none."""
    reason = _why_not(system)
    if reason:
        for name in (POSITIVE_S, *SOLVED):
            yield Finding(name, "skipped", reason)
    else:
        spectrum = Spectrum(system)
        positive = _positive(spectrum)
        yield positive
        if positive.verdict == "failed" or not system.hamiltonian:
            why = "S(k) is not positive definite" if system.hamiltonian else "there is no H"
            for name in SOLVED:
                yield Finding(name, "skipped", why)
        else:
            try:
                _ = spectrum.energies
            except (OverlapError, ValueError) as error:
                yield Finding(ELECTRONS, "failed", f"H and S cannot be solved: {error}")
            else:
                yield from _solved(spectrum)
    if system.hamiltonian and system.overlap is not None:
        yield _gauge(system)


def _why_not(system: LCAOSystem) -> str:
    if system.overlap is None and not system.basis.orthogonal:
        return "there is no S"
    if system.n_orbitals > MOST_ORBITALS:
        return f"{system.n_orbitals} orbitals; dense eigenproblems are solved up to {MOST_ORBITALS}"
    if not all(np.isfinite(blocks.values).all() for blocks in system.operators):
        return "a matrix element is not finite"
    return ""


def _solved(spectrum: Spectrum) -> Iterator[Finding]:
    yield check_electrons(spectrum)
    yield check_unit(spectrum)
    yield _reversed_k(spectrum)
    if spectrum.system.spin == "spinor":
        yield _kramers(spectrum)


def _positive(spectrum: Spectrum) -> Finding:
    smallest, k = spectrum.smallest_overlap
    message = f"smallest eigenvalue of S(k) {smallest:.1e} at k = {np.round(k, 3).tolist()}"
    verdict: Verdict = "ok"
    advice = ""
    if smallest < -OVERLAP_THRESHOLD:
        verdict, advice = "failed", "pairs are missing (raise the cutoff, check cell and pbc), or S belongs elsewhere"
    elif smallest < OVERLAP_THRESHOLD:
        verdict = "warning"
        message += f", below the threshold {OVERLAP_THRESHOLD:g}: the orbitals are linearly dependent"
        advice = "solvers leave such directions out (overlap_threshold); take fewer or less diffuse orbitals"
    elif smallest < PREDICTED_THRESHOLD:
        verdict = "note"
        message += ": the orbitals are nearly dependent; where H is predicted such directions are left out"
    return Finding(POSITIVE_S, verdict, message, smallest, "", -OVERLAP_THRESHOLD, advice)


def _reversed_k(spectrum: Spectrum) -> Finding:
    """e(k) = e(-k): time reversal."""
    if not any(np.iscomplexobj(blocks.values) for blocks in spectrum.system.operators):
        return Finding(REVERSED, "ok", "H(R) and S(R) are real", 0.0, "eV", SYMMETRIC[1])
    forward, backward = (_lower_half(spectrum.special[:, at]) for at in (2, 3))
    return _symmetry(spectrum, REVERSED, "|e(k) - e(-k)|", forward - backward)


def _kramers(spectrum: Spectrum) -> Finding:
    """Pairs of equal levels at Gamma and on the zone boundary: time reversal with spin."""
    pairs = spectrum.special[:, :2].reshape(1, 2, -1, 2)
    return _symmetry(spectrum, KRAMERS, "splitting of levels", _lower_half(pairs[..., 0] - pairs[..., 1]))


def _lower_half(energies: NDArray) -> NDArray:
    """The upper bands of nearly dependent orbitals react to every rounding."""
    return energies[..., : max(1, energies.shape[-1] // 2)]


def _symmetry(spectrum: Spectrum, name: str, what: str, differences: NDArray) -> Finding:
    error = float(np.abs(differences).max(initial=0.0))
    warn, fail = SYMMETRIC
    warn = max(warn, min(fail, NOISE / max(spectrum.smallest_overlap[0], 1e-9)))
    message = f"{what} at most {error:.1e} eV"
    if error <= warn:
        return Finding(name, "ok", message, error, "eV", fail)
    if spectrum.system.spin == "spinor" and is_magnetic(spectrum.system):
        return Finding(name, "note", f"{message}, as a magnetic system may have", error, "eV", fail)
    verdict: Verdict = "warning" if error <= fail else "failed"
    return Finding(name, verdict, message, error, "eV", fail, "without magnetism there is none: check the spin blocks")


def _gauge(system: LCAOSystem) -> Finding:
    mu = overlap_shift(system)
    message = f"<H,S>/<S,S> = {mu:.3f} eV, zero of energy: {system.potential_reference}"
    if is_standardized(system):
        message += "; H was shifted by a multiple of S ('standardized'), which makes this zero"
        return Finding(ZERO, "note", message, mu, "eV", advice="the Fermi level must be shifted with it; see electrons")
    return Finding(ZERO, "ok", message, mu, "eV")
