"""The registry: every format has its name, is recognised once, and other packages can add theirs."""

import sys

import numpy as np
import pytest

from ase_hybridham import io
from ase_hybridham.errors import FormatError
from ase_hybridham.io import FORMATS, format_of, formats, read_system

PLUGIN = """
from pathlib import Path
from ase_hybridham.io import Format, read_deeph

FORMAT = Format({name!r}, "folders that a test made", lambda path: (path / "mine").exists(), read_deeph)
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a package with one format under a name."""

    def install(name: str) -> None:
        (tmp_path / "site").mkdir()
        (tmp_path / "site/plugin_of_a_test.py").write_text(PLUGIN.format(name=name))
        metadata = tmp_path / "site/plugin_of_a_test-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-of-a-test\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[{io.PLUGINS}]\nmine = plugin_of_a_test:FORMAT\n")
        monkeypatch.syspath_prepend(tmp_path / "site")
        monkeypatch.delitem(sys.modules, "plugin_of_a_test", raising=False)
        io._known.cache_clear()

    yield install
    io._known.cache_clear()


def test_names_are_words_and_stand_once():
    names = [known.name for known in FORMATS]
    assert len(set(names)) == len(names)
    assert all(name.replace("-", "").isalnum() and name.islower() for name in names)
    assert list(formats()) == names


@pytest.mark.parametrize(
    ("name", "format"),
    [("abacus/C_spin4", "abacus"), ("openmx/graphene/deeph", "deeph"), ("siesta/H_chain/h_chain.HSX", "siesta")],
)
def test_a_path_is_recognised(golden, name, format):
    assert format_of(golden / name).name == format


def test_nothing_is_recognised_in_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    assert format_of(tmp_path) is None
    assert format_of(tmp_path / "notes.txt") is None
    with pytest.raises(FormatError, match=r"siesta: .*wannier90: "):
        read_system(tmp_path / "notes.txt")


def test_another_package_adds_a_format(installed, golden, tmp_path):
    installed("mine")
    assert list(formats())[-1] == "mine"
    (tmp_path / "mine").write_text("")
    assert format_of(tmp_path).name == "mine"
    graphene = golden / "openmx/graphene/deeph"
    assert format_of(graphene).name == "deeph"
    found = read_system(graphene, "mine")
    np.testing.assert_array_equal(found.overlap.values, read_system(graphene).overlap.values)


def test_a_name_that_is_taken_is_refused(installed):
    installed("siesta")
    with pytest.raises(ValueError, match="'siesta' is there twice"):
        formats()
