"""States of H(k) c = E S(k) c next to an energy, by SLEPc, PETSc and MUMPS over the ranks of MPI.

    mpirun -np 8 python3 slepc_bands.py data.h5:NAME --kpts path.txt --states 50 --groups 2 -o bands.npz

It stands alone, in one file that may be copied: numpy, h5py, mpi4py, petsc4py and slepc4py (complex numbers, with
MUMPS) of any Python from 3.10 on.
Every rank reads its rows of H(R) and S(R) from a data set and sums them to H(k) and S(k); MUMPS factorizes H - sigma S
as L U. Not as Cholesky: MUMPS has no L D L^dagger of Hermitian matrices, its symmetric mode is for complex symmetric
ones, and SLEPc then gives wrong energies without a word. L U has no inertia: states are found, not counted.
"""

import argparse
import glob
import json
import os
import sys
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import h5py
import numpy as np
from numpy.typing import NDArray

FORMAT = "ase_hybridham data set"
RESULT = "ase_hybridham states"
SYMBOLS = (  # two letters for each atomic number, from X of 0
    "X H HeLiBeB C N O F NeNaMgAlSiP S ClArK CaScTiV CrMnFeCoNiCuZnGaGeAsSeBrKrRbSrY ZrNbMoTcRuRhPdAgCdInSnSbTe"
    "I XeCsBaLaCePrNdPmSmEuGdTbDyHoErTmYbLuHfTaW ReOsIrPtAuHgTlPbBiPoAtRnFrRaAcThPaU NpPuAmCmBkCfEsFmMdNoLrRfDb"
    "SgBhHsMtDsRgCnNhFlMcLvTsOg"
)
DEBIAN = "/usr/lib/*cdir/*/*-complex/lib/python3/dist-packages"  # petsc4py and slepc4py are not on the path there
TOLERANCE = 1e-10  # of 1 / (E - sigma), relative
SAME = 1e-6  # eV; members of a level
ROUGH = 1e-3  # as TOLERANCE, to see whether a state that is orthogonal to all that were found is as near
MARGIN = 5e-3  # of |E - sigma|, which such an energy may be too far away
AGAIN = 4  # states that are looked for then
# Room for pivots, in per cent of what MUMPS's analysis expects; its default of 20 is too little now and then.
WORKSPACE = "mat_mumps_icntl_14", "50"


State = tuple[float, float, Any]  # energy and residual in eV, vector of PETSc


@dataclass(frozen=True)
class Head:
    """What a data set tells of a system besides matrix elements.

    sizes : rows of each atom, shape (n_atoms,); of a spinor twice its orbitals.
    n_spins : 2 if H differs for spin up and down.
    fermi_level : eV, NaN if unknown.
    """

    path: str
    key: str
    sizes: NDArray[np.int64]
    spinor: bool
    n_spins: int
    orthogonal: bool
    fermi_level: float
    cell: NDArray[np.float64]
    pbc: NDArray[np.bool_]


def read_head(source: str) -> Head:
    """The head of ``data.h5:NAME``, or of ``data.h5`` if it holds one structure.

    Raises
    ------
    ValueError
        If it is no data set, holds no such structure, or no S where that is needed.
    OSError
        If it cannot be read.
    """
    path, name = (source, "") if os.path.exists(source) else source.rpartition(":")[::2]
    if not os.path.isfile(path):
        raise ValueError(f"{source}: expected a data set of `hybridham predict` or `convert`, got no such file")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: expected a data set (HDF5), got {error}") from None
    with file:
        if _word(file, "format") != FORMAT or "structures" not in file:
            raise ValueError(f"{path}: expected a data set of `hybridham predict` or `convert`, got another file")
        keys = list(file["structures"])
        key = quote(name, safe="") if name else keys[0] if len(keys) == 1 else ""
        if key not in keys:
            known = unquote(keys[0]) if keys else ""
            raise ValueError(f"{source}: expected one of {len(keys)} structures, e.g. {path}:{known}")
        group, basis = file["structures"][key], json.loads(file["basis"][()])
        orbitals = {atom["symbol"]: sum(2 * shell["l"] + 1 for shell in atom["shells"]) for atom in basis["atoms"]}
        spinor = _word(file, "spin") == "spinor"
        symbols = [SYMBOLS[2 * z : 2 * z + 2].strip() for z in group["numbers"][()].tolist()]
        sizes = np.array([orbitals[symbol] for symbol in symbols], dtype=np.int64) * (2 if spinor else 1)
        orthogonal = "overlap" not in group
        if orthogonal and not basis["orthogonal"]:
            raise ValueError(f"{source}: expected H and S, got H only; predict or convert it with its overlap")
        level, n_spins = float(group.attrs["fermi_level"]), len(group["hamiltonian"])
        return Head(path, key, sizes, spinor, n_spins, orthogonal, level, group["cell"][()], group["pbc"][()])


