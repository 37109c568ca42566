"""Every picture of this package. Energies are shifted here and nowhere else.

Figures are made without pyplot: no window, no change of the backend a person has chosen.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.spectrum.band_structure import BandStructure
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from ase_hybridham.files import written_atomically
from ase_hybridham.system import Decay, DecayRow

__all__ = ["new_axes", "plot_bands", "plot_hamiltonian_decay", "save_figure"]

RESOLUTION = 200  # dots per inch
REFERENCE_STYLE: dict[str, Any] = {"color": "0.55", "linewidth": 2.6, "linestyle": "-", "zorder": 2.0}
OVERLAY_STYLE: dict[str, Any] = {"color": "#c1121f", "linewidth": 1.2, "linestyle": (0, (4, 1.6)), "zorder": 3.0}
ALONE_STYLE: dict[str, Any] = {"color": "#14467c", "linewidth": 1.3, "linestyle": "-", "zorder": 3.0}
# spin down, where there are two
REFERENCE_DOWN: dict[str, Any] = {"color": "0.78", "linewidth": 1.8}
OVERLAY_DOWN: dict[str, Any] = {"color": "#1d6fb8", "linestyle": (0, (1, 1.2))}
ALONE_DOWN: dict[str, Any] = {"color": "#c1121f", "linestyle": (0, (4, 1.6))}
MOST_PAIRS = 3  # of elements that a picture tells apart
ROUNDING = 1e-8  # eV; what is smaller vanishes by symmetry
PAIR_COLORS = ("#14467c", "#c1121f", "#2a9d4a")


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
    known = figure.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise ValueError(f"{path}: expected a suffix of {', '.join(sorted(known))}, got {path.suffix!r}")
    with written_atomically(path) as temporary:
        figure.savefig(temporary, dpi=RESOLUTION, format=path.suffix[1:].lower())


def plot_bands(
    bands: BandStructure,
    reference: BandStructure | None = None,
    *,
    labels: Sequence[str] = ("predicted", "DFT"),
    window: float | tuple[float, float] = 4.0,
    zero: str = r"E_\mathrm{F}",
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
    ax : matplotlib Axes, optional
        By default those of a new figure.

    Returns
    -------
    matplotlib Axes
    """
    ax = new_axes() if ax is None else ax
    low, high = (-window, window) if isinstance(window, (int, float)) else window
    x, ticks, names = _axis(bands)
    handles = []
    if reference is not None:
        # its k-points may be spaced otherwise: both paths span the same axis
        other, _, _ = _axis(reference)
        handles = _draw(ax, other * (x[-1] / other[-1]), reference, labels[1], REFERENCE_STYLE, REFERENCE_DOWN)
    styles = (ALONE_STYLE, ALONE_DOWN) if reference is None else (OVERLAY_STYLE, OVERLAY_DOWN)
    handles = [*_draw(ax, x, bands, labels[0] if handles else "", *styles), *handles]
    ax.axhline(0.0, color="0.2", linewidth=0.7, linestyle=":", zorder=1.0)
    for tick in ticks[1:-1]:
        ax.axvline(tick, color="0.85", linewidth=0.7, zorder=0.5)
    ax.set_xticks(ticks, names)
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(low, high)
    ax.set_ylabel(rf"$E - {zero}$ (eV)")
    if len(handles) > 1:
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.2}
        fontsize = "medium" if len(handles) == 2 else "small"
        ax.legend(handles=handles, ncols=2, frameon=False, fontsize=fontsize, **place)
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


def _middles(rows: Sequence[DecayRow]) -> tuple[NDArray[np.float64], Sequence[DecayRow]]:
    return np.array([0.5 * (row.start + row.end) for row in rows]), rows


def _positive(values: Sequence[float]) -> NDArray[np.float64]:
    """What a logarithmic axis can show."""
    sizes = np.array(values, dtype=float)
    return np.where(sizes > 0, sizes, np.nan)


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


def _axis(bands: BandStructure) -> tuple[NDArray, list[float], list[str]]:
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
