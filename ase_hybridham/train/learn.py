"""Learning from few data: compute next what several networks disagree on.

Round by round: networks of different seeds learn from what has been computed so far; of the candidates on which they
are farthest apart, a few that differ from each other are computed next. Everything that decides how it goes on stands
in `learn.json`, written whenever something is known, so that a killed run goes on where it was.
"""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from tqdm import tqdm

from ase_hybridham.errors import CheckpointError
from ase_hybridham.files import written_atomically
from ase_hybridham.model import load_ensemble, read_metadata
from ase_hybridham.store import DataSet, append_systems, set_splits
from ase_hybridham.structures import distance_fingerprint, farthest_of
from ase_hybridham.system import LCAOSystem
from ase_hybridham.train.config import TrainConfig, first_problem
from ase_hybridham.train.loop import MODEL_FILE, train

__all__ = ["LearnConfig", "Learned", "Round", "learn", "pick"]

logger = logging.getLogger(__name__)

DATA_FILE, STATE_FILE = "data.h5", "learn.json"
MEV = 1e3
# what `learn` sets itself
OWN = ("data", "output", "seed", "init")

# structures by name -> as each is done: its name, the system (None if DFT did not converge), CPU seconds
Compute = Callable[[Mapping[str, Atoms]], Iterable[tuple[str, LCAOSystem | None, float]]]


