"""Write a system as OpenMX would, byte by byte and block by block: independent of the reader, for its tests."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ase_hybridham.io.openmx_band import HARTREE
from ase_hybridham.io.openmx_input import BOHR
from ase_hybridham.system import LCAOSystem, PairBlocks

# places of m = -l..l among OpenMX's orbitals of a shell, written out
PLACES = [
    [0],
    [1, 2, 0],  # y, z, x
    [2, 4, 0, 3, 1],  # xy, yz, 3z2-r2, xz, x2-y2
    [6, 4, 2, 0, 1, 3, 5],
    [8, 6, 4, 2, 0, 1, 3, 5, 7],
]


def scfout(
    system: LCAOSystem,
    *,
    version: int = 3,
    order: str = "<",
    n_powers: int = 1,
    extra: Sequence[NDArray] = (),
    text: str | None = None,
    seed: int = 0,
) -> bytes:
    """The bytes of a .scfout.

    Parameters
    ----------
    system : LCAOSystem
        Its radii are not looked at.
    version : int
        3 for OpenMX 3.9, 0 for 3.8.
    order : {"<", ">"}
        Byte order.
    extra : sequence of array, shape (n_values,)
        Operators after the overlap, in our order of pairs and orbitals; random numbers where they are lacking.
    text : str, optional
        The input; by default one that fits. An empty one is left out.
    """
    rng = np.random.default_rng(seed)
    switch = {"none": 0, "collinear": 1, "spinor": 3}[system.spin]
    pairs, atoms = system.pairs, system.atoms
    # each atom itself first, the rest in any order
    hopping = (pairs.i != pairs.j) | pairs.shifts.any(axis=1)
    rows = np.lexsort((rng.random(len(pairs)), hopping, pairs.i)).tolist()
    cells = [[0, 0, 0], *[r for r in np.unique(pairs.shifts, axis=0).tolist() if any(r)]]
    cell = atoms.cell.array / BOHR

    def ints(values: object) -> bytes:
        return np.asarray(values).astype(f"{order}i4").tobytes()

    def doubles(values: object) -> bytes:
        return np.asarray(values, dtype=float).astype(f"{order}f8").tobytes()

    def padded(vectors: NDArray) -> NDArray:  # element 0 holds garbage
        return np.column_stack([rng.integers(-(2**30), 2**30, len(vectors)), vectors])

    def operator(blocks: PairBlocks, unit: float = 1.0) -> bytes:
        out = []
        for p in rows:
            left, right = (_places(blocks, atom) for atom in (pairs.i[p], pairs.j[p]))
            out.append(blocks.block(p)[np.ix_(left, right)].ravel() / unit)
        return doubles(np.concatenate(out))

    neighbors = [[p for p in rows if pairs.i[p] == atom] for atom in range(len(atoms))]
    parts = [ints([len(atoms), switch + 4 * version, 0, 0, 0, len(cells) - 1])]
    parts += [ints([n_powers])] if version else []
    parts += [doubles(padded(np.array(cells) @ cell)), ints(padded(np.array(cells)))]
    parts += [ints(system.basis.sizes(atoms.numbers)), ints([len(n) - 1 for n in neighbors])]
    parts += [ints(np.array([pairs.j[p] for n in neighbors for p in n]) + 1)]
    parts += [ints([cells.index(pairs.shifts[p].tolist()) for n in neighbors for p in n])]
    parts += [doubles(padded(cell)), doubles(padded(2 * np.pi * np.linalg.inv(cell).T))]
    parts += [doubles(padded(atoms.positions / BOHR))]
    components, imaginary = _components(system)
    parts += [operator(blocks, HARTREE) for blocks in (*components, *imaginary)]
    parts += [operator(system.overlap)]
    n_extra = 3 * n_powers + (3 if version else 0) + switch + 1 + (2 if version else 0)
    template = system.overlap
    for n in range(n_extra):
        values = extra[n] if n < len(extra) else rng.normal(size=template.values.shape)
        parts.append(operator(template.with_values(values)))
    scalars = np.zeros(10)
    scalars[[0, 1, 8]] = (system.fermi_level or 0.0) / HARTREE, 300.0, system.electrons or 1.0
    parts += [ints([3]), doubles(scalars)]
    text = input_text(system) if text is None else text
    if text:
        records = [line[at : at + 255] for line in text.splitlines(True) for at in range(0, len(line), 255)]
        leftover = bytes(rng.integers(1, 127, 256, dtype=np.uint8))
        parts += [ints([len(records)])]
        parts += [(record.encode() + b"\0" + leftover)[:256] for record in records]
    return b"".join(parts)


def input_text(system: LCAOSystem, settings: str = "scf.XcType GGA-PBE\nscf.Kgrid 3 4 5 # mesh\n") -> str:
    """An input that fits a system; the names of the basis sets are those of files without a radius."""
    lines = ["<Definition.of.Atomic.Species"]
    for symbol, atom in system.basis.atoms.items():
        counts = "".join(f"{letter}{atom.degrees.count(l)}" for l, letter in enumerate("spdfg") if l in atom.degrees)
        lines.append(f"  {symbol}x  {symbol}_own-{counts} {symbol}_PBE19 # comment")
    lines += ["Definition.of.Atomic.Species>", "<Atoms.SpeciesAndCoordinates"]
    for n, symbol in enumerate(system.atoms.symbols):
        half = (system.basis[symbol].valence or 0.0) / 2
        lines.append(f" {n + 1} {symbol}x 0.0 0.0 0.0 {half} {half} # {'long ' * 70}")
    return "\n".join([settings, *lines, "Atoms.SpeciesAndCoordinates>"]) + "\n"


def _places(blocks: PairBlocks, atom: int) -> list[int]:
    """Our orbital at each of OpenMX's places."""
    ours: list[int] = []
    start = 0
    for l in blocks.basis[int(blocks.pairs.numbers[atom])].degrees:
        inverse = np.argsort(PLACES[l])
        ours += (start + inverse).tolist()
        start += 2 * l + 1
    return ours


