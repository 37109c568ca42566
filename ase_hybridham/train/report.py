"""What an evaluation found: errors of every structure, their means and extremes, and all of it as JSON."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from ase_hybridham.model import Stage
from ase_hybridham.solve import BandError
from ase_hybridham.system import Decay, OrbitalMap
from ase_hybridham.system.orbital_map import orbital_names, shell_names
from ase_hybridham.train.metrics import BlockError, HamiltonianError
from ase_hybridham.train.noise import LabelNoise
from ase_hybridham.train.rotations import RotationRow
from ase_hybridham.train.spectra import LevelError
from ase_hybridham.train.uncertainty import (
    LevelReport,
    LevelSpread,
    SpreadError,
    SpreadReport,
    level_report,
    spread_report,
)

__all__ = ["Evaluation", "StructureErrors"]


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
    levels : dict
        Stage -> `LevelError`.
    worst : dict
        Stage -> `BlockError`.
    maps, decays : dict
        Stage -> mean |error| in meV by orbitals, and against distance.
    members : tuple of float
        MAE of the last stage of every network, meV.
    spreads : dict
        "raw" and, where S is known, "gauge_free" -> `SpreadError` of an ensemble.
    level_spread : LevelSpread, optional
        Of an ensemble, where bands were compared.
    """

    name: str
    hamiltonian: dict[Stage, HamiltonianError]
    bands: dict[Stage, BandError]
    hermiticity_meV: float
    levels: dict[Stage, LevelError] = field(default_factory=dict)
    worst: dict[Stage, BlockError] = field(default_factory=dict)
    maps: dict[Stage, OrbitalMap] = field(default_factory=dict)
    decays: dict[Stage, Decay] = field(default_factory=dict)
    members: tuple[float, ...] = ()
    spreads: dict[str, SpreadError] = field(default_factory=dict)
    level_spread: LevelSpread | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "name": self.name,
            "hamiltonian": {stage: error.to_dict() for stage, error in self.hamiltonian.items()},
            "bands_eV": {stage: asdict(error) for stage, error in self.bands.items()},
            "levels": {stage: error.to_dict() for stage, error in self.levels.items()},
            "hermiticity_meV": self.hermiticity_meV,
            "worst_block": {stage: error.to_dict() for stage, error in self.worst.items()},
            "members_mae_meV": list(self.members),
            "spread_meV": {kind: 1e3 * row.spread.structure for kind, row in self.spreads.items()},
        }


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
    rotations : tuple of RotationRow
        Averages over rotations, if they were asked for.
    noise : LabelNoise, optional
    """

    structures: tuple[StructureErrors, ...]
    rotation_meV: float
    window_eV: float
    rotations: tuple[RotationRow, ...] = ()
    noise: LabelNoise | None = None

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
        return _over([getattr(s.hamiltonian[stage], figure) for s in self.structures], _mean)

    def largest_of(self, stage: Stage, figure: str) -> float | None:
        """Largest over structures of such a figure's size, meV."""
        return _over([getattr(s.hamiltonian[stage], figure) for s in self.structures], _largest)

    def mean_shift(self, stage: Stage) -> float | None:
        """Mean over structures of the size of the shift mu, meV."""
        return _over([s.hamiltonian[stage].shift for s in self.structures], _mean_size)

    def band_mean(self, stage: Stage, *, aligned: bool = False) -> float | None:
        """Mean band error in the window, meV; None where no bands were compared."""
        errors = [s.bands[stage] for s in self.structures if stage in s.bands]
        return 1e3 * float(np.mean([e.aligned[1] if aligned else e.mean for e in errors])) if errors else None

    def band_max(self, stage: Stage, *, aligned: bool = False) -> float | None:
        """Largest band error in the window, meV; None where no bands were compared."""
        errors = [s.bands[stage] for s in self.structures if stage in s.bands]
        return 1e3 * max(e.aligned[0] if aligned else e.max for e in errors) if errors else None

    def fermi_error(self, stage: Stage) -> float | None:
        """Mean size of the error of the Fermi level, meV; None where it is not known."""
        errors = [s.levels[stage].fermi for s in self.structures if stage in s.levels]
        return 1e3 * _mean_size(errors) if errors else None

    def gap_error(self, stage: Stage) -> float | None:
        """Mean size of the error of the gap over structures whose reference has one, meV."""
        rows = [s.levels[stage] for s in self.structures if stage in s.levels]
        errors = [row.gap - row.reference_gap for row in rows if row.gap is not None and row.reference_gap is not None]
        return 1e3 * _mean_size(errors) if errors else None

    def worst(self, stage: Stage) -> BlockError | None:
        """The block with the largest rms error; None where blocks were not looked at."""
        return max((s.worst[stage] for s in self.structures if s.worst), key=lambda block: block.rms, default=None)

    def orbital_map(self, stage: Stage) -> OrbitalMap:
        """Mean |error| in meV by orbitals; its mean is `mae_all`."""
        return reduce(add, (s.maps[stage] for s in self.structures if s.maps), OrbitalMap())

    def decay(self, stage: Stage) -> Decay:
        """|error| in meV against distance."""
        return reduce(add, (s.decays[stage] for s in self.structures if s.decays), Decay())

    def members(self) -> list[float]:
        """MAE_all of the last stage of every network, meV."""
        return [float(np.mean(maes)) for maes in zip(*(s.members for s in self.structures), strict=True)]

    def spreads(self) -> dict[str, SpreadReport]:
        """What the spread of an ensemble tells of its error, "raw" and "gauge_free"; empty for one network."""
        kinds = [kind for kind in self.structures[0].spreads if all(kind in s.spreads for s in self.structures)]
        return {kind: spread_report([s.spreads[kind] for s in self.structures]) for kind in kinds}

    def level_spread(self) -> LevelReport | None:
        """What error bars of bands tell of the errors of bands; None for one network, or without bands."""
        known = [s.level_spread for s in self.structures if s.level_spread is not None]
        return level_report(known) if known else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; docs/evaluation.md says what every key means."""

        def of_stages(figure: Callable[[Stage], float | None]) -> dict[Stage, float | None]:
            return {stage: figure(stage) for stage in self.stages}

        worst = {stage: self.worst(stage) for stage in self.stages}
        levels = self.level_spread()
        return {
            "structures": [s.to_dict() for s in self.structures],
            "mae_all_meV": of_stages(self.mae_all),
            "mae_cha_meV": of_stages(self.mae_cha),
            "onsite_mae_meV": of_stages(lambda stage: self.mean_of(stage, "onsite_mae")),
            "hopping_mae_meV": of_stages(lambda stage: self.mean_of(stage, "hopping_mae")),
            "rms_meV": of_stages(lambda stage: self.mean_of(stage, "rms")),
            "gauge_free_mae_meV": of_stages(lambda stage: self.mean_of(stage, "gauge_free_mae")),
            "gauge_free_mae_cha_meV": of_stages(lambda stage: self.largest_of(stage, "gauge_free_mae")),
            "shift_meV": of_stages(self.mean_shift),
            "splitting_mae_meV": of_stages(lambda stage: self.mean_of(stage, "splitting_mae")),
            "band_mean_meV": of_stages(self.band_mean),
            "band_max_meV": of_stages(self.band_max),
            "band_aligned_mean_meV": of_stages(lambda stage: self.band_mean(stage, aligned=True)),
            "band_aligned_max_meV": of_stages(lambda stage: self.band_max(stage, aligned=True)),
            "fermi_meV": of_stages(self.fermi_error),
            "gap_meV": of_stages(self.gap_error),
            "window_eV": self.window_eV,
            "rotation_meV": self.rotation_meV,
            "hermiticity_meV": max(s.hermiticity_meV for s in self.structures),
            "worst_block": {stage: None if block is None else block.to_dict() for stage, block in worst.items()},
            "orbitals": {stage: orbital_entries(self.orbital_map(stage)) for stage in self.stages},
            "distances": {stage: distance_entries(self.decay(stage)) for stage in self.stages},
            "noise_meV": None if self.noise is None else self.noise.mae,
            "noise_from": None if self.noise is None else self.noise.source,
            "members_mae_all_meV": self.members(),
            "spread": {kind: report.to_dict() for kind, report in self.spreads().items()} or None,
            "level_spread": None if levels is None else levels.to_dict(),
            "rotations": [row.to_dict() for row in self.rotations],
        }


def orbital_entries(errors: OrbitalMap) -> list[dict[str, Any]]:
    """One entry for every panel, plain JSON types."""
    return [
        {
            "pair": panel.pair,
            "kind": panel.kind,
            "share": errors.share(panel),
            "mae_meV": float(panel.mean.mean()),
            "orbitals": [orbital_names(panel.rows), orbital_names(panel.columns)],
            "orbital_mae_meV": panel.mean.tolist(),
            "shells": [shell_names(panel.rows), shell_names(panel.columns)],
            "shell_mae_meV": panel.shell_means().tolist(),
        }
        for panel in errors.panels.values()
    ]


def distance_entries(errors: Decay) -> list[dict[str, Any]]:
    """One entry for every pair of elements and bin of distance, plain JSON types."""
    return [
        {
            "pair": pair,
            "from_A": row.start,
            "to_A": row.end,
            "elements": row.elements,
            "mae_meV": row.mean,
            "largest_meV": row.largest,
        }
        for pair in errors.pairs
        for row in errors.rows(pair)
    ]


def _over(values: list[float | None], figure: Callable[[list[float]], float]) -> float | None:
    known = [value for value in values if value is not None]
    return figure(known) if len(known) == len(values) else None


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _largest(values: Sequence[float]) -> float:
    return float(np.abs(values).max())


def _mean_size(values: Sequence[float]) -> float:
    return float(np.abs(values).mean())
