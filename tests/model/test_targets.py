"""Scales of the targets: on synthetic data whose mean and sigma are known."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, graphene
from scipy.spatial.transform import Rotation

from ase_hybridham.model import PairGraph, TargetScale, Vocabulary, blocks_from_components
from ase_hybridham.symmetry import rotate_system
from ase_hybridham.system import AtomBasis, Basis, LCAOSystem, PairBlocks, PairList
from tests.model.networks import MIXED, random_hamiltonian, structure

FLOOR = 3e-5
CARBON = Basis.of(AtomBasis.from_degrees("C", [0, 0, 1, 2], valence=4, cutoff=2.2))
SHELLS = (1.45, 2.5, 3.9)  # of neighbors, angstrom, each 0.2 wide


@dataclass
class Sample:
    """A graph that holds what `TargetScale.fit` reads: distances and components."""

    species: torch.Tensor
    element_pair: torch.Tensor
    distance: torch.Tensor
    node_target: torch.Tensor
    edge_target: torch.Tensor


def mean_of(distance: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Natural m = 0 components have one, and the block (b, a) that of (a, b), as reverse pairs demand."""
    direct_sum, (index, sign) = vocabulary.targets[0].direct_sum, vocabulary.partner[0]
    out = np.zeros((len(distance), direct_sum.size))
    for c in np.flatnonzero(direct_sum.natural & (direct_sum.order == 0)):
        d, p = distance, direct_sum.part_of[c]
        out[:, c] = (1 + p % 3) * np.exp(-1.5 * (d - 1.4)) * np.cos(d + p)
    mirrored = np.array([part.row_shell > part.column_shell for part in direct_sum.parts])[direct_sum.part_of]
    return np.where(mirrored, sign * out[:, index], out)


def sigma_of(d: np.ndarray, group: int) -> np.ndarray:
    return 0.3 * np.exp(-(1.0 + 0.4 * (group % 4)) * (d - 1.4))


