"""Both phases in a row, resumable after a kill at any moment.

Phase 1 fits stage 1 to the Hamiltonian; phase 2 fits stage 2 to what the frozen stage 1 leaves, from stored
features. Files in the output folder: `model.hham` (the result, written after each phase), `log.csv`, `state.pt`.
"""

import csv
import hashlib
import json
import logging
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ase_hybridham.errors import CheckpointError
from ase_hybridham.files import written_atomically
from ase_hybridham.model import Cascade, PairGraph, Stage2, TrainedModel, save_model, select_device
from ase_hybridham.store import DataSet
from ase_hybridham.train.config import TrainConfig
from ase_hybridham.train.data import add_stage1, domain_of, graphs_of, stage1_output
from ase_hybridham.train.evaluate import evaluate
from ase_hybridham.train.phase import Phase, stage1_task, stage2_task

__all__ = ["LOG_FILE", "MODEL_FILE", "train"]

logger = logging.getLogger(__name__)

MODEL_FILE, LOG_FILE, STATE_FILE = "model.hham", "log.csv", "state.pt"
LOG_FIELDS = ("phase", "epoch", "loss", "train_mae_meV", "valid_mae_meV", "best_mae_meV", "learning_rate", "seconds")
STATE_INTERVAL = 20.0  # seconds between two training states on disk, so that short epochs stay cheap


def train(config: TrainConfig, *, resume: bool = False, progress: bool = True) -> Path:
    """Train both stages on a data set.

    Parameters
    ----------
    config : TrainConfig
    resume : bool
        Go on from the training state in the output folder, if there is one.
    progress : bool
        Show bars on stderr.

    Returns
    -------
    Path
        The checkpoint.

    Raises
    ------
    ValueError
        If a split is missing or empty, the output folder holds another run, or the state does not fit.
    """
    log = _Log(Path(config.output), resume=resume)
    torch.manual_seed(config.seed)
    with DataSet(config.data) as data:
        names, valid_names = data.split("train"), data.split("val")
        if not valid_names:
            raise ValueError(f"{data.path}: the split 'val' is empty; the best epoch is chosen on it")
        cascade = Cascade(config.model, domain_of(data, names)).to(select_device(config.device))
        overlap = config.phase1.needs_overlap or config.phase2.needs_overlap
        graphs = graphs_of(data, names, cascade, overlap=overlap, progress=progress)
        valid = graphs_of(data, valid_names, cascade, overlap=overlap, progress=progress)
        first, references = data[names[0]], {data[name].potential_reference for name in names}
        provenance = {
            "data": {
                "hash": data.content_hash(),
                "n_train": len(names),
                "n_valid": len(valid_names),
                **data.provenance,
            },
            "structure": dict(first.provenance),
            "training": json.loads(
                config.model_dump_json(by_alias=True, exclude={"data", "output", "device", "edges_per_chunk"})
            ),
        }
    log.begin(provenance)
    cascade.stage1.edges_per_chunk = config.edges_per_chunk
    if config.model.scale_targets:
        cascade.scale1.fit(graphs)
    else:
        cascade.scale1.set_unit()
    reference = first.potential_reference if len(references) == 1 else "unknown"
    model = TrainedModel(cascade, reference, provenance, {})
    path = log.folder / MODEL_FILE

    phase = Phase(config.phase1, cascade.stage1, stage1_task(cascade), cascade, graphs, valid, seed=config.seed)
    _run("phase1", phase, model, log, progress)
    save_model(path, model)

    if cascade.stage2 is not None and config.model.stage2 is not None:
        _prepare_phase2(cascade, cascade.stage2, graphs, valid)
        # in the frames of the edges every turned copy looks the same
        turn = config.augment and config.model.stage2.frame == "global"
        task, seed = stage2_task(cascade), config.seed + 1
        phase = Phase(config.phase2, cascade.stage2, task, cascade, graphs, valid, seed=seed, augment=turn)
        _run("phase2", phase, model, log, progress)
        cascade.has_stage2.fill_(config.phase2.epochs > 0)
        save_model(path, model)
    model.metrics = {**model.metrics, **_test_errors(model, config.data, progress=progress)}
    save_model(path, model)
    return path


def _test_errors(model: TrainedModel, path: Path, *, progress: bool) -> dict[str, float]:
    """MAE_all of both stages on the test split, if the data set has one that the model fits."""
    with DataSet(path) as data:
        names = data.splits.get("test", [])
        try:
            result = evaluate(model, data, names, bands=False, progress=progress) if names else None
        except CheckpointError as error:  # the model is there all the same
            logger.warning("test split: not evaluated, %s", error)
            result = None
    return {} if result is None else {f"test_{s}_mae_meV": result.mae_all(s) for s in result.stages if s != "mean"}


