"""hybridham train: train both stages on a data set."""

import argparse
import logging
import os
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG.yaml", help="options; all of them are listed in docs/training.md")
    parser.add_argument("override", nargs="*", metavar="key=value", help="goes before the file: phase1.epochs=20")
    parser.add_argument("--resume", action="store_true", help="go on where a stopped run of the same options stood")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Train, and say where the checkpoint is."""
    import json

    from ase_hybridham.model import read_metadata
    from ase_hybridham.train import read_config, train

    config = read_config(args.config, args.override)
    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts
    if not first:
        logging.getLogger("ase_hybridham").setLevel(logging.ERROR)
    path = train(config, resume=args.resume)
    if not first:
        return 0
    metrics = read_metadata(path)["metrics"]
    if args.json:
        print(json.dumps({"checkpoint": str(path), "metrics": metrics}))
    else:
        for name, value in metrics.items():
            print(f"{name.removesuffix('_meV')} {value:.3f} meV", file=sys.stderr)
        print(path)
    return 0
