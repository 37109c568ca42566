"""The effective potential of a density on the grid: ions, Hartree, exchange and correlation.

V_H and the long-range part of the ions are one convolution with a Coulomb kernel K,
V(G) = K(G) [rho(G) - sum_a Z_a e^(-iG.r_a) e^(-(G r_loc)^2/2)]. In three periodic dimensions
K = 4 pi/G^2 without G = 0, which puts the zero of energy at the cell average. For a layer and
for a molecule K is the Coulomb potential truncated at the height of the box, on a grid twice as
high: every charge in the box is reached and no image, so the zero of energy is the vacuum.
The gradient of the density is taken by FFT, for the GGA no gradients of orbitals are needed.
All in hartree and bohr.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fftfreq, fftn, ifftn, irfftn, rfftn

__all__ = ["DensityFunctional", "Electrostatics"]

# Below this density (bohr^-3) the exchange-correlation potential is set to zero: its gradient terms are noise there.
LEAST_DENSITY = 1e-9


@dataclass(frozen=True)
class DensityFunctional:
    """Energy density and potential of a functional that libxc knows.

    Parameters
    ----------
    name : str
        For libxc, e.g. ``"pbe,pbe"``.
    lattice : array, shape (3, 3)
        Bohr.
    mesh : array of int, shape (3,)
    """

    name: str
    lattice: NDArray[np.float64]
    mesh: NDArray[np.int64]

    def __call__(self, density: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Energy per electron and potential, each of the shape of the density, (n_grid,)."""
        from pyscf.dft import libxc

        dense = density > LEAST_DENSITY
        energy, potential = np.zeros_like(density), np.zeros_like(density)
        if not libxc.is_gga(self.name):
            energy[dense], (potential[dense], *_) = libxc.eval_xc(self.name, density[dense])[:2]
            return energy, potential
        gradient = self._gradient(density)
        flux = np.zeros_like(gradient)
        energy[dense], parts, *_ = libxc.eval_xc(self.name, np.vstack([density[None, dense], gradient[:, dense]]))
        potential[dense] = parts[0]
        flux[:, dense] = 2 * parts[1] * gradient[:, dense]
        return energy, np.where(dense, potential - self._divergence(flux), 0.0)

    def _wave_vectors(self) -> NDArray[np.float64]:
        """G of the grid, shape (n1, n2, n3, 3)."""
        integers = np.stack(np.meshgrid(*(fftfreq(n, 1 / n) for n in self.mesh), indexing="ij"), axis=-1)
        return integers @ (2 * np.pi * np.linalg.inv(self.lattice).T)

    def _gradient(self, field: NDArray[np.float64]) -> NDArray[np.float64]:
        transformed = fftn(field.reshape(self.mesh))
        return np.stack([ifftn(1j * G * transformed).real.ravel() for G in np.moveaxis(self._wave_vectors(), -1, 0)])

    def _divergence(self, flux: NDArray[np.float64]) -> NDArray[np.float64]:
        waves = np.moveaxis(self._wave_vectors(), -1, 0)
        total = sum(1j * G * fftn(f.reshape(self.mesh)) for G, f in zip(waves, flux, strict=True))
        return ifftn(total).real.ravel()


class Electrostatics:
    """Potential of the ions, and the Hartree potential of a density.

    Parameters
    ----------
    cell : pyscf Cell
        Three-dimensional, with GTH pseudopotentials; atoms in the middle of its vacuum.
    n_periodic : {0, 2, 3}
        Periodic directions; below 3 the zero of energy is the vacuum.
    """

    def __init__(self, cell: Any, n_periodic: int) -> None:
        from pyscf.pbc import tools

        self.mesh = np.asarray(cell.mesh)
        padding = np.where(np.arange(3) < n_periodic, 1, 2)
        # PySCF takes the normal of a layer to be z; nothing here depends on the orientation
        turn, triangle = np.linalg.qr(cell.lattice_vectors().T)
        turn = turn * np.sign(np.diag(triangle))
        self._padded = cell.copy()
        self._padded.build(
            dump_input=False,
            parse_arg=False,
            a=cell.lattice_vectors() @ turn * padding[:, None],
            unit="bohr",
            atom=[[cell.atom_symbol(n), r @ turn] for n, r in enumerate(cell.atom_coords())],
            mesh=self.mesh * padding,
            dimension=n_periodic,
            rcut=0.1,  # no orbitals here; it keeps PySCF from asking for a vacuum that they would need
        )
        self._padded_mesh = self.mesh * padding
        # real fields: half of the waves along the last axis
        waves = self._padded.get_Gv(self._padded_mesh)
        half = self._padded_mesh[2] // 2 + 1
        self._kernel = tools.get_coulG(self._padded, Gv=waves).reshape(self._padded_mesh)[..., :half]
        self.ions = self._ion_potential(waves.reshape(*self._padded_mesh, 3)[..., :half, :])
        self.ion_energy = float(self._padded.energy_nuc())

    def hartree(self, density: NDArray[np.float64]) -> NDArray[np.float64]:
        """V_H of a density (bohr^-3), both of shape (n_grid,)."""
        transformed = rfftn(density.reshape(self.mesh), s=self._padded_mesh)
        return self._on_grid(self._kernel * transformed)

    def _ion_potential(self, waves: NDArray[np.float64]) -> NDArray[np.float64]:
        squares = np.einsum("...x,...x->...", waves, waves)
        total = np.zeros(squares.shape, dtype=complex)
        for a, position in enumerate(self._padded.atom_coords()):
            charge = self._padded.atom_charge(a)
            _, r_loc, _, coefficients, *_ = self._padded._pseudo[self._padded.atom_symbol(a)]
            shape = -charge * self._kernel + _short_range(squares * r_loc**2, r_loc, coefficients)
            if self._padded.dimension == 3:
                # what is left of 4 pi Z / G^2 (1 - gaussian) at G = 0
                shape[0, 0, 0] += 2 * np.pi * charge * r_loc**2
            total += shape * np.exp(-0.5 * r_loc**2 * squares - 1j * (waves @ position))
        points_per_volume = self._padded_mesh.prod() / self._padded.vol
        return points_per_volume * self._on_grid(total)

    def _on_grid(self, waves: NDArray[np.complex128]) -> NDArray[np.float64]:
        n1, n2, n3 = self.mesh
        return irfftn(waves, s=self._padded_mesh)[:n1, :n2, :n3].ravel()


def _short_range(squares: NDArray[np.float64], r_loc: float, coefficients: list[float]) -> NDArray[np.float64]:
    """Fourier transform of the Gaussian part of the local pseudopotential, divided by its Gaussian.

    Eq. (5) of Hartwigsen, Goedecker and Hutter (1998), https://doi.org/10.1103/PhysRevB.58.3641;
    `squares` is (G r_loc)^2.
    """
    polynomials = [
        np.ones_like(squares),
        3 - squares,
        15 - 10 * squares + squares**2,
        105 - 105 * squares + 21 * squares**2 - squares**3,
    ]
    return (2 * np.pi) ** 1.5 * r_loc**3 * sum(c * p for c, p in zip(coefficients, polynomials, strict=False))
