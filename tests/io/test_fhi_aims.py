"""FHI-aims folders: a real S is covariant where aims put the atoms; written ones come back; broken ones say so."""

import re
import shutil

import numpy as np
import pytest

from ase_hybridham.errors import FormatError
from ase_hybridham.io import format_of, read_system
from ase_hybridham.io.fhi_aims import HARTREE, read_fhi_aims
from tests.io.mutations import assert_survives, mutated_folders
from tests.io.structures import assert_same, caught, covariance_error, covariant_system, reordered, unpacked

INDICES, S, H, UP, DOWN = (
    "rs_indices.out",
    "rs_overlap.out",
    "rs_hamiltonian.out",
    "rs_hamiltonian_up.out",
    "rs_hamiltonian_dn.out",
)


def aims_sign(m: int) -> int:
    """Of FHI-aims's orbital m against ours."""
    return -1 if m > 0 and m % 2 else 1


def write_aims(system, folder, moved=0):
    """The files as plain loops; `moved` displaces atoms by lattice vectors that aims takes back."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(moved)
    away = rng.integers(-moved, moved + 1, size=(len(system.atoms), 3)) @ system.atoms.cell.array
    lines = [f"lattice_vector {x:.12f} {y:.12f} {z:.12f}" for x, y, z in system.atoms.cell.array]
    places = system.atoms.positions + away
    lines += [f"atom {x:.12f} {y:.12f} {z:.12f} {s}" for (x, y, z), s in zip(places, system.atoms.symbols, strict=True)]
    (folder / "geometry.in").write_text("# made by hand\n" + "\n".join(lines) + "\n")
    rows = []
    for atom, z in enumerate(system.atoms.numbers.tolist()):
        for number, l in enumerate(system.basis[z].degrees):
            rows += [f"atomic {atom + 1} {number + 1} {l} {m}" for m in range(-l, l + 1)]
    table = [f"{number + 1:5d} {row}" for number, row in enumerate(rows)]
    (folder / "basis-indices.out").write_text("\n  fn.   type   at.   n   l   m\n" + "\n".join(table) + "\n")
    n = len(rows)
    operators = {S: system.overlap}
    names = [H] if system.spin == "none" else [UP, DOWN]
    operators |= {name: blocks * (1 / HARTREE) for name, blocks in zip(names, system.hamiltonian, strict=True)}
    dense = {name: reordered(b, lambda l: list(range(-l, l + 1)), aims_sign) for name, b in operators.items()}
    cells = list(dense[S])
    first = np.zeros((len(cells) + 1, n), int)
    last = np.full_like(first, -1)
    columns, values = [], {name: [] for name in dense}
    for c, cell in enumerate(cells):
        for row in range(n):
            here = [col for col in range(row + 1) if any(dense[name][cell][col, row] for name in dense)]
            if here:
                first[c, row], last[c, row] = len(columns) + 1, len(columns) + len(here)
            columns += [col + 1 for col in here]
            for name in dense:
                values[name] += [dense[name][cell][col, row] for col in here]
    text = [f"n_hamiltonian_matrix_size: {len(columns) + 1:12d}", f"n_cells_in_hamiltonian: {len(cells) + 1:12d}"]
    text += [f"n_basis: {n:10d}", "cell_index", *(" ".join(map(str, cell)) for cell in [*cells, [999999999] * 3])]
    for title, part in (("index_hamiltonian(1,:,:)", first), ("index_hamiltonian(2,:,:)", last)):
        text += [title, *(" ".join(map(str, line)) for line in part.tolist())]
    text += ["column_index_hamiltonian", *map(str, columns), "0"]
    (folder / INDICES).write_text("\n".join(text) + "\n")
    for name, numbers in values.items():
        (folder / name).write_text("\n".join(f"{v:.16E}" for v in [*numbers, 0.0]) + "\n")


def test_overlap_is_covariant_with_the_atoms_where_aims_puts_them(golden, tmp_path):
    folder = unpacked(golden / "fhi_aims", tmp_path) / "MoS2_S"
    system = read_system(folder)
    assert system.provenance == {"format": "fhi-aims"}
    assert system.basis["Mo"].degrees == (0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3)
    assert system.electrons == 42 + 2 * 16
    # aims integrates on grids of the atoms: found 3.7e-5; a wrong sign of R or of an orbital gives 0.05 to 0.3
    assert covariance_error(system.overlap, system.basis) < 2e-4
    assert system.overlap.hermiticity_error() < 1e-14
    assert np.abs(system.atoms.get_scaled_positions(wrap=False)).max() < 0.5 + 1e-9
    assert system.pairs.distances.max() < 9.5


@pytest.mark.parametrize("moved", [0, 2])
@pytest.mark.parametrize("spin", ["none", "collinear"])
def test_written_then_read_is_the_same(mixed_basis, tmp_path, spin, moved):
    system = covariant_system(1, mixed_basis, spin, center=True)
    write_aims(system, tmp_path / "a", moved)
    assert format_of(tmp_path / "a").name == "fhi-aims"
    again = read_fhi_aims(tmp_path / "a")
    assert_same(again, system, 1e-12)
    assert not caught(again)


def test_parts_that_may_be_absent(mixed_basis, tmp_path):
    write_aims(covariant_system(1, mixed_basis, "collinear", center=True), tmp_path / "a")
    (tmp_path / "a" / DOWN).unlink()
    with pytest.raises(FormatError, match=DOWN):
        read_fhi_aims(tmp_path / "a")
    (tmp_path / "a" / UP).unlink()
    assert read_fhi_aims(tmp_path / "a").hamiltonian == ()
    for name in (S, "geometry.in", "basis-indices.out"):
        shutil.copytree(tmp_path / "a", tmp_path / name)
        (tmp_path / name / name).unlink()
        with pytest.raises(FormatError, match=re.escape(f"{name}: is missing")):
            read_system(tmp_path / name)


BROKEN = {
    "size": (INDICES, lambda t: re.sub(r"(matrix_size: +)\d+", r"\g<1>99999999999", t), "numbers under the headings"),
    "cells": (INDICES, lambda t: re.sub(r"(in_hamiltonian: +)\d+", r"\g<1>900000000", t), "numbers under the headings"),
    "basis": (INDICES, lambda t: re.sub(r"(n_basis: +)\d+", r"\g<1>7", t), "orbitals as in basis-indices.out, got 7"),
    "heading": (INDICES, lambda t: t.replace("column_index", "columns"), "expected sizes"),
    "twice": (INDICES, lambda t: re.sub(r"(cell_index\n)(.*\n).*\n", r"\1\2\2", t), "every cell once"),
    "fewer": (S, lambda t: t[: len(t) // 2].rsplit("\n", 1)[0], "elements as in rs_indices.out"),
    "nan": (H, lambda t: "nan\n" + t.split("\n", 1)[1], "finite"),
    "shell": ("basis-indices.out", lambda t: t.replace(" 1 -1\n", " 1 1\n", 1), "whole shell"),
    "lattice": ("geometry.in", lambda t: t.replace("lattice_vector", "#", 1), "independent lattice vectors"),
    "element": ("geometry.in", lambda t: re.sub(r"(atom .*) \w+\n", r"\1 Qq\n", t, count=1), "begins with an element"),
    "atom": ("geometry.in", lambda t: t + "atom 0 0 0 C\n", "has no orbitals"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_named(mixed_basis, tmp_path, case):
    write_aims(covariant_system(3, mixed_basis, "none", center=True), tmp_path / "a")
    name, change, message = BROKEN[case]
    path = tmp_path / "a" / name
    path.write_text(change(path.read_text()))
    with pytest.raises(FormatError, match=message) as error:
        read_fhi_aims(tmp_path / "a")
    assert name in str(error.value) or case == "atom"


def test_damage_is_noticed(mixed_basis, tmp_path):
    write_aims(covariant_system(5, mixed_basis, "none", n_atoms=3, center=True), tmp_path / "a")
    original = read_fhi_aims(tmp_path / "a")
    n_refused = sum(
        assert_survives(read_fhi_aims, damage, copy, original, caught)
        for damage, copy in mutated_folders(tmp_path / "a", tmp_path, 120)
    )
    assert n_refused > 60
