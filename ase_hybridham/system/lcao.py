"""A structure with its Hamiltonian and overlap: what readers, engines and the model make, and solvers take."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from ase import Atoms

from ase_hybridham.system.basis import Basis
from ase_hybridham.system.blocks import PairBlocks
from ase_hybridham.system.pairs import PairList

__all__ = ["LCAOSystem", "PotentialReference", "SpinKind"]

SpinKind = Literal["none", "collinear", "spinor"]
PotentialReference = Literal["vacuum", "cell_average", "openmx", "unknown"]


@dataclass(frozen=True, eq=False)
class LCAOSystem:
    """Atoms, basis, H and S.

    Parameters
    ----------
    atoms : ase.Atoms
    hamiltonian : tuple of PairBlocks
        In eV; one, or two (up, down) for collinear spin; empty if only S is known.
    overlap : PairBlocks, optional
        Always without spin. On the pairs of the Hamiltonian.
    spin : {"none", "collinear", "spinor"}
    fermi_level : float, optional
        eV, same zero of energy as H.
    electrons : float, optional
        Valence electrons in the cell.
    potential_reference : str
        What the zero of energy is.
    provenance : mapping
        Code, version, functional, mesh, ...: plain JSON types.
    """

    atoms: Atoms
    hamiltonian: tuple[PairBlocks, ...]
    overlap: PairBlocks | None = None
    spin: SpinKind = "none"
    fermi_level: float | None = None
    electrons: float | None = None
    potential_reference: PotentialReference = "unknown"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        operators = self.operators
        if not operators:
            raise ValueError("system: expected a Hamiltonian or an overlap, got neither")
        n_operators = 2 if self.spin == "collinear" else 1
        if len(self.hamiltonian) not in (0, n_operators):
            raise ValueError(
                f"system: expected {n_operators} Hamiltonian(s) for spin {self.spin!r}, got {len(self.hamiltonian)}"
            )
        for blocks in operators:
            if not np.array_equal(blocks.pairs.numbers, self.atoms.get_atomic_numbers()):
                raise ValueError("system: the atoms are not those of the pairs")
            if blocks.pairs is not self.pairs and not self.pairs.same_pairs(blocks.pairs):
                raise ValueError("system: H and S stand on different pairs; see PairBlocks.on_pairs")
        if any(h.spinor != (self.spin == "spinor") for h in self.hamiltonian):
            raise ValueError(f"system: the blocks of H do not fit spin {self.spin!r}")
        if self.overlap is not None and self.overlap.spinor:
            raise ValueError("system: S must be given without spin")

    @property
    def operators(self) -> tuple[PairBlocks, ...]:
        """The Hamiltonians and the overlap, those that are known."""
        return self.hamiltonian if self.overlap is None else (*self.hamiltonian, self.overlap)

    @property
    def pairs(self) -> PairList:
        """The pairs of H and S."""
        return self.operators[0].pairs

    @property
    def basis(self) -> Basis:
        """The basis of H and S."""
        return self.operators[0].basis

    @property
    def n_orbitals(self) -> int:
        """Dimension of H(k): orbitals in the cell, twice that for spinors."""
        return int(self.operators[0].basis.sizes(self.atoms.numbers).sum()) * (2 if self.spin == "spinor" else 1)
