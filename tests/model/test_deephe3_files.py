"""DeepH-E3's checkpoint folders: what is read, and that every defect ends in one line."""

import gzip
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ase_hybridham.errors import CheckpointError
from ase_hybridham.model.deephe3_files import read_deephe3
from ase_hybridham.model.deephe3_weights import L_MAX, Convention
from ase_hybridham.symmetry import clebsch_gordan
from tests.model.deephe3_folders import build_arguments, write_folder
from tests.model.deephe3_reference import make_reference


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with spin."""
    bases = {83: (0, 1)}
    arguments = build_arguments(bases, "4x0e+3x1o+2x2e", embed=4, lmax=2, n_blocks=2, r_max=5.0, spinful=True)
    folder = tmp_path_factory.mktemp("written") / "checkpoint"
    return write_folder(folder, make_reference(arguments, 0), arguments, bases, spinful=True)


@pytest.fixture
def checkpoint(written: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(written, tmp_path / "checkpoint"))


def test_golden_networks_are_read(golden: Path) -> None:
    found = read_deephe3(golden / "deephe3/mos2/checkpoint")
    assert found.bases == {16: (0, 0, 1, 1, 2), 42: (0, 0, 0, 1, 1, 2, 2)}
    assert (found.r_max, found.embedding_reach, found.spinful, len(found.node_updates)) == (7.0, 6.0, False, 3)
    assert found.targets[2] == {(16, 16): (0, 2), (16, 42): (0, 3), (42, 16): (0, 2), (42, 42): (0, 3)}
    assert all(values.dtype == np.float64 for values in found.state.values())


@pytest.mark.parametrize("name", ["mos2", "bismuth"])
def test_what_was_built_follows_from_the_options(golden: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(golden / f"deephe3/{name}/checkpoint", tmp_path / "checkpoint"))
    given = read_deephe3(folder)
    (folder / "src/build_model_args.json").unlink()
    derived = read_deephe3(folder)
    assert derived.node_updates == given.node_updates
    assert derived.edge_updates == given.edge_updates
    assert derived.r_max == given.r_max


def test_text_of_the_call_is_read_and_not_executed(checkpoint: Path) -> None:
    given = read_deephe3(checkpoint)
    path, executed = checkpoint / "src/build_model.py", checkpoint / "executed"
    text = f"{path.read_text()}open({str(executed)!r}, 'w').close()\n"
    path.write_text(text)
    assert read_deephe3(checkpoint).edge_updates == given.edge_updates
    path.write_text(text.replace("num_block=2", f"num_block=open({str(executed)!r}, 'w')"))
    with pytest.raises(CheckpointError, match=r"build_model\.py"):
        read_deephe3(checkpoint)
    assert not executed.exists()


def test_pickled_code_is_not_executed(checkpoint: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple:
            return Path.touch, (checkpoint / "executed",)

    torch.save({"state_dict": Harmful()}, checkpoint / "best_model.pkl")
    with pytest.raises(CheckpointError, match="never executed"):
        read_deephe3(checkpoint)
    assert not (checkpoint / "executed").exists()


def test_files_may_be_packed_or_those_of_the_last_epoch(checkpoint: Path) -> None:
    best, last = checkpoint / "best_model.pkl", checkpoint / "model.pkl.gz"
    last.write_bytes(gzip.compress(best.read_bytes()))
    best.unlink()
    assert read_deephe3(checkpoint).r_max == 5.0


def test_signs_keep_the_symmetry_of_3j_symbols() -> None:
    # a table of 3j symbols changes by (-1)^(l1+l2+l3) under exchange; so must the signs between two tables
    rng, sign = np.random.default_rng(0), Convention(table=True, element=False).sign
    for _ in range(30):
        l1, l2 = (int(l) for l in rng.integers(1, L_MAX + 1, 2))
        l3 = int(rng.integers(abs(l1 - l2), min(l1 + l2, L_MAX) + 1))
        ours = clebsch_gordan(l1, l2, l3) / np.sqrt(2 * l3 + 1)
        cycled = clebsch_gordan(l2, l3, l1) / np.sqrt(2 * l1 + 1)
        np.testing.assert_allclose(cycled.transpose(2, 0, 1), ours, atol=1e-12)
        assert sign(l1, l2, l3) == sign(l3, l1, l2)
    assert sign(1, 1, 2) == 1
    assert sign(2, 1, 2) == -1
    assert Convention(table=False, element=True).sign(2, 1, 2) == 1


# -- defects: each ends in one line that names the file

Change = Callable[[Path], object]


def edited(name: str, change: Callable[[object], object]) -> Change:
    """Another content of a JSON file."""

    def apply(folder: Path) -> None:
        path = folder / "src" / name
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return apply


def argument(name: str, value: object) -> Change:
    """Another argument of the call that builds the network."""

    def apply(folder: Path) -> None:
        path = folder / "src/build_model.py"
        lines = [line for line in path.read_text().splitlines() if not line.startswith(f"    {name}=")]
        path.write_text("\n".join([*lines[:-1], f"    {name}={value!r},", lines[-1]]))

    return apply


def option(line: str, *, derived: bool = True) -> Change:
    """One more line of train.ini; `derived` takes away what would tell the same."""

    def apply(folder: Path) -> None:
        path = folder / "src/train.ini"
        path.write_text(f"{path.read_text()}\n{line}\n")
        if derived:
            (folder / "src/build_model.py").unlink()

    return apply


def weights(change: Callable[[dict], object]) -> Change:
    """Another state dict."""

    def apply(folder: Path) -> None:
        loaded = torch.load(folder / "best_model.pkl", weights_only=True)
        change(loaded["state_dict"])
        torch.save(loaded, folder / "best_model.pkl")

    return apply


def symbol(factor: float, *degrees: int, function: str = "out") -> Change:
    """Our 3j symbol times a factor beside the weights, in one of the functions that e3nn compiles."""
    name = f"node_update_blocks.0.conv.tp.tp._compiled_main_{function}._w3j_{'_'.join(map(str, degrees))}"
    return weights(lambda state: state.update({name: torch.tensor(factor * clebsch_gordan(*degrees))}))


VERSIONS = {
    "0.3.5": ([symbol(-0.7, 1, 2, 2), symbol(-1.0, 1, 2, 2, function="right"), symbol(1.0, 1, 1, 2)], True, False),
    "0.4.4": ([symbol(-1.0, 1, 2, 2, function="left_right"), symbol(1.0, 1, 2, 3, function="left_right")], True, True),
    "0.6.0": ([symbol(1.0, 1, 2, 2, function="left_right"), symbol(1.0, 3, 3, 1, function="right")], False, True),
    "not told": ([], True, False),
}  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
def test_symbols_tell_the_version(checkpoint: Path, version: str) -> None:
    changes, table, element = VERSIONS[version]
    for change in changes:
        change(checkpoint)
    assert read_deephe3(checkpoint).convention == Convention(table, element)
    assert version == "not told" or read_deephe3(checkpoint, version).convention == Convention(table, element)


def test_versions_that_look_alike_can_be_stated(checkpoint: Path) -> None:
    for change in VERSIONS["0.3.5"][0]:
        change(checkpoint)
    assert read_deephe3(checkpoint, "0.4.1").convention == Convention(table=True, element=True)
    for version, message in (("0.4.4", "not those of e3nn 0.4.4"), ("0.6", "not those"), ("new", "a version like")):
        with pytest.raises(CheckpointError, match=message):
            read_deephe3(checkpoint, version)


INFO, TARGETS, BUILD, INI = "dataset_info.json", "target_blocks.json", "build_model.py", "train.ini"
DEFECTS: list[tuple[str, str, Change]] = [
    ("no folder", "folder", shutil.rmtree),
    ("no weights", "best_model.pkl", lambda f: (f / "best_model.pkl").unlink()),
    ("cut weights", "best_model.pkl", lambda f: (f / "best_model.pkl").write_bytes(b"PK\x03\x04 cut")),
    ("cut gzip", "model.pkl.gz", lambda f: (f / "best_model.pkl").rename(f / "model.pkl.gz")),
    ("pickle", "best_model.pkl", lambda f: (f / "best_model.pkl").write_bytes(pickle.dumps(shutil.rmtree))),
    ("tensor", "state_dict", lambda f: torch.save(torch.zeros(3), f / "best_model.pkl")),
    ("lacking", "lin_post.weight is", weights(lambda s: s.pop("node_update_blocks.1.lin_post.weight"))),
    ("shape", "shape", weights(lambda s: s.update({"edge_update_blocks.1.norm.bias": torch.zeros(3)}))),
    ("nan", "finite", weights(lambda s: s["lin_edge.bias"].fill_(torch.nan))),
    ("whole numbers", "real", weights(lambda s: s.update({"lin_edge.bias": torch.zeros(28, dtype=torch.int64)}))),
    ("unknown weights", "unknown parameter", weights(lambda s: s.update({"head.weight": torch.zeros(3)}))),
    ("no e3nn", "no version of e3nn", symbol(-1.0, 1, 1, 2)),
    ("two e3nn", "several versions", lambda f: [symbol(sign, 1, l, l)(f) for sign, l in ((1, 2), (-1, 3))]),
    ("any e3nn", "version of e3nn", symbol(1.0, 1, 1, 2, function="left_right")),
    ("shape of symbol", "3j", weights(lambda s: s.update({"x._compiled_main_out._w3j_1_2_2": torch.zeros(3)}))),
    ("zero symbol", "no version of e3nn", symbol(0.0, 1, 1, 2)),
    ("uneven", "basis", weights(lambda s: s["basis.offsets"].square_())),
    ("no gaussians", "basis", weights(lambda s: s.pop("basis.width"))),
    ("no info", INFO, lambda f: (f / "src" / INFO).unlink()),
    ("cut info", INFO, lambda f: (f / "src" / INFO).write_text("{")),
    ("list info", INFO, edited(INFO, lambda e: [e])),
    ("spinful", INFO, edited(INFO, lambda e: {**e, "spinful": 1})),
    ("no spin", "different networks", edited(INFO, lambda e: {**e, "spinful": False})),
    ("elements", INFO, edited(INFO, lambda e: {**e, "index_to_Z": [83, 83]})),
    ("order", "ascending", edited(INFO, lambda e: {**e, "index_to_Z": [83, 6], "orbital_types": [[0], [0]]})),
    ("shells", INFO, edited(INFO, lambda e: {**e, "orbital_types": [[0, -1]]})),
    ("no targets", TARGETS, lambda f: (f / "src" / TARGETS).unlink()),
    ("split targets", "target_blocks_type", edited(TARGETS, lambda e: e[:3])),
    ("double targets", "target_blocks_type", edited(TARGETS, lambda e: [*e, e[0]])),
    ("mixed targets", TARGETS, edited(TARGETS, lambda e: [{"83 83": [0, 9]}, *e[1:]])),
    ("elements of targets", TARGETS, edited(TARGETS, lambda e: [{"6 83": [0, 0]}, *e])),
    ("no options", INI, lambda f: [(f / "src" / name).unlink() for name in (INI, BUILD)]),
    ("other options", "different networks", option("[network]\nirreps_mid = 4x0e+3x1o+3x2e")),
    ("more from nodes", "build_model.py; add it", option("[network]\nirreps_mid = 4x0e+3x2e")),
    ("nonsense", INI, option("[network]\nirreps_mid = some")),
    ("unknown option", "unknown option", option("[network]\nirreps_post = 3x0e")),
    ("parity", "ignore_parity", option("[network]\nignore_parity = True", derived=False)),
    ("spherical", "spherical_basis_irreps", option("[network]\nspherical_basis_irreps = 3x0e", derived=False)),
    ("no ini", INI, option("network", derived=False)),
    ("no parity", "no_parity", argument("no_parity", True)),
    ("sbf", "use_sbf", argument("use_sbf", True)),
    ("only ij", "only_ij", argument("only_ij", True)),
    ("sorted", "if_sort_irreps", argument("if_sort_irreps", True)),
    ("no sc", "use_sc", argument("use_sc", False)),
    ("new argument", "unknown argument", argument("dropout", 0.1)),
    ("reach", "r_max", argument("r_max", 7.0)),
    ("no reach", "r_max", argument("r_max", None)),
    ("blocks", "num_block", argument("num_block", 0)),
    ("more blocks", "different networks", argument("num_block", 4)),
    ("irreps", "irreps_mid_edge", argument("irreps_mid_edge", "8x0e+5x1")),
    ("two irreps", "at most once", argument("irreps_post_edge", "8x0e+5x1o+8x0e")),
    ("large l", "up to 11", argument("irreps_sh", "1x0e+1x99999999o")),
    ("large lmax", "up to 11", option("[network]\nspherical_harmonics_lmax = 99999999")),
    ("harmonics", "irreps_sh", argument("irreps_sh", "1x0e+1x1e")),
    ("embedding", "embedding", argument("irreps_embed_node", "4x0e+4x1o")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "message", "change"), DEFECTS, ids=[name for name, _, _ in DEFECTS])
def test_defects_end_in_one_line(checkpoint: Path, name: str, message: str, change: Change) -> None:
    change(checkpoint)
    with pytest.raises(CheckpointError) as caught:
        read_deephe3(checkpoint)
    assert message in str(caught.value)
    assert str(checkpoint) in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from([INFO, TARGETS]),
    content=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ),
)
def test_any_json_ends_in_one_line(checkpoint: Path, name: str, content: object) -> None:
    path = checkpoint / "src" / name
    original = path.read_text()
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError) as caught:
        read_deephe3(checkpoint)
    path.write_text(original)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [INI, BUILD])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damaged_text_ends_in_one_line_or_changes_nothing(checkpoint: Path, name: str, data: st.DataObject) -> None:
    path = checkpoint / "src" / name
    if name == INI:  # else it is hardly used
        (checkpoint / "src" / BUILD).unlink(missing_ok=True)
    original = path.read_bytes()
    place = data.draw(st.integers(0, len(original)))
    piece = data.draw(st.binary(max_size=8) | st.text("()[]{}=,'#;0x\n\\", max_size=8).map(str.encode))
    path.write_bytes(original[:place] + piece + original[place + data.draw(st.integers(0, 8)) :])
    given = read_deephe3_of(checkpoint)
    path.write_bytes(original)
    assert given is None or given == read_deephe3_of(checkpoint)


def read_deephe3_of(folder: Path) -> tuple | None:
    """What a network is; None if it is refused, in one line."""
    try:
        found = read_deephe3(folder)
    except CheckpointError as error:
        message = str(error)
    else:
        return found.node_updates, found.edge_updates, found.r_max
    assert "\n" not in message
    return None
