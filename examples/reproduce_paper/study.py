"""What a study is: its configuration, its data sets, and the variants whose rows the table has."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ase_hybridham.cli import main as hybridham
from ase_hybridham.store import DataSet, random_splits, set_splits

BY_NUMBER = "id % 8"  # 3 is for testing, 7 for validation, as the indices of our OpenMX data have it


@dataclass(frozen=True)
class Variant:
    """A row of the table: in what it differs from the study's own configuration.

    Parameters
    ----------
    title : str
    stage2, model, options : dict
        Changes of `model.stage2`, of `model`, of the rest.
    own_stage1 : bool
        Stage 1 is another one, too, and trained from nothing.
    """

    title: str
    stage2: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    own_stage1: bool = False


GLOBAL = {"frame": "global"}
BLIND = {"alpha": 0.0, "lambda": 0.0}
VARIANTS = {
    "edge": Variant("hybrid, frame: edge"),
    "global": Variant("hybrid, frame: global", GLOBAL),
    "edge-no-features": Variant("edge, no features of stage 1", BLIND),
    "edge-no-invariants": Variant("edge, no invariants", {"beta": 0.0}),
    "edge-no-scales": Variant("edge, targets not scaled", {}, {"scale_targets": False}, own_stage1=True),
    "global-no-features": Variant("global, no features of stage 1", {**GLOBAL, **BLIND}),
    "global-no-invariants": Variant("global, no invariants", {**GLOBAL, "beta": 0.0}),
    "global-no-turns": Variant("global, no augmentation", GLOBAL, options={"augment": False}),
    "global-no-selection": Variant("global, no selection rule", {**GLOBAL, "selection": False}),
    "global-no-scales": Variant("global, targets not scaled", GLOBAL, {"scale_targets": False}, own_stage1=True),
}
MAIN = ("edge", "global")


class Study:
    """A YAML file beside this one, and where its data lie.

    Parameters
    ----------
    path : Path
        The YAML file; README.md lists its keys.
    raw : Path
        Folder that holds the folders of structures.
    work : Path
        Data sets and runs are kept here.
    """

    def __init__(self, path: Path, raw: Path, work: Path) -> None:
        self.settings: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        self.name, self.raw, self.folder = path.stem, raw, work / path.stem
        self.data = self.folder / "data.h5"

    @property
    def tests(self) -> dict[str, tuple[Path, str]]:
        """Name -> data set and split of what is tested on."""
        others = self.settings["data"].get("tests", {})
        return {"test": (self.data, "test"), **{name: (self.folder / f"{name}.h5", "all") for name in others}}

    def convert(self) -> None:
        """Make the data sets that are not there yet."""
        source = self.settings["data"]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._convert(source["folder"], self.data)  # one folder, or a list of several
        with DataSet(self.data) as data:
            names, done = data.names, data.splits
        if not done:
            set_splits(self.data, splits_of(names, source.get("split", BY_NUMBER), source.get("n_train")))
        for name, folder in source.get("tests", {}).items():
            self._convert(folder, self.tests[name][0])

    def _convert(self, folder: str | list[str], target: Path) -> None:
        """`hybridham convert`, which goes on with what is there already."""
        finished = target.with_suffix(".converted")
        if finished.exists():
            return
        valence = [f"{element}={n}" for element, n in self.settings["data"].get("valence", {}).items()]
        folders = [str(self.raw / name) for name in ([folder] if isinstance(folder, str) else folder)]
        if hybridham(["convert", *folders, "-o", str(target), *(["--valence", *valence] if valence else [])]):
            raise SystemExit(f"{', '.join(folders)}: could not be converted; see above")
        finished.touch()

    def options(self, output: Path, seed: int, variant: Variant | None) -> dict[str, Any]:
        """Options of a training without its epochs; of stage 1 alone where there is no variant."""
        options = copy.deepcopy(self.settings["training"])
        model = options.setdefault("model", {})
        stage2 = model.pop("stage2", None) or {}
        model |= {"stage2": None} if variant is None else {**variant.model, "stage2": {**stage2, **variant.stage2}}
        options |= {} if variant is None else variant.options
        return {**options, "data": self.data, "output": output, "seed": seed}


def splits_of(names: Sequence[str], rule: str | dict[str, float], n_train: int | None = None) -> dict[str, list[str]]:
    """Train, val and test of structures, by their numbers or in random shares.

    Parameters
    ----------
    names : sequence of str
    rule : "id % 8" or dict
    n_train : int, optional
        Only so many for training.
    """
    if isinstance(rule, dict):
        splits = random_splits(names, rule)
    else:
        splits = {"train": [], "val": [], "test": []}
        for name in names:
            splits[{3: "test", 7: "val"}.get(int(name.rsplit("/")[-1]) % 8, "train")].append(name)
    return {**splits, "train": splits["train"][:n_train]}
