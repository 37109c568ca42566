"""Gaussian bases and pseudopotentials of Goedecker, Teter and Hutter, as PySCF ships them.

The name of a basis is PySCF's, e.g. ``gth-szv-molopt-sr``; the suffix ``-short`` raises the
smallest exponent of carbon to 0.20 bohr^-2 with its coefficient kept: hoppings then vanish
beyond 7 angstrom (0.02 meV in the bands) at the price of 0.05 eV in the interlayer splitting
of a graphene bilayer. Truncating the unmodified basis at 6 angstrom costs 111 meV instead.
"""

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from ase import Atoms

from ase_hybridham.errors import OverlapError
from ase_hybridham.io.gaussian_basis import contracted_shells
from ase_hybridham.overlap import overlap_from_basis
from ase_hybridham.system import AtomBasis, Basis, GaussianRadial, PairList, Shell

__all__ = [
    "PSEUDOPOTENTIALS",
    "gaussian_shells",
    "gth_basis",
    "gth_pseudopotential",
    "require_pyscf",
    "shell_occupations",
]

PSEUDOPOTENTIALS = {"lda": "gth-pade", "pbe": "gth-pbe"}
SHORT = "-short"
# element -> smallest exponent (bohr^-2), radius (angstrom); measured for carbon only
SHORT_ELEMENTS = {"C": (0.20, 3.5)}
RADIUS, STEP = 4.5, 0.5  # angstrom: the least, and by how much it grows
# What functions of two equal atoms may overlap where hoppings end. Lithium's 2e-3 at 9 angstrom made S(k) of LiF
# negative; with 7e-4 its lowest conduction band is off by 90 meV, with 1e-4 by 7 meV.
TAIL = 1e-4


def gth_basis(name: str, symbols: Iterable[str], xc: str) -> Basis:
    """The basis of some elements, with radial functions, valence electrons and cutoff radii.

    Parameters
    ----------
    name : str
        PySCF's name of a GTH basis, or that with ``-short``.
    symbols : iterable of str
        Chemical symbols; each is there once in the result.
    xc : {"lda", "pbe"}
        Decides the pseudopotential and with it the valence electrons.

    Returns
    -------
    Basis
        Cutoff radii 4.5 angstrom, more for diffuse functions (lithium 6), 3.5 for a shortened element.

    Raises
    ------
    ValueError
        If an element has no such basis or no such pseudopotential.
    """
    unmodified = name.removesuffix(SHORT)
    atoms = []
    for symbol in sorted(set(symbols)):
        raw = _load("load", unmodified, symbol, "basis")
        smallest, radius = SHORT_ELEMENTS.get(symbol, (0.0, None)) if name.endswith(SHORT) else (0.0, None)
        shells = tuple(shell for entry in raw for shell in _shells(entry, smallest))
        valence = float(sum(gth_pseudopotential(symbol, xc)[0]))
        atoms.append(AtomBasis(symbol, shells, valence, radius or _radius(symbol, shells)))
    return Basis.of(*atoms, name=name)


def gaussian_shells(atom: AtomBasis) -> list[list]:
    """The shells of an atom basis in PySCF's basis format: ``[[l, [exponent, coefficient], ...], ...]``.

    Raises
    ------
    OverlapError
        If a shell has no Gaussians.
    """
    entries = []
    for n, shell in enumerate(atom.shells):
        if not isinstance(shell.radial, GaussianRadial):
            raise OverlapError(
                f"basis: expected Gaussians in shell {shell.label or n} of {atom.symbol}, "
                f"got {'samples' if shell.radial else 'no radial function'}; PySCF needs a basis of Gaussians"
            )
        entries.append([shell.l, *map(list, zip(shell.radial.exponents, shell.radial.coefficients, strict=True))])
    return entries


def require_pyscf(what: str) -> None:
    """Raise ImportError with the install line if PySCF is missing; `what` needs it."""
    try:
        import pyscf.gto  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{what}: PySCF is not installed; pip install ase-hybridham[dft]") from error


def gth_pseudopotential(symbol: str, xc: str) -> list[Any]:
    """PySCF's entry of an element; its first item is the number of valence electrons of every l."""
    return _load("load_pseudo", PSEUDOPOTENTIALS[xc], symbol, "pseudopotential")


def shell_occupations(atom: AtomBasis, xc: str) -> list[float]:
    """Electrons of every shell of the free atom, filled shell after shell of the same l."""
    left = dict(enumerate(gth_pseudopotential(atom.symbol, xc)[0]))
    occupations = []
    for l in atom.degrees:
        filled = min(left.get(l, 0), 2 * (2 * l + 1))
        left[l] = left.get(l, 0) - filled
        occupations.append(float(filled))
    return occupations


def _shells(entry: list, smallest: float) -> list[Shell]:
    """One shell for every contraction of an entry ``[l, [exponent, coefficient, coefficient, ...], ...]``."""
    l, *rows = entry
    table = np.array(rows, dtype=np.float64)
    least = table[:, 0].argmin()
    table[least, 0] = max(table[least, 0], smallest)
    return contracted_shells(int(l), table)


def _radius(symbol: str, shells: tuple[Shell, ...]) -> float:
    """Half of the distance, in steps, beyond which two atoms of an element hardly overlap."""
    radius = RADIUS
    while True:
        atom = AtomBasis(symbol, shells, cutoff=radius)
        pair = Atoms([symbol, symbol], [(0, 0, 0), (0, 0, 2 * radius - 1e-6)])  # just within reach
        pairs = PairList.from_atoms(pair, {atom.number: radius})
        overlap = overlap_from_basis(pair, Basis.of(atom), pairs, accuracy=0)
        if np.abs(overlap.values[overlap.offsets[2] :]).max() <= TAIL:
            return radius
        radius += STEP


def _load(function: str, name: str, symbol: str, what: str) -> Any:
    from pyscf.gto import basis
    from pyscf.lib.exceptions import BasisNotFoundError

    if not name.startswith("gth-"):
        raise ValueError(f"{what}: expected the name of a GTH {what}, e.g. gth-szv-molopt-sr, got {name!r}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice to install a package that asks the network
            return getattr(basis, function)(name, symbol)
    except (BasisNotFoundError, KeyError) as error:
        raise ValueError(
            f"{what} {name}: PySCF has no entry of {symbol}; choose another {what} or leave out the element"
        ) from error
