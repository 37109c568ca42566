"""hybridham evaluate: errors of a checkpoint, or of an ensemble, on a data set, in meV."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ase_hybridham.model import Stage
    from ase_hybridham.store import DataSet
    from ase_hybridham.train import Evaluation, LabelNoise

ROWS = (
    ("MAE all", lambda e, s: e.mae_all(s)),
    ("MAE cha (worst)", lambda e, s: e.mae_cha(s)),
    ("on-site", lambda e, s: e.mean_of(s, "onsite_mae")),
    ("hopping", lambda e, s: e.mean_of(s, "hopping_mae")),
    ("gauge-free all", lambda e, s: e.mean_of(s, "gauge_free_mae")),
    ("gauge-free cha", lambda e, s: e.largest_of(s, "gauge_free_mae")),
    ("shift mu", lambda e, s: e.mean_shift(s)),
    ("spin splitting", lambda e, s: e.mean_of(s, "splitting_mae")),
    ("bands", lambda e, s: e.band_mean(s)),
    ("bands, aligned", lambda e, s: e.band_mean(s, aligned=True)),
    ("bands, largest", lambda e, s: e.band_max(s, aligned=True)),
    ("Fermi level", lambda e, s: e.fermi_error(s)),
    ("gap", lambda e, s: e.gap_error(s)),
)
HEADINGS = {"mean": "training mean", "stage1": "stage 1", "hybrid": "hybrid"}
KINDS = {"onsite": "on-site", "hopping": "hopping"}
MOST_SHELLS = 4  # lines of the table
MOST_BINS = 8  # columns


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", nargs="+", help="checkpoint file or name of a model; several are an ensemble"
    )
    parser.add_argument("data", metavar="DATA", help="data set")
    parser.add_argument("--split", default="test", help="split to evaluate on, or 'all' (default: test)")
    parser.add_argument("--window", type=float, default=2.0, help="band errors: states within E_F +- this, eV")
    parser.add_argument("--no-bands", action="store_true", help="leave bands, Fermi level and gap out")
    parser.add_argument(
        "--rotations",
        type=int,
        default=0,
        metavar="K",
        help="networks with frame: global: error and cost of averages over 1, 2, 4, ... K rotations",
    )
    parser.add_argument(
        "--noise",
        metavar="X",
        help="MAE of the labels themselves: meV, or a data set of the same structures computed at another place",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="picture: errors by orbitals (.png, .pdf)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print a table or JSON; draw a picture."""
    import json
    import sys

    from ase_hybridham.model import load_ensemble
    from ase_hybridham.store import DataSet
    from ase_hybridham.train import evaluate, is_equivariant

    if not args.window > 0:
        raise ValueError(f"--window: expected an energy > 0 eV, got {args.window}")
    if args.rotations < 0:
        raise ValueError(f"--rotations: expected a number of rotations, got {args.rotations}")
    if args.output is not None:
        from ase_hybridham.plot import check_format

        check_format(args.output)
    model = load_ensemble(args.model, args.device)
    if args.rotations and is_equivariant(model):
        print("--rotations: left out, as averaging changes nothing: this model is exactly equivariant", file=sys.stderr)
    with DataSet(args.data) as data:
        names = data.names if args.split == "all" else data.split(args.split)
        noise = _noise(args.noise, data, names)
        options = {"window": args.window, "bands": not args.no_bands, "rotations": args.rotations, "noise": noise}
        result = evaluate(model, data, names, **options, progress=True)
    if args.output is not None:
        _draw(args.output, result)
    if args.json:
        report = {"models": args.model, "data": args.data, "split": args.split}
        print(json.dumps(report | result.to_dict(), allow_nan=False))
    else:
        print(table(result, bands=not args.no_bands))
    return 0


def _noise(given: str | None, data: "DataSet", names: Sequence[str]) -> "LabelNoise | None":
    """A number, another data set, or what the data set says."""
    from ase_hybridham.store import DataSet
    from ase_hybridham.train import LabelNoise, known_noise, measured_noise

    if not names:  # `evaluate` says so
        return None
    if given is None:
        return known_noise(data, names)
    try:
        return LabelNoise(float(given), "--noise")
    except ValueError as error:
        if not Path(given).is_file():
            raise ValueError(f"--noise {given}: expected an MAE above 0 in meV, or a data set") from error
    with DataSet(given) as other:
        return measured_noise(data, other, names)


def _draw(path: Path, result: "Evaluation") -> None:
    from ase_hybridham.plot import plot_orbital_map, save_figure

    stage = result.stages[-1]
    title = f"MAE in meV, {HEADINGS[stage]}, {len(result.structures)} structures: {result.mae_all(stage):.3g}"
    save_figure(plot_orbital_map(result.orbital_map(stage), title=title)[0], path)


def table(result: "Evaluation", *, bands: bool = True) -> str:
    """The errors of all stages side by side, meV, and where they sit; `bands` says whether they were asked for."""
    window = f"; bands within {result.window_eV:g} eV of E_F" if bands else ""
    lines = [f"{len(result.structures)} structures, errors in meV{window}"]
    lines.append(f"{'':>16}" + "".join(f"{HEADINGS[stage]:>15}" for stage in result.stages))
    for label, figure in ROWS:
        values = [figure(result, stage) for stage in result.stages]
        if None not in values:
            lines.append(f"{label:>16}" + "".join(f"{value:15.3f}" for value in values))
    n_bands = sum(bool(structure.bands) for structure in result.structures)
    if bands and n_bands < len(result.structures):
        lines.append(f"bands of {n_bands} structures only: others lack S or electrons, or have no state in the window")
    if result.noise is not None:
        lines.append(f"label noise {result.noise.mae:.3g} meV ({result.noise.source}): no network errs less")
    lines += [*_places(result), *_ensemble(result), *_rotations(result)]
    lines.append(f"hermiticity error {max(s.hermiticity_meV for s in result.structures):.2g} meV")
    lines.append(f"rotation error {result.rotation_meV:.2g} meV")
    return "\n".join(lines)


