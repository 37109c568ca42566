"""hybridham train: a file of options in, a checkpoint out."""

import json
from pathlib import Path

import pytest

from ase_hybridham.model import read_metadata


def test_path_on_stdout_and_the_rest_on_stderr(command_line, workplace, tmp_path):
    status, out, err = command_line("train", workplace / "train.yaml", f"output={tmp_path / 'run'}")
    assert status == 0
    assert out == f"{tmp_path / 'run/model.hham'}\n"
    assert "phase1_valid_mae" in err
    assert "phase2_valid_mae" in err
    assert "meV" in err
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["log.csv", "model.hham", "state.pt"]


def test_json(command_line, workplace, tmp_path):
    words = [f"output={tmp_path / 'run'}", "phase2.epochs=0", "model.stage2.width=4", "--json"]
    status, out, _ = command_line("train", workplace / "train.yaml", *words)
    result = json.loads(out)
    assert status == 0
    assert list(result) == ["checkpoint", "metrics"]
    metadata = read_metadata(result["checkpoint"])
    assert result["metrics"] == metadata["metrics"]
    assert result["metrics"]["phase1_valid_mae_meV"] > 0
    assert metadata["config"]["stage2"]["width"] == 4
    assert not metadata["hybrid"]


def test_resume(command_line, workplace, tmp_path):
    words = ["train", workplace / "train.yaml", f"output={tmp_path / 'run'}"]
    assert command_line(*words)[0] == 0
    before = (tmp_path / "run/model.hham").read_bytes()
    assert command_line(*words, "--resume")[0] == 0
    assert (tmp_path / "run/model.hham").read_bytes() == before
    status, _, err = command_line(*words)
    assert status == 2
    assert "--resume" in err


def test_paths_in_the_file_are_relative_to_the_working_folder(command_line, workplace, tmp_path, monkeypatch):
    text = (workplace / "train.yaml").read_text().replace(str(workplace / "data.h5"), "here.h5")
    (tmp_path / "here.h5").symlink_to(workplace / "data.h5")
    (tmp_path / "o.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert command_line("train", "o.yaml", "phase1.epochs=0", "phase2.epochs=0")[:2] == (0, "runs/model/model.hham\n")
    assert Path("runs/model/model.hham").is_file()


@pytest.mark.parametrize("words", [["-h"], ["--help"]])
def test_help(command_line, capsys, words):
    with pytest.raises(SystemExit) as caught:
        command_line("train", *words)
    assert caught.value.code == 0
    assert "key=value" in capsys.readouterr().out
