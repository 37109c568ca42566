"""README and docs: what they show runs and prints that, their tables are those of the code, their links lead somewhere.

In a page, in this order of one fresh folder: ```yaml blocks that begin with `# NAME.yaml` are written to that file;
```python blocks run, all in one namespace; of ```bash blocks the lines that start with `hybridham ` run; a ```text
block after a block that ran must be found in what that printed ("..." stands for anything). A comment
<!-- not run: reason --> before a block exempts it.
"""

import contextlib
import io
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ase_hybridham.cli import main as hybridham
from ase_hybridham.train import Phase2Config, PhaseConfig
from ase_hybridham.train.config import read_config
from tests.io.pao_files import pao_folder

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- (not run): .* -->\n)?^```(\w+)\n(.*?)^```$", re.M | re.S)
SHORT = [  # training of a page's own configuration, for seconds instead of minutes
    *("phase1.epochs=1", "phase2.epochs=1"),
    *("model.stage1.irreps=4x0e+3x1o+2x2e+2x3o+2x4e", "model.stage1.n_blocks=1", "model.stage1.radial_width=8"),
    *("model.stage2.width=8", "model.stage2.n_groups=1", "model.stage2.n_blocks=1"),
]


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    runs: bool


def blocks(page: Path) -> list[Block]:
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(match[2], match[3], match[1] is None) for match in found]


@pytest.fixture(scope="session")
def basis_files(tmp_path_factory) -> Path:
    """What pages need of OpenMX's database."""
    return pao_folder(tmp_path_factory.mktemp("PAO"))


@pytest.fixture
def clone(tmp_path, monkeypatch, trained_bilayers, graphene_checkpoint, basis_files) -> Path:
    """The working folder: a clone in which `make demo` and the quickstart have run, beside OpenMX's basis files."""
    pytest.importorskip("pyscf")
    import matplotlib as mpl

    mpl.use("agg")
    monkeypatch.chdir(tmp_path)
    for name in ("tests", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "DFT_DATA19").mkdir()
    (tmp_path / "DFT_DATA19/PAO").symlink_to(basis_files)
    shutil.unpack_archive(ROOT / "tests/golden/openmx/bilayers.tar.xz", tmp_path)
    shutil.copy(trained_bilayers[0] / "bilayers.h5", tmp_path)
    shutil.copy(ROOT / "ase_hybridham/data/demo_graphene.h5", tmp_path / "graphene.h5")
    for folder, checkpoint in {
        "runs/bilayers": trained_bilayers[0] / "runs/bilayers/model.hham",
        "runs/graphene": graphene_checkpoint,
        "demo/bands_run": graphene_checkpoint,
    }.items():
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(checkpoint, tmp_path / folder / "model.hham")
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_snippets_run_and_print_what_the_page_says(page, clone):
    namespace: dict[str, Any] = {"__name__": page.stem}
    printed = None
    for block in blocks(page):
        if block.language == "text":
            if printed is not None and block.runs:
                assert_printed(block.text, printed)
        elif block.language == "yaml":
            write_configuration(block)
        else:
            printed = run(block, namespace) if block.runs else None


def write_configuration(block: Block) -> None:
    name = re.match(r"# (\S+\.yaml)\n", block.text)
    if name:
        Path(name[1]).write_text(block.text, encoding="utf-8")
        output = re.search(r"^output: (\S+)", block.text, re.M)
        if output:
            shutil.rmtree(output[1], ignore_errors=True)  # a run starts in an empty folder


