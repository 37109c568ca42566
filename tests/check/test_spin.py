"""Mistakes in spin blocks are found and named; magnetism is not one."""

from dataclasses import replace

import numpy as np
import pytest

from ase_hybridham.check import check_system
from tests.check.mistakes import with_spin_blocks

MISTAKES = {
    "up-down block is conjugated": lambda uu, ud, du, dd: (uu, ud.conj(), du.conj(), dd),
    "up-down and down-up blocks are exchanged": lambda uu, ud, du, dd: (uu, du, ud, dd),
    "up-up and down-down blocks are exchanged": lambda uu, ud, du, dd: (dd, ud, du, uu),
    "spin up and down are exchanged": lambda uu, ud, du, dd: (dd, du, ud, uu),
    "whole matrix is conjugated": lambda *blocks: tuple(b.conj() for b in blocks),
    "up-down and down-up have the wrong sign": lambda uu, ud, du, dd: (uu, -ud, -du, dd),
}


@pytest.mark.parametrize("words", MISTAKES)
@pytest.mark.parametrize("name", ["Bi_bismuthene_soc", "O2_spin_orbit"])
def test_spin_blocks_of_another_convention(sample, name, words):
    finding = check_system(with_spin_blocks(sample(name), MISTAKES[words]))["spin-orbit"]
    assert finding.verdict == "failed"
    assert words in finding.message
    assert ("bands are wrong" in finding.message) == (words[:7] in ("up-down", "up-up a") and "sign" not in words)


@pytest.mark.parametrize("name", ["Bi_bismuthene_soc", "O2_spin_orbit"])
def test_bands_are_wrong_where_it_is_said(sample, name):
    from ase_hybridham.solve import eigenvalues

    k = [[0.13, 0.29, 0.0]]
    right = eigenvalues(sample(name), k)
    for words, change in MISTAKES.items():
        bad = with_spin_blocks(sample(name), change)
        message = check_system(bad)["spin-orbit"].message
        moved = np.abs(eigenvalues(bad, k) - right).max()
        if "whole" in words:  # e(-k), the same without magnetism
            continue
        if name == "Bi_bismuthene_soc":
            assert ("bands are wrong" in message) == (moved > 1e-3), (words, moved)


@pytest.mark.parametrize("name", ["Bi_bismuthene_soc", "O2_spin_orbit"])
def test_down_up_as_the_conjugate_of_the_same_block(sample, name):
    """What HamGNN's converter of OpenMX writes."""
    bad = with_spin_blocks(sample(name), lambda uu, ud, du, dd: (uu, ud, ud.conj(), dd))
    finding = check_system(bad)["H hermitian"]
    assert finding.verdict == "failed"
    assert "+conj(up-down) of the same block" in finding.message
    assert "reverse pair" in finding.advice


def test_spin_flips_that_were_dropped(sample):
    bad = with_spin_blocks(sample("Bi_bismuthene_soc"), lambda uu, ud, du, dd: (uu, 0 * ud, 0 * du, dd))
    assert check_system(bad)["spin-orbit"].verdict == "warning"


def test_magnetism_is_a_note(sample):
    report = check_system(sample("O2_spin_orbit"))
    assert report["time reversal"].verdict == "note"
    assert "magnetic" in report["time reversal"].message
    assert check_system(sample("Bi_bismuthene_soc"))["time reversal"].verdict == "ok"


def test_collinear_data_written_as_a_spinor(sample):
    system = sample("O2_triplet_collinear")
    up, down = (h.to_spinor() for h in system.hamiltonian)
    n = np.array([1.0, 0.0])
    joined = {}
    for (elements, _, a), (_, _, b) in zip(up.groups(), down.groups(), strict=True):
        half = a.shape[1] // 2
        first = np.repeat(n, half)[:, None] * np.ones(a.shape[2])
        joined[elements] = a * first + b * (1 - first)
    spinor = type(up).from_groups(up.pairs, up.basis, joined, spinor=True)
    finding = check_system(replace(system, hamiltonian=(spinor,), spin="spinor"))["time reversal"]
    assert finding.verdict == "note"
    assert "collinear spin, written as a spinor" in finding.message


def test_broken_time_reversal_splits_kramers_pairs(sample):
    """A field along z in blocks that claim to be without magnetism is told as magnetism, not passed over."""
    system = sample("Bi_bismuthene_soc")
    bad = with_spin_blocks(system, lambda uu, ud, du, dd: (uu + 0.01 * uu.real, ud, du, dd))
    report = check_system(bad)
    assert report["time reversal"].verdict == "note"
    assert report["Kramers pairs"].figure > 1e-3
