"""FHI-aims folders with real-space matrices, as `output_rs_matrices plain` writes them.

rs_indices.out tells where the elements of rs_overlap.out and rs_hamiltonian.out (with spin
rs_hamiltonian_up.out and _dn.out) belong: <row, cell R | M | column, cell 0>, column <= row, in hartree.
R is the cell of the row. basis-indices.out lists the orbitals, geometry.in the atoms. The basis holds the
core, so an atom has as many valence electrons as its nucleus has charge. Second-variational spin-orbit
coupling is not in these matrices.

aims moves atoms into the cell around the origin, to fractions in [-1/2, 1/2], and R refers to them there,
not to geometry.in: S of MoS2 is covariant to 4e-5 with the moved atoms, to 0.3 with those of the file.
The hartree is aims's own, 27.2113845 eV.
"""

import re
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.sparse import coo_array

from ase_hybridham.errors import FormatError
from ase_hybridham.io.assemble import system_from_sparse
from ase_hybridham.io.atoms import checked_atoms, element_of, has_volume
from ase_hybridham.io.format import Format
from ase_hybridham.io.text import numbers_in, read_text
from ase_hybridham.system import AtomBasis, Basis, LCAOSystem, Shell

__all__ = ["FORMAT", "read_fhi_aims"]

HARTREE = 27.2113845  # eV
INDICES, OVERLAP, BASIS, GEOMETRY = "rs_indices.out", "rs_overlap.out", "basis-indices.out", "geometry.in"
HAMILTONIAN, UP, DOWN = "rs_hamiltonian.out", "rs_hamiltonian_up.out", "rs_hamiltonian_dn.out"
SWITCH = "run aims with output_rs_matrices plain"
LARGEST_L = 6


def read_fhi_aims(folder: str | Path) -> LCAOSystem:
    """The system of one folder, without spin or collinear; periodic calculations only.

    The files tell no Fermi level. S alone is a system without H. The radii are the smallest that allow all pairs.

    Raises
    ------
    FormatError
        If a file is missing, broken or contradicts another.
    """
    folder = Path(folder)
    atoms = _atoms(folder / GEOMETRY)
    basis = _basis(folder / BASIS, atoms)
    sizes = basis.sizes(atoms.numbers)
    shifts, rows, columns = _indices(folder / INDICES, int(sizes.sum()))
    both = [name for name in (UP, DOWN) if (folder / name).is_file()]
    names = [HAMILTONIAN] if (folder / HAMILTONIAN).is_file() else [UP, DOWN] if both else []

    def matrices(name: str) -> dict[tuple[int, int, int], coo_array]:
        return _matrices(shifts, rows, columns, _values(folder / name, len(rows)), int(sizes.sum()))

    return system_from_sparse(
        folder,
        atoms,
        basis,
        [matrices(name) for name in names],
        matrices(OVERLAP),
        "fhi-aims",
        energy_unit=HARTREE,
        electrons=basis.electrons(atoms.numbers),
        provenance={"format": FORMAT.name},
    )


FORMAT = Format(
    "fhi-aims",
    "a folder of FHI-aims with rs_indices.out, rs_overlap.out, rs_hamiltonian.out, basis-indices.out, geometry.in",
    lambda path: path.is_dir() and (path / INDICES).is_file(),
    read_fhi_aims,
)


def _atoms(path: Path) -> Atoms:
    lines = [line.split("#")[0].split() for line in read_text(path, SWITCH).splitlines()]
    lines = [line for line in lines if line]
    try:
        cell = np.array([line[1:4] for line in lines if line[0] == "lattice_vector"], dtype=float)
        places = [(line[0], line[1:4], line[4]) for line in lines if line[0] in ("atom", "atom_frac")]
        given = np.array([place for _, place, _ in places], dtype=float).reshape(-1, 3)
    except (ValueError, IndexError):
        raise FormatError(f"{path}: expected lattice_vector x y z, and atom or atom_frac x y z element") from None
    if any(line[0] == "empty" for line in lines):
        raise FormatError(f"{path}: empty sites, orbitals without an atom, are not read")
    if cell.shape != (3, 3) or not has_volume(cell) or not places or not np.isfinite(given).all():
        raise FormatError(
            f"{path}: expected three independent lattice vectors and atoms, got {len(cell)} and {len(places)}"
        )
    fractional = np.array([kind == "atom_frac" for kind, _, _ in places])
    scaled = np.where(fractional[:, None], given, given @ np.linalg.inv(cell))
    scaled -= np.round(scaled)  # a fraction of 1/2 stays, within rounding, on the side where it was
    return checked_atoms(path, [element_of(path, label) for _, _, label in places], scaled @ cell, cell)


