"""Do the atoms and the reach of the pairs make sense?"""

from collections.abc import Iterator

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from ase_hybridham.check.operators import largest_of_pairs, pair_name
from ase_hybridham.check.report import Finding, Verdict
from ase_hybridham.system import LCAOSystem, PairList
from ase_hybridham.system.pairs import LACKING, LONGER, SAME_RADIUS

__all__ = ["BOND", "bond_length", "check_geometry"]

# Shortest distance of an atom over the sum of covalent radii, median of the atoms: 0.9 to 1.2 in molecules and
# solids; bohr taken for angstrom makes 1.9 of 1, the reverse 0.53.
BOND = (0.6, 1.6)
ON_TOP = 0.35  # of the sum of the radii: no two nuclei come that near
# |H| of the longest pairs over the largest hopping where pairs end with the orbitals: 0.01 in graphene, 0.08 in MoS2,
# 0.2 in bismuthene. Past the second limit hoppings that matter were cut off.
DECAYED = (0.25, 0.4)  # note, warning
LONGEST = 0.9  # of the longest distance of an element pair: what counts as the longest pairs
MARGIN = 1e-6  # fractional
MOST_COUNTED = 2e7  # distances: half a second


def check_geometry(system: LCAOSystem) -> Iterator[Finding]:
    """Findings about distances, cell and range."""
    yield _distances(system)
    yield _cell(system)
    yield _range(system)
    if system.hamiltonian:
        yield _decay(system)


def _distances(system: LCAOSystem) -> Finding:
    pairs, name = system.pairs, "distances"
    if not pairs.n_hoppings:
        return Finding(name, "skipped", "no pair of two atoms")
    if not pairs.numbers.all():
        return Finding(name, "skipped", "sites without an element have no radius")
    ratio = bond_ratios(pairs)
    middle = bond_length(pairs)
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


def bond_ratios(pairs: PairList) -> NDArray[np.float64]:
    """Length of every hopping over the sum of the covalent radii, shape (n_hoppings,)."""
    radius = covalent_radii[pairs.numbers]
    return (pairs.distances / (radius[pairs.i] + radius[pairs.j]))[pairs.hopping]


def bond_length(pairs: PairList) -> float:
    """Distance to the nearest neighbor over covalent radii, median of the atoms; infinite without hoppings."""
    nearest = np.full(pairs.n_atoms, np.inf)
    np.minimum.at(nearest, pairs.i[pairs.hopping], bond_ratios(pairs))
    return float(np.median(nearest))


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
    if system.basis.orthogonal:
        return Finding(name, "skipped", "orthogonal orbitals have no radius")
    if len(known) < len(radii):
        return Finding(name, "skipped", "the radii of the orbitals are not known")
    radius = np.array([known[z] for z in pairs.numbers.tolist()])
    reach = radius[pairs.i] + radius[pairs.j]
    p = int(np.argmax(pairs.distances - reach))
    if pairs.distances[p] > reach[p] + LONGER:
        message = (
            f"pair {pair_name(system.operators[0], p)} is {pairs.distances[p]:.3f} A long, its two radii {reach[p]:.3f}"
        )
        return Finding(name, "warning", message, advice="check the lattice, R and the radii of the basis")
    limit = _reach(system, radius - SAME_RADIUS)
    expected = _count_within(system, limit)
    if expected is None:
        return Finding(name, "skipped", "too many pairs to count")
    missing = expected - int((pairs.distances <= limit[pairs.i, pairs.j]).sum())
    if missing > LACKING * expected:
        message = f"{missing} of {expected} pairs within the radii are missing"
        advice = "pairs are lost, or positions, lattice and R do not fit together"
        return Finding(name, "warning", message, missing / expected, "of the pairs", LACKING, advice)
    return Finding(name, "ok", f"all pairs within the radii, {pairs.distances.max():.2f} A at most")


def _reach(system: LCAOSystem, radius: NDArray[np.float64]) -> NDArray[np.float64]:
    """Up to where all pairs are expected, shape (n_atoms, n_atoms): two radii, or as far as S where H goes further.

    By projectors H connects some atoms, in some directions, that are farther apart than orbitals reach.
    """
    limit = radius[None] + radius[:, None]
    if system.overlap is not None:
        felt = largest_of_pairs(system.overlap) > 0
        for (a, b), rows in system.pairs.element_groups.items():
            if not felt[rows].all():
                longest = system.pairs.distances[rows[felt[rows]]].max(initial=0.0) - SAME_RADIUS
                some = np.ix_(system.atoms.numbers == a, system.atoms.numbers == b)
                limit[some] = np.minimum(limit[some], longest)
    return limit


def _count_within(system: LCAOSystem, limit: NDArray[np.float64]) -> int | None:
    """Pairs within limits whose R is at most one cell beyond those of the list, self pairs too; None if too many."""
    atoms, shifts = system.atoms, system.pairs.shifts
    most = np.abs(shifts).max(axis=0) + np.asarray(atoms.pbc)
    cells = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in most), indexing="ij"), axis=-1).reshape(-1, 3)
    if len(cells) * len(atoms) ** 2 > MOST_COUNTED:
        return None
    positions = atoms.get_positions()
    between = positions[None] - positions[:, None]
    return sum(
        int((np.linalg.norm(between + translation, axis=-1) <= limit).sum()) for translation in cells @ atoms.cell.array
    )


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
