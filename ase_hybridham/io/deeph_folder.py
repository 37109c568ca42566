"""What DeepH's two layouts of a structure folder share: which file is read, and what is written where.

A folder holds the structure as text and one HDF5 file an operator: S, H of a DFT program, H of a network. The pairs
are those of S. `Layout` names what differs: file names, text files, how blocks lie in a file, orbital order.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_hybridham.errors import FormatError
from ase_hybridham.files import written_atomically
from ase_hybridham.io import text
from ase_hybridham.io.assemble import block_name, blocks_from_pairs, periodic_axes, sorted_pairs, with_fitted_radii
from ase_hybridham.io.atoms import has_volume
from ase_hybridham.system import AtomBasis, Basis, LCAOSystem, PairBlocks, SpinKind, orbital_order

__all__ = [
    "Head",
    "Layout",
    "StoredBlocks",
    "check_target",
    "holds_blocks",
    "json_flag",
    "json_number",
    "opened",
    "read_folder",
    "read_json",
    "read_text",
    "write_folder",
]

LARGEST = 1e300  # above it an integer is no float any more
SAME_PLACE = 1e-5  # angstrom; a structure file of another program may print fewer digits


@dataclass(frozen=True)
class Head:
    """What the text files of a folder tell.

    Parameters
    ----------
    atoms : ase.Atoms
    basis : Basis
        Shells in the order of the blocks.
    spinful : bool
        Whether blocks of H are (2 n_i, 2 n_j).
    fermi_level : float, optional
        eV.
    electrons : float, optional
    """

    atoms: Atoms
    basis: Basis
    spinful: bool = False
    fermi_level: float | None = None
    electrons: float | None = None


@dataclass(frozen=True)
class StoredBlocks:
    """The blocks of one HDF5 file, in any order, orbitals as the layout orders them.

    Parameters
    ----------
    table : array of int, shape (n_blocks, 5)
        R1, R2, R3, i, j, atoms from 0.
    shapes : array of int, shape (n_blocks, 2)
    values : array, shape (n_values,)
        The blocks, each row-major; eV or 1.
    """

    table: NDArray[np.int64]
    shapes: NDArray[np.int64]
    values: NDArray


@dataclass(frozen=True)
class Layout:
    """One of DeepH's layouts.

    Parameters
    ----------
    name : str
        Of the format.
    order : str
        A key of `system.orbitals.ORBITAL_ORDERS`, one without signs.
    hamiltonian, prediction, overlap : str
        File names.
    first : int
        Number of the first atom.
    read_head : callable
        The head of a folder.
    read_blocks : callable
        ``read_blocks(path, head, spinful)``: the blocks of a file, in the shapes that the head demands.
    write_head : callable
        ``write_head(system, folder)``: all text files.
    write_blocks : callable
        ``write_blocks(path, blocks)``.
    collinear : bool
        Whether collinear spin may be written.
    """

    name: str
    order: str
    hamiltonian: str
    prediction: str
    overlap: str
    first: int
    read_head: Callable[[Path], Head]
    read_blocks: Callable[[Path, Head, bool], StoredBlocks]
    write_head: Callable[[LCAOSystem, Path], None]
    write_blocks: Callable[[Path, StoredBlocks], None]
    collinear: bool = False

    @property
    def block_files(self) -> tuple[str, str, str]:
        """Names of the HDF5 files, H of a DFT program first."""
        return self.hamiltonian, self.prediction, self.overlap


def read_folder(folder: str | Path, layout: Layout) -> LCAOSystem:
    """The system of a structure folder; see `read_deeph` and `read_deeph_dock`."""
    folder = Path(folder)
    head = layout.read_head(folder)
    overlap = hamiltonian = None
    if (folder / layout.overlap).exists():
        overlap = _blocks(folder / layout.overlap, head, layout, spinful=False)
    source = next((name for name in (layout.hamiltonian, layout.prediction) if (folder / name).exists()), None)
    if source is not None:
        hamiltonian = _blocks(folder / source, head, layout, spinful=head.spinful)
    known = overlap or hamiltonian
    if known is None:
        names = f"{layout.hamiltonian} nor {layout.overlap} nor {layout.prediction}"
        raise FormatError(f"{folder}: neither {names} is there")
    if overlap is not None and hamiltonian is not None and not overlap.pairs.same_pairs(hamiltonian.pairs):
        lacking = np.flatnonzero(overlap.pairs.find(hamiltonian.pairs) < 0)
        if len(lacking):
            name = block_name(hamiltonian.pairs, int(lacking[0]), layout.first)
            raise FormatError(f"{folder / layout.overlap}: block {name} is missing, {source} has it")
        hamiltonian = hamiltonian.on_pairs(overlap.pairs)
    head.atoms.pbc = periodic_axes(known.pairs)
    basis = with_fitted_radii(head.basis, known.pairs)
    spin: SpinKind = "spinor" if head.spinful else "none"
    operators: tuple[PairBlocks, ...] = ()
    if hamiltonian is not None:
        spin, operators = _split_spin(PairBlocks(known.pairs, basis, hamiltonian.values, hamiltonian.spinor))
    return LCAOSystem(
        head.atoms,
        operators,
        None if overlap is None else PairBlocks(known.pairs, basis, overlap.values),
        spin=spin,
        fermi_level=head.fermi_level,
        electrons=head.electrons,
        provenance={"format": layout.name, **({"predicted": True} if source == layout.prediction else {})},
    )


def holds_blocks(folder: str | Path, layout: Layout) -> bool:
    """Whether a structure folder has H or S, hence pairs, and not the atoms alone."""
    return any((Path(folder) / name).exists() for name in layout.block_files)


def write_folder(system: LCAOSystem, folder: str | Path, layout: Layout, *, predicted: bool = False) -> None:
    """Write a system as a structure folder; see `write_deeph` and `write_deeph_dock`."""
    folder = Path(folder)
    if system.spin == "collinear" and not layout.collinear:
        raise ValueError(f"{folder}: DeepH's old folders hold no collinear spin; write the format deeph-dock")
    check_target(folder, system.atoms, layout, predicted=predicted)
    if predicted and _is_filled(folder):
        _add_prediction(system, folder, layout)
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        layout.write_head(system, temporary)
        if system.hamiltonian:
            name = layout.prediction if predicted else layout.hamiltonian
            layout.write_blocks(temporary / name, _stored(_joined_spin(system), layout))
        if system.overlap is not None:
            layout.write_blocks(temporary / layout.overlap, _stored(system.overlap, layout))
        temporary.chmod(0o755)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_target(folder: str | Path, atoms: Atoms, layout: Layout, *, predicted: bool) -> None:
    """Raise the ValueError of `write_folder` that place or structure will cause, before long work."""
    folder = Path(folder)
    if not has_volume(atoms.cell.array):
        raise ValueError(f"{folder}: DeepH's folders need three independent cell vectors; put the atoms into a box")
    if not _is_filled(folder):
        return
    names = ("info.json", *layout.block_files)
    if not (predicted and folder.is_dir() and any((folder / name).exists() for name in names)):
        raise ValueError(f"{folder}: already there; choose another name or remove it")
    if (folder / layout.prediction).exists():
        raise ValueError(f"{folder / layout.prediction}: already there; choose another name or remove it")
    there = layout.read_head(folder).atoms
    if not (
        np.array_equal(there.numbers, atoms.numbers)
        and np.allclose(there.cell.array, atoms.cell.array, rtol=0, atol=SAME_PLACE)
        and np.allclose(there.positions, atoms.positions, rtol=0, atol=SAME_PLACE)
    ):
        raise ValueError(f"{folder}: already there, with another structure; choose another name")


def _is_filled(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def _add_prediction(system: LCAOSystem, folder: Path, layout: Layout) -> None:
    """Put H beside the S of its structure, in the same order of pairs: DeepH's tools compare the lists."""
    head = layout.read_head(folder)
    if not system.hamiltonian:
        raise ValueError(f"{folder}: already there, and the system has no Hamiltonian to add")
    if not head.basis.same_orbitals(system.basis) or head.spinful != (system.spin != "none"):
        raise ValueError(f"{folder}: already there, with other orbitals or other spin; choose another name")
    hamiltonian, table = _joined_spin(system), None
    if (folder / layout.overlap).exists():
        table = layout.read_blocks(folder / layout.overlap, head, False).table
        pairs, _ = sorted_pairs(folder / layout.overlap, system.atoms, table, first=layout.first)
        lacking = np.flatnonzero(pairs.find(hamiltonian.pairs) < 0)
        if len(lacking):
            name = block_name(hamiltonian.pairs, int(lacking[0]), layout.first)
            raise ValueError(f"{folder / layout.overlap}: has no block {name}, as H does; choose another name")
        hamiltonian = hamiltonian.on_pairs(pairs)
    elif system.overlap is not None:
        with written_atomically(folder / layout.overlap) as temporary:
            layout.write_blocks(temporary, _stored(system.overlap, layout))
    with written_atomically(folder / layout.prediction) as temporary:
        layout.write_blocks(temporary, _stored(hamiltonian, layout, table))


