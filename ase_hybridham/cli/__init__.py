"""What does a person type? One file a command: parse, call, print; heavy imports inside the command."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from ase_hybridham.errors import HybridHamError

__all__ = ["main"]

# command -> first line of its help; the module of the same name (with _ for -) has add_arguments(parser) and run(args)
COMMANDS = {
    "sample": "structures worth computing: supercells of a crystal, strained, slid, displaced",
    "twist": "twisted bilayers and stacks of layers, and whether a training set covers them",
    "dft": "run DFT on structures and store H and S in a data set",
    "convert": "other programs' files to a data set",
    "check": "whether data are what they say: conventions, units, symmetries, electrons",
    "info": "what a data set, a structure or a checkpoint holds",
    "train": "train both stages on a data set",
    "evaluate": "errors of a checkpoint on a data set, in meV",
    "pack": "a checkpoint for other people: small, with its card and measured errors",
    "bands": "band structure of a checkpoint, a data set or another program's files",
    "dos": "density of states, whole and of elements, shells, atoms or layers",
    "predict": "H of a structure from a checkpoint, written for this package or for DeepH's tools",
    "overlap": "S of a structure from its basis functions, with no DFT program, for DeepH's tools",
    "import-deephe3": "a DeepH-E3 checkpoint to one of this package",
    "learn": "DFT where networks disagree, training, round by round, until the error is small enough",
    "demo": "real DFT data, training and a band plot in minutes",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status of one command line: 0 done, 1 a check failed, 2 bad input."""
    parser = argparse.ArgumentParser(
        prog="hybridham", description="Atoms in, electronic structure out, no SCF.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        module = import_module(f"ase_hybridham.cli.{name.replace('-', '_')}")
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    # where no bar can be shown, lines of the log tell how far long work is
    level = logging.WARNING if sys.stderr.isatty() else logging.INFO
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("ase_hybridham").setLevel(level)
    try:
        status = int(args.run(args) or 0)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # the reader of our output (`| head`) has seen enough; nothing may be written at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (HybridHamError, ValueError, OSError, ImportError, MemoryError) as error:
        print(f"hybridham {args.command}: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"hybridham {args.command}: {str(stop) or 'interrupted'}", file=sys.stderr)
        return 130


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    words = " ".join(str(error).split())  # of a MemoryError often none
    return f"out of memory; {words}".rstrip("; ") if isinstance(error, MemoryError) else words
