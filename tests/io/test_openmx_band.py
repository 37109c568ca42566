"""OpenMX's .Band files."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ase_hybridham.errors import FormatError
from ase_hybridham.io import read_openmx_band
from ase_hybridham.io.openmx_band import HARTREE


def test_path_and_energies_of_graphene(golden):
    bands = read_openmx_band(golden / "openmx/graphene/openmx.Band")
    assert bands.eigenvalues.shape == (1, 56, 26)
    assert [label for _, label in bands.ticks] == ["G", "M", "M", "K", "K", "G"]
    for row, label in bands.ticks:
        special = {"G": [0, 0, 0], "M": [0.5, 0, 0], "K": [1 / 3, 1 / 3, 0]}[label]
        np.testing.assert_allclose(bands.k_points[row], special, atol=1e-9)
    dirac = bands.eigenvalues[0, bands.ticks[3][0], 3:5]  # bands 4 and 5 touch at K, at the Fermi level
    np.testing.assert_allclose(dirac, bands.fermi_level, atol=2e-3)


COLLINEAR = """ 2  1  -0.25
 1 0 0 0 1 0 0 0 1
1
2  0 0 0  0.5 0 0  G X
2 0 0 0
-1.0 1.0
2 0 0 0
-0.9 1.1
2 0.5 0 0
-0.5 0.5
2 0.5 0 0
-0.4 0.6
"""


def test_collinear_spin_is_two_channels(tmp_path):
    path = tmp_path / "x.Band"
    path.write_text(COLLINEAR)
    bands = read_openmx_band(path)
    expected = np.array([[[-1, 1], [-0.5, 0.5]], [[-0.9, 1.1], [-0.4, 0.6]]]) * HARTREE
    np.testing.assert_allclose(bands.eigenvalues, expected, rtol=1e-14)
    np.testing.assert_array_equal(bands.k_points, [[0, 0, 0], [0.5, 0, 0]])
    assert bands.fermi_level == -0.25 * HARTREE


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (" 2  1", " 2  2"),
        (" 2  1", " 3  1"),
        (" 2  1", " x  1"),
        ("-0.25", "nan"),
        ("1\n2  0 0 0", "2\n2  0 0 0"),
        ("1\n2  0 0 0", "1\n3  0 0 0"),
        ("-0.9", "******"),
        ("2 0.5", "3 0.5"),
    ],
)
def test_contradictions_are_refused(tmp_path, old, new):
    path = tmp_path / "x.Band"
    path.write_text(COLLINEAR.replace(old, new, 1))
    with pytest.raises(FormatError, match=r"x\.Band"):
        read_openmx_band(path)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_truncated_files_are_refused(golden, tmp_path, data):
    text = (golden / "openmx/CH4_molecule/openmx.Band").read_text().rstrip()
    end = data.draw(st.integers(0, len(text) - 20))  # a shortened last number is still a number
    (tmp_path / "x.Band").write_text(text[:end])
    with pytest.raises(FormatError):
        read_openmx_band(tmp_path / "x.Band")
