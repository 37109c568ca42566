"""hybridham demo: the model in the package at work, then real DFT data, training and a band plot in minutes."""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_hybridham.cli.twisted_demo import show_twisted, twisted_text

if TYPE_CHECKING:
    from ase import Atoms
    from ase.dft.kpoints import BandPath

    from ase_hybridham.system import LCAOSystem
    from ase_hybridham.train import Evaluation

SEED = 2026  # of the test structures; no training structure was made with it
WINDOW = 2.0  # eV around the Fermi level in which bands are compared
POINTS = 120  # of the paths that are compared and drawn
TWO_BY_ONE = (2, 1)
SHIPPED = Path(__file__).parent.parent / "data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, default=Path("demo"), help="folder of the results (default: demo)")
    parser.add_argument(
        "--source",
        type=Path,
        metavar="FOLDER",
        help="learn from structures of another program in this folder (or .tar.xz) instead of the shipped data",
    )
    parser.add_argument("--split", type=Path, metavar="INDEX.json", help="with --source: which are train, val, test")
    parser.add_argument("--valence", nargs="+", default=["C=4"], metavar="ELEMENT=N", help="with --source")
    parser.add_argument("--epochs", type=float, default=1.0, metavar="FACTOR", help="times the usual number of epochs")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Use the model that comes with the package; train on known structures, predict others, compare with DFT."""
    from ase_hybridham.files import written_atomically

    args.output.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    name = "bands" if args.source is None else "bands_openmx"
    twisted = None if args.source else _twisted(args.output)
    if args.source is None:
        data = SHIPPED / "demo_graphene.h5"
        _say("1. DFT of structures that the training set does not hold (PySCF, LDA)")
        references: Mapping[str, LCAOSystem] = _computed(test_structures(), data)
    else:
        _say("1. Reading the structures and their Hamiltonians")
        data, references = _converted(args.source, args.split, args.valence, args.output)
    _say("2. Training: stage 1 on H, then stage 2 on what stage 1 leaves")
    checkpoint = _trained(data, args.output / f"{name}_run", args.epochs)
    _say("3. Predicting the test structures")
    result = _evaluated(checkpoint, references)
    picture = _drawn(checkpoint, references, args.output / f"{name}.png")
    report = {
        **result.to_dict(),
        "checkpoint": str(checkpoint),
        "picture": str(picture),
        "twisted": twisted,
        "seconds": round(time.monotonic() - began, 1),
    }
    text = _table(result) if twisted is None else f"{twisted_text(twisted)}\n\n{_table(result)}"
    with written_atomically(args.output / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report) if args.json else text)
    _say(f"picture {picture}, checkpoint {checkpoint}, {report['seconds']:.0f} s")
    return 0


def _twisted(output: Path) -> dict[str, Any] | None:
    """What the model that comes with the package knows without any training here."""
    _say("0. A twisted bilayer of graphene, which the model in the package was not trained on")
    result = show_twisted(output)
    if result is None:
        _say("   left out: no graphene-bilayer.hham is in this installation")
        return None
    mean = result["bands_meV"]["1 eV"]["mean_aligned"]
    _say(f"   bands within 1 eV of E_F are {mean:.1f} meV from OpenMX's on average: {result['picture']}")
    return result


def test_structures() -> dict[str, "Atoms"]:
    """Graphene cells of the kinds in the training set, and none of them: the generator starts elsewhere."""
    import numpy as np

    from ase_hybridham.structures import random_graphene

    rng = np.random.default_rng(SEED)
    ideal: dict[str, Any] = {"strain": 0.0, "displacement": 0.0, "spacing": (3.35, 3.35)}
    return {
        "bilayer, slid": random_graphene(rng, 2, **ideal),
        "bilayer, displaced": random_graphene(rng, 2),
        "layer, 8 atoms displaced": random_graphene(rng, 1, repeat=(2, 2)),
        "bilayer, 8 atoms displaced": random_graphene(rng, 2, repeat=TWO_BY_ONE),
    }


def _computed(structures: Mapping[str, "Atoms"], data: Path) -> dict[str, "LCAOSystem"]:
    """The structures' systems, by the engine and the settings that made the data set."""
    from tqdm import tqdm

    from ase_hybridham.cli.dft import compute
    from ase_hybridham.scf import PySCFEngine
    from ase_hybridham.store import DataSet

    with DataSet(data) as opened:
        engine = PySCFEngine.from_settings(opened.provenance["engine"])
    engines = engine.for_structures(list(structures.values()))
    bar = tqdm(zip(structures.items(), engines, strict=True), "DFT", len(structures), disable=None)
    return {name: compute(engine, atoms)[0] for (name, atoms), engine in bar}


