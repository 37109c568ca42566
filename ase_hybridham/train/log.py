"""What happens in a run, for those who watch it now and those who read or resume it later."""

import csv
import hashlib
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from tqdm import tqdm

from ase_hybridham.files import written_atomically
from ase_hybridham.train.phase import Phase

__all__ = ["LOG_FILE", "MODEL_FILE", "Bar", "RunLog", "bar_of"]

logger = logging.getLogger(__name__)

MODEL_FILE, LOG_FILE, STATE_FILE = "model.hham", "log.csv", "state.pt"
FIGURES = ("loss", "train_mae_meV", "valid_mae_meV", "best_mae_meV", "learning_rate")
LOG_FIELDS = ("phase", "epoch", *FIGURES, "seconds")
STATE_INTERVAL = 20.0  # seconds between two training states on disk, so that short epochs stay cheap
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total} epochs [{elapsed}<{remaining}{postfix}]"


class RunLog:
    """The files of a run besides its checkpoint: what happened, and where to go on. Use it as a context manager.

    Parameters
    ----------
    folder : Path
    resume : bool
        Whether the folder may hold the beginning of the run.
    writes : bool
        False in processes that must leave the files to another one.
    tensorboard : bool
        Write the figures for TensorBoard, too.

    Raises
    ------
    ValueError
        If the folder holds a run that is not resumed, or something else than a training state.
    ImportError
        If TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, *, resume: bool, writes: bool = True, tensorboard: bool = False) -> None:
        self.folder, self.writes, self.seconds, self.saved = folder, writes, 0.0, time.monotonic()
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
        self.board = _board(folder) if tensorboard and writes else None

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.board is not None:
            self.board.close()

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
        if self.writes:
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
        """Add what an epoch gave, in the order of `FIGURES`, and took."""
        self.seconds += seconds
        if not self.writes:
            return
        with (self.folder / LOG_FILE).open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([name, epoch, *(f"{x:.6g}" for x in figures), f"{self.seconds:.2f}"])
        if self.board is not None:
            for figure, value in zip(FIGURES, figures, strict=True):
                self.board.add_scalar(f"{name}/{figure}", value, epoch)

    def save(self, name: str, phase: Phase, *, force: bool) -> None:
        """Store the state of a phase, if it is time."""
        if not self.writes or (not force and time.monotonic() - self.saved < STATE_INTERVAL):
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


def _board(folder: Path) -> Any:
    """TensorBoard's writer; steps that are written again replace what a killed run wrote."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("tensorboard: not installed; pip install tensorboard, or leave the option out") from error
    return SummaryWriter(str(folder / "tensorboard"))


class Bar:
    """How far a phase is, on a terminal; ten lines of a log where there is none.

    Parameters
    ----------
    bar : tqdm
    name : str
    epoch, n_epochs : int
        Where the phase stands, and where it ends.
    lines : bool
        Write to the log, too.
    """

    def __init__(self, bar: tqdm, name: str, epoch: int, n_epochs: int, *, lines: bool) -> None:
        self.bar, self.name, self.n_epochs, self.lines = bar, name, n_epochs, lines
        self.began, self.first = time.monotonic(), epoch

    def within(self, epoch: int, share: float) -> None:
        """Tell what share of the epoch after `epoch` is done."""
        self.bar.update(epoch + share - self.bar.n)

    def after(self, epoch: int, train: float, valid: float, best: float) -> None:
        """Tell the errors of an epoch, meV."""
        figures = f"train {train:.2f}  valid {valid:.2f}  best {best:.2f} meV"
        self.bar.set_postfix_str(figures, refresh=False)
        self.bar.update(epoch - self.bar.n)
        n_epochs = self.n_epochs
        if self.lines and 10 * epoch // n_epochs > 10 * (epoch - 1) // n_epochs:
            spent = time.monotonic() - self.began
            left = spent / (epoch - self.first) * (n_epochs - epoch)
            times = f"{tqdm.format_interval(spent)}, {tqdm.format_interval(left)} left"
            logger.info("%s  epoch %d of %d  %s  %s", self.name, epoch, n_epochs, figures, times)


@contextmanager
def bar_of(name: str, epoch: int, n_epochs: int, *, progress: bool) -> Iterator[Bar]:
    """The bar of a phase that stands at an epoch."""
    silent = None if progress else True  # None: where stderr is no terminal
    with tqdm(total=n_epochs, initial=epoch, desc=name, disable=silent, bar_format=BAR) as bar:
        yield Bar(bar, name, epoch, n_epochs, lines=progress and bar.disable)
