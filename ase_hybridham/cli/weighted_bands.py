"""hybridham bands --by, --unfold: bands with weights on their states."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_hybridham.cli.bands import DEFAULT_OUTPUT, DEFAULT_VIEW, WHOLE, json_numbers, labels_of
from ase_hybridham.cli.subject import (
    groups_of,
    layers_in,
    level_of,
    load_subject,
    naming,
    solver_of,
    subject_of,
    thresholds,
)

if TYPE_CHECKING:
    from ase_hybridham.solve import SiteMap, WeightedBands
    from ase_hybridham.system import LCAOSystem

CLEAR = 0.5  # a state with more weight is one of the primitive cell


def run_weighted(args: argparse.Namespace) -> int:
    """Solve along the path with eigenvectors, draw, print."""
    from ase_hybridham.cli.source import parse_valence
    from ase_hybridham.plot import check_format, save_figure
    from ase_hybridham.plot_states import plot_fat_bands, plot_spectral_function
    from ase_hybridham.solve import band_path, fat_bands, unfold

    others = (("--reference", args.reference), ("--errors", args.errors and args.errors[0]))
    for option, value in (("--by", args.unfold and args.by), *others):
        if value:
            raise ValueError(
                f"{option} {value}: not with {'--unfold' if args.unfold else '--by'}; leave one of them out"
            )
    for option, number in (("--window", args.window), ("--width", args.width)):
        if number is not None and not number > 0:
            raise ValueError(f"{option}: expected an energy > 0 eV, got {number}")
    output = args.output or (None if args.json else Path(DEFAULT_OUTPUT))
    if output is not None:
        check_format(output)
    threshold, _ = thresholds(args)
    system = load_subject(args, parse_valence(args.valence), threshold)
    window = args.window or DEFAULT_VIEW
    with naming(subject_of(args)):
        solver = solver_of(args, system)
        level, level_from = level_of(system, args.kpts, threshold, solver)
        result: dict[str, Any] = {"source": args.source, "fermi_eV": level, "fermi_from": level_from}
        result["electrons"] = system.electrons
        options: dict[str, Any] = {
            "reference": level,
            "solver": solver,
            "overlap_threshold": threshold,
            "progress": True,
        }
        if args.unfold is None:
            path = band_path(system.atoms, args.path, args.npoints)
            found = fat_bands(system, path, **groups_of(system, args.by), **options)
            result["groups"] = list(found.infos)
        else:
            sites = _sites(system, args.unfold)
            path = band_path(sites.primitive, args.path, args.npoints)
            found = unfold(system, sites, path, **options)
            result["unfolded"] = _description(sites)
        result["first_band"] = found.bands.first_band
    if output is not None:
        ax = (
            plot_fat_bands(found, window=window)
            if args.unfold is None
            else plot_spectral_function(found, width=args.width, window=window)
        )
        save_figure(ax, output)
        result["output"] = str(output)
    if args.json:
        result |= {"path": labels_of(found.bands, None), "k_points": path.kpts.tolist()}
        result["eigenvalues_eV"] = [[json_numbers(at_k) for at_k in of_spin] for of_spin in found.bands.energies]
        result["weights"] = (found.weights if args.unfold is None else found.weights[..., 0]).tolist()
        print(json.dumps(result, allow_nan=False))
        return 0
    print(_summary(result, found, window))
    return 0


def _sites(system: "LCAOSystem", what: str) -> "SiteMap":
    """The primitive cell that --unfold means, and where the atoms stand in it."""
    from ase_hybridham.cli.source import load_structure
    from ase_hybridham.solve import SiteMap
    from ase_hybridham.structures import primitive_cell

    if what == WHOLE:
        primitive = primitive_cell(system.atoms)
        if len(primitive) == len(system.atoms):
            raise ValueError("--unfold: this structure repeats no smaller cell; name a layer (--unfold 1) or a file")
        return SiteMap.of(system.atoms, primitive)
    if not what.isdecimal():
        return SiteMap.of(system.atoms, load_structure(what)[0])
    layers = layers_in(system)
    if not 1 <= int(what) <= len(layers):
        raise ValueError(f"--unfold: expected a layer from 1 to {len(layers)}, got {what}")
    members = layers[int(what) - 1]
    return SiteMap.of(system.atoms, primitive_cell(system.atoms, members), members)


def _description(sites: "SiteMap") -> dict[str, Any]:
    return {
        "primitive": str(sites.primitive.symbols),
        "cell": sites.primitive.cell.tolist(),
        "matrix": sites.matrix.tolist(),
        "n_cells": sites.n_cells,
        "atoms": sites.members.tolist(),
        "displacement_A": sites.displacement,
    }


def _summary(result: dict[str, Any], found: "WeightedBands", window: float) -> str:
    n_spins, n_k, n_bands = found.bands.energies.shape
    spins = " x 2 spins" if n_spins == 2 else ""
    some = f", the first is number {result['first_band']}" if result["first_band"] else ""
    lines = [f"{result['source']}: {n_bands} bands{spins} at {n_k} k-points{some}"]
    lines.append(f"Fermi level {result['fermi_eV']:.6f} eV ({result['fermi_from']})")
    if unfolded := result.get("unfolded"):
        lines.append(
            f"{len(unfolded['atoms'])} atoms stand for {unfolded['n_cells']} cells of {unfolded['primitive']}, "
            f"displaced by up to {unfolded['displacement_A']:.3f} A"
        )
        near = found.weights[..., 0][abs(found.bands.energies - found.bands.reference) <= window]
        clear = near[near > CLEAR].sum() / near.sum() if near.size else 0.0
        lines.append(f"within {window:g} eV of E_F {100 * clear:.0f} % of the weight is in states above {CLEAR:g}")
    lines.append(f"picture: {result['output']}")
    return "\n".join(lines)
