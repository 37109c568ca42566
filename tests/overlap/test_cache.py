"""Tables on disk: of the right basis, whole, or computed again, whatever is wrong with the disk."""

import errno
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ase_hybridham.overlap import cache, tables
from ase_hybridham.overlap.tables import radial_functions
from ase_hybridham.system import AtomBasis, GaussianRadial, Shell

ATOM = AtomBasis(
    "C",
    (Shell(0, "2s", GaussianRadial((2.0, 0.7), (0.4, 1.0))), Shell(1, "2p", GaussianRadial((0.9,), (1.0,)))),
    valence=4,
    cutoff=4.0,
)
DISTANCES = np.linspace(0.0, 9.0, 50)
CONTENT = {"values": np.arange(500.0).reshape(5, 100)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of one test, with nothing in memory."""
    monkeypatch.setenv("HYBRIDHAM_CACHE", str(tmp_path / "cache"))
    tables._table.cache_clear()
    cache._warn_once.cache_clear()
    return tmp_path / "cache"


def values(atom: AtomBasis = ATOM, accuracy: float | None = None) -> np.ndarray:
    """From the disk if the table is there."""
    tables._table.cache_clear()
    return radial_functions(atom, atom, 9.0, accuracy).at(DISTANCES)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir())


def test_a_table_is_computed_once(folder, monkeypatch):
    first = values()
    assert len(files(folder)) == 1
    monkeypatch.setattr(tables, "tabulated", None)  # called, it would raise
    np.testing.assert_array_equal(values(), first)
    with pytest.raises(TypeError):
        values(accuracy=1e-7)


def test_another_basis_or_accuracy_has_another_table(folder):
    shells = ATOM.shells
    other = [
        (ATOM, 1e-7),
        (replace(ATOM, shells=(shells[0], replace(shells[1], radial=GaussianRadial((0.91,), (1.0,))))), None),
        (replace(ATOM, shells=(replace(shells[0], l=1), shells[1])), None),
        (replace(ATOM, shells=shells[::-1]), None),
    ]
    values()
    for atom, accuracy in other:
        found = values(atom, accuracy)
        np.testing.assert_allclose(found, radial_functions(atom, atom, 9.0, 0).at(DISTANCES), atol=accuracy or 1e-11)
    assert len(files(folder)) == 1 + len(other)
    names = tuple(replace(shell, label="") for shell in shells)
    values(AtomBasis("N", names, cutoff=5.0))  # the same functions
    assert len(files(folder)) == 1 + len(other)


def test_every_flipped_bit_is_noticed(folder):
    cache.save_arrays("key", CONTENT)
    (path,) = files(folder)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in [0, 31, 32, len(content) - 1, *rng.integers(0, len(content), 200)]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(damaged))
        assert cache.load_arrays("key") is None
    path.write_bytes(content)
    np.testing.assert_array_equal(cache.load_arrays("key")["values"], CONTENT["values"])


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 1000, -1])
def test_truncated_files_are_computed_again(folder, length):
    expected = values()
    (path,) = files(folder)
    content = path.read_bytes()
    path.write_bytes(content[:length])
    np.testing.assert_array_equal(values(), expected)
    assert path.read_bytes() == content


def test_a_file_under_another_name_is_not_taken(folder):
    cache.save_arrays("one", CONTENT)
    (folder / "one.table").rename(folder / "other.table")
    assert cache.load_arrays("other") is None


def test_whole_files_of_other_contents_are_computed_again(folder):
    """As an older version with the same key could have left them."""
    expected = values()
    (path,) = files(folder)
    kept = cache.load_arrays(path.stem)
    wrong = [
        {"values": np.zeros(3)},
        {**kept, "onsite": kept["onsite"][:-1]},
        {**kept, "series": kept["series"][:, :-1]},
        {**kept, "edges": kept["edges"] * 1.01},
        {**kept, "edges": np.zeros(1)},
        {**kept, "edges": np.zeros(())},
        {**kept, "onsite": np.array(["a"] * len(kept["onsite"]))},
        {**kept, "series": kept["series"] * np.nan},
    ]
    for arrays in wrong:
        cache.save_arrays(path.stem, arrays)
        np.testing.assert_array_equal(values(), expected)


def test_contents_that_are_no_arrays_are_not_read(folder):
    folder.mkdir()
    for content in (b"", b"PK\x03\x04 no archive", b"\x93NUMPY\x01\x00", b"\x80\x04N."):
        (folder / "key.table").write_bytes(cache._checksum("key", content) + content)
        assert cache.load_arrays("key") is None


def test_a_folder_or_a_pipe_in_the_place_of_a_file(folder):
    expected = values()
    (path,) = files(folder)
    path.unlink()
    path.mkdir()
    np.testing.assert_array_equal(values(), expected)
    path.rmdir()
    os.mkfifo(path)
    np.testing.assert_array_equal(values(), expected)


def test_a_folder_that_cannot_be_written_is_told_once(tmp_path, folder, monkeypatch, caplog):
    expected = values()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HYBRIDHAM_CACHE", str(tmp_path / "file/cache"))
    for _ in range(3):
        np.testing.assert_array_equal(values(), expected)
    assert caplog.text.count("are not kept in") == 1


def test_a_folder_without_permissions(folder, monkeypatch):
    expected = values()

    def refused(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    for name in ("stat", "mkdir", "is_file", "read_bytes"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, refused)
            np.testing.assert_array_equal(values(), expected)


def test_a_full_disk_leaves_nothing_behind(folder, monkeypatch, caplog):
    def half(path, content):
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half)
        first = values()
    assert "No space left on device" in caplog.text
    assert files(folder) == []
    np.testing.assert_array_equal(values(), first)
    assert len(files(folder)) == 1


@pytest.mark.parametrize("word", ["off", "OFF", ""])
def test_it_can_be_turned_off(folder, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HYBRIDHAM_CACHE", word)
    assert values().any()
    assert files(tmp_path) == []


def test_folders_by_default(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("HYBRIDHAM_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for xdg, expected in [(tmp_path / "xdg", "xdg"), ("", "home/.cache"), ("relative", "home/.cache")]:
        monkeypatch.setenv("XDG_CACHE_HOME", str(xdg))
        values()
        assert len(files(tmp_path / expected / "hybridham/tables")) == 1


def test_nobody_has_a_home(folder, monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("HYBRIDHAM_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    assert values().any()


def test_the_oldest_files_make_room(folder, monkeypatch):
    for n in range(6):
        cache.save_arrays(f"key{n}", CONTENT)
        os.utime(folder / f"key{n}.table", (n, n))
    size = (folder / "key0.table").stat().st_size
    monkeypatch.setattr(cache, "LIMIT", int(4.5 * size))
    (folder / "mine.txt").write_text("not a table")
    cache.save_arrays("new", CONTENT)
    assert [path.name for path in files(folder)] == ["key3.table", "key4.table", "key5.table", "mine.txt", "new.table"]
    monkeypatch.setattr(cache, "LIMIT", size)  # no file may take most of the room
    cache.save_arrays("large", CONTENT)
    assert not (folder / "large.table").exists()


def run(script: str, folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys\nsys.path[:0] = {sys.path!r}\n{script}"],
        env={**os.environ, "HYBRIDHAM_CACHE": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
    )


COMPUTE = """
import hashlib
from tests.overlap.test_cache import ATOM, values
print(hashlib.sha256(values().tobytes()).hexdigest())
"""


def test_processes_at_once_agree(folder):
    import hashlib

    root = str(Path(__file__).parents[2])
    started = [run(f"sys.path.insert(0, {root!r})\n{COMPUTE}", folder) for _ in range(2)]
    printed = {process.communicate(timeout=300)[0].strip() for process in started}
    assert [process.returncode for process in started] == [0, 0]
    assert printed == {hashlib.sha256(values().tobytes()).hexdigest()}
    assert [path.suffix for path in files(folder)] == [".table"]


WRITE = """
import numpy as np
from ase_hybridham.overlap.cache import save_arrays
for n in range(60):
    save_arrays("key", {"values": np.full((50, 1000), float(n))})
"""


def test_readers_never_see_half_of_what_is_written(folder):
    seen = set()
    with run(WRITE, folder) as writer:
        while writer.poll() is None:
            found = cache.load_arrays("key")
            if found is not None:
                seen.update(np.unique(found["values"]).tolist())
                assert np.ptp(found["values"]) == 0
    assert writer.returncode == 0
    assert len(seen) > 3


KILLED = """
import os, signal
from pathlib import Path
import numpy as np
from ase_hybridham.overlap.cache import save_arrays

def half(path, content):
    with path.open("wb") as file:
        file.write(content[: len(content) // 2])
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

Path.write_bytes = half
save_arrays("key", {"values": np.zeros((50, 1000))})
"""


@pytest.mark.parametrize("before", [False, True])
def test_a_kill_in_the_middle_of_a_write_leaves_the_old_file_or_none(folder, before):
    if before:
        cache.save_arrays("key", CONTENT)
    process = run(KILLED, folder)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert len(files(folder)) == 1 + before  # the half is there, under a name that is not read
    found = cache.load_arrays("key")
    assert (found is not None) == before
    cache.save_arrays("key", CONTENT)  # removes the half, whose process is no more
    assert [path.name for path in files(folder)] == ["key.table"]
    np.testing.assert_array_equal(cache.load_arrays("key")["values"], CONTENT["values"])
