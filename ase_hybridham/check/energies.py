"""Do the energies make sense: S(k) positive, electrons at the Fermi level, the unit, symmetric bands, the gauge?"""

from collections.abc import Iterator

import numpy as np
from ase.units import Hartree, Rydberg
from numpy.typing import NDArray

from ase_hybridham.check.report import Finding, Verdict
from ase_hybridham.check.slater import outer_depth, outer_electrons
from ase_hybridham.check.spectrum import MOST_ORBITALS, Spectrum
from ase_hybridham.check.spin import is_magnetic
from ase_hybridham.errors import OverlapError
from ase_hybridham.system import LCAOSystem

__all__ = ["check_energies"]

POSITIVE = 1e-6  # smallest eigenvalue of S(k): below it digits of eigenvalues are lost; rich sets reach 1e-4
# Electrons by which a count on a coarse mesh may be off, and the share of all; tested on metals and semimetals.
MISCOUNT, MISCOUNT_SHARE = 0.5, 0.03
# Depth of the bands over that of the atoms: 0.5 to 2 in molecules, metals and insulators; a wrong unit makes 13.6.
DEPTH = (3.0, 4.5)  # warning, failed
SYMMETRIC = (1e-4, 1e-2)  # eV
UNITS = {"hartree": Hartree, "rydberg": Rydberg}
STANDARDIZED = 1e-5  # |mu| over the root mean square of H on S

# what the checks of this module are called
NAMES = ("S(k) positive", "electrons", "energy unit", "e(k) = e(-k)", "zero of energy")


def check_energies(system: LCAOSystem) -> Iterator[Finding]:
    """Findings that need eigenvalues; skipped with the reason where there are none."""
    reason = _why_not(system)
    if reason:
        for name in NAMES[:-1]:
            yield Finding(name, "skipped", reason)
    else:
        spectrum = Spectrum(system)
        positive = _positive(spectrum)
        yield positive
        if positive.verdict == "failed" or not system.hamiltonian:
            why = "S(k) is not positive definite" if system.hamiltonian else "there is no H"
            for name in NAMES[1:-1]:
                yield Finding(name, "skipped", why)
        else:
            try:
                yield from _solved(spectrum)
            except (OverlapError, ValueError) as error:
                yield Finding("electrons", "failed", str(error), advice="H and S cannot be solved")
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
    system = spectrum.system
    expected = electrons_expected(system)
    yield _electrons(spectrum, expected)
    yield _unit(spectrum, expected)
    yield _reversed_k(spectrum)
    if system.spin == "spinor":
        yield _kramers(spectrum)


def _positive(spectrum: Spectrum) -> Finding:
    smallest = spectrum.smallest_overlap
    verdict: Verdict = "ok" if smallest >= POSITIVE else "warning" if smallest > 0 else "failed"
    advice = {
        "warning": "the highest bands are sensitive to rounding; use float64 and fewer diffuse orbitals",
        "failed": "pairs are missing (raise the cutoff, check cell and pbc), or S belongs elsewhere",
    }
    message = f"smallest eigenvalue of S(k) {smallest:.1e} at Gamma, the zone boundary and a general k"
    return Finding(NAMES[0], verdict, message, smallest, "", 0.0, advice.get(verdict, ""))


def electrons_expected(system: LCAOSystem) -> float | None:
    """Electrons that were not counted from the Fermi level itself."""
    if system.electrons is not None and system.provenance.get("electrons") != "counted":
        return float(system.electrons)
    return system.basis.electrons(system.atoms.numbers)


def _electrons(spectrum: Spectrum, expected: float | None) -> Finding:
    """States below the stored Fermi level against the electrons of the system."""
    system, name = spectrum.system, NAMES[1]
    if system.fermi_level is None:
        return Finding(name, "skipped", "no Fermi level is stored")
    count = spectrum.count(system.fermi_level)
    least = float(sum(outer_electrons(int(z)) for z in system.atoms.numbers))
    most = float(system.atoms.numbers.sum())
    limit = max(MISCOUNT, MISCOUNT_SHARE * (expected or least))
    if expected is not None and abs(count - expected) <= limit:
        message = f"{count:.2f} states below the stored Fermi level, {expected:g} electrons"
        return Finding(name, "ok", message, count - expected, "electrons", limit)
    if expected is None:
        # cations and frozen shells may hold less than the atoms' outer electrons, nothing more than their nuclei
        if 0.7 * least - 1 <= count <= min(most, 0.99 * spectrum.capacity):
            message = f"{count:.2f} states below the stored Fermi level; the number of electrons is not told"
            return Finding(name, "ok", message, count, "electrons")
        whole = f"{least:g} or more"
        expected = least
    else:
        whole = f"{expected:g}"
    cause, advice = _why_miscounted(spectrum, expected)
    message = (
        f"{count:.1f} states lie below the stored Fermi level {system.fermi_level:.3f} eV, expected {whole}: {cause}"
    )
    return Finding(name, "failed", message, count - expected, "electrons", limit, advice)


