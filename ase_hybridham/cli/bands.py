"""hybridham bands: a band structure as picture and numbers, and how far it is from a reference."""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_hybridham.cli.overlap_options import (
    REMEDY,
    add_basis_arguments,
    add_overlap_argument,
    load_overlap,
    parse_basis,
)

if TYPE_CHECKING:
    from ase import Atoms
    from ase.dft.kpoints import BandPath
    from ase.spectrum.band_structure import BandStructure
    from numpy.typing import NDArray

    from ase_hybridham.io import BandReference
    from ase_hybridham.solve import BandError
    from ase_hybridham.system import LCAOSystem

DEFAULT_OUTPUT = "bands.png"
DEFAULT_VIEW = 4.0  # eV shown above and below the Fermi level
BAND_SUFFIX = ".band"
SAME_POINT = 1e-5  # fractional; ASE's tolerance


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="a checkpoint, data.h5:NAME, or another program's files")
    parser.add_argument(
        "structure",
        metavar="STRUCTURE",
        nargs="?",
        help="for a checkpoint: a file that ASE reads, a DeepH folder or data.h5:NAME (these two give S and the pairs)",
    )
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
    parser.add_argument("-o", "--output", type=Path, help=f"the picture (default {DEFAULT_OUTPUT}, none with --json)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_overlap_argument(parser)
    add_basis_arguments(parser)
    parser.add_argument(
        "--overlap-threshold",
        type=float,
        metavar="S",
        help="omit directions in which S(k) has an eigenvalue below S (default 1e-5, of predicted H 1e-4; 0: none)",
    )
    parser.add_argument("--valence", nargs="+", action="extend", default=[], metavar="ELEMENT=N", help="as in C=4 S=6")
    parser.add_argument("--format", help="format of SOURCE, where it should not be recognised")
    parser.add_argument("--device", default="auto", help="where a checkpoint computes (default auto)")


def run(args: argparse.Namespace) -> int:
    """Solve along the path, compare, draw, print."""
    from ase_hybridham.cli.source import parse_valence
    from ase_hybridham.io import BandReference
    from ase_hybridham.solve import bands

    threshold, reference_threshold = _thresholds(args)
    if args.window is not None and not args.window > 0:
        raise ValueError(f"--window: expected an energy > 0 eV, got {args.window}")
    valence = parse_valence(args.valence)
    reference = _reference(args.reference, reference_threshold) if args.reference else None
    subject = args.structure or args.source
    with _naming(subject, args.source, args.overlap, args.basis_dir, "--basis"):
        system = _system(args, valence, threshold)
    path = _path(args, system.atoms, reference)
    with _naming(subject):
        level, level_from = _fermi_level(system, args.kpts, threshold)
        ours = bands(system, path, reference=level, overlap_threshold=threshold)
    result: dict[str, Any] = {"source": args.source}
    theirs = error = None
    if reference is not None:
        theirs = _reference_bands(reference, path, ours, args, reference_threshold)
        if isinstance(reference, BandReference) and theirs.energies.shape != ours.energies.shape:
            raise ValueError(
                f"{args.reference}: expected {ours.energies.shape[2]} bands and {ours.energies.shape[0]} spin(s) as "
                f"{args.source} has, got {theirs.energies.shape[2]} and {theirs.energies.shape[0]}"
            )
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
    result |= {"fermi_eV": level, "fermi_from": level_from, "electrons": system.electrons}
    output = args.output or (None if args.json else Path(DEFAULT_OUTPUT))
    if output is not None:
        _draw(output, args, ours, theirs, error)
        result["output"] = str(output)
    if args.json:
        result |= {"path": _labels(ours, reference), "k_points": path.kpts.tolist()}
        result["eigenvalues_eV"] = [[_numbers(at_k) for at_k in of_spin] for of_spin in ours.energies]
        print(json.dumps(result, allow_nan=False))
    else:
        print(_summary(result, ours))
    return 0


def _thresholds(args: argparse.Namespace) -> tuple[float, float]:
    """For S(k) of SOURCE, whose H may be predicted, and of a reference."""
    from ase_hybridham.cli.source import kind_of
    from ase_hybridham.solve import OVERLAP_THRESHOLD, PREDICTED_THRESHOLD

    given = args.overlap_threshold
    if given is not None:
        if not 0 <= given < 1:
            raise ValueError(f"--overlap-threshold: expected a number from 0 to 1, got {given}")
        return given, given
    predicted = not args.format and kind_of(args.source) == "checkpoint"
    return PREDICTED_THRESHOLD if predicted else OVERLAP_THRESHOLD, OVERLAP_THRESHOLD


def _system(args: argparse.Namespace, valence: dict[str, float], threshold: float) -> "LCAOSystem":
    """H and S: predicted, or as they are stored."""
    from ase_hybridham.cli.naming import only_structure
    from ase_hybridham.cli.source import kind_of, load_system
    from ase_hybridham.io import read_system
    from ase_hybridham.solve import with_electrons

    kind = "system" if args.format else kind_of(args.source)
    if kind == "checkpoint":
        from ase_hybridham.model.checkpoint import find_model

        find_model(args.source)  # a mistyped folder looks like the name of a model
        if args.structure is None:
            raise ValueError(f"{args.source} is a model: expected a STRUCTURE to predict, as in bands MODEL STRUCTURE")
        system = _predicted(args)
        # imported models know no valences
        return with_electrons(system, valence, overlap_threshold=threshold) if valence else system
    options = (("STRUCTURE", args.structure), ("--overlap", args.overlap), ("--basis-dir", args.basis_dir))
    for option, value in options:
        if value is not None:
            raise ValueError(f"{option} {value}: only a checkpoint takes one, {args.source} holds its own")
    if kind == "dataset":
        system = load_system(args.source, valence=valence, overlap_threshold=threshold)
        return _solvable(args.source, system)
    path = args.source if args.format else only_structure(args.source)
    system = _solvable(args.source, read_system(path, args.format))
    # without valences counted only if the level needs it
    return with_electrons(system, valence, overlap_threshold=threshold) if valence else system


def _solvable(source: str, system: "LCAOSystem") -> "LCAOSystem":
    """The system, if it has H, and S where that is needed."""
    from ase_hybridham.errors import FormatError

    if not system.hamiltonian:
        raise FormatError(f"{source}: holds S only; bands need H too")
    if system.overlap is None and not system.basis.orthogonal:
        raise FormatError(
            f"{source}: holds no S, and its basis is not orthogonal; add it (overlaps.h5; DeepH-dock: overlap.h5)"
        )
    return system


@contextmanager
def _naming(source: str, *others: str | None) -> Iterator[None]:
    """Errors inside say which source they are about."""
    try:
        yield
    except ValueError as error:
        if any(name in str(error) for name in (source, *others) if name):
            raise
        raise ValueError(f"{source}: {error}") from error


def _predicted(args: argparse.Namespace) -> "LCAOSystem":
    from ase_hybridham.calculator import HybridHamCalculator
    from ase_hybridham.cli.source import SHORTEST, load_structure, refuse_coinciding
    from ase_hybridham.errors import OverlapError
    from ase_hybridham.system import PairList

    atoms, known = load_structure(args.structure)
    refuse_coinciding(PairList.from_atoms(atoms, SHORTEST))
    overlap = load_overlap(args.overlap) if args.overlap else None if known is None else known.overlap
    names = parse_basis(args.basis, args.basis_dir)
    options = {"overlap": overlap, "basis_dir": args.basis_dir, "basis_names": names}
    calculator = HybridHamCalculator(args.source, device=args.device, atoms=atoms, **options)
    try:
        return calculator.get_system()
    except OverlapError as error:
        if calculator.overlap.is_known:
            raise
        raise OverlapError(
            f"{args.structure}: holds no S, and {args.source} cannot compute it (its basis has no radial functions); "
            f"{REMEDY}"
        ) from error


def _fermi_level(system: "LCAOSystem", mesh: list[int] | None, threshold: float) -> tuple[float, str]:
    """The level in eV, and where it comes from."""
    from ase_hybridham.solve import fermi_level, k_mesh, with_electrons

    if system.fermi_level is not None and mesh is None:
        return float(system.fermi_level), "stored"
    complete = with_electrons(system, overlap_threshold=threshold)
    if complete.electrons is None:
        unknown = sorted(symbol for symbol, atom in complete.basis.atoms.items() if atom.valence is None)
        raise ValueError(f"Fermi level: not stored, and a valence is unknown; give --valence {'=N '.join(unknown)}=N")
    k, w = k_mesh(system.atoms, mesh, time_reversal=system.spin != "spinor")
    return fermi_level(complete, k, w, overlap_threshold=threshold), "electrons"


def _reference(source: str, threshold: float) -> "BandReference | LCAOSystem":
    from ase_hybridham.cli.naming import only_structure
    from ase_hybridham.cli.source import kind_of, load_system
    from ase_hybridham.io import read_openmx_band, read_system

    if Path(source).suffix.lower() == BAND_SUFFIX:
        return read_openmx_band(source)
    if kind_of(source) == "dataset":
        return _solvable(source, load_system(source, overlap_threshold=threshold))
    return _solvable(source, read_system(only_structure(source)))


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
    ours: "BandStructure",
    args: argparse.Namespace,
    threshold: float,
) -> "BandStructure":
    from ase.spectrum.band_structure import BandStructure

    from ase_hybridham.io import BandReference
    from ase_hybridham.solve import bands

    if isinstance(reference, BandReference):
        return BandStructure(path, reference.eigenvalues, reference=reference.fermi_level)
    if reference.n_orbitals != ours.energies.shape[2]:
        raise ValueError(
            f"{args.reference}: expected {ours.energies.shape[2]} orbitals as {args.source} has, "
            f"got {reference.n_orbitals}; is it the same structure in the same basis?"
        )
    with _naming(args.reference):
        level, _ = _fermi_level(reference, args.kpts, threshold)
        return bands(reference, path, reference=level, overlap_threshold=threshold)


