"""How a person says on the command line where S comes from: the same options of every command that needs it."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ase.data import atomic_numbers

if TYPE_CHECKING:
    from ase_hybridham.system import PairBlocks

__all__ = ["REMEDY", "add_basis_arguments", "add_overlap_argument", "load_overlap", "parse_basis"]

REMEDY = (
    "give --basis-dir DIR (the folder of its basis files, such as C6.0.pao), or --overlap FILE "
    "(a DeepH folder, a .scfout or data.h5:NAME of these atoms)"
)


def add_overlap_argument(parser: argparse.ArgumentParser) -> None:
    """--overlap FILE."""
    parser.add_argument(
        "--overlap",
        metavar="FILE",
        help="S of this structure, and its pairs: a DeepH folder, a .scfout, data.h5:NAME; "
        "default what STRUCTURE holds, else computed from the basis",
    )


def add_basis_arguments(parser: argparse.ArgumentParser) -> None:
    """--basis-dir DIR and --basis ELEMENT=NAME."""
    parser.add_argument(
        "--basis-dir",
        metavar="DIR",
        help="folder of the basis files, such as C6.0.pao, where the radial functions are not known otherwise",
    )
    parser.add_argument(
        "--basis",
        nargs="+",
        action="extend",
        default=[],
        metavar="ELEMENT=NAME",
        help="the basis of an element in that folder, as in C=C6.0-s2p2d1; by default what the data tell",
    )


def load_overlap(source: str) -> "PairBlocks":
    """The S that --overlap names; of a run folder that of the structure in it."""
    from ase_hybridham.cli.naming import only_structure
    from ase_hybridham.errors import OverlapError
    from ase_hybridham.overlap_source import read_overlap
    from ase_hybridham.store import names_data_set

    try:
        return read_overlap(source if names_data_set(source) else only_structure(source))
    except OverlapError:
        raise OverlapError(f"--overlap {source}: holds no overlap; give a file or folder with S") from None


def parse_basis(words: Sequence[str], folder: str | None) -> dict[str, str]:
    """Symbol -> name of words like ``C=C6.0-s2p2d1``.

    Raises
    ------
    ValueError
        If a word is not of this form, or there is no folder to find it in.
    """
    if words and folder is None:
        raise ValueError(f"--basis {words[0]}: names a basis in a folder; give --basis-dir DIR too")
    names = {}
    for word in words:
        symbol, _, name = word.partition("=")
        if not atomic_numbers.get(symbol) or not name:
            raise ValueError(f"--basis: expected a word like C=C6.0-s2p2d1, got {word!r}")
        names[symbol] = name
    return names
