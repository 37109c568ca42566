"""Every picture of this package. Energies are shifted here and nowhere else.

Figures are made without pyplot: no window, no change of the backend a person has chosen.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.spectrum.band_structure import BandStructure
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from ase_hybridham.files import written_atomically
from ase_hybridham.structures import Independence
from ase_hybridham.system import AtomBasis, Decay, DecayRow, OrbitalMap
from ase_hybridham.system.orbital_map import shell_names

__all__ = [
    "check_format",
    "new_axes",
    "plot_bands",
    "plot_hamiltonian_decay",
    "plot_independence",
    "plot_learning",
    "plot_orbital_map",
    "save_figure",
]

RESOLUTION = 200  # dots per inch
REFERENCE_STYLE: dict[str, Any] = {"color": "0.55", "linewidth": 2.6, "linestyle": "-", "zorder": 2.0}
OVERLAY_STYLE: dict[str, Any] = {"color": "#c1121f", "linewidth": 1.2, "linestyle": (0, (4, 1.6)), "zorder": 3.0}
ALONE_STYLE: dict[str, Any] = {"color": "#14467c", "linewidth": 1.3, "linestyle": "-", "zorder": 3.0}
# spin down, where there are two
REFERENCE_DOWN: dict[str, Any] = {"color": "0.78", "linewidth": 1.8}
OVERLAY_DOWN: dict[str, Any] = {"color": "#1d6fb8", "linestyle": (0, (1, 1.2))}
ALONE_DOWN: dict[str, Any] = {"color": "#c1121f", "linestyle": (0, (4, 1.6))}
POINTS: dict[str, Any] = {"linestyle": "", "marker": ".", "markersize": 3.0}
MOST_PAIRS = 3  # of elements that a picture tells apart
ROUNDING = 1e-8  # eV; what is smaller vanishes by symmetry
PAIR_COLORS = ("#14467c", "#c1121f", "#2a9d4a")
ABOVE: dict[str, Any] = {
    "loc": "lower left",
    "bbox_to_anchor": (0.0, 1.0),
    "borderaxespad": 0.2,
    "frameon": False,
}


def new_axes(width: float = 4.6, height: float = 4.0) -> Axes:
    """Axes of a new figure of `width` x `height` inches."""
    return Figure(figsize=(width, height), dpi=RESOLUTION, layout="constrained").subplots()


def save_figure(ax: Axes, path: str | Path) -> None:
    """Write the figure of `ax`; the suffix says the format (.png, .pdf, .svg).

    Raises
    ------
    ValueError
        If matplotlib does not know the format.
    OSError
        If the folder cannot be written.
    """
    figure, path = ax.get_figure(root=True), Path(path)
    assert figure is not None
    check_format(path)
    with written_atomically(path) as temporary:
        figure.savefig(temporary, dpi=RESOLUTION, format=path.suffix[1:].lower())


def check_format(path: str | Path) -> None:
    """Whether `save_figure` can write such a file: asked before long work.

    Raises
    ------
    ValueError
        If matplotlib does not know the format.
    """
    known = Figure().canvas.get_supported_filetypes()
    if Path(path).suffix[1:].lower() not in known:
        raise ValueError(f"{path}: expected a suffix of {', '.join(sorted(known))}, got {Path(path).suffix!r}")


def plot_bands(
    bands: BandStructure,
    reference: BandStructure | None = None,
    *,
    labels: Sequence[str] = ("predicted", "DFT"),
    window: float | tuple[float, float] = 4.0,
    zero: str = r"E_\mathrm{F}",
    points: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Bands, alone or over a reference, each with its own `reference` energy at zero; up and down in two styles.

    Parameters
    ----------
    bands : ase BandStructure
        eV. One k-point only (a molecule) gives levels.
    reference : ase BandStructure, optional
        Drawn below, broad and gray; its path may have other points than that of `bands`, but the same ends.
    labels : sequence of str
        Names of the two in the legend.
    window : float or (float, float)
        Energies shown, eV: +- one number, or from the first to the second.
    zero : str
        What lies at zero, as TeX.
    points : bool
        Dots instead of lines: states whose numbers are not known, so that none belongs to the one before.
    ax : matplotlib Axes, optional
        By default those of a new figure.

    Returns
    -------
    matplotlib Axes
    """
    ax = new_axes() if ax is None else ax
    low, high = (-window, window) if isinstance(window, (int, float)) else window
    x, ticks, names = band_axis(bands)
    handles = []
    if reference is not None:
        # its k-points may be spaced otherwise: both paths span the same axis
        other, _, _ = band_axis(reference)
        handles = _draw(ax, other * (x[-1] / other[-1]), reference, labels[1], REFERENCE_STYLE, REFERENCE_DOWN)
    styles = (ALONE_STYLE, ALONE_DOWN) if reference is None else (OVERLAY_STYLE, OVERLAY_DOWN)
    if points:
        styles = (styles[0] | POINTS, styles[1] | POINTS)
    handles = [*_draw(ax, x, bands, labels[0] if handles else "", *styles), *handles]
    frame_bands(ax, x, ticks, names, (low, high), zero)
    if len(handles) > 1:
        ax.legend(handles=handles, ncols=2, fontsize="medium" if len(handles) == 2 else "small", **ABOVE)
    return ax


