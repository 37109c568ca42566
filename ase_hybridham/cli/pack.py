"""hybridham pack: a checkpoint for other people: small, with its card."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase_hybridham.model import TrainedModel
    from ase_hybridham.model.checkpoint import Precision
    from ase_hybridham.system import LCAOSystem

ROUNDING_SHARE = 0.1  # of the model's error, which the rounding may add


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="CKPT", help="checkpoint file or name of a model")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="NAME.hham", help="NAME is the model's name"
    )
    parser.add_argument(
        "--precision",
        choices=("float16", "float32"),
        default="float16",
        help="of large weights in the file (default float16); predictions compute in float64 as ever",
    )
    parser.add_argument("--data", type=Path, help="data set on which to measure what the rounding adds to the error")
    parser.add_argument("--split", default="val", help="of --data, or 'all' (default: val)")
    parser.add_argument(
        "--card", type=Path, metavar="CARD.yaml", help="words on the model, and where to measure errors"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Round, compare, measure, write."""
    import sys
    from dataclasses import replace

    from ase_hybridham.model import find_model, load_model, save_model
    from ase_hybridham.model.checkpoint import SUFFIX
    from ase_hybridham.train.card import measure, read_card

    if args.output.suffix != SUFFIX:
        raise ValueError(f"{args.output}: expected a name that ends in {SUFFIX}")
    card, chosen = read_card(args.card) if args.card else (None, ())
    model = load_model(args.model, "cpu")
    systems = _systems(args.data, args.split, model) if args.data else {}
    rounded = _rounded(model, args.precision)
    result: dict[str, Any] = {"checkpoint": str(args.output), "precision": args.precision}
    if systems:
        result |= _rounding(model, rounded, systems)
        if result["added_mae_meV"] > ROUNDING_SHARE * result["mae_before_meV"]:
            print(_rounding_text(result), file=sys.stderr)
            print(f"{args.output}: not written, rounding adds too much; take --precision float32", file=sys.stderr)
            return 1
    if card is not None:
        errors = tuple(measure(rounded, these, progress=True) for these in chosen)
        rounded = replace(rounded, card=card.model_copy(update={"errors": errors}))
    save_model(args.output, rounded, args.precision)
    result |= {"bytes_before": find_model(args.model).stat().st_size, "bytes": args.output.stat().st_size}
    print(json.dumps(result) if args.json else _summary(result))
    return 0


def _systems(path: Path, split: str, model: "TrainedModel") -> "dict[str, LCAOSystem]":
    """The structures to compare on; a model that does not know its training set is told, if this is it."""
    from dataclasses import replace

    from ase_hybridham.model import Coverage
    from ase_hybridham.store import DataSet
    from ase_hybridham.train import majority_up, refuse_other_kinds

    with DataSet(path) as data:
        refuse_other_kinds(data, model)
        domain = model.cascade.domain
        own = dict(model.provenance.get("data", {})).get("hash") == data.content_hash()
        if own and (domain.coverage is None or domain.coverage.atom_bonds is None):
            coverage = Coverage.of(data[name].pairs for name in data.split("train"))
            # ranges that it has tell whether all it met is here: it may have started from a model of other data
            if domain.coverage in (None, replace(coverage, atom_bonds=None)):
                model.cascade.domain = replace(domain, coverage=coverage)
        names = data.names if split == "all" else data.split(split)
        if not names:
            raise ValueError(f"{path}: split {split!r} is empty; choose another --split")
        return {name: majority_up(data[name]) for name in names}


def _rounded(model: "TrainedModel", precision: "Precision") -> "TrainedModel":
    """The model as it comes back from a file of this precision."""
    import tempfile

    from ase_hybridham.model import load_model, save_model

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rounded.hham"
        save_model(path, model, precision)
        return load_model(path, "cpu")


def _rounding(model: "TrainedModel", rounded: "TrainedModel", systems: "dict[str, LCAOSystem]") -> dict[str, Any]:
    """Errors before and after, and how far the two predictions are apart; means over structures in meV."""
    import numpy as np

    from ase_hybridham.train import hamiltonian_error

    rows = []
    for system in systems.values():
        before, after = (m.hamiltonian(system.atoms, system.pairs) for m in (model, rounded))
        added = hamiltonian_error(after, before)
        errors = [hamiltonian_error(h, system.hamiltonian).mae for h in (before, after)]
        rows.append([added.mae, *errors, added.max])
    mean, largest = np.mean(rows, axis=0), np.max(rows, axis=0)
    return {
        "structures": len(systems),
        "added_mae_meV": float(mean[0]),
        "added_max_meV": float(largest[3]),
        "mae_before_meV": float(mean[1]),
        "mae_after_meV": float(mean[2]),
    }


def _rounding_text(result: dict[str, Any]) -> str:
    return (
        f"rounding to {result['precision']} changes H of {result['structures']} structures by "
        f"{result['added_mae_meV']:.4f} meV on average, at most {result['added_max_meV']:.3f}; error "
        f"{result['mae_before_meV']:.4f} meV before, {result['mae_after_meV']:.4f} after"
    )


def _summary(result: dict[str, Any]) -> str:
    sizes = f"{result['bytes'] / 1e6:.2f} MB, before {result['bytes_before'] / 1e6:.2f} MB"
    lines = [f"{result['checkpoint']}: {sizes}, {result['precision']}"]
    return "\n".join([*lines, _rounding_text(result)] if "structures" in result else lines)
