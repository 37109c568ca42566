"""What subtracting the kinetic energy would spare a network: spread of H and of H - T over the bilayers of graphene.

    python -m tests.benchmarks.kinetic_share

On-site: deviation from the mean over all atoms. Hopping: as it is, and what is left after the mean over hoppings of
like length in the frame of the bond, which is all that a function of the distance can tell; T is such a function.
Zero of energy at the Fermi level; rms per element, eV.
"""

import shutil
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ase_hybridham.io import read_deeph
from ase_hybridham.overlap import kinetic_from_basis
from ase_hybridham.symmetry import alignment_matrices
from ase_hybridham.system import PairBlocks
from tests.overlap.radial_data import openmx_basis

ARCHIVE = Path(__file__).parents[1] / "golden/openmx/bilayers.tar.xz"
BASIS = openmx_basis("C")
ATOM = BASIS["C"]
WIDTH = 0.02  # angstrom, of the lengths that are alike


def in_bond_frame(blocks: PairBlocks) -> NDArray[np.float64]:
    """Hoppings turned so that the bond is the polar axis, shape (n_hoppings, n, n)."""
    pairs = blocks.pairs
    frames = alignment_matrices(pairs.vectors[pairs.hopping], max(ATOM.degrees))
    turn = np.zeros((pairs.n_hoppings, ATOM.size, ATOM.size))
    for l, orbitals in zip(ATOM.degrees, ATOM.slices, strict=True):
        turn[:, orbitals, orbitals] = frames[l]
    return turn @ square(blocks)[pairs.hopping] @ turn.swapaxes(1, 2)


def square(blocks: PairBlocks) -> NDArray[np.float64]:
    return blocks.values.reshape(-1, ATOM.size, ATOM.size)


def without_means(hoppings: NDArray, distances: NDArray) -> NDArray[np.float64]:
    """Less the mean over like lengths of those elements that two-center operators have: equal m in the bond frame."""
    m = np.concatenate([np.arange(-l, l + 1) for l in ATOM.degrees])
    out = hoppings.copy()
    _, bins = np.unique(np.round(distances / WIDTH), return_inverse=True)
    for n in range(bins.max() + 1):
        out[bins == n] -= (m[:, None] == m) * hoppings[bins == n].mean(0)
    return out


def rms(values: NDArray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def main() -> None:
    onsite: dict[str, list[NDArray]] = {"H": [], "H - T": []}
    hopping: dict[str, list[NDArray]] = {"H": [], "H - T": []}
    lengths = []
    with tempfile.TemporaryDirectory() as folder:
        shutil.unpack_archive(ARCHIVE, folder)
        for path in sorted((Path(folder) / "bilayers").iterdir()):
            system = read_deeph(path)
            assert system.overlap is not None
            assert system.fermi_level is not None
            h = system.hamiltonian[0] - system.fermi_level * system.overlap
            t = kinetic_from_basis(system.atoms, BASIS, system.pairs)
            for name, blocks in {"H": h, "H - T": h - t}.items():
                onsite[name].append(square(blocks)[system.pairs.onsite])
                hopping[name].append(in_bond_frame(blocks))
            lengths.append(system.pairs.distances[system.pairs.hopping])
    distances = np.concatenate(lengths)
    sets = {}
    for name in onsite:
        sites, bonds = np.concatenate(onsite[name]), np.concatenate(hopping[name])
        sets[name] = sites - sites.mean(0), bonds, without_means(bonds, distances)
    print(f"{len(lengths)} structures, {len(distances)} hoppings; columns: H, H - T")
    print("          on-site          hopping          less its mean over like lengths")
    for a, rows in enumerate(ATOM.slices):
        for b, columns in list(enumerate(ATOM.slices))[a:]:
            part = [[rms(values[:, rows, columns]) for values in sets[name]] for name in sets]
            print(line(f"{ATOM.shells[a].label or a}-{ATOM.shells[b].label or b}", part))
    edges = [0.0, 1.6, 3.0, 4.5, 7.0]
    for low, high in pairwise(edges):
        near = (distances >= low) & (distances < high)
        part = [[rms(values[near]) for values in sets[name][1:]] for name in sets]
        print(line(f"{low} - {high} A", part, skip=1))
    print(line("all", [[rms(values) for values in sets[name]] for name in sets]))


def line(name: str, part: list[list[float]], skip: int = 0) -> str:
    return f"{name:10s}" + " " * 17 * skip + "  ".join(f"{h:7.3f} {t:7.3f}" for h, t in zip(*part, strict=True))


if __name__ == "__main__":
    main()
