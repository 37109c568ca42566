"""SIESTA's binary files with H and S: <label>.HSX (versions 1 and 2) and TranSIESTA's <label>.TSHS.

Fortran records in rydberg and bohr. A row holds the elements of one orbital io of the cell with
orbitals (jo, R). It is the column of our matrices: the element is <jo, R | H | io, 0>, as files of
magnetic runs with spin-orbit coupling show (their printed levels; without it, both are the same).
The up to eight components are, counted from 1: up-up 1 + i 5, down-down 2 + i 6, up-down 3 - i 4,
down-up 7 + i 8; without spin-orbit coupling there are four, and down-up is 3 + i 4.

.HSX holds the structure and the shells. Of .TSHS the shells and elements stand in <label>.ORB_INDX.
Energies are absolute. Units are those of SIESTA 5 (CODATA 2018); version 4, whose rydberg was
13.60580 eV, prints energies larger by 8e-6 of themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray
from scipy.sparse import coo_array

from ase_hybridham.errors import FormatError
from ase_hybridham.io.assemble import Orbitals, system_from_sparse
from ase_hybridham.io.atoms import checked_atoms, element_of
from ase_hybridham.io.format import Format
from ase_hybridham.io.fortran import Records
from ase_hybridham.io.siesta_orbitals import BOHR, Species, read_orbital_table, whole_shells
from ase_hybridham.system import AtomBasis, Basis, LCAOSystem, PairList, Shell

__all__ = ["FORMAT", "read_siesta"]

RYDBERG = 13.605693122994  # eV
# Orbitals are normalized: an on-site S that is not 1 holds images of the atom. On the radial grids: found 1e-7.
NORMALIZED = 1e-4
NO_LEVEL = 1e30  # rydberg; SIESTA writes the largest number where it computed none


def read_siesta(path: str | Path) -> LCAOSystem:
    """The system of one .HSX or .TSHS file; without spin, collinear, non-collinear, with spin-orbit coupling.

    The radii are the smallest that allow all pairs: among these are pairs that only H has, by its projectors.
    <label>.ORB_INDX beside an .HSX is used, where it exists, to notice a folded matrix.

    Raises
    ------
    FormatError
        If the file is damaged, of .HSX version 0 (SIESTA 4 and older), holds no H, or was folded: a run at Gamma alone
        adds the elements of all R, unless it is told ``ForceAuxCell T``.
    """
    path = Path(path)
    content = _read_tshs(path) if path.suffix.upper() == ".TSHS" else _read_hsx(path)
    species, atoms = content.species, content.atoms
    basis = _basis(path, content)
    sizes = basis.sizes(atoms.numbers)
    if int(sizes.sum()) != content.n_orbitals:
        raise FormatError(f"{path}: expected {int(sizes.sum())} orbitals for its atoms, got {content.n_orbitals}")
    if len(np.unique(content.shifts, axis=0)) != len(content.shifts):
        raise FormatError(f"{path}: a cell stands twice among the {len(content.shifts)} of its orbitals")
    _refuse_folded(path, content, [species[n].radius for n in content.kind])
    spinor = len(content.hamiltonian) > 2
    overlap = _matrices(content, content.overlap)
    if spinor:
        operators = [_matrices(content, *_spinor_components(content.hamiltonian))]
    else:
        operators = [_matrices(content, component) for component in content.hamiltonian]
    rows = Orbitals.in_order(sizes)
    both = Orbitals(np.tile(rows.atom, 2), np.concatenate([rows.place, rows.place + sizes[rows.atom]]))
    return system_from_sparse(
        path,
        atoms,
        basis,
        operators,
        overlap,
        "siesta",
        energy_unit=RYDBERG,
        orbitals=both if spinor else rows,
        spinor=spinor,
        fermi_level=content.fermi_level,
        electrons=content.electrons,
        provenance={"format": FORMAT.name, **({"k_mesh": content.k_mesh} if content.k_mesh else {})},
    )


def _sniff(path: Path) -> bool:
    return path.is_file() and path.suffix.upper() in (".HSX", ".TSHS")


def _is_second(path: Path) -> bool:
    return path.suffix.upper() == ".TSHS" and path.with_suffix(".HSX").is_file()  # TranSIESTA leaves both


FORMAT = Format(
    "siesta",
    "SIESTA's <label>.HSX, or <label>.TSHS with <label>.ORB_INDX beside it",
    _sniff,
    read_siesta,
    is_second=_is_second,
)


@dataclass
class _Content:
    """What a file holds: one entry of `row`, `column`, `cell` (a row of `shifts`) and the components an element."""

    atoms: Atoms
    kind: NDArray[np.int64]
    species: list[Species]
    n_orbitals: int
    n_cells: tuple[int, int, int]
    shifts: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    cell: NDArray[np.int64]
    overlap: NDArray[np.float64]
    hamiltonian: list[NDArray[np.float64]]
    fermi_level: float | None
    electrons: float | None
    k_mesh: list[list[int]] = field(default_factory=list)


# -- .HSX


def _read_hsx(path: Path) -> _Content:
    records = Records(path, (4, 16))
    first = records.array("version", "i4")
    if len(first) == 4:
        raise FormatError(f"{path}: HSX of version 0 (SIESTA 4 and older) holds no structure; run SIESTA 5")
    if first[0] not in (1, 2):
        raise FormatError(f"{path}: expected an HSX of version 1 or 2, got {first[0]}")
    kind = "f8" if records.array("precision", "i4", 1)[0] else "f4"
    n_atoms, n_orbitals, n_spins, n_species, *nsc = map(int, records.array("sizes", "i4", 7))
    _check_sizes(path, n_atoms, n_orbitals, n_spins, nsc)
    scalars = records.array("cell", "f8", 12)
    n_cells = prod(nsc)
    geometry = records.next("atoms", 12 * n_cells + 24 * n_atoms + 4 * n_atoms + 4 * n_atoms)
    integers, floats = f"{records.order}i4", f"{records.order}f8"
    shifts = np.frombuffer(geometry, integers, 3 * n_cells).reshape(-1, 3)
    positions = np.frombuffer(geometry, floats, 3 * n_atoms, 12 * n_cells).reshape(-1, 3)
    kinds = np.frombuffer(geometry, integers, n_atoms, 12 * n_cells + 24 * n_atoms).astype(np.int64) - 1
    if not 0 < n_species <= n_atoms or kinds.min() < 0 or kinds.max() >= n_species:
        raise FormatError(f"{path}: expected atoms of the species 1 to {n_species}")
    table = np.frombuffer(
        records.next("species", 32 * n_species), np.dtype([("label", "S20"), ("valence", floats), ("size", integers)])
    )
    species = []
    for entry in table:
        numbers = records.array("shells", "i4").reshape(-1, 3) if entry["size"] > 0 else np.empty((0, 3), np.int32)
        label = entry["label"].decode("ascii", "replace").strip()
        species.append(Species(label, whole_shells(path, label, numbers), float(entry["valence"])))
    mesh = []
    if first[0] == 2:
        mesh = np.frombuffer(records.next("k mesh", 36 + 24), integers, 9).reshape(3, 3).tolist()
    row, column, cell, counts = _pattern(records, n_orbitals, n_cells)
    hamiltonian = [records.rows("H", kind, counts).astype(float) for _ in range(n_spins)]
    overlap = records.rows("S", kind, counts).astype(float)
    return _Content(
        _atoms(path, scalars[:9], positions, [species[n].label for n in kinds]),
        kinds,
        _with_radii(path.with_suffix(".ORB_INDX"), species),
        n_orbitals,
        (nsc[0], nsc[1], nsc[2]),
        shifts.astype(np.int64),
        row,
        column,
        cell,
        overlap,
        hamiltonian,
        *_level(path, scalars[9], scalars[10]),
        k_mesh=mesh,
    )


def _with_radii(table: Path, species: list[Species]) -> list[Species]:
    """Species of an .HSX with the radii of the table beside it, if there is one that fits."""
    try:
        _, known = read_orbital_table(table)
    except FormatError:
        return species
    radius = {(s.label, tuple(s.shells)): s.radius for s in known}
    for one in species:
        one.radius = radius.get((one.label, tuple(one.shells)))
    return species


# -- .TSHS


def _read_tshs(path: Path) -> _Content:
    records = Records(path, (4, 20))
    first = records.array("version", "i4")
    if len(first) != 1 or first[0] != 1:
        raise FormatError(f"{path}: expected a TSHS of version 1, got an older or unknown one; run SIESTA 5")
    n_atoms, n_orbitals, n_all, n_spins, n_elements = map(int, records.array("sizes", "i4", 5))
    nsc = list(map(int, records.array("cells", "i4", 3)))
    _check_sizes(path, n_atoms, n_orbitals, n_spins, nsc)
    n_cells = prod(nsc)
    if n_all != n_cells * n_orbitals:
        raise FormatError(f"{path}: expected {n_orbitals} orbitals in {n_cells} cells, got {n_all}")
    geometry = records.array("cell", "f8", 9 + 3 * n_atoms)
    gamma, _, only_s = records.array("flags", "i4", 3)
    if only_s:
        raise FormatError(f"{path}: holds S only, of a run with TS.onlyS; run SIESTA with TS.HS.Save")
    mesh = np.frombuffer(records.next("k mesh", 36 + 24), f"{records.order}i4", 9).reshape(3, 3).tolist()
    scalars = records.array("Fermi level", "f8", 3)
    records.next("step", 8)
    last = records.array("orbitals of atoms", "i4", n_atoms + 1)
    row, column, cell, counts = _pattern(records, n_orbitals, n_cells)
    if n_elements != len(row):
        raise FormatError(f"{path}: expected {n_elements} elements, got rows with {len(row)}")
    overlap = records.rows("S", "f8", counts)
    hamiltonian = [records.rows("H", "f8", counts) for _ in range(n_spins)]
    shifts = np.zeros((1, 3)) if gamma else records.array("shifts", "i4", 3 * n_cells).reshape(-1, 3)
    table = path.with_suffix(".ORB_INDX")
    if not table.is_file():
        raise FormatError(f"{table}: is missing; a TSHS tells neither elements nor shells")
    kinds, species = read_orbital_table(table)
    if len(kinds) != n_atoms or last[-1] != n_orbitals:
        raise FormatError(f"{path}: {n_atoms} atoms with {n_orbitals} orbitals, other than {table} says")
    return _Content(
        _atoms(path, geometry[:9], geometry[9:].reshape(-1, 3), [species[n].label for n in kinds]),
        kinds,
        species,
        n_orbitals,
        (nsc[0], nsc[1], nsc[2]),
        shifts.astype(np.int64),
        row,
        column,
        cell,
        overlap,
        hamiltonian,
        *_level(path, scalars[0], scalars[1]),
        k_mesh=mesh,
    )


# -- what both share


def _check_sizes(path: Path, n_atoms: int, n_orbitals: int, n_spins: int, nsc: Sequence[int]) -> None:
    if n_atoms < 1 or n_orbitals < n_atoms or min(nsc) < 1 or n_spins not in (1, 2, 4, 8):
        raise FormatError(
            f"{path}: expected atoms, at least as many orbitals, cells, and 1, 2, 4 or 8 spin components; got "
            f"{n_atoms}, {n_orbitals}, {list(nsc)} and {n_spins}"
        )


def _atoms(path: Path, cell: NDArray, positions: NDArray, labels: list[str]) -> Atoms:
    elements = [element_of(path, label) for label in labels]
    with np.errstate(over="ignore"):
        return checked_atoms(path, elements, BOHR * positions, BOHR * cell.reshape(3, 3))


def _level(path: Path, fermi_level: float, electrons: float) -> tuple[float | None, float | None]:
    if np.isnan(fermi_level) or not np.isfinite(electrons):
        raise FormatError(f"{path}: expected a Fermi level and electrons, got {fermi_level} and {electrons}")
    level = RYDBERG * float(fermi_level) if abs(fermi_level) < NO_LEVEL else None
    return level, float(electrons) if electrons > 0 else None


def _pattern(
    records: Records, n_orbitals: int, n_cells: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Row, column and cell of every element, and the elements of each row."""
    counts = records.array("elements of rows", "i4", n_orbitals).astype(np.int64)
    if counts.min() < 0:
        raise FormatError(f"{records.path}: expected the elements of each row, got {counts.min()}")
    columns = records.rows("columns", "i4", counts).astype(np.int64) - 1
    if len(columns) == 0 or columns.min() < 0 or columns.max() >= n_orbitals * n_cells:
        raise FormatError(f"{records.path}: expected columns 1 to {n_orbitals * n_cells}")
    return np.repeat(np.arange(n_orbitals), counts), columns % n_orbitals, columns // n_orbitals, counts