def plot_hamiltonian_decay(hamiltonian: Decay, overlap: Decay | None = None, *, ax: Axes | None = None) -> Axes:
    """|H| against distance, on-site at 0: the mean, the band from 10 to 90 % of the elements, and the largest.

    Parameters
    ----------
    hamiltonian : Decay
        eV. Up to three pairs of elements are told apart, more are taken together.
    overlap : Decay, optional
        Its mean is drawn too, gray.
    ax : matplotlib Axes, optional
        By default those of a new figure.

    Returns
    -------
    matplotlib Axes
    """
    ax = new_axes() if ax is None else ax
    few = len(hamiltonian.pairs) <= MOST_PAIRS
    names: list[tuple[str, ...]] = [(name,) for name in hamiltonian.pairs] if few else [()]
    for name, color in zip(names, PAIR_COLORS, strict=False):
        x, rows = _middles(hamiltonian.rows(*name))
        mean, largest = (_positive([getattr(row, key) for row in rows]) for key in ("mean", "largest"))
        low, high = (np.maximum([getattr(row, key) for row in rows], ROUNDING) for key in ("low", "high"))
        label = name[0] if name else "all elements"
        ax.plot(x, mean, color=color, linewidth=1.5, marker="o", markersize=3, label=label)
        ax.plot(x, largest, color=color, linewidth=0.9, linestyle=":")
        ax.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
    if overlap is not None:
        x, rows = _middles(overlap.rows())
        ax.plot(x, _positive([row.mean for row in rows]), color="0.5", linewidth=1.2, linestyle="--", label="|S|")
    ax.set_yscale("log")
    ax.set_xlabel(r"distance ($\mathrm{\AA}$)")
    ax.set_ylabel("|H| (eV)" if overlap is None else "|H| (eV), |S|")
    ax.legend(
        loc="lower left",
        frameon=False,
        title="mean, 10-90 %, largest (dotted)",
        title_fontsize="small",
        fontsize="small",
    )
    return ax


def plot_orbital_map(errors: OrbitalMap, *, title: str = "", unit: str = "meV") -> list[Axes]:
    """Mean |M| of every two orbitals, on-site panels above hoppings, one for every pair of elements.

    Parameters
    ----------
    errors : OrbitalMap
    title : str
        Of the figure.
    unit : str
        Of M.

    Returns
    -------
    list of matplotlib Axes
        Of a new figure, in the order of the panels of `errors`.
    """
    kinds = [[p for p in errors.panels.values() if p.kind == kind] for kind in ("onsite", "hopping")]
    rows = [panels for panels in kinds if panels]
    n_columns = max(len(panels) for panels in rows)
    shape = (len(rows), n_columns) if n_columns > 1 else (1, len(rows))  # of one element side by side
    figure = Figure(figsize=(0.9 + 3.1 * shape[1], 0.4 + 2.9 * shape[0]), dpi=RESOLUTION, layout="constrained")
    grid = figure.subplots(*shape, squeeze=False).reshape(len(rows), n_columns)
    figure.suptitle(title, fontsize="medium")
    axes = []
    for panels, places in zip(rows, grid, strict=True):
        largest = max(float(panel.mean.max()) for panel in panels) or 1.0  # one scale for a row
        for panel, ax in zip(panels, places, strict=False):
            image = ax.imshow(panel.mean, cmap="magma_r", vmin=0.0, vmax=largest, interpolation="nearest")
            kind = "on-site" if panel.kind == "onsite" else panel.kind
            ax.set_title(f"{panel.pair} {kind}, mean {panel.mean.mean():.3g}", fontsize="small")
            _mark_shells(ax.xaxis, ax.axvline, panel.columns)
            _mark_shells(ax.yaxis, ax.axhline, panel.rows)
            axes.append(ax)
        for ax in places[len(panels) :]:
            ax.set_axis_off()
        figure.colorbar(image, ax=places[: len(panels)].tolist(), label=unit, shrink=0.85)
    return axes


def _mark_shells(axis: Axis, line: Callable[..., object], atom: AtomBasis) -> None:
    """Names of shells along an axis of orbitals, and thin lines between them."""
    axis.set_ticks([0.5 * (part.start + part.stop - 1) for part in atom.slices], shell_names(atom))
    axis.set_tick_params(length=0, labelsize="small")
    for part in atom.slices[1:]:
        line(part.start - 0.5, color="0.75", linewidth=0.5)


