"""hybridham overlap: S of a structure from the radial functions of a basis, with no DFT program."""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_hybridham.cli.overlap_options import add_basis_arguments, parse_basis

if TYPE_CHECKING:
    from ase import Atoms

    from ase_hybridham.overlap_source import OverlapSource
    from ase_hybridham.system import AtomBasis, Basis, PairBlocks, SpinKind

MOST_ORBITALS = 3000  # a dense eigenproblem of more takes longer than ten seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("structure", metavar="STRUCTURE", help="a file that ASE reads, a DeepH folder or data.h5:NAME")
    add_basis_arguments(parser)
    parser.add_argument(
        "--from",
        dest="source",
        metavar="SOURCE",
        help="take the basis of a checkpoint, a data set or another program's files; its radial functions too, if it "
        "has them and there is no --basis-dir",
    )
    parser.add_argument(
        "--format",
        default="deeph",
        metavar="NAME",
        help="deeph (default): overlaps.h5 for DeepH-pack and DeepH-E3; deeph-dock: overlap.h5 for DeepH-dock",
    )
    parser.add_argument(
        "--spinor", action="store_true", help="tell in the folder that H will have spinors (spin-orbit coupling)"
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("overlap"), metavar="OUT", help="a new folder (default overlap)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Read, compute, write, and tell what came out."""
    from tqdm import tqdm

    from ase_hybridham.cli.source import load_structure
    from ase_hybridham.io import formats
    from ase_hybridham.system import LCAOSystem

    atoms, _ = load_structure(args.structure)
    _check_output(args.output, args.format, atoms)
    write = formats()[args.format].write
    assert write is not None
    source, spin = _source(args, atoms)
    with tqdm(total=2, desc="S", unit="step", leave=False, disable=None) as bar:
        began = time.perf_counter()
        overlap = _computed(source, atoms, args.structure)
        seconds = time.perf_counter() - began
        bar.update()
        bar.set_description("writing")
        electrons = source.basis.electrons(atoms.numbers)
        provenance = {"overlap": "two-center integrals", "basis": source.basis.name}
        system = LCAOSystem(atoms, (), overlap, spin, electrons=electrons, provenance=provenance)
        write(system, args.output)
        bar.update()
    result = {
        "structure": args.structure,
        "output": str(args.output),
        "format": args.format,
        "atoms": len(atoms),
        "orbitals": int(source.basis.sizes(atoms.numbers).sum()),
        "spin": spin,
        "pairs": len(overlap.pairs),
        "longest_pair_angstrom": float(overlap.pairs.distances.max()),
        "min_eigenvalue": _smallest_eigenvalue(overlap),
        "seconds": round(seconds, 3),
    }
    print(json.dumps(result) if args.json else _summary(result))
    return 0


def _check_output(output: Path, format: str, atoms: "Atoms") -> None:
    """Refuse before the work what could not be written after it."""
    from ase_hybridham.cli.source import refuse_unwritable
    from ase_hybridham.io import formats

    writable = {known.name: known for known in formats().values() if known.write}
    if format not in writable:
        raise ValueError(f"--format: expected one of {', '.join(writable)}, got {format!r}")
    refuse_unwritable(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output}: already there; choose another -o")
    if check := writable[format].check_target:
        check(output, atoms)


def _source(args: argparse.Namespace, atoms: "Atoms") -> "tuple[OverlapSource, SpinKind]":
    """The radial functions of the elements at hand, and the spin that H will have."""
    from ase_hybridham.errors import OverlapError
    from ase_hybridham.overlap_source import find_overlap
    from ase_hybridham.system import Basis

    symbols = list(dict.fromkeys(atoms.get_chemical_symbols()))
    names = parse_basis(args.basis, args.basis_dir)
    basis, spin, provenance = _known_basis(args, symbols, names)
    lacking = [symbol for symbol in symbols if symbol not in basis]
    if lacking:
        raise OverlapError(f"{args.source}: knows {', '.join(basis.atoms)}, {args.structure} has {lacking[0]}")
    if basis.orthogonal:
        raise OverlapError(f"{args.source}: its basis is orthogonal, S = 1; nothing is to be computed")
    shells = [basis[symbol] for symbol in symbols]
    if args.basis_dir is not None:  # functions and radii are those of the files
        bare = [tuple(replace(shell, radial=None) for shell in atom.shells) for atom in shells]
        shells = [replace(atom, shells=own, cutoff=None) for atom, own in zip(shells, bare, strict=True)]
    few = Basis.of(*shells, name=basis.name)
    source = find_overlap(few, basis_dir=args.basis_dir, names=names, provenance=provenance)
    if not source.is_known:
        raise OverlapError(f"{args.source}: has no radial functions; give --basis-dir DIR (the folder of its files)")
    return source, "spinor" if args.spinor else spin


def _known_basis(
    args: argparse.Namespace, symbols: list[str], names: dict[str, str]
) -> "tuple[Basis, SpinKind, dict[str, Any]]":
    """Shells, spin and provenance of --from, or the shells that --basis names."""
    from ase_hybridham.cli.naming import only_structure
    from ase_hybridham.cli.source import kind_of
    from ase_hybridham.errors import OverlapError
    from ase_hybridham.io import read_system
    from ase_hybridham.store import DataSet, names_data_set, read_structure
    from ase_hybridham.system import Basis

    if args.source is None:
        if args.basis_dir is None:
            raise OverlapError("the basis is not known; give --basis-dir DIR with --basis, or --from SOURCE")
        atoms = _shells_of_files(args.basis_dir, symbols, names)
        label = "/".join(names.get(symbol, f"{symbol} of {args.basis_dir}") for symbol in symbols)
        return Basis.of(*(atoms[symbol] for symbol in symbols), name=label), "none", {}
    if kind_of(args.source) == "checkpoint":
        from ase_hybridham.model import load_model

        model = load_model(args.source, "cpu")
        return model.basis, model.spin, dict(model.provenance)
    if names_data_set(args.source) and Path(args.source).is_file():
        with DataSet(args.source) as data:
            return data.basis, data.spin, dict(data.head(data.names[0]).provenance) if len(data) else {}
    stored = names_data_set(args.source)
    system = read_structure(args.source) if stored else read_system(only_structure(args.source))
    return system.basis, system.spin, dict(system.provenance)


def _shells_of_files(folder: str, symbols: list[str], names: dict[str, str]) -> "dict[str, AtomBasis]":
    """The bases that files of the folder hold as a whole, those of Gaussians, and those that OpenMX's names tell."""
    from ase_hybridham.errors import OverlapError
    from ase_hybridham.io.basis_files import find_basis_files, whole_bases
    from ase_hybridham.io.basis_names import basis_of_names
    from ase_hybridham.io.gaussian_basis import FORMAT, read_gaussian_basis
    from ase_hybridham.system import AtomBasis

    files, found = find_basis_files(folder), whole_bases(folder, symbols, names)
    for symbol in [symbol for symbol in symbols if symbol not in found]:
        name = names.get(symbol)
        holding = [path for path, known in files.items() if known.may_hold(path, symbol, None)]
        if not holding:
            raise OverlapError(f"{folder}: expected a basis file of {symbol}, got none; give a folder that has it")
        if all(files[path] is FORMAT for path in holding):
            path = next((path for path in holding if FORMAT.may_hold(path, symbol, name)), holding[0])
            shells = read_gaussian_basis(path, symbol, None if name == path.stem else name)
            found[symbol] = AtomBasis(symbol, shells)
        elif name is None:
            raise OverlapError(
                f"the basis of {symbol} is not known; give --basis {symbol}=NAME (as in C=C6.0-s2p2d1), or "
                "--from SOURCE, a checkpoint, data set or calculation that has it"
            )
        else:
            found[symbol] = basis_of_names({symbol: name})[symbol]
    return found


def _computed(source: "OverlapSource", atoms: "Atoms", structure: str) -> "PairBlocks":
    """S of the structure."""
    from ase_hybridham.cli.source import refuse_coinciding

    try:
        overlap = source.of(atoms)
        assert overlap is not None  # the basis is not orthogonal
        refuse_coinciding(overlap.pairs)
    except ValueError as error:
        raise ValueError(f"{structure}: {error}") from error
    return overlap


def _smallest_eigenvalue(overlap: "PairBlocks") -> float | None:
    """Of S at Gamma; None where that takes long."""
    import numpy as np
    from scipy.linalg import eigvalsh

    from ase_hybridham.solve import BlochSum

    if overlap.orbitals.sum() > MOST_ORBITALS:
        return None
    return float(eigvalsh(BlochSum(overlap).dense(np.zeros((1, 3)))[0].real, subset_by_index=(0, 0))[0])


def _summary(result: dict[str, Any]) -> str:
    lines = [
        f"{result['structure']}: {result['atoms']} atoms, {result['orbitals']} orbitals, {result['pairs']} pairs up to "
        f"{result['longest_pair_angstrom']:.3f} A, {result['seconds']:.2f} s"
    ]
    if result["min_eigenvalue"] is not None:
        lines.append(f"smallest eigenvalue of S at Gamma {result['min_eigenvalue']:.2e}")
    lines.append(f"{result['output']}: S ({result['format']})")
    return "\n".join(lines)
