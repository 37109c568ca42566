"""Radial functions in JSON: what goes in comes out, and what has changed since is noticed."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ase_hybridham.system import AtomBasis, Basis, GaussianRadial, SampledRadial, Shell
from tests.overlap.radial_data import NAMES, openmx_basis


def in_json(basis):
    return json.loads(json.dumps(basis.to_dict()))


@pytest.mark.parametrize("symbol", NAMES)
def test_what_goes_in_comes_out(symbol):
    basis = openmx_basis(symbol)
    found = Basis.from_dict(in_json(basis))
    assert found == basis
    for ours, theirs in zip(found[symbol].shells, basis[symbol].shells, strict=True):
        assert ours.radial.values.tobytes() == theirs.radial.values.tobytes()


@pytest.mark.parametrize(("symbol", "largest"), [("C", 34_000), ("Bi", 90_000)])
def test_a_mesh_is_kept_once(symbol, largest):
    entry = openmx_basis(symbol).to_dict()["atoms"][0]
    assert len(entry["meshes"]) == 1
    assert len(json.dumps(entry)) < largest


def test_numbers_of_any_type_are_one_function():
    mesh = np.geomspace(1e-3, 5, 50)
    one = SampledRadial(mesh, np.exp(-mesh), 5, "openmx", 1, (("k_points", 600),))
    other = SampledRadial(mesh.tolist(), np.exp(-mesh), np.float64(5), "openmx", np.float32(1), (("k_points", 600.0),))
    assert one == other
    assert one.digest == other.digest
    assert one != SampledRadial(mesh, np.exp(-mesh), 5, "openmx", 1)


def test_merging_never_loses_a_radial_function():
    full = openmx_basis(["C", "H"])
    bare = Basis.of(*(AtomBasis.from_degrees(s, full[s].degrees, cutoff=full[s].cutoff) for s in full.atoms))
    for merged in (full.merged(bare), bare.merged(full), full.merged(full), bare.merged(full).merged(bare)):
        assert merged == full
    # labels are for people
    renamed = Basis.of(*(AtomBasis(s, tuple(Shell(x.l, "x", x.radial) for x in full[s].shells)) for s in full.atoms))
    assert renamed.merged(full).has_radial_functions()
    # one source knows one shell, the other another
    shells = full["H"].shells
    halves = [
        Basis.of(AtomBasis("H", tuple(Shell(x.l, radial=x.radial if keep(n) else None) for n, x in enumerate(shells))))
        for keep in (lambda n: n == 0, lambda n: n > 0)
    ]
    assert not halves[0].has_radial_functions()
    assert halves[0].merged(halves[1]).has_radial_functions()
    other = Basis.of(AtomBasis("H", (shells[1], shells[0], shells[2])))
    with pytest.raises(ValueError, match="basis of H: two sources have different radial functions"):
        full.merged(other)


def test_gaussians_and_shells_without_functions_mix():
    basis = Basis.of(AtomBasis("H", (Shell(0, "1s", GaussianRadial((1.0,), (1.0,))), Shell(1))))
    assert Basis.from_dict(in_json(basis)) == basis
    assert not basis.has_radial_functions()


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"rule": "gaussian"}, "the rule 'gaussian' is not one of samples"),
        ({"values": np.zeros(50)}, "not all 0, got up to 0"),
        ({"values": np.full(50, 1e200)}, r"got up to 1e\+200"),
        ({"values": np.full(50, np.nan)}, "expected finite numbers"),
        ({"mesh": np.full(50, np.inf)}, "expected finite numbers"),
    ],
)
def test_samples_that_are_no_function_are_refused(changes, wrong):
    mesh = np.geomspace(1e-3, 5, 50)
    right = {"mesh": mesh, "values": np.exp(-mesh), "cutoff": 5.0, "rule": "openmx", "bohr": 0.5}
    assert SampledRadial(**right).cutoff == 5
    with pytest.raises(ValueError, match=wrong):
        SampledRadial(**(right | changes))


def test_gaussians_are_of_finite_numbers():
    assert GaussianRadial((1, 2), (np.float32(0.5), 1)) == GaussianRadial((1.0, 2.0), (0.5, 1.0))
    assert GaussianRadial((1,), (1,)).digest == GaussianRadial((1.0,), (1.0,)).digest
    for exponents in ((-1.0,), (0.0,), (np.nan,), (np.inf,)):
        with pytest.raises(ValueError, match="exponents must be positive"):
            GaussianRadial(exponents, (1.0,))
    with pytest.raises(ValueError, match="expected finite coefficients"):
        GaussianRadial((1.0, 2.0), (1.0, np.nan))
    for entry, error in ((10**400, OverflowError), (None, TypeError), ("x", ValueError)):
        with pytest.raises(error):
            GaussianRadial((1.0,), (entry,))


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_damaged_entry_is_an_error_or_the_same(data):
    whole = openmx_basis("H")
    entry = in_json(whole)
    atom = entry["atoms"][0]
    samples = atom["shells"][data.draw(st.integers(0, 2))]["samples"]
    place, key = data.draw(
        st.sampled_from([(samples, key) for key in samples] + [(atom["meshes"], 0), (atom, "meshes")])
    )
    kept = copy.deepcopy(place[key])
    if isinstance(kept, str) and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(kept) - 1))
        place[key] = kept[:at] + data.draw(st.sampled_from("A/+9=\n")) + kept[at + 1 :]
    else:
        place[key] = data.draw(
            st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=4), st.just([]), st.just({}))
        )
    try:
        found = Basis.from_dict(entry)
    except (LookupError, ValueError, TypeError, AttributeError, OverflowError):
        return
    assert found == whole
