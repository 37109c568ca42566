"""Errors of Hamiltonians against a loop over blocks."""

import numpy as np
import pytest

from ase_hybridham.system import PairBlocks, PairList
from ase_hybridham.train import hamiltonian_error
from ase_hybridham.train.metrics import block_rms, differences, worst_block
from tests.model.networks import MIXED, random_hamiltonian, structure
from tests.train.synthetic import atoms_of, spinful, system_of

ATOMS = structure(MIXED, 5, n_atoms=6)
REFERENCE = random_hamiltonian(ATOMS, MIXED, 0)
PREDICTED = random_hamiltonian(ATOMS, MIXED, 1)


def loop(predicted: PairBlocks, reference: PairBlocks) -> dict[str, float]:
    """meV, one number at a time."""
    parts: dict[str, list[float]] = {"onsite": [], "hopping": []}
    for p in range(len(reference.pairs)):
        for one, other in zip(predicted.block(p).ravel(), reference.block(p).ravel(), strict=True):
            difference = 1000 * (one - other)
            kind = "onsite" if p < reference.pairs.n_atoms else "hopping"
            parts[kind] += [abs(difference.real), abs(difference.imag)] if reference.spinor else [abs(difference)]
    both = parts["onsite"] + parts["hopping"]
    return {
        "mae": np.mean(both),
        "onsite_mae": np.mean(parts["onsite"]),
        "hopping_mae": np.mean(parts["hopping"]),
        "rms": np.sqrt(np.mean(np.square(both))),
        "max": max(both),
    }


def test_errors_are_those_of_a_loop():
    error = hamiltonian_error(PREDICTED, REFERENCE)
    for name, value in loop(PREDICTED, REFERENCE).items():
        assert getattr(error, name) == pytest.approx(value, rel=1e-12)
    assert error.gauge_free_mae is None
    assert error.shift is None


def test_real_and_imaginary_parts_of_spinors_count_separately():
    rng = np.random.default_rng(0)
    reference = spinful(system_of(atoms_of(0))).hamiltonian[0]
    noise = rng.normal(size=(2, len(reference.values)))
    predicted = reference.with_values(reference.values + noise[0] + 3j * noise[1])
    error = hamiltonian_error(predicted, reference)
    for name, value in loop(predicted, reference).items():
        assert getattr(error, name) == pytest.approx(value, rel=1e-12)
    assert error.mae == pytest.approx(500 * (np.abs(noise[0]).mean() + 3 * np.abs(noise[1]).mean()))


def test_pairs_that_the_model_lacks_count_as_zero_and_surplus_ones_not_at_all():
    near = PairList.from_atoms(ATOMS, {z: 0.8 * radius for z, radius in MIXED.cutoffs().items()})
    far = PairList.from_atoms(ATOMS, {z: 1.2 * radius for z, radius in MIXED.cutoffs().items()})
    assert len(near) < len(REFERENCE.pairs) < len(far)
    filled = PREDICTED.on_pairs(near).on_pairs(REFERENCE.pairs)
    assert (filled.values == 0).sum() > 20
    expected = loop(filled, REFERENCE)
    assert hamiltonian_error(PREDICTED.on_pairs(near), REFERENCE).mae == pytest.approx(expected["mae"])
    surplus = PREDICTED.on_pairs(far)
    surplus.values[surplus.values == 0] = 100.0
    assert hamiltonian_error(surplus, REFERENCE).mae == pytest.approx(loop(PREDICTED, REFERENCE)["mae"])


def test_equal_pairs_in_another_list():
    again = PairList.from_atoms(ATOMS, MIXED.cutoffs())
    same = PairBlocks(again, MIXED, PREDICTED.values)
    assert hamiltonian_error(same, REFERENCE) == hamiltonian_error(PREDICTED, REFERENCE)


@pytest.mark.parametrize("spin", [False, True])
def test_a_shift_of_all_levels_is_seen_and_does_not_count(spin):
    system = system_of(atoms_of(1))
    reference = (spinful(system) if spin else system).hamiltonian[0]
    S = system.overlap.to_spinor() if spin else system.overlap
    error = hamiltonian_error(reference.with_values(reference.values + 0.25 * S.values), reference, system.overlap)
    assert error.shift == pytest.approx(250.0)
    assert error.gauge_free_mae < 1e-10
    assert error.mae == pytest.approx(250 * np.abs(S.values).mean() / (2 if spin else 1))


