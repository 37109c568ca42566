"""hybridham bands: a band structure as picture and numbers, and how far it is from a reference."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_hybridham.cli.error_bars import add_error_arguments, ensemble_of, error_line, solved
from ase_hybridham.cli.subject import (
    GROUPS,
    add_subject,
    add_system_options,
    level_of,
    load_subject,
    naming,
    solvable,
    solver_of,
    subject_of,
    thresholds,
)

if TYPE_CHECKING:
    from ase import Atoms
    from ase.dft.kpoints import BandPath
    from ase.spectrum.band_structure import BandStructure
    from numpy.typing import NDArray

    from ase_hybridham.io import BandReference
    from ase_hybridham.solve import BandError, Bands
    from ase_hybridham.system import LCAOSystem

DEFAULT_OUTPUT = "bands.png"
DEFAULT_VIEW = 4.0  # eV shown above and below the Fermi level
BAND_SUFFIX = ".band"
WHOLE = "whole"
SAME_POINT = 1e-5  # fractional; ASE's tolerance


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_subject(parser)
    parser.add_argument("--path", help="special points as in ASE, e.g. GMKG; default the standard path of the lattice")
    parser.add_argument("--npoints", type=int, default=100, metavar="N", help="k-points along the path (default 100)")
    parser.add_argument(
        "--kpts",
        type=int,
        nargs=3,
        metavar="N",
        help="mesh of the Fermi level; without it a stored level is taken, else a dense mesh",
    )
    parser.add_argument(
        "--reference",
        metavar="FILE",
        help="bands to compare with: an OpenMX .Band file (at its k-points), data.h5:NAME, or a DeepH folder",
    )
    parser.add_argument(
        "--window", type=float, metavar="E", help="compare and show only states within E eV of the reference's E_F"
    )
    parser.add_argument("--by", choices=GROUPS, help="fat bands: how much of each state belongs to what")
    parser.add_argument(
        "--unfold",
        nargs="?",
        const=WHOLE,
        metavar="WHAT",
        help="spectral function A(k, E) on the path of a primitive cell: nothing: the one this structure repeats; "
        "1, 2, ...: that of a layer, the lowest first; or a file of the cell",
    )
    add_error_arguments(parser)
    parser.add_argument("--width", type=float, default=0.05, metavar="E", help="of A(k, E), eV (default 0.05)")
    parser.add_argument("-o", "--output", type=Path, help=f"the picture (default {DEFAULT_OUTPUT}, none with --json)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_system_options(parser)


def run(args: argparse.Namespace) -> int:
    """Solve along the path, compare, draw, print."""
    from ase_hybridham.cli.source import parse_valence

    if args.source.endswith(".npz"):
        from ase_hybridham.cli.stored_bands import run_stored

        return run_stored(args)
    if args.by or args.unfold is not None:
        from ase_hybridham.cli.weighted_bands import run_weighted

        return run_weighted(args)
    threshold, reference_threshold = thresholds(args)
    if args.window is not None and not args.window > 0:
        raise ValueError(f"--window: expected an energy > 0 eV, got {args.window}")
    valence = parse_valence(args.valence)
    reference = _reference(args.reference, reference_threshold) if args.reference else None
    subject = subject_of(args)
    ensemble = ensemble_of(args)
    system = load_subject(args, valence, threshold, ensemble)
    path = _path(args, system.atoms, reference)
    with naming(subject):
        solver = solver_of(args, system)
        level, level_from = level_of(system, args.kpts, threshold, solver)
        options = {"reference": level, "solver": solver, "overlap_threshold": threshold, "progress": True}
        ours, widths = solved(args, ensemble, system, path, options)
    result: dict[str, Any] = {"source": args.source}
    theirs = error = None
    if reference is not None:
        theirs = _reference_bands(reference, path, system, args, reference_threshold)
        error = _error(theirs, ours, args.window)
        result["reference"] = {
            "max_eV": error.max,
            "mean_eV": error.mean,
            "aligned_max_eV": error.aligned_max,
            "aligned_mean_eV": error.aligned_mean,
            "window_eV": args.window,
        }
        at_valence: dict[str, Any] = {"max_eV": error.valence_max, "mean_eV": error.valence_mean}
        result["valence_aligned"] = None if error.valence_max is None else at_valence
        result |= {"reference_fermi_eV": theirs.reference, "states": error.n_states}
        result["states_not_found"] = _in_window(theirs, args.window) - error.n_states
    result |= {"fermi_eV": level, "fermi_from": level_from, "electrons": system.electrons}
    result["first_band"] = ours.first_band
    output = args.output or (None if args.json else Path(DEFAULT_OUTPUT))
    if output is not None:
        _draw(output, args, ours, theirs, error, widths)
        result["output"] = str(output)
    if args.json:
        result |= {"path": labels_of(ours, reference), "k_points": path.kpts.tolist()}
        result["eigenvalues_eV"] = [[json_numbers(at_k) for at_k in of_spin] for of_spin in ours.energies]
        result["errors_eV"] = None if widths is None else widths.tolist()
        print(json.dumps(result, allow_nan=False))
    else:
        print(_summary(result, ours))
        if widths is not None:
            print(error_line(args, ours, widths))
    return 0


def _reference(source: str, threshold: float) -> "BandReference | LCAOSystem":
    from ase_hybridham.cli.naming import only_structure
    from ase_hybridham.cli.source import kind_of, load_system
    from ase_hybridham.io import read_openmx_band, read_system

    if Path(source).suffix.lower() == BAND_SUFFIX:
        return read_openmx_band(source)
    if kind_of(source) == "dataset":
        return solvable(source, load_system(source, overlap_threshold=threshold))
    return solvable(source, read_system(only_structure(source)))


def _path(args: argparse.Namespace, atoms: "Atoms", reference: "BandReference | LCAOSystem | None") -> "BandPath":
    from ase.dft.kpoints import BandPath

    from ase_hybridham.io import BandReference
    from ase_hybridham.solve import band_path

    if not isinstance(reference, BandReference):
        return band_path(atoms, args.path, args.npoints)
    if args.path is not None:
        raise ValueError(f"--path {args.path}: the k-points are those of {args.reference}; leave it out")
    special = {label: reference.k_points[row] for row, label in reference.ticks if label}
    return BandPath(atoms.cell.complete(), reference.k_points, special)


def _reference_bands(
    reference: "BandReference | LCAOSystem",
    path: "BandPath",
    system: "LCAOSystem",
    args: argparse.Namespace,
    threshold: float,
) -> "Bands":
    from ase_hybridham.io import BandReference
    from ase_hybridham.solve import Bands, bands

    n_spins = len(system.hamiltonian)
    if isinstance(reference, BandReference):
        if reference.eigenvalues.shape[::2] != (n_spins, system.n_orbitals):
            raise ValueError(
                f"{args.reference}: expected {system.n_orbitals} bands and {n_spins} spin(s) as {args.source} has, "
                f"got {reference.eigenvalues.shape[2]} and {reference.eigenvalues.shape[0]}"
            )
        return Bands(path, reference.eigenvalues, reference.fermi_level)
    if reference.n_orbitals != system.n_orbitals:
        raise ValueError(
            f"{args.reference}: expected {system.n_orbitals} orbitals as {args.source} has, "
            f"got {reference.n_orbitals}; is it the same structure in the same basis?"
        )
    with naming(args.reference):
        solver = solver_of(args, reference)
        level, _ = level_of(reference, args.kpts, threshold, solver)
        return bands(reference, path, reference=level, solver=solver, overlap_threshold=threshold, progress=True)


def _error(theirs: "Bands", ours: "Bands", window: float | None) -> "BandError":
    from ase_hybridham.solve import band_error

    first = max(theirs.first_band, ours.first_band)
    both = [b.energies[:, :, first - b.first_band :] for b in (theirs, ours)]
    n_bands = min(energies.shape[2] for energies in both)
    return band_error(
        *(energies[:, :, :n_bands] for energies in both),
        reference_level=theirs.reference,
        predicted_level=ours.reference,
        window=window,
    )


def _in_window(bands: "Bands", window: float | None) -> int:
    """States within so many eV of the Fermi level, all of them without a window."""
    import numpy as np

    away = np.abs(bands.energies - bands.reference)
    return int((np.isfinite(away) & (away <= (np.inf if window is None else window))).sum())


def _draw(
    output: Path,
    args: argparse.Namespace,
    ours: "Bands",
    theirs: "Bands | None",
    error: "BandError | None",
    widths: "NDArray | None",
) -> None:
    from ase_hybridham.plot import plot_bands, save_figure
    from ase_hybridham.plot_states import shade_errors
    from ase_hybridham.solve import Bands

    zero = r"E_\mathrm{F}"
    if theirs is not None and error is not None and error.valence_max is not None:
        # in a gap the level lies anywhere: put the two valence maxima on each other
        zero = r"E_\mathrm{VBM}"
        filled = [theirs.first_band + int((at_k[0] <= theirs.reference).sum()) for at_k in theirs.energies]
        theirs, ours = (
            Bands(
                b.path, b.energies, max(e[:, : n - b.first_band].max() for e, n in zip(b.energies, filled, strict=True))
            )
            for b in (theirs, ours)
        )
    labels = (Path(args.source).name, Path(args.reference).name) if args.reference else (Path(args.source).name, "")
    if args.structure is not None:
        labels = ("predicted", "DFT")
    ax = plot_bands(ours, theirs, labels=labels, window=args.window or DEFAULT_VIEW, zero=zero)
    if widths is not None:
        shade_errors(ax, ours, widths)
    save_figure(ax, output)


def json_numbers(energies: "NDArray") -> list[float | None]:
    """For JSON, which knows no infinity: null where there is no state."""
    import numpy as np

    return [float(energy) if np.isfinite(energy) else None for energy in energies]


def labels_of(ours: "BandStructure", reference: "BandReference | LCAOSystem | None") -> list[dict[str, Any]]:
    """The special points on the path: label and row of the k-points."""
    import numpy as np

    from ase_hybridham.io import BandReference

    if isinstance(reference, BandReference):
        return [{"label": label, "row": row} for row, label in reference.ticks]
    ticks, row = [], -1
    for label in ours.get_labels()[2]:
        point = ours.path.special_points[label.split(",")[0]]  # "U,K" where the path jumps
        here = np.abs(ours.path.kpts[row + 1 :] - point).max(axis=1) < SAME_POINT
        row += 1 + int(np.argmax(here))
        ticks.append({"label": label, "row": row})
    return ticks


def _summary(result: dict[str, Any], ours: "Bands") -> str:
    n_spins, n_k, n_bands = ours.energies.shape
    spins = " x 2 spins" if n_spins == 2 else ""
    some = f", the first is number {ours.first_band}" if result["first_band"] else ""
    lines = [f"{result['source']}: {n_bands} bands{spins} at {n_k} k-points{some}"]
    lines.append(f"Fermi level {result['fermi_eV']:.6f} eV ({result['fermi_from']})")
    if "reference" in result:
        error = result["reference"]
        window = f"within {error['window_eV']:g} eV of E_F" if error["window_eV"] else "all bands"
        lacking = result["states_not_found"]
        less = f" ({lacking} more of it were not found)" if lacking else ""
        lines.append(f"difference to the reference, {window}, {result['states']} states{less}, eV:")
        rows = [
            ("as they are", error["max_eV"], error["mean_eV"]),
            ("Fermi levels aligned", error["aligned_max_eV"], error["aligned_mean_eV"]),
        ]
        if valence := result["valence_aligned"]:
            rows.append(("valence maxima aligned", valence["max_eV"], valence["mean_eV"]))
        lines += [f"  {place:24s} max {largest:.3e}  mean {mean:.3e}" for place, largest, mean in rows]
    if "output" in result:
        lines.append(f"picture: {result['output']}")
    return "\n".join(lines)
