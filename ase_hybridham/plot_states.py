"""Pictures of what is known of states: density of states, fat bands, spectral functions, error bars."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ase.spectrum.doscollection import GridDOSCollection
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from ase_hybridham.plot import ABOVE, PAIR_COLORS, band_axis, frame_bands, new_axes, plot_bands
from ase_hybridham.solve import Bands, WeightedBands

__all__ = ["plot_dos", "plot_fat_bands", "plot_spectral_function", "shade_errors"]

GROUP_COLORS = (*PAIR_COLORS, "#e08a00", "#7b3fa0", "#1aa6b7", "#8c564b", "#d6539b")
DISK = 26.0  # points^2, the area of a disk of weight 1


def plot_fat_bands(
    weighted: WeightedBands, *, window: float | tuple[float, float] = 4.0, ax: Axes | None = None
) -> Axes:
    """Bands with disks whose areas are the weights, one group around the other, the bands' `reference` at zero.

    Parameters
    ----------
    weighted : WeightedBands
        Of more than eight groups those with the largest weights are drawn.
    window, ax
        As in `plot_bands`.

    Returns
    -------
    matplotlib Axes
    """
    ax = plot_bands(weighted.bands, window=window, ax=ax)
    for line in ax.get_lines():
        line.set(color="0.7", linewidth=0.6)
    if legend := ax.get_legend():
        legend.remove()
    x, _, _ = band_axis(weighted.bands)
    energies = weighted.bands.energies - weighted.bands.reference
    shown = np.isfinite(energies)
    x = np.broadcast_to(x[:, None] if len(energies[0]) == len(x) else x.mean(), energies.shape)
    groups = _largest(np.where(shown[..., None], weighted.weights, 0.0).sum(axis=(0, 1, 2)))
    outer = np.cumsum(weighted.weights[..., groups].clip(0), axis=-1)
    for n in reversed(range(len(groups))):  # the widest disks first
        disks: dict[str, Any] = {
            "color": GROUP_COLORS[n],
            "linewidths": 0.0,
            "zorder": 3.0,
            "label": _name(weighted.infos[groups[n]]),
        }
        ax.scatter(x[shown], energies[shown], s=DISK * outer[..., n][shown], **disks)
    named = [n for n, group in enumerate(groups) if _name(weighted.infos[group])]
    if named:
        disk: dict[str, Any] = {"marker": "o", "markersize": np.sqrt(DISK), "linestyle": ""}
        handles = [Line2D([], [], color=GROUP_COLORS[n], label=_name(weighted.infos[groups[n]]), **disk) for n in named]
        ax.legend(handles=handles, ncols=4, fontsize="small", handletextpad=0.1, **ABOVE)
    return ax


def plot_spectral_function(
    weighted: WeightedBands,
    *,
    width: float = 0.05,
    window: float | tuple[float, float] = 4.0,
    ax: Axes | None = None,
) -> Axes:
    """A(k, E) as a map, all groups and spins added up; black is the peak of a whole state.

    Parameters
    ----------
    weighted : WeightedBands
        Such as `solve.unfold` returns.
    width : float
        Of the states, eV; see `WeightedBands.spectral_function`.
    window, ax
        As in `plot_bands`.

    Returns
    -------
    matplotlib Axes
    """
    ax = new_axes() if ax is None else ax
    low, high = (-window, window) if isinstance(window, (int, float)) else window
    x, ticks, names = band_axis(weighted.bands)
    energies = np.linspace(low, high, int(np.clip(4 * (high - low) / width, 200, 2000)))
    spectrum = weighted.spectral_function(energies + weighted.bands.reference, width=width).sum(axis=(0, 2))
    if len(spectrum) < len(x):  # one k-point
        spectrum = np.repeat(spectrum, len(x), axis=0)
    top = 1 / (np.sqrt(np.pi) * width)
    options = {"cmap": "Greys", "vmin": 0.0, "vmax": top, "shading": "nearest", "rasterized": True}
    image = ax.pcolormesh(x, energies, spectrum.T, **options)
    frame_bands(ax, x, ticks, names, (low, high), r"E_\mathrm{F}")
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.colorbar(image, ax=ax, label="A (1/eV)", shrink=0.85)
    return ax


def shade_errors(ax: Axes, bands: Bands, widths: NDArray[np.float64], *, color: str = "#c1121f") -> None:
    """A strip from E - width to E + width along every band that `plot_bands` has drawn.

    Parameters
    ----------
    ax : matplotlib Axes
        Of `plot_bands`.
    bands : Bands
        As given there.
    widths : array, shape (n_spins, n_k, n_bands)
        eV, such as `BandErrors.widths`.
    """
    x, _, _ = band_axis(bands)
    for energies, of_spin in zip(bands.energies - bands.reference, widths, strict=True):
        found = np.isfinite(energies)
        middle, width = np.where(found, energies, np.nan), np.where(found, of_spin, 0.0)
        for low, high in zip((middle - width).T, (middle + width).T, strict=True):
            lower, upper = (np.broadcast_to(edge, len(x)) for edge in (low, high))  # one k-point: a level
            ax.fill_between(x, lower, upper, color=color, alpha=0.3, linewidth=0.0, zorder=2.5)


def plot_dos(
    dos: GridDOSCollection,
    *,
    reference: float = 0.0,
    window: float | tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Density of states: a gray area for the whole, a line for each group; spin down below the axis.

    Parameters
    ----------
    dos : ase GridDOSCollection
        As `solve.density_of_states` returns; of more than eight groups the largest are drawn.
    reference : float
        Energy at zero, eV, such as the Fermi level.
    window : float or (float, float), optional
        As in `plot_bands`; by default all energies of the grid.
    ax : matplotlib Axes, optional
        By default those of a new figure.

    Returns
    -------
    matplotlib Axes
    """
    ax = new_axes() if ax is None else ax
    x = np.asarray(dos.get_energies()) - reference
    for sign, entries in ((1, [e for e in dos if e.info.get("spin") != "down"]), (-1, [*dos.select(spin="down")])):
        curves = sign * np.array([entry.get_weights() for entry in entries]).reshape(-1, len(x))
        ax.fill_between(x, curves.sum(axis=0), color="0.85", linewidth=0, label="all" if sign == 1 else None)
        for n, group in enumerate(_largest(np.abs(curves).sum(axis=1))):
            name = _name(entries[group].info)
            if name:
                ax.plot(x, curves[group], color=GROUP_COLORS[n], linewidth=1.2, label=name if sign == 1 else None)
    ax.axvline(0.0, color="0.2", linewidth=0.7, linestyle=":", zorder=1.0)
    low, high = (x[0], x[-1]) if window is None else (-window, window) if isinstance(window, (int, float)) else window
    ax.set_xlim(max(low, x[0]), min(high, x[-1]))
    ax.set_xlabel(r"$E - E_\mathrm{F}$ (eV)")
    ax.set_ylabel("states per eV and cell")
    ax.legend(ncols=4, fontsize="small", **ABOVE)
    return ax


def _largest(sizes: NDArray) -> list[int]:
    """As many groups as there are colors, in their order."""
    return sorted(np.argsort(-sizes, kind="stable")[: len(GROUP_COLORS)].tolist())


def _name(info: Mapping[str, str]) -> str:
    return " ".join(value if key != "layer" else f"layer {value}" for key, value in info.items() if key != "spin")