def _why_miscounted(spectrum: Spectrum, electrons: float) -> tuple[str, str]:
    """The change of unit or zero that repairs the count, and what to do."""
    system = spectrum.system
    assert system.fermi_level is not None
    limit = max(MISCOUNT, MISCOUNT_SHARE * electrons)
    ratio = _depth_ratio(spectrum, electrons)
    for unit, factor in UNITS.items():
        for scale, words in (
            (factor, (f"H is in {unit}", "the Fermi level was converted to eV twice")),
            (1 / factor, (f"H was converted from {unit} to eV twice", f"the Fermi level is in {unit}")),
        ):
            if abs(spectrum.count(system.fermi_level, scale) - electrons) <= limit:
                of_h = ratio is None or max(ratio, 1 / ratio) > DEPTH[0]
                return words[0 if of_h else 1], "give both in eV"
    if not 0 < electrons <= spectrum.capacity:
        return "the basis cannot hold the electrons", "check valences and basis"
    level = spectrum.level(electrons)
    shift = level - system.fermi_level
    if abs(overlap_shift(system)) <= STANDARDIZED * _root_mean_square(system):
        return (
            f"<H,S> is zero: H was shifted by a multiple of S ('standardized') and the Fermi level was not; "
            f"for this H it is {level:.2f} eV",
            "convert the H before it was standardized, or store the level of the shifted H",
        )
    return (
        f"they would fill the states up to {level:.2f} eV, {shift:+.2f} eV from the stored level",
        "take H and Fermi level from one run with one zero of energy; check the valences",
    )


def _depth_ratio(spectrum: Spectrum, electrons: float) -> float | None:
    """Fermi level minus the bottom of the outer bands, over what the atoms let expect; None if unknown."""
    numbers = spectrum.system.atoms.numbers
    outer = sum(outer_electrons(int(z)) for z in numbers)
    energies = spectrum.energies
    bands_of = spectrum.degeneracy * energies.shape[0]
    first = round(max(0.0, electrons - outer) / bands_of)
    if not 0 < electrons < spectrum.capacity or first >= energies.shape[2]:
        return None
    width = spectrum.level(electrons) - float(energies[:, :, first].min())
    return width / max(outer_depth(int(z)) for z in numbers)


def _unit(spectrum: Spectrum, expected: float | None) -> Finding:
    """Depth of the bands against that of the atoms' outer shells."""
    system, name = spectrum.system, NAMES[2]
    if expected is None:
        if system.fermi_level is None:
            return Finding(name, "skipped", "neither electrons nor a Fermi level are known")
        expected = spectrum.count(system.fermi_level)
    ratio = _depth_ratio(spectrum, expected)
    if ratio is None:
        return Finding(name, "skipped", "the electrons do not fit the bands")
    factor = max(ratio, 1 / max(ratio, 1e-12))
    verdict: Verdict = "ok" if factor <= DEPTH[0] else "warning" if factor <= DEPTH[1] else "failed"
    message = f"the occupied bands are {ratio:.2f} times as deep as atoms let expect"
    advice = ""
    if verdict != "ok":
        # rydberg and hartree are a factor of 2 apart, less than what is known of the depth
        right = f"about {factor:.0f} times too {'shallow' if ratio < 1 else 'deep'}"
        unit = "H may be in hartree or rydberg" if ratio < 1 else "H may have been converted to eV twice"
        message, advice = f"{message}, {right}: {unit}", "give H and the Fermi level in eV"
    return Finding(name, verdict, message, ratio, "", DEPTH[1], advice)


def _reversed_k(spectrum: Spectrum) -> Finding:
    """e(k) = e(-k): time reversal."""
    forward, backward = (_lower_half(spectrum.special[:, at]) for at in (2, 3))
    return _symmetry(spectrum, NAMES[3], "|e(k) - e(-k)|", forward - backward)


def _kramers(spectrum: Spectrum) -> Finding:
    """Pairs of equal levels at Gamma and on the zone boundary: time reversal with spin."""
    pairs = spectrum.special[:, :2].reshape(1, 2, -1, 2)
    return _symmetry(spectrum, "Kramers pairs", "splitting of levels", _lower_half(pairs[..., 0] - pairs[..., 1]))


def _lower_half(energies: NDArray) -> NDArray:
    """The upper bands of nearly dependent orbitals react to every rounding."""
    return energies[..., : max(1, energies.shape[-1] // 2)]


def _symmetry(spectrum: Spectrum, name: str, what: str, differences: NDArray) -> Finding:
    error = float(np.abs(differences).max(initial=0.0))
    warn, fail = SYMMETRIC
    message = f"{what} at most {error:.1e} eV"
    if error <= warn:
        return Finding(name, "ok", message, error, "eV", fail)
    if spectrum.system.spin == "spinor" and is_magnetic(spectrum.system):
        return Finding(name, "note", f"{message}, as a magnetic system may have", error, "eV", fail)
    verdict: Verdict = "warning" if error <= fail else "failed"
    return Finding(name, verdict, message, error, "eV", fail, "without magnetism there is none: check the spin blocks")


def overlap_shift(system: LCAOSystem) -> float:
    """mu = <H,S> / <S,S> in eV: the multiple of S that H holds."""
    assert system.overlap is not None
    s = system.overlap.to_spinor().values if system.spin == "spinor" else system.overlap.values
    return float(np.mean([np.vdot(s, h.values).real for h in system.hamiltonian]) / np.vdot(s, s).real)


def _root_mean_square(system: LCAOSystem) -> float:
    assert system.overlap is not None
    s = system.overlap.values
    norm = np.linalg.norm(system.hamiltonian[0].values) / (np.sqrt(2) if system.spin == "spinor" else 1)
    return float(norm / np.linalg.norm(s))


def _gauge(system: LCAOSystem) -> Finding:
    mu = overlap_shift(system)
    message = f"<H,S>/<S,S> = {mu:.3f} eV, zero of energy: {system.potential_reference}"
    if abs(mu) <= STANDARDIZED * _root_mean_square(system):
        message += "; H was shifted by a multiple of S ('standardized'), which makes this zero"
        return Finding(NAMES[4], "note", message, mu, "eV")
    return Finding(NAMES[4], "ok", message, mu, "eV")
