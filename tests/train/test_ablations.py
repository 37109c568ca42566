"""Options that leave a part out, which tables of what the part is worth need."""

import copy
from typing import Any

import numpy as np
import pytest

from ase_hybridham.model import load_model
from ase_hybridham.store import DataSet
from ase_hybridham.symmetry import DirectSum
from ase_hybridham.system import PairList
from ase_hybridham.train import TrainConfig, loop, train
from ase_hybridham.train.data import rotated
from tests.model.networks import MIXED, config, network, structure
from tests.train.synthetic import OPTIONS


def options(stage2: dict[str, Any], **model: Any) -> dict[str, Any]:
    changed = copy.deepcopy(OPTIONS)
    changed["model"]["stage2"].update(stage2)
    changed["model"].update(model)
    return {**changed, "phase1": {"epochs": 1}, "phase2": {"epochs": 1}}


def test_without_scales_the_training_mean_is_zero_and_outputs_are_eV(data_set, tmp_path):
    path = train(TrainConfig(data=data_set, output=tmp_path, **options({}, scale_targets=False)), progress=False)
    cascade = load_model(path).cascade
    with DataSet(data_set) as data:
        graph = cascade.graph(data["a"].pairs)
        assert not cascade.predict(data["a"].pairs, "mean").values.any()
        known = np.abs(cascade.predict(data["a"].pairs, "stage1").values).max()
    for scale in (cascade.scale1, cascade.scale2):
        node, edge = scale(graph, *(2.0 * x + 1 for x in cascade._zeros(graph)))
        assert (node == 1).all()
        assert (edge == 1).all()
    assert known > 0


@pytest.mark.parametrize(("frame", "augment", "turned"), [("global", True, 3), ("global", False, 0), ("edge", True, 0)])
def test_copies_are_turned_where_asked(frame, augment, turned, data_set, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("ase_hybridham.train.phase.rotated", lambda *args: calls.append(0) or rotated(*args))
    settings = TrainConfig(data=data_set, output=tmp_path, augment=augment, **options({"frame": frame}))
    assert loop.train(settings, progress=False).exists()
    assert len(calls) == turned


@pytest.mark.parametrize("selection", [True, False])
def test_selection_rule_of_the_global_frame_can_be_left_out(selection):
    cascade = network(settings=config(frame="global", selection=selection))
    pairs = PairList.from_atoms(structure(MIXED, 11), MIXED.cutoffs())
    correction = cascade.predict(pairs, "hybrid") - cascade.predict(pairs, "stage1")
    largest = 0.0
    for elements, rows, blocks in correction.groups():
        direct_sum = DirectSum(MIXED[elements[0]].degrees, MIXED[elements[1]].degrees)
        components = direct_sum.to_sum(blocks[rows < pairs.n_atoms])
        for part in direct_sum.parts:
            if not part.natural:
                largest = max(largest, np.abs(components[:, part.components]).max(initial=0))
    assert (largest < 1e-10) == selection
    assert correction.hermiticity_error() < 1e-10


def test_selection_rule_of_the_edge_frame_cannot():
    with pytest.raises(ValueError, match="selection: false is for frame: global"):
        config(frame="edge", selection=False)
