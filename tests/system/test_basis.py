"""Shells, atoms, bases."""

import json

import numpy as np
import pytest

from ase_hybridham.system import AtomBasis, Basis, GaussianRadial, Shell

RADIAL = GaussianRadial((1.2, 0.3), (0.7, 0.5))


def carbon(**kwargs) -> AtomBasis:
    shells = (Shell(0, "2s", RADIAL), Shell(1, "2p", GaussianRadial((0.9,), (1.0,))))
    return AtomBasis("C", **{"shells": shells, "valence": 4.0, "cutoff": 3.0, **kwargs})


def test_orbitals_of_an_atom_and_of_a_structure(mixed_basis):
    c = mixed_basis["C"]
    assert (c.degrees, c.size, c.number) == ((0, 0, 1, 1, 2), 13, 6)
    assert c.slices == (slice(0, 1), slice(1, 2), slice(2, 5), slice(5, 8), slice(8, 13))
    assert mixed_basis[6] is mixed_basis[np.int64(6)] is c
    assert mixed_basis.numbers == (6, 16, 42)
    np.testing.assert_array_equal(mixed_basis.sizes([42, 6, 16, 6]), [9, 13, 4, 13])
    assert mixed_basis.electrons([42, 6, 16, 6]) == 28
    assert Basis.of(carbon(valence=None)).electrons([6]) is None
    assert mixed_basis.cutoffs() == {6: 2.0, 42: 2.5, 16: 2.2}
    assert "C" in mixed_basis
    assert 16 in mixed_basis
    assert "H" not in mixed_basis
    assert 1 not in mixed_basis


@pytest.mark.parametrize("orthogonal", [False, True])
def test_json_brings_a_basis_back(mixed_basis, orthogonal):
    basis = Basis.of(*mixed_basis.atoms.values(), carbon(), name="again", orthogonal=orthogonal)
    again = Basis.from_dict(json.loads(json.dumps(basis.to_dict())))
    assert again == basis
    assert again.has_radial_functions() == basis.has_radial_functions()
    assert again["C"].shells[0].radial == RADIAL
    assert Basis.from_dict(mixed_basis.to_dict()) == mixed_basis != basis


def test_merged_basis_knows_what_either_knows(mixed_basis):
    bare = Basis.of(AtomBasis.from_degrees("C", [0, 1], cutoff=3.5))
    merged = bare.merged(Basis.of(carbon()))
    assert merged["C"] == carbon(cutoff=3.5)
    assert Basis.of(carbon()).merged(bare) == merged
    hydrogen = Basis.of(AtomBasis.from_degrees("H", [0], valence=1))
    assert set(hydrogen.merged(mixed_basis).atoms) == {"H", "C", "Mo", "S"}
    assert hydrogen.same_orbitals(mixed_basis)
    assert not bare.same_orbitals(mixed_basis)
    assert bare.same_orbitals(Basis.of(carbon()))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Basis.of(AtomBasis.from_degrees("C", [0, 0, 1])), r"basis of C: shells with l = \(0, 1\) in one source"),
        (Basis.of(carbon(valence=6.0)), "valence of C: 4.0 in one source, 6.0 in another"),
        (Basis.of(carbon(shells=(Shell(0, "2s", RADIAL), Shell(1, "2p", RADIAL)))), "different radial functions"),
        (Basis.of(carbon(), orthogonal=True), "one is orthogonal"),
    ],
)
def test_bases_that_contradict_each_other_are_refused(other, message):
    with pytest.raises(ValueError, match=message):
        Basis.of(carbon()).merged(other)


def test_wrong_bases_are_refused():
    with pytest.raises(ValueError, match="shell: expected l >= 0, got -1"):
        Shell(-1)
    with pytest.raises(ValueError, match="unknown element 'Xx'"):
        AtomBasis.from_degrees("Xx", [0])
    with pytest.raises(ValueError, match="at least one shell"):
        AtomBasis.from_degrees("C", [])
    for cutoff in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="expected cutoff > 0"):
            carbon(cutoff=cutoff)
    with pytest.raises(ValueError, match="the entry of Si describes C"):
        Basis({"Si": carbon()})
    with pytest.raises(ValueError, match="as many coefficients as exponents"):
        GaussianRadial((1.0, 2.0), (1.0,))
    with pytest.raises(ValueError, match="as many coefficients as exponents"):
        GaussianRadial((), ())
    with pytest.raises(ValueError, match="must be positive"):
        GaussianRadial((1.0, -2.0), (1.0, 1.0))
    with pytest.raises(ValueError, match="no cutoff radius for C"):
        Basis.of(carbon(cutoff=None)).cutoffs()


@pytest.mark.parametrize("element", ["H", 1, "nonsense"])
def test_an_element_that_is_not_there_is_named(mixed_basis, element):
    with pytest.raises(KeyError, match=r"no element (H|nonsense), only C, Mo, S"):
        mixed_basis[element]
