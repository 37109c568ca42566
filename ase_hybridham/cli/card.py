"""A model card, and what a model met in training, as text."""

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["card_text", "coverage_text"]

COLUMNS = (
    ("n", "n", "d"),
    ("mae", "H", ".3f"),
    ("mae_worst", "worst", ".3f"),
    ("gauge_free", "gauge-free", ".3f"),
    ("bands_1eV", "bands 1 eV", ".2f"),
    ("bands_2eV", "bands 2 eV", ".2f"),
    ("fermi", "E_F", ".2f"),
)
WIDTH = 11


def card_text(card: Mapping[str, Any]) -> Iterator[str]:
    """Lines of a card in plain JSON types."""
    for name in ("summary", "data", "method", "training", "license"):
        yield f"{name}: {card[name]}"
    yield from (f"not for: {limit}" for limit in card["limits"])
    if card["errors"]:
        first = max(len(row["structures"]) for row in card["errors"])
        yield "errors in meV, test structures; bands within 1 or 2 eV of E_F, aligned there or at the valence maximum:"
        yield " " * first + "".join(f"{heading:>{WIDTH}}" for _, heading, _ in COLUMNS)
        for row in card["errors"]:
            cells = ("-" if row[key] is None else f"{row[key]:{form}}" for key, _, form in COLUMNS)
            yield f"{row['structures']:<{first}}" + "".join(f"{cell:>{WIDTH}}" for cell in cells)


def coverage_text(coverage: Mapping[str, Any]) -> Iterator[str]:
    """Lines on the surroundings that were met in training."""
    units = {"distances": "A", "bond_length": "A on average", "separation": "A to the next fragment"}
    units |= {"bonds": "bonds of an atom", "atom_bonds": "A, their mean", "neighbors": "atoms within reach"}
    for name, unit in units.items():
        for key, spans in coverage.get(name, {}).items():
            words = ", ".join(f"{low:g}" if low == high else f"{low:g} to {high:g}" for low, high in spans)
            yield f"met in training: {key} {'bonds ' * (name == 'bond_length')}{words} {unit}"
