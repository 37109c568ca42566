"""Networks of DeepH-E3: the slow reference equals recordings of the program, imported networks equal both."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from ase import Atoms
from e3nn.o3 import Irreps
from numpy.typing import NDArray

from ase_hybridham.model import TrainedModel, load_model, save_model
from ase_hybridham.model.deephe3 import import_deephe3
from ase_hybridham.model.deephe3_files import read_deephe3
from ase_hybridham.model.layout import FeatureLayout
from ase_hybridham.system import PairList
from tests.conftest import random_atoms
from tests.model.deephe3_folders import Bases, arguments_of, blocks_from_outputs, build_arguments, write_folder
from tests.model.deephe3_reference import DeepHE3Reference, ReferenceOutput, make_reference, reference_of

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


def assert_same_blocks(found: list[NDArray], wanted: list[NDArray], tolerance: float = 1e-10) -> None:
    assert [block.shape for block in found] == [block.shape for block in wanted]
    assert_relative(*(np.concatenate([block.ravel() for block in blocks]) for blocks in (found, wanted)), tolerance)


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
        assert_same_blocks(blocks, [file[f"blocks/{row}"][:] for row in rows])


# -- imported networks


def in_their_order(rows: NDArray, layout: FeatureLayout, irreps: Irreps) -> NDArray:
    """Rows in the lab: degree, order, channel -> irreps in their order, channel, order."""
    parts = []
    for mul, ir in irreps:
        start, natural = sum(layout.widths[: ir.l]), ir.p == (-1) ** ir.l
        of_degree = rows[:, start : start + layout.widths[ir.l]].reshape(len(rows), 2 * ir.l + 1, -1)
        first = 0 if natural else layout.natural[ir.l]
        parts.append(of_degree[..., first : first + mul].swapaxes(1, 2).reshape(len(rows), -1))
    return np.concatenate(parts, axis=1)


@dataclass
class Found:
    """What an imported network says, in DeepH-E3's order of components."""

    nodes: list[NDArray]
    edges: list[NDArray]
    blocks: list[NDArray]


def predict(model: TrainedModel, folder: Path, atoms: Atoms, pairs: PairList) -> Found:
    """Features after every block, and blocks of H, for all pairs."""
    stage1, graph, checkpoint = model.cascade.stage1, model.cascade.graph(pairs), read_deephe3(folder)
    output, frames = stage1(graph), graph.frames(stage1.lmax)
    nodes, edges = [], []
    for block, (node, edge) in enumerate(stage1.layouts):
        irreps = checkpoint.node_updates[block].after, checkpoint.edge_updates[block].after
        nodes.append(in_their_order(output.nodes[block].numpy(), node, irreps[0]))
        rows = torch.cat([output.onsite[block], frames.to_lab(output.edges[block], edge)])
        edges.append(in_their_order(rows.numpy(), edge, irreps[1]))
    h = model.predict(atoms, pairs, hermitian=False)
    return Found(nodes, edges, [h.block(p) for p in range(len(pairs))])


@pytest.mark.parametrize("name", GOLDEN)
def test_imported_network_is_the_program(golden: Path, name: str) -> None:
    folder = golden / "deephe3" / name
    model = import_deephe3(folder / "checkpoint")
    with h5py.File(folder / "expected.h5") as file:
        keys, rows = file["pairs"][:].astype(int), file["rows"][:]
        atoms = Atoms(file["atomic_numbers"][:], file["positions"][:], cell=file["lattice"][:], pbc=True)
        pairs, place = PairList.sorted_from_indices(atoms, keys[:, 3] - 1, keys[:, 4] - 1, keys[:, :3])
        found = predict(model, folder / "checkpoint", atoms, pairs)
        for block in range(3):
            assert_relative(found.nodes[block], file[f"nodes.{block}"][:], 1e-10)
            assert_relative(found.edges[block][place[rows]], file[f"edges.{block}"][:], 1e-6)
        assert_same_blocks([found.blocks[place[row]] for row in rows], [file[f"blocks/{row}"][:] for row in rows])


def test_network_of_a_later_e3nn_is_the_program(golden: Path) -> None:
    folder = golden / "deephe3/spin_e3nn044"
    model = import_deephe3(folder / "checkpoint")
    assert model.provenance["e3nn"] == "0.4"
    with h5py.File(folder / "expected.h5") as file:
        keys = file["pairs"][:].astype(int)
        atoms = Atoms(file["atomic_numbers"][:], file["positions"][:], cell=file["lattice"][:], pbc=True)
        pairs, place = PairList.sorted_from_indices(atoms, keys[:, 3] - 1, keys[:, 4] - 1, keys[:, :3])
        h = model.predict(atoms, pairs, hermitian=False)
        assert_same_blocks(
            [h.block(row) for row in place], [file[f"blocks/{row}"][:] for row in range(len(keys))], 1e-12
        )


@pytest.mark.parametrize("name", ["case1_C_spinless", "case2_MoS2_spinless", "case3_Bi_soc", "case4_C_default"])
def test_full_recordings_agree(reference_data: Path, name: str) -> None:
    folder = reference_data.parent / "golden/deephe3" / name
    model = import_deephe3(folder / "checkpoint")
    single = name == "case4_C_default"  # a run in single precision
    with h5py.File(folder / "golden.h5") as file, h5py.File(folder / "structure/hamiltonians_pred.h5") as blocks:
        keys = file["input/edge_key"][:]
        atoms = Atoms(file["input/atomic_numbers"][:], file["input/positions"][:], cell=file["input/lattice"][:])
        pairs, place = PairList.sorted_from_indices(atoms, keys[:, 3] - 1, keys[:, 4] - 1, keys[:, :3])
        found = predict(model, folder / "checkpoint", atoms, pairs)
        for block in range(0 if single else 3):
            assert_relative(found.nodes[block], file[f"block/node_update_blocks.{block}"][:], 1e-10)
            assert_relative(found.edges[block][place], file[f"block/edge_update_blocks.{block}"][:], 1e-6)
        wanted = []
        for row, key in zip(place, keys.tolist(), strict=True):
            i, j = (orbitals(model, pairs, atom) for atom in (pairs.i[row], pairs.j[row]))
            wanted.append(blocks[str(key)][:][np.ix_(i, j)])
        assert_same_blocks([found.blocks[row] for row in place], wanted, 1e-5 if single else 1e-10)