def _word(group: Any, name: str) -> str:
    value = group.attrs.get(name, b"")
    return value.decode() if isinstance(value, bytes) else str(value)


@dataclass(frozen=True)
class Blocks:
    """Pairs of the rows of one rank whose blocks have one shape (n_i, n_j), sorted by atoms (i, j).

    shifts : lattice shifts R, shape (n_pairs, 3).
    starts : where another pair of atoms begins, shape (n_places,).
    entries : where the elements of a pair of atoms go among the CSR data, shape (n_places, n_i, n_j).
    hamiltonian : H(R) in eV for every spin, each of shape (n_pairs, n_i, n_j).
    overlap : S(R), of the same shape, or None.
    """

    shifts: NDArray[np.int64]
    starts: NDArray[np.int64]
    entries: NDArray[np.int64]
    hamiltonian: list[NDArray]
    overlap: NDArray | None


@dataclass(frozen=True)
class Rows:
    """The rows of H(k) and S(k) that one rank holds: those of neighboring atoms, as CSR.

    n : rows of the whole matrix.
    first, last : the first row, and the one after the last.
    block : rows of every atom are a multiple of it.
    indptr, indices : of CSR; columns ascend.
    """

    n: int
    block: int
    first: int
    last: int
    indptr: NDArray[np.int32]
    indices: NDArray[np.int32]
    blocks: list[Blocks]

    def data(self, k: NDArray, spin: int | None) -> NDArray[np.complex128]:
        """CSR data of H(k) = sum_R exp(2 pi i k.R) H(R) of a spin in eV, or of S(k) if `spin` is None."""
        out = np.zeros(len(self.indices), dtype=np.complex128)
        for some in self.blocks:
            values = some.overlap if spin is None else some.hamiltonian[spin]
            assert values is not None
            phases = np.exp(2j * np.pi * (some.shifts @ k))
            out[some.entries] = np.add.reduceat(phases[:, None, None] * values, some.starts, axis=0)
        return out


def read_rows(head: Head, part: int, n_parts: int) -> Rows:
    """Rows `part` of `n_parts`, about as many elements in each; only their H(R) and S(R) are read.

    Raises
    ------
    ValueError
        If pairs are not in the order of a data set, sizes do not fit, or an element is not a finite number.
    """
    sizes, n_atoms = head.sizes, len(head.sizes)
    with h5py.File(head.path, "r") as file:
        group = file["structures"][head.key]
        table = group["pairs"][()].astype(np.int64)
        i, j = table[:, 0], table[:, 1]
        onsite, hopping_i = table[:n_atoms], i[n_atoms:]  # pairs of an atom with itself come first, then ascending i
        if (onsite != np.arange(n_atoms)[:, None] * [1, 1, 0, 0, 0]).any() or (np.diff(hopping_i) < 0).any():
            raise ValueError(f"{head.path}: expected the pairs of a data set in their order; write it again")
        share = np.cumsum(np.bincount(i, weights=sizes[i] * sizes[j]))
        low, high = np.searchsorted(share, share[-1] * (np.array([part, part + 1]) / n_parts), side="right")
        begin, end = n_atoms + np.searchsorted(hopping_i, [low, high])
        pieces = [slice(low, high), slice(begin, end)]
        spins = [_values(group["hamiltonian"], (spin,), sizes, i, j, pieces) for spin in range(head.n_spins)]
        orbitals = sizes // 2 if head.spinor else sizes
        overlap = None if head.orthogonal else _values(group["overlap"], (), orbitals, i, j, pieces)
    mine = np.concatenate([np.arange(piece.start, piece.stop) for piece in pieces])
    return _arranged(sizes, low, high, table[mine], spins, overlap)


