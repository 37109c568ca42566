"""hybridham bands STATES.npz: states that `mpi/slepc_bands.py` wrote, drawn as they are."""

import argparse
import json
from pathlib import Path
from typing import Any

from ase_hybridham.cli.bands import DEFAULT_OUTPUT, DEFAULT_VIEW, json_numbers

SUFFIX = ".npz"


def run_stored(args: argparse.Namespace) -> int:
    """Read, draw, print; nothing is solved."""
    import numpy as np

    from ase_hybridham.plot import plot_bands, save_figure
    from ase_hybridham.solve.stored import read_states

    for option in ("structure", "path", "kpts", "reference", "by", "unfold", "overlap", "states"):
        if getattr(args, option) is not None:
            name = "STRUCTURE" if option == "structure" else f"--{option}"
            raise ValueError(f"{name}: {args.source} holds states that are solved; leave it out")
    states = read_states(args.source)
    found = states.bands()
    solved = np.isfinite(states.energies)
    level_from = "sigma" if states.reference == states.sigma else "stored"
    result: dict[str, Any] = {
        "source": args.source,
        "fermi_eV": states.reference,
        "fermi_from": level_from,
        "k_points_solved": int(solved.any(axis=(0, 2)).sum()),
        "max_residual_eV": float(states.residuals[solved].max(initial=0.0)),
        "numbered": False,
    }
    output = args.output or (None if args.json else Path(DEFAULT_OUTPUT))
    if output is not None:
        save_figure(plot_bands(found, window=args.window or DEFAULT_VIEW, points=True), output)
        result["output"] = str(output)
    if args.json:
        result["k_points"] = states.k_points.tolist()
        result["eigenvalues_eV"] = [[json_numbers(at_k) for at_k in of_spin] for of_spin in found.energies]
        print(json.dumps(result, allow_nan=False))
    else:
        n_spins, n_k, n_states = states.energies.shape
        print(
            f"{args.source}: up to {n_states} states{' x 2 spins' if n_spins == 2 else ''} at "
            f"{result['k_points_solved']} of {n_k} k-points, not counted; residuals up to "
            f"{result['max_residual_eV']:.1e} eV\nzero of energy {states.reference:.6f} eV ({level_from})"
        )
        if output is not None:
            print(f"picture: {output}")
    return 0
