"""Options from a file and from words; what is wrong is named."""

from pathlib import Path

import pytest
import yaml

from ase_hybridham.train import PhaseConfig, TrainConfig, read_config


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "options.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_every_option_survives_a_file(write):
    config = TrainConfig(
        data="d.h5",
        output="runs/x",
        seed=3,
        device="cpu",
        model={"stage1": {"irreps": "8x0e+4x1o"}, "stage2": {"frame": "global", "lambda": 0.3}, "dtype": "float64"},
        phase1=PhaseConfig(epochs=3, clip=1.0, loss="mse"),
        phase2={"ema": 0.99, "schedule": "plateau"},
    )
    text = yaml.safe_dump(config.model_dump(mode="json", by_alias=True))
    assert read_config(write(text)) == config


def test_defaults_are_those_of_the_classes(write):
    assert read_config(write("data: d.h5")) == TrainConfig(data="d.h5")
    assert read_config(write(""), ["data=d.h5"]) == TrainConfig(data="d.h5")


def test_words_go_before_the_file(write):
    path = write("data: d.h5\nphase1: {epochs: 3, beta_meV: 2}\n")
    words = ["phase1.epochs=7", "phase1.learning_rate=1e-4", "model.stage2.frame=global", "model.stage2.lambda=0.2"]
    config = read_config(path, words)
    assert (config.phase1.epochs, config.phase1.beta_meV, config.phase1.learning_rate) == (7, 2, 1e-4)
    assert (config.model.stage2.frame, config.model.stage2.lambda_) == ("global", 0.2)
    assert read_config(path, ["phase1.epochs=7", "phase1.epochs=9"]).phase1.epochs == 9
    assert read_config(path, ["phase1.clip=null"]).phase1.clip is None
    assert read_config(path, ["output=a=b"]).output == Path("a=b")


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("data: d.h5\nepoch: 3", [], "unknown option epoch"),
        ("data: d.h5\nphase1: {epoch: 3}", [], "unknown option phase1.epoch"),
        ("data: d.h5\nmodel: {stage1: {width: 3}}", [], "unknown option model.stage1.width"),
        ("data: d.h5", ["phase3.epochs=1"], "unknown option phase3"),
        ("seed: 1", [], "option data is missing"),
        ("data: d.h5\nphase1: {epochs: many}", [], "option phase1.epochs.*'many'"),
        ("data: d.h5\nphase1: {epochs: -1}", [], "option phase1.epochs.*-1"),
        ("data: d.h5\nphase1: 3", [], "option phase1"),
        ("data: d.h5", ["model.stage1.readout=free"], "free is for imported networks"),
        ("data: d.h5", ["model.stage1.n_embedding=1"], r"option model.stage1.n_embedding.*2"),
        ("data: d.h5", ["model.stage1.irreps=1x0e+4x1o"], "at least two scalars"),
        ("data: d.h5", ["model.stage1.edge_reach=.inf"], "edge_reach.*finite"),
        ("data: d.h5", ["model.stage1.irreps=8x0e+4x1e"], r"option model.stage1.*parity"),
        ("data: d.h5", ["phase1.ema=1"], "option phase1.ema"),
        ("data: d.h5", ["phase1.learning_rate=.nan"], "option phase1.learning_rate"),
        ("data: d.h5", ["precision=bf16", "model.dtype=float64"], "bf16 is less than float32, model.dtype asks for"),
        ("data: d.h5", ["phase1.edges_per_batch=0"], "option phase1.edges_per_batch"),
        ("data: d.h5", ["memory_GB=0"], "option memory_GB"),
        ("data: d.h5", ["phase1.optimizer=sgd"], "option phase1.optimizer.*'adamw' or 'soap'.*'sgd'"),
        ("data: d.h5", ["epochs"], "expected key=value, got 'epochs'"),
        ("data: d.h5", ["=3"], "expected key=value"),
        ("data: d.h5", ["data.x=3"], "'data' in 'data.x=3' is no group"),
        ("data: d.h5", ["phase1.epochs=[1"], "no readable value"),
        ("- data", [], "expected a mapping of options, got list"),
        ("data: [", [], "not a YAML file"),
        ("1: 2", [], "options must be words"),
        ("data: d.h5\n? [1, 2]\n: 3", [], "options.yaml"),
    ],
)
def test_what_is_wrong_is_named(write, text, words, message):
    path = write(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_config(path, words)
    assert "\n" not in str(caught.value)
    if not words:
        assert str(path) in str(caught.value)


def test_no_text(tmp_path):
    path = tmp_path / "options.yaml"
    path.write_bytes(b"\xff\xfe\x00data")
    with pytest.raises(ValueError, match="not a YAML file"):
        read_config(path)
    with pytest.raises(FileNotFoundError):
        read_config(tmp_path / "none.yaml")
