"""The self-consistent loop: density, potential, Fock matrices, DIIS. Hartree and bohr.

H_k = T_k + V_nl,k + <phi_k| V_ion + V_H + V_xc |phi_k>. The free energy E - TS of Fermi-Dirac
occupations is what the loop makes stationary. Extrapolation: Pulay's DIIS of damped steps, with
the commutator [H, D S] in an orthonormal basis as the error, https://doi.org/10.1002/jcc.540030413.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.calculators.calculator import SCFError
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.special import xlogy

from ase_hybridham.scf.grid import GridOrbitals
from ase_hybridham.scf.potential import DensityFunctional, Electrostatics
from ase_hybridham.solve import find_fermi_level, occupations

__all__ = ["SelfConsistent", "bare_matrices", "self_consistent"]

HISTORY = 8
# Share of the new Fock matrix in what is extrapolated, the rest is the one that made the density: with 1 a metallic
# layer with hydrogen never converged, with 0.5 layers, molecules and metals took 6 to 12 cycles.
MIXING = 0.5


@dataclass(frozen=True)
class SelfConsistent:
    """What the loop converged to.

    Parameters
    ----------
    potential : array, shape (n_grid,)
        Effective potential of the last density, hartree.
    free_energy : float
        E - TS of the cell, hartree.
    cycles : int
    residual : float
        Largest element of the last commutator, hartree.
    """

    potential: NDArray[np.float64]
    free_energy: float
    cycles: int
    residual: float


def bare_matrices(cell: Any, k_points: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Kinetic energy and non-local pseudopotential at k_points (bohr^-1), shape (n_k, n_orbitals, n_orbitals)."""
    from pyscf.pbc.gto.pseudo import pp_int

    kinetic = np.asarray(cell.pbc_intor("int1e_kin", hermi=1, kpts=k_points))
    return kinetic + np.asarray(pp_int.get_pp_nl(cell, k_points))


def self_consistent(
    cell: Any,
    k_points: NDArray[np.float64],
    weights: NDArray[np.float64],
    occupations: NDArray[np.float64],
    n_periodic: int,
    functional: str,
    *,
    smearing: float,
    tolerance: float,
    max_cycles: int,
    memory: float,
) -> SelfConsistent:
    """The effective potential of a cell.

    Parameters
    ----------
    cell : pyscf Cell
    k_points : array, shape (n_k, 3)
        bohr^-1; one of every pair k, -k.
    weights : array, shape (n_k,)
        Sum 1.
    occupations : array, shape (n_orbitals,)
        Electrons in each orbital of the free atoms: the first density.
    n_periodic : {0, 2, 3}
        See `Electrostatics`.
    functional : str
        For libxc.
    smearing : float
        k_B T in hartree.
    tolerance : float
        Largest element of the commutator at which the loop ends, hartree.
    max_cycles : int
    memory : float
        GB for the orbitals on the grid.

    Raises
    ------
    ase.calculators.calculator.SCFError
        If `max_cycles` do not suffice.
    """
    orbitals = GridOrbitals(cell, k_points, memory)
    electrostatics = Electrostatics(cell, n_periodic)
    exchange_correlation = DensityFunctional(functional, cell.lattice_vectors(), np.asarray(cell.mesh))
    bare = bare_matrices(cell, k_points)
    overlaps = np.asarray(cell.pbc_intor("int1e_ovlp", hermi=1, kpts=k_points))
    inverse_roots = np.array([_inverse_root(s) for s in overlaps])
    n_electrons = float(cell.nelectron)

    coefficients = [np.sqrt(w * occupations)[None] * np.eye(len(occupations)) for w in weights]
    density = orbitals.density(coefficients)
    density *= n_electrons / (density.sum() * orbitals.volume_element)
    history: list[tuple[NDArray, NDArray]] = []
    entered = bare
    entropy_term, residual = 0.0, np.inf
    for cycle in range(max_cycles + 1):
        hartree = electrostatics.hartree(density)
        xc_energy, xc_potential = exchange_correlation(density)
        potential = electrostatics.ions + hartree + xc_potential
        fock = bare + orbitals.matrix(potential)
        if cycle:
            matrices = [c @ c.conj().T / w for c, w in zip(coefficients, weights, strict=True)]
            error = np.array(
                [
                    x.conj().T @ (f @ d @ s - s @ d @ f) @ x
                    for x, f, d, s in zip(inverse_roots, fock, matrices, overlaps, strict=True)
                ]
            )
            residual = float(np.abs(error).max())
            if residual < tolerance:
                one_electron = sum(np.vdot(c, h @ c).real for c, h in zip(coefficients, bare, strict=True))
                on_grid = density @ (electrostatics.ions + 0.5 * hartree + xc_energy) * orbitals.volume_element
                energy = one_electron + on_grid + electrostatics.ion_energy + entropy_term
                return SelfConsistent(potential, float(energy), cycle, residual)
            history = [*history[1 - HISTORY :], (entered + MIXING * (fock - entered), error)]
            fock = _extrapolated(history, weights)
        entered = fock
        states = [eigh(f, s) for f, s in zip(fock, overlaps, strict=True)]
        filling, entropy_term = _fermi_dirac([e for e, _ in states], weights, n_electrons, smearing)
        coefficients = [
            (c * np.sqrt(w * f))[:, f > 1e-14] for (_, c), f, w in zip(states, filling, weights, strict=True)
        ]
        density = orbitals.density(coefficients)
    raise SCFError(
        f"self-consistency: commutator {residual:.1e} hartree after {max_cycles} cycles, expected < {tolerance:.1e}; "
        "raise max_cycles or smearing"
    )


def _inverse_root(overlap: NDArray) -> NDArray:
    values, vectors = np.linalg.eigh(overlap)
    if values[0] < 1e-7:
        raise ValueError(
            f"overlap: expected eigenvalues of S above 1e-7, got {values[0]:.1e}; "
            "move atoms apart that coincide, or choose a smaller basis"
        )
    return vectors / np.sqrt(values)


def _fermi_dirac(
    energies: Sequence[NDArray[np.float64]], weights: NDArray[np.float64], n_electrons: float, smearing: float
) -> tuple[list[NDArray[np.float64]], float]:
    """Occupations 0..2 of every state, and -TS per cell."""
    level = find_fermi_level(np.array(energies)[None], weights, n_electrons, 2.0, width=smearing)
    fractions = [occupations(e, level, width=smearing) for e in energies]
    entropy = sum(w * (xlogy(f, f) + xlogy(1 - f, 1 - f)).sum() for w, f in zip(weights, fractions, strict=True))
    return [2 * f for f in fractions], float(2 * smearing * entropy)


def _extrapolated(history: list[tuple[NDArray, NDArray]], weights: NDArray[np.float64]) -> NDArray:
    """The combination of matrices with the least combined error."""
    errors = np.array([(np.sqrt(weights)[:, None, None] * e).ravel() for _, e in history])
    n = len(history)
    equations = np.zeros((n + 1, n + 1))
    equations[:n, :n] = (errors.conj() @ errors.T).real
    scale = equations[:n, :n].diagonal().max()
    equations[:n, :n] /= scale
    equations[:n, n] = equations[n, :n] = 1
    mixture = np.linalg.lstsq(equations, np.eye(n + 1)[n], rcond=1e-14)[0][:n]
    return np.einsum("n,nkab->kab", mixture, np.array([fock for fock, _ in history]))
