"""hybridham demo: real DFT data, training and a band plot in minutes."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", default="demo", help="folder of the results (default: demo)")


def run(args: argparse.Namespace) -> int:
    """Run the demo."""
    raise ValueError("demo: under construction")
