"""Which structures lie below the sources, and what they are called."""

import os
import time
from pathlib import Path

import pytest

from ase_hybridham.cli import naming
from ase_hybridham.cli.naming import name_structures, source_of, structures_below
from ase_hybridham.errors import FormatError
from ase_hybridham.io import Format


def recognised(path: Path) -> bool:
    return path.suffix in (".toy", ".other") or path.name in ("HS", "OUT.toy") or path.name.endswith(".toy.gz")


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty folder where all formats are one toy."""
    toy = Format("toy", "a file x.toy", recognised, lambda path: None)
    monkeypatch.setattr(naming, "formats", lambda: {"toy": toy})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(files: str, sources: str = ".") -> dict[str, str]:
    """Name -> path, for files that are made now; a trailing slash makes a folder."""
    for file in files.split():
        path = Path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if file.endswith("/") else path.touch()
    found = {Path(source): structures_below(Path(source)) for source in sources.split()}
    return {name: path.as_posix() for name, path in name_structures(found).items()}


@pytest.mark.parametrize(
    ("files", "sources", "expected"),
    [
        ("run1/openmx.toy run2/openmx.toy run2/openmx.out", ".", "run1 run2"),
        ("run1/openmx.toy run2/openmx.toy", "run1 run2", "run1 run2"),
        ("run1/openmx.toy run2/openmx.toy", "run1/openmx.toy run2/openmx.toy", "run1 run2"),
        ("run1/openmx.toy", "run1", "run1"),
        ("run1/openmx.toy", "run1/openmx.toy", "openmx"),
        ("set/run1/openmx.toy.gz", ".", "set/run1"),
        ("a.toy b.toy.gz", ".", "a b"),
        ("run/a.toy run/b.toy c/x.toy", ".", "c run/a run/b"),
        ("run/a.toy run/a.other", ".", "run/a.other run/a.toy"),
        ("a.toy a/HS/ a/OUT.toy/", ".", "a a/HS a/OUT.toy"),
        ("a.toy a/HS", ".", "a.toy a/HS"),
        ("x/OUT.toy/ y/OUT.toy/", ".", "x y"),
        ("x/HS y/HS", ".", "x y"),
        ("d_3.35.toy d_3.40.toy", ".", "d_3.35 d_3.40"),
        ("deep/a/b/c/x.toy other.toy", ".", "deep/a/b/c other"),
        (".hidden/x.toy y.toy z.toy", ".", "y z"),
    ],
)
def test_names(place, files, sources, expected):
    assert sorted(names(files, sources)) == sorted(expected.split())


def test_order_is_that_of_the_paths(place):
    assert list(names("b/x.toy a/x.toy c.toy")) == ["a", "b", "c"]


def test_links_are_followed_once_and_loops_end(place):
    assert list(names("data/a/x.toy data/b/x.toy", "data")) == ["a", "b"]
    (place / "data/loop").symlink_to(place / "data")
    (place / "data/b/up").symlink_to("..")
    (place / "data/gone").symlink_to("nowhere")
    (place / "data/self").symlink_to("self")
    assert list(names("", "data")) == ["a", "b"]
    (place / "chosen").mkdir()
    (place / "chosen/first").symlink_to(place / "data/a")
    (place / "chosen/second").symlink_to(place / "data/b/x.toy")
    assert names("", "chosen") == {"first": "chosen/first/x.toy"}  # a link called `second` is no toy
    (place / "chosen/third.toy").symlink_to(place / "data/b/x.toy")
    assert names("", "chosen") == {"first": "chosen/first/x.toy", "third": "chosen/third.toy"}  # though it comes first


def test_folders_that_cannot_be_read_are_told(place, monkeypatch):
    names("data/a/x.toy data/b/x.toy data/closed/x.toy", "data")
    listed = os.listdir

    def denied(path: Path) -> list[str]:
        if path.name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "listdir", denied)
    with pytest.raises(PermissionError):
        structures_below(Path("data"))
    errors: list[OSError] = []
    assert len(structures_below(Path("data"), unreadable=errors.append)) == 2
    assert [error.filename for error in errors] == ["data/closed"]


def test_nothing_there_lists_the_formats(place):
    (place / "empty").mkdir()
    with pytest.raises(FormatError, match=r"empty: holds no structure; looked for toy: a file x\.toy"):
        structures_below(Path("empty"))
    with pytest.raises(FormatError, match="nowhere: no such file or folder"):
        structures_below(Path("nowhere"))
    with pytest.raises(ValueError, match="--format: expected one of toy, got 'x'"):
        structures_below(Path("empty"), "x")


def test_a_structure_below_two_sources_is_an_error(place):
    with pytest.raises(ValueError, match=r"data/a/x.toy: given twice"):
        names("data/a/x.toy data/b/x.toy", "data data/a")


def test_thousands_of_files_are_fast(place):
    for folder in range(20):
        (place / f"{folder}").mkdir()
        for number in range(100):
            (place / f"{folder}/{number}.txt").touch()
        (place / f"{folder}/x.toy").touch()
    begun = time.process_time()
    assert len(structures_below(Path())) == 20
    assert time.process_time() - begun < 1.0  # 0.1 ms a file measured, with room for a busy machine


def test_sources_are_seen_from_the_data_set(place):
    assert source_of(Path("runs/a/x.toy"), Path("sets/data.h5")) == "../runs/a/x.toy"
    assert source_of(place / "runs/a/x.toy", Path("data.h5")) == "runs/a/x.toy"


def test_a_file_of_a_folder_that_is_a_structure_names_the_folder(place):
    names("data/a/HS/ data/OUT.toy/h.h5")
    with pytest.raises(FormatError, match=r"OUT\.toy/h\.h5: holds no structure, its folder does"):
        structures_below(Path("data/OUT.toy/h.h5"))