def _components(system: LCAOSystem) -> tuple[list[PairBlocks], list[PairBlocks]]:
    if system.spin != "spinor":
        return list(system.hamiltonian), []
    (spinor,) = system.hamiltonian
    template, pairs = system.overlap, system.pairs
    parts = {"aa": [], "bb": [], "ab": []}
    for p in range(len(pairs)):
        block = spinor.block(p)
        a, b = block.shape[0] // 2, block.shape[1] // 2
        parts["aa"].append(block[:a, :b].ravel())
        parts["bb"].append(block[a:, b:].ravel())
        parts["ab"].append(block[:a, b:].ravel())
    aa, bb, ab = (np.concatenate(parts[name]) for name in ("aa", "bb", "ab"))
    share = 0.3 * ab.imag  # the imaginary part of up-down is written in two pieces
    real, imaginary = [aa.real, bb.real, ab.real, ab.imag - share], [aa.imag, bb.imag, share]
    return [template.with_values(v) for v in real], [template.with_values(v) for v in imaginary]


def sections(content: bytes) -> dict[str, tuple[int, int, int]]:
    """Name -> (start, end, bytes of a number) of the parts of a little-endian file with its input."""
    n_atoms, switch, *_, n_cells = np.frombuffer(content[:24], "<i4").tolist()
    new = switch >= 12
    at = 24 + 4 * new + 48 * (n_cells + 1)
    sizes, counts = np.frombuffer(content[at : at + 8 * n_atoms], "<i4").reshape(2, n_atoms)
    n_pairs = int((counts + 1).sum())
    i = np.repeat(np.arange(n_atoms), counts + 1)
    j = np.frombuffer(content[at + 8 * n_atoms : at + 8 * n_atoms + 4 * n_pairs], "<i4") - 1
    spin = switch % 4
    n_operators = 2 * (spin + 1) + 3 * (spin == 3) + 1 + 3 + 5 * new  # of n_powers = 1
    widths = {
        "header": (4, 6 + new),
        "translations": (8, 4 * (n_cells + 1)),
        "cells": (4, 4 * (n_cells + 1)),
        "counts": (4, 2 * n_atoms),
        "neighbors": (4, 2 * n_pairs),
        "lattice": (8, 24),
        "positions": (8, 4 * n_atoms),
        "operators": (8, n_operators * int((sizes[i] * sizes[j]).sum())),
        "solver": (4, 1),
        "scalars": (8, 10),
        "lines": (4, 1),
    }
    found, at = {}, 0
    for name, (width, count) in widths.items():
        found[name] = (at, at + width * count, width)
        at += width * count
    return found


def swapped(content: bytes) -> bytes:
    """A little-endian file in the other byte order."""
    parts = sections(content)
    end = max(end for _, end, _ in parts.values())
    turned = [np.frombuffer(content[a:b], f"<i{width}").byteswap().tobytes() for a, b, width in parts.values()]
    return b"".join(turned) + content[end:]
