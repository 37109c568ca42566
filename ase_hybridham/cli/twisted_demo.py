"""The first part of `hybridham demo`: a model that comes with the package on a cell it never saw, against OpenMX."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase.spectrum.band_structure import BandStructure

    from ase_hybridham.solve import BandError

MODEL = "graphene-bilayer"
REFERENCE = Path(__file__).parent.parent / "data/twisted_bilayer.json"
WINDOWS = (1.0, 2.0)  # eV around the Fermi level in which bands are compared
VIEW = 2.0  # eV
MESH, WIDTH = (3, 3, 1), 0.0517  # k-points and k_B T of the Fermi level, as in the reference


def show_twisted(output: Path) -> dict[str, Any] | None:
    """Draw bands of the network over those of OpenMX in a folder; the errors in meV, None if there is no such model."""
    from ase_hybridham.errors import CheckpointError
    from ase_hybridham.model import find_model

    try:
        model = find_model(MODEL)
    except CheckpointError:
        return None
    atoms_n, ours, theirs, first = _bands(model)
    n_bands = theirs.energies.shape[2]
    same = ours.energies[:, :, first : first + n_bands]
    picture = _drawn(ours, theirs, output / "twisted.png")
    errors = {window: _error(theirs, same, ours.reference, window) for window in WINDOWS}
    return {
        "model": MODEL,
        "atoms": atoms_n,
        "bands_meV": {
            f"{window:g} eV": {
                "states": error.n_states,
                "mean": 1e3 * error.mean,
                "largest": 1e3 * error.max,
                "mean_aligned": 1e3 * error.aligned_mean,
                "largest_aligned": 1e3 * error.aligned_max,
            }
            for window, error in errors.items()
        },
        "fermi_meV": 1e3 * (ours.reference - theirs.reference),
        "picture": str(picture),
    }


def twisted_text(result: dict[str, Any]) -> str:
    """The errors as lines."""
    lines = [f"{result['model']}: {result['atoms']} atoms, twisted by 21.8 degrees; bands against OpenMX's, meV"]
    lines.append(f"{'within':>16}{'states':>8}{'mean':>9}{'largest':>9}{'mean, E_F at 0':>17}{'largest, E_F at 0':>19}")
    for window, row in result["bands_meV"].items():
        figures = f"{row['mean']:9.2f}{row['largest']:9.2f}{row['mean_aligned']:17.2f}{row['largest_aligned']:19.2f}"
        lines.append(f"{window:>16}{row['states']:>8}{figures}")
    return "\n".join([*lines, f"{'Fermi level':>16}{result['fermi_meV']:17.2f}"])


def _bands(model: Path) -> "tuple[int, BandStructure, BandStructure, int]":
    """Number of atoms, all bands of the network and some of OpenMX at its k-points, and which the first of these is."""
    import numpy as np
    from ase import Atoms
    from ase.dft.kpoints import BandPath
    from ase.spectrum.band_structure import BandStructure

    from ase_hybridham import HybridHamCalculator

    known = json.loads(REFERENCE.read_text(encoding="utf-8"))
    atoms = Atoms(known["numbers"], known["positions"], cell=known["cell"], pbc=(True, True, False))
    atoms.calc = HybridHamCalculator(model, kpts=MESH, width=WIDTH)
    k_points = np.array(known["k_points"])
    path = BandPath(atoms.cell, k_points, {label: k_points[row] for row, label in known["ticks"]})
    theirs = BandStructure(path, np.array([known["bands_eV"]]), reference=known["fermi_eV"])
    return len(atoms), atoms.calc.band_structure(path), theirs, known["first_band"]


def _error(theirs: "BandStructure", energies: Any, level: float, window: float) -> "BandError":
    from ase_hybridham.solve import band_error

    return band_error(theirs.energies, energies, reference_level=theirs.reference, predicted_level=level, window=window)


def _drawn(ours: "BandStructure", theirs: "BandStructure", path: Path) -> Path:
    from ase_hybridham.plot import new_axes, plot_bands, save_figure

    ax = plot_bands(ours, theirs, labels=("network", "OpenMX"), window=VIEW, ax=new_axes(4.8, 4.2))
    save_figure(ax, path)
    return path
