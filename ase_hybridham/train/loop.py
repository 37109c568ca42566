"""Both phases in a row, resumable after a kill at any moment.

Phase 1 fits stage 1 to the Hamiltonian; phase 2 fits stage 2 to what the frozen stage 1 leaves, from stored
features. Files in the output folder: `model.hham` (the result, written after each phase), `log.csv`, `state.pt`.
"""

import json
import logging
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ase_hybridham.errors import CheckpointError
from ase_hybridham.model import Stage2, TrainedModel, save_model
from ase_hybridham.store import DataSet
from ase_hybridham.train.batches import Budget
from ase_hybridham.train.config import PhaseConfig, TrainConfig
from ase_hybridham.train.data import ReadOnce, add_stage1, domain_of, few_of, graphs_of, stage1_output
from ase_hybridham.train.distributed import Workers, workers
from ase_hybridham.train.evaluate import evaluate
from ase_hybridham.train.log import MODEL_FILE, RunLog, bar_of
from ase_hybridham.train.loss import aligned
from ase_hybridham.train.phase import NotFiniteError, Phase, Task, stage1_task, stage2_task
from ase_hybridham.train.precision import products_in
from ase_hybridham.train.warmstart import base_of, fit_missing, start

__all__ = ["MODEL_FILE", "train"]

logger = logging.getLogger(__name__)

# what changes nothing in the result, or is said elsewhere
NOT_RECORDED = {"data", "output", "device", "edges_per_chunk", "init", "memory_GB", "tensorboard"}


def train(config: TrainConfig, *, resume: bool = False, progress: bool = True) -> Path:
    """Train both stages on a data set, in as many processes as `torchrun` has started.

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
        If a split is missing or empty, the output folder holds another run, the state does not fit, or the loss
        becomes infinite.
    KeyboardInterrupt
        As it comes, with words on what is left.
    """
    with workers(config.device) as group, products_in(config.precision):
        folder, board = Path(config.output), config.tensorboard
        with RunLog(folder, resume=resume, writes=group.first, tensorboard=board) as log:
            return _Run(config, group, log, progress and group.first).both_phases()


def enough_for(config: TrainConfig, group: Workers) -> None:
    """Check that every process has something to do.

    Raises
    ------
    ValueError
        If a step has fewer structures than there are processes.
    """
    for name, phase in {"phase1": config.phase1, "phase2": config.phase2}.items():
        if phase.epochs and phase.edges_per_batch is None and phase.batch_size < group.size:
            raise ValueError(
                f"{name}.batch_size: expected at least one structure for each of {group.size} processes, got "
                f"{phase.batch_size}; raise it, or start fewer processes"
            )


