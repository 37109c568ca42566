"""The noise of labels."""

from dataclasses import replace

import numpy as np
import pytest

from ase_hybridham.errors import FormatError
from ase_hybridham.store import DataSet, append_systems
from ase_hybridham.train import LabelNoise, known_noise, measured_noise
from tests.train.synthetic import atoms_of, system_of

NOISE = 3e-3  # eV


def noisy(seed: int, moved: float = 0.1, shift: float = 0.0, **provenance: object):
    """A structure whose atoms are moved together, with noise in its H."""
    system = system_of(atoms_of(seed))
    h, rng = system.hamiltonian[0], np.random.default_rng([seed, int(100 * moved)])
    noise = h.with_values(NOISE * rng.normal(size=h.values.shape)).hermitian_part()
    atoms = system.atoms.copy()
    atoms.positions += moved
    return replace(
        system, atoms=atoms, hamiltonian=(h + noise + shift * system.overlap,), provenance=provenance, fermi_level=None
    )


def stored(path, systems) -> DataSet:
    append_systems(path, list(systems.items()))
    return DataSet(path)


def test_noise_is_that_of_one_calculation(tmp_path):
    """Of two numbers with a deviation of 3 meV each: 2.4 meV on average, off the diagonal less by sqrt 2."""
    with (
        stored(tmp_path / "a.h5", {"x": noisy(0, 0.0), "y": noisy(1, 0.0), "z": noisy(2, 0.0)}) as first,
        stored(tmp_path / "b.h5", {"x": noisy(0, shift=0.5), "y": noisy(1)}) as second,
    ):
        found = measured_noise(first, second, ["x", "y", "z"])
    assert found.source == f"2 structures of {tmp_path / 'b.h5'}"
    assert found.mae == pytest.approx(1000 * NOISE * np.sqrt(2 / np.pi) / np.sqrt(2), rel=0.1)


def test_other_structures_are_refused(tmp_path):
    with (
        stored(tmp_path / "a.h5", {"x": noisy(0, 0.0)}) as first,
        stored(tmp_path / "b.h5", {"x": noisy(3)}) as second,
        stored(tmp_path / "c.h5", {"y": noisy(0)}) as third,
    ):
        with pytest.raises(FormatError, match=r"b.h5: structure x: expected that of .*a.h5 with all atoms moved alike"):
            measured_noise(first, second, ["x"])
        with pytest.raises(FormatError, match=r"c.h5: expected structures such as x again, has none"):
            measured_noise(first, third, ["x"])


def test_a_data_set_may_tell_its_noise(tmp_path):
    told = {"x": noisy(0, label_noise_meV=0.2), "y": noisy(1, label_noise_meV=0.4), "z": noisy(2)}
    with stored(tmp_path / "a.h5", told) as data:
        found = known_noise(data, ["x", "y"])
        assert (found.mae, found.source) == (pytest.approx(0.3), "label_noise_meV of the data set")
        assert known_noise(data, ["x", "z"]) is None


@pytest.mark.parametrize("mae", [0.0, -1.0, float("nan"), float("inf")])
def test_noise_is_a_positive_number(mae):
    with pytest.raises(ValueError, match="expected an MAE above 0 meV"):
        LabelNoise(mae, "x")
