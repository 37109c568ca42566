"""What error bars of bands are worth: the table and the picture of docs/errorbars.md.

    python error_bars.py runs/bg/edge-seed*/model.hham --data runs/bg/data.h5:test twisted.h5 displaced.h5 \
        --training runs/bg/data.h5:train -o errorbars.png

MODELs are networks that differ in their seed, as run.py leaves them. For every data set, and for all together, prints
width and error (rms, meV) of the levels within 2 eV of the Fermi level, Spearman's correlation of both over levels and
structures, and what it is with the distance of the atoms from those of the training set in place of the width. The
picture has two bands of that structure of the first data set whose width is largest.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from ase_hybridham.model import Ensemble, load_ensemble
from ase_hybridham.plot import band_axis, save_figure
from ase_hybridham.solve import PREDICTED_THRESHOLD, band_errors, band_path, bands
from ase_hybridham.store import DataSet
from ase_hybridham.structures import environment_coverage
from ase_hybridham.system import LCAOSystem
from ase_hybridham.train.spectra import ReferenceSpectrum
from ase_hybridham.train.uncertainty import LevelSpread, level_report

WINDOW = 2.0  # eV
BINS = 8


def systems(source: str) -> Iterator[LCAOSystem]:
    """All structures of FILE, or those of a split of FILE:SPLIT."""
    path, _, split = source.partition(":")
    with DataSet(path) as data:
        for name in data.split(split) if split else data.names:
            yield data[name]


def print_row(name: str, rows: list[LevelSpread], distances: list[float]) -> None:
    report = level_report(rows)
    error = [float(np.sqrt((row.errors**2).mean())) for row in rows]
    far = np.repeat(distances, [len(row.errors) for row in rows])
    sizes = np.abs(np.concatenate([row.errors for row in rows]))

    def number(value: float | None) -> str:
        return "    -" if value is None or not np.isfinite(value) else f"{value:5.2f}"

    by_distance = [spearmanr(x, y).statistic if len(rows) > 2 else None for x, y in ((far, sizes), (distances, error))]
    covered = " ".join(f"{100 * share:3.0f}" for share in report.covered)
    print(
        f"{name:24.24s} {len(rows):3d} {len(sizes):5d}  width {report.width:5.2f}  error {report.error:5.2f}"
        f"  factor {number(report.factor)}  within 1 2 3 4: {covered} %"
        f"  levels {number(report.levels.spearman)} of {number(report.at_most)}"
        f"  structures {number(report.structures.spearman)}"
        f"  distance: {number(by_distance[0])} {number(by_distance[1])}",
        flush=True,
    )


def scatter(ax: Axes, rows: list[LevelSpread], factor: float) -> None:
    """Errors against widths, and their rms in bins of as many levels."""
    widths = np.concatenate([row.widths for row in rows])
    errors = np.abs(np.concatenate([row.errors for row in rows]))
    ax.loglog(widths, errors, ".", color="0.7", markersize=1.5)
    bins = np.array_split(np.argsort(widths), BINS)
    x, y = np.array([[np.sqrt((v[some] ** 2).mean()) for some in bins] for v in (widths, errors)])
    ax.loglog(x, y, "o-", color="#c1121f", label="rms of levels of like width")
    ends = np.array([x[0], x[-1]])
    ax.loglog(ends, ends, ":", color="0.3", label="error = width")
    ax.loglog(ends, factor * ends, "--", color="#14467c", label=f"error = {factor:.1f} widths")
    ax.set(xlabel="width (meV)", ylabel="error (meV)", ylim=(0.05, 1.5 * errors.max()))
    ax.legend(fontsize="small", frameon=False)


def along_a_path(ax: Axes, ensemble: Ensemble, system: LCAOSystem, factor: float) -> None:
    """Errors of the two bands next to the Fermi level, and where their widths say that they are."""
    predicted = LCAOSystem(system.atoms, ensemble.hamiltonian(system.atoms, system.pairs), system.overlap)
    path = band_path(system.atoms, npoints=60)
    reference = bands(system, path)
    options = {"reference": reference.reference, "overlap_threshold": PREDICTED_THRESHOLD}
    found = band_errors(predicted, path, ensemble.deviations(predicted), **options).aligned(WINDOW)
    errors = found.bands.energies - reference.energies
    errors -= errors[np.abs(reference.energies - reference.reference) <= WINDOW].mean()
    x, ticks, names = band_axis(found.bands)
    above = int((reference.energies[0, 0] < reference.reference).sum())
    for band, color, label in ((above - 1, "#14467c", "below"), (above, "#c1121f", "above")):
        ax.plot(x, 1e3 * errors[0, :, band], color=color, label=f"band {label} $E_F$")
        width = 1e3 * factor * found.widths[0, :, band]
        ax.fill_between(x, -width, width, color=color, alpha=0.2, linewidth=0.0)
    ax.set_xticks(ticks, names)
    ax.set(xlim=(x[0], x[-1]), ylabel=f"error, and {factor:g} widths (meV)")
    ax.legend(fontsize="small", frameon=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--data", nargs="+", required=True, metavar="FILE[:SPLIT]")
    parser.add_argument("--training", required=True, metavar="FILE[:SPLIT]")
    parser.add_argument("--npoints", type=int, default=12, help="k-points of the path (default 12)")
    parser.add_argument("--factor", type=float, default=3.0, help="of the widths in the picture (default 3)")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    ensemble, training = load_ensemble(args.models, "cpu"), [system.atoms for system in systems(args.training)]
    rows: list[LevelSpread] = []
    distances: list[float] = []
    worst: tuple[float, LCAOSystem] | None = None
    for source in args.data:
        start = len(rows)
        for system in systems(source):
            reference = ReferenceSpectrum.of(system, band_path(system.atoms, npoints=args.npoints).kpts)
            found = reference.spread(ensemble.members(system.atoms, system.pairs), WINDOW)
            assert found is not None
            rows.append(found)
            distances.append(float(np.sqrt((environment_coverage(system.atoms, training).distances ** 2).mean())))
            width = float(np.median(found.widths))
            if source == args.data[0] and (worst is None or width > worst[0]):
                worst = width, system
        print_row(Path(source).name, rows[start:], distances[start:])
    if len(args.data) > 1:
        print_row("all", rows, distances)
    if args.output and worst is not None:
        figure = Figure(figsize=(7.4, 3.3), layout="constrained")
        left, right = figure.subplots(1, 2)
        scatter(left, rows, args.factor)
        along_a_path(right, ensemble, worst[1], args.factor)
        save_figure(left, args.output)


if __name__ == "__main__":
    main()
