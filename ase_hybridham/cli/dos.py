"""hybridham dos: density of states, whole and of elements, shells, atoms or layers."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_hybridham.cli.subject import (
    GROUPS,
    add_subject,
    add_system_options,
    groups_of,
    level_of,
    load_subject,
    naming,
    solver_of,
    subject_of,
    thresholds,
)

if TYPE_CHECKING:
    from ase.spectrum.doscollection import GridDOSCollection

    from ase_hybridham.solve import Solver
    from ase_hybridham.system import LCAOSystem

DEFAULT_OUTPUT = "dos.png"
POINTS_PER_WIDTH = 5
TETRAHEDRON = "tetrahedron"
STEP = 0.02  # eV, of tetrahedra, which have no width


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_subject(parser)
    parser.add_argument("--kpts", type=int, nargs=3, metavar="N", help="mesh, also of the Fermi level; default dense")
    parser.add_argument("--by", choices=GROUPS, help="also the parts of elements, shells, atoms or layers")
    parser.add_argument("--window", type=float, default=10.0, metavar="E", help="E_F +- E eV (default 10)")
    parser.add_argument("--width", type=float, default=0.1, metavar="E", help="of the smearing, eV (default 0.1)")
    parser.add_argument(
        "--smearing",
        choices=["gaussian", "fermi-dirac", TETRAHEDRON],
        default="gaussian",
        help="default gaussian; tetrahedron interpolates between k-points and has no width",
    )
    parser.add_argument("-o", "--output", type=Path, help=f"the picture (default {DEFAULT_OUTPUT}, none with --json)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_system_options(parser)


def run(args: argparse.Namespace) -> int:
    """Sum over the mesh, draw, print."""
    import numpy as np

    from ase_hybridham.cli.source import parse_valence
    from ase_hybridham.plot import check_format, save_figure
    from ase_hybridham.plot_states import plot_dos

    for option, number in (("--window", args.window), ("--width", args.width)):
        if not number > 0:
            raise ValueError(f"{option}: expected an energy > 0 eV, got {number}")
    output = args.output or (None if args.json else Path(DEFAULT_OUTPUT))
    if output is not None:
        check_format(output)
    threshold, _ = thresholds(args)
    system = load_subject(args, parse_valence(args.valence), threshold)
    with naming(subject_of(args)):
        solver = solver_of(args, system)
        if args.smearing == TETRAHEDRON and solver != "dense":
            raise ValueError(f"--smearing {TETRAHEDRON}: needs all states, of a small cell; take gaussian")
        # these may be more states than those near the level, and LAPACK faster
        whole = "auto" if args.solver == "auto" and args.states is None else solver
        level, level_from = level_of(system, args.kpts, threshold, solver)
        found = _density(args, system, level, threshold, whole)
    grid, middle = found.get_energies(), len(found.get_energies()) // 2
    result: dict[str, Any] = {"source": args.source, "fermi_eV": level, "fermi_from": level_from}
    total = found.total().get_weights()
    result |= {"electrons": system.electrons, "dos_at_fermi": float(total[middle])}
    filled = [float(np.trapezoid(entry.get_weights()[: middle + 1], grid[: middle + 1])) for entry in found]
    if output is not None:
        save_figure(plot_dos(found, reference=level), output)
        result["output"] = str(output)
    if args.json:
        result |= {"energies_eV": grid.tolist(), "groups": [entry.info for entry in found], "filled": filled}
        result["dos"] = [entry.get_weights().tolist() for entry in found]
        print(json.dumps(result, allow_nan=False))
        return 0
    print(f"{args.source}: Fermi level {level:.6f} eV ({level_from})")
    print(f"at the Fermi level {result['dos_at_fermi']:.4f} states per eV and cell")
    print(f"electrons in the {args.window:g} eV below it: {sum(filled):.3f}")
    for entry, electrons in zip(found, filled, strict=True):
        if entry.info:
            print(f"  {' '.join(entry.info.values()):12s} {electrons:.3f}")
    print(f"picture: {result['output']}")
    return 0


def _density(
    args: argparse.Namespace, system: "LCAOSystem", level: float, threshold: float, solver: "Solver"
) -> "GridDOSCollection":
    """On a grid whose middle is the Fermi level."""
    import numpy as np

    from ase_hybridham.solve import default_mesh, density_of_states, k_mesh, symmetry_of, tetrahedron_dos

    interpolate = args.smearing == TETRAHEDRON
    n_steps = int(np.ceil(args.window / (STEP if interpolate else args.width / POINTS_PER_WIDTH)))
    grid = np.linspace(level - args.window, level + args.window, 2 * n_steps + 1)
    options: dict[str, Any] = {**groups_of(system, args.by), "overlap_threshold": threshold, "progress": True}
    if interpolate:
        return tetrahedron_dos(system, grid, args.kpts, **options)
    k, w = k_mesh(system.atoms, args.kpts, **symmetry_of(system)) if args.kpts else default_mesh(system)
    return density_of_states(system, grid, k, w, width=args.width, smearing=args.smearing, solver=solver, **options)
