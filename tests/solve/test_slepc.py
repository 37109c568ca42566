"""States over MPI: reading by rows everywhere; SLEPc itself where a Python has it, else skipped."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ase_hybridham.cli import main as hybridham
from ase_hybridham.errors import FormatError
from ase_hybridham.io import read_system
from ase_hybridham.mpi import SCRIPT, slepc_bands
from ase_hybridham.solve import BlochSum, eigenvalues
from ase_hybridham.solve.stored import number_states, read_states
from ase_hybridham.store import append_systems
from ase_hybridham.system import PairBlocks
from tests.solve.sparse_systems import GOLDEN, repeated

PYTHON = os.environ.get("SLEPC_PYTHON", "/usr/bin/python3")
MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--mca", "mpi_yield_when_idle", "1", "-np"]
K_POINTS = np.array([[0.0, 0.0, 0.0], [0.1, 0.23, 0.0], [0.5, 0.0, 0.0]])


@pytest.fixture
def stored(tmp_path):
    """system -> the data set that holds it."""

    def store(system, name="one/two"):
        append_systems(tmp_path / "data.h5", [(name, system)])
        return tmp_path / "data.h5"

    return store


@pytest.fixture(scope="module")
def spinor():
    """Bismuthene with spin-orbit coupling: H(R) is complex."""
    return read_system(GOLDEN / "Bi_bismuthene_soc/deeph")


def assembled(path, k, spin, n_parts):
    """The matrix from the rows of all parts, and how many elements each has."""
    head = slepc_bands.read_head(str(path))
    parts = [slepc_bands.read_rows(head, part, n_parts) for part in range(n_parts)]
    assert [p.first for p in parts] == [0, *(p.last for p in parts[:-1])]
    assert parts[-1].last == parts[0].n
    out = np.zeros((parts[0].n, parts[0].n), dtype=complex)
    for part in parts:
        data = part.data(k, spin)
        for row in range(part.first, part.last):
            here = slice(part.indptr[row - part.first], part.indptr[row - part.first + 1])
            assert (np.diff(part.indices[here]) > 0).all()
            out[row, part.indices[here]] = data[here]
    return out, [len(part.indices) for part in parts]


@pytest.mark.parametrize("n_parts", [1, 2, 3, 9])
@pytest.mark.parametrize("name", ["two elements", "spinor", "collinear"])
def test_rows_of_all_ranks_are_the_bloch_sum(name, n_parts, spinor, make_system, crystal, stored):
    system = spinor if name == "spinor" else make_system(crystal)
    if name == "collinear":
        system = replace(system, hamiltonian=(system.hamiltonian[0], 0.5 * system.hamiltonian[0]), spin="collinear")
    path, k = stored(system), np.array([0.13, -0.31, 0.22])
    sums = [*system.hamiltonian, system.overlap]
    for spin, blocks in zip([*range(len(system.hamiltonian)), None], sums, strict=True):
        found, shares = assembled(path, k, spin, n_parts)
        expected = BlochSum(blocks, system.spin == "spinor").dense(k[None])[0]
        assert np.abs(expected - expected.T).max() > 1e-3  # not a k without phases
        np.testing.assert_allclose(found, expected, atol=1e-12)
    most = max(np.bincount(system.pairs.i, weights=system.hamiltonian[0].orbitals[system.pairs.j])) * 40
    assert max(shares) <= sum(shares) / n_parts + most


def test_a_rank_reads_its_rows_only(spinor, stored, monkeypatch):
    path = stored(spinor)
    head = slepc_bands.read_head(f"{path}:one/two")
    read = []
    values = slepc_bands._values
    monkeypatch.setattr(slepc_bands, "_values", lambda *args: read.append(values(*args)) or read[-1])
    slepc_bands.read_rows(head, 1, 2)
    assert 0.3 < len(read[0]) / len(spinor.hamiltonian[0].values) < 0.7


def test_damage_is_told(make_system, crystal, stored):
    system = make_system(crystal)
    path = stored(system)
    head = slepc_bands.read_head(str(path))
    with h5py.File(path, "r+") as file:
        file["structures"][head.key]["overlap"][3] = np.nan
    with pytest.raises(ValueError, match=r"data\.h5: expected finite numbers in .*overlap"):
        slepc_bands.read_rows(head, 0, 1)
    with h5py.File(path, "r+") as file:
        pairs = file["structures"][head.key]["pairs"]
        pairs[[5, 60]] = pairs[...][[60, 5]]
    with pytest.raises(ValueError, match="expected the pairs of a data set in their order"):
        slepc_bands.read_rows(head, 0, 1)


def prepared(*words, n_ranks=2):
    args, _ = slepc_bands.parse([str(word) for word in words])
    return slepc_bands.prepare(args, n_ranks)


def test_bad_input_is_told_in_one_line(make_system, crystal, stored, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    system = make_system(crystal)
    data = stored(system)
    append_systems("bare.h5", [("a", replace(system, overlap=None))])
    Path("text.h5").write_text("no HDF5", encoding="utf-8")
    h5py.File("other.h5", "w").close()
    Path("k.txt").write_text("0 0\n", encoding="utf-8")
    Path("empty.txt").write_text("# nothing\n", encoding="utf-8")
    for words, message in {
        ("none.h5",): "none.h5: expected a data set .* no such file",
        ("text.h5",): "text.h5: expected a data set",
        ("other.h5",): "other.h5: expected a data set",
        ("data.h5:three",): r"data.h5:three: expected one of 1 structures, e.g. data.h5:one/two",
        ("bare.h5",): "bare.h5: expected H and S, got H only",
        (data,): "knows no Fermi level; give --sigma",
        (data, "--sigma", 0, "--kpts", "k.txt"): "k.txt: expected three numbers a line",
        (data, "--sigma", 0, "--kpts", "empty.txt"): "empty.txt: expected three numbers a line",
        (data, "--sigma", 0, "--states", 999): "--states: expected 1 to 22",
        (data, "--sigma", 0, "--states", 5, "--groups", 3): "--groups: expected 1 to 2",
        (data, "--sigma", 0, "--states", 5, "-o", "bands.h5"): "bands.h5: expected a file NAME.npz",
    }.items():
        with pytest.raises(ValueError, match=message) as told:
            prepared(*words)
        assert "\n" not in str(told.value)
    with pytest.raises(SystemExit):
        prepared(data, "--state", 3)
    assert "unknown option --state" in capsys.readouterr().err
    head, k_points, sigma, output = prepared(data, "--sigma", 1.5, "--states", 3)
    assert (head.n_spins, k_points.tolist(), sigma, output) == (1, [[0, 0, 0]], 1.5, "data.bands.npz")


def is_number(word):
    try:
        return bool(np.isfinite(float(word)))
    except ValueError:
        return False


@given(st.text(alphabet="0123456789.-en# \nx", max_size=60))
def test_k_points_are_three_numbers_a_line_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "fuzz.txt"
    path.write_text(text, encoding="utf-8")
    lines = [line.split("#")[0].split() for line in text.split("\n")]
    if any(lines) and all(len(line) in (0, 3) and all(map(is_number, line)) for line in lines):
        assert slepc_bands.read_k_points(str(path)).shape == (sum(map(bool, lines)), 3)
    else:
        with pytest.raises(ValueError, match=r"fuzz\.txt: expected three numbers a line[^\n]*$"):
            slepc_bands.read_k_points(str(path))


@pytest.fixture
def solved(make_graphene, tmp_path):
    """Graphene in its textbook model, both bands at some k-points, written as the script writes them."""
    system = replace(make_graphene(-2.7, 0.1), fermi_level=0.2)
    append_systems(tmp_path / "g.h5", [("g", system)])
    energies = eigenvalues(system, K_POINTS)
    found = {(0, row): (e, np.full(2, 1e-9), 1.0) for row, e in enumerate(energies[0][:2])}
    path = tmp_path / "g.bands.npz"
    slepc_bands.write_states(str(path), slepc_bands.read_head(str(tmp_path / "g.h5")), K_POINTS, 0.1, found)
    return system, path, energies


def test_what_is_written_is_read_and_what_is_not_yet_solved_is_left_out(solved, tmp_path):
    _, path, energies = solved
    states = read_states(path)
    np.testing.assert_array_equal(states.energies[0, :2], energies[0, :2])
    assert np.isnan(states.energies[0, 2]).all()
    assert (states.reference, states.sigma) == (0.2, 0.1)
    found = states.bands()
    assert found.energies.shape == (1, 3, 2)
    assert np.isinf(found.energies[0, 2]).all()
    assert found.get_labels()[2][0] == "G"
    assert not list(tmp_path.glob(".*"))


def test_other_files_are_refused(solved, tmp_path):
    _, path, _ = solved
    np.savez(tmp_path / "other.npz", format="another")
    (tmp_path / "cut.npz").write_bytes(path.read_bytes()[:300])
    for name in ("other.npz", "cut.npz", "none.npz"):
        with pytest.raises(FormatError, match=rf"{name}: expected states of slepc_bands\.py"):
            read_states(tmp_path / name)


def test_bands_are_drawn_from_the_file(solved, tmp_path, capsys):
    _, path, _ = solved
    assert hybridham(["bands", str(path), "-o", str(tmp_path / "b.png")]) == 0
    assert "2 of 3 k-points, not counted" in capsys.readouterr().out
    assert (tmp_path / "b.png").stat().st_size > 1000
    assert hybridham(["bands", str(path), "--path", "GM"]) == 2
    assert "--path: " in capsys.readouterr().err


def test_counts_give_numbers_and_find_what_is_missing(tmp_path, stored):
    system = repeated("bilayer_graphene_AB", 2, 2, 1)
    k = K_POINTS[1:]
    every = eigenvalues(system, k)[0]
    first, missing = [30, 27], [0, 1]
    some = [np.delete(every[0][30:50], []), np.delete(every[1][27:47], 7)]
    found = {(0, row): (e, np.zeros(len(e)), 1.0) for row, e in enumerate(some)}
    head = slepc_bands.read_head(str(stored(system)))
    slepc_bands.write_states(str(tmp_path / "s.npz"), head, k, every[0][35], found)
    numbered = number_states(system, read_states(tmp_path / "s.npz"))
    assert numbered.first_bands.tolist() == [first]
    assert numbered.n_missing.tolist() == [missing]
    lines = numbered.bands()
    assert lines.first_band == 27
    np.testing.assert_allclose(lines.energies[0, 0, 3:23], every[0][30:50])
    with pytest.raises(ValueError, match="is it the one that was solved"):
        number_states(read_system(GOLDEN / "graphene/deeph"), replace(numbered, energies=np.zeros((2, 2, 5))))


def has_slepc() -> bool:
    code = f"import sys, glob; sys.path += glob.glob({slepc_bands.DEBIAN!r}); import slepc4py, mpi4py, h5py"
    try:
        subprocess.run([MPIRUN[0], "--version"], check=True, capture_output=True)
        return subprocess.run([PYTHON, "-c", code], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


needs_slepc = pytest.mark.skipif(not has_slepc(), reason="needs slepc4py, mpi4py, h5py and mpirun (docs/mpi.md)")


def run_script(*words, n_ranks=1):
    start = [*MPIRUN, str(n_ranks)] if n_ranks > 1 else []
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")} | {"OMP_NUM_THREADS": "1"}
    command = [*start, PYTHON, str(SCRIPT), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


@needs_slepc
@pytest.mark.parametrize(("n_ranks", "groups"), [(1, 1), (2, 1), (2, 2)])
@pytest.mark.parametrize("name", ["graphene", "spinor"])
def test_states_of_slepc_are_those_of_lapack(name, n_ranks, groups, spinor, stored, tmp_path):
    system = spinor if name == "spinor" else repeated("bilayer_graphene_AB", 3, 3, 1)
    k = K_POINTS if name == "spinor" else K_POINTS[:2]  # Gamma, where a supercell has many levels of several states
    every = eigenvalues(system, k)
    sigma = every[0, 1, system.n_orbitals // 3] + 0.01
    np.savetxt(tmp_path / "k.txt", k)
    options = ["--kpts", tmp_path / "k.txt", "--states", 12, "--sigma", sigma, "--groups", groups]
    done = run_script(stored(system), *options, "-o", tmp_path / "s.npz", n_ranks=n_ranks)
    assert done.returncode == 0, done.stderr
    assert "not counted" in done.stdout
    states = read_states(tmp_path / "s.npz")
    assert np.nanmax(states.residuals) < 1e-6
    for found, expected in zip(states.energies[0], every[0], strict=True):
        found = found[np.isfinite(found)]
        assert len(found) >= 12
        nearest = expected[np.argsort(np.abs(expected - sigma), kind="stable")[: len(found)]]
        np.testing.assert_allclose(found, np.sort(nearest), rtol=0, atol=1e-8)


@needs_slepc
def test_spins_apart_by_their_hermitian_parts_in_an_orthogonal_basis(make_graphene, stored, tmp_path):
    system = make_graphene(-2.7, None)
    h = system.hamiltonian[0]
    crooked = PairBlocks(h.pairs, h.basis, h.values + np.where(h.pairs.i < h.pairs.j, 0.3, -0.3))
    system = replace(system, hamiltonian=(crooked, 0.5 * h), spin="collinear")
    np.savetxt(tmp_path / "k.txt", K_POINTS)
    options = ["--states", 2, "--sigma", 0.1, "--kpts", tmp_path / "k.txt", "-o", tmp_path / "s.npz"]
    done = run_script(stored(system), *options, n_ranks=3)  # and two atoms: a rank has no rows
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(read_states(tmp_path / "s.npz").energies, eigenvalues(system, K_POINTS), atol=1e-8)


@needs_slepc
def test_the_first_rank_alone_tells_what_is_wrong(tmp_path):
    done = run_script(tmp_path / "none.h5", n_ranks=2)
    assert done.returncode == 2
    assert done.stderr.count("slepc_bands: ") == 1
    assert "none.h5: expected a data set" in done.stderr
