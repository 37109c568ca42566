"""From Hamiltonians of OpenMX to a trained network: 17 bilayers of graphene, a small network, half a minute.

    python examples/02_train_bilayer.py

Writes bilayers.h5 (data set) and runs/bilayers (checkpoint and log) into the working folder.
"""

import json
import shutil
import tempfile
from pathlib import Path

from ase_hybridham.io import read_deeph
from ase_hybridham.model import load_model
from ase_hybridham.solve import with_electrons
from ase_hybridham.store import DataSet, append_systems, set_splits
from ase_hybridham.train import Phase2Config, PhaseConfig, TrainConfig, evaluate, train

GOLDEN = Path(__file__).parents[1] / "tests/golden/openmx"
SMALL = {
    "stage1": {"irreps": "12x0e+8x1o+6x2e+4x3o+3x4e", "n_blocks": 2, "n_gaussians": 48, "radial_width": 32},
    "stage2": {"width": 24, "n_groups": 2, "n_blocks": 1, "readout_channels": 12},
}


def make_data_set(path: Path) -> None:
    """As `hybridham convert bilayers -o PATH --valence C=4 --split bilayers.index.json`."""
    index = json.loads((GOLDEN / "bilayers.index.json").read_text())
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for entry in index:
        splits[entry["split"]].append(entry["id"])
    with tempfile.TemporaryDirectory() as folder:
        shutil.unpack_archive(GOLDEN / "bilayers.tar.xz", folder)
        folders = sorted(Path(folder, "bilayers").iterdir())
        append_systems(path, ((f.name, with_electrons(read_deeph(f), {"C": 4})) for f in folders))
    set_splits(path, splits)


def main() -> None:
    make_data_set(data := Path("bilayers.h5"))
    config = TrainConfig(
        data=data,
        output=Path("runs/bilayers"),
        model=SMALL,
        phase1=PhaseConfig(epochs=12, learning_rate=0.02, warmup_steps=20),
        phase2=Phase2Config(epochs=6, learning_rate=0.004, warmup_steps=20, beta_meV=1.0),
    )
    model = load_model(train(config))
    with DataSet(data) as structures:
        result = evaluate(model, structures, structures.split("test"), bands=False)
    print(f"mean absolute error of H, {len(result.structures)} structures that were not trained on, against DFT:")
    for stage in result.stages:
        print(f"{stage:>8} {result.mae_all(stage):8.2f} meV")


if __name__ == "__main__":
    main()
