"""Do H, the Fermi level and the electrons belong together, and is H in eV?

The states below the Fermi level are counted, and the depth of the occupied bands is compared with that of the atoms'
outer shells. Where the count fails, units and zeros of energy are tried that repair it.
"""

from collections.abc import Iterator
from itertools import product

import numpy as np
from ase.units import Hartree, Rydberg

from ase_hybridham.check.geometry import BOND, bond_length
from ase_hybridham.check.report import Finding, Verdict
from ase_hybridham.check.slater import has_f_electrons, outer_depth, outer_electrons, possible_valences
from ase_hybridham.check.spectrum import Spectrum
from ase_hybridham.system import LCAOSystem

__all__ = ["ELECTRONS", "UNIT", "check_electrons", "check_unit", "is_standardized", "overlap_shift"]

ELECTRONS, UNIT = "electrons", "energy unit"
# Electrons by which a count on a coarse mesh may be off, and the share of all; tested on metals and semimetals.
MISCOUNT, MISCOUNT_SHARE = 0.5, 0.03
NEAR = 0.3  # eV that other meshes and smearings move a level by, or an insulator's within its gap
CHARGE = 1.5  # electrons that a charged cell may lack
# Depth of the bands over that of the atoms: 0.65 to 2.03 in the molecules, metals and insulators of docs/check.md; a
# wrong unit makes 13.6 times or a 13.6th of that.
DEPTH = (3.0, 4.5)  # warning, failed
UNITS = {"hartree": Hartree, "rydberg": Rydberg}
STANDARDIZED = 1e-5  # |mu| over the root mean square of H on S
MOST_SUMS = 10000  # of possible valences of all elements


def check_electrons(spectrum: Spectrum) -> Finding:
    """States below the stored Fermi level against the electrons of the system."""
    system = spectrum.system
    level = system.fermi_level
    if level is None:
        return Finding(ELECTRONS, "skipped", "no Fermi level is stored")
    expected = electrons_told(system)
    count = spectrum.count(level)
    if _fits(spectrum, expected):
        message = f"{count:.2f} states below the stored Fermi level"
        if expected is not None:
            return Finding(
                ELECTRONS, "ok", f"{message}, {expected:g} electrons", count - expected, "electrons", MISCOUNT
            )
        sums = _possible_sums(system)
        if sums and min(abs(count - n) for n in sums) > max(MISCOUNT, MISCOUNT_SHARE * count):
            message += ", which neutral atoms with or without closed shells do not add up to"
            standardized = system.overlap is not None and is_standardized(system)
            message += "; H was standardized, and the Fermi level perhaps not" if standardized else ""
            advice = "check the Fermi level (unit, zero), or tell the valences"
            return Finding(ELECTRONS, "warning", message, count, "electrons", advice=advice)
        return Finding(ELECTRONS, "ok", f"{message}; the number of electrons is not told", count, "electrons")
    cause, advice = _why_miscounted(spectrum, expected)
    whole = f"{_least(system):g} or more" if expected is None else f"{expected:g}"
    message = f"{count:.1f} states lie below the stored Fermi level {level:.3f} eV, expected {whole}: {cause}"
    off = count - (_least(system) if expected is None else expected)
    return Finding(ELECTRONS, "failed", message, off, "electrons", MISCOUNT, advice)


def check_unit(spectrum: Spectrum) -> Finding:
    """Depth of the bands against that of the atoms' outer shells."""
    system = spectrum.system
    electrons = electrons_told(system)
    if electrons is None:
        if system.fermi_level is None:
            return Finding(UNIT, "skipped", "neither electrons nor a Fermi level are known")
        if not _fits(spectrum, None):
            return Finding(UNIT, "skipped", "the electrons are not known, and the Fermi level does not tell them")
        electrons = spectrum.count(system.fermi_level)
    ratio = _depth_ratio(spectrum, electrons)
    if ratio is None:
        return Finding(UNIT, "skipped", "no depth is known for these atoms and electrons")
    if ratio < 1 and bond_length(system.pairs) > BOND[1]:
        # the levels of free atoms may all be at the Fermi level
        return Finding(UNIT, "skipped", "atoms are not bonded, and their levels tell no scale", ratio)
    factor = max(ratio, 1 / ratio)
    verdict: Verdict = "ok" if factor <= DEPTH[0] else "warning" if factor <= DEPTH[1] else "failed"
    message = f"the occupied bands are {ratio:.2f} times as deep as atoms let expect"
    advice = ""
    if verdict != "ok":
        # rydberg and hartree are a factor of 2 apart, less than what is known of the depth
        right = f"about {factor:.0f} times too {'shallow' if ratio < 1 else 'deep'}"
        unit = "H may be in hartree or rydberg" if ratio < 1 else "H may have been converted to eV twice"
        message, advice = f"{message}, {right}: {unit}", "give H and the Fermi level in eV"
    return Finding(UNIT, verdict, message, ratio, "", DEPTH[1], advice)


def electrons_told(system: LCAOSystem) -> float | None:
    """Electrons that were not counted from the Fermi level itself."""
    if system.provenance.get("electrons") == "counted":
        return None
    return system.basis.electrons(system.atoms.numbers) if system.electrons is None else float(system.electrons)