# -- blocks


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file to read from; whatever HDF5 raises on damage is a FormatError that names the file."""
    try:
        with h5py.File(path) as file:
            yield file
    except FormatError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise FormatError(f"{path}: not a complete HDF5 file ({error})") from error


def _blocks(path: Path, head: Head, layout: Layout, *, spinful: bool) -> PairBlocks:
    """The blocks of one file in our order of pairs and orbitals; spinor blocks may be real."""
    stored = layout.read_blocks(path, head, spinful)
    pairs, position = sorted_pairs(path, head.atoms, stored.table, first=layout.first)
    return blocks_from_pairs(
        path, pairs, position, head.basis, [stored.values], layout.order, spinor=spinful, first=layout.first
    )[0]


def _split_spin(blocks: PairBlocks) -> tuple[SpinKind, tuple[PairBlocks, ...]]:
    """Real spinor blocks without up-down parts are two operators: so DeepH-dock writes collinear spin."""
    if not blocks.spinor:
        return "none", (blocks,)
    if np.iscomplexobj(blocks.values):
        return "spinor", (blocks,)
    up, down, mixed = {}, {}, False
    for elements, _, stack in blocks.groups():
        n_i, n_j = stack.shape[1] // 2, stack.shape[2] // 2
        up[elements], down[elements] = stack[:, :n_i, :n_j], stack[:, n_i:, n_j:]
        mixed |= bool(stack[:, :n_i, n_j:].any() or stack[:, n_i:, :n_j].any())
    if mixed:
        return "spinor", (blocks.with_values(blocks.values.astype(complex)),)
    return "collinear", tuple(PairBlocks.from_groups(blocks.pairs, blocks.basis, part) for part in (up, down))


def _joined_spin(system: LCAOSystem) -> PairBlocks:
    """H as one operator: the inverse of `_split_spin`."""
    if system.spin != "collinear":
        return system.hamiltonian[0]
    stacks = {}
    for (elements, _, up), (_, _, down) in zip(*(blocks.groups() for blocks in system.hamiltonian), strict=True):
        n_pairs, n_i, n_j = up.shape
        stacks[elements] = np.zeros((n_pairs, 2 * n_i, 2 * n_j), dtype=up.dtype)
        stacks[elements][:, :n_i, :n_j] = up
        stacks[elements][:, n_i:, n_j:] = down
    return PairBlocks.from_groups(system.pairs, system.basis, stacks, spinor=True)


def _stored(blocks: PairBlocks, layout: Layout, table: NDArray[np.int64] | None = None) -> StoredBlocks:
    """Blocks as the layout has them: its orbital order; the pairs in the order of `table` or as ours are."""
    values = np.empty_like(blocks.values)
    for (a, b), rows, stack in blocks.groups():
        left, right = (_places(blocks.basis[z], blocks.spinor, layout.order) for z in (a, b))
        theirs = np.empty_like(stack)
        theirs[:, left[:, None], right] = stack
        values[blocks.index(rows)] = theirs
    pairs = blocks.pairs
    ours = np.column_stack([pairs.shifts, pairs.i, pairs.j])
    shapes = np.column_stack([blocks.orbitals[pairs.i], blocks.orbitals[pairs.j]])
    if table is None:
        return StoredBlocks(ours, shapes, values)
    _, index = np.unique(np.concatenate([ours, table]), axis=0, return_inverse=True)
    row_of = np.empty(len(ours), dtype=np.int64)
    row_of[index.ravel()[: len(ours)]] = np.arange(len(ours))
    rows = row_of[index.ravel()[len(ours) :]]
    lengths = np.diff(blocks.offsets)[rows]
    ends = np.cumsum(lengths)
    source = np.arange(ends[-1]) + np.repeat(blocks.offsets[rows] - ends + lengths, lengths)
    return StoredBlocks(table, shapes[rows], values[source])


def _places(atom: AtomBasis, spinor: bool, order: str) -> NDArray[np.int64]:
    """Where a layout puts each of our orbitals."""
    index, _ = orbital_order(order, atom.degrees)
    return np.concatenate([index, index + len(index)]) if spinor else index


# -- text files


def read_text(path: Path) -> str:
    """The content of a text file that a folder must have.

    Raises
    ------
    FormatError
        If it is missing or no text.
    """
    return text.read_text(path, "a structure folder needs it")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object of a file.

    Raises
    ------
    FormatError
        If it is missing or no JSON object.
    """
    try:
        entries = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not JSON ({error})") from None
    if not isinstance(entries, dict):
        raise FormatError(f"{path}: expected a JSON object, got {type(entries).__name__}")
    return entries


def json_flag(path: Path, entries: Mapping[str, Any], name: str) -> bool:
    """A boolean entry, false where it is missing."""
    value = entries.get(name, False)
    if not isinstance(value, bool):
        raise FormatError(f"{path}: expected true or false for {name}, got {value!r}")
    return value


def json_number(path: Path, entries: Mapping[str, Any], name: str, unit: str = "") -> float | None:
    """A finite number, None where it is missing or null."""
    value = entries.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < LARGEST:
        raise FormatError(f"{path}: expected {name}{unit and f' in {unit}'}, got {value!r}")
    return float(value)