def run(block: Block, namespace: dict[str, Any]) -> str:
    """What a block prints on stdout."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        if block.language == "python":
            exec(compile(block.text, "snippet", "exec"), namespace)
        elif block.language == "bash":
            for line in commands(block):
                words = shlex.split(line, comments=True)[1:]
                if words[0] == "train":
                    read_config(words[1])  # as the page has it
                    words += SHORT
                assert hybridham(words) == 0, line
    return out.getvalue()


def commands(block: Block) -> list[str]:
    return [line for line in block.text.replace("\\\n", " ").splitlines() if line.startswith("hybridham ")]


def assert_printed(text: str, printed: str) -> None:
    pattern = re.escape(" ".join(text.split())).replace(re.escape("..."), ".*")
    assert re.search(pattern, " ".join(printed.split())), f"{text}\nis not what was printed:\n{printed}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_images_and_files_exist(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not re.match(r"https?:|mailto:", target):
            assert (page.parent / target).exists(), target
    for name in re.findall(r"`([\w/]+\.py)\b", text):
        assert "NAME" in name or any((ROOT / folder / name).exists() for folder in ("", "ase_hybridham")), name


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.stem)
def test_a_page_is_short_asks_one_question_and_is_found_from_the_readme(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 150
    assert lines[2].endswith("?")
    assert f"(docs/{page.name})" in PAGES[0].read_text(encoding="utf-8")


def tables(kind: str) -> Iterator[tuple[str, list[list[str]]]]:
    """What the comment <!-- kind: what --> says, and the cells of the table after it, on all pages."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(rf"<!-- {kind}: (.*) -->\n\n", text):
            lines = takewhile(lambda line: line.startswith("|"), text[match.end() :].splitlines())
            rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
            yield match[1], rows[2:]


def test_option_tables_are_those_of_the_code():
    seen = set()
    for name, rows in tables("options"):
        module, _, model = name.rpartition(".")
        expected = option_rows(getattr(import_module(module), model))
        assert [row[:3] for row in rows] == expected, name
        assert all(len(row) == 4 and row[3] for row in rows), name
        seen.add(model)
    assert seen == {"TrainConfig", "PhaseConfig", "ModelConfig", "Stage1Config", "Stage2Config", "LearnConfig"}


def test_defaults_of_phase_2_are_those_the_page_names():
    first, second = PhaseConfig().model_dump(), Phase2Config().model_dump()
    changed = {key: value for key, value in second.items() if value != first[key]}
    assert changed == {"optimizer": "adamw", "learning_rate": 0.002, "beta_meV": 0.5}
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert "`learning_rate` is 0.002, `beta_meV`\n0.5, and `optimizer` adamw" in text


def option_rows(model: type[BaseModel]) -> list[list[str]]:
    """Name, default and allowed values of every option."""
    rows = []
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else field.get_default()
        shown = "below" if isinstance(default, BaseModel) else "null" if default is None else str(default)
        shown = shown.lower() if isinstance(default, bool) else shown
        rows.append([f"`{field.alias or name}`", shown, allowed(field)])
    return rows


def allowed(field: FieldInfo) -> str:
    kinds = get_args(field.annotation) if isinstance(field.annotation, UnionType) else (field.annotation,)
    words = []
    for kind in kinds:
        if get_origin(kind) is Literal:
            words.append(", ".join(f"`{value}`" for value in get_args(kind)))
        elif kind is NoneType:
            words.append("null")
        else:
            names = {int: "integer", float: "number", str: "text", Path: "path", bool: "boolean"}
            name = "list" if get_origin(kind) is tuple else names.get(kind, "options")
            signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
            limits = [
                f"{sign} {getattr(item, key):g}"
                for item in field.metadata
                for key, sign in signs.items()
                if hasattr(item, key)
            ]
            words.append(" ".join([name, ", ".join(limits)]).strip())
    return " or ".join(words)


def test_tables_of_json_keys_are_those_that_are_printed(clone):
    n_tables = 0
    for command, rows in tables("keys of"):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert hybridham(shlex.split(command)[1:]) == 0
        assert {key for row in rows for key in re.findall(r"`([\w.]+)`", row[0])} == set(
            keys(json.loads(out.getvalue()))
        )
        n_tables += 1
    assert n_tables == 4


def keys(entry: dict[str, Any]) -> Iterator[str]:
    """`a`, or `a.b` for what stands in an object; stages and lists are not followed."""
    for key, value in entry.items():
        if isinstance(value, dict) and not {*value} & {"hybrid", "stage1"}:
            yield from (f"{key}.{inner}" for inner in keys(value))
        else:
            yield key
