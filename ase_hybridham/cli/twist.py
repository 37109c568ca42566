"""hybridham twist: twisted bilayers and stacks, small ones to train on, and how far a training set reaches."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase import Atoms

    from ase_hybridham.structures import EnvironmentCoverage, Twist

GRAPHENE = "graphene"  # the layer that needs no file
SHOWN = 12  # candidates in the text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "layer", metavar="LAYER", help=f"a cell of the lower layer, a file that ASE reads, or the word {GRAPHENE}"
    )
    parser.add_argument("upper", metavar="UPPER", nargs="?", help="of the upper layer, where it is of another kind")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--indices", type=int, nargs=2, metavar=("M", "N"), help="of two equal hexagonal layers: 1 2")
    kind.add_argument("--angle", type=float, help="degrees by which the upper layer is turned clockwise; lists cells")
    parser.add_argument("-o", "--output", type=Path, help="file of the structure, in any format that ASE writes")
    parser.add_argument("--candidate", type=int, metavar="K", help="which of the list (the starred one)")
    parser.add_argument("--angle-tolerance", type=float, metavar="DEG", help="(2 %% of that to a multiple of 30)")
    parser.add_argument("--strain", type=float, default=0.005, help="by which the lattices may differ (0.005)")
    parser.add_argument("--max-atoms", type=int, default=20_000, help="of a bilayer (20000)")
    parser.add_argument("--pattern", default="AB", help="A the lower crystal, B the upper one turned, from below (AB)")
    parser.add_argument("--spacing", type=float, nargs="+", default=[3.35], metavar="A", help="of neighbors (3.35 A)")
    parser.add_argument(
        "--shift",
        type=float,
        nargs=2,
        action="append",
        default=[],
        metavar=("X", "Y"),
        help="of the second layer in its lattice vectors; once more for the third",
    )
    parser.add_argument(
        "--share", type=float, default=0.5, help="of the strain between the lattices that B takes (0.5)"
    )
    parser.add_argument(
        "--deform", type=float, nargs=3, default=[0.0, 0.0, 0.0], metavar=("XX", "YY", "XY"), help="strain of the whole"
    )
    parser.add_argument("--height", type=float, metavar="A", help="of the cell (12.65 A more than the layers)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="from above; colored by coverage if that is asked")
    parser.add_argument("--covered-by", type=Path, metavar="DATA", help="a data set, or structures, to compare with")
    parser.add_argument("--split", help="of the data set (train, if there is one, else all)")
    parser.add_argument("--training", type=Path, metavar="FILE", help=".xyz file for small bilayers to train on")
    parser.add_argument("-n", "--number", type=int, default=40, help="of these (40)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Make the stack, write and draw it, and say whether it is covered: status 1 if not."""
    from ase_hybridham.structures import best_twist, twisted_stack

    _refuse(args)
    lower = _layer(args.layer)
    upper = _layer(args.upper) if args.upper else None
    candidates = _candidates(args, lower, upper)
    chosen = best_twist(candidates) if args.candidate is None else candidates[args.candidate - 1]
    stack = twisted_stack(
        chosen,
        lower,
        upper,
        pattern=args.pattern,
        spacing=args.spacing[0] if len(args.spacing) == 1 else args.spacing,
        shifts=[(0.0, 0.0), *args.shift] if args.shift else None,
        share=args.share,
        strain=args.deform,
        height=args.height,
    )
    report: dict[str, Any] = {
        "atoms": len(stack),
        "angle": round(chosen.angle, 6) + 0.0,
        "angle_error": round(chosen.angle_error, 6) + 0.0,
        "strain": round(chosen.strain, 8),
        "lengths": [round(float(length), 6) for length in stack.cell.lengths()[:2]],
        "lower": chosen.lower.tolist(),
        "upper": chosen.upper.tolist(),
        "candidates": [_figures(twist) for twist in candidates],
        "chosen": candidates.index(chosen) + 1,
    }
    lines = [*_table(candidates, report["chosen"], args.angle), _headline(report)]
    if args.output:
        _write(args.output, stack)
        lines.append(f"{args.output}: written")
    if args.training:
        made = _training(args, stack, chosen, lower, upper)
        report["training"] = {"output": str(args.training), **made}
        lines.append(f"{args.training}: {made['structures']} structures of {made['fewest']} to {made['most']} atoms")
    coverage = _coverage(args, stack)
    if coverage is not None:
        report["coverage"] = {"data": str(args.covered_by), **coverage.to_dict()}
        lines.append(_coverage_text(report["coverage"], stack))
    if args.picture:
        from ase_hybridham.plot import save_figure
        from ase_hybridham.plot_stack import plot_stack

        save_figure(plot_stack(stack, None if coverage is None else coverage.distances), args.picture)
    print(json.dumps(report) if args.json else "\n".join(lines))
    return int(coverage is not None and not coverage.is_covered)


def _refuse(args: argparse.Namespace) -> None:
    """What can be seen to fail before long work."""
    from ase_hybridham.cli.source import refuse_unwritable

    if args.indices and args.upper:
        raise ValueError("--indices: they are of two equal layers; give --angle for two kinds")
    if args.indices and args.candidate is not None:
        raise ValueError("--candidate: of a list of --angle; --indices give one cell")
    if args.training and args.training.suffix != ".xyz":
        raise ValueError(f"{args.training}: expected a .xyz file, got {args.training.suffix!r}")
    for output in (args.output, args.training, args.picture):
        if output:
            refuse_unwritable(output)
    if args.picture:
        from ase_hybridham.plot import check_format

        check_format(args.picture)
    if args.output:
        _format_of(args.output)


