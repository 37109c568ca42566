"""hybridham evaluate: errors of a checkpoint on a data set, in meV."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ase_hybridham.train import Evaluation

ROWS = (
    ("MAE all", lambda e, s: e.mae_all(s)),
    ("MAE cha (worst)", lambda e, s: e.mae_cha(s)),
    ("on-site", lambda e, s: e.mean_of(s, "onsite_mae")),
    ("hopping", lambda e, s: e.mean_of(s, "hopping_mae")),
    ("gauge-free", lambda e, s: e.mean_of(s, "gauge_free_mae")),
    ("spin splitting", lambda e, s: e.mean_of(s, "splitting_mae")),
    ("bands", lambda e, s: e.band_mean(s)),
    ("bands, aligned", lambda e, s: e.band_mean(s, aligned=True)),
)
HEADINGS = {"mean": "training mean", "stage1": "stage 1", "hybrid": "hybrid"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="CKPT", help="checkpoint file or name of a model")
    parser.add_argument("data", metavar="DATA", help="data set")
    parser.add_argument("--split", default="test", help="split to evaluate on, or 'all' (default: test)")
    parser.add_argument("--window", type=float, default=2.0, help="band errors: states within E_F +- this, eV")
    parser.add_argument("--no-bands", action="store_true", help="leave the band errors out")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print a table or JSON."""
    import json

    from ase_hybridham.model import load_model
    from ase_hybridham.store import DataSet
    from ase_hybridham.train import evaluate

    model = load_model(args.model, args.device)
    with DataSet(args.data) as data:
        names = data.names if args.split == "all" else data.split(args.split)
        result = evaluate(model, data, names, window=args.window, bands=not args.no_bands, progress=True)
    print(json.dumps(result.to_dict()) if args.json else table(result))
    return 0


def table(result: "Evaluation") -> str:
    """The errors of all stages side by side, meV."""
    lines = [f"{len(result.structures)} structures, errors in meV; bands within {result.window_eV:g} eV of E_F"]
    lines.append(f"{'':>16}" + "".join(f"{HEADINGS[stage]:>15}" for stage in result.stages))
    for label, figure in ROWS:
        values = [figure(result, stage) for stage in result.stages]
        if None not in values:
            lines.append(f"{label:>16}" + "".join(f"{value:15.3f}" for value in values))
    n_bands = sum(bool(structure.bands) for structure in result.structures)
    if n_bands < len(result.structures):
        lines.append(f"bands of {n_bands} structures only: others lack S or electrons, or have no state in the window")
    lines.append(f"rotation error {result.rotation_meV:.2g} meV")
    return "\n".join(lines)
