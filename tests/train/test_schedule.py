"""Learning rates, when to go back and when to stop, averaged weights."""

import numpy as np
import pytest
import torch
from torch import nn

from ase_hybridham.train import PhaseConfig
from ase_hybridham.train.schedule import AveragedWeights, LearningRate


def test_cosine_warms_up_and_ends_at_zero():
    rate = LearningRate(PhaseConfig(learning_rate=0.1, warmup_steps=10))
    rates = np.array([rate.at(step, step / 1000) for step in range(1001)])
    assert rates[0] == pytest.approx(0.01)
    assert rates.argmax() in (9, 10)
    assert rates.max() == pytest.approx(0.1, rel=1e-3)
    assert (np.diff(rates[10:]) < 0).all()
    assert rates[500] == pytest.approx(0.05)
    assert rates[1000] == pytest.approx(0.0, abs=1e-12)
    assert rates[999] > 0


def test_plateau_halves_when_the_error_stalls():
    rate = LearningRate(PhaseConfig(learning_rate=0.1, schedule="plateau", patience=2, warmup_steps=0))
    for error in (5.0, 4.0, 3.0, 3.0, 3.0):  # two epochs without progress are allowed
        rate.observe(error)
        assert rate.at(50, 0.5) == pytest.approx(0.1)
    rate.observe(3.0)
    assert rate.at(50, 0.5) == pytest.approx(0.05)
    rate.observe(2.0)
    for _ in range(3):
        rate.observe(2.5)
    assert rate.at(99, 0.5) == pytest.approx(0.025)


def test_plateau_does_not_count_what_is_no_progress():
    """A thousandth is the least step that counts."""
    rate = LearningRate(PhaseConfig(learning_rate=0.1, schedule="plateau", patience=1, warmup_steps=0))
    for error in (1.0, 0.9999, 0.9998):
        rate.observe(error)
    assert rate.at(0, 0.5) == pytest.approx(0.05)


def test_a_jump_is_not_waited_for_on_every_schedule():
    """Facts of DeepH-E3's sources: more than twice the best error for some epochs; then 0.8 of the rate."""
    for schedule in ("cosine", "plateau"):
        rate = LearningRate(PhaseConfig(learning_rate=0.1, schedule=schedule, warmup_steps=0, revert_after=2))
        start = rate.at(0, 0.25)
        assert [rate.observe(error) for error in (4.0, 2.0, 4.1, 3.9, 4.1)] == [False] * 5
        assert rate.at(0, 0.25) == start
        assert rate.observe(4.1)
        assert rate.at(0, 0.25) == pytest.approx(0.8 * start)
        assert not rate.observe(float("nan"))
        assert rate.observe(float("nan"))
        assert rate.at(0, 0.25) == pytest.approx(0.64 * start)


def test_nothing_is_reverted_unless_asked():
    rate = LearningRate(PhaseConfig(learning_rate=0.1, warmup_steps=0))
    assert not any(rate.observe(error) for error in [1.0] + [9.0] * 99)
    assert rate.at(0, 0.0) == 0.1
    assert not rate.exhausted


def test_patience_ends():
    rate = LearningRate(PhaseConfig(stop_after=3))
    told = []
    for error in (5.0, 5.0, 4.9999, 4.0, 4.5, 4.2, 3.9999, 3.0):
        rate.observe(error)
        told.append(rate.exhausted)
    assert told == [False] * 6 + [True, False]


@pytest.mark.parametrize(
    "options", [{"schedule": "plateau", "patience": 1}, {"revert_after": 2, "stop_after": 4}], ids=str
)
def test_rate_goes_on_where_it_stood(options):
    config = PhaseConfig(learning_rate=0.1, warmup_steps=0, **options)
    errors = [3.0, 3.0, 3.0, 2.0, 9.0, 9.0, 9.0]
    whole, first, second = (LearningRate(config) for _ in range(3))
    for error in errors:
        whole.observe(error)
    for error in errors[:5]:
        first.observe(error)
    second.restore(first.state())
    for error in errors[5:]:
        second.observe(error)
    assert second.state() == whole.state()
    assert second.at(3, 0.5) == whole.at(3, 0.5) != LearningRate(config).at(3, 0.5)


def test_average_follows_the_weights():
    parameter = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    average = AveragedWeights([parameter], decay=0.9)
    with torch.no_grad():
        parameter.fill_(1.0)
    expected = 0.0
    for n in range(1, 200):
        average.update()
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay)
    assert float(average.average[0][0]) == pytest.approx(expected)
    assert expected > 0.999
    average.swap()
    assert float(parameter.detach()[0]) == pytest.approx(expected)
    average.swap()
    assert parameter.tolist() == [1.0] * 3


def test_without_decay_the_weights_are_themselves():
    parameter = nn.Parameter(torch.ones(3))
    average = AveragedWeights([parameter], decay=None)
    average.update()
    average.swap()
    assert parameter.tolist() == [1.0] * 3
    assert average.average == []


def test_average_is_restored_into_its_own_place():
    """The stored tensors are not the ones that go on changing."""
    parameter = nn.Parameter(torch.zeros(2))
    average = AveragedWeights([parameter], decay=0.5)
    stored = [torch.full((2,), 4.0)]
    average.restore(stored, 100)
    average.update()
    assert average.average[0].tolist() == [2.0, 2.0]
    assert stored[0].tolist() == [4.0, 4.0]
    assert average.n_updates == 101
