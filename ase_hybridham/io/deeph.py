"""DeepH's older folder layout of a structure (DeepH-pack, DeepH-E3).

Text files hold vectors as columns; blocks are HDF5 datasets of their own, keyed
``"[R1, R2, R3, i, j]"`` with atoms counted from 1: <orbitals of i in cell 0 | M | orbitals of j in
cell R>, H in eV, lengths in angstrom. Spinor blocks are spin-major; S never has spin. Orbitals
stand in OpenMX's order whatever program computed them, save one: DeepH-pack's parser of SIESTA
inverts the permutation of f shells, which a folder does not tell; `read_deeph_siesta` knows it.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from ase_hybridham.errors import FormatError
from ase_hybridham.io import deeph_folder
from ase_hybridham.io.assemble import FARTHEST_CELL
from ase_hybridham.io.atoms import checked_atoms
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
from ase_hybridham.system import AtomBasis, Basis, LCAOSystem

__all__ = [
    "FORMAT",
    "SIESTA",
    "holds_blocks",
    "read_deeph",
    "read_deeph_atoms",
    "read_deeph_siesta",
    "write_deeph",
]


def read_deeph(folder: str | Path) -> LCAOSystem:
    """The system of one structure folder.

    H is that of hamiltonians.h5; where that is missing, the prediction in hamiltonians_pred.h5, as the network gave
    it and perhaps not Hermitian (`provenance` then has ``predicted``). The pairs are those of overlaps.h5, and H is
    zero where only S has a block (predicted files lack far pairs); without overlaps.h5 they are those of H, and
    without H the system has S only. The folder does not tell which axes are periodic: those along which some pair has
    R != 0 are. It does not tell cutoff radii either: the smallest that allow all its pairs are taken.
    ``isorthogonal`` in info.json means S = 1, and overlaps.h5 may be missing. Spinful blocks that are all real and
    without up-down parts are collinear spin, as DeepH-dock writes it and its ``downgrade`` keeps it.

    Raises
    ------
    FormatError
        If a file is missing, broken or contradicts another; the message names the file and the block.
    """
    return deeph_folder.read_folder(folder, LAYOUT)


def read_deeph_siesta(folder: str | Path) -> LCAOSystem:
    """As `read_deeph`, for a folder that DeepH-pack made from SIESTA: its f shells are m = 3, 1, -1, -3, -2, 0, 2."""
    return deeph_folder.read_folder(folder, replace(LAYOUT, name="deeph-siesta", order="deeph-siesta"))


def read_deeph_atoms(folder: str | Path) -> Atoms:
    """The atoms of a structure folder, which needs no blocks; periodic along all axes, as nothing tells otherwise.

    Raises
    ------
    FormatError
        If lat.dat, element.dat or site_positions.dat is missing, broken or contradicts another.
    """
    folder = Path(folder)
    cell = _numbers(folder / "lat.dat")
    if cell.shape != (3, 3):
        raise FormatError(f"{folder / 'lat.dat'}: expected 3 x 3 (vectors as columns), got {_by(cell)}")
    numbers = _atomic_numbers(folder / "element.dat")
    positions = _numbers(folder / "site_positions.dat")
    if positions.shape == (1, 3) and len(numbers) == 1:
        positions = positions.T  # a single atom is also written as one line
    if positions.shape != (3, len(numbers)):
        raise FormatError(
            f"{folder / 'site_positions.dat'}: expected 3 x {len(numbers)} (atoms as columns), got {_by(positions)}"
        )
    atoms = checked_atoms(folder / "lat.dat", numbers, positions.T, cell.T)
    atoms.pbc = True
    return atoms


def holds_blocks(folder: str | Path) -> bool:
    """Whether a structure folder has H or S, hence pairs, and not the atoms alone."""
    return deeph_folder.holds_blocks(folder, LAYOUT)


def write_deeph(system: LCAOSystem, folder: str | Path, *, predicted: bool = False) -> None:
    """Write a system as a structure folder; `read_deeph` gives the same numbers back.

    Electrons and valences have no place in this layout and are lost.

    Parameters
    ----------
    system : LCAOSystem
        A molecule too needs a box: three cell vectors.
    folder : str or Path
        A new one; a prediction may be added to the folder of its structure, on the pairs of overlaps.h5 there.
    predicted : bool
        H goes to hamiltonians_pred.h5, where DeepH's tools look for what a network said.

    Raises
    ------
    ValueError
        If the folder is there already with anything but this structure without a prediction, the spin is collinear,
        which the layout does not know, or the cell has less than three independent vectors.
    """
    deeph_folder.write_folder(system, folder, LAYOUT, predicted=predicted)


def _sniff(path: Path) -> bool:
    names = ("orbital_types.dat", "site_positions.dat", *LAYOUT.block_files)
    return path.is_dir() and any((path / name).is_file() for name in names)


def _check_target(path: Path, atoms: Atoms) -> None:
    deeph_folder.check_target(path, atoms, LAYOUT, predicted=True)


# -- text files


def _read_head(folder: Path) -> Head:
    atoms = read_deeph_atoms(folder)
    basis = _basis(folder / "orbital_types.dat", atoms.numbers)
    info = folder / "info.json"
    entries = read_json(info)
    return Head(
        atoms,
        replace(basis, orthogonal=json_flag(info, entries, "isorthogonal")),
        json_flag(info, entries, "isspinful"),
        json_number(info, entries, "fermi_level", "eV"),
    )


def _numbers(path: Path) -> NDArray[np.float64]:
    """A table of numbers, always with two axes."""
    rows = [line.split() for line in read_text(path).splitlines() if line.strip()]
    try:
        table = np.array(rows, dtype=float).reshape(len(rows), -1)
    except ValueError:
        raise FormatError(f"{path}: expected rows of numbers of one length") from None
    if not table.size or not np.isfinite(table).all():
        raise FormatError(f"{path}: expected finite numbers, got {'none' if not table.size else 'inf or nan'}")
    return table


def _atomic_numbers(path: Path) -> NDArray[np.int64]:
    numbers = _numbers(path).ravel()
    if (numbers != np.round(numbers)).any() or numbers.min() < 1 or numbers.max() >= len(chemical_symbols):
        raise FormatError(f"{path}: expected atomic numbers, got {numbers.tolist()}")
    return numbers.astype(np.int64)


def _basis(path: Path, numbers: NDArray[np.int64]) -> Basis:
    lines = [line.split() for line in read_text(path).splitlines() if line.strip()]
    if len(lines) != len(numbers):
        raise FormatError(f"{path}: expected a line for each of {len(numbers)} atoms, got {len(lines)}")
    degrees: dict[int, list[int]] = {}
    for atom, (number, line) in enumerate(zip(numbers.tolist(), lines, strict=True)):
        if not all(word.isascii() and word.isdigit() and int(word) <= 6 for word in line):
            raise FormatError(f"{path}: expected the l of every shell of atom {atom + 1}, got {' '.join(line)!r}")
        shells = [int(word) for word in line]
        if degrees.setdefault(number, shells) != shells:
            raise FormatError(
                f"{path}: atom {atom + 1} ({chemical_symbols[number]}) has shells {shells}, an earlier one "
                f"{degrees[number]}; atoms of one element must have one basis"
            )
    return Basis.of(*(AtomBasis.from_degrees(chemical_symbols[z], degrees[z]) for z in sorted(degrees)))


def _by(table: NDArray) -> str:
    return " x ".join(map(str, table.shape))


# -- blocks


def _read_blocks(path: Path, head: Head, spinful: bool) -> StoredBlocks:
    """All datasets of one HDF5 file; complex if some are and spin allows it."""
    numbers = head.atoms.numbers
    sizes = head.basis.sizes(numbers) * (2 if spinful else 1)
    with opened(path) as file:
        keys = list(file)
        table = _parse_keys(path, keys, len(numbers))
        shapes = np.column_stack([sizes[table[:, 3]], sizes[table[:, 4]]])
        ends = np.concatenate([[0], np.cumsum(shapes.prod(axis=1))])
        values = np.empty(ends[-1], dtype=complex if spinful else float)
        all_real = True
        for p, key in enumerate(keys):
            out = values[ends[p] : ends[p + 1]].reshape(shapes[p])
            all_real &= _read_block(path, file, key, out, spinful, numbers[table[p, 3:]])
    return StoredBlocks(table, shapes, values.real.copy() if spinful and all_real else values)


def _parse_keys(path: Path, keys: list[str], n_atoms: int) -> NDArray[np.int64]:
    """R1, R2, R3, i, j (from 0) of every key."""
    for key in keys:
        try:
            numbers = json.loads(key)
        except (ValueError, RecursionError):
            numbers = None
        if not (isinstance(numbers, list) and len(numbers) == 5 and all(type(n) is int for n in numbers)):
            raise FormatError(f'{path}: dataset {key!r}: expected a name like "[0, 0, -1, 1, 2]"')
        if not (min(numbers[3:]) >= 1 and max(numbers[3:]) <= n_atoms and max(map(abs, numbers[:3])) < FARTHEST_CELL):
            raise FormatError(f"{path}: block {key}: expected atoms 1 to {n_atoms} and a cell within reach")
    table = np.array([json.loads(key) for key in keys], dtype=np.int64).reshape(-1, 5)
    table[:, 3:] -= 1
    return table


def _read_block(path: Path, file: h5py.File, key: str, out: NDArray, spinful: bool, ends: NDArray[np.int64]) -> bool:
    """Read one dataset into its place; whether it is real.

    h5py's low-level calls take a third of the time of ``file[key][()]``.
    """
    try:
        dataset = h5py.h5d.open(file.id, key.encode())
    except (KeyError, ValueError) as error:
        raise FormatError(f"{path}: block {key}: not a readable dataset ({error})") from None
    if dataset.shape != out.shape:
        found = " x ".join(map(str, dataset.shape or ())) or "no table"
        elements = "-".join(chemical_symbols[z] for z in ends)
        raise FormatError(
            f"{path}: block {key}: expected {_by(out)} for {elements}{', spinful' * spinful}, got {found}; "
            "check orbital_types.dat and isspinful in info.json"
        )
    kind = dataset.dtype.kind
    if kind not in ("fc" if spinful else "f"):
        raise FormatError(
            f"{path}: block {key}: expected {'complex' if spinful else 'real'} numbers, got {dataset.dtype}"
        )
    if kind == "f" and spinful:
        out[:] = file[key][()]
    else:
        dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, out)
    return kind == "f"


# -- writing


def _write_head(system: LCAOSystem, folder: Path) -> None:
    atoms, basis = system.atoms, system.basis
    tables = {
        "lat.dat": atoms.cell.array.T,
        "rlat.dat": 2 * np.pi * atoms.cell.reciprocal().array.T,
        "site_positions.dat": atoms.get_positions().T,
    }
    for name, table in tables.items():
        np.savetxt(folder / name, table, fmt="%.17g")
    np.savetxt(folder / "element.dat", atoms.numbers, fmt="%d")
    np.savetxt(folder / "R_list.dat", np.unique(system.pairs.shifts, axis=0), fmt="%d")
    shells = [" ".join(map(str, basis[int(z)].degrees)) for z in atoms.numbers]
    (folder / "orbital_types.dat").write_text("\n".join(shells) + "\n", encoding="ascii")
    entries: dict[str, Any] = {"isspinful": system.spin == "spinor", "isorthogonal": basis.orthogonal}
    if system.fermi_level is not None:
        entries["fermi_level"] = system.fermi_level
    (folder / "info.json").write_text(json.dumps(entries, indent=1) + "\n", encoding="ascii")


def _write_blocks(path: Path, blocks: StoredBlocks) -> None:
    ends = np.cumsum(blocks.shapes.prod(axis=1))
    with h5py.File(path, "w") as file:
        for row, shape, end in zip(blocks.table.tolist(), blocks.shapes.tolist(), ends.tolist(), strict=True):
            key = str([*row[:3], row[3] + 1, row[4] + 1])
            file.create_dataset(key, data=blocks.values[end - shape[0] * shape[1] : end].reshape(shape))


LAYOUT = Layout(
    "deeph",
    "deeph",
    "hamiltonians.h5",
    "hamiltonians_pred.h5",
    "overlaps.h5",
    1,
    _read_head,
    _read_blocks,
    _write_head,
    _write_blocks,
)

FORMAT = Format(
    "deeph",
    "a folder with orbital_types.dat, lat.dat, hamiltonians.h5, ...",
    _sniff,
    read_deeph,
    read_deeph_atoms,
    holds_blocks,
    write_deeph,
    _check_target,
)

# the same files as those of `FORMAT`, which is asked before: only a person can say that these are from SIESTA
SIESTA = Format(
    "deeph-siesta",
    "the same, with f shells that DeepH-pack took from SIESTA: must be named",
    _sniff,
    read_deeph_siesta,
    read_deeph_atoms,
    holds_blocks,
)