def orbitals(model: TrainedModel, pairs: PairList, atom: int) -> list[int]:
    """Orbitals m = -l .. l of an atom in DeepH's order."""
    out, start, basis = [], 0, model.basis[int(pairs.numbers[atom])]
    for l in basis.degrees:
        out += [start + k for k in ([0], [1, 2, 0], [2, 4, 0, 3, 1])[l]]
        start += 2 * l + 1
    return out + [start + k for k in out] if model.cascade.domain.spin == "spinor" else out


@dataclass
class Case:
    """A random network."""

    bases: Bases
    irreps: str
    lmax: int
    spinful: bool = False
    n_blocks: int = 2
    embed: int = 5
    normalization: str = "path035"


CASES = {
    "three elements": Case({1: (0,), 6: (0, 0, 1), 16: (1, 0, 2)}, "6x0e+4x1o+3x2e+2x3o", 3),
    "f shells": Case({57: (0, 1, 3)}, "5x0e+3x1o+2x2e+2x3o+1x4e+2x5o", 5),
    "spin, two elements": Case({16: (0, 1), 42: (0, 2, 0)}, "5x0e+3x1o+2x2e+2x3o+1x4e", 4, spinful=True),
    "spin, f shells": Case({57: (0, 3)}, "4x0e+2x1o+2x2e+1x3o+2x4e", 4, spinful=True),
    "pseudotensors": Case({6: (0, 1)}, "3x0e+2x0o+3x1o+2x1e+2x2e+3x2o", 2, spinful=True, n_blocks=3),
    "few harmonics": Case({6: (0, 1, 2)}, "4x0e+3x1o+2x2e+3x3o+2x4e", 2, n_blocks=3),
    "degrees left out": Case({6: (0, 2)}, "4x0e+3x2e+2x3o", 3),
    "scalars inside": Case({6: (1,)}, "5x0e", 3, n_blocks=3),
    "scalars outside": Case({1: (0, 0)}, "4x0e+3x1o+2x2e", 2),
    "outputs that nothing reaches": Case({6: (2,)}, "4x0e+3x1o", 1),
    "one block": Case({6: (0, 1), 7: (0,)}, "6x0e", 3, n_blocks=1),
    "new e3nn": Case({6: (0, 1, 2)}, "5x0e+3x1o+2x2e", 3, normalization="element"),
    "new e3nn, spin": Case({6: (0, 1), 8: (1, 2)}, "5x0e+3x1o+2x2e+2x3o", 3, spinful=True, normalization="element"),
}


@pytest.mark.parametrize("name", CASES)
def test_imported_network_is_the_reference(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    folder, net = random_folder(tmp_path / "checkpoint", case)
    model = import_deephe3(folder)
    atoms = random_atoms(1, 4)
    atoms.numbers = np.resize(sorted(case.bases), 4)
    pairs = PairList.from_atoms(atoms, 5.5)
    wanted = evaluate(net, pairs.numbers, np.stack([pairs.i, pairs.j]), pairs.vectors)
    found = predict(model, folder, atoms, pairs)
    for block in range(case.n_blocks):
        assert_relative(found.nodes[block], wanted.nodes[block].numpy(), 1e-11)
        assert_relative(found.edges[block], wanted.edges[block].numpy(), 1e-11)
    elements = [(int(pairs.numbers[i]), int(pairs.numbers[j])) for i, j in zip(pairs.i, pairs.j, strict=True)]
    blocks = blocks_from_outputs(
        wanted.out.numpy(), elements, case.bases, spinful=case.spinful, normalization=case.normalization
    )
    assert_same_blocks(found.blocks, blocks, 1e-11)


def random_folder(folder: Path, case: Case) -> tuple[Path, DeepHE3Reference]:
    arguments = build_arguments(
        case.bases,
        case.irreps,
        embed=case.embed,
        lmax=case.lmax,
        n_blocks=case.n_blocks,
        r_max=5.0,
        spinful=case.spinful,
    )
    net = make_reference(arguments, 0, case.normalization)
    return write_folder(folder, net, arguments, case.bases, case.spinful), net


@pytest.mark.parametrize("name", GOLDEN)
def test_imported_network_is_written_and_read(golden: Path, tmp_path: Path, name: str) -> None:
    model = import_deephe3(golden / "deephe3" / name / "checkpoint")
    save_model(tmp_path / "model.hham", model)
    loaded = load_model(tmp_path / "model.hham", device="cpu")
    atoms = random_atoms(2, 4)
    atoms.numbers = np.resize(model.basis.numbers, 4)
    pairs = PairList.from_atoms(atoms, 5.0)
    first, second = (m.predict(atoms, pairs, hermitian=False) for m in (model, loaded))
    assert np.abs(first.values).max() > 0.1
    np.testing.assert_array_equal(first.values, second.values)
    assert first.hermiticity_error() > 0.1  # as the program has it
    assert model.predict(atoms, pairs).hermiticity_error() < 1e-12