def sample(vocabulary: Vocabulary, n: int = 4000, seed: int = 0) -> Sample:
    """Hoppings in three shells of neighbors; a sigma per part and |m|, a mean for natural m = 0 components."""
    rng = np.random.default_rng(seed)
    direct_sum = vocabulary.targets[0].direct_sum
    distance = rng.choice(SHELLS, n) + rng.uniform(-0.1, 0.1, n)
    edge = rng.normal(size=(n, direct_sum.size))
    node = rng.normal(size=(n // 10, direct_sum.size))
    groups = part_and_order(direct_sum)
    for c in range(direct_sum.size):
        edge[:, c] *= sigma_of(distance, groups[c])
        node[:, c] = 0.1 * (1 + groups[c] % 5) * node[:, c] + (7.0 if direct_sum.degree[c] == 0 else 0.0)
    edge += mean_of(distance, vocabulary)
    index, sign = vocabulary.partner[0]
    return Sample(
        torch.zeros(n // 10, dtype=torch.long),
        torch.zeros(2 * n, dtype=torch.long),
        torch.from_numpy(np.concatenate([distance, distance])),
        torch.from_numpy(node),
        torch.from_numpy(np.concatenate([edge, sign * edge[:, index]])),  # and the reverse pairs
    )


def part_and_order(direct_sum) -> np.ndarray:
    """A number for every part and |m|, the same for the parts (a, b) and (b, a) of two shells."""
    keys = [
        (*sorted((direct_sum.parts[p].row_shell, direct_sum.parts[p].column_shell)), direct_sum.parts[p].L, abs(m))
        for p, m in zip(direct_sum.part_of, direct_sum.order, strict=True)
    ]
    numbers = {key: k for k, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys])


def normalized(scale: TargetScale, data: Sample) -> tuple[np.ndarray, np.ndarray]:
    """What the network would have to give."""
    mean, sigma = scale.edge_statistics(data)
    node = (data.node_target - scale.node_mean[data.species]) / scale.node_sigma[data.species]
    return node.numpy(), ((data.edge_target - mean) / sigma).numpy()


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(CARBON)


@pytest.fixture(scope="module")
def fitted(vocabulary) -> tuple[TargetScale, Sample]:
    scale, data = TargetScale(vocabulary), sample(vocabulary)
    scale.fit([data])
    return scale, data


def test_normalized_targets_have_unit_size_in_every_shell(fitted, vocabulary):
    """8000 / 3 rows give the rms of a component to 2 %; sigma falls by 0.2 to 0.5 within a shell."""
    scale, data = fitted
    node, edge = normalized(scale, data)
    direct_sum = vocabulary.targets[0].direct_sum
    groups = part_and_order(direct_sum)
    distance = data.distance.numpy()
    raw = [np.abs(data.edge_target.numpy()[np.abs(distance - shell) < 0.2]).mean() for shell in SHELLS]
    assert raw[0] > 10 * raw[2]
    for shell in SHELLS:
        for side in (distance < shell, distance > shell):
            rows = side & (np.abs(distance - shell) < 0.2)
            for group in np.unique(groups):
                rms = np.sqrt((edge[np.ix_(rows, groups == group)] ** 2).mean())
                assert 0.85 < rms < 1.15
    for part in direct_sum.parts:
        assert np.sqrt((node[:, part.components] ** 2).mean()) == pytest.approx(1.0, abs=0.1)


def test_mean_and_sigma_are_found(fitted, vocabulary):
    scale, data = fitted
    direct_sum = vocabulary.targets[0].direct_sum
    mean, sigma = (values.numpy() for values in scale.edge_statistics(data))
    distance, groups = data.distance.numpy(), part_and_order(direct_sum)
    expected_mean = mean_of(distance, vocabulary)
    for c in range(direct_sum.size):
        expected_sigma = sigma_of(distance, groups[c])
        np.testing.assert_allclose(sigma[:, c], expected_sigma, rtol=0.25)
        if direct_sum.natural[c] and direct_sum.order[c] == 0:
            # the mean of 300 rows in a tenth of a shell is known to sigma / 17
            assert (np.abs(mean[:, c] - expected_mean[:, c]) < expected_sigma / 4).all()
        else:
            assert not mean[:, c].any()
    scalars = direct_sum.degree == 0
    np.testing.assert_allclose(scale.node_mean[0].numpy()[scalars], 7.0, atol=0.2)
    assert not scale.node_mean[0].numpy()[~scalars].any()


def test_far_shell_is_not_scaled_by_the_near_one():
    """A bin over both would make the sigma of one of them wrong by orders of magnitude."""
    vocabulary = Vocabulary(Basis.of(AtomBasis.from_degrees("C", [0], cutoff=2.0)))
    scale, rng = TargetScale(vocabulary), np.random.default_rng(0)
    n = 15  # both together fill less than one bin
    distance = np.concatenate([np.full(n, 1.4), np.full(n, 2.9)]) + 1e-3 * rng.normal(size=2 * n)
    values = np.concatenate([rng.normal(size=n), 1e-3 * rng.normal(size=n)])[:, None]
    both = torch.zeros(2 * n, dtype=torch.long)
    data = Sample(both[:1], both, torch.from_numpy(distance), torch.zeros(1, 1), torch.from_numpy(values))
    scale.fit([data], centered=False)
    _, edge = normalized(scale, data)
    for rows in (slice(0, n), slice(n, 2 * n)):
        assert 0.7 < np.sqrt((edge[rows] ** 2).mean()) < 1.4


def test_between_shells_the_scale_stays_within_theirs(fitted):
    """A structure of another kind has pairs at distances the training set lacks."""
    scale, data = fitted
    gaps = np.concatenate([np.linspace(0.3, 1.4, 30), np.linspace(1.5, 6.0, 200)])
    other = Sample(data.species, torch.zeros(len(gaps), dtype=torch.long), torch.from_numpy(gaps), None, None)
    mean, sigma = (values.numpy() for values in scale.edge_statistics(other))
    known_mean, known_sigma = (values.numpy() for values in scale.edge_statistics(data))
    assert (sigma <= 1.01 * known_sigma.max(0)).all()
    assert (sigma >= 0.99 * known_sigma.min(0)).all()
    assert (np.abs(mean) <= 3 * np.abs(known_mean).max(0) + 1e-9).all()


def test_output_of_the_right_answer_is_the_target(fitted, vocabulary):
    scale, data = fitted
    node, edge = normalized(scale, data)
    there = scale(data, torch.from_numpy(node), torch.from_numpy(edge))
    np.testing.assert_allclose(there[0].numpy(), data.node_target.numpy(), atol=1e-12)
    np.testing.assert_allclose(there[1].numpy(), data.edge_target.numpy(), atol=1e-12)


def test_residuals_get_no_mean(vocabulary):
    scale, data = TargetScale(vocabulary), sample(vocabulary)
    scale.fit([data], centered=False)
    assert not scale.mean.any()
    assert not scale.node_mean.any()
    node, edge = normalized(scale, data)
    assert 0.9 < np.sqrt((edge**2).mean()) < 1.1
    assert 0.9 < np.sqrt((node**2).mean()) < 1.1


def test_zero_targets_are_not_blown_up(vocabulary):
    scale, data = TargetScale(vocabulary), sample(vocabulary, 100)
    data.edge_target = 1e-9 * data.edge_target
    data.node_target = torch.zeros_like(data.node_target)
    scale.fit([data])
    node, edge = normalized(scale, data)
    assert np.abs(edge).max() < 1e-3
    assert np.abs(node).max() == 0


class TestStructures:
    """Real graphs."""

    def graph(self, h: PairBlocks, vocabulary: Vocabulary) -> PairGraph:
        return PairGraph.with_targets((h,), vocabulary, vocabulary.lmax, torch.float64)

    def fit(self, hamiltonians: list[PairBlocks], *, dtype: torch.dtype = torch.float64) -> TargetScale:
        scale = TargetScale(Vocabulary(MIXED)).to(dtype)
        scale.fit([self.graph(h, scale.vocabulary) for h in hamiltonians])
        return scale

    def predicted(self, scale: TargetScale, pairs: PairList) -> PairBlocks:
        """The mean alone."""
        vocabulary = scale.vocabulary
        graph = PairGraph.from_pairs(pairs, vocabulary, vocabulary.lmax, scale.mean.dtype)
        zeros = graph.distance.new_zeros(1, vocabulary.size)
        node, edge = scale(graph, zeros.expand(len(graph.species), -1), zeros.expand(len(graph.distance), -1))
        return blocks_from_components(node, edge, pairs, vocabulary)[0]

    def test_orientation_of_the_training_set_does_not_matter(self):
        systems = [LCAOSystem(a := structure(MIXED, s), (random_hamiltonian(a, MIXED, s),)) for s in range(3)]
        rotations = Rotation.random(3, random_state=0).as_matrix()
        turned = [rotate_system(system, Q) for system, Q in zip(systems, rotations, strict=True)]
        one, other = self.fit([s.hamiltonian[0] for s in systems]), self.fit([s.hamiltonian[0] for s in turned])
        assert one.mean.abs().max() > 0.1
        for name, values in one.state_dict().items():
            # a pair's distance may go to the next bin by rounding only if two are equal to 1e-16
            np.testing.assert_allclose(other.state_dict()[name].numpy(), values.numpy(), atol=1e-8, err_msg=name)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("lattice", ["random", "zincblende"])
    def test_mean_is_hermitian_to_the_last_bit(self, lattice, dtype):
        """In an ideal crystal many pairs have one length; their order must not decide what C-S and S-C get."""
        atoms = structure(MIXED, 4, n_atoms=8) if lattice == "random" else bulk("CS", "zincblende", a=3.9).repeat(2)
        scale = self.fit([random_hamiltonian(atoms, MIXED)], dtype=dtype)
        vocabulary = scale.vocabulary
        for t in range(vocabulary.n_pairs):
            reverse = vocabulary.reverse_pair(t)
            assert vocabulary.element_pairs[t] == vocabulary.element_pairs[reverse][::-1]
            index, sign = vocabulary.partner[t]
            mirrored = scale.mean[reverse].numpy()[:, index] * sign.astype(scale.mean.numpy().dtype)
            np.testing.assert_array_equal(scale.mean[t].numpy(), mirrored)
            np.testing.assert_array_equal(
                scale.log_sigma[t].numpy()[:, :, sign != 0], scale.log_sigma[reverse].numpy()[:, :, index[sign != 0]]
            )
            np.testing.assert_array_equal(scale.knots[t].numpy(), scale.knots[reverse].numpy())
        predicted = self.predicted(scale, PairList.from_atoms(atoms, MIXED.cutoffs()))
        assert predicted.hermiticity_error() <= torch.finfo(dtype).eps * np.abs(predicted.values).max()

    @pytest.mark.parametrize(
        "atoms",
        [
            Atoms("CC", [[0, 0, 0], [0, 0, 1.4]]),
            graphene(size=(4, 4, 1), vacuum=6),
            Atoms("Mo", cell=[2.9, 2.9, 2.9], pbc=True),
            Atoms("S"),
        ],
        ids=["one distance", "one distance many times", "one atom a cell", "no distance"],
    )
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_little_data(self, atoms, dtype):
        """One structure fits, and any other gets finite numbers, element pairs that were never met included."""
        scale = self.fit([random_hamiltonian(atoms, MIXED)], dtype=dtype)
        for s in range(3):
            other = structure(MIXED, s, n_atoms=8)
            pairs = PairList.from_atoms(other, MIXED.cutoffs())
            assert np.isfinite(self.predicted(scale, pairs).values).all()
            graph = PairGraph.from_pairs(pairs, scale.vocabulary, scale.vocabulary.lmax, dtype)
            _, sigma = scale.edge_statistics(graph)
            assert torch.isfinite(sigma).all()
            trained = PairList.from_atoms(atoms, MIXED.cutoffs())
            hopping = trained.hopping
            met = set(zip(trained.numbers[trained.i[hopping]], trained.numbers[trained.j[hopping]], strict=True))
            for t, elements in enumerate(scale.vocabulary.element_pairs):
                if elements not in met:
                    assert (sigma[graph.element_pair == t] < 1.01 * FLOOR).all()

    def test_nothing_to_fit_to(self):
        with pytest.raises(ValueError, match="at least one structure"):
            TargetScale(Vocabulary(MIXED)).fit([])
