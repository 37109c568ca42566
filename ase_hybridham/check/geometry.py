"""Do the atoms and the reach of the pairs make sense?"""

from collections.abc import Iterator

import numpy as np
from ase.data import covalent_radii

from ase_hybridham.check.operators import largest_of_pairs, pair_name
from ase_hybridham.check.report import Finding, Verdict
from ase_hybridham.system import LCAOSystem
from ase_hybridham.system.pairs import outside_of_radii

__all__ = ["check_geometry"]

# Shortest distance of an atom over the sum of covalent radii, median of the atoms: 0.9 to 1.2 in molecules and
# solids; bohr taken for angstrom makes 1.9 of 1, the reverse 0.53.
BOND = (0.6, 1.6)
ON_TOP = 0.35  # of the sum of the radii: no two nuclei come that near
# |H| of the longest pairs over the largest hopping where pairs end with the orbitals: 0.01 in graphene, 0.08 in MoS2,
# 0.2 in bismuthene. Past the second limit hoppings that matter were cut off.
DECAYED = (0.1, 0.4)  # note, warning
LONGEST = 0.9  # of the longest distance of an element pair: what counts as the longest pairs
MARGIN = 1e-6  # fractional


def check_geometry(system: LCAOSystem) -> Iterator[Finding]:
    """Findings about distances, cell and range."""
    yield _distances(system)
    yield _cell(system)
    yield _range(system)
    if system.hamiltonian:
        yield _decay(system)


def _distances(system: LCAOSystem) -> Finding:
    pairs, name = system.pairs, "distances"
    hopping = pairs.hopping
    if not pairs.n_hoppings:
        return Finding(name, "skipped", "no pair of two atoms")
    radius = covalent_radii[pairs.numbers]
    ratio = (pairs.distances / (radius[pairs.i] + radius[pairs.j]))[hopping]
    nearest = np.full(pairs.n_atoms, np.inf)
    np.minimum.at(nearest, pairs.i[hopping], ratio)
    middle = float(np.median(nearest[np.isfinite(nearest)]))
    p = int(np.argmin(ratio)) + pairs.n_atoms
    shortest = f"{pairs.distances[p]:.3f} A in pair {pair_name(system.operators[0], p)}"
    message = f"nearest neighbors at {middle:.2f} times their covalent radii, shortest {shortest}"
    if ratio.min() < ON_TOP:
        advice = "two atoms on top of each other: check positions, lattice and the sign of R"
        return Finding(name, "failed", message, float(ratio.min()), "covalent radii", ON_TOP, advice)
    low, high = BOND
    if middle > high:
        return Finding(
            name, "warning", message, middle, "covalent radii", high, "are lengths in bohr, taken for angstrom?"
        )
    if middle < low:
        return Finding(
            name, "warning", message, middle, "covalent radii", low, "were lengths converted from bohr twice?"
        )
    return Finding(name, "ok", message, middle, "covalent radii", high)


def _cell(system: LCAOSystem) -> Finding:
    """Atoms outside the cell are allowed; who wraps them must change R too."""
    atoms, name = system.atoms, "atoms in the cell"
    scaled = atoms.cell.complete().scaled_positions(atoms.get_positions())
    outside = int(((scaled < -MARGIN) | (scaled >= 1 + MARGIN))[:, np.asarray(atoms.pbc)].any(axis=1).sum())
    if outside:
        message = (
            f"{outside} of {len(atoms)} atoms lie outside the cell; R counts from where they are, do not wrap them"
        )
        return Finding(name, "note", message, float(outside), "atoms")
    return Finding(name, "ok", "all atoms lie in the cell along its periodic axes", 0.0, "atoms")


def _range(system: LCAOSystem) -> Finding:
    """The pairs against the radii of the orbitals."""
    name, pairs = "range of pairs", system.pairs
    radii = {z: system.basis[z].cutoff for z in np.unique(pairs.numbers).tolist()}
    known = {z: float(r) for z, r in radii.items() if r is not None}
    if len(known) < len(radii):
        return Finding(name, "skipped", "the radii of the orbitals are not known")
    try:
        too_long, missing, expected = outside_of_radii(pairs, system.atoms, known)
    except ValueError as error:
        return Finding(name, "failed", str(error), advice="check cell, positions and radii")
    if too_long:
        return Finding(name, "warning", too_long, advice="check the lattice, R and the radii of the basis")
    if missing:
        advice = "pairs are lost, or positions, lattice and R do not fit together"
        message = f"{missing} of {expected} pairs within the radii are missing"
        return Finding(name, "warning", message, missing / expected, "of the pairs", 0.02, advice)
    return Finding(name, "ok", f"all pairs within the radii, {pairs.distances.max():.2f} A at most")


def _decay(system: LCAOSystem) -> Finding:
    """|H| of the longest pairs of each element pair against the largest hopping."""
    name, pairs = "decay of H", system.pairs
    if not pairs.n_hoppings or not np.asarray(system.atoms.pbc).any():
        return Finding(name, "skipped", "a molecule has all its pairs")
    h = np.maximum.reduce([largest_of_pairs(blocks) for blocks in system.hamiltonian])
    h[pairs.onsite] = 0.0
    far = np.zeros(len(pairs), dtype=bool)
    for rows in pairs.element_groups.values():
        far[rows] = pairs.distances[rows] >= LONGEST * pairs.distances[rows].max()
    far[pairs.onsite] = False
    if not h.max():
        return Finding(name, "skipped", "H has no hopping")
    p = int(np.argmax(np.where(far, h, 0.0)))
    left = float(h[p] / h.max())
    message = f"|H| is {h[p]:.1e} eV in the longest pairs, {left:.1e} of the largest hopping"
    note, warn = DECAYED
    verdict: Verdict = "ok" if left <= note else "note" if left <= warn else "warning"
    advice = "pairs end before H has decayed: raise the cutoff, or look for lost pairs" if verdict == "warning" else ""
    return Finding(name, verdict, message, left, "", warn, advice)
