"""Is S that of the radial functions of its basis, at its positions? And if not: the functions, or where they stand?

On the atoms S feels the functions alone. Between them a wrong function leaves a two-center integral of the bond, only
another one; wrong positions, lattice vectors, R or orders of m leave none.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ase_hybridham.check.covariance import relative_residual, strongest_bonds
from ase_hybridham.check.operators import largest_of_pairs
from ase_hybridham.check.report import Finding, Verdict
from ase_hybridham.errors import OverlapError
from ase_hybridham.overlap import overlap_from_basis
from ase_hybridham.system import AtomBasis, LCAOSystem, PairBlocks

__all__ = ["FROM_BASIS", "check_basis"]

FROM_BASIS = "S from the basis"
# OpenMX: 1e-10 on the atoms, 6e-8 in single precision; 1e-6 where positions were printed with 6 digits
FITS = (1e-6, 1e-4)  # warning, failed
ONSITE = 1e-6  # functions of equal norm differ by more than this in their overlaps on the atom
DIRECTIONS = 0.1  # of the difference: what of it is no two-center integral if positions or orders are wrong
EXPLAINS = 0.1  # of the difference: what may be left once two shells are taken for each other
SAMPLE = 400  # pairs on which that is tried


def check_basis(system: LCAOSystem) -> Iterator[Finding]:
    """The finding that compares S with the two-center integrals of the basis."""
    if system.overlap is None:
        yield Finding(FROM_BASIS, "skipped", "there is no S")
        return
    atoms = [system.basis[int(z)] for z in np.unique(system.atoms.numbers)]
    lacking = [atom.symbol for atom in atoms if any(shell.radial is None for shell in atom.shells)]
    if lacking:
        reason = f"no radial functions of {', '.join(lacking)}; --basis-dir DIR gives them"
        yield Finding(FROM_BASIS, "skipped", reason)
        return
    try:
        expected = overlap_from_basis(system.atoms, system.basis, system.pairs)
    except OverlapError as refusal:  # functions of two programs, or such as no program makes
        yield Finding(FROM_BASIS, "failed", str(refusal), None, "", None, "give files of one program (--basis-dir)")
        return
    difference = np.abs(system.overlap.values - expected.values)
    error = float(difference.max(initial=0.0))
    if not np.isfinite(error):
        yield Finding(FROM_BASIS, "skipped", "a matrix element is not finite")
        return
    on, off = (_largest(system.overlap.with_values(difference), rows) for rows in ("onsite", "hopping"))
    message = f"S differs from the integrals of the basis by at most {error:.1e} (on-site {on:.1e}, hoppings {off:.1e})"
    warn, fail = FITS
    if error <= warn:
        yield Finding(FROM_BASIS, "ok", message, error, "", fail)
        return
    words, advice = _diagnose(system.overlap, expected)
    verdict: Verdict = "warning" if error <= fail else "failed"
    yield Finding(FROM_BASIS, verdict, f"{message}: {words}", error, "", fail, advice)


def _largest(blocks: PairBlocks, rows: str) -> float:
    return float(largest_of_pairs(blocks)[getattr(blocks.pairs, rows)].max(initial=0.0))


def _diagnose(overlap: PairBlocks, expected: PairBlocks) -> tuple[str, str]:
    """What is most likely wrong, and what to do."""
    difference = overlap - expected
    where = f"most in {_worst_shells(difference)}"
    pairs, first = overlap.pairs, overlap.offsets[overlap.pairs.n_atoms]
    onsite = largest_of_pairs(difference)[pairs.onsite] > ONSITE
    wrong = [overlap.basis[int(z)].symbol for z in np.unique(pairs.numbers[onsite])]
    fit = "" if wrong else "the on-site blocks fit, "
    size, apart = (float(np.linalg.norm(blocks.values[first:])) for blocks in (overlap, difference))
    if apart and relative_residual(strongest_bonds(overlap)) * size > DIRECTIONS * apart:
        advice = "positions, lattice, R or the order of orbitals are not those of S; see S covariance and positions"
        return f"{fit}the hoppings point elsewhere; {where}", advice
    advice = "give the files of the basis the calculation was made with, and its names (--basis)"
    if too_short := _too_short(overlap):
        return f"{too_short}; {where}", advice
    if renamed := _renamed_shells(overlap, expected):
        return renamed, "the shells stand in another order, or with another sign, than those of the files"
    who = f"of {', '.join(wrong)} " if wrong else ""
    scaled = "" if wrong else "all lengths are scaled, or "
    return f"{fit}{scaled}the radial functions {who}are not those of the calculation; {where}", advice


def _too_short(overlap: PairBlocks) -> str:
    """Whether S reaches farther than the functions do: then their file is of a smaller radius."""
    pairs = overlap.pairs
    felt = largest_of_pairs(overlap) > FITS[0]
    for (a, b), rows in pairs.element_groups.items():
        longest = float(pairs.distances[rows[felt[rows]]].max(initial=0.0))
        reach = _reach(overlap.basis[a]) + _reach(overlap.basis[b])
        if longest > reach:
            elements = f"{overlap.basis[a].symbol}-{overlap.basis[b].symbol}"
            return f"S of {elements} reaches {longest:.3f} A, the functions {reach:.3f} A"
    return ""


def _reach(atom: AtomBasis) -> float:
    """Radius in angstrom beyond which the functions are zero; infinite where they decay."""
    ends = [getattr(s.radial, "cutoff", np.inf) * (s.radial.bohr if s.radial else 1.0) for s in atom.shells]
    return float(max(ends))


def _worst_shells(difference: PairBlocks) -> str:
    """The pair of shells with the largest element, in words."""
    worst, words = -1.0, ""
    for (a, b), _, stack in difference.groups():
        largest = np.abs(stack).max(axis=0)
        row, column = np.unravel_index(int(largest.argmax()), largest.shape)
        if largest[row, column] > worst:
            worst = float(largest[row, column])
            words = f"{_shell_name(difference.basis[a], int(row))} with {_shell_name(difference.basis[b], int(column))}"
    return words


def _shell_name(atom: AtomBasis, orbital: int) -> str:
    n = next(n for n, place in enumerate(atom.slices) if orbital < place.stop)
    return f"{atom.symbol} {atom.shells[n].label or f'shell {n + 1} (l = {atom.shells[n].l})'}"


def _renamed_shells(overlap: PairBlocks, expected: PairBlocks) -> str:
    """Two shells of an element that were exchanged, or one with the other sign, if that explains all; else empty."""
    chosen = np.zeros(len(overlap.pairs), dtype=bool)
    chosen[np.random.default_rng(0).permutation(len(overlap.pairs))[:SAMPLE]] = True
    ours, theirs = (
        {key: stack[chosen[rows]] for key, rows, stack in blocks.groups()} for blocks in (overlap, expected)
    )
    unit = {z: np.eye(overlap.basis[z].size) for key in ours for z in key}
    attempts = [
        (_distance(ours, theirs, {**unit, z: change}), name)
        for z in unit
        for name, change in _relabelings(overlap.basis[z])
    ]
    least, name = min(attempts)
    return f"it fits if {name}" if least < EXPLAINS * _distance(ours, theirs, unit) else ""


def _distance(ours: Mapping, theirs: Mapping, matrices: Mapping[int, NDArray]) -> float:
    return float(
        sum(((stack - matrices[a] @ theirs[a, b] @ matrices[b].T) ** 2).sum() for (a, b), stack in ours.items()) ** 0.5
    )


def _relabelings(atom: AtomBasis) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Exchanges of two shells of one l, and changes of the sign of one, as matrices of the atom."""
    slices = atom.slices
    names = [_shell_name(atom, place.start) for place in slices]
    for n, m in combinations(range(len(slices)), 2):
        if atom.degrees[n] == atom.degrees[m]:
            order = np.arange(atom.size)
            order[slices[n]], order[slices[m]] = np.arange(atom.size)[slices[m]], np.arange(atom.size)[slices[n]]
            yield f"{names[n]} and {names[m]} are exchanged", np.eye(atom.size)[order]
    for name, place in zip(names, slices, strict=True):
        sign = np.eye(atom.size)
        sign[place] *= -1
        yield f"{name} has the other sign", sign
