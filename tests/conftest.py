"""Fixtures all rooms share: folders of data, devices, random structures."""

import contextlib
import io
import os
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from ase_hybridham.system import AtomBasis, Basis

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Tables of radial integrals are kept there, never in the cache of whoever runs the tests."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYBRIDHAM_CACHE", str(folder))
        yield folder


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


@pytest.fixture(scope="session")
def trained_bilayers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder where examples/02_train_bilayer.py ran (bilayers.h5, runs/bilayers/model.hham), and what it printed."""
    folder, printed = tmp_path_factory.mktemp("example"), io.StringIO()
    script = GOLDEN.parents[1] / "examples/02_train_bilayer.py"
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        runpy.run_path(str(script), run_name="__main__")
    return folder, printed.getvalue()


@pytest.fixture(scope="session")
def graphene_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network trained for seconds on the graphene that ships with the package (PySCF, a Gaussian basis)."""
    from ase_hybridham.train import Phase2Config, PhaseConfig, TrainConfig, train

    stage1 = {"irreps": "12x0e+8x1o+6x2e", "n_blocks": 2, "n_gaussians": 32, "radial_width": 32}
    stage2 = {"width": 16, "n_groups": 2, "n_blocks": 1, "readout_channels": 8}
    config = TrainConfig(
        data=GOLDEN.parents[1] / "ase_hybridham/data/demo_graphene.h5",
        output=tmp_path_factory.mktemp("graphene") / "run",
        model={"stage1": stage1, "stage2": stage2},
        phase1=PhaseConfig(epochs=3, learning_rate=0.02, warmup_steps=10),
        phase2=Phase2Config(epochs=1, learning_rate=0.004, warmup_steps=10, beta_meV=1.0),
    )
    return train(config, progress=False)


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
