"""hybridham sample: structures for training, made of a crystal."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase_hybridham.structures import Independence, Varied

TRAJECTORY = ".xyz"  # extended: cell, pbc and everything a frame needs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("structure", metavar="STRUCTURE", type=Path, help="a crystal or layers, a file that ASE reads")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, help=f"{TRAJECTORY} file of all, or a folder with a file for each"
    )
    parser.add_argument("-n", "--number", type=int, default=40, help="of structures (40)")
    pair: dict[str, Any] = {"nargs": 2, "metavar": ("LOW", "HIGH")}
    parser.add_argument("--atoms", type=int, **pair, help="atoms of the supercells (8 18)")
    parser.add_argument(
        "--displacement", type=float, **pair, help="rms of every coordinate, drawn anew for a structure (0.02 0.06 A)"
    )
    parser.add_argument("--strain", type=float, help="largest component along the periodic axes (0.01)")
    parser.add_argument("--no-slide", action="store_true", help="layers stay above each other")
    parser.add_argument(
        "--spacing", type=float, **pair, help="added to the distances of neighboring layers (-0.15 0.25 A)"
    )
    parser.add_argument("--nearest", type=float, help="share of the sum of covalent radii that atoms keep apart (0.7)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, metavar="FILE", help="shares of independent pairs against distance")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Make them, write them, and say what they cover."""
    from ase_hybridham.cli.dft import read_structures
    from ase_hybridham.structures import Variation, independence, variations

    structures = read_structures([args.structure])
    if len(structures) > 1:
        raise ValueError(f"{args.structure}: expected one structure, got {len(structures)}; write the one you mean")
    (crystal,) = structures.values()
    given: dict[str, Any] = {} if not args.no_slide else {"slide": False}
    for name in ("atoms", "displacement", "strain", "spacing", "nearest"):
        value = getattr(args, name)
        if value is not None:
            given[name] = tuple(value) if isinstance(value, list) else value
    made = list(variations(crystal, args.number, Variation(**given), seed=args.seed))
    _write(made, args.output, args.structure.stem)
    report = independence([one.atoms for one in made], crystal)
    if args.picture:
        from ase_hybridham.plot import plot_independence, save_figure

        save_figure(plot_independence(report), args.picture)
    rejected = sum(one.rejected for one in made)
    n_shapes = len({one.shape.tobytes() for one in made})
    if args.json:
        head = {"output": str(args.output), "structures": len(made), "shapes": n_shapes, "rejected": rejected}
        print(json.dumps({**head, **report.to_dict()}))
    else:
        print(_text(report, args.output, len(made), n_shapes, rejected))
    return 0


def _write(made: list["Varied"], output: Path, stem: str) -> None:
    import ase.io

    from ase_hybridham.files import written_atomically

    if output.suffix == TRAJECTORY:
        with written_atomically(output) as temporary:
            ase.io.write(temporary, [one.atoms for one in made], format="extxyz")
        return
    if output.suffix:
        raise ValueError(f"{output}: expected a {TRAJECTORY} file or a folder, got {output.suffix!r}")
    for n, one in enumerate(made):
        with written_atomically(output / f"{stem}-{n:04d}{TRAJECTORY}") as temporary:
            ase.io.write(temporary, one.atoms, format="extxyz")


def _text(report: "Independence", output: Path, n_structures: int, n_shapes: int, rejected: int) -> str:
    sizes = ", ".join(f"{count} of {size}" for size, count in report.sizes.items())
    lines = [
        f"{output}: {n_structures} structures, {n_shapes} shapes; atoms: {sizes}",
        f"{report.n_displacements} independent displacements; {rejected} draws rejected, atoms too near",
        "nearest, A: " + ", ".join(f"{name} {distance:.2f}" for name, distance in report.nearest.items()),
        f"{'distance, A':>12}{'pairs':>8}{'independent':>13}{'in the crystal':>16}",
    ]
    for row in report.rows:
        crystal = "" if row.crystal is None else f"{100 * row.crystal:.0f} %"
        distance = f"{row.start:.1f}-{row.end:.1f}"
        lines.append(f"{distance:>12}{row.n_pairs:8d}{100 * row.independent:11.0f} %{crystal:>16}")
    return "\n".join(lines)
