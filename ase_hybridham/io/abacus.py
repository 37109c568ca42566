"""Output folders of ABACUS (`OUT.<suffix>`) with sparse H(R) and S(R), as `out_mat_hs2 1` writes them.

Up to 3.10: data-HR-sparse_SPIN0.csr, data-SR-sparse_SPIN0.csr; from 3.9.0.25 on also hrs1_nao.csr,
srs1_nao.csr. Both hold one matrix in compressed rows for every R, <row, cell 0 | M | column, cell R>,
H in rydberg, all R and both triangles. The structure and the shells stand in the log beside them.

Energies use ABACUS's own rydberg, 13.605698 eV (its constants.h; the Fermi level is printed in both
units). Lengths are in bohr there and use ase's; the log prints lattice vectors with six digits.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.units import Bohr
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ase_hybridham.errors import FormatError
from ase_hybridham.io.assemble import Orbitals, system_from_sparse
from ase_hybridham.io.atoms import checked_atoms, element_of
from ase_hybridham.io.format import Format
from ase_hybridham.io.text import numbers_in, read_text
from ase_hybridham.system import AtomBasis, Basis, LCAOSystem

__all__ = ["FORMAT", "read_abacus"]

RYDBERG = 13.605698  # eV, ABACUS's
# of each kind the newer name first; spin up, spin down
HAMILTONIANS = (("hrs1_nao.csr", "data-HR-sparse_SPIN0.csr"), ("hrs2_nao.csr", "data-HR-sparse_SPIN1.csr"))
OVERLAPS = ("srs1_nao.csr", "sr_nao.csr", "data-SR-sparse_SPIN0.csr", "SR.csr")
LOGS = ("running_scf.log", "running_nscf.log", "running_get_s.log", "running_get_S.log")
SPIN_FREE = 1e-7  # S of spinors must be 1 x S: files print 6 to 9 digits
NUMBER = r"([-+]?\d[\d.]*(?:[eE][-+]?\d+)?)"

Matrices = dict[tuple[int, int, int], csr_array]


def read_abacus(folder: str | Path) -> LCAOSystem:
    """The system of one output folder; single-point runs, nspin 1, 2 and 4.

    S alone (`calculation get_s`) is a system without H. Electrons, valences and the Fermi level are those of the log;
    with a fixed moment (two Fermi levels) the level stays unknown. The radii are the smallest that allow all pairs of
    the files, among which are pairs that only H has, by its non-local projectors.

    Raises
    ------
    FormatError
        If a file is missing, broken or contradicts another, or a file holds several steps of a relaxation.
    """
    folder = Path(folder)
    log = _read_log(folder)
    basis, atoms = log.basis, log.atoms
    n_orbitals = int(basis.sizes(atoms.numbers).sum())
    overlap_path = _first(folder, OVERLAPS)
    if overlap_path is None:
        raise FormatError(f"{folder}: expected {OVERLAPS[0]} or {OVERLAPS[2]} beside H; run with out_mat_hs2 1")
    overlap, spinor = _read_csr(overlap_path, n_orbitals)
    paths = [path for path in (_first(folder, names) for names in HAMILTONIANS) if path is not None]
    if log.n_spins == 2 and len(paths) == 1:
        raise FormatError(f"{folder}: expected H of both spins (nspin 2), got {paths[0].name} alone")
    hamiltonians = []
    for path in paths:
        matrices, is_complex = _read_csr(path, n_orbitals)
        if is_complex != spinor or (spinor and len(paths) == 2):
            raise FormatError(f"{path}: H and {overlap_path.name} are not of one nspin; remove what an old run left")
        hamiltonians.append(matrices)
    if spinor:
        overlap = {shift: _without_spin(overlap_path, matrix) for shift, matrix in overlap.items()}
    rows = Orbitals.in_order(basis.sizes(atoms.numbers))
    return system_from_sparse(
        folder,
        atoms,
        basis,
        hamiltonians,
        overlap,
        "abacus",
        energy_unit=RYDBERG,
        orbitals=_spin_fast(rows) if spinor else rows,
        spinor=spinor,
        fermi_level=log.fermi_level,
        electrons=log.electrons,
        provenance={"format": FORMAT.name, **log.provenance},
    )


def _sniff(path: Path) -> bool:
    return path.is_dir() and _first(path, (*HAMILTONIANS[0], *OVERLAPS[:3])) is not None


FORMAT = Format(
    "abacus",
    "an ABACUS folder OUT.<suffix> with data-HR-sparse_SPIN0.csr or hrs1_nao.csr, the S beside it and running_scf.log",
    _sniff,
    read_abacus,
)


def _first(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


# -- the log


@dataclass(frozen=True)
class _Log:
    """What a log tells of a run."""

    atoms: Atoms
    basis: Basis
    n_spins: int | None
    fermi_level: float | None
    electrons: float | None
    provenance: dict[str, str]


def _read_log(folder: Path) -> _Log:
    path = _first(folder, LOGS)
    if path is None:
        raise FormatError(f"{folder}: {LOGS[0]} is missing; the structure and the shells are read from it")
    text = read_text(path)
    kinds = re.split(r"^\s*READING ATOM TYPE\s+\d+\s*$", text, flags=re.MULTILINE)[1:]
    if not kinds:
        raise FormatError(f"{path}: expected READING ATOM TYPE 1, found none; is it the log of a run with LCAO?")
    labels, counts, shells = zip(*(_kind(path, n, kind) for n, kind in enumerate(kinds)), strict=True)
    symbols = [element_of(path, label) for label in labels]
    valences = dict(re.findall(rf"^\s*electron number of element (\S+)\s*=\s*{NUMBER}\s*$", text, flags=re.MULTILINE))
    if valences and set(valences) != set(labels):
        raise FormatError(
            f"{path}: expected electron numbers of {', '.join(labels)}, got them of {', '.join(valences)}"
        )
    elements: dict[str, AtomBasis] = {}
    for label, symbol, degrees in zip(labels, symbols, shells, strict=True):
        valence = float(valences[label]) if label in valences else None
        atom = AtomBasis.from_degrees(symbol, degrees, valence)
        known = elements.setdefault(symbol, atom)
        if (known.degrees, known.valence) != (atom.degrees, atom.valence):
            raise FormatError(f"{path}: two types of {symbol} with different orbitals or pseudopotentials")
    atoms = _atoms(path, text, [label for label, n in zip(labels, counts, strict=True) for _ in range(n)])
    basis = Basis.of(*(elements[s] for s in sorted(elements, key=lambda s: atomic_numbers[s])), name="ABACUS")
    levels = re.findall(rf"\bEFERMI\s*=\s*{NUMBER}\s*eV", text) or [
        level for _, level in re.findall(rf"^\s*E_Fermi\s+{NUMBER}\s+{NUMBER}", text, flags=re.MULTILINE)
    ]
    spins, electrons = _last(r"^\s*nspin\s*=\s*(\d)\s*$", text), _last(rf"number of electrons:?\s*=\s*{NUMBER}", text)
    return _Log(
        atoms,
        basis,
        None if spins is None else int(spins),
        float(levels[-1]) if levels else None,
        None if electrons is None else float(electrons),
        {
            name: value
            for name, value in (
                ("version", _last(r"\bABACUS (v\d\S*)", text)),
                ("functional", _last(r"exchange-correlation functional\s*=\s*(\S+)", text)),
            )
            if value is not None
        },
    )


def _last(pattern: str, text: str) -> str | None:
    found = re.findall(pattern, text, flags=re.MULTILINE | re.IGNORECASE)
    return found[-1] if found else None


def _kind(path: Path, number: int, text: str) -> tuple[str, int, list[int]]:
    """Label, number of atoms and l of every shell of one atom type."""
    label = re.search(r"atom label\s*=\s*(\S+)", text, flags=re.IGNORECASE)
    zetas = re.findall(r"^\s*L=(\d+), number of zeta\s*=\s*(\d+)\s*$", text, flags=re.MULTILINE)
    count = re.search(r"number of atoms? for this type\s*=\s*(\d+)", text, flags=re.IGNORECASE)
    if label is None or count is None or not zetas:
        raise FormatError(f"{path}: atom type {number + 1}: expected a label, L=0, number of zeta = ... and the atoms")
    if "empty" in label[1]:
        raise FormatError(f"{path}: atoms {label[1]!r} are ghosts, orbitals without an atom; they are not read")
    if [int(l) for l, _ in zetas] != list(range(len(zetas))) or len(zetas) > 7 or any(len(n) > 3 for _, n in zetas):
        raise FormatError(f"{path}: atom type {number + 1}: expected L = 0, 1, ... up to 6, got {zetas}")
    shells = [int(l) for l, n in zetas for _ in range(int(n))]
    if not shells or len(count[1]) > 6:
        raise FormatError(f"{path}: atom type {number + 1}: no orbitals, or atoms beyond counting")
    return label[1], int(count[1]), shells


def _atoms(path: Path, text: str, labels: list[str]) -> Atoms:
    scale = _last(rf"lattice constant \(Bohr\)\s*=\s*{NUMBER}", text)
    vectors = re.search(
        rf"^\s*Lattice vectors:.*\n((?:\s*{NUMBER}\s+{NUMBER}\s+{NUMBER}\s*\n){{3}})", text, re.MULTILINE
    )
    tables = re.findall(r"^\s*(DIRECT|CARTESIAN) COORDINATES.*\n.*\n((?:[ \t]*\S.*\n)*)", text, flags=re.MULTILINE)
    if scale is None or vectors is None or len(tables) != 1:
        raise FormatError(
            f"{path}: expected a lattice constant, lattice vectors and one table of coordinates, got {len(tables)} "
            "tables; only single-point runs are read"
        )
    kind, rows = tables[0][0], [line.split() for line in tables[0][1].splitlines()]
    if len(rows) != len(labels) or not all(label in row[0] for label, row in zip(labels, rows, strict=True)):
        raise FormatError(f"{path}: expected coordinates of {len(labels)} atoms by their types, got {len(rows)}")
    try:
        length = float(scale) * Bohr
        cell = length * np.array(vectors[1].split(), dtype=float).reshape(3, 3)
        positions = np.array([row[1:4] for row in rows], dtype=float).reshape(-1, 3)
    except ValueError:
        raise FormatError(f"{path}: lattice or coordinates: expected numbers") from None
    positions = positions @ cell if kind == "DIRECT" else length * positions
    return checked_atoms(path, [element_of(path, label) for label in labels], positions, cell)


# -- matrices


def _read_csr(path: Path, n_orbitals: int) -> tuple[Matrices, bool]:
    """R -> matrix as the file has it (rydberg or 1), and whether it is complex, with two rows an orbital."""
    text = read_text(path)
    header, body = _header(path, text)
    if len(re.findall(r"STEP:|Ionic Step", text)) > 1:
        raise FormatError(f"{path}: holds several steps; only single-point runs are read")
    is_complex = "(" in body
    size = n_orbitals * (1 + is_complex)
    if header[0] != size:
        raise FormatError(f"{path}: expected {size} orbitals for the atoms of the log, got {header[0]}")
    numbers = numbers_in(path, body.translate(str.maketrans("(),", "   ")))
    matrices: Matrices = {}
    at = 0
    for block in range(header[1]):
        place = f"{path}: matrix {block + 1} of {header[1]}"
        start = _integers(place, numbers[at : at + 4], 4)
        at, count = at + 4, int(start[3])
        if count < 0 or count > size * size:
            raise FormatError(f"{place}: expected at most {size} x {size} elements, got {count}")
        if count == 0:
            continue
        ends = np.cumsum([at, count * (1 + is_complex), count, size + 1])
        values, *places = (numbers[a:b] for a, b in pairwise(ends))
        columns, rows = _integers(place, places[0], count), _integers(place, places[1], size + 1)
        at = int(ends[-1])
        if (np.diff(rows) < 0).any() or rows[0] != 0 or rows[-1] != count or columns.min() < 0 or columns.max() >= size:
            raise FormatError(f"{place}: rows and columns are not those of a matrix of {size} x {size}")
        shift = (int(start[0]), int(start[1]), int(start[2]))
        if shift in matrices:
            raise FormatError(f"{place}: R = {list(shift)} stands twice")
        data = values[0::2] + 1j * values[1::2] if is_complex else values
        matrices[shift] = csr_array((data, columns, rows), shape=(size, size))
    if at != len(numbers):
        raise FormatError(f"{path}: expected {header[1]} matrices, but {len(numbers) - at} more numbers follow")
    return matrices, is_complex


def _header(path: Path, text: str) -> tuple[tuple[int, int], str]:
    """(dimension, number of R) and the text of the matrices without comments."""
    old = re.search(
        r"Matrix Dimension of [HS]\(R\):\s*(\d{1,9})\s*\n\s*Matrix number of [HS]\(R\):\s*(\d{1,9})\s*\n", text
    )
    if old is not None:
        return (int(old[1]), int(old[2])), text[old.end() :]
    new = re.search(r"(\d{1,9}) # number of localized basis\s*\n\s*(\d{1,9}) # number of Bravais", text)
    start = text.find("CSR Format")
    if new is None or start < 0:
        raise FormatError(
            f"{path}: expected the header of a sparse matrix of ABACUS; a binary file (out_mat_hs2 with "
            "binary output) is not read"
        )
    lines = text[start:].splitlines()[1:]
    return (int(new[1]), int(new[2])), "\n".join(line for line in lines if not line.lstrip().startswith("#"))


def _integers(place: str, numbers: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    if len(numbers) != count:
        raise FormatError(f"{place}: the file ends too early; was the run stopped?")
    if not (np.abs(numbers) < 1e9).all() or (numbers != np.round(numbers)).any():
        raise FormatError(f"{place}: expected whole numbers for R, counts, rows and columns")
    return numbers.astype(np.int64)


def _spin_fast(rows: Orbitals) -> Orbitals:
    """Rows of spinors: up and down of the first orbital, then of the second, ..."""
    sizes = np.bincount(rows.atom)
    down = np.tile([0, 1], len(rows.atom))
    return Orbitals(np.repeat(rows.atom, 2), np.repeat(rows.place, 2) + down * np.repeat(sizes[rows.atom], 2))


def _without_spin(path: Path, matrix: csr_array) -> csr_array:
    """S of the up orbitals, if that is all there is."""
    up, down = matrix[0::2, 0::2], matrix[1::2, 1::2]
    rest = (up - down, up.imag, matrix[0::2, 1::2], matrix[1::2, 0::2])
    if max(np.abs(part.data).max(initial=0.0) for part in rest) > SPIN_FREE:
        raise FormatError(f"{path}: expected the same real S for both spins, up and down in turn")
    return up.real