def _run(name: str, phase: Phase, model: TrainedModel, log: "_Log", progress: bool) -> None:
    """Train what is left of a phase, and keep its best weights."""
    log.restore(name, phase)
    n_epochs = phase.config.epochs
    silent = None if progress else True  # None: where stderr is no terminal
    with tqdm(total=n_epochs, initial=phase.epoch, desc=name, unit="epoch", disable=silent) as bar:
        while phase.epoch < n_epochs:
            began = time.monotonic()
            loss, train_error, error = phase.run_epoch()
            rate = phase.optimizer.param_groups[0]["lr"]
            log.row(name, phase.epoch, (loss, train_error, error, phase.best_error, rate), time.monotonic() - began)
            log.save(name, phase, force=phase.epoch == n_epochs)
            figures = f"train {train_error:.2f}  valid {error:.2f}  best {phase.best_error:.2f} meV"
            bar.set_postfix_str(figures, refresh=False)
            bar.update()
            if progress and bar.disable and 10 * phase.epoch // n_epochs > 10 * (phase.epoch - 1) // n_epochs:
                logger.info("%s  epoch %d of %d  %s  %.0f s", name, phase.epoch, n_epochs, figures, log.seconds)
    phase.keep_best()
    model.metrics = {**model.metrics, f"{name}_valid_mae_meV": phase.best_error}


@torch.no_grad()
def _prepare_phase2(cascade: Cascade, stage2: Stage2, graphs: list[PairGraph], valid: list[PairGraph]) -> None:
    """Freeze stage 1, store what it gives, fit the scales of what it leaves."""
    cascade.stage1.requires_grad_(False)
    add_stage1(graphs, cascade)
    add_stage1(valid, cascade)
    if cascade.config.scale_targets:
        cascade.scale2.fit(graphs, centered=False)
    else:
        cascade.scale2.set_unit()
    n_blocks = cascade.config.stage1.n_blocks
    squares = torch.zeros_like(stage2.input_scale)
    for graph in graphs:
        for kind, groups in enumerate(stage2.inputs(graph, stage1_output(graph, n_blocks))):
            squares[kind] += torch.stack([rows.square().mean() for rows in groups])
    stage2.input_scale.copy_(torch.rsqrt((squares / len(graphs)).clamp(min=1e-8)))


class _Log:
    """The files of a run besides its checkpoint: what happened, and where to go on."""

    def __init__(self, folder: Path, *, resume: bool) -> None:
        self.folder, self.seconds, self.saved = folder, 0.0, time.monotonic()
        path = folder / STATE_FILE
        if not resume and (path.exists() or (folder / MODEL_FILE).exists()):
            raise ValueError(f"{folder}: holds a run already; go on with --resume, or choose another output")
        self.state: dict[str, Any] = {"fingerprint": "", "phases": {}, "seconds": 0.0}
        if path.exists():
            try:
                self.state = torch.load(path, weights_only=True, map_location="cpu")
                self.seconds = float(self.state["seconds"])
                _ = self.state["fingerprint"], self.state["phases"].items()
            except Exception as error:  # torch's own exceptions differ from version to version
                raise ValueError(f"{path}: not a training state; remove it and start again") from error

    def begin(self, provenance: dict[str, Any]) -> None:
        """Refuse to go on with other data or options; then bring the log to where the state stands."""
        text = json.dumps([provenance["data"], provenance["training"]], sort_keys=True, default=str)
        fingerprint = hashlib.sha256(text.encode()).hexdigest()
        if self.state["fingerprint"] not in ("", fingerprint):
            raise ValueError(
                f"{self.folder / STATE_FILE}: the run was started with other data or options; "
                "resume with those, or choose another output"
            )
        self.state["fingerprint"] = fingerprint
        self._truncate()

    def restore(self, name: str, phase: Phase) -> None:
        """Bring a phase to where the stored run stood."""
        if name in self.state["phases"]:
            try:
                phase.restore(self.state["phases"][name])
            except (KeyError, RuntimeError, ValueError) as error:
                raise ValueError(
                    f"{self.folder / STATE_FILE}: the state of another network, perhaps of another version; "
                    "choose another output"
                ) from error

    def row(self, name: str, epoch: int, figures: tuple[float, ...], seconds: float) -> None:
        """Add a line to the log."""
        self.seconds += seconds
        with (self.folder / LOG_FILE).open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([name, epoch, *(f"{x:.6g}" for x in figures), f"{self.seconds:.2f}"])

    def save(self, name: str, phase: Phase, *, force: bool) -> None:
        """Store the state of a phase, if it is time."""
        if not force and time.monotonic() - self.saved < STATE_INTERVAL:
            return
        self.state["phases"][name], self.state["seconds"] = phase.state(), self.seconds
        with written_atomically(self.folder / STATE_FILE) as temporary:
            torch.save(self.state, temporary)
        self.saved = time.monotonic()

    def _truncate(self) -> None:
        """Keep the lines that the state knows: a killed run may have written more."""
        path = self.folder / LOG_FILE
        epochs = {name: phase["epoch"] for name, phase in self.state["phases"].items()}
        rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines())) if path.exists() else []
        kept = [row for row in rows if len(row) == len(LOG_FIELDS) and row[1].isdigit()]
        kept = [row for row in kept if int(row[1]) <= epochs.get(row[0], 0)]
        with written_atomically(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([LOG_FIELDS, *kept])