def _places(result: "Evaluation") -> list[str]:
    """Where the errors of the last stage are largest."""
    stage = result.stages[-1]
    worst = result.worst(stage)
    if worst is None:
        return []
    first, second = (f"{symbol}{atom}" for symbol, atom in zip(worst.symbols, worst.atoms, strict=True))
    place = "on-site" if worst.distance == 0 else f"R={list(worst.shift)} {worst.distance:.2f} A"
    return [
        f"worst block: {worst.structure} {first}-{second} {place}: rms {worst.rms:.3g} of {worst.reference_rms:.0f}, "
        f"{'-'.join(worst.shells)} {worst.shells_rms:.3g}, largest element {worst.largest:.3g}",
        *_shells(result, stage),
        *_distances(result, stage),
    ]


def _shells(result: "Evaluation", stage: "Stage") -> list[str]:
    """The pairs of shells with the largest MAE."""
    import numpy as np

    from ase_hybridham.system.orbital_map import shell_names

    before = result.orbital_map("stage1").panels
    found = []
    for key, panel in result.orbital_map(stage).panels.items():
        means, earlier = panel.shell_means(), before[key].shell_means()
        rows, columns = shell_names(panel.rows), shell_names(panel.columns)
        same = panel.rows.symbol == panel.columns.symbol  # then (a, b) and (b, a) are one
        places = zip(*(np.triu_indices(len(rows)) if same else np.indices(means.shape).reshape(2, -1)), strict=True)
        found += [
            (means[a, b], earlier[a, b], f"{panel.pair} {KINDS[panel.kind]} {rows[a]}-{columns[b]}") for a, b in places
        ]
    found.sort(key=lambda entry: -entry[0])
    head = "largest MAE by shells" + (":  stage 1  hybrid" if stage == "hybrid" else "")
    lines = [f"{head:>44}"]
    for after, earlier, name in found[:MOST_SHELLS]:
        lines.append(f"{name:>26}" + (f"{earlier:10.3f}" if stage == "hybrid" else f"{'':10}") + f"{after:8.3f}")
    return lines


def _distances(result: "Evaluation", stage: "Stage") -> list[str]:
    """MAE against distance, in a few bins."""
    import numpy as np

    onsite, *rows = result.decay(stage).rows()
    columns = [("on-site", onsite.mean)]
    for part in np.array_split(np.arange(len(rows)), min(MOST_BINS, len(rows))) if rows else []:
        picked = [rows[n] for n in part]
        mean = sum(row.mean * row.elements for row in picked) / sum(row.elements for row in picked)
        columns.append((f"{picked[0].start:g}-{picked[-1].end:g}", mean))
    return [
        f"{'distance, A':>16}" + "".join(f"{name:>9}" for name, _ in columns),
        f"{'MAE':>16}" + "".join(f"{mean:9.3f}" for _, mean in columns),
    ]


def _ensemble(result: "Evaluation") -> list[str]:
    """What the members are alone, and what their spread is worth."""
    members = result.members()
    if len(members) < 2:
        return []
    lines = [f"ensemble of {len(members)}, MAE all of each: {' '.join(f'{mae:.3f}' for mae in members)}"]
    head = f"{'':>16}{'spread':>9}{'error':>9} rms; correlation (Pearson/Spearman): "
    lines.append(f"{head}blocks, on-site, hopping, structures")
    for kind, report in result.spreads().items():
        parts = (report.blocks, report.onsite, report.hopping, report.structures)
        numbers = "  ".join(
            "-" if p.pearson is None or p.spearman is None else f"{p.pearson:.2f}/{p.spearman:.2f}" for p in parts
        )
        lines.append(f"{kind.replace('_', '-'):>16}{report.spread:9.3f}{report.error:9.3f}  {numbers}")
    return [*lines, *_error_bars(result)]


def _error_bars(result: "Evaluation") -> list[str]:
    """What error bars of bands are worth."""
    report = result.level_spread()
    if report is None or report.factor is None:
        return []
    lines = [
        f"error bars of {report.levels.n} levels: width {report.width:.2f}, error {report.error:.2f} rms, "
        f"68 % of errors within {report.factor:.2f} widths (--error-factor); "
        f"within 1, 2, 3, 4: {' '.join(f'{100 * share:.0f}' for share in report.covered)} %"
    ]
    parts = (("levels", report.levels), ("structures", report.structures))
    numbers = "  ".join(
        f"{name} {p.pearson:.2f}/{p.spearman:.2f}"
        for name, p in parts
        if p.pearson is not None and p.spearman is not None
    )
    most = "" if report.at_most is None else f"; of levels at most {report.at_most:.2f}"
    return [*lines, f"{'':>16}correlation (Pearson of logarithms/Spearman): {numbers or '-'}{most}"]


def _rotations(result: "Evaluation") -> list[str]:
    """Averages over rotations."""
    if not result.rotations:
        return []
    lines = [f"{'rotations':>16}{'MAE all':>10}{'MAE cha':>10}{'rms of turning':>16}{'s/structure':>13}"]
    for row in result.rotations:
        lines.append(
            f"{row.rotations:16d}{row.mae_all:10.3f}{row.mae_cha:10.3f}{row.rotation_rms:16.3f}{row.seconds:13.3f}"
        )
    return lines
