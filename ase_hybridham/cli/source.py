"""What a SOURCE on the command line names: a checkpoint, a data set (``data.h5:NAME``), or another program's files."""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from ase_hybridham.cli.naming import only_structure
from ase_hybridham.errors import FormatError
from ase_hybridham.io import format_of, read_system
from ase_hybridham.solve import OVERLAP_THRESHOLD, with_electrons
from ase_hybridham.store import names_data_set, read_structure
from ase_hybridham.system import LCAOSystem, PairList

__all__ = [
    "SHORTEST",
    "kind_of",
    "load_structure",
    "load_system",
    "parse_valence",
    "refuse_coinciding",
    "refuse_unwritable",
]

logger = logging.getLogger(__name__)

CHECKPOINT_SUFFIX = ".hham"
SHORTEST = 0.1  # angstrom; no two nuclei come that near


def kind_of(source: str | Path) -> Literal["checkpoint", "dataset", "system"]:
    """What a SOURCE is, by its name and first bytes; a bare word that is no file is the name of a model."""
    if names_data_set(source):
        return "dataset"
    path = Path(source)
    is_word = not path.exists() and path.name == str(source) and not path.suffix
    return "checkpoint" if path.suffix == CHECKPOINT_SUFFIX or is_word else "system"


def load_system(
    source: str | Path,
    *,
    format: str | None = None,
    valence: Mapping[str, float] | None = None,
    overlap_threshold: float = OVERLAP_THRESHOLD,
) -> LCAOSystem:
    """The system of a data set or of another program's files, with its electrons.

    Parameters
    ----------
    source : str or Path
        ``data.h5:NAME``, ``data.h5`` if it holds one structure, what `io.read_system` reads, or a folder above one.
    format : str, optional
        A format of `io.formats`, where it should not be guessed.
    valence : mapping, optional
        Chemical symbol -> valence electrons; see `solve.with_electrons`.
    overlap_threshold : float
        Of a count of electrons, see `solve.eigenvalues`.

    Raises
    ------
    FormatError
        If the source cannot be read, or does not say which structure is meant.
    """
    stored = format is None and names_data_set(source)
    path = source if stored or format else only_structure(source)
    system = read_structure(path) if stored else read_system(path, format)
    complete = with_electrons(system, valence, overlap_threshold=overlap_threshold)
    if complete.provenance.get("electrons") == "counted" and system.electrons is None:
        logger.warning(
            "%s: %g electrons, counted up to the stored Fermi level and rounded; --valence tells them better",
            source,
            complete.electrons,
        )
    return complete


def load_structure(source: str | Path) -> tuple[Atoms, LCAOSystem | None]:
    """The atoms of a STRUCTURE to predict, and what else its source knows of them.

    Parameters
    ----------
    source : str or Path
        A file that ASE reads, a DeepH folder or ``data.h5:NAME``. A DeepH folder may lack all blocks.

    Returns
    -------
    atoms : ase.Atoms
    system : LCAOSystem or None
        With the pairs, and S or H, if the source holds such.

    Raises
    ------
    FormatError
        If nothing is there, it cannot be read, or it holds no atom.
    """
    if names_data_set(source):
        system = read_structure(source)
        return system.atoms.copy(), system
    known = format_of(source)
    if known is not None and known.read_atoms and known.holds_blocks and not known.holds_blocks(Path(source)):
        return known.read_atoms(Path(source)), None
    if known is not None:
        system = read_system(source)
        return system.atoms.copy(), system
    if not Path(source).exists():
        raise FormatError(f"{source}: no such file or folder")
    return _read_with_ase(source), None


def refuse_coinciding(pairs: PairList) -> None:
    """Raise the FormatError that names two atoms which lie on each other, if some do."""
    near = np.flatnonzero(pairs.distances[pairs.hopping] < SHORTEST)
    if len(near):
        i, j = int(pairs.i[pairs.hopping][near[0]]), int(pairs.j[pairs.hopping][near[0]])
        raise FormatError(f"atoms {i} and {j} lie on each other; check positions and cell")


def refuse_unwritable(output: Path) -> None:
    """Raise ValueError where nothing can be written at a path, before long work."""
    place = next(folder for folder in output.absolute().parents if folder.exists())
    if not (place.is_dir() and os.access(place, os.W_OK)):
        raise ValueError(f"{output}: {place} is no folder to write into; choose another -o")


def _read_with_ase(source: str | Path) -> Atoms:
    import ase.io

    try:
        atoms = ase.io.read(source)
    except Exception as error:  # ASE's many readers raise whatever they run into
        reason = "a folder, and not DeepH's of one" if Path(source).is_dir() else error or type(error).__name__
        raise FormatError(f"{source}: not a structure that ASE reads ({reason})") from error
    if not isinstance(atoms, Atoms):
        raise FormatError(f"{source}: ASE reads no structure in it; give a file of atoms and a cell")
    if not len(atoms):
        raise FormatError(f"{source}: holds no atom")
    return atoms


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
        # X is a site without an element
        if symbol not in atomic_numbers or not 0 < valence[symbol] <= (atomic_numbers[symbol] or math.inf):
            raise ValueError(f"valence: expected a word like C=4, got {word!r}")
    return valence
