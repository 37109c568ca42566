"""The shells that the name of a basis tells, where no calculation is at hand that would."""

from collections.abc import Mapping

from ase_hybridham.errors import FormatError
from ase_hybridham.io.openmx_input import parse_basis_name, shells_of
from ase_hybridham.system import AtomBasis, Basis

__all__ = ["basis_of_names"]


def basis_of_names(names: Mapping[str, str]) -> Basis:
    """The basis of names like ``{"C": "C6.0-s2p2d1"}``: shells in order of l, without radial functions or radii.

    Raises
    ------
    FormatError
        If a name does not tell shells, or its orbitals are optimized.
    """
    atoms = []
    for symbol, name in names.items():
        _, primitive, contracted = parse_basis_name(f"basis of {symbol}", name)
        if primitive != contracted:
            raise FormatError(f"basis of {symbol}: the optimized orbitals of {name} are in no file; use a plain basis")
        atoms.append(AtomBasis(symbol, shells_of(contracted)))
    return Basis.of(*atoms, name="/".join(names.values()))