def _basis(path: Path, content: _Content) -> Basis:
    found: dict[str, AtomBasis] = {}
    for number in sorted(set(content.kind.tolist())):
        species = content.species[number]
        symbol = element_of(path, species.label)
        if species.valence == 0:
            raise FormatError(
                f"{path}: species {species.label!r} are ghosts, orbitals without an atom; they are not read"
            )
        shells = tuple(Shell(l, f"{n}{'spdfghi'[l]}{zeta}") for n, l, zeta in species.shells)
        atom = AtomBasis(symbol, shells, species.valence)
        known = found.setdefault(symbol, atom)
        if (known.degrees, known.valence) != (atom.degrees, atom.valence):
            raise FormatError(f"{path}: two species of {symbol} with different orbitals or valences")
    return Basis.of(*(found[s] for s in sorted(found, key=lambda s: atomic_numbers[s])), name="SIESTA")


def _matrices(content: _Content, *components: NDArray) -> dict[tuple[int, int, int], coo_array]:
    """R -> matrix of one component, or of four of spin: up-up, up-down, down-up, down-down."""
    n, n_spins = content.n_orbitals, 2 if len(components) == 4 else 1
    order = np.argsort(content.cell, kind="stable")
    ends = np.searchsorted(content.cell[order], np.arange(len(content.shifts) + 1))
    out = {}
    for index, shift in enumerate(content.shifts.tolist()):
        chosen = order[ends[index] : ends[index + 1]]
        if not len(chosen):
            continue
        row, column = content.column[chosen], content.row[chosen]  # a row of the file is a column of ours
        rows = np.concatenate([row + n * s for s in range(n_spins) for _ in range(n_spins)])
        columns = np.concatenate([column + n * t for _ in range(n_spins) for t in range(n_spins)])
        values = np.concatenate([component[chosen] for component in components])
        out[-shift[0], -shift[1], -shift[2]] = coo_array((values, (rows, columns)), shape=(n * n_spins, n * n_spins))
    return out


