"""What a SOURCE on the command line names: a checkpoint, a data set (``data.h5:NAME``), or another program's files."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ase.data import atomic_numbers

from ase_hybridham.io import read_system
from ase_hybridham.solve import count_electrons
from ase_hybridham.store import names_data_set, read_structure
from ase_hybridham.system import AtomBasis, Basis, LCAOSystem

__all__ = ["kind_of", "load_system", "parse_valence", "with_electrons"]

logger = logging.getLogger(__name__)

CHECKPOINT_SUFFIX = ".hham"
ROUNDING = 0.1  # electrons; a count farther from an integer than this deserves a warning


def kind_of(source: str | Path) -> Literal["checkpoint", "dataset", "system"]:
    """What a SOURCE is, by its name and first bytes; a bare word that is no file is the name of a model."""
    if names_data_set(source):
        return "dataset"
    path = Path(source)
    is_word = not path.exists() and path.name == str(source) and not path.suffix
    return "checkpoint" if path.suffix == CHECKPOINT_SUFFIX or is_word else "system"


def load_system(
    source: str | Path, *, format: str | None = None, valence: Mapping[str, float] | None = None
) -> LCAOSystem:
    """The system of a data set or of another program's files, with its electrons.

    Parameters
    ----------
    source : str or Path
        ``data.h5:NAME``, ``data.h5`` if it holds one structure, or what `io.read_system` reads.
    format : str, optional
        A format of `io.formats`, where it should not be guessed.
    valence : mapping, optional
        Chemical symbol -> valence electrons; see `with_electrons`.

    Raises
    ------
    FormatError
        If the source cannot be read, or does not say which structure is meant.
    """
    stored = format is None and names_data_set(source)
    system = read_structure(source) if stored else read_system(source, format)
    complete = with_electrons(system, valence)
    if complete.provenance.get("electrons") == "counted" and system.electrons is None:
        logger.warning(
            "%s: %g electrons, counted up to the stored Fermi level and rounded; --valence tells them better",
            source,
            complete.electrons,
        )
    return complete


def with_electrons(
    system: LCAOSystem, valence: Mapping[str, float] | None = None, electrons: float | None = None
) -> LCAOSystem:
    """The system with its number of electrons, from the first source that knows it.

    These are: the system itself; `electrons`; `valence`, summed over neutral atoms; a count of the states below the
    stored Fermi level on a k-mesh, rounded, which the provenance then tells. A system without Fermi level, H or S
    keeps None. For a single element the count also gives its valence.

    Raises
    ------
    ValueError
        If `valence` lacks an element of the system.
    """
    numbers = system.atoms.get_atomic_numbers()
    provenance = dict(system.provenance)
    basis = system.basis
    if valence:
        lacking = sorted(set(basis.atoms) - set(valence))
        if lacking:
            raise ValueError(f"valence: expected one for {', '.join(lacking)} too, as in {lacking[0]}=4")
        basis = _with_valence(basis, valence)
    found = system.electrons if system.electrons is not None else electrons
    if found is None:
        found = basis.electrons(numbers)
    if found is None and system.fermi_level is not None and system.hamiltonian and system.overlap is not None:
        count = count_electrons(system)
        found = float(round(count))
        provenance["electrons"] = "counted"
        if abs(count - found) > ROUNDING:
            logger.warning(
                "%s: counted %.3f electrons below the Fermi level, not an integer", system.atoms.symbols, count
            )
    if found is not None and len(basis.atoms) == 1 and (found / len(numbers)).is_integer():
        symbol = next(iter(basis.atoms))
        if basis[symbol].valence is None:
            basis = _with_valence(basis, {symbol: found / len(numbers)})
    operators = [replace(blocks, basis=basis) for blocks in system.operators]
    return replace(
        system,
        hamiltonian=tuple(operators[: len(system.hamiltonian)]),
        overlap=None if system.overlap is None else operators[-1],
        electrons=found,
        provenance=provenance,
    )


def parse_valence(words: Sequence[str]) -> dict[str, float]:
    """Symbol -> valence electrons of words like ``C=4``.

    Raises
    ------
    ValueError
        If a word is not of this form.
    """
    valence = {}
    for word in words:
        symbol, _, number = word.partition("=")
        try:
            valence[symbol] = float(number)
        except ValueError:
            symbol = ""
        if symbol not in atomic_numbers or not 0 < valence[symbol] <= atomic_numbers[symbol]:
            raise ValueError(f"valence: expected a word like C=4, got {word!r}")
    return valence


def _with_valence(basis: Basis, valence: Mapping[str, float]) -> Basis:
    atoms = (AtomBasis(a.symbol, a.shells, valence.get(a.symbol, a.valence), a.cutoff) for a in basis.atoms.values())
    return Basis.of(*atoms, name=basis.name, orthogonal=basis.orthogonal)