def _basis(path: Path, atoms: Atoms) -> Basis:
    """The shells of each element: lines ``number type atom n l m``, m = -l to l of one shell together."""
    lines = [line.split() for line in read_text(path, SWITCH).splitlines() if line.strip()][1:]
    try:
        table = [(line[1], int(line[2]), int(line[3]), int(line[4]), int(line[5])) for line in lines]
        numbered = [int(line[0]) for line in lines] == list(range(1, len(lines) + 1))
    except (ValueError, IndexError):
        raise FormatError(f"{path}: expected lines with number, type, atom, n, l, m") from None
    shells: list[list[Shell]] = [[] for _ in range(len(atoms))]
    at, last = 0, 0
    while at < len(table):
        kind, atom, n, l, _ = table[at]
        if not (numbered and 0 <= l <= LARGEST_L and max(last, 1) <= atom <= len(atoms)):
            raise FormatError(
                f"{path}: orbital {at + 1}: expected atoms 1 to {len(atoms)} in order, l up to {LARGEST_L}"
            )
        if table[at : at + 2 * l + 1] != [(kind, atom, n, l, m) for m in range(-l, l + 1)]:
            raise FormatError(f"{path}: orbital {at + 1}: expected a whole shell, m = {-l} to {l}")
        shells[atom - 1].append(Shell(l, f"{n}{'spdfghi'[l]} {kind}"))
        at, last = at + 2 * l + 1, atom
    found: dict[int, AtomBasis] = {}
    for number, (symbol, own) in enumerate(zip(atoms.symbols, shells, strict=True)):
        if not own:
            raise FormatError(f"{path}: atom {number + 1} ({symbol}) has no orbitals")
        z = int(atoms.numbers[number])
        if found.setdefault(z, AtomBasis(symbol, tuple(own), float(z))).shells != tuple(own):
            raise FormatError(
                f"{path}: atom {number + 1}: other orbitals than an earlier {symbol}; one basis an element"
            )
    return Basis.of(*(found[z] for z in sorted(found)), name="FHI-aims")


def _indices(path: Path, n_orbitals: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """R, row and column of every element that the matrix files hold."""
    text = read_text(path, SWITCH)
    counts = re.match(
        r"\s*n_hamiltonian_matrix_size:\s*(\d{1,12})\s*\n\s*n_cells_in_hamiltonian:\s*(\d{1,9})\s*\n\s*n_basis:\s*(\d{1,9})\s*\n",
        text,
    )
    parts = re.split(
        r"cell_index\n|index_hamiltonian\(1,:,:\)\n|index_hamiltonian\(2,:,:\)\n|column_index_hamiltonian\n", text
    )
    if counts is None or len(parts) != 5:
        raise FormatError(f"{path}: expected sizes, cell_index, index_hamiltonian (1 and 2), column_index_hamiltonian")
    size, n_cells, n_basis = map(int, counts.groups())
    if n_basis != n_orbitals:
        raise FormatError(f"{path}: expected {n_orbitals} orbitals as in {BASIS}, got {n_basis}")
    try:
        numbers = [np.array(part.split(), dtype=np.int64) for part in parts[1:]]
    except (ValueError, OverflowError):
        raise FormatError(f"{path}: expected whole numbers after each heading") from None
    expected = [3 * n_cells, n_cells * n_basis, n_cells * n_basis, size]
    if [len(part) for part in numbers] != expected or n_cells < 2:
        raise FormatError(f"{path}: expected {expected} numbers under the headings, got {[len(p) for p in numbers]}")
    # the last cell and the last column are padding
    cells = numbers[0].reshape(-1, 3)[:-1]
    first, last = (part.reshape(n_cells, n_basis)[:-1].ravel() for part in numbers[1:3])
    columns = numbers[3][:-1] - 1
    counts_of = np.where(last >= first, last - first + 1, 0)
    counts_of[first <= 0] = 0
    if counts_of.sum() != len(columns) or (columns < 0).any() or (columns >= n_basis).any():
        raise FormatError(
            f"{path}: its ranges hold {counts_of.sum()} elements, expected {len(columns)} with columns to {n_basis}"
        )
    used = np.flatnonzero(counts_of)
    used = used[np.argsort(first[used], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(counts_of[used])[:-1]])
    if (first[used] - 1 != starts).any() or len(np.unique(cells, axis=0)) != len(cells):
        raise FormatError(f"{path}: expected ranges that follow each other, and every cell once")
    owner = np.repeat(used, counts_of[used])
    rows = owner % n_basis
    if (columns > rows).any():
        raise FormatError(f"{path}: expected one triangle, columns up to their row")
    return cells[owner // n_basis], rows, columns


def _values(path: Path, count: int) -> NDArray[np.float64]:
    values = numbers_in(path, read_text(path, SWITCH))
    # like the columns, the values end with one that belongs nowhere
    if len(values) not in (count, count + 1):
        raise FormatError(f"{path}: expected {count} elements as in {INDICES}, got {len(values)}")
    if not np.isfinite(values).all():
        raise FormatError(f"{path}: expected finite numbers, got inf or nan")
    return values[:count]


def _matrices(
    shifts: NDArray, rows: NDArray, columns: NDArray, values: NDArray, size: int
) -> dict[tuple[int, int, int], coo_array]:
    """R -> full matrix: below the diagonal every element stands for itself and its partner at -R."""
    below = rows > columns
    places = np.concatenate([shifts, -shifts[below]])
    i, j = np.concatenate([columns, rows[below]]), np.concatenate([rows, columns[below]])
    elements = np.concatenate([values, values[below]])
    cells, index = np.unique(places, axis=0, return_inverse=True)
    order = np.argsort(index.ravel(), kind="stable")
    ends = np.searchsorted(index.ravel()[order], np.arange(len(cells) + 1))
    out = {}
    for n, cell in enumerate(cells.tolist()):
        chosen = order[ends[n] : ends[n + 1]]
        out[cell[0], cell[1], cell[2]] = coo_array((elements[chosen], (i[chosen], j[chosen])), shape=(size, size))
    return out
