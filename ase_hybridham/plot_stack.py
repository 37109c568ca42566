"""A stack of layers seen from above."""

from typing import Any

import numpy as np
from ase import Atoms
from matplotlib.axes import Axes
from numpy.typing import NDArray

from ase_hybridham.plot import PAIR_COLORS, new_axes

__all__ = ["plot_stack"]

MOST = 2.0  # distance at which colors end


def plot_stack(atoms: Atoms, distances: NDArray | None = None, *, ax: Axes | None = None) -> Axes:
    """A stack of layers from above, with its cell and what lies around it, layers in different colors.

    Parameters
    ----------
    atoms : ase.Atoms
        The array `tags` numbers the layers.
    distances : array, shape (n_atoms,), optional
        Of `structures.EnvironmentCoverage`: colors tell them instead of the layers.
    ax : matplotlib Axes, optional
        By default those of a new figure.
    """
    ax = new_axes(5.2, 3.8) if ax is None else ax
    cell = atoms.cell.array[:2, :2]
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]) @ cell
    low, high = corners.min(axis=0), corners.max(axis=0)
    margin = 0.04 * float((high - low).max())
    images = np.array([[p, q] for p in (-1, 0, 1) for q in (-1, 0, 1)]) @ cell
    x, y = np.moveaxis(atoms.positions[None, :, :2] + images[:, None], -1, 0)
    seen = (x > low[0] - margin) & (x < high[0] + margin) & (y > low[1] - margin) & (y < high[1] + margin)
    length = 72 * 3.2 / float((high - low).max() + 2 * margin)  # points for an angstrom
    for layer in np.unique(atoms.get_tags()):
        rows = seen & (atoms.get_tags() == layer)
        style: Any = {"s": max((0.7 * length) ** 2, 0.15), "linewidths": 0, "zorder": 2.0 + 0.01 * layer}
        if distances is None:
            ax.scatter(x[rows], y[rows], color=PAIR_COLORS[layer % len(PAIR_COLORS)], alpha=0.7, **style)
        else:
            values = np.broadcast_to(np.minimum(distances, MOST), x.shape)[rows]
            image = ax.scatter(x[rows], y[rows], c=values, cmap="coolwarm", vmin=0.0, vmax=MOST, **style)
    if distances is not None:
        figure = ax.get_figure()
        assert figure is not None
        figure.colorbar(image, ax=ax, label="distance to the training set (1: its own)", shrink=0.8)
    ax.plot(*corners.T, color="0.2", linewidth=1.0, zorder=3.0)
    ax.set_aspect("equal")
    ax.set_xlim(low[0] - margin, high[0] + margin)
    ax.set_ylim(low[1] - margin, high[1] + margin)
    ax.set_xlabel(r"x ($\mathrm{\AA}$)")
    ax.set_ylabel(r"y ($\mathrm{\AA}$)")
    return ax
