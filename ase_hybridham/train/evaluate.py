"""How good is a checkpoint, or an ensemble of some, on structures with known H? One table for all stages."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from ase_hybridham.errors import CheckpointError, FormatError
from ase_hybridham.model import Ensemble, TrainedModel
from ase_hybridham.model.ensemble import mean_of, spread_of
from ase_hybridham.store import DataSet
from ase_hybridham.system import Decay, LCAOSystem, OrbitalMap, PairBlocks
from ase_hybridham.train.data import majority_up
from ase_hybridham.train.metrics import block_rms, differences, hamiltonian_error, without_shift, worst_block
from ase_hybridham.train.noise import LabelNoise
from ase_hybridham.train.report import Evaluation, StructureErrors
from ase_hybridham.train.rotations import RotationRow, is_equivariant, rotation_error, rotation_table
from ase_hybridham.train.spectra import ReferenceSpectrum
from ase_hybridham.train.uncertainty import SpreadError

__all__ = ["evaluate", "evaluate_system"]


def evaluate(
    model: TrainedModel | Ensemble,
    data: DataSet,
    names: Sequence[str],
    *,
    window: float = 2.0,
    bands: bool = True,
    rotations: int = 0,
    noise: LabelNoise | None = None,
    progress: bool = False,
) -> Evaluation:
    """Errors of a checkpoint, or of the mean of an ensemble, on structures of a data set.

    Parameters
    ----------
    model : TrainedModel or Ensemble
    data : DataSet
    names : sequence of str
    window : float
        States within so many eV of the reference's Fermi level count in band errors.
    bands : bool
        Whether bands are compared, too (costs eigenvalues along a path and on the mesh of the Fermi level).
    rotations : int
        Average over 1, 2, 4, ... and so many rotations, too; 0: not. Of exactly equivariant networks never.
    noise : LabelNoise, optional
        Passed on to the result.
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
    table: list[RotationRow] = []
    if rotations and not is_equivariant(model):
        with tqdm(names, desc="rotations", leave=False, disable=None if progress else True) as bar:
            table = rotation_table(model, (majority_up(data[name]) for name in bar), rotations)
    return Evaluation(tuple(rows), rotation_error(model, data[names[0]]), window, tuple(table), noise)


def evaluate_system(
    model: TrainedModel | Ensemble,
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
    ensemble = model if isinstance(model, Ensemble) else Ensemble([model])
    if system.spin != ensemble.spin or not system.hamiltonian:
        raise CheckpointError(f"{name}: expected a Hamiltonian of spin {ensemble.spin!r}, got spin {system.spin!r}")
    if not ensemble.basis.same_orbitals(system.basis):
        raise CheckpointError(f"{name}: its orbitals are not those the model was trained for")
    ensemble.models[0].cascade.vocabulary.species_of(system.atoms.get_atomic_numbers())
    if not all(np.isfinite(h.values).all() for h in system.operators):
        raise FormatError(f"{name}: its Hamiltonian or overlap is not finite; leave it out of the split")
    system = majority_up(system)
    row = StructureErrors(name, {}, {}, 0.0)
    spectrum = None
    if bands and system.overlap is not None and system.electrons is not None:
        spectrum = ReferenceSpectrum.of(system, k_points)
        spectrum = spectrum if spectrum.has_states(window) else None
    hermiticity, members = 0.0, []
    for stage in ensemble.stages:
        raw = ensemble.members(system.atoms, system.pairs, stage, hermitian=False)
        hermiticity = 1e3 * max(h.hermiticity_error() for h in mean_of(raw))
        members = [tuple(h.hermitian_part() for h in operators) for operators in raw]
        predicted = mean_of(members)
        errors = differences(predicted, system.hamiltonian)
        row.hamiltonian[stage] = hamiltonian_error(predicted, system.hamiltonian, system.overlap)
        row.worst[stage] = worst_block(name, errors, system.hamiltonian)
        row.maps[stage] = OrbitalMap.of(errors)
        row.decays[stage] = reduce(add, (Decay.of(error) for error in errors))
        if spectrum is not None:
            row.bands[stage], row.levels[stage] = spectrum.errors(predicted, window)
    maes = tuple(hamiltonian_error(operators, system.hamiltonian).mae for operators in members)
    spreads = _spreads(members, system) if len(ensemble) > 1 else {}
    levels = None if spectrum is None else spectrum.spread(members, window)
    return replace(row, hermiticity_meV=hermiticity, members=maes, spreads=spreads, level_spread=levels)


def _spreads(members: Sequence[Sequence[PairBlocks]], system: LCAOSystem) -> dict[str, SpreadError]:
    """Spread beside error, with and without the best mu S of both."""
    errors = differences(mean_of(members), system.hamiltonian)
    kinds = {"raw": (spread_of(members), errors)}
    if system.overlap is not None:
        kinds["gauge_free"] = (spread_of(members, system.overlap), without_shift(errors, system.overlap)[1])
    rows = {}
    for kind, (spread, left) in kinds.items():
        squares = np.concatenate([h.values.view(np.float64) ** 2 for h in left])
        rows[kind] = SpreadError(spread, block_rms(left), float(np.sqrt(squares.mean())), system.pairs.n_atoms)
    return rows
