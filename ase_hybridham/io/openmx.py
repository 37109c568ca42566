"""The .scfout of OpenMX: raw C fwrite, no markers, in the byte order of the machine that ran.

A header, the lattice translations, the neighbours of every atom, then one operator after the other, each as a block
for every (atom, neighbour), row-major, hartree and bohr; at the end the Fermi level and a copy of the input. Versions
3.8 (and older) and 3.9 differ in which operators there are. Anything may follow: some append the text output.

Positions are those the lattice shifts refer to; the .out file prints others, wrapped into the cell.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_hybridham.errors import FormatError
from ase_hybridham.io.assemble import block_name, blocks_from_pairs, periodic_axes, sorted_pairs, with_fitted_radii
from ase_hybridham.io.format import Format
from ase_hybridham.io.openmx_band import HARTREE
from ase_hybridham.io.openmx_input import BOHR, InputCopy, input_basis, input_settings, parse_input
from ase_hybridham.io.openmx_layout import ScfoutFile, open_scfout
from ase_hybridham.system import Basis, LCAOSystem, PairBlocks, PairList, SpinKind
from ase_hybridham.system.pairs import count_pairs

__all__ = ["MATRICES", "read_openmx", "read_openmx_matrices"]

MATRICES = ("position", "momentum", "density")
SPINS: dict[int, SpinKind] = {0: "none", 1: "collinear", 3: "spinor"}
RULE = 1e-4  # bohr; OpenMX compares in double precision, the file of the basis rounds its radius


def read_openmx(path: str | Path) -> LCAOSystem:
    """The system of a .scfout, plain or gzipped.

    Parameters
    ----------
    path : str or Path
        Of OpenMX 3.9, 3.8 or older, any spin, either byte order.

    Returns
    -------
    LCAOSystem
        H in eV and S on OpenMX's pairs; electrons, Fermi level and settings as the file tells them. Periodic along
        the axes that pairs reach across.

    Raises
    ------
    FormatError
        If the file is incomplete, of another version, or contradicts itself.
    """
    with open_scfout(path) as file:
        frame = _Frame.of(file)
        hamiltonian = frame.operators("hamiltonian", HARTREE)
        if file.layout.spin == 3:
            hamiltonian = [_spinor(hamiltonian, frame.operators("imaginary", HARTREE))]
        (overlap,) = frame.operators("overlap")
    return LCAOSystem(
        frame.atoms,
        tuple(hamiltonian),
        overlap,
        spin=SPINS[file.layout.spin],
        fermi_level=file.results.fermi_level * HARTREE,
        electrons=file.results.electrons,
        potential_reference="openmx",
        provenance={
            "format": FORMAT.name,
            "code": "OpenMX 3.9" if file.layout.version else "OpenMX 3.8 or older",
            **input_settings(path, frame.input),
            "temperature_K": file.results.temperature,
        },
    )


def read_openmx_matrices(path: str | Path, kinds: Iterable[str]) -> dict[str, tuple[PairBlocks, ...]]:
    """Other matrices of a .scfout, on the pairs that `read_openmx` gives.

    Parameters
    ----------
    path : str or Path
    kinds : iterable of str
        Some of:

        * ``"position"``: <i| (r - r_i)^p |j> in angstrom^p, a grid integral; x, y, z for p = 1, where higher powers
          are there x^1, x^2, ..., y^1, ...
        * ``"momentum"``: <grad i | j> = dS/dd in 1/angstrom, real, x, y, z; times i hbar it is <i| p |j>. Not before
          3.9.
        * ``"density"``: spinless: one channel, Tr(rho S) is half the electrons; collinear: up, down; spinor: one,
          needs 3.9. As OpenMX writes it: E_band = Re sum rho[a, b] H[a, b] over all elements of all blocks, so it is
          the complex conjugate of sum f c_a c_b*.

    Returns
    -------
    dict
        Kind -> operators.

    Raises
    ------
    ValueError
        If a kind is none of these.
    FormatError
        As `read_openmx`, or if the file's version does not hold the matrices.
    """
    kinds = list(kinds)
    for kind in kinds:
        if kind not in MATRICES:
            raise ValueError(f"matrices: expected some of {', '.join(MATRICES)}, got {kind!r}")
    with open_scfout(path) as file:
        layout = file.layout
        if not layout.version and ("momentum" in kinds or ("density" in kinds and layout.spin == 3)):
            raise FormatError(f"{path}: OpenMX before 3.9 wrote no momentum and no complex density matrices")
        frame = _Frame.of(file)
        if "momentum" in kinds and any(species.is_contracted for species in frame.input.species):
            raise FormatError(
                f"{path}: with optimized orbitals OpenMX's momentum matrices are not those of its orbitals"
            )
        found = {kind: frame.operators(kind, 1 / BOHR if kind == "momentum" else 1.0) for kind in kinds}
        if "density" in kinds and layout.spin == 3:
            found["density"] = [_spinor(found["density"], frame.operators("density_imaginary"))]
    if "position" in kinds:
        powers = [1 + n % layout.n_powers for n in range(len(found["position"]))]
        found["position"] = [m * BOHR**power for m, power in zip(found["position"], powers, strict=True)]
    return {kind: tuple(blocks) for kind, blocks in found.items()}


@dataclass(frozen=True, eq=False)
class _Frame:
    """What all operators of an open file share."""

    file: ScfoutFile
    atoms: Atoms
    basis: Basis
    pairs: PairList
    position: NDArray[np.int64]
    input: InputCopy

    @classmethod
    def of(cls, file: ScfoutFile) -> "_Frame":
        where, layout = file.path, file.layout
        copy = parse_input(where, file.results.input_text, layout.n_atoms)
        basis = input_basis(where, copy, layout.sizes.tolist(), file.results.electrons)
        symbols = [species.symbol for species in copy.species]
        atoms = Atoms(symbols, layout.positions * BOHR, cell=layout.cell * BOHR)
        pairs, position = sorted_pairs(where, atoms, layout.pairs)
        _check_rule(where, atoms, pairs, [species.radius for species in copy.species])
        atoms.pbc = periodic_axes(pairs)
        if any(atom.cutoff is None for atom in basis.atoms.values()):
            basis = with_fitted_radii(basis, pairs)
        return cls(file, atoms, basis, pairs, position, copy)

    def operators(self, kind: str, unit: float = 1.0) -> list[PairBlocks]:
        """All operators of a kind, times a unit."""
        values = self.file.operators(kind)
        return blocks_from_pairs(self.file.path, self.pairs, self.position, self.basis, values, "openmx", unit=unit)


def _spinor(real: Sequence[PairBlocks], imaginary: Sequence[PairBlocks]) -> PairBlocks:
    """Real parts of up-up, down-down, up-down and the imaginary part of up-down; what is added to the imaginary ones.

    Down-up is not in the file: it is the adjoint of up-down, which takes the block of the reverse pair.
    """
    pairs, basis = real[0].pairs, real[0].basis
    up, down = (real[s].with_values(real[s].values + 1j * imaginary[s].values) for s in (0, 1))
    extra = imaginary[2].values if len(imaginary) > 2 else 0.0
    up_down = real[2].with_values(real[2].values + 1j * (real[3].values + extra))
    parts = (up, up_down, up_down.adjoint(), down)
    stacks = {}
    for elements, rows in pairs.element_groups.items():
        aa, ab, ba, bb = (part.values[part.index(rows)] for part in parts)
        stacks[elements] = np.concatenate([np.concatenate([aa, ab], axis=2), np.concatenate([ba, bb], axis=2)], axis=1)
    return PairBlocks.from_groups(pairs, basis, stacks, spinor=True)


def _check_rule(where: str | Path, atoms: Atoms, pairs: PairList, radii: Sequence[float | None]) -> None:
    """OpenMX lists exactly the pairs up to the sum of two radii: others do not fit positions and cell."""
    radius = np.array([np.nan if r is None else (r + RULE / 2) * BOHR for r in radii])
    over = pairs.distances - radius[pairs.i] - radius[pairs.j]
    longest = int(np.argmax(np.where(np.isnan(over), -np.inf, over)))
    if over[longest] > 0:
        raise FormatError(
            f"{where}: pair {block_name(pairs, longest)} is {pairs.distances[longest]:.4f} angstrom long, more than "
            f"the {pairs.distances[longest] - over[longest]:.4f} of its basis; positions, cell and pairs do not fit"
        )
    short = {int(z): r - RULE * BOHR for z, r in zip(atoms.numbers, radius.tolist(), strict=True)}
    if not np.array_equal([short[z] + RULE * BOHR for z in atoms.numbers.tolist()], radius):
        return  # a radius is unknown, or two species of one element differ in it
    everywhere = atoms.copy()
    everywhere.pbc = True
    try:
        n_expected = count_pairs(everywhere, short)
    except ValueError as error:
        raise FormatError(f"{where}: {error}") from None
    if n_expected != (over <= -2 * RULE * BOHR).sum():
        expected = PairList.from_atoms(everywhere, short)
        for p in np.flatnonzero(pairs.find(expected) < 0):
            raise FormatError(
                f"{where}: pair {block_name(expected, int(p))} is missing, though within the radii of its basis; "
                "positions, cell and pairs do not fit"
            )


def _sniff(path: Path) -> bool:
    return path.name.lower().endswith((".scfout", ".scfout.gz")) and path.is_file()


FORMAT = Format("openmx", "a .scfout of OpenMX, or .scfout.gz", _sniff, read_openmx)