def _layer(source: str) -> "Atoms":
    from ase.build import graphene

    from ase_hybridham.cli.source import load_structure

    if source == GRAPHENE and not Path(source).exists():
        return graphene(a=2.46)
    return load_structure(source)[0]


def _candidates(args: argparse.Namespace, lower: "Atoms", upper: "Atoms | None") -> "list[Twist]":
    from ase_hybridham.structures import hexagonal_twist, twists

    if args.indices:
        m, n = args.indices
        return [hexagonal_twist(m, n, lower)]
    found = twists(
        lower,
        upper,
        angle=args.angle,
        angle_tolerance=args.angle_tolerance,
        strain=args.strain,
        max_atoms=args.max_atoms,
    )
    if args.candidate is not None and not 1 <= args.candidate <= len(found):
        raise ValueError(f"--candidate: expected 1 to {len(found)}, got {args.candidate}")
    return found


def _figures(twist: "Twist") -> dict[str, Any]:
    return {
        "atoms": twist.n_atoms,
        "angle": round(twist.angle, 6) + 0.0,
        "angle_error": round(twist.angle_error, 6) + 0.0,
        "strain": round(twist.strain, 8),
    }


def _table(candidates: "list[Twist]", chosen: int, angle: float | None) -> list[str]:
    if angle is None:
        return []
    lines = [f"{'':>4}{'atoms':>8}{'angle, deg':>12}{'error':>10}{'strain, %':>11}"]
    for n, twist in enumerate(candidates, 1):
        if n <= SHOWN or n == chosen:
            row = _figures(twist)
            error, strain = row["angle_error"], 100 * row["strain"]
            star = " *" if n == chosen else ""
            lines.append(f"{n:>4}{twist.n_atoms:>8}{row['angle']:>12.4f}{error:>10.4f}{strain:>11.4f}{star}")
    hidden = len(candidates) - len(lines) + 1
    return [*lines, f"and {hidden} larger ones (--json)"] if hidden else lines


def _headline(report: dict[str, Any]) -> str:
    a, b = report["lengths"]
    strain = f", lattices differ by {100 * report['strain']:.3f} %" if report["strain"] > 1e-6 else ""
    return f"{report['atoms']} atoms, {report['angle']:.3f} degrees, cell {a:.3f} x {b:.3f} A{strain}"


def _format_of(path: Path) -> Any:
    """ASE's format of a file to be written."""
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    try:
        known = ioformats[filetype(path, read=False)]
    except (UnknownFileTypeError, KeyError):
        known = None
    if known is None or not known.can_write:
        raise ValueError(f"{path}: expected the name of a file that ASE writes, such as twist.xyz or POSCAR")
    return known


def _write(path: Path, atoms: "Atoms") -> None:
    import ase.io

    from ase_hybridham.files import written_atomically

    name = _format_of(path).name
    with written_atomically(path) as temporary:
        ase.io.write(temporary, atoms, format=name)


def _training(
    args: argparse.Namespace, stack: "Atoms", chosen: "Twist", lower: "Atoms", upper: "Atoms | None"
) -> dict[str, int]:
    """Write small bilayers, and tell their number and sizes."""
    import ase.io

    from ase_hybridham.files import written_atomically
    from ase_hybridham.structures import cover, small_relative

    relative = small_relative(lower, upper, angle=chosen.angle)
    made = cover(stack, relative, lower, upper, n=args.number, spacing=args.spacing[0], seed=args.seed)
    with written_atomically(args.training) as temporary:
        ase.io.write(temporary, made, format="extxyz")
    sizes = [len(atoms) for atoms in made]
    return {"structures": len(made), "fewest": min(sizes), "most": max(sizes)}


def _coverage(args: argparse.Namespace, stack: "Atoms") -> "EnvironmentCoverage | None":
    from ase_hybridham.cli.dft import read_structures
    from ase_hybridham.store import DataSet, is_data_set
    from ase_hybridham.structures import environment_coverage

    if not args.covered_by:
        if args.split:
            raise ValueError("--split: of the data set of --covered-by, which is not given")
        return None
    if not is_data_set(args.covered_by):
        return environment_coverage(stack, list(read_structures([args.covered_by]).values()))
    with DataSet(args.covered_by) as data:
        split = args.split or ("train" if "train" in data.splits else None)
        names = data.split(split) if split else list(data)
        return environment_coverage(stack, [data.atoms(name) for name in names])


def _coverage_text(found: dict[str, Any], stack: "Atoms") -> str:
    verdict = "covered" if found["covered"] else "NOT covered: a network extrapolates"
    far = "an element it has not" if found["largest"] is None else f"largest {found['largest']:.2f}"
    middle = "" if found["median"] is None else f"median {found['median']:.2f}, "
    symbol = stack.symbols[found["worst_atom"]]
    return (
        f"{found['data']}: {verdict}; distance to its {found['environments']} atoms in {found['structures']} "
        f"structures: {middle}{far} ({symbol}, atom {found['worst_atom']}); {100 * found['outside']:.1f} % above 1"
    )
