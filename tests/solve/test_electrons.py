"""Electrons of a system: whose word counts, and what contradicts."""

from dataclasses import replace

import pytest

from ase_hybridham.io import read_deeph
from ase_hybridham.solve import solve_valences, with_electrons


@pytest.fixture
def disulfide(golden):
    return read_deeph(golden / "openmx/MoS2_monolayer/deeph")


def test_given_valences_come_before_the_count(disulfide, caplog):
    given = with_electrons(disulfide, {"Mo": 14, "S": 6, "C": 4})
    assert given.electrons == 26
    assert given.basis["Mo"].valence == 14
    assert "electrons" not in given.provenance
    assert not caplog.records
    with pytest.raises(ValueError, match="expected one for Mo too"):
        with_electrons(disulfide, {"S": 6})


def test_a_count_far_from_the_given_valences_is_told(disulfide, caplog):
    assert with_electrons(disulfide, {"Mo": 13, "S": 6}).electrons == 25
    assert "25 electrons given, but 26.0 states lie below" in caplog.text


@pytest.mark.parametrize(
    ("electrons", "valence", "message"),
    [
        (None, {"Mo": 13, "S": 6}, "the system says 26 for .*, the valences 25"),
        (25, None, "the system says 26 for .*, the given count 25"),
    ],
)
def test_sources_that_contradict_each_other_are_refused(disulfide, electrons, valence, message):
    known = replace(disulfide, electrons=26.0)
    assert with_electrons(known, {"Mo": 14, "S": 6}, 26).electrons == 26
    with pytest.raises(ValueError, match=message):
        with_electrons(known, valence, electrons)


CH4, GRAPHENE, MOS2, S8 = {"C": 1, "H": 4}, {"C": 2}, {"Mo": 1, "S": 2}, {"S": 8}


@pytest.mark.parametrize(
    ("structures", "known", "expected"),
    [
        ([(GRAPHENE, 8), (CH4, 8)], {}, {"C": 4, "H": 1}),
        ([(CH4, 8), (CH4, 8)], {}, {}),
        ([(CH4, 8)], {"C": 4}, {"H": 1}),
        ([(GRAPHENE, 8), (MOS2, 26)], {}, {"C": 4}),  # Mo and S stay open
        ([(MOS2, 26), (S8, 48)], {}, {"Mo": 14, "S": 6}),
        ([(MOS2, 26), (S8, 48), (S8, 47)], {}, {}),  # no valence gives both counts
        ([(MOS2, 26), (S8, 52)], {}, {}),  # 6.5 is no valence
        ([(CH4, 8), (GRAPHENE, 16)], {}, {}),  # carbon would have 8 electrons of its 6
        ([], {}, {}),
    ],
)
def test_valences_that_counts_determine(structures, known, expected):
    assert solve_valences(structures, known) == expected
