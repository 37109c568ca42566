"""hybridham predict: H of a structure from a checkpoint, written for this package or for DeepH's tools."""

import argparse
import json
import logging
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_hybridham.cli.overlap_options import add_basis_arguments, add_overlap_argument, load_overlap, parse_basis

if TYPE_CHECKING:
    from ase import Atoms

    from ase_hybridham.model import TrainedModel
    from ase_hybridham.system import Basis, LCAOSystem, PairBlocks, PairList
    from ase_hybridham.train.distributed import Workers

logger = logging.getLogger(__name__)

DATA_SET = "hdf5"  # the one format that is not of `io`
LONGEST = 20.0  # angstrom; orbitals of two atoms do not reach that far, and bohr or nanometers are no angstrom
ROUNDING = 1e-10  # of the largest element: H that differs from its adjoint by less is Hermitian
UNSAID = 1e-9  # eV; less is rounding and not told


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="CKPT", help="checkpoint file or name of a model")
    parser.add_argument(
        "structure",
        metavar="STRUCTURE",
        help="a file that ASE reads, a DeepH folder or data.h5:NAME (these two give the pairs and S)",
    )
    parser.add_argument(
        "--cutoff",
        type=float,
        metavar="R",
        help="take all pairs up to R angstrom instead of those of STRUCTURE or of the model's radii",
    )
    add_overlap_argument(parser)
    add_basis_arguments(parser)
    parser.add_argument(
        "--format",
        default=DATA_SET,
        metavar="NAME",
        help="hdf5: a data set, made or extended (default); deeph, deeph-dock: a folder in DeepH's older or newer "
        "layout, new or the structure's own, with the prediction where DeepH puts it",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="data set or folder (default predicted.h5, or predicted)"
    )
    parser.add_argument(
        "--symmetrize",
        action="store_true",
        help="write the Hermitian part where the network does not make H Hermitian (imported DeepH-E3 networks)",
    )
    parser.add_argument("--stage", choices=["mean", "stage1", "hybrid"], help="default: all that has been trained")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    parser.add_argument(
        "--scratch",
        type=Path,
        metavar="DIR",
        help="keep what the network knows of every pair in temporary files there instead of memory",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Predict, alone or as one of the processes that torchrun started."""
    from ase_hybridham.train.distributed import workers

    with workers(args.device) as processes:
        if not processes.first:
            logging.getLogger("ase_hybridham").setLevel(logging.ERROR)
        return _run(args, processes)


def _run(args: argparse.Namespace, processes: "Workers") -> int:
    """Predict, write, and tell what came out; the last two in the first process."""
    from ase_hybridham.cli.source import load_structure
    from ase_hybridham.model import load_model
    from ase_hybridham.overlap_source import find_overlap

    if args.cutoff is not None and not 0 < args.cutoff <= LONGEST:
        raise ValueError(f"--cutoff: expected angstrom, above 0 and up to {LONGEST:g}, got {args.cutoff:g}")
    if args.cutoff is not None and args.overlap:
        raise ValueError(f"--overlap {args.overlap}: brings its own pairs; leave --cutoff out")
    names = parse_basis(args.basis, args.basis_dir)
    output = args.output or Path("predicted.h5" if args.format == DATA_SET else "predicted")
    name = _name(args.structure)
    atoms, known = load_structure(args.structure)
    _check_output(output, args.format, name, atoms)
    if args.scratch is not None and not args.scratch.is_dir():
        raise ValueError(f"--scratch {args.scratch}: expected a folder")
    model = load_model(args.model, str(processes.device))
    model.scratch, model.progress = args.scratch, True
    if args.stage == "hybrid" and not model.cascade.hybrid:
        raise ValueError(f"--stage hybrid: stage 2 of {args.model} is not trained; leave it out")
    if args.format == "deeph" and model.spin == "collinear":
        raise ValueError(f"--format deeph: cannot hold the collinear spin of {args.model}; take deeph-dock or hdf5")
    given, held = _given(args, known)
    source = find_overlap(
        model.basis, overlap=given, basis_dir=args.basis_dir, names=names, provenance=model.provenance
    )
    try:
        pairs = _pairs(args, source.basis, atoms, held)
        overlap = source.of(atoms, pairs) if source.is_known and processes.first else None
        began = time.perf_counter()
        operators = model.hamiltonian(atoms, pairs, args.stage, hermitian=False, processes=processes)
        seconds = time.perf_counter() - began
    except ValueError as error:
        raise ValueError(f"{args.structure}: {error}") from error
    if not processes.first:
        return 0
    if args.stage == "mean" and not any(h.values.any() for h in operators):
        raise ValueError(f"--stage mean: {args.model} knows no mean of a training set; leave it out")
    asymmetry = 0.0 if model.cascade.streams else max(h.hermiticity_error() for h in operators)
    symmetrized = (
        args.symmetrize
        or not asymmetry
        or asymmetry <= ROUNDING * max(abs(h.values).max(initial=0.0) for h in operators)
    )
    hamiltonian = tuple(h.hermitian_part() for h in operators) if symmetrized and asymmetry else operators
    system = _system(args, model, atoms, hamiltonian, overlap)
    _write(system, output, args.format, name)
    result = {
        "model": args.model,
        "structure": args.structure,
        "name": name,
        "output": str(output),
        "format": args.format,
        "stage": args.stage or ("hybrid" if model.cascade.hybrid else "stage1"),
        "atoms": len(atoms),
        "pairs": len(system.pairs),
        "longest_pair_angstrom": float(system.pairs.distances.max()),
        "orbitals": system.n_orbitals,
        "spin": system.spin,
        "overlap": overlap is not None,
        "overlap_from": None if overlap is None else args.overlap or ("structure" if given else "basis"),
        "hermiticity_error_eV": asymmetry,
        "symmetrized": bool(symmetrized),
        "seconds": round(seconds, 3),
    }
    print(json.dumps(result) if args.json else _summary(result))
    return 0


def _name(source: str) -> str:
    """Name of the structure in a data set: of the file, the folder, or as it stands in another data set."""
    if inside := re.search(r"\.(?:h5|hdf5):(.+)", source):
        return inside[1]
    path = Path(source).resolve()
    return path.name if path.is_dir() else path.stem


def _check_output(output: Path, format: str, name: str, atoms: "Atoms") -> None:
    """Refuse before the work what could not be written after it."""
    from ase_hybridham.cli.source import refuse_unwritable
    from ase_hybridham.io import formats
    from ase_hybridham.store import DataSet

    writable = {known.name: known for known in formats().values() if known.write}
    if format not in (DATA_SET, *writable):
        raise ValueError(f"--format: expected one of {', '.join([DATA_SET, *writable])}, got {format!r}")
    refuse_unwritable(output)
    if format != DATA_SET:
        if check := writable[format].check_target:
            check(output, atoms)
    elif output.is_dir():
        raise ValueError(f"{output}: is a folder, a data set is a file; choose another -o, or --format deeph")
    elif output.exists():
        with DataSet(output) as data:
            if name in data:
                raise ValueError(f"{output}: holds a structure named {name} already; choose another -o")


def _given(args: argparse.Namespace, known: "LCAOSystem | None") -> "tuple[PairBlocks | None, PairBlocks | None]":
    """S that somebody gives, and the blocks whose pairs are those of H; with --cutoff H stands on others."""
    if args.overlap:
        given = load_overlap(args.overlap)
        return given, given
    if known is None or args.cutoff is not None:
        return None, None
    return known.overlap, known.operators[0]


def _pairs(args: argparse.Namespace, basis: "Basis", atoms: "Atoms", held: "PairBlocks | None") -> "PairList":
    """The pairs of H: up to --cutoff, else those of given blocks, else those within the model's radii."""
    from ase_hybridham.errors import CheckpointError
    from ase_hybridham.system import PairList

    lacking = sorted({symbol for symbol in atoms.get_chemical_symbols() if symbol not in basis})
    if lacking:
        raise CheckpointError(f"the model knows {', '.join(basis.atoms)}, the structure has {lacking[0]}")
    elements = sorted(set(atoms.numbers.tolist()))
    radii = {z: radius for z in elements if (radius := basis[z].cutoff) is not None}
    if args.cutoff is not None:
        pairs = PairList.from_atoms(atoms, args.cutoff)
    elif held is not None:
        if not held.basis.same_orbitals(basis):
            raise CheckpointError("its orbitals are not those of the model; with --cutoff its pairs are not used")
        pairs = held.pairs
    elif len(radii) == len(elements):
        pairs = PairList.from_atoms(atoms, radii)
    else:
        raise CheckpointError(f"holds no pairs, and {args.model} has no radii of its orbitals; give --cutoff R")
    _check_distances(pairs, radii, atoms)
    return pairs


def _check_distances(pairs: "PairList", radii: dict[int, float], atoms: "Atoms") -> None:
    """Refuse pairs that no model was trained for; tell if many are missing, which the others feel."""
    from ase_hybridham.cli.source import refuse_coinciding
    from ase_hybridham.errors import CheckpointError
    from ase_hybridham.system.pairs import outside_of_radii

    refuse_coinciding(pairs)
    if set(radii) != set(pairs.numbers.tolist()):
        return
    too_long, missing, expected = outside_of_radii(pairs, atoms, radii)
    if too_long is not None:
        raise CheckpointError(f"{too_long}; leave --cutoff out or lower it")
    if missing:
        logger.warning("%d of the %d pairs the model was trained with are missing here", missing, expected)


def _system(
    args: argparse.Namespace,
    model: "TrainedModel",
    atoms: "Atoms",
    hamiltonian: "tuple[PairBlocks, ...]",
    overlap: "PairBlocks | None",
) -> "LCAOSystem":
    from ase_hybridham import __version__
    from ase_hybridham.system import LCAOSystem, PairBlocks

    made = {"predicted": True, "model": args.model, "made_by": f"hybridham predict {__version__}"}
    return LCAOSystem(
        atoms,
        hamiltonian,
        None if overlap is None else PairBlocks(hamiltonian[0].pairs, model.basis, overlap.values),
        spin=model.spin,
        electrons=model.basis.electrons(atoms.numbers),
        potential_reference=model.potential_reference,
        provenance={**model.provenance, **made},
    )


def _write(system: "LCAOSystem", output: Path, format: str, name: str) -> None:
    from ase_hybridham.io import formats
    from ase_hybridham.store import append_systems

    if format == DATA_SET:
        append_systems(output, [(name, system)])
    elif write := formats()[format].write:
        write(system, output, predicted=True)


def _summary(result: dict[str, Any]) -> str:
    spin = {"spinor": "spinor, ", "collinear": "spin up and down, "}.get(result["spin"], "")
    lines = [
        f"{result['structure']}: {result['atoms']} atoms, {spin}{result['orbitals']} orbitals, "
        f"{result['pairs']} pairs up to {result['longest_pair_angstrom']:.3f} A"
    ]
    done = "the Hermitian part is written" if result["symmetrized"] else "written as it is, see --symmetrize"
    error = result["hermiticity_error_eV"]
    told = f"H differs from its adjoint by up to {error:.1e} eV, {done}" if error > UNSAID else "H is Hermitian"
    lines.append(f"{result['stage']}: {told}")
    place = f"{result['output']}:{result['name']}" if result["format"] == DATA_SET else result["output"]
    origin = {
        None: "H, no S (--basis-dir or --overlap gives it)",
        "structure": "H and the S of the structure",
        "basis": "H, and S from the basis",
    }
    content = origin.get(result["overlap_from"], f"H and the S of {result['overlap_from']}")
    lines.append(f"{place}: {content}; {result['seconds']:.2f} s")
    return "\n".join(lines)
