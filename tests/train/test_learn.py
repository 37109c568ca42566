"""Rounds of learning: what is picked, what stops them, and that a killed run goes on."""

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from ase import Atoms

from ase_hybridham.model import load_ensemble, read_metadata
from ase_hybridham.store import DataSet
from ase_hybridham.structures import distance_fingerprint, farthest_of
from ase_hybridham.system import LCAOSystem
from ase_hybridham.train import LearnConfig, learn, pick, read_options
from tests.train.synthetic import atoms_of, system_of

CANDIDATES = {f"c{seed}": atoms_of(seed) for seed in range(6)}
VALIDATION = {f"v{seed}": atoms_of(seed) for seed in (100, 101)}
SHORT = {"epochs": 2, "learning_rate": 1e-2, "warmup_steps": 2}
STAGE1 = {"irreps": "4x0e+3x1o+2x2e", "n_blocks": 1, "n_gaussians": 8, "radial_width": 4}
TRAIN = {"model": {"stage1": STAGE1, "stage2": None}, "phase1": SHORT, "device": "cpu"}


def options(folder: Path, **changes: Any) -> LearnConfig:
    given = {"start": 2, "batch": 2, "budget": 4, "members": 2, "goal_meV": 1e-3, "train": TRAIN, **changes}
    return LearnConfig(candidates="pool.xyz", output=folder, **given)


class Engine:
    """DFT that is known: remembers what it was asked for, fails where it should, and may be killed."""

    def __init__(self, failing: tuple[str, ...] = (), killed_after: int | None = None) -> None:
        self.asked: list[str] = []
        self.failing, self.killed_after = failing, killed_after

    def __call__(self, todo: Mapping[str, Atoms]) -> Iterator[tuple[str, LCAOSystem | None, float]]:
        for name, atoms in todo.items():
            if len(self.asked) == self.killed_after:
                raise KeyboardInterrupt
            self.asked.append(name)
            yield name, None if name in self.failing else system_of(atoms), 2.0


def state(folder: Path) -> dict[str, Any]:
    """What is known, without times."""
    content = json.loads((folder / "learn.json").read_text())
    for done in content["rounds"]:
        done.pop("train_s")
    return content


def run(config: LearnConfig, engine: Engine, **more: Any) -> Any:
    return learn(config, CANDIDATES, engine, VALIDATION, progress=False, **more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, Engine, Any]:
    """A run that nobody stopped."""
    folder, engine = tmp_path_factory.mktemp("learn") / "run", Engine()
    return folder, engine, run(options(folder), engine)


def test_rounds_add_structures_until_the_budget_is_spent(whole):
    folder, engine, learned = whole
    assert learned.stopped == "budget"
    assert [done.n_structures for done in learned.rounds] == [2, 4]
    assert [done.n_atoms for done in learned.rounds] == [6, 12]
    assert [done.dft_s for done in learned.rounds] == [8.0, 4.0]
    assert len(engine.asked) == len(set(engine.asked)) == 6
    with DataSet(folder / "data.h5") as data:
        assert data.split("val") == sorted(VALIDATION)
        assert set(data.split("train")) == set(engine.asked) - set(VALIDATION)
    for done in learned.rounds:
        assert done.mae_meV == min(done.members_meV)
        assert 0 < done.spread_meV <= done.largest_spread_meV
    assert read_metadata(learned.model)["metrics"]["phase1_valid_mae_meV"] == learned.rounds[-1].mae_meV


def test_a_round_computes_what_the_networks_of_the_last_one_disagree_on(whole):
    folder, _, _ = whole
    found = state(folder)
    left = {name: atoms for name, atoms in CANDIDATES.items() if name not in found["picks"][0]}
    members = [folder / f"round-00/member-{m}/model.hham" for m in range(2)]
    ensemble = load_ensemble(members, dtype="float32")
    spread = {name: ensemble.spread(atoms).structure for name, atoms in left.items()}
    assert found["picks"][1] == pick(spread, left, 2)
    assert found["picks"][1][0] == max(spread, key=spread.get)


def test_members_differ_and_rounds_start_anew(whole):
    folder, _, learned = whole
    assert len(set(learned.rounds[0].members_meV)) == 2
    seeds = [read_metadata(folder / f"round-0{r}/member-{m}/model.hham") for r in range(2) for m in range(2)]
    assert [entry["provenance"]["training"]["seed"] for entry in seeds] == [0, 1, 0, 1]


@pytest.mark.parametrize("killed_after", [1, 5])
def test_a_stopped_run_goes_on_and_ends_the_same(killed_after, whole, tmp_path):
    """Stopped within the DFT of either round."""
    folder, _, learned = whole
    config, engine = options(tmp_path / "run"), Engine(killed_after=killed_after)
    with pytest.raises(KeyboardInterrupt):
        run(config, engine)
    rest = Engine()
    again = run(config, rest, resume=True)
    assert state(tmp_path / "run") == state(folder)
    assert again.model.read_bytes() == learned.model.read_bytes()
    assert not set(engine.asked[:-1]) & set(rest.asked)