def _values(stored: Any, spin: tuple[int, ...], sizes: NDArray, i: NDArray, j: NDArray, pieces: list[slice]) -> NDArray:
    """Elements of an operator in some pieces of its pairs, one after the other."""
    offsets = np.concatenate([[0], np.cumsum(sizes[i] * sizes[j])])
    if stored.shape[-1] != offsets[-1]:
        raise ValueError(f"{stored.file.filename}: expected {offsets[-1]} elements, got {stored.shape[-1]}; damaged?")
    parts = [stored[(*spin, slice(offsets[piece.start], offsets[piece.stop]))] for piece in pieces]
    values = np.concatenate(parts)
    values = values.astype(np.complex128 if np.iscomplexobj(values) else np.float64, copy=False)
    if not np.isfinite(values).all():
        raise ValueError(f"{stored.file.filename}: expected finite numbers in {stored.name}; make it again")
    return values


def _arranged(
    sizes: NDArray, low: int, high: int, table: NDArray, spins: list[NDArray], overlap: NDArray | None
) -> Rows:
    """Where the elements of pairs of the atoms from `low` to `high` go: as `BlochSum`, of some rows."""
    n_atoms, i, j = len(sizes), table[:, 0], table[:, 1]
    first_row = np.concatenate([[0], np.cumsum(sizes)])
    connected, place = np.unique(i * n_atoms + j, return_inverse=True)
    to_i, to_j = connected // n_atoms - low, connected % n_atoms
    own = sizes[low:high]
    width = np.bincount(to_i, weights=sizes[to_j], minlength=high - low).astype(np.int64)  # of the rows of an atom
    left = np.cumsum(sizes[to_j]) - sizes[to_j] - (np.cumsum(width) - width)[to_i]
    begin = np.cumsum(width * own) - width * own
    indptr = np.concatenate([[0], np.cumsum(np.repeat(width, own))])
    indices = np.empty(indptr[-1], dtype=np.int32)
    offsets = np.cumsum(sizes[i] * sizes[j]) - sizes[i] * sizes[j]
    fewer = 1 if overlap is None or len(overlap) == len(spins[0]) else 2  # S of a spinor has no spin
    blocks = []
    by_shape = sizes[i] * (sizes.max(initial=1) + 1) + sizes[j]
    for shape in np.unique(by_shape):
        rows = np.flatnonzero(by_shape == shape)
        rows = rows[np.argsort(place[rows], kind="stable")]
        n_i, n_j = int(sizes[i[rows[0]]]), int(sizes[j[rows[0]]])
        here, starts = np.unique(place[rows], return_index=True)
        start, a, b = (begin[to_i[here]] + left[here])[:, None, None], np.arange(n_i)[:, None], np.arange(n_j)
        entries = start + a * width[to_i[here]][:, None, None] + b
        indices[entries] = first_row[to_j[here]][:, None, None] + b
        h = [values[offsets[rows][:, None, None] + a * n_j + b] for values in spins]
        s = None
        if overlap is not None:
            a, b = a[: n_i // fewer], b[: n_j // fewer]
            s = overlap[offsets[rows][:, None, None] // fewer**2 + a * (n_j // fewer) + b]
            s = np.kron(np.eye(2), s) if fewer == 2 else s
        blocks.append(Blocks(table[rows, 2:], starts, entries, h, s))
    n, block, first, last = (int(number) for number in (first_row[-1], np.gcd.reduce(sizes), *first_row[[low, high]]))
    return Rows(n, block, first, last, indptr.astype(np.int32), indices, blocks)


def solve(comm: Any, rows: Rows, k: NDArray, spin: int, n_states: int, sigma: float) -> tuple[NDArray, NDArray]:
    """The states nearest to sigma, of the ranks of a communicator; members of a level are there or not as a whole.

    A search starts from one vector and may pass over members of a level. So it is followed by others, of what is
    orthogonal to all that was found, until they bring nothing that is as near; a factorization serves all of them.

    Returns
    -------
    energies, residuals : arrays, shape (n,)
        eV, ascending; |H c - E S c| with c^dagger S c = 1. At least `n_states` unless fewer converged.
    """
    h = _hermitian(comm, rows, rows.data(k, spin))
    orthogonal = comm.allreduce(any(some.overlap is None for some in rows.blocks))
    s = None if orthogonal else _hermitian(comm, rows, rows.data(k, None))
    problem = _shift_invert(comm, h, s, sigma)
    found = _search(problem, h, s, n_states, TOLERANCE, [])
    radius = max((abs(energy - sigma) for energy, _, _ in found), default=0.0) + SAME
    while found and len(found) < rows.n:
        nearest = _search(problem, h, s, 1, ROUGH, found)
        if nearest and all(abs(energy - sigma) > radius * (1 + MARGIN) for energy, _, _ in nearest):
            break
        more = _search(problem, h, s, min(AGAIN, rows.n - len(found)), TOLERANCE, found)
        near = [state for state in more if abs(state[0] - sigma) < radius]
        if not near:
            break
        found += near
    energies, residuals = np.array(sorted(state[:2] for state in found)).reshape(-1, 2).T
    for thing in filter(None, (problem, h, s)):
        thing.destroy()
    return energies, residuals


def _shift_invert(comm: Any, h: Any, s: Any, sigma: float) -> Any:
    """SLEPc's problem of the states next to sigma, by L U of MUMPS."""
    from petsc4py import PETSc
    from slepc4py import SLEPc

    problem = SLEPc.EPS().create(comm)
    problem.setOperators(h, s)
    problem.setProblemType(SLEPc.EPS.ProblemType.HEP if s is None else SLEPc.EPS.ProblemType.GHEP)
    problem.setWhichEigenpairs(SLEPc.EPS.Which.TARGET_MAGNITUDE)
    problem.setTarget(sigma)
    transform = problem.getST()
    transform.setType(SLEPc.ST.Type.SINVERT)
    transform.setMatStructure(PETSc.Mat.Structure.SAME_NONZERO_PATTERN)
    linear = transform.getKSP()
    linear.setType(PETSc.KSP.Type.PREONLY)
    linear.getPC().setType(PETSc.PC.Type.LU)
    linear.getPC().setFactorSolverType(PETSc.Mat.SolverType.MUMPS)
    problem.setFromOptions()
    return problem


def _search(problem: Any, h: Any, s: Any, wanted: int, tolerance: float, found: list[State]) -> list[State]:
    """States of the problem that are orthogonal to those that are found."""
    n_vectors = min(wanted + max(wanted * 3 // 2, 15), h.size[0] - len(found))
    problem.setDimensions(wanted, n_vectors)
    problem.setTolerances(tolerance)
    problem.setDeflationSpace([c for _, _, c in found])
    problem.solve()
    return [_state(problem, number, h, s) for number in range(problem.getConverged())]


def _state(problem: Any, number: int, h: Any, s: Any) -> State:
    """Energy, residual and vector of a state that converged."""
    c, hc, sc = h.createVecRight(), h.createVecRight(), h.createVecRight()
    energy = problem.getEigenpair(number, c).real
    h.mult(c, hc)
    s.mult(c, sc) if s else c.copy(sc)
    norm = abs(sc.dot(c)) ** 0.5
    hc.axpy(-energy, sc)
    return energy, hc.norm() / norm, c


def _hermitian(comm: Any, rows: Rows, data: NDArray) -> Any:
    """The Hermitian part (M + M^dagger) / 2 of a matrix whose rows are spread over the ranks."""
    from petsc4py import PETSc

    n_own = rows.last - rows.first
    shape, csr = ((n_own, rows.n), (n_own, rows.n)), (rows.indptr, rows.indices, data)
    matrix = PETSc.Mat().createAIJ(shape, bsize=rows.block, csr=csr, comm=comm)
    if rows.block > 1:
        matrix.convert(PETSc.Mat.Type.BAIJ)  # products, most of the time, take 2 to 3 times less of it
    adjoint = matrix.hermitianTranspose(PETSc.Mat())
    matrix.axpy(1.0, adjoint, PETSc.Mat.Structure.SAME_NONZERO_PATTERN)
    matrix.scale(0.5)
    adjoint.destroy()
    return matrix


def write_states(path: str, head: Head, k_points: NDArray, sigma: float, found: dict[tuple[int, int], Any]) -> None:
    """Write what is known so far, (spin, row of k) -> energies, residuals, seconds; NaN elsewhere; then rename."""
    shape = (head.n_spins, len(k_points), max(len(one[0]) for one in found.values()))
    energies, residuals, seconds = np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape[:2], np.nan)
    for at, (e, r, took) in found.items():
        energies[at][: len(e)], residuals[at][: len(e)], seconds[at] = e, r, took
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{os.getpid()}.npz")
    content: dict[str, Any] = {"format": RESULT, "fermi_level": head.fermi_level, "cell": head.cell, "pbc": head.pbc}
    content |= {"k_points": k_points, "energies": energies, "residuals": residuals, "seconds": seconds, "sigma": sigma}
    np.savez(temporary, **content)
    os.replace(temporary, path)


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and the rest, which is PETSc's."""
    parser = argparse.ArgumentParser(
        description="States of H(k) c = E S(k) c next to an energy, by SLEPc and MUMPS; start it with mpirun.",
        epilog="Other options are PETSc's, as -mat_mumps_icntl_22 1 (factors on disk) or -log_view.",
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="DATA", help="data.h5:NAME, or data.h5 if it holds one structure")
    parser.add_argument("--kpts", metavar="FILE", help="text, a k-point a line, fractional; default Gamma")
    parser.add_argument("--states", type=int, default=50, metavar="N", help="at a k-point, at least (default 50)")
    parser.add_argument("--sigma", type=float, metavar="E", help="eV, around which (default: the stored Fermi level)")
    parser.add_argument("--groups", type=int, default=1, metavar="G", help="of ranks, each with k-points of its own")
    parser.add_argument("-o", "--output", metavar="OUT", help="default DATA.bands.npz; states are there as they come")
    args, options = parser.parse_known_args(argv)
    unknown = [option for option in options if option.startswith("--")]
    if unknown:
        parser.error(f"unknown option {unknown[0]}; those of PETSc begin with one dash")
    return args, options


def read_k_points(path: str) -> NDArray[np.float64]:
    """Fractional k-points, a line each, shape (n_k, 3); ValueError where a line is something else."""
    with open(path, encoding="utf-8") as file:
        lines = [line.split("#")[0].split() for line in file]
    try:
        k_points = np.array([[float(number) for number in line] for line in lines if line])
    except ValueError:
        k_points = np.empty(0)
    if k_points.ndim != 2 or k_points.shape[1] != 3 or not np.isfinite(k_points).all():
        raise ValueError(f"{path}: expected three numbers a line, fractional k-points, got something else")
    return k_points


def prepare(args: argparse.Namespace, n_ranks: int) -> tuple[Head, NDArray, float, str]:
    """Head, k-points, sigma and output of one run; ValueError where they make no sense."""
    head = read_head(args.source)
    k_points = np.zeros((1, 3)) if args.kpts is None else read_k_points(args.kpts)
    sigma = head.fermi_level if args.sigma is None else args.sigma
    if not np.isfinite(sigma):
        raise ValueError(f"{args.source}: knows no Fermi level; give --sigma E, the energy in eV to look at")
    if not 1 <= args.states <= head.sizes.sum():
        raise ValueError(f"--states: expected 1 to {head.sizes.sum()}, the number of orbitals, got {args.states}")
    if not 1 <= args.groups <= n_ranks:
        raise ValueError(f"--groups: expected 1 to {n_ranks}, the number of ranks, got {args.groups}")
    output = args.output or f"{os.path.splitext(os.path.basename(head.path))[0]}.bands.npz"
    if not output.endswith(".npz") or not os.path.isdir(os.path.dirname(output) or "."):
        raise ValueError(f"{output}: expected a file NAME.npz in a folder that is there; choose another -o")
    return head, k_points, sigma, output


def start(options: list[str]) -> None:
    """Start PETSc and SLEPc with these options; ValueError where they are not there, or not what is needed."""
    try:
        import slepc4py

        slepc4py.init([sys.argv[0], *options])
        from petsc4py import PETSc
    except ImportError as error:
        raise ValueError(f"expected petsc4py and slepc4py, got: {error}; see docs/mpi.md") from None
    if not np.issubdtype(PETSc.ScalarType, np.complexfloating):
        raise ValueError("expected PETSc and SLEPc for complex numbers, got real ones; see docs/mpi.md")
    if not PETSc.Sys.hasExternalPackage("mumps"):
        raise ValueError("expected PETSc with MUMPS, got one without; see docs/mpi.md")
    if not PETSc.Options().hasName(WORKSPACE[0]):
        PETSc.Options().setValue(*WORKSPACE)


def run(args: argparse.Namespace, world: Any, setup: tuple[Head, NDArray, float, str]) -> None:
    """Every group of ranks solves one k-point of a round; the first rank writes after each round."""
    head, k_points, sigma, output = setup
    color = world.rank * args.groups // world.size
    group = world.Split(color, world.rank)
    rows = read_rows(head, group.rank, group.size)
    todo = [(spin, row) for row in range(len(k_points)) for spin in range(head.n_spins)]
    found: dict[tuple[int, int], Any] = {}
    for start in range(0, len(todo), args.groups):
        answer = None
        if start + color < len(todo):
            spin, row = todo[start + color]
            began = time.perf_counter()
            states = solve(group, rows, k_points[row], spin, args.states, sigma)
            answer = ((spin, row), (*states, time.perf_counter() - began))
        answers = world.gather(answer if group.rank == 0 else None)
        if world.rank == 0:
            found.update(one for one in answers if one is not None)
            write_states(output, head, k_points, sigma, found)
            for (spin, row), (energies, residuals, took) in filter(None, answers):
                few = f" of {args.states} asked for" if len(energies) < args.states else ""
                error = f"residual {residuals.max(initial=0.0):.1e} eV, {took:.1f} s"
                tell(f"k-point {row + 1} of {len(k_points)}, spin {spin}: {len(energies)} states{few}, {error}")
    if world.rank == 0:
        print(f"{output}: states next to {sigma:.4f} eV at {len(k_points)} k-points; they are not counted")


def tell(message: str) -> None:
    """A line on stderr."""
    print(f"slepc_bands: {' '.join(message.split())}", file=sys.stderr, flush=True)


def main(argv: list[str]) -> int:
    """Exit status: 0 done, 2 bad input, told in one line by the first rank."""
    args, options = parse(argv)
    sys.path += [folder for folder in glob.glob(DEBIAN) if folder not in sys.path]
    try:
        from mpi4py import MPI
    except ImportError as error:
        tell(f"expected mpi4py, got: {error}; see docs/mpi.md")
        return 2
    world, setup = MPI.COMM_WORLD, None
    try:
        start(options)
        setup = prepare(args, world.size) if world.rank == 0 else None
    except (ValueError, OSError, LookupError) as error:
        if world.rank == 0:
            tell(str(error))
    setup = world.bcast(setup)
    if setup is None:
        return 2
    try:
        run(args, world, setup)
    except Exception as error:  # one rank that ends alone leaves the others waiting for ever
        tell(f"rank {world.rank}: {type(error).__name__}: {error}")
        world.Abort(1)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
