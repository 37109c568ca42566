"""One data set and one trained network for all."""

from pathlib import Path

import pytest

from ase_hybridham.train import TrainConfig, train
from tests.train.synthetic import OPTIONS, write_data_set


@pytest.fixture(scope="session")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six structures with splits."""
    return write_data_set(tmp_path_factory.mktemp("data") / "synthetic.h5")


@pytest.fixture(scope="session")
def run(data_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of a finished training."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(TrainConfig(data=data_set, output=folder, **OPTIONS), progress=False)
    return folder
