"""hybridham bands --errors: how far bands may be wrong, from what networks of the same data differ by."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase.dft.kpoints import BandPath
    from numpy.typing import NDArray

    from ase_hybridham.model import Ensemble
    from ase_hybridham.solve import Bands
    from ase_hybridham.system import LCAOSystem

__all__ = ["add_error_arguments", "ensemble_of", "error_line", "solved"]

ALIKE = 2.0  # eV around the Fermi level, where what moves all states alike is no error of bands


def add_error_arguments(parser: argparse.ArgumentParser) -> None:
    """--errors and --error-factor."""
    parser.add_argument(
        "--errors",
        nargs="+",
        metavar="MODEL",
        help="error bars: networks of other seeds; bands are those of the mean of SOURCE and these",
    )
    parser.add_argument(
        "--error-factor",
        type=float,
        default=1.0,
        metavar="F",
        help="error bars are F times the standard deviation of the networks; `evaluate` prints F (default 1)",
    )


def ensemble_of(args: argparse.Namespace) -> "Ensemble | None":
    """SOURCE and the networks of --errors."""
    if not args.error_factor > 0:
        raise ValueError(f"--error-factor: expected a number > 0, got {args.error_factor}")
    if args.errors is None:
        return None
    from ase_hybridham.cli.source import kind_of
    from ase_hybridham.model import load_ensemble
    from ase_hybridham.model.checkpoint import find_model

    if args.format or kind_of(args.source) != "checkpoint":
        raise ValueError(
            f"--errors {args.errors[0]}: only the H of a network has error bars, {args.source} holds its own"
        )
    files = [Path(find_model(name)).resolve() for name in (args.source, *args.errors)]
    if len({*files}) < len(files):
        raise ValueError(f"--errors {args.errors[0]}: expected networks that differ, got one of them twice")
    return load_ensemble([args.source, *args.errors], args.device)


def solved(
    args: argparse.Namespace,
    ensemble: "Ensemble | None",
    system: "LCAOSystem",
    path: "BandPath",
    options: dict[str, Any],
) -> "tuple[Bands, NDArray | None]":
    """Bands, and error bars in eV if there is an ensemble."""
    from ase_hybridham.solve import band_errors, bands

    if ensemble is None:
        return bands(system, path, **options), None
    found = band_errors(system, path, ensemble.deviations(system), **options).aligned(args.window or ALIKE)
    return found.bands, args.error_factor * found.widths


def error_line(args: argparse.Namespace, ours: "Bands", widths: "NDArray") -> str:
    """What the error bars are, in words."""
    import numpy as np

    window = args.window or ALIKE
    near = 1e3 * widths[np.abs(ours.energies - ours.reference) <= window]
    times = f"{args.error_factor:g} x " if args.error_factor != 1 else ""
    return (
        f"error bars within {window:g} eV of E_F: median {np.median(near):.2f} meV, largest {near.max():.2f} meV "
        f"({times}standard deviation of {1 + len(args.errors)} networks)"
    )
