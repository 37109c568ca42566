"""hybridham import-deephe3: a DeepH-E3 checkpoint to one of this package."""

import argparse
import json
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="DIR", type=Path, help="folder that DeepH-E3 trained in: best_model.pkl, src/train.ini, ..."
    )
    parser.add_argument("output", metavar="OUT.hham", type=Path, help="the checkpoint, which must not be there yet")
    parser.add_argument(
        "--e3nn", metavar="VERSION", help="that the network was trained with; needed for 0.4.0 and 0.4.1 only"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Convert, and say what the network is. Nothing of the folder is executed."""
    from ase_hybridham.model import read_metadata, save_model
    from ase_hybridham.model.checkpoint import SUFFIX
    from ase_hybridham.model.deephe3 import import_deephe3

    if args.output.suffix != SUFFIX:
        raise ValueError(f"{args.output}: expected a name that ends in {SUFFIX}")
    if args.output.exists():
        raise ValueError(f"{args.output}: already there; choose another name or remove it")
    if not args.folder.is_dir():
        raise ValueError(f"{args.folder}: expected the folder of a DeepH-E3 training")
    model = import_deephe3(args.folder, args.e3nn)
    save_model(args.output, model)
    metadata = read_metadata(args.output)
    result = {
        "checkpoint": str(args.output),
        "elements": {
            symbol: {"orbitals": atom.size, "shells": list(atom.degrees)} for symbol, atom in model.basis.atoms.items()
        },
        "spin": metadata["spin"],
        "irreps": metadata["config"]["stage1"]["irreps"],
        "blocks": metadata["config"]["stage1"]["n_blocks"],
        "parameters": sum(parameter.numel() for parameter in model.cascade.stage1.parameters()),
        "e3nn": metadata["provenance"]["e3nn"],
        "gaussian_range_angstrom": metadata["reach"],
        "cutoff_angstrom": None,
    }
    print(json.dumps(result) if args.json else _summary(result))
    return 0


def _summary(result: dict[str, Any]) -> str:
    lines = [f"{result['checkpoint']}: spin {result['spin']}, {result['parameters']} parameters in our layout"]
    for symbol, atom in result["elements"].items():
        lines.append(f"{symbol}: {atom['orbitals']} orbitals ({''.join('spdfghi'[l] for l in atom['shells'])})")
    lines.append(
        f"{result['blocks']} blocks of {result['irreps']}, Gaussians up to {result['gaussian_range_angstrom']:g} A"
    )
    lines.append(f"Weights of e3nn {result['e3nn']}")
    if result["e3nn"] == "0.3.5":  # e3nn 0.4.0 counts paths otherwise, and writes the same files
        lines.append("Files of e3nn 0.4.0 and 0.4.1 look the same; networks that ran there need --e3nn 0.4.1")
    lines.append(
        "The files carry no cutoff of the pairs: `hybridham predict` takes those of a DeepH folder, or needs --cutoff R"
    )
    return "\n".join(lines)
