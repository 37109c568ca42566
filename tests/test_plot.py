"""Pictures: what is drawn where, and that nothing outside the figure changes."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from ase.cell import Cell
from ase.dft.kpoints import BandPath
from ase.spectrum.band_structure import BandStructure

from ase_hybridham.plot import new_axes, plot_bands, plot_hamiltonian_decay, save_figure
from ase_hybridham.system import Decay, PairBlocks, PairList
from tests.conftest import random_atoms

HEXAGONAL = Cell.new([2.46, 2.46, 15, 90, 90, 120])


def hexagonal_bands(n_spins: int = 1, npoints: int = 30, reference: float = -3.0) -> BandStructure:
    path = HEXAGONAL.bandpath("GMKG", npoints=npoints, pbc=(True, True, False))
    k = np.linalg.norm(path.kpts @ HEXAGONAL.reciprocal(), axis=1)
    energies = np.stack([-6 + 5 * k, -2 + k, 4 - k], axis=-1)
    return BandStructure(path, np.stack([energies + s for s in range(n_spins)]), reference=reference)


def curves(ax) -> list[np.ndarray]:
    """The lines of many points."""
    return [line.get_ydata() for line in ax.get_lines() if len(line.get_ydata()) > 2]


def test_bands_are_drawn_with_their_reference_at_zero():
    bands = hexagonal_bands()
    ax = plot_bands(bands)
    np.testing.assert_allclose(np.array(curves(ax)).T, bands.energies[0] + 3.0)
    assert [label.get_text() for label in ax.get_xticklabels()] == [r"$\Gamma$", "M", "K", r"$\Gamma$"]
    assert "(eV)" in ax.get_ylabel()
    assert ax.get_legend() is None


def test_reference_lies_below_in_another_style_and_on_the_same_axis():
    predicted, dft = hexagonal_bands(), hexagonal_bands(npoints=12, reference=-2.5)
    ax = plot_bands(predicted, dft, labels=("ours", "theirs"), window=3)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["ours", "theirs"]
    handles = ax.get_legend().legend_handles
    drawn = [line for line in ax.get_lines() if len(line.get_xdata()) > 2]
    theirs, ours = drawn[:3], drawn[3:]
    np.testing.assert_allclose([line.get_ydata() for line in theirs], dft.energies[0].T + 2.5)
    assert theirs[0].get_zorder() < ours[0].get_zorder()
    assert theirs[0].get_color() == handles[1].get_color() != handles[0].get_color() == ours[0].get_color()
    assert theirs[0].get_xdata()[-1] == pytest.approx(ours[0].get_xdata()[-1])
    assert ax.get_ylim() == (-3, 3)


def test_given_axes_are_used_and_two_spins_drawn():
    ax = new_axes()
    assert plot_bands(hexagonal_bands(n_spins=2), ax=ax, window=(-1, 5)) is ax
    assert len(curves(ax)) == 6
    assert ax.get_ylim() == (-1, 5)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["up", "down"]


def test_every_spin_of_every_source_has_its_style_and_its_name():
    ax = plot_bands(hexagonal_bands(n_spins=2), hexagonal_bands(n_spins=2, npoints=12), labels=("ours", "theirs"))
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["ours up", "ours down", "theirs up", "theirs down"]
    handles = [(line.get_color(), line.get_linestyle()) for line in ax.get_legend().legend_handles]
    drawn = [line for line in ax.get_lines() if len(line.get_xdata()) > 2]
    assert len({color for color, _ in handles}) == 4
    styles = [(line.get_color(), line.get_linestyle()) for line in drawn[::3]]
    assert styles == [*handles[2:], *handles[:2]]
    mixed = plot_bands(hexagonal_bands(), hexagonal_bands(n_spins=2)).get_legend()
    assert [text.get_text() for text in mixed.get_texts()] == ["predicted", "DFT up", "DFT down"]


def test_doubled_points_and_jumps_are_labeled_once():
    k = np.array([[0, 0, 0], [0.25, 0, 0], [0.5, 0, 0], [0.5, 0, 0], [0.4, 0.1, 0], [1 / 3, 1 / 3, 0]])
    special = {"Gamma": k[0], "M1": k[2], "K": k[5]}
    ax = plot_bands(BandStructure(BandPath(HEXAGONAL, k, special), np.zeros((1, 6, 1)), reference=0.0))
    names = [label.get_text() for label in ax.get_xticklabels()]
    assert names[:2] == [r"$\Gamma$", "M$_{1}$"]
    assert names[-1] == "K"
    jump = HEXAGONAL.bandpath("GM,KG", npoints=12, pbc=(True, True, False))
    ax = plot_bands(BandStructure(jump, np.zeros((1, len(jump.kpts), 1)), reference=0.0))
    assert [label.get_text() for label in ax.get_xticklabels()] == [r"$\Gamma$", "M|K", r"$\Gamma$"]


def test_a_molecule_is_a_ladder_of_levels():
    levels = BandStructure(BandPath(HEXAGONAL, np.zeros((1, 3))), np.array([[[-1.0, 2.0]]]), reference=0.5)
    heights = [line.get_ydata()[0] for line in plot_bands(levels).get_lines()[:2]]
    assert heights == [-1.5, 1.5]


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_saving_leaves_one_file_and_the_backend_alone(tmp_path, suffix):
    backend, figures = matplotlib.get_backend(), plt.get_fignums()
    save_figure(plot_bands(hexagonal_bands(), hexagonal_bands()), tmp_path / f"bands{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == [f"bands{suffix}"]
    assert (tmp_path / f"bands{suffix}").stat().st_size > 5000
    assert matplotlib.get_backend() == backend
    assert plt.get_fignums() == figures


def test_unknown_picture_format_is_an_error_that_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"bands\.xyz: expected a suffix of"):
        save_figure(plot_bands(hexagonal_bands()), tmp_path / "bands.xyz")
    assert not list(tmp_path.iterdir())


def test_listed_points_without_names_are_spaced_by_their_distance():
    k = np.array([[0.0, 0, 0], [0.1, 0, 0], [0.3, 0, 0]])
    path = BandPath(np.eye(3), k)
    ax = plot_bands(BandStructure(path, np.zeros((1, 3, 2)), reference=0.0))
    x = ax.lines[0].get_xdata()
    assert x[2] == pytest.approx(3 * x[1])
    assert not ax.get_xticklabels()


def random_decay(basis, seed: int) -> Decay:
    pairs = PairList.from_atoms(random_atoms(seed, 8), basis.cutoffs())
    zeros = PairBlocks.zeros(pairs, basis)
    return Decay.of(zeros.with_values(np.random.default_rng(seed).lognormal(size=zeros.values.shape)))


def test_decay_shows_the_mean_and_the_largest_of_every_bin(mixed_basis):
    decay = random_decay(mixed_basis, 5)
    ax = plot_hamiltonian_decay(decay)  # six pairs of elements: together
    mean, largest = ax.get_lines()
    np.testing.assert_array_equal(mean.get_ydata(), [row.mean for row in decay.rows()])
    np.testing.assert_array_equal(largest.get_ydata(), [row.largest for row in decay.rows()])
    assert mean.get_xdata()[:2].tolist() == [0, 0.5 * (decay.rows()[1].start + decay.rows()[1].end)]
    assert ax.get_yscale() == "log"
    assert "(eV)" in ax.get_ylabel()


def test_few_pairs_of_elements_and_the_overlap_have_their_own_lines(mixed_basis, tmp_path):
    one = random_decay(mixed_basis, 2)
    assert len(one.pairs) == 3
    ax = new_axes()
    assert plot_hamiltonian_decay(one, one, ax=ax) is ax
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [*one.pairs, "|S|"]
    assert len({line.get_color() for line in ax.get_lines()}) == 4
    save_figure(ax, tmp_path / "hist.png")
    assert (tmp_path / "hist.png").stat().st_size > 5000


def test_zeros_leave_gaps_on_the_logarithmic_axis(mixed_basis):
    pairs = PairList.from_atoms(random_atoms(2), mixed_basis.cutoffs())
    ax = plot_hamiltonian_decay(Decay.of(PairBlocks.zeros(pairs, mixed_basis)))
    assert np.isnan(ax.get_lines()[0].get_ydata()).all()
