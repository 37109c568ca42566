"""The card of a model: what a person writes of it, and its errors, which are measured and never typed."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tqdm import tqdm

from ase_hybridham.model import CardErrors, ModelCard, TrainedModel
from ase_hybridham.store import DataSet
from ase_hybridham.system import LCAOSystem, PairBlocks
from ase_hybridham.train.data import majority_up, refuse_other_kinds
from ase_hybridham.train.metrics import hamiltonian_error
from ase_hybridham.train.spectra import ReferenceSpectrum

__all__ = ["ErrorSet", "measure", "read_card"]

WINDOWS = (1.0, 2.0)  # eV around the Fermi level


class ErrorSet(BaseModel):
    """Structures of a data set on which errors are measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    structures: str = Field(min_length=1, description="what they are, in words")
    data: Path = Field(description="data set, relative to the working folder")
    split: str = Field("test", description="or all")
    names: str = Field("*", description="pattern of the names that count, such as bg-*")


def read_card(path: str | Path) -> tuple[ModelCard, tuple[ErrorSet, ...]]:
    """The words of a card from a YAML file, and on which structures to measure errors.

    Raises
    ------
    ValueError
        If the file is no YAML mapping, or an entry is missing, unknown or not allowed.
    """
    try:
        entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        if not isinstance(entries, dict):
            raise ValueError(f"expected a mapping, got {type(entries).__name__}")
        sets = tuple(ErrorSet(**entry) for entry in entries.pop("errors", []))
        card = ModelCard(**entries)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{path}: entry {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not a model card ({' '.join(str(error).split())})") from error
    return card, sets


def measure(model: TrainedModel, chosen: ErrorSet, *, progress: bool = False) -> CardErrors:
    """Errors of the last stage of a model on some structures.

    Bands are compared along the standard path of the cell, with S of the reference and both Fermi levels at zero, where
    S and the number of electrons are known.

    Raises
    ------
    CheckpointError
        If spin or orbitals of the data are not those of the model.
    ValueError
        If no structure has such a name.
    """
    maes, rows = [], []
    with DataSet(chosen.data) as data:
        refuse_other_kinds(data, model)
        names = data.names if chosen.split == "all" else data.split(chosen.split)
        names = [name for name in names if fnmatchcase(name, chosen.names)]
        if not names:
            raise ValueError(f"{data.path}: split {chosen.split!r} holds no structure {chosen.names!r}")
        for name in tqdm(names, desc=chosen.structures, leave=False, disable=None if progress else True):
            system = majority_up(data[name])
            predicted = model.hamiltonian(system.atoms, system.pairs)
            error = hamiltonian_error(predicted, system.hamiltonian, system.overlap)
            maes.append(error.mae)
            rows.append([error.gauge_free_mae, *_levels(system, predicted)])
    gauge_free, narrow, wide, fermi = (
        None if None in column else float(np.mean(column)) for column in zip(*rows, strict=True)
    )
    return CardErrors(
        structures=chosen.structures,
        n=len(maes),
        mae=float(np.mean(maes)),
        mae_worst=max(maes),
        gauge_free=gauge_free,
        bands_1eV=narrow,
        bands_2eV=wide,
        fermi=fermi,
    )


def _levels(system: LCAOSystem, predicted: Sequence[PairBlocks]) -> list[float | None]:
    """Mean errors of the bands in both windows and error of the Fermi level, meV; None where unknown."""
    nothing: list[float | None] = [None] * (len(WINDOWS) + 1)
    if system.overlap is None or system.electrons is None:
        return nothing
    spectrum = ReferenceSpectrum.of(system)
    windows = [window for window in WINDOWS if spectrum.has_states(window)]
    bands, level = spectrum.errors_within(predicted, windows)
    found = dict(zip(windows, bands, strict=True))
    means = (1e3 * found[window].aligned[1] if window in found else None for window in WINDOWS)
    return [*means, 1e3 * abs(level.fermi)]
