"""Networks of DeepH-E3: the slow reference equals recordings of the program, imported networks equal both."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ase_hybridham.model.deephe3_files import read_deephe3
from tests.model.deephe3_folders import arguments_of, blocks_from_outputs
from tests.model.deephe3_reference import DeepHE3Reference, ReferenceOutput, reference_of

GOLDEN = ["mos2", "bismuth"]


def golden_reference(folder: Path) -> DeepHE3Reference:
    """The slow network with the weights of a checkpoint."""
    net = reference_of(arguments_of(folder))
    state = read_deephe3(folder).state
    own = {name: torch.from_numpy(state[name]) for name, _ in net.named_parameters()}
    net.load_state_dict(own, strict=False)
    return net


def evaluate(net: DeepHE3Reference, numbers: NDArray, index: NDArray, vectors: NDArray) -> ReferenceOutput:
    species = np.searchsorted(np.unique(numbers), numbers)
    with torch.no_grad():
        return net(torch.from_numpy(species), torch.from_numpy(index), torch.from_numpy(vectors))


def recorded_pairs(file: h5py.File) -> tuple[NDArray, NDArray, NDArray]:
    """Atomic numbers, i and j, vectors of a recording."""
    pairs = file["pairs"][:].astype(int)
    i, j = pairs[:, 3] - 1, pairs[:, 4] - 1
    positions = file["positions"][:]
    return file["atomic_numbers"][:], np.stack([i, j]), positions[j] + pairs[:, :3] @ file["lattice"][:] - positions[i]


def assert_relative(found: NDArray, wanted: NDArray, tolerance: float) -> None:
    assert np.abs(wanted).max() > 0.1
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("name", GOLDEN)
def test_reference_is_the_program(golden: Path, name: str) -> None:
    folder = golden / "deephe3" / name
    checkpoint = read_deephe3(folder / "checkpoint")
    with h5py.File(folder / "expected.h5") as file:
        numbers, index, vectors = recorded_pairs(file)
        found = evaluate(golden_reference(folder / "checkpoint"), numbers, index, vectors)
        rows = file["rows"][:]
        for block in range(3):
            assert_relative(found.nodes[block].numpy(), file[f"nodes.{block}"][:], 1e-10)
            # recorded in single precision
            assert_relative(found.edges[block].numpy()[rows], file[f"edges.{block}"][:], 1e-6)
        out = found.out.numpy()[rows]
        assert_relative(out, file["out"][:], 1e-10)
        pairs = [(numbers[i], numbers[j]) for i, j in index[:, rows].T]
        blocks = blocks_from_outputs(out, pairs, checkpoint.bases, spinful=checkpoint.spinful)
        for row, block in zip(rows, blocks, strict=True):
            assert_relative(block, file[f"blocks/{row}"][:], 1e-10)
