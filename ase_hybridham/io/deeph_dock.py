"""DeepH's newer folder layout of a structure (DeepH-dock, and DeepH-pack in JAX).

POSCAR and info.json describe the structure. Every operator is one HDF5 file of four datasets: ``atom_pairs`` (R1, R2,
R3, i, j; atoms from 0), ``chunk_shapes``, ``chunk_boundaries`` (where each block begins, and the end) and ``entries``
(all blocks, row-major): <orbitals of i in cell 0 | M | orbitals of j in cell R>, H in eV, lengths in angstrom. Spinor
blocks are spin-major; S never has spin. Inside a shell m = -l .. l without signs, as in this package.
"""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from ase_hybridham.errors import FormatError
from ase_hybridham.io import deeph_folder
from ase_hybridham.io.assemble import check_table
from ase_hybridham.io.deeph_folder import (
    Head,
    Layout,
    StoredBlocks,
    json_flag,
    json_number,
    opened,
    read_json,
    read_text,
)
from ase_hybridham.io.format import Format
from ase_hybridham.io.poscar import format_poscar, parse_poscar
from ase_hybridham.system import AtomBasis, Basis, LCAOSystem

__all__ = ["FORMAT", "read_deeph_dock", "read_deeph_dock_atoms", "write_deeph_dock"]

POSCAR, INFO = "POSCAR", "info.json"
MOST_PACKED = 1100  # no filter of HDF5 packs tighter: a larger dataset has a damaged head
LARGEST_DEGREE = 6


def read_deeph_dock(folder: str | Path) -> LCAOSystem:
    """The system of one structure folder.

    Pairs, missing files and predictions are treated as in `read_deeph`: the pairs are those of overlap.h5, whatever
    their order in either file; H is that of hamiltonian.h5, else the prediction in hamiltonian_pred.h5, and zero where
    only S has a block. Spinful blocks that are all real and exactly zero between up and down are collinear spin: so
    DeepH-dock writes it, and a complex file is a spinor even if its imaginary part is zero. A Fermi level of exactly
    0, as of null, is no Fermi level: DeepH's tools write that where they know none. ``occupation`` is the number of
    electrons.

    Raises
    ------
    FormatError
        If a file is missing, broken or contradicts another; the message names the file and the block.
    """
    return deeph_folder.read_folder(folder, LAYOUT)


def read_deeph_dock_atoms(folder: str | Path) -> Atoms:
    """The atoms of a structure folder, which needs no blocks; periodic along all axes, as nothing tells otherwise.

    Raises
    ------
    FormatError
        If POSCAR is missing or broken.
    """
    path = Path(folder) / POSCAR
    return parse_poscar(str(path), read_text(path))


def write_deeph_dock(system: LCAOSystem, folder: str | Path, *, predicted: bool = False) -> None:
    """Write a system as a structure folder; `read_deeph_dock` gives the same numbers back.

    Atoms keep their order: where elements alternate, POSCAR names one several times, which DeepH-dock reads.
    Valences have no place in this layout and are lost; so is a Fermi level of exactly 0.

    Parameters
    ----------
    system : LCAOSystem
        A molecule too needs a box: three cell vectors.
    folder : str or Path
        A new one; a prediction may be added to the folder of its structure, on the pairs of overlap.h5 there and in
        their order.
    predicted : bool
        H goes to hamiltonian_pred.h5, where DeepH's tools look for what a network said.

    Raises
    ------
    ValueError
        If the folder is there already with anything but this structure without a prediction, or the cell has less
        than three independent vectors.
    """
    deeph_folder.write_folder(system, folder, LAYOUT, predicted=predicted)


def _sniff(path: Path) -> bool:
    return path.is_dir() and (_holds_blocks(path) or all((path / name).is_file() for name in (POSCAR, INFO)))


def _holds_blocks(path: Path) -> bool:
    return deeph_folder.holds_blocks(path, LAYOUT)


def _check_target(path: Path, atoms: Atoms) -> None:
    deeph_folder.check_target(path, atoms, LAYOUT, predicted=True)


# -- text files


def _read_head(folder: Path) -> Head:
    atoms = read_deeph_dock_atoms(folder)
    info = folder / INFO
    entries = read_json(info)
    basis = _basis(info, entries, atoms, json_flag(info, entries, "orthogonal_basis"))
    counts = {"atoms_quantity": len(atoms), "orbits_quantity": int(basis.sizes(atoms.numbers).sum())}
    for name, expected in counts.items():
        if entries.get(name, expected) != expected:
            raise FormatError(f"{info}: expected {name} {expected} for this {POSCAR}, got {entries[name]!r}")
    electrons = json_number(info, entries, "occupation")
    if electrons is not None and electrons <= 0:
        raise FormatError(f"{info}: expected occupation, the number of electrons, above 0, got {electrons:g}")
    return Head(
        atoms,
        basis,
        json_flag(info, entries, "spinful"),
        json_number(info, entries, "fermi_energy_eV", "eV") or None,
        electrons,
    )


def _basis(info: Path, entries: dict[str, Any], atoms: Atoms, orthogonal: bool) -> Basis:
    shells = entries.get("elements_orbital_map")
    if not isinstance(shells, dict):
        raise FormatError(f"{info}: expected elements_orbital_map, the l of all shells of every element")
    bases = []
    for number in sorted(set(atoms.numbers.tolist())):
        symbol = chemical_symbols[number]
        degrees = shells.get(symbol)
        if not (
            isinstance(degrees, list) and degrees and all(type(l) is int and 0 <= l <= LARGEST_DEGREE for l in degrees)
        ):
            raise FormatError(
                f"{info}: elements_orbital_map: expected the l of every shell of {symbol}, got {degrees!r}"
            )
        bases.append(AtomBasis.from_degrees(symbol, degrees))
    return Basis.of(*bases, orthogonal=orthogonal)


