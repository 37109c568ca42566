"""What every engine can do."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from ase import Atoms

from ase_hybridham.system import Basis, LCAOSystem

__all__ = ["Engine", "check_numbers"]


def check_numbers(engine: object, positive: Sequence[str], triples: Sequence[str]) -> None:
    """Raise ValueError where a parameter that is given is no positive number, or no three positive integers."""
    for name in positive:
        value = getattr(engine, name)
        if value is not None and not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name}: expected a positive number, got {value}")
    for name in triples:
        value = getattr(engine, name)
        if value is not None and (len(value) != 3 or not all(int(n) == n and n >= 1 for n in value)):
            raise ValueError(f"{name}: expected three positive integers, got {value}")


@runtime_checkable
class Engine(Protocol):
    """Runs DFT on structures."""

    @property
    def name(self) -> str:
        """The program, one word."""

    def basis_for(self, symbols: Iterable[str]) -> Basis:
        """The basis that chemical symbols get."""

    def settings(self) -> dict[str, Any]:
        """Everything that decides the result beside the structure, as plain JSON types."""

    def for_structures(self, structures: Sequence[Atoms]) -> Sequence["Engine"]:
        """An engine for each structure of a data set, alike where the structures are.

        Raises
        ------
        ValueError
            If one of them cannot be treated; the message names it by its number.
        """

    def run(self, atoms: Atoms) -> LCAOSystem:
        """H and S of a structure.

        Raises
        ------
        ase.calculators.calculator.SCFError
            If the calculation does not converge.
        ValueError
            If the structure is not one the engine can treat.
        """
