"""DFT by GPAW in its LCAO mode: PAW data sets, numerical orbitals, PBE or LDA, with or without collinear spin.

1. Self-consistency on a k-mesh of moderate density.
2. H(k) and S(k) of that density, kept fixed, at the k-points of a denser mesh; their Fourier sum gives H(R) and S(R)
   on all pairs within two orbital radii. PAW's projectors reach a little farther (three-center terms): what the pair
   list leaves out is measured.
3. GPAW's own eigenvalues of that density between the k-points of the mesh: the bands of H(R) must be those.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import SCFError
from ase.units import Bohr
from numpy.typing import NDArray

from ase_hybridham.scf.box import Box, check_distances, k_mesh_of_length, shared_grids
from ase_hybridham.scf.engine import check_numbers
from ase_hybridham.scf.fourier import blocks_from_mesh, largest_beyond, least_k_mesh
from ase_hybridham.solve import eigenvalues, fermi_level, gamma_mesh
from ase_hybridham.system import AtomBasis, Basis, LCAOSystem, PairList, Shell

__all__ = ["GPAWEngine"]

# fractions of the reciprocal vectors, on no mesh; time reversal takes neither into itself
OFF_MESH = np.array([[0.137, 0.291, 0.419], [0.388, -0.173, 0.061]])
WINDOW = 5.0  # eV above the Fermi level, up to which bands are compared; nearly dependent orbitals blur the highest
LARGEST_BAND_ERROR = 1e-3  # eV


@dataclass(frozen=True)
class GPAWEngine:
    """GPAW's LCAO mode.

    Parameters
    ----------
    xc : {"pbe", "lda"}
    basis : str
        GPAW's name of the orbitals, e.g. ``"dzp"``, ``"szp(dzp)"`` or ``"sz(dzp)"``.
    spin : {"none", "collinear"}
        Collinear spin starts from the initial magnetic moments of the atoms.
    cutoff : float, optional
        Range of a hopping in angstrom, instead of the sum of the orbitals' radii. What it cuts off must not move
        bands by more than 1 meV.
    spacing : float
        Angstrom between the points of the real-space grid.
    mesh : sequence of 3 int, optional
        The grid itself; by default multiples of four. Structures of one data set should share it: see `for_structures`.
    kpts : sequence of 3 int, optional
        k-points of the self-consistency along each cell vector; by default from `k_length`.
    k_length : float
        Angstrom: k-points times height of the cell.
    one_shot : sequence of 3 int, optional
        k-points of the Fourier sum; by default as many as the range of a hopping needs.
    smearing : float
        k_B T of the occupations in eV.
    vacuum : float
        Length in angstrom of the box along axes that are neither periodic nor have a cell vector.
    conv_tol : float
        Change of the density, in electrons per valence electron.
    max_cycles : int
    """

    xc: Literal["pbe", "lda"] = "pbe"
    basis: str = "dzp"
    spin: Literal["none", "collinear"] = "none"
    cutoff: float | None = None
    spacing: float = 0.2
    mesh: Sequence[int] | None = None
    kpts: Sequence[int] | None = None
    k_length: float = 17.0
    one_shot: Sequence[int] | None = None
    smearing: float = 0.1
    vacuum: float = 12.0
    conv_tol: float = 1e-6
    max_cycles: int = 200

    def __post_init__(self) -> None:
        if self.xc not in ("pbe", "lda"):
            raise ValueError(f"xc: expected pbe or lda, got {self.xc!r}")
        if self.spin not in ("none", "collinear"):
            raise ValueError(f"spin: expected none or collinear, got {self.spin!r}")
        positive = ("cutoff", "spacing", "k_length", "smearing", "vacuum", "conv_tol", "max_cycles")
        check_numbers(self, positive, ("mesh", "kpts", "one_shot"))

    @property
    def name(self) -> str:
        """``"gpaw"``."""
        return "gpaw"

    def settings(self) -> dict[str, Any]:
        """The parameters as plain JSON types."""
        named = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {**named, "engine": self.name}

    def basis_for(self, symbols: Iterable[str]) -> Basis:
        """The orbitals that chemical symbols get, in GPAW's order of shells, with valence electrons and radii.

        Raises
        ------
        ImportError
            If GPAW is not installed.
        ValueError
            If GPAW finds no orbitals or no PAW data set of an element.
        """
        atoms = (_atom_basis(symbol, self.basis, self.xc) for symbol in sorted(set(symbols)))
        cut = (atom if self.cutoff is None else replace(atom, cutoff=0.5 * self.cutoff) for atom in atoms)
        return Basis.of(*cut, name=f"gpaw-{self.basis}")

    def for_structures(self, structures: Sequence[Atoms]) -> list["GPAWEngine"]:
        """An engine for each structure such that cells which differ by at most 5 % share the first one's grid.

        Raises
        ------
        ValueError
            If one of them cannot be treated; the message names it by its number.
        """
        return [replace(self, mesh=grid) for grid in shared_grids(structures, self._box, self._grid)]

    def run(self, atoms: Atoms) -> LCAOSystem:
        """H(R), S(R), Fermi level and electrons of a structure.

        Parameters
        ----------
        atoms : ase.Atoms
            Any pbc, neutral.

        Returns
        -------
        LCAOSystem
            H in eV and S on all pairs within the range of a hopping; the Fermi level of H(R) on a fine mesh. The zero
            of energy is the vacuum where an axis is not periodic, else the average of the electrostatic potential of
            GPAW's pseudo charge.

        Raises
        ------
        ase.calculators.calculator.SCFError
            If `max_cycles` do not suffice.
        ImportError
            If GPAW is not installed.
        ValueError
            If an element lacks orbitals, the vacuum is too small, the one-shot mesh too coarse, or bands between the
            points of the mesh differ from GPAW's by more than 1 meV.
        """
        box, basis = self._box(atoms), self.basis_for(atoms.get_chemical_symbols())
        pairs = PairList.from_atoms(atoms, basis.cutoffs())
        k_mesh = k_mesh_of_length(box, self.k_length) if self.kpts is None else box.k_mesh(self.kpts)
        one_shot = self._one_shot_mesh(box, basis)
        calculator, shifts = self._converged(atoms, box, k_mesh)
        moved = box.shifts(pairs.i, pairs.j, pairs.shifts) + shifts[pairs.j] - shifts[pairs.i]
        level = float(calculator.get_fermi_level())
        k_points, weights = gamma_mesh(one_shot)
        periodic = np.arange(3) < box.n_periodic
        checked = np.where(periodic, OFF_MESH, 0.0) if periodic.any() else k_points
        every = np.concatenate([k_points, checked]) if periodic.any() else k_points
        fixed = calculator.fixed_density(kpts=every, symmetry="off", nbands="nao", txt=None)
        on_mesh = [m[: len(k_points)] for m in _matrices(fixed)]
        mesh = (k_points, weights, one_shot, pairs, basis)
        *hamiltonians, overlap = (blocks_from_mesh(m, *mesh, "gpaw", shifts=moved) for m in on_mesh)
        *beyond, beyond_overlap = (largest_beyond(m, *mesh, shifts=moved) for m in on_mesh)
        system = LCAOSystem(
            atoms.copy(),
            tuple(hamiltonians),
            overlap,
            spin=self.spin,
            fermi_level=level,
            electrons=basis.electrons(atoms.numbers),
            potential_reference="cell_average" if periodic.all() else "vacuum",
            provenance={
                **self.settings(),
                "code": f"GPAW {_version()}",
                "paw_data_sets": {setup.symbol: setup.fingerprint for setup in fixed.setups},
                "grid": box.along_cell(self._grid(box)),
                "k_mesh": box.along_cell(k_mesh),
                "one_shot_k_mesh": box.along_cell(one_shot),
                "box": box.lattice.tolist(),
                "cycles": int(calculator.get_number_of_iterations()),
                "scf_fermi_level_eV": level,
                "largest_beyond_H_eV": max(beyond),
                "largest_beyond_S": beyond_overlap,
            },
        )
        k_along_cell = np.empty_like(checked)
        k_along_cell[:, box.axes] = box.sign * checked
        system = _with_checked_bands(system, fixed, k_along_cell)
        # the mesh of the self-consistency is too coarse for a semimetal: tenths of an eV
        return replace(system, fermi_level=fermi_level(system))

    def _box(self, atoms: Atoms) -> Box:
        """The box of a structure, once it is known that the engine can treat it."""
        check_distances(atoms)
        moments = atoms.get_initial_magnetic_moments()
        if atoms.get_initial_charges().any() or moments.ndim > 1:
            raise ValueError("structure: the engine knows neither charge nor non-collinear spin; remove them")
        if moments.any() and self.spin == "none":
            raise ValueError("structure: has initial moments, but spin is 'none'; remove them or choose collinear")
        basis = self.basis_for(atoms.get_chemical_symbols())
        box = Box.of(atoms, self.vacuum, _reach(basis))
        self._one_shot_mesh(box, basis)
        return box

    def _grid(self, box: Box) -> NDArray[np.int64]:
        """Points along each axis of the box, multiples of four as GPAW's multigrid wants them."""
        if self.mesh is not None:
            return box.mesh(self.mesh)
        return 4 * np.maximum(np.rint(box.heights / (4 * self.spacing)).astype(np.int64), 1)

    def _one_shot_mesh(self, box: Box, basis: Basis) -> NDArray[np.int64]:
        least = least_k_mesh(box, _reach(basis))
        if self.one_shot is None:
            return least
        given = box.k_mesh(self.one_shot)
        if (given < least).any():
            raise ValueError(
                f"one_shot: hoppings up to {_reach(basis):.2f} angstrom need at least {box.along_cell(least)} "
                f"k-points, got {list(self.one_shot)}"
            )
        return given

    def _converged(self, atoms: Atoms, box: Box, k_mesh: NDArray[np.int64]) -> tuple[Any, NDArray[np.int64]]:
        """The calculator after its self-consistency, and the lattice vectors by which GPAW moved each atom."""
        from gpaw import GPAW, KohnShamConvergenceError

        boxed = Atoms(
            atoms.numbers,
            box.positions,
            cell=box.lattice,
            pbc=np.arange(3) < box.n_periodic,
            magmoms=atoms.get_initial_magnetic_moments(),
        )
        boxed.calc = GPAW(
            mode="lcao",
            basis=self.basis,
            xc=self.xc.upper(),
            gpts=self._grid(box).tolist(),
            kpts={"size": k_mesh.tolist(), "gamma": True},
            # time reversal alone: a symmetric density would not be that of the grid
            symmetry={"point_group": False},
            occupations={"name": "fermi-dirac", "width": self.smearing},
            spinpol=self.spin == "collinear",
            convergence={"density": self.conv_tol},
            maxiter=self.max_cycles,
            txt=None,
        )
        try:
            boxed.get_potential_energy()
        except KohnShamConvergenceError as error:
            raise SCFError(f"self-consistency: not reached in {self.max_cycles} cycles; raise max_cycles") from error
        inside = boxed.get_scaled_positions()  # GPAW's phases are those of atoms moved into the cell
        return boxed.calc, np.rint(boxed.get_scaled_positions(wrap=False) - inside).astype(np.int64)


