"""The calculator's choice of a solver."""

import warnings

import pytest

from ase_hybridham import HybridHamCalculator
from ase_hybridham.solve import SparseSolver
from ase_hybridham.structures import twisted_bilayer


def test_unknown_solvers_are_refused_at_once():
    calculator = HybridHamCalculator("graphene-bilayer")
    for setting in (lambda: calculator.set(solver="lapack"), lambda: HybridHamCalculator(calculator.model, solver=7)):
        with pytest.raises(ValueError, match="solver: expected 'auto', 'dense', 'sparse' or a function"):
            setting()
    assert calculator.parameters.solver == "auto"


def test_states_that_were_not_looked_for_are_told_of_every_time():
    atoms = twisted_bilayer(1, 2)
    atoms.calc = HybridHamCalculator("graphene-bilayer", kpts=(1, 1, 1), solver=SparseSolver(8))
    for _ in range(2):
        with pytest.warns(UserWarning, match="were not looked for"):
            assert len(atoms.calc.get_eigenvalues()) < 100
    atoms.calc.set(solver="dense")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(atoms.calc.get_eigenvalues()) == 364