def _spinor_components(parts: Sequence[NDArray]) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Up-up, up-down, down-up, down-down of four or eight real components."""
    if len(parts) == 4:
        up, down, real, imaginary = parts
        return up + 0j, real - 1j * imaginary, real + 1j * imaginary, down + 0j
    a, b, c, d, e, f, g, h = parts
    return a + 1j * e, c - 1j * d, g + 1j * h, b + 1j * f


def _refuse_folded(path: Path, content: _Content, radii: Sequence[float | None]) -> None:
    """An axis with one cell must have no image in reach: H and S of all R would have been added up."""
    axes = np.array(content.n_cells) == 1
    if not axes.any():
        return
    home = content.row == content.column
    self_overlap = np.zeros(content.n_orbitals)
    np.add.at(self_overlap, content.row[home & (content.cell == 0)], content.overlap[home & (content.cell == 0)])
    folded = bool((np.abs(self_overlap - 1) > NORMALIZED).any())
    if not folded and None not in radii:
        atoms = content.atoms.copy()
        atoms.pbc = axes
        reach = {
            int(z): max(r or 0.0 for r, m in zip(radii, atoms.numbers, strict=True) if m == z) for z in atoms.numbers
        }
        folded = bool(PairList.from_atoms(atoms, reach).shifts.any())
    if folded:
        raise FormatError(
            f"{path}: the matrix is folded, orbitals reach their images along an axis with one cell; run SIESTA again "
            "with ForceAuxCell T, or with k-points"
        )