def _least(system: LCAOSystem) -> float:
    return float(sum(outer_electrons(int(z)) for z in system.atoms.numbers))


def _fits(spectrum: Spectrum, electrons: float | None, *, h: float = 1.0, level: float = 1.0) -> bool:
    """Whether a level near the stored one holds the electrons, or a number that is possible; H and level scaled."""
    system = spectrum.system
    assert system.fermi_level is not None
    low, high = (spectrum.count(level * system.fermi_level + shift, h) for shift in (-NEAR, NEAR))
    if electrons is not None:
        limit = max(MISCOUNT, MISCOUNT_SHARE * electrons)
        return low - limit <= electrons <= high + limit
    least = _least(system)
    most = min(float(system.atoms.numbers.sum()), 0.99 * spectrum.capacity)
    return least - max(CHARGE, MISCOUNT_SHARE * least) <= high and low <= most


def _why_miscounted(spectrum: Spectrum, electrons: float | None) -> tuple[str, str]:
    """The change of unit or zero that repairs the count, and what to do."""
    system = spectrum.system
    assert system.fermi_level is not None
    words = list(_units(spectrum, electrons))
    if words:
        return " or ".join(words), "give H and the Fermi level in eV"
    n = _least(system) if electrons is None else electrons
    if not 0 < n < spectrum.capacity:
        return "the basis cannot hold the electrons", "check valences and basis"
    level = spectrum.level(n)
    if system.overlap is not None and is_standardized(system):
        return (
            "<H,S> is zero: H was shifted by a multiple of S ('standardized') and the Fermi level was not; "
            f"for this H it is {level:.2f} eV",
            "convert the H before it was standardized, or store the level of the shifted H",
        )
    return (
        f"they would fill the states up to {level:.2f} eV, {level - system.fermi_level:+.2f} eV from the stored level",
        "take H and Fermi level from one run with one zero of energy; check the valences",
    )


def _units(spectrum: Spectrum, electrons: float | None) -> Iterator[str]:
    """Mistakes in units that explain the count and agree with the depth of the bands."""
    system = spectrum.system
    assert system.fermi_level is not None
    for unit, factor in UNITS.items():
        for scale, words in ((factor, f"H is in {unit}"), (1 / factor, f"H was converted from {unit} to eV twice")):
            if _fits(spectrum, electrons, h=scale):
                n = spectrum.count(system.fermi_level, scale) if electrons is None else electrons
                ratio = _depth_ratio(spectrum, n)
                if ratio is not None and 1 / DEPTH[0] < ratio * scale < DEPTH[0] and (ratio < 1) == (scale > 1):
                    yield words
    if system.overlap is not None and is_standardized(system):
        return
    for unit, factor in UNITS.items():
        for scale, words in (
            (factor, f"the Fermi level is in {unit}"),
            (1 / factor, f"the Fermi level was converted from {unit} to eV twice"),
        ):
            if _fits(spectrum, electrons, level=scale):
                n = spectrum.count(scale * system.fermi_level) if electrons is None else electrons
                ratio = _depth_ratio(spectrum, n)
                if ratio is not None and 1 / DEPTH[0] < ratio < DEPTH[0]:
                    yield words


def _depth_ratio(spectrum: Spectrum, electrons: float) -> float | None:
    """Fermi level minus the bottom of the outer bands, over what the atoms let expect; None if unknown."""
    numbers = [int(z) for z in spectrum.system.atoms.numbers]
    if not all(numbers) or any(map(has_f_electrons, numbers)) or not 0 < electrons < spectrum.capacity:
        return None
    energies = spectrum.energies
    bands_of = spectrum.degeneracy * energies.shape[0]
    first = round(max(0.0, electrons - _least(spectrum.system)) / bands_of)
    if first >= energies.shape[2]:
        return None
    width = spectrum.level(electrons) - float(energies[:, :, first].min())
    return max(width, 1e-6) / max(map(outer_depth, numbers))


def _possible_sums(system: LCAOSystem) -> set[int]:
    """Electrons of neutral atoms, each element with its outer electrons and some closed shells; empty if unknown."""
    elements, count = np.unique(system.atoms.numbers, return_counts=True)
    if not elements.all() or any(has_f_electrons(int(z)) for z in elements):
        return set()
    valences = [possible_valences(int(z)) for z in elements]
    if np.prod([float(len(v)) for v in valences]) > MOST_SUMS:
        return set()
    return {int(np.dot(choice, count)) for choice in product(*valences)}


def overlap_shift(system: LCAOSystem) -> float:
    """mu = <H,S> / <S,S> in eV: the multiple of S that H holds."""
    assert system.overlap is not None
    s = system.overlap.to_spinor().values if system.spin == "spinor" else system.overlap.values
    return float(np.mean([np.vdot(s, h.values).real for h in system.hamiltonian]) / np.vdot(s, s).real)


def is_standardized(system: LCAOSystem) -> bool:
    """Whether H holds no multiple of S, which never happens by itself."""
    assert system.overlap is not None
    s = system.overlap.values
    norm = np.linalg.norm(system.hamiltonian[0].values) / (np.sqrt(2) if system.spin == "spinor" else 1)
    return abs(overlap_shift(system)) <= STANDARDIZED * float(norm / np.linalg.norm(s))
