"""How good is a checkpoint on structures with known H? One table for all stages."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from ase_hybridham.errors import CheckpointError
from ase_hybridham.model import Stage, TrainedModel
from ase_hybridham.solve import PREDICTED_THRESHOLD, BandError, band_error, band_path, eigenvalues, fermi_level
from ase_hybridham.store import DataSet
from ase_hybridham.symmetry import rotate_blocks, rotate_system
from ase_hybridham.system import LCAOSystem
from ase_hybridham.train.data import majority_up
from ase_hybridham.train.metrics import HamiltonianError, hamiltonian_error

__all__ = ["Evaluation", "StructureErrors", "evaluate", "evaluate_system", "rotation_error"]

BAND_POINTS = 24


@dataclass(frozen=True)
class StructureErrors:
    """Errors of one structure.

    Parameters
    ----------
    name : str
    hamiltonian : dict
        Stage -> `HamiltonianError`; "mean" is what the mean of the training set alone predicts.
    bands : dict
        Stage -> `BandError` in a window around the reference's Fermi level, with the reference's overlap.
    hermiticity_meV : float
        Largest |H - H^dagger| of the last stage before its Hermitian part is taken.
    """

    name: str
    hamiltonian: dict[Stage, HamiltonianError]
    bands: dict[Stage, BandError]
    hermiticity_meV: float


@dataclass(frozen=True)
class Evaluation:
    """Errors of a checkpoint on a set of structures.

    Parameters
    ----------
    structures : tuple of StructureErrors
    rotation_meV : float
        Largest |H(Qx) - D(Q) H(x) D(Q)^dagger| of one structure turned at random, spin included.
    window_eV : float
        Of the band errors.
    """

    structures: tuple[StructureErrors, ...]
    rotation_meV: float
    window_eV: float

    @property
    def stages(self) -> list[Stage]:
        """The stages that were evaluated."""
        return list(self.structures[0].hamiltonian)

    def mae_all(self, stage: Stage) -> float:
        """Mean over structures of the MAE, meV."""
        return float(np.mean([s.hamiltonian[stage].mae for s in self.structures]))

    def mae_cha(self, stage: Stage) -> float:
        """Largest MAE of a structure, meV."""
        return float(max(s.hamiltonian[stage].mae for s in self.structures))

    def mean_of(self, stage: Stage, figure: str) -> float | None:
        """Mean over structures of a figure of `HamiltonianError`, meV; None if it is not known."""
        values = [getattr(s.hamiltonian[stage], figure) for s in self.structures]
        return None if None in values else float(np.mean(values))

    def band_mean(self, stage: Stage, *, aligned: bool = False) -> float | None:
        """Mean band error in the window, meV; None where no bands were compared."""
        errors = [s.bands[stage] for s in self.structures if stage in s.bands]
        return 1e3 * float(np.mean([e.aligned[1] if aligned else e.mean for e in errors])) if errors else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "structures": [
                {
                    "name": s.name,
                    "hamiltonian": {stage: error.to_dict() for stage, error in s.hamiltonian.items()},
                    "bands_eV": {stage: asdict(error) for stage, error in s.bands.items()},
                    "hermiticity_meV": s.hermiticity_meV,
                }
                for s in self.structures
            ],
            "mae_all_meV": {stage: self.mae_all(stage) for stage in self.stages},
            "mae_cha_meV": {stage: self.mae_cha(stage) for stage in self.stages},
            "onsite_mae_meV": {stage: self.mean_of(stage, "onsite_mae") for stage in self.stages},
            "hopping_mae_meV": {stage: self.mean_of(stage, "hopping_mae") for stage in self.stages},
            "gauge_free_mae_meV": {stage: self.mean_of(stage, "gauge_free_mae") for stage in self.stages},
            "splitting_mae_meV": {stage: self.mean_of(stage, "splitting_mae") for stage in self.stages},
            "band_mean_meV": {stage: self.band_mean(stage) for stage in self.stages},
            "band_aligned_mean_meV": {stage: self.band_mean(stage, aligned=True) for stage in self.stages},
            "window_eV": self.window_eV,
            "rotation_meV": self.rotation_meV,
        }


def evaluate(
    model: TrainedModel,
    data: DataSet,
    names: Sequence[str],
    *,
    window: float = 2.0,
    bands: bool = True,
    progress: bool = False,
) -> Evaluation:
    """Errors of a checkpoint on structures of a data set.

    Parameters
    ----------
    model : TrainedModel
    data : DataSet
    names : sequence of str
    window : float
        States within so many eV of the reference's Fermi level count in band errors.
    bands : bool
        Whether bands are compared, too (costs eigenvalues along a path).
    progress : bool
        Show a bar on stderr.

    Raises
    ------
    CheckpointError
        If the orbitals of the data are not those of the model.
    ValueError
        If there are no structures.
    """
    if not names:
        raise ValueError(f"{data.path}: no structure to evaluate on; choose another --split")
    with tqdm(names, desc="evaluate", leave=False, disable=None if progress else True) as bar:
        rows = [evaluate_system(model, data[name], name, window=window, bands=bands) for name in bar]
    return Evaluation(tuple(rows), rotation_error(model, data[names[0]]), window)


def evaluate_system(
    model: TrainedModel,
    system: LCAOSystem,
    name: str,
    *,
    window: float = 2.0,
    bands: bool = True,
    k_points: ArrayLike | None = None,
) -> StructureErrors:
    """Errors on one structure; H on the pairs of the reference, S the reference's.

    Of collinear spin both operators count alike, and up is the majority as in training: see `data.majority_up`.
    Bands are compared at `k_points` (fractional), by default along the standard path of the cell. They are left out
    where S or the number of electrons is unknown, or the reference has no state in the window there.
    """
    if system.spin != model.spin or not system.hamiltonian:
        raise CheckpointError(f"{name}: expected a Hamiltonian of spin {model.spin!r}, got spin {system.spin!r}")
    if not model.basis.same_orbitals(system.basis):
        raise CheckpointError(f"{name}: its orbitals are not those the model was trained for")
    model.cascade.vocabulary.species_of(system.atoms.get_atomic_numbers())
    system = majority_up(system)
    reference = system.hamiltonian
    stages: list[Stage] = ["mean", "stage1", "hybrid"] if model.cascade.hybrid else ["mean", "stage1"]
    errors: dict[Stage, HamiltonianError] = {}
    band_errors: dict[Stage, BandError] = {}
    compare_bands = bands and system.overlap is not None and system.electrons is not None
    if compare_bands:
        k = np.asarray(band_path(system.atoms, npoints=BAND_POINTS).kpts if k_points is None else k_points)
        reference_bands = eigenvalues(system, k)
        level = fermi_level(system)
        compare_bands = bool((np.abs(reference_bands - level) <= window).any())
    hermiticity = 0.0
    for stage in stages:
        raw = model.cascade.hamiltonian(system.pairs, stage)
        hermiticity = 1e3 * max(h.hermiticity_error() for h in raw)
        predicted = [h.hermitian_part() for h in raw]
        errors[stage] = hamiltonian_error(predicted, reference, system.overlap)
        if compare_bands:
            # the blocks must share one basis object's orbitals; radial functions do not matter here
            same_basis = tuple(r.with_values(h.values) for r, h in zip(reference, predicted, strict=True))
            other = replace(system, hamiltonian=same_basis, fermi_level=None)
            band_errors[stage] = band_error(
                reference_bands,
                eigenvalues(other, k, overlap_threshold=PREDICTED_THRESHOLD),
                reference_level=level,
                predicted_level=fermi_level(other, overlap_threshold=PREDICTED_THRESHOLD),
                window=window,
            )
    return StructureErrors(name, errors, band_errors, hermiticity)


def rotation_error(model: TrainedModel, system: LCAOSystem, seed: int = 0) -> float:
    """Largest |H(Qx) - D(Q) H(x) D(Q)^dagger| in meV for one random rotation Q, spin included."""
    rotation = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    expected = [rotate_blocks(h, rotation) for h in model.cascade.hamiltonian(system.pairs)]
    found = model.cascade.hamiltonian(rotate_system(system, rotation).pairs)
    errors = [np.abs(f.values - e.values).max() for f, e in zip(found, expected, strict=True)]
    return 1e3 * float(max(errors))
