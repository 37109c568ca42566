"""The picture of errors by orbitals: which panel shows what."""

import numpy as np
import pytest

from ase_hybridham.plot import check_format, plot_orbital_map, save_figure
from ase_hybridham.system import OrbitalMap
from tests.system.test_orbital_map import random_blocks


def test_every_panel_shows_its_means(mixed_basis, tmp_path):
    errors = OrbitalMap.of([random_blocks(mixed_basis, 1)])
    axes = plot_orbital_map(errors, title="x")
    panels = list(errors.panels.values())
    assert len(axes) == len(panels) > 3
    for ax, panel in zip(axes, panels, strict=True):
        (image,) = ax.get_images()
        np.testing.assert_allclose(image.get_array(), panel.mean)
        assert ax.get_title().startswith(f"{panel.pair} {'on-site' if panel.kind == 'onsite' else 'hopping'}, mean ")
        assert [label.get_text() for label in ax.get_xticklabels()][:1] == ["s1"]
        assert len(ax.get_yticks()) == len(panel.rows.shells)
    # one scale for all panels of a kind
    largest = {kind: max(p.mean.max() for p in panels if p.kind == kind) for kind in ("onsite", "hopping")}
    assert [ax.get_images()[0].get_clim()[1] for ax in axes] == [largest[panel.kind] for panel in panels]
    save_figure(axes[0], tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 10_000


def test_no_error_at_all_is_drawn(mixed_basis):
    blocks = random_blocks(mixed_basis)
    axes = plot_orbital_map(OrbitalMap.of([blocks.with_values(0.0 * blocks.values)]))
    assert axes[0].get_images()[0].get_clim() == (0, 1)


def test_formats_are_known_before_long_work():
    check_format("x.pdf")
    with pytest.raises(ValueError, match=r"x\.doc: expected a suffix of .*png.*, got '\.doc'"):
        check_format("x.doc")
