"""Whether an overlap that somebody gives belongs to the atoms and the basis at hand."""

import logging

import numpy as np
from ase import Atoms

from ase_hybridham.errors import OverlapError
from ase_hybridham.overlap.assembly import overlap_from_basis
from ase_hybridham.system import Basis, PairBlocks, PairList
from ase_hybridham.system.pairs import outside_of_radii, pair_vectors

__all__ = ["check_overlap", "difference_from_basis"]

# A given S belongs to one geometry. Files round positions to 1e-6 angstrom or less; S changes by 1e-4 over this.
SAME_POSITION = 1e-4  # angstrom
SAMPLE = 200  # pairs that are computed again

logger = logging.getLogger(__name__)


def check_overlap(overlap: PairBlocks, atoms: Atoms, basis: Basis) -> None:
    """Refuse an S of other atoms: with it H(k) c = e S(k) c would give wrong numbers without a word.

    Parameters
    ----------
    overlap : PairBlocks
    atoms : ase.Atoms
        For which H is predicted.
    basis : Basis
        Of H.

    Raises
    ------
    OverlapError
        If elements, orbitals, radial functions or positions differ, or pairs are longer than the radii of the basis.
    """
    pairs = overlap.pairs
    if not np.array_equal(pairs.numbers, atoms.get_atomic_numbers()):
        raise OverlapError("overlap: given for other elements or another order of the atoms; give S of these atoms")
    shells = [(basis[z].shells, overlap.basis[z].shells) for z in np.unique(pairs.numbers)]
    known = basis.has_radial_functions() and overlap.basis.has_radial_functions()
    if overlap.spinor or not basis.same_orbitals(overlap.basis) or (known and any(a != b for a, b in shells)):
        raise OverlapError("overlap: its orbitals are not those of the model; give S in its basis, without spin")
    moved = float(np.abs(pair_vectors(atoms, pairs.i, pairs.j, pairs.shifts) - pairs.vectors).max(initial=0.0))
    if moved > SAME_POSITION:
        raise OverlapError(
            f"overlap: given for another geometry, bonds differ by up to {moved:.2g} angstrom; "
            "give S of these positions and this cell (atoms not wrapped otherwise), or a function that computes it"
        )
    _check_range(pairs, atoms, basis)


def difference_from_basis(overlap: PairBlocks, atoms: Atoms, basis: Basis) -> float:
    """Largest difference of S from the two-center integrals of a basis, on a sample of its pairs.

    Parameters
    ----------
    overlap : PairBlocks
        Of these atoms, see `check_overlap`.
    atoms : ase.Atoms
    basis : Basis
        With radial functions.
    """
    pairs = overlap.pairs
    chosen = np.random.default_rng(0).permutation(len(pairs))[:SAMPLE]
    rows = np.union1d(chosen, pairs.reverse[chosen])
    few = PairList.from_indices(atoms, pairs.i[rows], pairs.j[rows], pairs.shifts[rows])
    found = overlap_from_basis(atoms, basis, few)
    return float(np.abs(found.values - overlap.on_pairs(few).values).max(initial=0.0))


def _check_range(pairs: PairList, atoms: Atoms, basis: Basis) -> None:
    """Refuse pairs beyond the trained range; tell if many within it are missing."""
    known = {int(z): basis[z].cutoff for z in np.unique(pairs.numbers)}
    radii = {z: cutoff for z, cutoff in known.items() if cutoff is not None}
    if len(radii) < len(known):
        return
    too_long, missing, expected = outside_of_radii(pairs, atoms, radii)
    if too_long is not None:
        raise OverlapError(f"overlap: {too_long}; give S of the basis the model was trained on")
    if missing:
        logger.warning("overlap: %d of %d pairs within the model's range are missing in S", missing, expected)
