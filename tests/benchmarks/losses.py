"""What equal short trainings of stage 1 with different losses give: elements, shift, levels near the Fermi level.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.losses DATA.h5 [--start MODEL.hham] [--epochs 3] [--structures 36]

On evenly chosen structures of the split `train`, from a trained stage 1 or from the beginning; errors on `val`, levels
within 2 eV of E_F on a 6 x 6 mesh.
"""

import argparse
import time

import numpy as np
import torch
from ase.dft.kpoints import monkhorst_pack

from ase_hybridham.model import Cascade, ModelConfig, TrainedModel, load_model
from ase_hybridham.store import DataSet
from ase_hybridham.train import PhaseConfig
from ase_hybridham.train.data import domain_of, graphs_of
from ase_hybridham.train.evaluate import evaluate_system
from ase_hybridham.train.phase import Phase, stage1_task

LOSSES: dict[str, dict[str, object]] = {
    "smooth L1": {},
    "mae": {"loss": "mae"},
    "mse": {"loss": "mse"},
    "gauge_free": {"gauge_free": True},
    "onsite_weight 10": {"onsite_weight": 10.0},
    "scale_power 0.5": {"scale_power": 0.5},
    "scale_power 1": {"scale_power": 1.0},
    "trace_weight 1": {"trace_weight": 1.0},
}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="DATA.h5")
    parser.add_argument("--start", metavar="MODEL.hham", help="a trained stage 1; else a small one from the beginning")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--structures", type=int, default=36)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--only", nargs="*", choices=LOSSES, default=list(LOSSES))
    arguments = parser.parse_args()
    mesh = np.add(monkhorst_pack((6, 6, 1)), [1 / 12, 1 / 12, 0])  # with Gamma
    with DataSet(arguments.data) as data:
        names, valid = data.split("train"), data.split("val")
        few = names[:: -(-len(names) // arguments.structures)]
        for label in arguments.only:
            torch.manual_seed(0)
            if arguments.start:
                cascade = load_model(arguments.start, "cpu", "float32").cascade.train().requires_grad_(True)
            else:
                stage1 = {"irreps": "24x0e+14x1o+10x2e+6x3o+4x4e", "n_blocks": 2}
                cascade = Cascade(ModelConfig(stage1=stage1, stage2=None), domain_of(data, names))
                cascade.scale1.fit(graphs_of(data, names, cascade))
            graphs, held_out = (graphs_of(data, split, cascade, overlap=True) for split in (few, valid))
            options = {"epochs": arguments.epochs, "learning_rate": arguments.learning_rate, "beta_meV": 0.5}
            config = PhaseConfig(**{**options, **LOSSES[label]})  # type: ignore[arg-type]
            phase = Phase(config, cascade.stage1, stage1_task(cascade), cascade, graphs, held_out, seed=0)
            began = time.process_time()
            for _ in range(arguments.epochs):
                phase.run_epoch()
            seconds = time.process_time() - began
            model = TrainedModel(cascade.double().eval())
            found = [evaluate_system(model, data[name], name, k_points=mesh) for name in valid]
            errors = [f.hamiltonian["stage1"] for f in found]
            bands = [f.bands["stage1"] for f in found if f.bands]
            figures = {
                "MAE": np.mean([e.mae for e in errors]),
                "on-site": np.mean([e.onsite_mae for e in errors]),
                "gauge-free": np.mean([e.gauge_free_mae for e in errors]),
                "mu rms": np.sqrt(np.mean([e.shift**2 for e in errors])),
                "levels": 1e3 * np.mean([b.mean for b in bands]),
                "aligned": 1e3 * np.mean([b.aligned_mean for b in bands]),
            }
            text = "  ".join(f"{key} {value:.3f}" for key, value in figures.items())
            print(f"{label:18s} {text} meV  {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
