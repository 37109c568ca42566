"""Text files of other programs: read whole, and as numbers without a string for each."""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ase_hybridham.errors import FormatError

__all__ = ["beginning", "numbers_in", "read_text"]


def read_text(path: str | Path, advice: str = "") -> str:
    """The content of a file.

    Raises
    ------
    FormatError
        If it is missing, which `advice` may help against, or no text.
    """
    path = Path(path)
    try:
        return path.read_text(encoding="utf-8-sig")  # Windows may put a mark in front
    except FileNotFoundError:
        raise FormatError(f"{path}: is missing{'; ' * bool(advice)}{advice}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read as text ({error})") from error


def beginning(path: str | Path, size: int) -> str:
    """The first bytes of a file, whatever they are.

    Raises
    ------
    FormatError
        If it cannot be opened.
    """
    try:
        with Path(path).open("rb") as file:
            return file.read(size).decode("utf-8", errors="replace")
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror})") from None


def numbers_in(where: str | Path, text: str) -> NDArray[np.float64]:
    """The numbers of a text with nothing between them but white space.

    Raises
    ------
    FormatError
        If something else is there; names `where`.
    """
    if not text.strip():
        return np.empty(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # so older versions of numpy tell of a bad word
            return np.fromstring(text, sep=" ")
    except (ValueError, DeprecationWarning):
        raise FormatError(f"{where}: expected numbers and nothing else") from None