def plot_independence(report: Independence, *, ax: Axes | None = None) -> Axes:
    """Share of pairs whose atoms move against each other, against distance; the crystal's own cell in gray."""
    ax = new_axes() if ax is None else ax
    x = [0.5 * (row.start + row.end) for row in report.rows]
    width = report.rows[0].end - report.rows[0].start
    ax.bar(x, [100 * row.independent for row in report.rows], 0.9 * width, color=PAIR_COLORS[0], label="structures")
    own = [(d, 100 * row.crystal) for d, row in zip(x, report.rows, strict=True) if row.crystal is not None]
    ax.bar([d for d, _ in own], [share for _, share in own], 0.4 * width, color="0.75", label="crystal")
    ax.set_xlabel(r"distance ($\mathrm{\AA}$)")
    ax.set_ylabel("pairs that move independently (%)")
    ax.set_ylim(0, 105)
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, frameon=False)
    return ax


def plot_learning(
    curves: Mapping[str, Sequence[tuple[float, float]]], *, goal: float | None = None, ax: Axes | None = None
) -> Axes:
    """Validation MAE in meV against the number of structures computed; a line for the MAE that is wanted.

    Parameters
    ----------
    curves : mapping
        Name -> (number of structures, MAE in meV), ascending.
    goal : float, optional
        meV.
    """
    ax = new_axes() if ax is None else ax
    for (name, points), color in zip(curves.items(), PAIR_COLORS, strict=False):
        ax.plot(*zip(*points, strict=True), color=color, linewidth=1.4, marker="o", markersize=4, label=name)
    if goal is not None:
        ax.axhline(goal, color="0.4", linewidth=0.9, linestyle="--")
    ax.set_yscale("log")
    ax.set_xlabel("structures computed with DFT")
    ax.set_ylabel("validation MAE of H (meV)")
    if len(curves) > 1:
        ax.legend(frameon=False)
    return ax


def _middles(rows: Sequence[DecayRow]) -> tuple[NDArray[np.float64], Sequence[DecayRow]]:
    return np.array([0.5 * (row.start + row.end) for row in rows]), rows


def _positive(values: Sequence[float]) -> NDArray[np.float64]:
    """What a logarithmic axis can show."""
    sizes = np.array(values, dtype=float)
    return np.where(sizes > 0, sizes, np.nan)


def frame_bands(
    ax: Axes, x: NDArray, ticks: Sequence[float], names: Sequence[str], window: tuple[float, float], zero: str
) -> None:
    """Special points, limits and labels of an axis of k-points and one of energies."""
    ax.axhline(0.0, color="0.2", linewidth=0.7, linestyle=":", zorder=1.0)
    for tick in ticks[1:-1]:
        ax.axvline(tick, color="0.85", linewidth=0.7, zorder=0.5)
    ax.set_xticks(ticks, names)
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(*window)
    ax.set_ylabel(rf"$E - {zero}$ (eV)")


def _draw(
    ax: Axes, x: NDArray, bands: BandStructure, label: str, style: dict[str, Any], down: dict[str, Any]
) -> list[Line2D]:
    """Entries of the legend, one for each spin."""
    energies, handles = bands.energies - bands.reference, []
    names = [label] if len(energies) == 1 else [f"{label} up".strip(), f"{label} down".strip()]
    for channel, name, change in zip(energies, names, ({}, down), strict=False):
        seen = np.where(np.isfinite(channel), channel, np.nan)  # +inf: no state
        ax.plot(x, np.broadcast_to(seen, (len(x), channel.shape[1])), **style | change)
        handles.append(Line2D([], [], label=name, **style | change))
    return handles


def band_axis(bands: BandStructure) -> tuple[NDArray, list[float], list[str]]:
    """Distance along the path, and the special points on it with their names."""
    if len(bands.path.kpts) == 1:
        return np.array([0.0, 1.0]), [0.5], [""]
    if not bands.path.special_points:  # listed points, none of which has a name
        steps = np.linalg.norm(np.diff(bands.path.cartesian_kpts(), axis=0), axis=1)
        return np.concatenate([[0.0], np.cumsum(steps)]), [], []
    x, ticks, names = bands.get_labels()
    merged: list[tuple[float, str]] = []
    for tick, name in zip(map(float, ticks), map(_pretty, names), strict=True):
        if merged and tick - merged[-1][0] < 1e-9:  # a path that jumps, or another program's doubled point
            previous = merged.pop()[1]
            name = previous if name in ("", previous) else f"{previous}|{name}" if previous else name
        merged.append((tick, name))
    return np.asarray(x), [tick for tick, _ in merged], [name for _, name in merged]


def _pretty(name: str) -> str:
    """G -> Gamma, K1 -> K with a subscript; nothing for a point without a name."""
    if name in ("G", "Gamma", "Γ"):
        return r"$\Gamma$"
    match = re.fullmatch(r"([A-Za-z]+)(\d+)", name)
    return rf"{match[1]}$_{{{match[2]}}}$" if match else name.replace("?", "")
