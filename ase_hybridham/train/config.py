"""The one list of the options of a training run; a YAML file or `key=value` words fill it."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ase_hybridham.model import ModelConfig, Stage1Config, Stage2Config

__all__ = ["Phase2Config", "PhaseConfig", "TrainConfig", "first_problem", "read_config", "read_options"]

Options = TypeVar("Options", bound=BaseModel)
PAGE = "docs/training.md"
PAGES = {"LearnConfig": "docs/learn.md"}


class PhaseConfig(BaseModel):
    """One phase: stage 1, or stage 2 on what stage 1 leaves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(100, ge=0, description="passes over the training split")
    batch_size: int = Field(1, ge=1, description="structures in a step")
    edges_per_batch: int | None = Field(None, ge=1, description="instead: hoppings in a step, at most")
    optimizer: Literal["adamw", "soap"] = Field("soap", description="SOAP: Adam in the basis of Shampoo")
    refresh: int = Field(10, ge=1, description="soap: steps between two updates of its bases")
    basis_size: int = Field(256, ge=1, description="soap: a longer side of a weight matrix keeps its own basis")
    learning_rate: float = Field(1e-2, gt=0, description="largest of the schedule")
    schedule: Literal["cosine", "plateau"] = "cosine"
    warmup_steps: int = Field(50, ge=0, description="steps until the full rate")
    patience: int = Field(10, ge=1, description="plateau: epochs without progress before the rate is halved")
    revert_after: int | None = Field(
        None, ge=1, description="epochs above twice the best error until the best weights return, at 0.8 of the rate"
    )
    stop_after: int | None = Field(None, ge=1, description="epochs without progress until the phase ends")
    loss: Literal["smooth_l1", "mse", "mae"] = Field(
        "smooth_l1", description="on direct-sum components; mse is the paper's"
    )
    beta_meV: float = Field(5.0, gt=0, description="smooth L1: below this error it is quadratic")
    onsite_weight: float = Field(1.0, ge=0, description="of an on-site element against a hopping element")
    gauge_free: bool = Field(False, description="after the best mu S of every structure is taken off")
    scale_power: float = Field(0.0, ge=0, description="components are weighted with their scale to minus this power")
    trace_weight: float = Field(0.0, ge=0, description="of the loss of the norms of the blocks between two shells")
    weight_decay: float = Field(0.0, ge=0, description="decoupled")
    clip: float | None = Field(None, gt=0, description="largest norm of the gradient")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of averaged weights, which are then the result")


class Phase2Config(PhaseConfig):
    """Stage 2 starts where stage 1 ends: smaller steps, smaller errors."""

    optimizer: Literal["adamw", "soap"] = "adamw"
    learning_rate: float = Field(2e-3, gt=0)
    beta_meV: float = Field(0.5, gt=0, description="smooth L1: below this error it is quadratic")


class TrainConfig(BaseModel):
    """A training run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path = Field(description="data set with splits train and val")
    output: Path = Field(Path("runs/model"), description="folder of checkpoint, log and training state")
    seed: int = 0
    device: str = "auto"
    init: str | None = Field(None, description="path or name of the checkpoint that is trained on")
    precision: Literal["float32", "tf32", "bf16"] = Field("float32", description="of products in the network")
    memory_GB: float | None = Field(None, gt=0, description="of graphs and cached features; the others lie on disk")
    tensorboard: bool = Field(False, description="write what log.csv has for TensorBoard, too")
    edges_per_chunk: int | None = Field(
        None,
        ge=1,
        description="hoppings evaluated at a time, then again for the derivative: saves memory",
    )
    cell_zero: dict[str, float] = Field({}, description="c of elements, eV angstrom^3: H carries sum c N/V times S")
    augment: bool = Field(True, description="frame global: every structure is turned at random in every step")
    model: ModelConfig = ModelConfig()
    phase1: PhaseConfig = PhaseConfig()
    phase2: Phase2Config = Phase2Config()

    @model_validator(mode="after")
    def _symmetric(self) -> "TrainConfig":
        if self.model.stage1.readout == "free":
            raise ValueError("model.stage1.readout: free is for imported networks, H would not be Hermitian")
        if self.precision != "float32" and self.model.dtype != "float32":
            raise ValueError(f"precision: {self.precision} is less than float32, model.dtype asks for float64")
        return self


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """The configuration of a training run in a YAML file; see `read_options`."""
    return read_options(TrainConfig, path, overrides)


def read_options(kind: type[Options], path: str | Path, overrides: Sequence[str] = ()) -> Options:
    """Options of any kind in a YAML file.

    Parameters
    ----------
    kind : class
        Of pydantic's models: TrainConfig, or LearnConfig, ...
    path : str or Path
        Paths in it are relative to the working folder.
    overrides : sequence of str
        ``key=value`` words that go before the file, e.g. ``phase1.epochs=20``.

    Raises
    ------
    ValueError
        If the file is no YAML mapping, a key is unknown, or a value is not allowed; the message names the key.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        entries = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from error
    if entries is None:
        entries = {}
    if not isinstance(entries, dict):
        raise ValueError(f"{path}: expected a mapping of options, got {type(entries).__name__}")
    for word in overrides:
        _override(entries, word)
    try:
        return kind(**entries)
    except ValidationError as error:
        raise ValueError(f"{path}: {first_problem(error, kind)}") from error
    except TypeError as error:
        raise ValueError(f"{path}: options must be words ({error})") from error


def _override(entries: dict[str, Any], word: str) -> None:
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise ValueError(f"override: expected key=value, got {word!r}")
    *folders, last = key.split(".")
    place = entries
    for folder in folders:
        place = place.setdefault(folder, {})
        if not isinstance(place, dict):
            raise ValueError(f"override: {folder!r} in {word!r} is no group of options")
    try:
        place[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"override: {word!r} has no readable value") from error


def first_problem(error: ValidationError, kind: type[BaseModel] = TrainConfig) -> str:
    """One line on what is wrong with options of this kind."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        groups = (PhaseConfig, ModelConfig, Stage1Config, Stage2Config)
        models = (kind, *groups) if kind is TrainConfig else (kind,)
        known = [name for model in models for name in model.model_fields]
        near = get_close_matches(str(problem["loc"][-1]), known, 1)
        meant = f", did you mean {near[0]}" if near else ""
        return f"unknown option {key}{meant}? {PAGES.get(kind.__name__, PAGE)} lists all"
    if problem["type"] == "missing":
        return f"option {key} is missing"
    if not key:  # a rule of several options, which names them itself
        return str(problem["ctx"]["error"])
    return f"option {key}: {problem['msg']}, got {problem.get('input')!r}"
