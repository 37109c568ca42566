"""A folder of basis files gives every shell its radial function, or says in one line why not."""

import pytest

from tests.overlap.radial_data import NAMES, openmx_basis


def test_the_golden_functions_are_those_of_the_files(reference_data):
    from ase_hybridham.io import attach_radial_functions

    golden = openmx_basis(NAMES)
    assert attach_radial_functions(golden, reference_data / "pao", NAMES).atoms == golden.atoms


@pytest.mark.parametrize("symbol", NAMES)
def test_the_golden_functions_are_there(symbol):
    assert openmx_basis(symbol).has_radial_functions()