def test_stopped_while_training(whole, tmp_path, monkeypatch):
    folder, _, learned = whole
    config, done = options(tmp_path / "run"), []
    trained = learn.__globals__["train"]

    def train(*args: Any, **more: Any) -> Path:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(1)
        return trained(*args, **more)

    with monkeypatch.context() as patch:
        patch.setitem(learn.__globals__, "train", train)
        with pytest.raises(KeyboardInterrupt):
            run(config, Engine())
    engine = Engine()
    again = run(config, engine, resume=True)
    assert engine.asked == []
    assert state(tmp_path / "run") == state(folder)
    assert again.model.read_bytes() == learned.model.read_bytes()


def test_goal_and_budget_may_change_between_two_parts(tmp_path):
    first = run(options(tmp_path / "run", budget=2), Engine())
    assert (first.stopped, [done.n_structures for done in first.rounds]) == ("budget", [2])
    again = run(options(tmp_path / "run", budget=2, goal_meV=1e5), Engine(), resume=True)
    assert (again.stopped, again.rounds) == ("goal", first.rounds)
    told = []
    last = run(options(tmp_path / "run", budget=99), Engine(), resume=True, tell=told.append)
    assert (last.stopped, last.rounds[-1].n_structures) == ("candidates", 6)
    assert last.rounds[-1].spread_meV is None
    assert told == last.rounds


def test_what_does_not_converge_is_left_out(tmp_path):
    first = state_of_first_pick(tmp_path)
    engine = Engine(failing=(first, "v100"))
    learned = run(options(tmp_path / "run", budget=4), engine)
    assert learned.failed == ["v100", first]
    assert [done.n_structures for done in learned.rounds] == [1, 3]
    with DataSet(tmp_path / "run/data.h5") as data:
        assert first not in data
        assert data.split("val") == ["v101"]
    with pytest.raises(ValueError, match="no structure for validation converged"):
        run(options(tmp_path / "none"), Engine(failing=tuple(VALIDATION)))


def state_of_first_pick(folder: Path) -> str:
    with pytest.raises(KeyboardInterrupt):
        run(options(folder / "look"), Engine(killed_after=0))
    return state(folder / "look")["picks"][0][0]


def test_validation_may_be_drawn_from_the_candidates(tmp_path):
    config = options(tmp_path / "run", n_validation=3, budget=2, goal_meV=1e-6)
    learned = learn(config, CANDIDATES, Engine(), progress=False)
    assert learned.stopped == "budget"
    with DataSet(tmp_path / "run/data.h5") as data:
        assert len(data.split("val")) == 3
        assert not set(data.split("val")) & set(data.split("train"))


def test_random_picks_and_warm_starts(whole, tmp_path):
    config = options(tmp_path / "run", pick="random", warm=True, budget=4)
    run(config, Engine())
    content = state(tmp_path / "run")
    assert content["picks"][0] == state(whole[0])["picks"][0]  # the same start
    assert content["picks"][1] == sorted(content["picks"][1])
    assert config.training(Path("x"), 0, 1).init is None
    assert config.training(Path("x"), 1, 1).init == "x/round-00/member-1/model.hham"
    started = [read_metadata(tmp_path / f"run/round-0{r}/member-1/model.hham")["provenance"] for r in range(2)]
    assert [bool(entry["training"].get("init")) for entry in started] == [False, True]


def test_an_element_that_no_network_met_comes_first(tmp_path):
    pool = copy.deepcopy(CANDIDATES)
    for name in pool:
        pool[name].symbols = "CCC"
    config = options(tmp_path / "run", budget=3, batch=1)
    validation = {name: pool.pop(name) for name in ("c0",)}
    with pytest.raises(KeyboardInterrupt):
        learn(config, pool, Engine(killed_after=0), validation, progress=False)
    last = next(name for name in pool if name not in state(tmp_path / "run")["picks"][0])
    pool[last].symbols = "CCH"
    config = options(tmp_path / "other", budget=3, batch=1)
    learn(config, pool, Engine(), validation, progress=False)
    assert state(tmp_path / "other")["picks"][1] == [last]


def test_the_first_round_has_all_elements_of_the_validation_structures(tmp_path):
    pool = copy.deepcopy(CANDIDATES)
    for name in pool:
        pool[name].symbols = "CCC"
    with pytest.raises(ValueError, match="candidates: expected some with H, which is in the validation structures"):
        learn(options(tmp_path / "none"), pool, Engine(), VALIDATION, progress=False)
    drawn = set()
    for name in ("c2", "c4"):
        mixed = {**pool, name: CANDIDATES[name]}
        with pytest.raises(KeyboardInterrupt):
            learn(options(tmp_path / name), mixed, Engine(killed_after=0), VALIDATION, progress=False)
        first = state(tmp_path / name)["picks"][0]
        assert name in first
        drawn.add(len(first))
    assert drawn <= {2, 3}


