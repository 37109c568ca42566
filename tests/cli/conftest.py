"""A network trained by the command line, for the commands that need one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ase_hybridham import cli
from tests.train.synthetic import OPTIONS, write_data_set

SHORT = {"epochs": 2, "learning_rate": 1e-2, "warmup_steps": 2}


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with data.h5, train.yaml and run/model.hham; copy what you change."""
    folder = tmp_path_factory.mktemp("workplace")
    write_data_set(folder / "data.h5")
    options = {**OPTIONS, "phase1": SHORT, "phase2": SHORT, "data": str(folder / "data.h5")}
    (folder / "train.yaml").write_text(yaml.safe_dump(options))
    assert cli.main(["train", str(folder / "train.yaml"), f"output={folder / 'run'}"]) == 0
    return folder


@pytest.fixture
def command_line(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run one command: status, stdout, stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = cli.main([str(word) for word in words])
        return status, *capsys.readouterr()

    return run