class _Run:
    """What both phases work on."""

    def __init__(self, config: TrainConfig, group: Workers, log: RunLog, progress: bool) -> None:
        torch.manual_seed(config.seed)
        enough_for(config, group)
        config, base, digest = base_of(config)
        self.config, self.group, self.log, self.progress = config, group, log, progress
        memory = float("inf") if config.memory_GB is None else 1e9 * config.memory_GB
        # structures wait in memory for their second reading only where memory is no matter
        with (ReadOnce if config.memory_GB is None else DataSet)(config.data) as data:
            names, valid_names = data.split("train"), data.split("val")
            if not valid_names:
                raise ValueError(f"{data.path}: the split 'val' is empty; the best epoch is chosen on it")
            cascade, self.same = start(config.model, domain_of(data, names), base)
            self.cascade = cascade.to(group.device)
            log.folder.mkdir(parents=True, exist_ok=True)
            options: dict[str, Any] = {
                "overlap": bool(config.cell_zero) or config.phase1.gauge_free or config.phase2.gauge_free,
                "budget": Budget(memory, log.folder),
                "progress": progress,
            }
            self.graphs = graphs_of(data, names, cascade, **options)
            self.valid = graphs_of(data, valid_names, cascade, **options)
            heads = [data.head(name) for name in names]
            training = json.loads(config.model_dump_json(by_alias=True, exclude=NOT_RECORDED))
            if base is not None:
                training["init"] = digest
            provenance = {
                "data": {
                    "hash": data.content_hash(),
                    "n_train": len(names),
                    "n_valid": len(valid_names),
                    **data.provenance,
                },
                "structure": dict(heads[0].provenance),
                "training": training,
            }
        log.begin(provenance)
        if base is not None:
            provenance["init"] = {"provenance": dict(base.provenance), "metrics": dict(base.metrics)}
        references = {head.potential_reference for head in heads}
        reference = heads[0].potential_reference if len(references) == 1 else "unknown"
        self.model = TrainedModel(cascade, reference, provenance, {})

    def both_phases(self) -> Path:
        """Train, and return the checkpoint."""
        config, cascade, model = self.config, self.cascade, self.model
        cascade.stage1.edges_per_chunk = config.edges_per_chunk
        if cascade.stage2 is not None:
            cascade.stage2.edges_per_chunk = config.edges_per_chunk
        self._fit_scale()
        hybrid = "stage2" in self.same and not config.phase1.epochs  # what is trained goes with this stage 1
        cascade.has_stage2.fill_(hybrid)
        phase = self._phase(config.phase1, cascade.stage1, stage1_task(cascade), seed=config.seed)
        self._run("phase1", phase)
        self._save()
        if cascade.stage2 is not None and config.model.stage2 is not None:
            self._prepare_phase2(cascade.stage2)
            # in the frames of the edges every turned copy looks the same
            turn = config.augment and config.model.stage2.frame == "global"
            task, seed = stage2_task(cascade, bf16=config.precision == "bf16"), config.seed + 1
            self._run("phase2", self._phase(config.phase2, cascade.stage2, task, seed=seed, augment=turn))
            cascade.has_stage2.fill_(hybrid or config.phase2.epochs > 0)
            self._save()
        if self.group.first:
            model.metrics = {**model.metrics, **_test_errors(model, config.data, progress=self.progress)}
            self._save()
        return self.log.folder / MODEL_FILE

    def _phase(self, config: PhaseConfig, module: nn.Module, task: Task, **options: Any) -> Phase:
        parts = config, module, task, self.cascade, self.graphs, self.valid
        return Phase(*parts, group=self.group, **options)

    def _save(self) -> None:
        if self.group.first:
            save_model(self.log.folder / MODEL_FILE, self.model)

    def _fit_scale(self) -> None:
        """Scales of the targets, unless they come with the weights."""
        zero, given = self.cascade.scale1.zero, self.config.cell_zero
        if given and "scale1" not in self.same:
            zero.fit(few_of(self.graphs), given)
        elif given and not zero.has(given):
            raise ValueError("cell_zero: the model of init has other coefficients; leave it out, they are kept")
        if not self.config.model.scale_targets:
            self.cascade.scale1.set_unit()
        elif "scale1" in self.same:
            fit_missing(self.cascade.scale1, few_of(self.graphs))
        else:
            graphs = few_of(self.graphs)
            self.cascade.scale1.fit(graphs)
            if self.config.phase1.gauge_free:
                self.cascade.scale1.fit(aligned(graphs, self.cascade.scale1))

    @torch.no_grad()
    def _prepare_phase2(self, stage2: Stage2) -> None:
        """Freeze stage 1, store what it gives, fit the scales of what it leaves."""
        cascade = self.cascade
        cascade.stage1.requires_grad_(False)
        add_stage1(self.graphs, cascade)
        add_stage1(self.valid, cascade)
        if {"stage1", "stage2"} <= self.same:  # the scales are what its weights have learned with
            if cascade.config.scale_targets:
                fit_missing(cascade.scale2, few_of(self.graphs), centered=False)
            return
        if cascade.config.scale_targets:
            cascade.scale2.fit(few_of(self.graphs), centered=False)
        else:
            cascade.scale2.set_unit()
        n_blocks = cascade.config.stage1.n_blocks
        stage2.fit_inputs((graph, stage1_output(graph, n_blocks)) for graph in self.graphs)

    def _run(self, name: str, phase: Phase) -> None:
        """Train what is left of a phase, and keep its best weights."""
        log = self.log
        log.restore(name, phase)
        if self.group.sum([phase.epoch]) != [phase.epoch * self.group.size]:
            raise ValueError(
                f"{log.folder}: not all processes see the same state.pt; output must be a folder they share"
            )
        try:
            with bar_of(name, phase.epoch, phase.config.epochs, progress=self.progress) as bar:
                while not phase.finished:
                    began, epoch = time.monotonic(), phase.epoch
                    loss, train_error, error = phase.run_epoch(partial(bar.within, epoch))
                    rate = phase.optimizer.param_groups[0]["lr"]
                    figures = loss, train_error, error, phase.best_error, rate
                    log.row(name, phase.epoch, figures, time.monotonic() - began)
                    log.save(name, phase, force=phase.finished)
                    bar.after(phase.epoch, train_error, error, phase.best_error)
        except (KeyboardInterrupt, NotFiniteError) as stop:
            raise type(stop)(self._rescue(name, phase, str(stop))) from None
        if phase.epoch < phase.config.epochs:
            logger.info("%s: no progress in %d epochs, %d done", name, phase.rate.without_progress, phase.epoch)
        self._keep(name, phase)

    def _keep(self, name: str, phase: Phase) -> None:
        phase.keep_best()
        self.model.metrics = {**self.model.metrics, f"{name}_valid_mae_meV": phase.best_error}

    def _rescue(self, name: str, phase: Phase, reason: str) -> str:
        """Write the best so far; returns what happened, and what is left, in words."""
        where = f"{name}, {reason or f'interrupted in epoch {phase.epoch + 1}'}"
        if not phase.best_epoch:
            return where
        self._keep(name, phase)
        if name == "phase2":
            self.cascade.has_stage2.fill_(True)
        self._save()
        return f"{where}; {self.log.folder / MODEL_FILE} has epoch {phase.best_epoch}, {phase.best_error:.2f} meV"


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
