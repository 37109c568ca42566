"""Fixtures all rooms share: folders of data, devices, random structures."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from ase_hybridham.system import AtomBasis, Basis

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden() -> Path:
    """The small real samples of this repository."""
    return GOLDEN


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """The larger data: HYBRIDHAM_DATA names the folder that holds data/raw, data/bg.tar.xz, ..."""
    folder = os.environ.get("HYBRIDHAM_DATA")
    if not folder or not (Path(folder) / "data").is_dir():
        pytest.skip("HYBRIDHAM_DATA does not name the folder of the larger data")
    return Path(folder) / "data"


@pytest.fixture(scope="session")
def golden_bilayers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the 24 bilayers in DeepH's layout, unpacked once; copy what you change."""
    folder = tmp_path_factory.mktemp("golden")
    shutil.unpack_archive(GOLDEN / "openmx/bilayers.tar.xz", folder)
    return folder / "bilayers"


def _devices() -> list[str]:
    import torch

    return ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", _devices())


@pytest.fixture
def mixed_basis() -> Basis:
    """Three elements with s, p and d shells."""
    return Basis.of(
        AtomBasis.from_degrees("C", [0, 0, 1, 1, 2], valence=4, cutoff=2.0),
        AtomBasis.from_degrees("Mo", [0, 1, 2], valence=14, cutoff=2.5),
        AtomBasis.from_degrees("S", [0, 1], valence=6, cutoff=2.2),
        name="mixed",
    )


def random_atoms(seed: int, n_atoms: int = 5, pbc: tuple[bool, bool, bool] = (True, True, False)) -> Atoms:
    """A random cell with C, Mo, S; some atoms lie outside it."""
    rng = np.random.default_rng(seed)
    cell = np.diag([4.0, 4.5, 9.0]) + rng.normal(scale=0.4, size=(3, 3))
    scaled = rng.uniform(-0.5, 1.5, size=(n_atoms, 3))
    numbers = rng.choice([6, 42, 16], size=n_atoms)
    return Atoms(numbers, scaled @ cell, cell=cell, pbc=pbc)