class LearnConfig(BaseModel):
    """Which structures are computed, and when it is enough."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidates: Path = Field(description="structures that may be computed, a file that ASE reads")
    goal_meV: float = Field(gt=0, description="validation MAE of the model at which to stop")
    output: Path = Field(Path("runs/learn"), description="folder of data set, networks and state")
    validation: Path | None = Field(None, description="structures to judge by; drawn from the candidates if not given")
    n_validation: int = Field(8, ge=1, description="how many are drawn")
    start: int = Field(8, ge=1, description="structures of the first round, drawn at random; more if elements lack")
    batch: int = Field(4, ge=1, description="structures of every other round")
    budget: int = Field(40, ge=1, description="structures at most, besides those for validation")
    members: int = Field(3, ge=2, description="networks whose spread is looked at")
    pick: Literal["spread", "random"] = "spread"
    breadth: int = Field(3, ge=1, description="of so many batches of largest spread, those that differ most")
    warm: bool = Field(False, description="every member is trained on from where it was")
    seed: int = 0
    dft: dict[str, Any] = Field({}, description="engine and its settings")
    train: dict[str, Any] = Field({}, description="options of training")

    @model_validator(mode="after")
    def _known_options(self) -> "LearnConfig":
        taken = [key for key in OWN if key in self.train]
        if taken:
            raise ValueError(f"train.{taken[0]}: is set by learn itself; leave it out")
        try:
            self.training(Path(), 0, 0)
        except ValidationError as error:
            raise ValueError(f"train: {first_problem(error)}") from error
        return self

    def training(self, folder: Path, number: int, member: int) -> TrainConfig:
        """The training of a member in a round."""
        own: dict[str, Any] = {"data": folder / DATA_FILE, "output": self.run_folder(folder, number, member)}
        if self.warm and number:
            own["init"] = str(self.run_folder(folder, number - 1, member) / MODEL_FILE)
        return TrainConfig(**{**self.train, **own, "seed": 1000 * self.seed + member})

    @staticmethod
    def run_folder(folder: Path, number: int, member: int) -> Path:
        """Where a member of a round is."""
        return folder / f"round-{number:02d}" / f"member-{member}"


@dataclass(frozen=True)
class Round:
    """What was known after a round.

    Parameters
    ----------
    n_structures, n_atoms : int
        In the training split.
    mae_meV : float
        Validation MAE of the best member, which is the model.
    members_meV : list of float
        That of all.
    spread_meV, largest_spread_meV : float or None
        Of the candidates that are left; None if none is.
    dft_s, train_s : float
        CPU seconds of this round; DFT of the first one includes the validation structures.
    """

    n_structures: int
    n_atoms: int
    mae_meV: float
    members_meV: list[float]
    spread_meV: float | None
    largest_spread_meV: float | None
    dft_s: float
    train_s: float


@dataclass(frozen=True)
class Learned:
    """How it ended.

    Parameters
    ----------
    rounds : list of Round
    stopped : str
        goal, budget or candidates: what was reached, or ran out.
    model : Path
        Checkpoint of the best member of the last round.
    failed : list of str
        Structures whose DFT did not converge.
    """

    rounds: list[Round]
    stopped: str
    model: Path
    failed: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "model": str(self.model)}


@dataclass
class _State:
    """What decides how a run goes on."""

    fingerprint: str
    picks: list[list[str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    spread_meV: dict[str, float | None] = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)

    @classmethod
    def of(cls, path: Path) -> "_State":
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**content, "rounds": [Round(**entry) for entry in content["rounds"]]})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: not the state of a run of learn; choose another output") from error

    def save(self, path: Path) -> None:
        with written_atomically(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    def training(self) -> list[str]:
        """Names of the training split so far."""
        return [name for names in self.picks for name in names if name not in self.failed]


def learn(
    config: LearnConfig,
    candidates: Mapping[str, Atoms],
    compute: Compute,
    validation: Mapping[str, Atoms] | None = None,
    *,
    provenance: Mapping[str, Any] | None = None,
    resume: bool = False,
    progress: bool = True,
    tell: Callable[[Round], None] = lambda _: None,
) -> Learned:
    """Train, compute what the networks disagree on most, train again, until it is good enough.

    Parameters
    ----------
    config : LearnConfig
        Its paths of structures are not read here.
    candidates : mapping
        Name -> structure.
    compute : callable
        Runs DFT.
    validation : mapping, optional
        Name -> structure, none of the candidates; by default `n_validation` candidates, drawn at random.
    provenance : mapping, optional
        Of the data set, such as the settings of DFT: plain JSON types.
    resume : bool
        Go on from the state in the output folder, if there is one. Goal and budget may differ from before.
    progress : bool
        Show bars on stderr.
    tell : callable
        Gets every round when it is done.

    Raises
    ------
    ValueError
        If there are too few candidates, the output folder holds another run, or no structure converged.
    """
    run = _Run(config, dict(candidates), compute, validation, provenance or {}, resume, progress)
    for done in run.state.rounds:
        tell(done)
    while (stopped := run.reason_to_stop()) is None:
        tell(run.next_round())
    return Learned(run.state.rounds, stopped, run.folder / MODEL_FILE, run.state.failed)


class _Run:
    """A run between its rounds."""

    def __init__(
        self,
        config: LearnConfig,
        candidates: dict[str, Atoms],
        compute: Compute,
        validation: Mapping[str, Atoms] | None,
        provenance: Mapping[str, Any],
        resume: bool,
        progress: bool,
    ) -> None:
        self.config, self.compute, self.provenance, self.progress = config, compute, provenance, progress
        self.folder = Path(config.output)
        path = self.folder / STATE_FILE
        if (path.exists() and not resume) or ((self.folder / DATA_FILE).exists() and not path.exists()):
            raise ValueError(f"{self.folder}: holds a run already; go on with --resume, or choose another output")
        fingerprint = _fingerprint(config, provenance, candidates, validation or {})
        self.state = _State.of(path) if path.exists() else _State(fingerprint)
        if self.state.fingerprint != fingerprint:
            raise ValueError(f"{path}: the run was started with other structures or options; choose another output")
        shared = sorted(set(candidates) & set(validation or {}))
        if shared:
            raise ValueError(f"validation: {shared[0]} is the name of a candidate, too; rename one of the files")
        needed = config.start + (config.n_validation if validation is None else 0) + 1
        if len(candidates) < needed:
            raise ValueError(f"candidates: expected {needed} or more for start and validation, got {len(candidates)}")
        if validation is None:
            rng = np.random.default_rng([config.seed, 1])
            drawn = rng.choice(sorted(candidates), config.n_validation, replace=False).tolist()
            validation = {name: candidates[name] for name in sorted(drawn)}
        self.validation = dict(validation)
        self.candidates = {name: atoms for name, atoms in candidates.items() if name not in self.validation}

    def reason_to_stop(self) -> str | None:
        """goal, budget, candidates, or None to go on; a round whose DFT has begun is finished first."""
        state, config = self.state, self.config
        if not state.rounds or len(state.picks) > len(state.rounds):
            return None
        if state.rounds[-1].mae_meV <= config.goal_meV:
            return "goal"
        if sum(map(len, state.picks)) >= config.budget:
            return "budget"
        return None if self.left() else "candidates"

    def left(self) -> dict[str, Atoms]:
        """Candidates that were not picked."""
        picked = {name for names in self.state.picks for name in names}
        return {name: atoms for name, atoms in self.candidates.items() if name not in picked}

    def next_round(self) -> Round:
        """Pick, compute, train, look at the spread."""
        state, number = self.state, len(self.state.rounds)
        if len(state.picks) == number:
            state.picks.append(self._pick(number))
            self._save()
        seconds = self._compute(number)
        begun = time.process_time()
        models = [self._trained(number, member) for member in range(self.config.members)]
        train_s = time.process_time() - begun
        errors = [_valid_error(path) for path in models]
        best = models[int(np.argmin(errors))]
        with written_atomically(self.folder / MODEL_FILE) as temporary:
            shutil.copyfile(best, temporary)
        state.spread_meV = self._spreads(models)
        spreads = [spread for spread in state.spread_meV.values() if spread is not None]
        names = state.training()
        done = Round(
            n_structures=len(names),
            n_atoms=sum(len(self.candidates[name]) for name in names),
            mae_meV=min(errors),
            members_meV=errors,
            spread_meV=float(np.mean(spreads)) if spreads else None,
            largest_spread_meV=max(spreads, default=None),
            dft_s=round(seconds, 1),
            train_s=round(train_s, 1),
        )
        state.rounds.append(done)
        self._save()
        return done

    def _pick(self, number: int) -> list[str]:
        left, config = self.left(), self.config
        n = config.start if number == 0 else config.batch
        n = min(n, len(left), config.budget - sum(map(len, self.state.picks)))
        if number == 0 or config.pick == "random":
            order = np.random.default_rng([config.seed, 2, number]).permutation(sorted(left)).tolist()
            return sorted(order[:n] if number else self._with_all_elements(order, n))
        spread = {name: self.state.spread_meV[name] for name in left}
        return pick({name: np.inf if s is None else s for name, s in spread.items()}, left, n, config.breadth)

    def _with_all_elements(self, order: Sequence[str], n: int) -> list[str]:
        """The first `n`, and the first ones with elements of the validation structures that these lack."""
        picked = list(order[:n])
        for symbol in sorted({symbol for atoms in self.validation.values() for symbol in atoms.symbols}):
            having = [name for name in order if symbol in self.candidates[name].symbols]
            if not having:
                raise ValueError(f"candidates: expected some with {symbol}, which is in the validation structures")
            if not set(having) & set(picked):
                picked.append(having[0])
        return picked

    def _compute(self, number: int) -> float:
        """Bring what a round needs into the data set; CPU seconds of it."""
        state, path = self.state, self.folder / DATA_FILE
        wanted = {name: self.candidates[name] for name in state.picks[number]}
        if number == 0:
            wanted = {**self.validation, **wanted}
        there: set[str] = set()
        if path.exists():
            with DataSet(path) as data:
                there = set(data)
        todo = {name: atoms for name, atoms in wanted.items() if name not in there and name not in state.failed}

        def converged() -> Iterator[tuple[str, LCAOSystem]]:
            for name, system, seconds in self.compute(todo):
                state.seconds[name] = seconds
                if system is None:
                    state.failed.append(name)
                self._save()
                if system is not None:
                    yield name, system

        if todo:
            append_systems(path, converged(), provenance=self.provenance)
        kept = [name for name in self.validation if name not in state.failed]
        if not kept or not state.training():
            what = "training" if kept else "validation"
            raise ValueError(f"DFT: no structure for {what} converged; see `hybridham dft -h` for its settings")
        set_splits(path, {"train": state.training(), "val": kept})
        return sum(state.seconds.get(name, 0.0) for name in wanted)

    def _trained(self, number: int, member: int) -> Path:
        config = self.config.training(self.folder, number, member)
        logger.info("round %d  member %d of %d", number + 1, member + 1, self.config.members)
        return train(config, resume=True, progress=self.progress)

    def _spreads(self, models: Sequence[Path]) -> dict[str, float | None]:
        """Of every candidate that is left, in meV; None where it has elements that the networks never met."""
        ensemble = load_ensemble(models, device=self.config.training(self.folder, 0, 0).device, dtype="float32")
        found: dict[str, float | None] = {}
        silent = None if self.progress else True
        with _without_warnings(), tqdm(self.left().items(), desc="spread", leave=False, disable=silent) as bar:
            for name, atoms in bar:
                try:
                    found[name] = MEV * ensemble.spread(atoms).structure
                except CheckpointError:
                    found[name] = None
        return found

    def _save(self) -> None:
        self.state.save(self.folder / STATE_FILE)


def pick(spread: Mapping[str, float], structures: Mapping[str, Atoms], n: int, breadth: int = 3) -> list[str]:
    """Names of `n` structures of large spread that differ from each other.

    Parameters
    ----------
    spread : mapping
        Name -> spread, in any unit.
    structures : mapping
        Name -> structure.
    n : int
    breadth : int
        Of the n times `breadth` of largest spread, the largest and those farthest from it and each other are taken;
        1 is the spread alone.
    """
    shortlist = sorted(spread, key=lambda name: (-spread[name], name))[: n * breadth]
    elements = sorted({symbol for name in shortlist for symbol in structures[name].symbols})
    return farthest_of({name: distance_fingerprint(structures[name], elements) for name in shortlist}, n)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Models warn of structures unlike their training set, and candidates are to be unlike it."""
    talker = logging.getLogger("ase_hybridham.model")
    level = talker.level
    talker.setLevel(logging.ERROR)
    try:
        yield
    finally:
        talker.setLevel(level)


def _valid_error(path: Path) -> float:
    """MAE in meV on the validation split, of the last stage that was trained."""
    metrics = read_metadata(path)["metrics"]
    return float(metrics.get("phase2_valid_mae_meV", metrics["phase1_valid_mae_meV"]))


def _fingerprint(config: LearnConfig, provenance: Mapping[str, Any], *groups: Mapping[str, Atoms]) -> str:
    """Of everything that must not change between two parts of a run."""
    kept = config.model_dump_json(exclude={"goal_meV", "budget", "output", "candidates", "validation"})
    digest = hashlib.sha256(kept.encode() + json.dumps(provenance, sort_keys=True).encode())
    for group in groups:
        for name, atoms in sorted(group.items()):
            digest.update(name.encode() + atoms.numbers.astype(np.int64).tobytes() + np.asarray(atoms.pbc).tobytes())
            digest.update((np.round([*atoms.positions, *atoms.cell.array], 6) + 0.0).tobytes())  # no -0.0
        digest.update(b";")
    return digest.hexdigest()