def _write_head(system: LCAOSystem, folder: Path) -> None:
    atoms, basis = system.atoms, system.basis
    (folder / POSCAR).write_text(format_poscar(atoms, "written by ase_hybridham"), encoding="ascii")
    entries: dict[str, Any] = {
        "atoms_quantity": len(atoms),
        "orbits_quantity": int(basis.sizes(atoms.numbers).sum()),
        "orthogonal_basis": basis.orthogonal,
        "spinful": system.spin != "none",
        "fermi_energy_eV": system.fermi_level,
        "elements_orbital_map": {
            symbol: list(basis[symbol].degrees) for symbol in dict.fromkeys(atoms.get_chemical_symbols())
        },
    }
    if system.electrons is not None:
        whole = float(system.electrons).is_integer()
        entries["occupation"] = int(system.electrons) if whole else float(system.electrons)
    (folder / INFO).write_text(json.dumps(entries, indent=1) + "\n", encoding="ascii")


# -- blocks


def _read_blocks(path: Path, head: Head, spinful: bool) -> StoredBlocks:
    """The four datasets of one HDF5 file."""
    numbers = head.atoms.numbers
    sizes = head.basis.sizes(numbers) * (2 if spinful else 1)
    with opened(path) as file:
        table = _integers(path, file, "atom_pairs", (None, 5))
        check_table(path, table, len(numbers), 0)
        expected = np.column_stack([sizes[table[:, 3]], sizes[table[:, 4]]])
        shapes = _integers(path, file, "chunk_shapes", (len(table), 2))
        _check_shapes(path, table, shapes, expected, numbers, spinful)
        ends = np.concatenate([[0], np.cumsum(expected.prod(axis=1))])
        if not np.array_equal(_integers(path, file, "chunk_boundaries", (len(table) + 1,)), ends):
            raise FormatError(f"{path}: chunk_boundaries: expected the sums of the sizes in chunk_shapes, from 0")
        entries = _dataset(path, file, "entries", "fc" if spinful else "f", (int(ends[-1]),))
        values = entries[()].astype(complex if entries.dtype.kind == "c" else float, copy=False)
    return StoredBlocks(table, expected, values)


def _integers(path: Path, file: h5py.File, name: str, shape: tuple[int | None, ...]) -> NDArray[np.int64]:
    return _dataset(path, file, name, "iu", shape)[()].astype(np.int64)


def _dataset(path: Path, file: h5py.File, name: str, kinds: str, shape: tuple[int | None, ...]) -> h5py.Dataset:
    """A dataset of this kind and shape, whose size in the file is not a lie."""
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise FormatError(f"{path}: expected a dataset {name}, got {'none' if dataset is None else 'a group'}")
    found = dataset.shape or ()
    fits = len(found) == len(shape) and all(n is None or n == m for n, m in zip(shape, found, strict=True))
    if dataset.dtype.kind not in kinds or not fits:
        kind = {"iu": "integers", "f": "real numbers", "fc": "real or complex numbers"}[kinds]
        size = " x ".join("n" if n is None else str(n) for n in shape)
        got = " x ".join(map(str, found)) or "no table"
        raise FormatError(f"{path}: {name}: expected {size} {kind}, got {got} of {dataset.dtype}")
    if dataset.nbytes > (MOST_PACKED if dataset.chunks else 1) * dataset.id.get_storage_size():
        raise FormatError(
            f"{path}: {name}: {' x '.join(map(str, found))} numbers do not fit into the file; copy or make it again"
        )
    return dataset


def _check_shapes(
    path: Path,
    table: NDArray[np.int64],
    shapes: NDArray[np.int64],
    expected: NDArray[np.int64],
    numbers: NDArray[np.int64],
    spinful: bool,
) -> None:
    wrong = np.flatnonzero((shapes != expected).any(axis=1))
    if len(wrong):
        p = int(wrong[0])
        (n, m), (n_found, m_found) = expected[p], shapes[p]
        elements = "-".join(chemical_symbols[z] for z in numbers[table[p, 3:]])
        raise FormatError(
            f"{path}: block {table[p].tolist()}: expected {n} x {m} for {elements}{', spinful' * spinful}, got "
            f"{n_found} x {m_found}; check elements_orbital_map and spinful in {INFO}"
        )


def _write_blocks(path: Path, blocks: StoredBlocks) -> None:
    with h5py.File(path, "w") as file:
        file["atom_pairs"] = blocks.table
        file["chunk_shapes"] = blocks.shapes
        file["chunk_boundaries"] = np.concatenate([[0], np.cumsum(blocks.shapes.prod(axis=1))])
        file["entries"] = blocks.values


LAYOUT = Layout(
    "deeph-dock",
    "deeph-dock",
    "hamiltonian.h5",
    "hamiltonian_pred.h5",
    "overlap.h5",
    0,
    _read_head,
    _read_blocks,
    _write_head,
    _write_blocks,
    collinear=True,
)

FORMAT = Format(
    "deeph-dock",
    "a folder with POSCAR, info.json, overlap.h5, hamiltonian.h5",
    _sniff,
    read_deeph_dock,
    read_deeph_dock_atoms,
    _holds_blocks,
    write_deeph_dock,
    _check_target,
)
