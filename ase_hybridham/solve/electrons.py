"""How many electrons a system holds: what its file, a list, valences and the stored Fermi level tell of it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from ase.data import atomic_numbers

from ase_hybridham.solve.fermi import count_electrons
from ase_hybridham.solve.pencil import OVERLAP_THRESHOLD
from ase_hybridham.system import LCAOSystem

__all__ = ["solve_valences", "with_electrons"]

logger = logging.getLogger(__name__)

SAME = 1e-3  # electrons; what is told as the same number may be rounded
ROUNDING = 0.1  # electrons; a count farther from an integer than this deserves a warning
MISCOUNT = 0.5  # electrons by which a told number may differ from a count on a coarse mesh
COARSE = 2.0  # k-points per 1/angstrom: to see a wrong valence, not a Fermi surface


def with_electrons(
    system: LCAOSystem,
    valence: Mapping[str, float] | None = None,
    electrons: float | None = None,
    *,
    overlap_threshold: float = OVERLAP_THRESHOLD,
) -> LCAOSystem:
    """The system with its number of electrons, from the first source that knows it.

    These are: the system itself; `electrons`; `valence`, summed over neutral atoms; a count of the states below the
    stored Fermi level on a k-mesh, rounded, which the provenance then tells. A system without Fermi level, H or S
    keeps None. For a single element the count also gives its valence.

    Parameters
    ----------
    system : LCAOSystem
    valence : mapping, optional
        Chemical symbol -> valence electrons, for every element of the system.
    electrons : float, optional
        Valence electrons in the cell.
    overlap_threshold : float
        Of the count, as in `eigenvalues`.

    Raises
    ------
    ValueError
        If `valence` lacks an element of the system, or two of the first three sources contradict each other.
    """
    numbers = system.atoms.get_atomic_numbers()
    provenance = dict(system.provenance)
    basis = system.basis
    if valence:
        lacking = sorted(set(basis.atoms) - set(valence))
        if lacking:
            raise ValueError(f"valence: expected one for {', '.join(lacking)} too, as in {lacking[0]}=4")
        basis = basis.with_valences(valence)
    told = {
        "the system": system.electrons,
        "the given count": electrons,
        "the valences": basis.electrons(numbers) if valence else None,
    }
    known = {source: count for source, count in told.items() if count is not None}
    found = next(iter(known.values()), None)
    for source, count in known.items():
        if found is not None and abs(count - found) > SAME:
            first = next(iter(known))
            raise ValueError(
                f"electrons: {first} says {found:g} for {system.atoms.symbols}, {source} {count:g}; correct one of them"
            )
    if found is None:
        found = basis.electrons(numbers)
    countable = system.fermi_level is not None and system.hamiltonian and (system.overlap or basis.orthogonal)
    if found is None and countable:
        count = count_electrons(system, overlap_threshold=overlap_threshold)
        found = float(round(count))
        provenance["electrons"] = "counted"
        if abs(count - found) > ROUNDING:
            logger.warning(
                "%s: counted %.3f electrons below the Fermi level, not an integer", system.atoms.symbols, count
            )
    elif found is not None and system.electrons is None and (valence or electrons is not None) and countable:
        count = count_electrons(system, density=COARSE, overlap_threshold=overlap_threshold)
        if abs(count - found) > MISCOUNT:
            logger.warning(
                "%s: %g electrons given, but %.1f states lie below the stored Fermi level; check the valences",
                system.atoms.symbols,
                found,
                count,
            )
    if found is not None and len(basis.atoms) == 1 and (found / len(numbers)).is_integer():
        symbol = next(iter(basis.atoms))
        if basis[symbol].valence is None:
            basis = basis.with_valences({symbol: found / len(numbers)})
    operators = [replace(blocks, basis=basis) for blocks in system.operators]
    return replace(
        system,
        hamiltonian=tuple(operators[: len(system.hamiltonian)]),
        overlap=None if system.overlap is None else operators[-1],
        electrons=found,
        provenance=provenance,
    )


def solve_valences(
    structures: Sequence[tuple[Mapping[str, int], float]], known: Mapping[str, float]
) -> dict[str, float]:
    """Valences that follow from electron counts of neutral structures of different composition.

    Parameters
    ----------
    structures : sequence of (symbol -> number of atoms, electrons)
    known : mapping
        Valences that need not be found.

    Returns
    -------
    dict
        Symbol -> valence, of those elements that the counts determine; none if the counts contradict each other,
        or an element would have no electron, a fraction of one, or more than its nucleus holds.
    """
    symbols = sorted({symbol for composition, _ in structures for symbol in composition} - set(known))
    if not symbols:
        return {}
    atoms = np.array([[composition.get(symbol, 0) for symbol in symbols] for composition, _ in structures], float)
    rest = [count - sum(known.get(s, 0) * n for s, n in composition.items()) for composition, count in structures]
    valences = np.linalg.lstsq(atoms, rest, rcond=None)[0]
    if np.abs(atoms @ valences - rest).max() > SAME:
        return {}
    # the rows of a pseudo-inverse that gives an element back are those of the unit matrix
    determined = np.abs(np.linalg.pinv(atoms) @ atoms - np.eye(len(symbols))).max(axis=1) < 1e-8
    found = {s: round(float(v), 6) for s, v, is_known in zip(symbols, valences, determined, strict=True) if is_known}
    possible = all(v.is_integer() and 0 < v <= atomic_numbers[s] for s, v in found.items())
    return found if possible else {}
