"""Radial functions for a data set: from a folder of basis files, and whether they give the S that is stored."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ase_hybridham.check import Finding
from ase_hybridham.check.basis import check_basis
from ase_hybridham.errors import FormatError
from ase_hybridham.io import attach_radial_functions
from ase_hybridham.io.basis_files import basis_names, integral_settings
from ase_hybridham.store import DataSet, set_basis
from ase_hybridham.system import Basis, LCAOSystem

__all__ = ["Attached", "attach_to_data_set", "first_of_each_basis", "misfits"]

SAME = 1e-3  # electrons


@dataclass(frozen=True)
class Attached:
    """What became of it.

    Parameters
    ----------
    elements : tuple of str
    error : float or None
        The largest difference between a stored S and that of the functions; None if no structure that was compared
        has S.
    structure : str
        That has it.
    warnings : tuple of str
    """

    elements: tuple[str, ...]
    error: float | None
    structure: str
    warnings: tuple[str, ...]


def attach_to_data_set(path: Path, folder: str | Path, names: Mapping[str, str]) -> Attached:
    """Store the radial functions of all elements of a data set.

    S of the first structure of every basis is compared; functions that do not give it are not stored.

    Parameters
    ----------
    path : Path
    folder : str or Path
        Of basis files.
    names : mapping
        Chemical symbol -> its basis in that folder, where the structures do not tell it.

    Raises
    ------
    FormatError
        If files lack or do not fit, structures of one element have different functions, or S is another.
    ValueError
        If a name is given for an element that is not in the data set, or the data set has no structure.
    """
    with DataSet(path) as data:
        if lacking := sorted(set(names) - set(data.basis.atoms)):
            raise ValueError(f"--basis {lacking[0]}: {path} has no such element, only {', '.join(data.basis.atoms)}")
        basis, findings = Basis({}, data.basis.name, data.basis.orthogonal), {}
        for name in first_of_each_basis(data, data.names):
            provenance = data.head(name).provenance
            elements = set(data.atoms(name).symbols)
            own = replace(data.basis, atoms={s: atom for s, atom in data.basis.atoms.items() if s in elements})
            found = attach_radial_functions(own, folder, {**basis_names(provenance), **names}, provenance)
            try:
                basis = basis.merged(found)
            except ValueError as error:
                raise FormatError(f"{path}: structure {name}: {error}; use a data set for each") from None
            findings[name] = _compared(data[name], found)
        _check_electrons(data, basis)
    for name, finding in findings.items():
        if finding.verdict == "failed":
            raise FormatError(f"{path}: structure {name}: {finding.message}; {finding.advice}")
    set_basis(path, basis)
    errors = {name: finding.figure for name, finding in findings.items() if finding.figure is not None}
    worst = max(errors, key=errors.__getitem__, default="")
    warnings = [f"structure {n}: {f.message}; {f.advice}" for n, f in findings.items() if f.verdict == "warning"]
    if not errors:
        warnings.append("no structure holds S: nothing shows that the radial functions are those of the calculation")
    return Attached(tuple(basis.atoms), errors.get(worst), worst, tuple(warnings))


def misfits(data: DataSet, names: Collection[str]) -> list[str]:
    """One line for the first of these structures of every basis, if its S is not that of the stored functions."""
    lines = []
    for name in first_of_each_basis(data, names):
        if all(data.basis[symbol].has_radial_functions for symbol in data.atoms(name).symbols):
            finding = _compared(data[name], data.basis)
            if finding.verdict == "failed":
                lines.append(f"structure {name} does not fit the stored radial functions: {finding.message}")
    return lines


def first_of_each_basis(data: DataSet, names: Collection[str]) -> Iterator[str]:
    """Of these structures the first of every set of elements, names of their bases and settings of integrals."""
    seen = set()
    for name in names:
        provenance = data.head(name).provenance
        told = json.dumps([basis_names(provenance), integral_settings(provenance)], sort_keys=True)
        key = (frozenset(data.atoms(name).symbols), told)
        if key not in seen:
            seen.add(key)
            yield name


def _compared(system: LCAOSystem, basis: Basis) -> Finding:
    n = len(system.hamiltonian)
    blocks = [replace(operator, basis=basis) for operator in system.operators]
    overlap = None if system.overlap is None else blocks[n]
    (finding,) = check_basis(replace(system, hamiltonian=tuple(blocks[:n]), overlap=overlap))
    return finding


def _check_electrons(data: DataSet, basis: Basis) -> None:
    """Refuse valences of files that contradict a count at the Fermi level."""
    for name in data:
        head = data.head(name)
        expected = basis.electrons(data.atoms(name).numbers)
        if head.provenance.get("electrons") != "counted" or expected is None or head.electrons is None:
            continue
        if abs(expected - head.electrons) > SAME:
            raise FormatError(
                f"{data.path}: structure {name}: {head.electrons:g} electrons were counted up to its Fermi level, "
                f"the basis files tell {expected:g}; make the data set again with --valence"
            )
