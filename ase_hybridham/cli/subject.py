"""The system a command solves: which options say what it is, H and S, and its Fermi level."""

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ase_hybridham.cli.overlap_options import (
    REMEDY,
    add_basis_arguments,
    add_overlap_argument,
    load_overlap,
    parse_basis,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ase_hybridham.model import Ensemble
    from ase_hybridham.solve import Solver
    from ase_hybridham.system import LCAOSystem

__all__ = [
    "GROUPS",
    "add_subject",
    "add_system_options",
    "groups_of",
    "layers_in",
    "level_of",
    "load_subject",
    "naming",
    "solvable",
    "solver_of",
    "subject_of",
    "thresholds",
]

# word of --by -> keys of `solve.OrbitalGroups`
GROUPS = {"element": ("symbol",), "shell": ("symbol", "l"), "atom": ("index", "symbol"), "layer": ("layer",)}


def add_subject(parser: argparse.ArgumentParser) -> None:
    """SOURCE and STRUCTURE."""
    parser.add_argument("source", metavar="SOURCE", help="a checkpoint, data.h5:NAME, or another program's files")
    parser.add_argument(
        "structure",
        metavar="STRUCTURE",
        nargs="?",
        help="for a checkpoint: a file that ASE reads, a DeepH folder or data.h5:NAME (these two give S and the pairs)",
    )


def add_system_options(parser: argparse.ArgumentParser) -> None:
    """Options of `load_subject` and `thresholds`."""
    add_overlap_argument(parser)
    add_basis_arguments(parser)
    parser.add_argument(
        "--overlap-threshold",
        type=float,
        metavar="S",
        help="omit directions in which S(k) has an eigenvalue below S (default 1e-5, of predicted H 1e-4; 0: none)",
    )
    parser.add_argument(
        "--solver",
        choices=["auto", "dense", "sparse"],
        default="auto",
        help="dense: all states; sparse: those near the Fermi level; auto: the first up to 2500 orbitals",
    )
    parser.add_argument("--states", type=int, metavar="N", help="of the sparse solver, at a k-point (default 50)")
    parser.add_argument("--valence", nargs="+", action="extend", default=[], metavar="ELEMENT=N", help="as in C=4 S=6")
    parser.add_argument("--format", help="format of SOURCE, where it should not be recognised")
    parser.add_argument("--device", default="auto", help="where a checkpoint computes (default auto)")


def subject_of(args: argparse.Namespace) -> str:
    """What errors are about: the structure, or the source that holds it."""
    return str(args.structure or args.source)


def thresholds(args: argparse.Namespace) -> tuple[float, float]:
    """For S(k) of SOURCE, whose H may be predicted, and of a reference."""
    from ase_hybridham.cli.source import kind_of
    from ase_hybridham.solve import OVERLAP_THRESHOLD, PREDICTED_THRESHOLD

    given = args.overlap_threshold
    if given is not None:
        if not 0 <= given < 1:
            raise ValueError(f"--overlap-threshold: expected a number from 0 to 1, got {given}")
        return given, given
    predicted = not args.format and kind_of(args.source) == "checkpoint"
    return PREDICTED_THRESHOLD if predicted else OVERLAP_THRESHOLD, OVERLAP_THRESHOLD


def load_subject(
    args: argparse.Namespace, valence: dict[str, float], threshold: float, ensemble: "Ensemble | None" = None
) -> "LCAOSystem":
    """H and S: predicted, by an ensemble if there is one, or as they are stored."""
    with naming(subject_of(args), args.source, args.overlap, args.basis_dir, "--basis"):
        return _loaded(args, valence, threshold, ensemble)


def _loaded(
    args: argparse.Namespace, valence: dict[str, float], threshold: float, ensemble: "Ensemble | None"
) -> "LCAOSystem":
    from ase_hybridham.cli.naming import only_structure
    from ase_hybridham.cli.source import kind_of, load_system
    from ase_hybridham.io import read_system
    from ase_hybridham.solve import with_electrons

    kind = "system" if args.format else kind_of(args.source)
    if kind == "checkpoint":
        from ase_hybridham.model.checkpoint import find_model

        find_model(args.source)  # a mistyped folder looks like the name of a model
        if args.structure is None:
            raise ValueError(f"{args.source} is a model: expected a STRUCTURE to predict, as in bands MODEL STRUCTURE")
        system = _predicted(args, ensemble)
        # imported models know no valences
        return with_electrons(system, valence, overlap_threshold=threshold) if valence else system
    options = (("STRUCTURE", args.structure), ("--overlap", args.overlap), ("--basis-dir", args.basis_dir))
    for option, value in options:
        if value is not None:
            raise ValueError(f"{option} {value}: only a checkpoint takes one, {args.source} holds its own")
    if kind == "dataset":
        system = load_system(args.source, valence=valence, overlap_threshold=threshold)
        return solvable(args.source, system)
    path = args.source if args.format else only_structure(args.source)
    system = solvable(args.source, read_system(path, args.format))
    # without valences counted only if the level needs it
    return with_electrons(system, valence, overlap_threshold=threshold) if valence else system


def solvable(source: str, system: "LCAOSystem") -> "LCAOSystem":
    """The system, if it has H, and S where that is needed."""
    from ase_hybridham.errors import FormatError

    if not system.hamiltonian:
        raise FormatError(f"{source}: holds S only; bands need H too")
    if system.overlap is None and not system.basis.orthogonal:
        raise FormatError(
            f"{source}: holds no S, and its basis is not orthogonal; add it (overlaps.h5; DeepH-dock: overlap.h5)"
        )
    return system


def layers_in(system: "LCAOSystem") -> "tuple[NDArray, ...]":
    """Atoms of every layer, the lowest first.

    Raises
    ------
    ValueError
        If the structure does not consist of layers.
    """
    from ase_hybridham.structures import layers_of

    found = layers_of(system.atoms)
    if found is None:
        raise ValueError(f"{system.atoms.symbols}: expected a structure of layers in one plane, and it is none")
    return found.members


def groups_of(system: "LCAOSystem", word: str | None) -> dict[str, Any]:
    """Arguments `by` and `labels` of the functions of `solve` for a word of --by."""
    if word != "layer":
        return {"by": GROUPS[word] if word else ()}
    layer = {int(atom): str(n) for n, members in enumerate(layers_in(system), 1) for atom in members}
    return {"by": GROUPS[word], "labels": {"layer": [layer[atom] for atom in range(len(system.atoms))]}}


@contextmanager
def naming(source: str, *others: str | None) -> Iterator[None]:
    """Errors inside say which source they are about."""
    try:
        yield
    except ValueError as error:
        if any(name in str(error) for name in (source, *others) if name):
            raise
        raise ValueError(f"{source}: {error}") from error


def _predicted(args: argparse.Namespace, ensemble: "Ensemble | None") -> "LCAOSystem":
    from ase_hybridham.calculator import HybridHamCalculator
    from ase_hybridham.cli.source import SHORTEST, load_structure, refuse_coinciding
    from ase_hybridham.errors import OverlapError
    from ase_hybridham.system import PairList

    atoms, known = load_structure(args.structure)
    refuse_coinciding(PairList.from_atoms(atoms, SHORTEST))
    overlap = load_overlap(args.overlap) if args.overlap else None if known is None else known.overlap
    names = parse_basis(args.basis, args.basis_dir)
    options = {"overlap": overlap, "basis_dir": args.basis_dir, "basis_names": names}
    calculator = HybridHamCalculator(ensemble or args.source, device=args.device, atoms=atoms, **options)
    try:
        return calculator.get_system()
    except OverlapError as error:
        if calculator.overlap.is_known:
            raise
        raise OverlapError(
            f"{args.structure}: holds no S, and {args.source} cannot compute it (its basis has no radial functions); "
            f"{REMEDY}"
        ) from error


def solver_of(args: argparse.Namespace, system: "LCAOSystem") -> "Solver":
    """Who solves a system; one for all that is asked of it."""
    from ase_hybridham.solve import SparseSolver, pick_solver

    if args.states is not None and args.states < 1:
        raise ValueError(f"--states: expected 1 or more, got {args.states}")
    logging.getLogger("ase_hybridham.solve.windowed").setLevel(logging.INFO)  # tells what it will cost
    picked = pick_solver(system, args.solver)
    if args.states is None:
        return picked or "dense"
    if picked is None and args.solver == "dense":
        raise ValueError(f"--states {args.states}: the dense solver finds all states; leave it out")
    return SparseSolver(args.states)


def level_of(
    system: "LCAOSystem", mesh: list[int] | None, threshold: float, solver: "Solver" = "auto"
) -> tuple[float, str]:
    """The level in eV, and where it comes from."""
    from ase_hybridham.solve import fermi_level, k_mesh, symmetry_of, with_electrons

    if system.fermi_level is not None and mesh is None:
        return float(system.fermi_level), "stored"
    complete = with_electrons(system, overlap_threshold=threshold)
    if complete.electrons is None:
        unknown = sorted(symbol for symbol, atom in complete.basis.atoms.items() if atom.valence is None)
        raise ValueError(f"Fermi level: not stored, and a valence is unknown; give --valence {'=N '.join(unknown)}=N")
    k, w = k_mesh(system.atoms, mesh, corners=True, **symmetry_of(system))
    return fermi_level(complete, k, w, solver=solver, overlap_threshold=threshold), "electrons"