class TestPick:
    spread: ClassVar = {"a": 5.0, "b": 4.9, "c": 4.8, "d": 1.0, "e": 0.5, "f": 0.1}

    def structures(self) -> dict[str, Atoms]:
        """b is a, turned and written otherwise; c is not."""
        found = {name: atoms_of(seed) for seed, name in enumerate("aacdef")}
        found["b"] = found["a"].repeat((2, 1, 1))
        found["b"].rotate(30, "z", rotate_cell=True)
        found["c"].positions *= 1.1
        return found

    def test_a_batch_is_not_the_same_structure_twice(self):
        structures = self.structures()
        picked = pick(self.spread, structures, 3, breadth=2)
        assert picked[0] == "a"
        assert "b" not in picked
        assert pick(self.spread, structures, 2, breadth=1) == ["a", "b"]

    def test_only_the_shortlist_counts(self):
        assert set(pick(self.spread, self.structures(), 3, breadth=1)) == {"a", "b", "c"}
        assert len(pick(self.spread, self.structures(), 6)) == 6
        assert len(pick(self.spread, self.structures(), 9)) == 6

    def test_fingerprints_do_not_see_cells_and_origins(self):
        structures = self.structures()
        a, b, c = (distance_fingerprint(structures[name], ["C", "H"]) for name in "abc")
        np.testing.assert_allclose(a, b, atol=1e-9)
        assert np.abs(a - c).max() > 0.01
        other = structures["a"].copy()
        other.symbols = "CHC"
        assert np.abs(a - distance_fingerprint(other, ["C", "H"])).max() > 0.01

    def test_farthest_points_of_a_line(self):
        points = {name: np.array([x]) for name, x in zip("abcde", (0.0, 0.1, 1.0, 0.5, 0.9), strict=True)}
        assert farthest_of(points, 4) == ["a", "c", "d", "b"]


class TestRefused:
    def test_a_folder_in_use(self, whole, tmp_path):
        """Also by data that no state knows."""
        (tmp_path / "data.h5").write_bytes((whole[0] / "data.h5").read_bytes())
        for folder, resume in ((whole[0], False), (tmp_path, False), (tmp_path, True)):
            with pytest.raises(ValueError, match="holds a run already; go on with --resume"):
                run(options(folder), Engine(), resume=resume)

    @pytest.mark.parametrize("changes", [{"seed": 1}, {"batch": 1}, {"train": {**TRAIN, "phase1": {"epochs": 3}}}])
    def test_other_options(self, changes, whole):
        with pytest.raises(ValueError, match=r"learn\.json: the run was started with other structures or options"):
            run(options(whole[0], **changes), Engine(), resume=True)

    def test_other_structures_or_engines(self, whole):
        moved = copy.deepcopy(CANDIDATES)
        moved["c3"].positions[0, 0] += 1e-3
        for candidates, more in ((moved, {}), (CANDIDATES, {"provenance": {"engine": {"xc": "pbe"}}})):
            with pytest.raises(ValueError, match="other structures or options"):
                learn(options(whole[0]), candidates, Engine(), VALIDATION, resume=True, progress=False, **more)

    @pytest.mark.parametrize("content", ["", "{}", "[1]", '{"fingerprint": "", "rounds": [{}]}'])
    def test_a_damaged_state(self, content, tmp_path):
        (tmp_path / "learn.json").write_text(content)
        with pytest.raises(ValueError, match=r"learn\.json: not the state of a run"):
            run(options(tmp_path), Engine(), resume=True)

    def test_too_few_candidates_and_names_that_stand_twice(self, tmp_path):
        with pytest.raises(ValueError, match="expected 7 or more for start and validation, got 6"):
            run(options(tmp_path / "run", start=6), Engine())
        with pytest.raises(ValueError, match="validation: c0 is the name of a candidate"):
            learn(options(tmp_path / "run"), CANDIDATES, Engine(), {"c0": atoms_of(0)}, progress=False)
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("candidates: p.xyz", "option goal_meV is missing"),
            ("candidates: p.xyz\ngoal_meV: 0", "option goal_meV: "),
            ("candidates: p.xyz\ngoal_meV: 1\nmembers: 1", "option members: "),
            ("candidates: p.xyz\ngoal_meV: 1\nbatches: 1", r"unknown option batches, did you mean batch\?"),
            ("candidates: p.xyz\ngoal_meV: 1\ntrain: {phase1: {epoch: 3}}", "train: unknown option phase1.epoch, did"),
            ("candidates: p.xyz\ngoal_meV: 1\ntrain: {seed: 3}", r"train\.seed: is set by learn itself"),
        ],
    )
    def test_options(self, text, message, tmp_path):
        (tmp_path / "learn.yaml").write_text(text)
        with pytest.raises(ValueError, match=message) as caught:
            read_options(LearnConfig, tmp_path / "learn.yaml")
        assert "\n" not in str(caught.value)
