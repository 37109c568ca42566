"""DeepH's folder layout of a structure (DeepH-pack, DeepH-E3; the older of its two layouts).

Text files hold vectors as columns; blocks are HDF5 datasets of their own, keyed
``"[R1, R2, R3, i, j]"`` with atoms counted from 1: <orbitals of i in cell 0 | M | orbitals of j in
cell R>, H in eV, lengths in angstrom. Spinor blocks are spin-major; S never has spin. Orbitals
stand in OpenMX's order whatever program computed them.
"""

import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.symbols import Symbols
from numpy.typing import NDArray

from ase_hybridham.errors import FormatError
from ase_hybridham.io.assemble import (
    FARTHEST_CELL,
    block_name,
    blocks_from_pairs,
    periodic_axes,
    sorted_pairs,
    with_fitted_radii,
)
from ase_hybridham.io.format import Format
from ase_hybridham.system import AtomBasis, Basis, LCAOSystem, PairBlocks, orbital_order

__all__ = ["FORMAT", "check_new_folder", "holds_blocks", "read_deeph", "read_deeph_atoms", "write_deeph"]

HAMILTONIAN, PREDICTION, OVERLAP = "hamiltonians.h5", "hamiltonians_pred.h5", "overlaps.h5"
BLOCKS = (HAMILTONIAN, PREDICTION, OVERLAP)
SMALLEST_CELL = 1e-8  # angstrom^3


def read_deeph(folder: str | Path) -> LCAOSystem:
    """The system of one structure folder.

    H is that of hamiltonians.h5; where that is missing, the prediction in hamiltonians_pred.h5, as the network gave
    it and perhaps not Hermitian (`provenance` then has ``predicted``). The pairs are those of overlaps.h5, and H is
    zero where only S has a block (predicted files lack far pairs); without overlaps.h5 they are those of H, and
    without H the system has S only. The folder does not tell which axes are periodic: those along which some pair has
    R != 0 are. It does not tell cutoff radii either: the smallest that allow all its pairs are taken.
    ``isorthogonal`` in info.json means S = 1, and overlaps.h5 may be missing.

    Raises
    ------
    FormatError
        If a file is missing, broken or contradicts another; the message names the file and the block.
    """
    folder = Path(folder)
    atoms = read_deeph_atoms(folder)
    basis = _basis(folder / "orbital_types.dat", atoms.numbers)
    entries = _json(folder / "info.json")
    spinor, orthogonal = (_flag(folder / "info.json", entries, name) for name in ("isspinful", "isorthogonal"))
    basis = replace(basis, orthogonal=orthogonal)
    fermi_level = entries.get("fermi_level")
    if fermi_level is not None and not (_is_number(fermi_level) and math.isfinite(fermi_level)):
        raise FormatError(f"{folder / 'info.json'}: expected fermi_level in eV, got {fermi_level!r}")

    overlap = hamiltonian = None
    if (folder / OVERLAP).exists():
        overlap = _blocks(folder / OVERLAP, atoms, basis, spinor=False)
    source = next((name for name in (HAMILTONIAN, PREDICTION) if (folder / name).exists()), None)
    if source is not None:
        hamiltonian = _blocks(folder / source, atoms, basis, spinor=spinor)
    known = overlap or hamiltonian
    if known is None:
        raise FormatError(f"{folder}: neither {HAMILTONIAN} nor {OVERLAP} nor {PREDICTION} is there")
    if overlap is not None and hamiltonian is not None and not overlap.pairs.same_pairs(hamiltonian.pairs):
        lacking = np.flatnonzero(overlap.pairs.find(hamiltonian.pairs) < 0)
        if len(lacking):
            name = block_name(hamiltonian.pairs, int(lacking[0]))
            raise FormatError(f"{folder / OVERLAP}: block {name} is missing, {source} has it")
        hamiltonian = hamiltonian.on_pairs(overlap.pairs)
    atoms.pbc = periodic_axes(known.pairs)
    basis = with_fitted_radii(basis, known.pairs)
    return LCAOSystem(
        atoms,
        () if hamiltonian is None else (PairBlocks(known.pairs, basis, hamiltonian.values, spinor),),
        None if overlap is None else PairBlocks(known.pairs, basis, overlap.values),
        spin="spinor" if spinor else "none",
        fermi_level=None if fermi_level is None else float(fermi_level),
        provenance={"format": FORMAT.name, **({"predicted": True} if source == PREDICTION else {})},
    )


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
    if abs(np.linalg.det(cell)) < SMALLEST_CELL:
        raise FormatError(f"{folder / 'lat.dat'}: the lattice vectors are linearly dependent")
    numbers = _atomic_numbers(folder / "element.dat")
    positions = _numbers(folder / "site_positions.dat")
    if positions.shape == (1, 3) and len(numbers) == 1:
        positions = positions.T  # a single atom is also written as one line
    if positions.shape != (3, len(numbers)):
        raise FormatError(
            f"{folder / 'site_positions.dat'}: expected 3 x {len(numbers)} (atoms as columns), got {_by(positions)}"
        )
    return Atoms(numbers, positions.T, cell=cell.T, pbc=True)


def holds_blocks(folder: str | Path) -> bool:
    """Whether a structure folder has H or S, hence pairs, and not the atoms alone."""
    return any((Path(folder) / name).exists() for name in BLOCKS)


