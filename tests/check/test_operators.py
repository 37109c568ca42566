"""Partners, hermiticity, norms and common pairs."""

import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest

from ase_hybridham.check import check_system
from ase_hybridham.errors import FormatError
from ase_hybridham.io import read_deeph
from ase_hybridham.system import PairBlocks, PairList


def changed(blocks: PairBlocks, change) -> PairBlocks:
    values = np.array(blocks.values)
    change(blocks, values)
    return blocks.with_values(values)


def test_one_triangle(sample):
    system = sample("graphene")

    def empty(blocks: PairBlocks, values) -> None:
        for p in range(len(blocks.pairs)):
            if blocks.pairs.reverse[p] < p:
                values[blocks.offsets[p] : blocks.offsets[p + 1]] = 0

    bad = replace(system, hamiltonian=(changed(system.hamiltonian[0], empty),))
    finding = check_system(bad)["H hermitian"]
    assert finding.verdict == "failed"
    assert "only one triangle" in finding.message


def test_a_changed_element_is_named_with_its_pair(sample):
    system = sample("MoS2_monolayer")

    def poke(blocks: PairBlocks, values) -> None:
        values[blocks.offsets[7] + 3] += 0.5

    bad = replace(system, hamiltonian=(changed(system.hamiltonian[0], poke),))
    finding = check_system(bad)["H hermitian"]
    pairs = system.pairs
    ends = {7, int(pairs.reverse[7])}
    assert finding.verdict == "failed"
    assert finding.figure == pytest.approx(0.5, abs=1e-6)
    assert any(f"({pairs.i[p]}, {pairs.j[p]}, R={pairs.shifts[p].tolist()})" in finding.message for p in ends)


def test_a_predicted_H_need_not_be_hermitian(sample):
    system = sample("graphene")
    rng = np.random.default_rng(0)
    noisy = system.hamiltonian[0].with_values(system.hamiltonian[0].values + 0.02 * rng.normal(size=55432)[:15548])
    predicted = replace(system, hamiltonian=(noisy,), provenance={"predicted": True})
    assert check_system(predicted)["H hermitian"].verdict == "note"
    assert check_system(replace(system, hamiltonian=(noisy,)))["H hermitian"].verdict == "failed"


def test_another_matrix_in_the_place_of_S(sample):
    system = sample("graphene")
    assert check_system(replace(system, overlap=system.hamiltonian[0]))["S on-site"].verdict == "failed"


@pytest.mark.parametrize("operator", ["hamiltonian", "overlap"])
def test_pairs_that_only_one_operator_has(sample, operator):
    system = sample("bilayer_graphene_AB")
    near = int(np.argmin(np.where(system.pairs.distances > 0, system.pairs.distances, np.inf)))

    def empty(blocks: PairBlocks, values) -> None:
        for p in (near, int(blocks.pairs.reverse[near])):
            values[blocks.offsets[p] : blocks.offsets[p + 1]] = 0

    if operator == "overlap":
        bad = replace(system, overlap=changed(system.overlap, empty))
        words = "S is zero on 2 of 330 pairs where H is not"
    else:
        bad = replace(system, hamiltonian=(changed(system.hamiltonian[0], empty),))
        words = "H is zero on 2 of 330 pairs where S is not"
    finding = check_system(bad)["H and S pairs"]
    assert finding.verdict == "warning"
    assert words in finding.message


def test_a_missing_partner_that_no_reader_saw(sample):
    system = sample("graphene")
    reverse = np.array(system.pairs.reverse)
    reverse[5] = 5
    pairs = replace(system.pairs, reverse=reverse)
    bad = replace(
        system,
        hamiltonian=tuple(PairBlocks(pairs, h.basis, h.values) for h in system.hamiltonian),
        overlap=PairBlocks(pairs, system.basis, system.overlap.values),
    )
    assert check_system(bad)["pairs"].verdict == "failed"


def test_lost_pairs_are_counted(sample):
    system = sample("bilayer_graphene_AB")
    pairs = system.pairs
    far = pairs.distances < 3.0
    short = PairList.from_indices(system.atoms, pairs.i[far], pairs.j[far], pairs.shifts[far])
    cut = replace(
        system,
        hamiltonian=tuple(h.on_pairs(short) for h in system.hamiltonian),
        overlap=system.overlap.on_pairs(short),
    )
    finding = check_system(cut)["range of pairs"]
    assert finding.verdict == "warning"
    assert "are missing" in finding.message


def test_a_reverse_pair_that_a_file_lacks_is_named_by_the_reader(golden, tmp_path):
    folder = shutil.copytree(golden / "openmx/graphene/deeph", tmp_path / "graphene")
    for name in ("hamiltonians.h5", "overlaps.h5"):
        with h5py.File(folder / name, "a") as file:
            del file["[-1, 0, 0, 1, 2]"]
    with pytest.raises(FormatError, match=r"\[1, 0, 0, 2, 1\]|reverse is missing"):
        read_deeph(folder)
