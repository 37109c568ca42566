"""Pictures of densities of states, fat bands and spectral functions: what is drawn where."""

import numpy as np
import pytest
from ase.spectrum.doscollection import GridDOSCollection

from ase_hybridham.plot import plot_bands, save_figure
from ase_hybridham.plot_states import GROUP_COLORS, plot_dos, plot_fat_bands, plot_spectral_function, shade_errors
from ase_hybridham.solve import WeightedBands
from tests.test_plot import hexagonal_bands


def weighted(n_groups: int, n_spins: int = 1) -> WeightedBands:
    bands = hexagonal_bands(n_spins)
    weights = np.random.default_rng(n_groups).dirichlet(np.ones(n_groups), size=bands.energies.shape)
    return WeightedBands(bands, weights, tuple({"symbol": "C", "l": str(n)} for n in range(n_groups)))


def legend(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_disks_lie_on_the_bands_and_their_areas_add_up():
    fat = weighted(3)
    ax = plot_fat_bands(fat, window=(-6, 3))
    outer, middle, inner = ax.collections
    energies = fat.bands.energies[0] + 3.0
    for disks in (outer, middle, inner):
        np.testing.assert_allclose(disks.get_offsets()[:, 1], energies.ravel())
    np.testing.assert_allclose(outer.get_sizes(), outer.get_sizes()[0])  # all groups together: 1
    share = inner.get_sizes() / outer.get_sizes()
    np.testing.assert_allclose(share, fat.weights[..., 0].ravel(), atol=1e-12)
    assert legend(ax) == ["C 0", "C 1", "C 2"]
    assert ax.get_ylim() == (-6, 3)


def test_of_many_groups_the_largest_are_drawn_and_negative_weights_are_not():
    fat = weighted(12)
    fat.weights[..., 5] *= 100
    fat.weights[..., 7] = -0.01
    ax = plot_fat_bands(fat)
    assert len(ax.collections) == len(GROUP_COLORS)
    assert "C 5" in legend(ax)
    assert "C 7" not in legend(ax)
    assert min(disks.get_sizes().min() for disks in ax.collections) >= 0


def test_spectral_function_is_dark_on_the_bands(tmp_path):
    whole = weighted(1, n_spins=2)
    whole.bands.energies[0, :, 2] = np.inf  # no state
    ax = plot_spectral_function(whole, width=0.1, window=(-4, 8))
    (mesh,) = ax.collections
    values, edges = mesh.get_array(), mesh.get_coordinates()
    assert values.max() == pytest.approx(1 / (np.sqrt(np.pi) * 0.1), rel=0.3)
    middle = 0.5 * (edges[:-1, 0, 1] + edges[1:, 0, 1])
    column = values[:, 3]
    levels = whole.bands.energies[:, 3].ravel() + 3.0
    near = np.abs(middle[:, None] - levels[np.isfinite(levels)]).min(axis=1)
    assert column[near > 0.5].max() < 1e-3 < 1 < column[near < 0.01].min()
    save_figure(ax, tmp_path / "a.png")


def test_density_of_states_has_spin_down_below_and_its_reference_at_zero():
    grid, rng = np.linspace(-10, 2, 30), np.random.default_rng(1)
    infos = [{"symbol": s, "spin": spin} for spin in ("up", "down") for s in "CO"]
    curves = rng.uniform(1, 2, size=(4, 30))
    ax = plot_dos(GridDOSCollection.from_data(grid, curves, infos), reference=-4.0, window=3)
    assert legend(ax) == ["all", "C", "O"]
    drawn = [line for line in ax.get_lines() if len(line.get_xdata()) == 30]
    np.testing.assert_allclose([line.get_ydata() for line in drawn], curves * np.array([[1], [1], [-1], [-1]]))
    np.testing.assert_allclose(drawn[0].get_xdata(), grid + 4)
    assert drawn[0].get_color() == drawn[2].get_color() != drawn[1].get_color()
    assert ax.get_xlim() == (-3, 3)


def test_a_density_without_groups_is_an_area():
    grid = np.linspace(-1, 1, 9)
    ax = plot_dos(GridDOSCollection.from_data(grid, [np.ones(9)], [{}]))
    assert legend(ax) == ["all"]
    assert ax.get_xlim() == (-1, 1)


def test_strips_of_error_bars_lie_around_the_bands():
    bands = hexagonal_bands(1)
    bands.energies[0, :, -1] = np.inf  # no state
    widths = np.random.default_rng(0).uniform(0.1, 0.3, size=bands.energies.shape)
    ax = plot_bands(bands)
    shade_errors(ax, bands, widths)
    first = ax.collections[0].get_paths()[0].vertices
    middle = bands.energies[0, :, 0] - bands.reference
    for x, low, high in zip(
        ax.get_lines()[0].get_xdata(), middle - widths[0, :, 0], middle + widths[0, :, 0], strict=True
    ):
        edges = first[np.isclose(first[:, 0], x), 1]
        assert edges.min() == pytest.approx(low)
        assert edges.max() == pytest.approx(high)
