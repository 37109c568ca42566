"""The ASE door: `HybridHamCalculator` asks model, overlap and solve, and computes nothing itself."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from ase import Atoms
from ase.calculators.abc import GetOutputsMixin
from ase.calculators.calculator import (
    Calculator,
    CalculatorSetupError,
    PropertyNotImplementedError,
    all_changes,
    compare_atoms,
)
from ase.dft.kpoints import BandPath
from numpy.typing import ArrayLike, NDArray

from ase_hybridham.errors import CheckpointError
from ase_hybridham.overlap_source import OverlapFunction, find_overlap
from ase_hybridham.solve import (
    PREDICTED_THRESHOLD,
    Bands,
    Solver,
    band_path,
    bands,
    check_solver,
    default_mesh,
    electrons_of,
    filled,
    k_mesh,
    occupations,
    pick_solver,
    spin_degeneracy,
    symmetry_of,
)
from ase_hybridham.system import Basis, LCAOSystem, PairBlocks, PairList
from ase_hybridham.system.lcao import PotentialReference, SpinKind

__all__ = ["CollinearModel", "HamiltonianModel", "HybridHamCalculator"]


class HamiltonianModel(Protocol):
    """What the calculator needs of a model; `model.load_model` returns one."""

    @property
    def basis(self) -> Basis: ...

    @property
    def potential_reference(self) -> PotentialReference: ...

    @property
    def provenance(self) -> Mapping[str, Any]: ...

    def predict(self, atoms: Atoms, pairs: PairList | None = None) -> PairBlocks:
        """H in eV, hermitian, without spin or of spinors, on the given pairs."""


@runtime_checkable
class CollinearModel(HamiltonianModel, Protocol):
    """A model that may predict two operators; it is asked for `hamiltonian` and not for `predict`."""

    def hamiltonian(self, atoms: Atoms, pairs: PairList | None = None) -> tuple[PairBlocks, ...]:
        """H as `LCAOSystem` takes it: one operator, or two without spin, up and down."""


class HybridHamCalculator(GetOutputsMixin, Calculator):
    """Electronic structure from a predicted Hamiltonian; no self-consistency.

    The model is evaluated once for a geometry, whatever k-points are asked for afterwards. What the getters
    (`get_eigenvalues`, `get_fermi_level`, ...) return is always that of the atoms as they are now. Of collinear spin
    index 0 is up and 1 is down, both with one Fermi level.

    Parameters
    ----------
    model : str, Path or HamiltonianModel
        Name of a model, checkpoint file, or a loaded model.
    kpts : optional
        k-points of the eigenvalues. A mesh, which always contains Gamma: ``(n1, n2, n3)``,
        ``{"size": (n1, n2, n3)}``, ``{"density": d}`` in points per 1/angstrom; by default a dense one. Or the points
        themselves: an array of shape (n_k, 3), a BandPath, ``{"path": "GMKG", "npoints": n}``; then the Fermi level
        comes from the mesh given last.
    device : str
        Where a model loaded from a file computes: "auto", "cpu", "cuda", ...
    overlap : optional
        S, by default that of the radial functions of the model's basis. PairBlocks, anything `io.read_system` reads (a
        DeepH folder, a .scfout), or ``data.h5:NAME`` of a data set; its pairs are then the pairs of H, and atoms at
        other positions are refused. Or a function ``overlap(atoms, basis, pairs) -> PairBlocks`` for any geometry.
    basis_dir : str or Path, optional
        Folder of the basis files (C6.0.pao) of a model that was trained without radial functions.
    basis_names : mapping, optional
        Element -> its basis in that folder, such as ``{"C": "C6.0-s2p2d1"}``, where the model does not know it.
    energy_calculator : ase calculator, optional
        Supplies energy, forces and stress: a Hamiltonian alone has no total energy.
    smearing : {"fermi-dirac", "gaussian"}
    width : float
        k_B T or sigma of the smearing, eV.
    charge : float
        Of the cell, in units of |e|.
    overlap_threshold : float
        Directions in which S(k) has an eigenvalue below it are left out, see `solve.eigenvalues`; 0: none. A network's
        errors ask for more than H of a DFT program does.
    solver : "auto", "dense", "sparse" or SparseSolver
        Who solves: LAPACK, which finds all states, or a solver of those near the Fermi level; "auto" takes the first up
        to 2500 orbitals. Of the second the eigenvalues are +inf and -inf where a state was not looked for.
    scratch : str or Path, optional
        Folder for temporary files that hold features of pairs instead of memory, of a model loaded from a file.
    progress : bool, optional
        Whether such a model shows a bar on stderr; by default if H takes more than a GB of memory.
    atoms : ase.Atoms, optional
        Atoms to attach to.

    Raises
    ------
    CheckpointError
        If the model cannot be loaded, or does not know an element of the atoms.
    FormatError
        If the file of S, or of a basis, cannot be read.
    OverlapError
        If S is not to be had, does not belong to the atoms, has pairs longer than the model knows, or is not
        positive definite.
    ValueError
        If there are no atoms, or a periodic axis has no cell vector.
    """

    results: dict[str, Any]
    ignored_changes = {"initial_charges", "initial_magmoms"}  # noqa: RUF012 (ASE's name and type)
    default_parameters = {  # noqa: RUF012
        "kpts": None,
        "smearing": "fermi-dirac",
        "width": 0.025,
        "charge": 0.0,
        "overlap_threshold": PREDICTED_THRESHOLD,
        "solver": "auto",
    }

    def __init__(
        self,
        model: str | Path | HamiltonianModel,
        *,
        kpts: Any = None,
        device: str = "auto",
        overlap: PairBlocks | str | Path | OverlapFunction | None = None,
        basis_dir: str | Path | None = None,
        basis_names: Mapping[str, str] | None = None,
        energy_calculator: Any = None,
        smearing: Literal["fermi-dirac", "gaussian"] = "fermi-dirac",
        width: float = 0.025,
        charge: float = 0.0,
        overlap_threshold: float = PREDICTED_THRESHOLD,
        solver: Solver = "auto",
        scratch: str | Path | None = None,
        progress: bool | None = None,
        atoms: Atoms | None = None,
    ) -> None:
        self.model = _load(model, device, scratch, progress) if isinstance(model, (str, Path)) else model
        self.overlap = find_overlap(
            self.model.basis,
            overlap=overlap,
            basis_dir=basis_dir,
            names=basis_names,
            provenance=self.model.provenance,
        )
        self.energy_calculator = energy_calculator
        own = ["energy", "free_energy"] if energy_calculator is None else energy_calculator.implemented_properties
        self.implemented_properties = list(dict.fromkeys([*own, "magmom"]))
        self._attached: Atoms | None = None  # the live object: what the getters answer for
        self._system: LCAOSystem | None = None
        self._fermi_level: float | None = None  # of _system
        self._solver: Solver | None = None  # of _system
        self._moment = 0.0  # known together with the Fermi level
        self._mesh: dict[str, Any] = {}
        self._warned = False
        options = {"smearing": smearing, "width": width, "charge": charge, "overlap_threshold": overlap_threshold}
        super().__init__(atoms=atoms, kpts=kpts, solver=solver, **options)

    def set_atoms(self, atoms: Atoms) -> None:
        """Remember the atoms this calculator was attached to (ASE calls it)."""
        self._attached = atoms

    def set(self, **kwargs: Any) -> dict[str, Any]:
        """Change parameters: kpts, smearing, width, charge, overlap_threshold, solver. The Hamiltonian stays known.

        Raises
        ------
        ValueError
            For an unknown parameter or solver, or k-points that make no sense.
        """
        unknown = sorted({*kwargs} - {*self.default_parameters})
        if unknown:
            raise ValueError(f"calculator: expected parameters {', '.join(self.default_parameters)}, got {unknown[0]}")
        check_solver(kwargs.get("solver", "auto"))
        mesh = _mesh_options(kwargs["kpts"]) if "kpts" in kwargs else self._mesh
        if {*kwargs} - {"kpts"} or (mesh is not None and mesh != self._mesh):
            self._fermi_level = None
        if "solver" in kwargs:
            self._solver = None
        if mesh is not None:
            self._mesh = mesh
        self.parameters.update(kwargs)
        if self._system is not None:
            self._system = replace(self._system, electrons=self._electrons(self._system.atoms))
        self.results = {}
        return kwargs

    def get_eigenvalues(self, kpt: int = 0, spin: int = 0) -> NDArray[np.float64]:
        """Energies in eV of a k-point of the mesh; where states were not looked for, which is told, -inf and +inf."""
        found: NDArray[np.float64] = super().get_eigenvalues(kpt, spin)
        system = self._system
        if system is not None and len(found) < system.n_orbitals:
            warnings.warn(
                "HybridHamCalculator: states far from the Fermi level were not looked for, and have no energies; "
                "for ASE's DOS and bandgap use solver='dense', or take solve.density_of_states",
                stacklevel=2,
            )
        return found

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """A property of ASE's list; see `Calculator.get_property`."""
        self._attached = self._current() if atoms is None else atoms
        return super().get_property(name, self._attached, allow_calculation)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | tuple[str, ...] = ("energy",),
        system_changes: list[str] = all_changes,
    ) -> None:
        """Fill `results`: from the energy calculator, or energy NaN with the electronic structure.

        The magnetic moment in mu_B, N_up - N_down, is that of the predicted bands; 0 without spin, none of spinors.
        """
        atoms = self._current() if atoms is None else atoms
        self.atoms = atoms.copy()
        if "magmom" in properties:
            self._solve(atoms)
            if "magmom" not in self.results:
                raise PropertyNotImplementedError("magmom: not computed of spinors")
        asked = [name for name in properties if name != "magmom"]
        if self.energy_calculator is not None:
            # the bands wait until somebody asks: a relaxation does not
            for name in asked:
                self.results[name] = self.energy_calculator.get_property(name, atoms)
            return
        if not asked:
            return
        if not self._warned:
            self._warned = True
            warnings.warn(
                "HybridHamCalculator: a Hamiltonian alone has no total energy, the energy is NaN; "
                "energy_calculator= supplies energy, forces and stress",
                stacklevel=2,
            )
        self.results.update(energy=float("nan"), free_energy=float("nan"))
        self._solve(atoms)

    def get_system(self) -> LCAOSystem:
        """Predicted H and S of the atoms as they are now, with the number of electrons, without Fermi level."""
        return self._system_of(self._current())

    def band_structure(self, path: str | BandPath | ArrayLike | None = None, npoints: int = 100) -> Bands:
        """Band structure along a path, energies in eV; its reference is the Fermi level of the mesh.

        Parameters
        ----------
        path : str, BandPath or array of shape (n_k, 3), optional
            By default the standard path of the cell in its periodic directions.
        npoints : int
            k-points of a path that is not given point by point.
        """
        atoms = self._current()
        if path is None or isinstance(path, str):
            path = band_path(atoms, path, npoints)
        system = self._system_of(atoms)
        return self._bands(system, path, self._level_of(system))

    def _outputmixin_get_results(self) -> Mapping[str, Any]:
        atoms = self._current()
        if self.check_state(atoms):
            self.reset()
        if "eigenvalues" not in self.results:
            self.atoms = atoms.copy()
            self._solve(atoms)
        return self.results

    def _current(self) -> Atoms:
        atoms = self._attached if self._attached is not None else self.atoms
        if atoms is None:
            raise CalculatorSetupError("HybridHamCalculator: no atoms; attach it first: atoms.calc = calculator")
        return atoms

    def _solve(self, atoms: Atoms) -> None:
        system = self._system_of(atoms)
        if _mesh_options(self.parameters.kpts) is None:
            k_points = _listed_k_points(self.parameters.kpts, atoms)
            weights = np.full(len(k_points), 1 / len(k_points))
            level = self._level_of(system)
            energies = self._bands(system, k_points, level).energies
        else:
            k_points, weights = self._mesh_of(system)
            energies, level = self._fill(system, k_points, weights)
        self.results.update(
            eigenvalues=energies,
            occupations=spin_degeneracy(system) * occupations(energies, level, **self._smearing),
            fermi_level=level,
            ibz_kpoints=k_points,
            kpoint_weights=weights,
        )
        if system.spin != "spinor":
            self.results["magmom"] = self._moment

    def _level_of(self, system: LCAOSystem) -> float:
        return self._fill(system, *self._mesh_of(system))[1] if self._fermi_level is None else self._fermi_level

    def _bands(self, system: LCAOSystem, path: BandPath | NDArray, level: float) -> Bands:
        options = {"solver": self._solver_of(system), "overlap_threshold": self.parameters.overlap_threshold}
        return bands(system, path, reference=level, progress=True, **options)

    def _fill(self, system: LCAOSystem, k_points: NDArray, weights: NDArray) -> tuple[NDArray, float]:
        """Eigenvalues on the mesh and Fermi level; and with it the moment is known."""
        options = {**self._smearing, "overlap_threshold": self.parameters.overlap_threshold}
        solver = self._solver_of(system)
        energies, _, level = filled(system, k_points, weights, electrons_of(system), solver, **options)
        filling = spin_degeneracy(system) * occupations(energies, level, **self._smearing)
        up, *down = np.einsum("skn,k->s", filling, weights)
        self._fermi_level, self._moment = level, float(up - down[0]) if down else 0.0
        return energies, level

    def _solver_of(self, system: LCAOSystem) -> Solver:
        """One for all that is asked of a system, which it analyzes once."""
        known: Solver = self._solver or pick_solver(system, self.parameters.solver) or "dense"
        self._solver = known
        return known

    def _mesh_of(self, system: LCAOSystem) -> tuple[NDArray, NDArray]:
        return k_mesh(system.atoms, **self._mesh, **symmetry_of(system)) if self._mesh else default_mesh(system)

    @property
    def _smearing(self) -> dict[str, Any]:
        return {"smearing": self.parameters.smearing, "width": self.parameters.width}

    def _system_of(self, atoms: Atoms) -> LCAOSystem:
        known = self._system
        if known is not None and not compare_atoms(known.atoms, atoms, excluded_properties=self.ignored_changes):
            return known
        self._system = self._fermi_level = self._solver = None
        _check_cell(atoms)
        basis = self.model.basis
        lacking = sorted({symbol for symbol in atoms.get_chemical_symbols() if symbol not in basis})
        if lacking:
            known_elements = ", ".join(basis.atoms)
            raise CheckpointError(
                f"model: expected atoms of {known_elements}, got {lacking[0]}; use a model trained on it"
            )
        bare = atoms.copy()
        overlap = self.overlap.of(bare)
        pairs, model = None if overlap is None else overlap.pairs, self.model
        h = model.hamiltonian(bare, pairs) if isinstance(model, CollinearModel) else (model.predict(bare, pairs),)
        spin: SpinKind = "collinear" if len(h) == 2 else "spinor" if h[0].spinor else "none"
        self._system = LCAOSystem(
            bare,
            h,
            overlap,
            spin=spin,
            electrons=self._electrons(bare),
            potential_reference=self.model.potential_reference,
            provenance=dict(self.model.provenance),
        )
        return self._system

    def _electrons(self, atoms: Atoms) -> float | None:
        neutral = self.model.basis.electrons(atoms.get_atomic_numbers())
        return None if neutral is None else neutral - self.parameters.charge