def _error(theirs: "BandStructure", ours: "BandStructure", window: float | None) -> "BandError":
    from ase_hybridham.solve import band_error

    return band_error(
        theirs.energies,
        ours.energies,
        reference_level=theirs.reference,
        predicted_level=ours.reference,
        window=window,
    )


def _draw(
    output: Path,
    args: argparse.Namespace,
    ours: "BandStructure",
    theirs: "BandStructure | None",
    error: "BandError | None",
) -> None:
    import numpy as np
    from ase.spectrum.band_structure import BandStructure

    from ase_hybridham.plot import plot_bands, save_figure

    zero = r"E_\mathrm{F}"
    if theirs is not None and error is not None and error.valence_max is not None:
        # in a gap the level lies anywhere: put the two valence maxima on each other
        filled = (theirs.energies <= theirs.reference) & np.isfinite(ours.energies)
        zero = r"E_\mathrm{VBM}"
        theirs, ours = (BandStructure(b.path, b.energies, reference=b.energies[filled].max()) for b in (theirs, ours))
    labels = (Path(args.source).name, Path(args.reference).name) if args.reference else (Path(args.source).name, "")
    if args.structure is not None:
        labels = ("predicted", "DFT")
    save_figure(plot_bands(ours, theirs, labels=labels, window=args.window or DEFAULT_VIEW, zero=zero), output)


def _numbers(energies: "NDArray") -> list[float | None]:
    """For JSON, which knows no infinity: null where there is no state."""
    import numpy as np

    return [float(energy) if np.isfinite(energy) else None for energy in energies]


def _labels(ours: "BandStructure", reference: "BandReference | LCAOSystem | None") -> list[dict[str, Any]]:
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


def _summary(result: dict[str, Any], ours: "BandStructure") -> str:
    n_spins, n_k, n_bands = ours.energies.shape
    spins = " x 2 spins" if n_spins == 2 else ""
    lines = [f"{result['source']}: {n_bands} bands{spins} at {n_k} k-points"]
    lines.append(f"Fermi level {result['fermi_eV']:.6f} eV ({result['fermi_from']})")
    if "reference" in result:
        error = result["reference"]
        window = f"within {error['window_eV']:g} eV of E_F" if error["window_eV"] else "all bands"
        lines.append(f"difference to the reference, {window}, {result['states']} states, eV:")
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