def test_shift_is_the_best_one():
    """Least squares: no other mu leaves a smaller rms."""
    system = system_of(atoms_of(1))
    reference, S = system.hamiltonian[0], system.overlap
    noise = np.random.default_rng(0).normal(size=reference.values.shape)
    error = hamiltonian_error(reference.with_values(reference.values + noise), reference, S)

    def rms(mu: float) -> float:
        return float(np.sqrt(((1000 * noise - mu * S.values) ** 2).mean()))

    assert rms(error.shift) < min(rms(error.shift + 1), rms(error.shift - 1), rms(0.0))
    left = np.abs(1000 * noise - error.shift * S.values).mean()
    assert error.gauge_free_mae == pytest.approx(left)


def test_without_hoppings():
    atoms = atoms_of(0)[[0]]
    atoms.pbc = False
    h = random_hamiltonian(atoms, MIXED)
    error = hamiltonian_error(0.0 * h, h)
    assert error.hopping_mae == 0
    assert error.mae == error.onsite_mae == pytest.approx(1000 * np.abs(h.values).mean())


def test_keys_carry_their_unit():
    keys = hamiltonian_error(PREDICTED, REFERENCE).to_dict()
    names = ["mae", "onsite_mae", "hopping_mae", "rms", "max", "gauge_free_mae", "shift", "splitting_mae"]
    assert list(keys) == [f"{name}_meV" for name in names]


@pytest.mark.parametrize("spinor", [False, True])
def test_the_worst_block_is_really_the_worst(spinor):
    reference = random_hamiltonian(ATOMS, MIXED, 0, spinor)
    predicted = random_hamiltonian(ATOMS, MIXED, 1, spinor)
    errors = differences(predicted, reference)
    worst, rms = worst_block("x", errors, [reference]), block_rms(errors)
    blocks = [errors[0].block(p) for p in range(len(reference.pairs))]
    parts = [np.concatenate([b.real.ravel(), b.imag.ravel()]) if spinor else b.ravel() for b in blocks]
    np.testing.assert_allclose(rms, [np.sqrt((numbers**2).mean()) for numbers in parts], rtol=1e-12)
    p = int(np.argmax(rms))
    pairs = reference.pairs
    assert (worst.rms, worst.largest) == pytest.approx((rms.max(), np.abs(parts[p]).max()))
    assert worst.atoms == (pairs.i[p], pairs.j[p])
    assert worst.symbols == tuple(ATOMS.symbols[atom] for atom in worst.atoms)
    assert worst.shift == tuple(pairs.shifts[p])
    assert worst.distance == pytest.approx(np.linalg.norm(pairs.vectors[p]))
    block = reference.block(p)
    norm = np.linalg.norm(block) / np.sqrt(block.size * (2 if spinor else 1))
    assert worst.reference_rms == pytest.approx(1000 * norm)


def test_the_worst_shells_are_found():
    error = PREDICTED.with_values(1e-4 * PREDICTED.values)
    p = next(p for p in range(len(PREDICTED.pairs)) if PREDICTED.shape(p) == (8, 9))  # C-Mo
    error.block(p)[3, 4:] += 2.0  # p1 of C, d1 of Mo
    worst = worst_block("x", [error], [REFERENCE])
    assert (worst.symbols, worst.shells) == (("C", "Mo"), ("p1", "d1"))
    assert worst.shells_rms == pytest.approx(2.0 * np.sqrt(1 / 3), rel=1e-2)
    assert worst.largest == pytest.approx(2.0, rel=1e-2)


def test_up_and_down_share_a_block():
    zero = 0.0 * REFERENCE
    errors = [zero.with_values(zero.values + value) for value in (1.0, 7.0)]
    np.testing.assert_allclose(block_rms(errors), 5.0)
    assert worst_block("x", errors, [REFERENCE, REFERENCE]).largest == 7.0
