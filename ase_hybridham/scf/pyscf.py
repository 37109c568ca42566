"""DFT in this process: a lean self-consistent loop on PySCF's integrals.

1. Self-consistency on a k-mesh of moderate density: it fixes the effective potential.
2. One Fock matrix of that potential at each k-point of a denser mesh. Half of that mesh's
   supercell is wider than the range of a hopping, so that the Fourier sum
   H(R) = 1/N sum_k e^(-2 pi i k.R) H(k) gives every pair of the list its own element.
3. S(R) from two-center integrals on the same pairs; the Fermi level from both on a fine mesh.

Ten to twenty times cheaper than PySCF's FFT driver for few-atom cells; PySCF's multigrid
driver gives the same eigenvalues on the same grid.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.units import Hartree
from numpy.typing import NDArray

from ase_hybridham.overlap import overlap_from_basis
from ase_hybridham.scf.box import Box, check_distances, grid_sizes, k_mesh_of_length, shared_grids
from ase_hybridham.scf.engine import check_numbers
from ase_hybridham.scf.fourier import least_k_mesh
from ase_hybridham.scf.gth import (
    PSEUDOPOTENTIALS,
    gaussian_shells,
    gth_basis,
    gth_pseudopotential,
    require_pyscf,
    shell_occupations,
)
from ase_hybridham.scf.hoppings import hoppings
from ase_hybridham.scf.loop import self_consistent
from ase_hybridham.solve import fermi_level, gamma_mesh
from ase_hybridham.system import Basis, LCAOSystem, PairList

__all__ = ["PySCFEngine"]

FUNCTIONALS = {"lda": "lda,vwn", "pbe": "pbe,pbe"}
FERMI_DENSITY = 16.0  # k-points per 1/angstrom: 48 x 48 for graphene
FERMI_WIDTH = 0.01  # eV


@dataclass(frozen=True)
class PySCFEngine:
    """Spinless LDA or PBE with GTH pseudopotentials.

    Parameters
    ----------
    xc : {"lda", "pbe"}
        Shifting a crystal against the grid of 100 hartree changes H by 0.01 meV (rms; 0.2 at most) in LDA and by
        0.03 (1.1) in PBE.
    basis : str or Basis
        A name that `scf.gth` knows, or any basis of Gaussian shells with valence electrons and cutoff radii.
    cutoff : float, optional
        Range of a hopping in angstrom, instead of the sum of the basis' radii.
    ke_cutoff : float
        Hartree, as PySCF's `ke_cutoff`; decides the real-space grid.
    mesh : sequence of 3 int, optional
        The grid itself. Structures of one data set should share it where their cells differ only by strain:
        see `for_structures`.
    kpts : sequence of 3 int, optional
        k-points of the self-consistency along each cell vector; by default from `k_length`.
    k_length : float
        Angstrom: k-points times height of the cell, so that a supercell gets a mesh as dense as its unit; multiples
        of three are raised by one (they hold the Dirac point). 17 is 8 x 8 for graphene (0.1 meV in H), 8.5 is 4 x 4
        (2.3 meV, most of it the same for all orbitals).
    one_shot : sequence of 3 int, optional
        k-points of the Fourier sum; by default as many as the range of a hopping needs.
    smearing : float
        k_B T of the occupations in eV.
    vacuum : float
        Length in angstrom of the box along axes that are neither periodic nor have a cell vector.
    potential_reference : {"vacuum", "cell_average"}, optional
        Zero of energy. By default vacuum for layers (pbc T, T, F) and molecules, the average of the electrostatic
        potential over the box otherwise; that one depends on the vacuum.
    conv_tol : float
        Largest element of the commutator of H and the density matrix, eV.
    max_cycles : int
    memory : float
        GB for the orbitals on the grid; what needs more is evaluated again in every cycle.
    """

    xc: Literal["lda", "pbe"] = "lda"
    basis: str | Basis = "gth-szv-molopt-sr-short"
    cutoff: float | None = None
    ke_cutoff: float = 100.0
    mesh: Sequence[int] | None = None
    kpts: Sequence[int] | None = None
    k_length: float = 17.0
    one_shot: Sequence[int] | None = None
    smearing: float = 0.136
    vacuum: float = 12.0
    potential_reference: Literal["vacuum", "cell_average"] | None = None
    conv_tol: float = 1e-4
    max_cycles: int = 50
    memory: float = 2.0

    def __post_init__(self) -> None:
        if self.xc not in FUNCTIONALS:
            raise ValueError(f"xc: expected one of {', '.join(FUNCTIONALS)}, got {self.xc!r}")
        if self.potential_reference not in (None, "vacuum", "cell_average"):
            raise ValueError(f"potential_reference: expected vacuum or cell_average, got {self.potential_reference!r}")
        positive = ("cutoff", "ke_cutoff", "k_length", "smearing", "vacuum", "conv_tol", "max_cycles", "memory")
        check_numbers(self, positive, ("mesh", "kpts", "one_shot"))

    @property
    def name(self) -> str:
        """``"pyscf"``."""
        return "pyscf"

    def settings(self) -> dict[str, Any]:
        """The parameters as plain JSON types."""
        named = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {**named, "basis": self.basis if isinstance(self.basis, str) else self.basis.name, "engine": self.name}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "PySCFEngine":
        """The engine that `settings` described, e.g. those a data set carries.

        Raises
        ------
        ValueError
            If they are another engine's or name an unknown parameter.
        """
        named: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()
        }
        if named.pop("engine", None) != "pyscf" or not set(named) <= set(cls.__dataclass_fields__):
            raise ValueError(f"settings: expected those of the engine pyscf, got {dict(settings)}")
        return cls(**named)

    def basis_for(self, symbols: Iterable[str]) -> Basis:
        """The basis that chemical symbols get, with radial functions, valence electrons and cutoff radii.

        Raises
        ------
        ValueError
            If an element has no such basis or no pseudopotential.
        """
        require_pyscf("engine pyscf")
        symbols = sorted(set(symbols))
        if isinstance(self.basis, str):
            basis = gth_basis(self.basis, symbols, self.xc)
        else:
            try:
                basis = Basis.of(*(self.basis[symbol] for symbol in symbols), name=self.basis.name)
            except KeyError as error:
                raise ValueError(error.args[0]) from None
            for atom in basis.atoms.values():
                if list(atom.degrees) != sorted(atom.degrees):
                    raise ValueError(f"basis of {atom.symbol}: expected shells in ascending l, got {atom.degrees}")
        if self.cutoff is None:
            return basis
        radius = 0.5 * self.cutoff
        return Basis.of(*(replace(atom, cutoff=radius) for atom in basis.atoms.values()), name=basis.name)

    def for_structures(self, structures: Sequence[Atoms]) -> list["PySCFEngine"]:
        """An engine for each structure such that cells which differ by at most 5 % share the first one's grid.

        A grid that jumps with the cell would show as noise between the structures of a data set.

        Raises
        ------
        ValueError
            If one of them cannot be treated; the message names it by its number.
        """
        grids = shared_grids(structures, self._box, self._grid)
        return [replace(self, mesh=grid) for grid in grids]

    def run(self, atoms: Atoms) -> LCAOSystem:
        """H(R), S(R), Fermi level and electrons of a structure.

        Parameters
        ----------
        atoms : ase.Atoms
            Any pbc. Neutral and without spin: initial charges must be absent, initial moments zero.

        Returns
        -------
        LCAOSystem
            H in eV and S on all pairs within the range of a hopping.

        Raises
        ------
        ase.calculators.calculator.SCFError
            If `max_cycles` do not suffice.
        ImportError
            If PySCF is not installed.
        ValueError
            If an element lacks a basis or pseudopotential, the vacuum is too small, or the one-shot mesh is too coarse.
        """
        basis, box = self.basis_for(atoms.get_chemical_symbols()), self._box(atoms)
        reference = self._reference(box)
        pairs = PairList.from_atoms(atoms, basis.cutoffs())
        k_mesh = k_mesh_of_length(box, self.k_length) if self.kpts is None else box.k_mesh(self.kpts)
        one_shot = self._one_shot_mesh(box, _reach(basis))
        cell = self._pyscf_cell(atoms, box, basis)
        if cell.nelectron > 2 * cell.nao:
            raise ValueError(f"basis {basis.name}: {cell.nao} orbitals cannot hold {cell.nelectron} electrons")
        k_points, weights = gamma_mesh(k_mesh)
        result = self_consistent(
            cell,
            cell.get_abs_kpts(k_points),
            weights,
            np.concatenate([_occupations(basis, symbol, self.xc) for symbol in atoms.symbols]),
            box.n_periodic if reference == "vacuum" else 3,
            FUNCTIONALS[self.xc],
            smearing=self.smearing / Hartree,
            tolerance=self.conv_tol / Hartree,
            max_cycles=self.max_cycles,
            memory=self.memory,
        )
        hamiltonian = hoppings(cell, box, pairs, basis, one_shot, result.potential)
        system = LCAOSystem(
            atoms.copy(),
            (hamiltonian,),
            overlap_from_basis(atoms, basis, pairs),
            electrons=float(cell.nelectron),
            potential_reference=reference,
            provenance={
                **self.settings(),
                "code": f"PySCF {version('pyscf')}",
                "pseudopotential": PSEUDOPOTENTIALS[self.xc],
                "grid": box.along_cell(np.asarray(cell.mesh)),
                "k_mesh": box.along_cell(k_mesh),
                "one_shot_k_mesh": box.along_cell(one_shot),
                "box": box.lattice.tolist(),
                "cycles": result.cycles,
                "residual_eV": result.residual * Hartree,
                "free_energy_eV": result.free_energy * Hartree,
            },
        )
        return replace(system, fermi_level=fermi_level(system, density=FERMI_DENSITY, width=FERMI_WIDTH))

    def pyscf_cell(self, atoms: Atoms) -> Any:
        """The pyscf Cell that `run` works with, for a PySCF calculation of one's own on the same grid.

        Its lattice vectors are those of the structure's box: see `scf.box`.
        """
        return self._pyscf_cell(atoms, self._box(atoms), self.basis_for(atoms.get_chemical_symbols()))

    def _box(self, atoms: Atoms) -> Box:
        """The box of a structure, once it is known that the engine can treat it."""
        check_distances(atoms)
        if atoms.get_initial_magnetic_moments().any() or atoms.get_initial_charges().any():
            raise ValueError("structure: the engine knows neither spin nor charge; remove initial moments and charges")
        reach = _reach(self.basis_for(atoms.get_chemical_symbols()))
        box = Box.of(atoms, self.vacuum, reach)
        self._reference(box)
        self._one_shot_mesh(box, reach)
        return box

    def _reference(self, box: Box) -> Literal["vacuum", "cell_average"]:
        known = box.n_periodic in (0, 2)
        if self.potential_reference == "vacuum" and not known:
            raise ValueError(
                "potential_reference: the vacuum level is known for layers (two periodic axes) and molecules (none), "
                f"got {box.n_periodic} periodic axes; set pbc, or take cell_average"
            )
        return self.potential_reference or ("vacuum" if known else "cell_average")

    def _grid(self, box: Box) -> NDArray[np.int64]:
        return grid_sizes(box.lattice, self.ke_cutoff) if self.mesh is None else box.mesh(self.mesh)

    def _one_shot_mesh(self, box: Box, reach: float) -> NDArray[np.int64]:
        least = least_k_mesh(box, reach)
        if self.one_shot is None:
            return least
        given = box.k_mesh(self.one_shot)
        if (given < least).any():
            raise ValueError(
                f"one_shot: hoppings up to {reach:.2f} angstrom need at least {box.along_cell(least)} k-points, "
                f"got {list(self.one_shot)}"
            )
        return given

    def _pyscf_cell(self, atoms: Atoms, box: Box, basis: Basis) -> Any:
        from pyscf.data.nist import BOHR
        from pyscf.pbc.gto import Cell

        cell = Cell()
        symbols = atoms.get_chemical_symbols()
        cell.build(
            dump_input=False,
            parse_arg=False,
            verbose=0,
            unit="bohr",
            a=box.lattice / BOHR,
            atom=[[symbol, position / BOHR] for symbol, position in zip(symbols, box.positions, strict=True)],
            basis={atom.symbol: gaussian_shells(atom) for atom in basis.atoms.values()},
            pseudo={symbol: gth_pseudopotential(symbol, self.xc) for symbol in basis.atoms},
            mesh=self._grid(box).tolist(),
            precision=1e-8,
            spin=None,
        )
        return cell


def _reach(basis: Basis) -> float:
    return 2 * max(basis.cutoffs().values())


def _occupations(basis: Basis, symbol: str, xc: str) -> NDArray[np.float64]:
    sizes = [shell.size for shell in basis[symbol].shells]
    return np.repeat(np.array(shell_occupations(basis[symbol], xc)) / sizes, sizes)