def write_deeph(system: LCAOSystem, folder: str | Path, *, predicted: bool = False) -> None:
    """Write a system as a structure folder; `read_deeph` gives the same numbers back.

    Electrons and valences have no place in this layout and are lost.

    Parameters
    ----------
    system : LCAOSystem
        A molecule too needs a box: three cell vectors.
    folder : str or Path
    predicted : bool
        H goes to hamiltonians_pred.h5, where DeepH's tools look for what a network said.

    Raises
    ------
    ValueError
        If the folder is there already and not empty, the spin is collinear, which the layout does not know, or the
        cell has less than three independent vectors.
    """
    folder = Path(folder)
    check_new_folder(folder, system.atoms)
    if system.spin == "collinear":
        raise ValueError(f"{folder}: DeepH's folders hold no collinear spin; only 'none' and 'spinor'")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write_text(system, temporary)
        if system.hamiltonian:
            _write_blocks(temporary / (PREDICTION if predicted else HAMILTONIAN), system.hamiltonian[0])
        if system.overlap is not None:
            _write_blocks(temporary / OVERLAP, system.overlap)
        temporary.chmod(0o755)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_new_folder(folder: str | Path, atoms: Atoms) -> None:
    """Raise the ValueError of `write_deeph` that place or structure will cause, before long work."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: already there; choose another name or remove it")
    if abs(np.linalg.det(atoms.cell.array)) < SMALLEST_CELL:
        raise ValueError(f"{folder}: DeepH's folders need three independent cell vectors; put the atoms into a box")


def _sniff(path: Path) -> bool:
    names = ("orbital_types.dat", "site_positions.dat", *BLOCKS)
    return path.is_dir() and any((path / name).is_file() for name in names)


FORMAT = Format(
    "deeph",
    "a folder with orbital_types.dat, lat.dat, hamiltonians.h5, ...",
    _sniff,
    read_deeph,
    read_deeph_atoms,
    holds_blocks,
    write_deeph,
)


# -- text files


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FormatError(f"{path}: is missing; a structure folder needs it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read as text ({error})") from error


def _numbers(path: Path) -> NDArray[np.float64]:
    """A table of numbers, always with two axes."""
    rows = [line.split() for line in _text(path).splitlines() if line.strip()]
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
    lines = [line.split() for line in _text(path).splitlines() if line.strip()]
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


def _json(path: Path) -> dict[str, Any]:
    try:
        entries = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise FormatError(f"{path}: not JSON ({error})") from None
    if not isinstance(entries, dict):
        raise FormatError(f"{path}: expected a JSON object, got {type(entries).__name__}")
    return entries


def _flag(path: Path, entries: Mapping[str, Any], name: str) -> bool:
    value = entries.get(name, False)
    if not isinstance(value, bool):
        raise FormatError(f"{path}: expected true or false for {name}, got {value!r}")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _by(table: NDArray) -> str:
    return " x ".join(map(str, table.shape))


# -- blocks


def _blocks(path: Path, atoms: Atoms, basis: Basis, *, spinor: bool) -> PairBlocks:
    """The blocks of one HDF5 file in our orbital order."""
    sizes = basis.sizes(atoms.numbers) * (2 if spinor else 1)
    try:
        with h5py.File(path) as file:
            keys = list(file)
            table = _parse_keys(path, keys, len(atoms))
            pairs, position = sorted_pairs(path, atoms, table)
            shapes = np.column_stack([sizes[table[:, 3]], sizes[table[:, 4]]])
            ends = np.concatenate([[0], np.cumsum(shapes.prod(axis=1))])
            values = np.empty(ends[-1], dtype=complex if spinor else float)
            for p, key in enumerate(keys):
                out = values[ends[p] : ends[p + 1]].reshape(shapes[p])
                _read_block(path, file, key, out, spinor, atoms.symbols[table[p, 3:]])
    except (OSError, RuntimeError) as error:
        raise FormatError(f"{path}: not a complete HDF5 file ({error})") from error
    return blocks_from_pairs(path, pairs, position, basis, values, "deeph", spinor=spinor)


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


def _read_block(path: Path, file: h5py.File, key: str, out: NDArray, spinor: bool, symbols: Symbols) -> None:
    """Read one dataset into its place; h5py's low-level calls take a third of the time of ``file[key][()]``."""
    try:
        dataset = h5py.h5d.open(file.id, key.encode())
    except (KeyError, ValueError) as error:
        raise FormatError(f"{path}: block {key}: not a readable dataset ({error})") from None
    if dataset.shape != out.shape:
        found = " x ".join(map(str, dataset.shape or ())) or "no table"
        expected = f"{_by(out)} for {'-'.join(symbols)}{', spinful' * spinor}"
        raise FormatError(
            f"{path}: block {key}: expected {expected}, got {found}; check orbital_types.dat and isspinful in info.json"
        )
    if dataset.dtype.kind not in ("fc" if spinor else "f"):
        raise FormatError(
            f"{path}: block {key}: expected {'complex' if spinor else 'real'} numbers, got {dataset.dtype}"
        )
    if dataset.dtype.kind == "f" and spinor:
        out[:] = file[key][()]
    else:
        dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, out)


# -- writing


def _write_text(system: LCAOSystem, folder: Path) -> None:
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


def _write_blocks(path: Path, blocks: PairBlocks) -> None:
    values = np.empty_like(blocks.values)
    for (a, b), rows, stack in blocks.groups():
        theirs = np.empty_like(stack)
        left, right = (_places(blocks.basis[z], blocks.spinor) for z in (a, b))
        theirs[:, left[:, None], right] = stack  # OpenMX's orbitals carry no signs
        values[blocks.index(rows)] = theirs
    ordered = blocks.with_values(values)
    with h5py.File(path, "w") as file:
        for p in range(len(blocks.pairs)):
            file.create_dataset(block_name(blocks.pairs, p), data=ordered.block(p))


def _places(atom: AtomBasis, spinor: bool) -> NDArray[np.int64]:
    """Where this layout puts each of our orbitals."""
    index, _ = orbital_order("deeph", atom.degrees)
    return np.concatenate([index, index + len(index)]) if spinor else index