def _matrices(calculator: Any) -> list[NDArray]:
    """H(k) of each spin, eV, and S(k), each with the phase of `lattice_sum`."""
    from gpaw.lcao.tools import get_lcao_hamiltonian

    hamiltonians, overlaps = get_lcao_hamiltonian(calculator)
    matrices = [*hamiltonians, overlaps]
    # the older of GPAW's two implementations has the opposite phase
    return matrices if type(calculator).__module__.startswith("gpaw.new") else [m.conj() for m in matrices]


def _with_checked_bands(system: LCAOSystem, fixed: Any, k_points: NDArray[np.float64]) -> LCAOSystem:
    """The system with a note on its bands at the last k-points of GPAW's calculation, here along the atoms' cell."""
    ours = eigenvalues(system, k_points)
    numbers = range(len(fixed.get_ibz_k_points()))[-len(k_points) :]
    theirs = np.array([[fixed.get_eigenvalues(kpt=k, spin=s) for k in numbers] for s in range(len(ours))])
    assert system.fermi_level is not None
    error = float(np.abs(ours - theirs)[theirs < system.fermi_level + WINDOW].max(initial=0.0))
    if not error <= LARGEST_BAND_ERROR:
        raise ValueError(
            f"bands at k = {k_points.tolist()}: expected GPAW's within {LARGEST_BAND_ERROR} eV, got {error:.2g} eV; "
            "raise or remove the cutoff"
        )
    noted = {**system.provenance, "checked_k_points": k_points.tolist(), "checked_band_error_eV": error}
    return replace(system, provenance=noted)


def _atom_basis(symbol: str, name: str, xc: str) -> AtomBasis:
    try:
        from gpaw.basis_data import Basis as Orbitals
        from gpaw.setup import create_setup
    except ImportError as error:
        raise ImportError("engine gpaw: needs GPAW; pip install gpaw, then gpaw install-data FOLDER") from error
    try:
        orbitals = Orbitals.find(symbol, name)
        valence = create_setup(symbol, xc=xc.upper()).Nv
    except (FileNotFoundError, ValueError, AssertionError) as error:
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"basis {name} of {symbol}: {message} gpaw install-data FOLDER, or GPAW_SETUP_PATH") from error
    shells = tuple(Shell(int(f.l), " ".join(f.type.split()[:1])) for f in orbitals.bf_j)
    cutoff = max(float(f.rc) for f in orbitals.bf_j) * Bohr
    return AtomBasis(symbol, shells, float(valence), cutoff)


def _reach(basis: Basis) -> float:
    return 2 * max(basis.cutoffs().values())


def _version() -> str:
    import gpaw

    return str(gpaw.__version__)
