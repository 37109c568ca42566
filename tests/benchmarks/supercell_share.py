"""Do supercells in the training set help where atoms move independently? Errors against their share of the atoms.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.supercell_share DATA.h5 [--also OTHER.h5] [--epochs N] [--seeds N]

DATA.h5 has the splits train, val and test. For every share a training set of as many atoms as the smallest cells of
`train` have in all is drawn: supercells up to the share, smallest cells for the rest. Stage 1 alone, the same number of
epochs, hence nearly the same number of blocks and the same time, in fewer steps where cells are larger.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ase_hybridham.model import load_model
from ase_hybridham.store import DataSet, append_systems, set_splits
from ase_hybridham.train import PhaseConfig, TrainConfig, evaluate, train


def drawn(n_atoms: dict[str, int], share: float, rng: np.random.Generator) -> list[str]:
    """Names of a training set with this share of supercell atoms."""
    least = min(n_atoms.values())
    small = [name for name, n in n_atoms.items() if n == least]
    budget = least * len(small)
    chosen: list[str] = []
    held = 0
    for name in rng.permutation([name for name, n in n_atoms.items() if n > least]).tolist():
        if held + n_atoms[name] <= share * budget + 0.5 * least:
            chosen.append(name)
            held += n_atoms[name]
    return chosen + rng.permutation(small).tolist()[: (budget - held) // least]


def kinds(data: DataSet, names: Sequence[str]) -> dict[str, list[str]]:
    """Names by size of the cell and height, which tells layers from bilayers."""
    found: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: len(data.atoms(name))):
        atoms = data.atoms(name)
        layer = "bilayer" if np.ptp(atoms.positions[:, 2]) > 2 else "layer"
        found.setdefault(f"{layer}, {len(atoms)}", []).append(name)
    return found


def trained(data: DataSet, names: list[str], folder: Path, irreps: str, phase: PhaseConfig, seed: int) -> Path:
    """Checkpoint of stage 1 alone."""
    valid, path = data.split("val"), folder / "data.h5"
    append_systems(path, ((name, data[name]) for name in [*names, *valid]))
    set_splits(path, {"train": names, "val": valid})
    model = {"stage1": {"irreps": irreps}, "stage2": None}
    config = TrainConfig(data=path, output=folder / "run", seed=seed, model=model, phase1=phase)
    return train(config, progress=False)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="DATA.h5")
    parser.add_argument("--also", metavar="OTHER.h5", help="another data set, all of which is tested on")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--irreps", default="16x0e+10x1o+8x2e+5x3o+4x4e")
    parser.add_argument("--learning-rate", type=float, default=1e-2)
    parser.add_argument("--beta", type=float, default=1.0, help="meV")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.25, 0.5, 1.0])
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    phase = PhaseConfig(epochs=arguments.epochs, learning_rate=arguments.learning_rate, beta_meV=arguments.beta)
    with DataSet(arguments.data) as data, DataSet(arguments.also or arguments.data) as other:
        tested = [(kind, data, names) for kind, names in kinds(data, data.split("test")).items()]
        if arguments.also:
            tested.append((Path(arguments.also).stem, other, list(other)))
        n_atoms = {name: len(data.atoms(name)) for name in data.split("train")}
        print("MAE of H in meV by kind (on-site): layers and atoms of the cell")
        print(f"{'share':>6}{'seed':>5}{'cells':>6}{'atoms':>6}{'CPU s':>6}", *(f"{t[0]:>15}" for t in tested))
        for seed in range(arguments.seeds):
            for share in arguments.shares:
                names = drawn(n_atoms, share, np.random.default_rng(seed))
                atoms = sum(n_atoms[name] for name in names)
                with tempfile.TemporaryDirectory() as folder:
                    begun = time.process_time()
                    path = trained(data, names, Path(folder), arguments.irreps, phase, seed)
                    seconds = time.process_time() - begun
                    model = load_model(path)
                figures = []
                for _, source, tests in tested:
                    result = evaluate(model, source, tests, bands=False)
                    onsite = result.mean_of("stage1", "onsite_mae")
                    figures.append(f"{result.mae_all('stage1'):8.2f} ({onsite:4.1f})")
                print(f"{share:6.2f}{seed:5d}{len(names):6d}{atoms:6d}{seconds:6.0f}", *figures, flush=True)


if __name__ == "__main__":
    main()
