"""Overlaps of contracted Gaussians, exact, through PySCF's integral library.

A molecule is formed of atoms of the home cell and of every image they overlap with; one call
gives all integrals between the first and the second. Letters: i home atom, j partner, R its
cell; lengths in PySCF's bohr, because the exponents were fitted with it.
"""

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_hybridham.errors import OverlapError
from ase_hybridham.system import AtomBasis, Basis, PairBlocks, PairList, convert_orbitals

__all__ = ["gaussian_shells", "overlap_from_basis", "require_pyscf"]

# Home atoms per call: the integrals of a call are a dense matrix, home orbitals x partner orbitals.
HOME_ATOMS = 32


def overlap_from_basis(atoms: Atoms, basis: Basis, pairs: PairList | None = None) -> PairBlocks:
    """S_ij(R) = <i, 0|j, R> of a basis whose shells are contracted Gaussians.

    Parameters
    ----------
    atoms : ase.Atoms
        Any pbc; positions may lie outside the cell.
    basis : Basis
        Every shell of the elements of `atoms` carries a `GaussianRadial`.
    pairs : PairList, optional
        Pairs of `atoms`; by default those within the sum of the basis' cutoff radii.

    Returns
    -------
    PairBlocks
        float64, on `pairs`.

    Raises
    ------
    OverlapError
        If a shell has no radial function.
    ImportError
        If PySCF is not installed.
    ValueError
        If the basis lacks an element, or a cutoff radius where `pairs` is not given.
    """
    lacking = sorted({symbol for symbol in atoms.get_chemical_symbols() if symbol not in basis})
    if lacking:
        raise ValueError(f"basis {basis.name}: no element {lacking[0]}, only {', '.join(basis.atoms)}")
    used = {z: basis[z] for z in sorted(set(atoms.get_atomic_numbers().tolist()))}
    shells = {atom.symbol: gaussian_shells(atom) for atom in used.values()}
    if pairs is None:
        pairs = PairList.from_atoms(atoms, basis.cutoffs())
    overlap = PairBlocks.zeros(pairs, basis)
    for start in range(0, len(atoms), HOME_ATOMS):
        _fill(overlap, atoms, shells, np.arange(start, min(start + HOME_ATOMS, len(atoms))))
    return overlap


def gaussian_shells(atom: AtomBasis) -> list[list]:
    """The shells of an atom basis in PySCF's basis format: ``[[l, [exponent, coefficient], ...], ...]``.

    Raises
    ------
    OverlapError
        If a shell has no radial function.
    """
    entries = []
    for n, shell in enumerate(atom.shells):
        if shell.radial is None:
            raise OverlapError(
                f"overlap: shell {shell.label or n} of {atom.symbol} has no radial function; give the overlap "
                "(a file, a folder or PairBlocks), or use a basis of Gaussian shells"
            )
        entries.append([shell.l, *map(list, zip(shell.radial.exponents, shell.radial.coefficients, strict=True))])
    return entries


def require_pyscf(what: str) -> None:
    """Raise ImportError with the install line if PySCF is missing; `what` needs it."""
    try:
        import pyscf.gto  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{what}: PySCF is not installed; pip install ase-hybridham[dft]") from error


def _fill(overlap: PairBlocks, atoms: Atoms, shells: dict[str, list[list]], home: NDArray[np.int64]) -> None:
    """Write the blocks of all pairs whose first atom is in `home` (consecutive)."""
    pairs, basis = overlap.pairs, overlap.basis
    mine = np.flatnonzero((pairs.i >= home[0]) & (pairs.i <= home[-1]))
    partners, partner = np.unique(np.column_stack([pairs.j, pairs.shifts])[mine], axis=0, return_inverse=True)
    members = np.concatenate([home, partners[:, 0]])
    shifts = np.concatenate([np.zeros((len(home), 3)), partners[:, 1:]])
    table = _overlap_table(
        [atoms.symbols[n] for n in members],
        atoms.get_positions()[members] + shifts @ atoms.cell.array,
        shells,
        len(home),
    )
    sizes = basis.sizes(pairs.numbers[members])
    first_row = np.cumsum(sizes[: len(home)]) - sizes[: len(home)]
    first_column = np.cumsum(sizes[len(home) :]) - sizes[len(home) :]
    row, column = np.zeros(len(pairs), np.int64), np.zeros(len(pairs), np.int64)
    row[mine] = first_row[pairs.i[mine] - home[0]]
    column[mine] = first_column[partner.ravel()]
    for (z_i, z_j), group in pairs.element_groups.items():
        rows = group[(pairs.i[group] >= home[0]) & (pairs.i[group] <= home[-1])]
        if not len(rows):
            continue
        a = row[rows][:, None, None] + np.arange(basis[z_i].size)[:, None]
        b = column[rows][:, None, None] + np.arange(basis[z_j].size)
        blocks = convert_orbitals(table[a, b], "pyscf", basis[z_i].degrees, basis[z_j].degrees)
        overlap.values[overlap.index(rows)] = blocks


def _overlap_table(
    symbols: list[str], positions: NDArray[np.float64], shells: dict[str, list[list]], n_home: int
) -> NDArray[np.float64]:
    """Integrals <home|partner> in PySCF's orbital order, shape (home orbitals, partner orbitals)."""
    try:
        from pyscf.data.nist import BOHR
        from pyscf.gto import make_env
        from pyscf.gto.mole import PTR_ENV_START
        from pyscf.gto.moleintor import getints
    except ImportError as error:
        raise ImportError(
            "overlaps of Gaussian bases need PySCF; install it: pip install ase-hybridham[dft]"
        ) from error
    members = [[symbol, position] for symbol, position in zip(symbols, positions / BOHR, strict=True)]
    atm, bas, env = make_env(members, shells, np.zeros(PTR_ENV_START))
    n_shells = sum(len(shells[symbol]) for symbol in symbols[:n_home])
    return getints("int1e_ovlp_sph", atm, bas, env, shls_slice=(0, n_shells, n_shells, len(bas)))
