"""Do spin blocks make sense: time reversal, the sign and frame of spin-orbit coupling, collinear data in disguise.

Spinor blocks are H = h_0 + i (h_x s_x + h_y s_y + h_z s_z), real parts for a non-magnetic system. Inside a shell on
an atom spin-orbit coupling is (xi / 2) L.s with xi > 0, so that h_v = (xi / 2) G_v with the generators of rotations:
x, y and z alike. A spin block that is conjugated, exchanged or of another sign turns one of the three, or two.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ase_hybridham.check.report import Finding, Verdict
from ase_hybridham.symmetry import quaternion_from_spinor, rotation_generators
from ase_hybridham.system import LCAOSystem, PairBlocks

__all__ = ["check_spin", "is_magnetic"]

MAGNETIC = 1e-3  # eV; SCF leaves 1e-7 in a non-magnetic system
FELT = 1e-3  # eV: spin-orbit coupling of a shell below it is not looked at
UNEQUAL = 2.0  # factor between x, y and z that the surroundings of an atom explain
# signs of the coupling along x, y, z -> what turns them
CAUSES = {
    (-1, 1, 1): ("the up-down block is conjugated", "conjugate up-down and down-up"),
    (1, -1, 1): ("the up-down and down-up blocks are exchanged", "exchange up-down and down-up"),
    (1, 1, -1): ("the up-up and down-down blocks are exchanged", "exchange up-up and down-down"),
    (-1, -1, -1): ("spin-orbit coupling has the wrong sign", "check the sign of all imaginary parts"),
    (1, -1, -1): ("spin up and down are exchanged", "exchange the two spins in rows and columns"),
    (-1, 1, -1): ("the whole matrix is conjugated", "conjugate H"),
    (-1, -1, 1): ("up-down and down-up have the wrong sign", "change the sign of up-down and down-up"),
}


def check_spin(system: LCAOSystem) -> Iterator[Finding]:
    """Findings about spin; none for a system without."""
    if system.spin == "collinear" and len(system.hamiltonian) == 2:
        yield _collinear(system)
    if system.spin == "spinor" and system.hamiltonian:
        blocks = system.hamiltonian[0]
        yield _time_reversal(blocks)
        yield _spin_orbit(blocks)


def is_magnetic(system: LCAOSystem) -> bool:
    """Whether H breaks time reversal."""
    if system.spin == "collinear":
        up, down = system.hamiltonian
        return float(np.abs(up.values - down.values).max(initial=0.0)) > MAGNETIC
    return system.spin == "spinor" and _parts(system.hamiltonian[0]).odd > MAGNETIC


@dataclass(frozen=True)
class Parts:
    """Largest elements of the parts of H, eV.

    `diagonal`, `off_diagonal`: of dd - conj(uu) and du + conj(ud), which vanish without magnetism; `vector`: of
    h_x, h_y, h_z; `flips`: of ud and du; `imaginary`: of the imaginary part of uu and dd.
    """

    diagonal: float
    off_diagonal: float
    vector: float
    flips: float
    imaginary: float

    @property
    def odd(self) -> float:
        return max(self.diagonal, self.off_diagonal)


def _parts(blocks: PairBlocks) -> Parts:
    largest = np.zeros(5)
    for _, _, stack in blocks.groups():
        q = np.moveaxis(quaternion_from_spinor(stack), -3, 0)
        uu, dd = q[0] + 1j * q[3], q[0] - 1j * q[3]
        ud, du = q[2] + 1j * q[1], -q[2] + 1j * q[1]
        here = (dd - uu.conj(), du + ud.conj(), q[1:], np.stack([ud, du]), np.stack([uu.imag, dd.imag]))
        largest = np.maximum(largest, [np.abs(part).max(initial=0.0) for part in here])
    return Parts(*largest.tolist())


def _collinear(system: LCAOSystem) -> Finding:
    name = "spin"
    up, down = system.hamiltonian
    imaginary = max(float(np.abs(h.values.imag).max(initial=0.0)) for h in system.hamiltonian)
    if imaginary > MAGNETIC:
        message, advice = f"H of collinear spin is complex, by {imaginary:.1e} eV", "read the real parts"
        return Finding(name, "failed", message, imaginary, "eV", MAGNETIC, advice)
    difference = float(np.abs(up.values - down.values).max(initial=0.0))
    if difference <= MAGNETIC:
        return Finding(name, "note", "up and down are the same: not magnetic", difference, "eV", MAGNETIC)
    return Finding(name, "ok", f"up and down differ by up to {difference:.2g} eV", difference, "eV", MAGNETIC)


def _time_reversal(blocks: PairBlocks) -> Finding:
    name, parts = "time reversal", _parts(blocks)
    if parts.flips == 0 and parts.imaginary == 0:
        same = parts.diagonal <= MAGNETIC
        kind = "no spin at all" if same else "collinear spin"
        message = f"up-down blocks are zero and the others real: {kind}, written as a spinor"
        return Finding(name, "note", message, parts.odd, "eV", MAGNETIC, "convert it from its source as what it is")
    message = f"|dd - conj(uu)| {parts.diagonal:.1e} eV, |du + conj(ud)| {parts.off_diagonal:.1e} eV"
    if parts.odd <= MAGNETIC:
        return Finding(name, "ok", f"{message}: not magnetic", parts.odd, "eV", MAGNETIC)
    if parts.diagonal <= MAGNETIC:
        # a field along z would show in dd - conj(uu), and iron along x or y is rare enough to look at
        advice = "right for a moment in the x-y plane; else down-up was not built from the reverse pair"
        return Finding(name, "warning", f"{message}: only spin flips break it", parts.odd, "eV", MAGNETIC, advice)
    return Finding(name, "note", f"{message}: magnetic", parts.odd, "eV", MAGNETIC)


def _spin_orbit(blocks: PairBlocks) -> Finding:
    """Signs and sizes of L.s along x, y and z in the shell that feels it most."""
    name = "spin-orbit"
    found = [(float(np.abs(c).max()), n, l, c) for n, l, c in _couplings(blocks)]
    largest, atom, l, couplings = max(found, key=lambda entry: entry[0], default=(0.0, 0, 0, np.zeros(3)))
    if largest < FELT:
        return Finding(name, "skipped", "no shell feels spin-orbit coupling", largest, "eV", FELT)
    symbol = blocks.basis[int(blocks.pairs.numbers[atom])].symbol
    along = ", ".join(f"{axis} {value:+.3f}" for axis, value in zip("xyz", couplings, strict=True))
    message = f"L.s on atom {atom} ({symbol}, l = {l}) along {along} eV"
    smallest = float(np.abs(couplings).min())
    signs = tuple(int(s) for s in np.sign(couplings))
    verdict: Verdict = "ok"
    advice = ""
    if smallest * UNEQUAL < largest:
        verdict, advice = "warning", "the three should be nearly the same: a part of the spin blocks may be missing"
        message += ", not alike"
    if signs in CAUSES and smallest > FELT:
        cause, advice = CAUSES[signs]
        handed = np.prod(signs) < 0
        effect = "bands are wrong" if handed else "bands are right, but spin axes are not those of the atoms"
        verdict, message = "failed", f"{message}: {cause} ({effect})"
    return Finding(name, verdict, message, smallest, "eV", FELT, advice)


def _couplings(blocks: PairBlocks) -> Iterator[tuple[int, int, NDArray[np.float64]]]:
    """Atom, l and (xi_x, xi_y, xi_z) in eV, for every shell beyond s of every atom."""
    pairs = blocks.pairs
    for atom in range(pairs.n_atoms):
        basis = blocks.basis[int(pairs.numbers[atom])]
        vector = quaternion_from_spinor(blocks.block(atom))[1:].real
        for l, part in zip(basis.degrees, basis.slices, strict=True):
            if l:
                G = rotation_generators(l)
                along = np.einsum("vab,vab->v", vector[:, part, part], G) / (G[0] ** 2).sum()
                yield atom, l, 2 * along