def _load(model: str | Path, device: str, scratch: str | Path | None, progress: bool | None) -> HamiltonianModel:
    from ase_hybridham.model.checkpoint import load_model  # torch: seconds that a ready-made model does not need

    return load_model(model, device=device, scratch=scratch, progress=progress)


def _check_cell(atoms: Atoms) -> None:
    """Refuse structures that have no H(k)."""
    if not len(atoms):
        raise ValueError("structure: expected at least one atom, got none")
    without = np.flatnonzero(np.asarray(atoms.pbc) & (atoms.cell.lengths() == 0))
    if len(without):
        raise ValueError(f"cell: axis {without[0]} is periodic and has no vector; set the cell or pbc")


def _mesh_options(kpts: Any) -> dict[str, Any] | None:
    """Arguments of `k_mesh`; None if the k-points are listed or a path."""
    if isinstance(kpts, BandPath) or (isinstance(kpts, Mapping) and kpts and {*kpts} <= {"path", "npoints"}):
        return None
    if kpts is None:
        return {}
    if isinstance(kpts, Mapping):
        unknown = {*kpts} - {"size", "density", "gamma"}
        if unknown or not kpts.get("gamma", True) or ("size" in kpts) == ("density" in kpts):
            raise ValueError(f"kpts: expected a size or a density of a mesh that contains Gamma, got {dict(kpts)}")
        if "density" in kpts:
            return {"density": float(kpts["density"])}
        kpts = kpts["size"]
    shape = np.shape(kpts)
    if shape == (3,):
        return {"size": tuple(int(n) if n == int(n) else n for n in kpts)}
    if len(shape) == 2 and shape[0] > 0 and shape[1] == 3:
        return None
    raise ValueError(f"kpts: expected (n1, n2, n3), size or density, an array (n_k, 3) or a path, got {kpts!r}")


def _listed_k_points(kpts: Any, atoms: Atoms) -> NDArray[np.float64]:
    if isinstance(kpts, Mapping):
        kpts = band_path(atoms, **kpts)
    return np.array(kpts.kpts if isinstance(kpts, BandPath) else kpts, dtype=np.float64)
