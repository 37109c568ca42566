"""Makes triplets.h5: H of spin-polarized molecules, collinear, from PySCF.

O2 and CH2 in their triplet ground states, at random bond lengths, angles and orientations; unrestricted LDA with GTH
pseudopotentials in the double-zeta basis of molopt (O and C: s2p2d1, H: s2p1). Up is the majority spin.
Run from the root of the repository: python tests/golden/pyscf/make_triplets.py [OUTPUT]
"""

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.units import Hartree
from pyscf import dft, gto
from pyscf.data.nist import BOHR
from scipy.spatial.transform import Rotation

from ase_hybridham.overlap import overlap_from_basis
from ase_hybridham.scf.gth import gaussian_shells, gth_basis, gth_pseudopotential
from ase_hybridham.store import append_systems, set_splits
from ase_hybridham.system import Basis, LCAOSystem, PairBlocks, PairList, convert_orbitals

XC, BASIS = "lda", "gth-dzvp-molopt-sr"


def oxygen(rng: np.random.Generator) -> Atoms:
    return Atoms("O2", [[0, 0, 0], [0, 0, rng.uniform(1.1, 1.35)]])


def methylene(rng: np.random.Generator) -> Atoms:
    """CH2, 135 degrees at equilibrium."""
    half, lengths = np.radians(rng.uniform(115, 155)) / 2, rng.uniform(1.0, 1.2, size=(2, 1))
    directions = [[np.sin(half), 0, np.cos(half)], [-np.sin(half), 0, np.cos(half)]]
    return Atoms("CH2", np.concatenate([np.zeros((1, 3)), lengths * directions]))


def turned(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """At a random orientation and place."""
    out = atoms.copy()
    out.positions = out.positions @ Rotation.random(rng=rng).as_matrix().T + rng.normal(size=3)
    return out


def run(atoms: Atoms, basis: Basis) -> LCAOSystem:
    """The triplet: Fock matrices of both spins on all pairs of atoms."""
    symbols = atoms.get_chemical_symbols()
    molecule = gto.M(
        atom=[[symbol, r / BOHR] for symbol, r in zip(symbols, atoms.positions, strict=True)],
        unit="bohr",
        basis={atom.symbol: gaussian_shells(atom) for atom in basis.atoms.values()},
        pseudo={symbol: gth_pseudopotential(symbol, XC) for symbol in set(symbols)},
        spin=2,
        verbose=0,
    )
    scf = dft.UKS(molecule, xc="lda,vwn")
    # a pruned grid feels how the molecule is turned: 1 meV in an element of H, against 0.01 meV
    scf.grids.level, scf.grids.prune, scf.conv_tol, scf.conv_tol_grad = 5, None, 1e-11, 1e-7
    scf.kernel()
    assert scf.converged, atoms
    pairs = PairList.from_atoms(atoms, basis.cutoffs())
    sizes = basis.sizes(pairs.numbers)
    first = np.cumsum(sizes) - sizes

    def blocks(matrix: np.ndarray) -> PairBlocks:
        stacks = {}
        for (z_i, z_j), rows in pairs.element_groups.items():
            a = first[pairs.i[rows]][:, None, None] + np.arange(basis[z_i].size)[:, None]
            b = first[pairs.j[rows]][:, None, None] + np.arange(basis[z_j].size)
            stacks[z_i, z_j] = convert_orbitals(matrix[a, b], "pyscf", basis[z_i].degrees, basis[z_j].degrees)
        return PairBlocks.from_groups(pairs, basis, stacks)

    return LCAOSystem(
        atoms,
        tuple(blocks(fock * Hartree).hermitian_part() for fock in scf.get_fock()),
        overlap_from_basis(atoms, basis, pairs),
        spin="collinear",
        fermi_level=float(_middle_of_the_gap(scf) * Hartree),
        electrons=float(molecule.nelectron),
        potential_reference="vacuum",
        provenance={"code": f"PySCF {version('pyscf')}", "xc": XC, "basis": BASIS, "energy_eV": scf.e_tot * Hartree},
    )


def _middle_of_the_gap(scf: dft.uks.UKS) -> float:
    energies, filled = np.array(scf.mo_energy), np.array(scf.mo_occ) > 0
    return 0.5 * (energies[filled].max() + energies[~filled].min())


def main(output: Path) -> None:
    rng = np.random.default_rng(0)
    basis = gth_basis(BASIS, ["C", "H", "O"], XC)
    structures = {f"o2-{n:02d}": turned(oxygen(rng), rng) for n in range(8)}
    structures |= {f"ch2-{n:02d}": turned(methylene(rng), rng) for n in range(20)}
    output.unlink(missing_ok=True)
    append_systems(output, ((name, run(atoms, basis)) for name, atoms in structures.items()), compact=True)
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for n, name in enumerate(structures):
        splits[{3: "test", 7: "val"}.get(n % 8, "train")].append(name)
    set_splits(output, splits)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("triplets.h5"))