def _converted(
    source: Path, split: Path | None, valence: list[str], output: Path
) -> tuple[Path, dict[str, "LCAOSystem"]]:
    """The data set of a folder or archive, and its test structures."""
    import contextlib
    import shutil
    import tempfile

    from ase_hybridham.cli import main
    from ase_hybridham.store import DataSet

    data = output / "openmx.h5"
    data.unlink(missing_ok=True)  # a demo starts anew
    words = ["-o", str(data), "--valence", *valence, *(["--split", str(split)] if split else [])]
    with tempfile.TemporaryDirectory() as folder:
        if source.is_file():
            shutil.unpack_archive(source, folder, filter="data")
            source = Path(folder)
        with contextlib.redirect_stdout(sys.stderr):
            status = main(["convert", str(source), *words])
        if status:
            raise ValueError(f"{source}: could not be converted, see above")
    with DataSet(data) as opened:
        return data, {name: opened[name] for name in opened.split("test")}


def _trained(data: Path, output: Path, factor: float) -> Path:
    import shutil

    from ase_hybridham.train import read_config, train

    config = read_config(SHIPPED / "demo.yaml")
    phases = {
        name: getattr(config, name).model_copy(update={"epochs": max(1, round(factor * getattr(config, name).epochs))})
        for name in ("phase1", "phase2")
    }
    shutil.rmtree(output, ignore_errors=True)  # a demo starts anew
    return train(config.model_copy(update={"data": data, "output": output, **phases}))


def _evaluated(checkpoint: Path, references: Mapping[str, "LCAOSystem"]) -> "Evaluation":
    from ase_hybridham.model import load_model
    from ase_hybridham.train import Evaluation, evaluate_system, rotation_error

    model = load_model(checkpoint)
    rows = [
        evaluate_system(model, system, name, window=WINDOW, k_points=_path(system.atoms).kpts)
        for name, system in references.items()
    ]
    return Evaluation(tuple(rows), rotation_error(model, next(iter(references.values()))), WINDOW)


def _drawn(checkpoint: Path, references: Mapping[str, "LCAOSystem"], path: Path) -> Path:
    """Predicted bands, through the ASE calculator, over those of DFT."""
    from matplotlib.figure import Figure

    from ase_hybridham import HybridHamCalculator
    from ase_hybridham.plot import plot_bands, save_figure
    from ase_hybridham.solve import bands

    figure = Figure(figsize=(3.4 * len(references), 3.9), layout="constrained")
    axes = figure.subplots(1, len(references), squeeze=False)[0]
    for ax, (name, system) in zip(axes, references.items(), strict=True):
        atoms = system.atoms.copy()
        own = system.basis.has_radial_functions()
        atoms.calc = HybridHamCalculator(checkpoint, overlap=None if own else system.overlap)
        route = _path(atoms)
        plot_bands(atoms.calc.band_structure(route), bands(system, route), ax=ax, window=4.0)
        ax.set_title(name, fontsize=9, pad=22)
    save_figure(axes[0], path)
    return path


def _path(atoms: "Atoms") -> "BandPath":
    """The path of the hexagon, through the points where graphene's bands meet, for cells that have it."""
    from ase_hybridham.solve import band_path

    lengths = atoms.cell.lengths()
    if abs(lengths[0] / lengths[1] - TWO_BY_ONE[0]) < 0.1:  # the primitive cell's points in a cell of two of them
        corners = {"G": (0, 0, 0), "K": (2 / 3, 1 / 3, 0), "M": (1, 0, 0)}
        return atoms.cell.bandpath("GKMG", npoints=POINTS, special_points=corners)
    try:
        return band_path(atoms, "GKMG", npoints=POINTS)
    except ValueError:
        return band_path(atoms, npoints=POINTS)


def _table(result: "Evaluation") -> str:
    """The table of `hybridham evaluate`, and the bands of every structure."""
    from ase_hybridham.cli.evaluate import table

    head = f"{'hybrid':>28}{'MAE':>9}{'bands: mean':>14}{'largest':>10}  meV, on the path drawn, aligned at"
    lines = [table(result), "", head]
    for row in result.structures:
        error, band = row.hamiltonian["hybrid"], row.bands["hybrid"]
        largest, mean, place = band.aligned
        lines.append(f"{row.name:>28}{error.mae:9.3f}{1e3 * mean:14.1f}{1e3 * largest:10.1f}  {place}")
    return "\n".join(lines)


def _say(*words: Any) -> None:
    print(*words, file=sys.stderr, flush=True)
