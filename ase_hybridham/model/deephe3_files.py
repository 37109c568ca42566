"""What DeepH-E3's checkpoint folders hold (Gong et al. 2023, doi:10.1038/s41467-023-38468-8).

The weights stand in best_model.pkl; what was built, in the texts of src/: train.ini, dataset_info.json,
target_blocks.json and build_model.py, a call with one argument a line, of which only the literals are taken.
"""

import ast
import configparser
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from e3nn.o3 import Irrep, Irreps
from numpy.typing import NDArray

from ase_hybridham.errors import CheckpointError
from ase_hybridham.model.deephe3_weights import (
    L_MAX,
    Convention,
    Product,
    Update,
    check_weights,
    convention_of,
    gaussian_reach,
    read_weights,
    stated_convention,
)

__all__ = ["DeepHE3Checkpoint", "read_deephe3"]

WEIGHTS = ("best_model.pkl", "best_model.pkl.gz", "model.pkl", "model.pkl.gz")
# what the program takes where train.ini says nothing
DEFAULTS = {
    "cutoff_radius": "7.2",
    "spherical_harmonics_lmax": "4",
    "irreps_embed": "64x0e",
    "irreps_mid": "64x0e+32x1o+16x2e+8x3o+8x4e",
    "num_blocks": "3",
}
# options of which we know one value only
FIXED = {"use_sc": True, "no_parity": False, "use_sbf": False, "only_ij": False, "if_sort_irreps": False}
IRREPS = (
    "irreps_embed_node", "irreps_edge_init", "irreps_sh", "irreps_mid_node", "irreps_post_node", "irreps_out_node",
    "irreps_mid_edge", "irreps_post_edge", "irreps_out_edge",
)  # fmt: skip
SPECIES = ("num_species", "index_to_Z")

Target = Mapping[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class DeepHE3Checkpoint:
    """A trained network of DeepH-E3.

    Attributes
    ----------
    folder : Path
    bases : mapping of int to tuple of int
        l of every shell of each element, atomic numbers ascending.
    spinful : bool
    targets : tuple of mappings
        For each output: (Z of i, Z of j) -> (shell of i, shell of j).
    r_max : float
        Where the Gaussians of the radial networks end, angstrom; it selects no pairs.
    embedding_reach : float
        The same for the first features of pairs.
    node_updates, edge_updates : tuples of Update
        Of every block.
    out : Irreps
        All outputs in their order.
    state : mapping of str to array, float64
        Parameters by their names in the file.
    convention : Convention
        Of the version of e3nn.
    """

    folder: Path
    bases: Mapping[int, tuple[int, ...]]
    spinful: bool
    targets: tuple[Target, ...]
    r_max: float
    embedding_reach: float
    node_updates: tuple[Update, ...]
    edge_updates: tuple[Update, ...]
    out: Irreps
    state: Mapping[str, NDArray[np.float64]]
    convention: Convention


def read_deephe3(folder: str | Path, e3nn: str | None = None) -> DeepHE3Checkpoint:
    """The network of a checkpoint folder of DeepH-E3.

    Parameters
    ----------
    folder : str or Path
        With best_model.pkl (or model.pkl; .gz of either) and src/.
    e3nn : str, optional
        Version that it ran on. The file tells by itself, but for 0.4.0 and 0.4.1, which are taken for 0.3.5.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, weights do not fit what was built, or an option is one we do not know.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: expected the folder of a DeepH-E3 checkpoint; give the one with {WEIGHTS[0]}")
    path = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise CheckpointError(f"{folder}: no {WEIGHTS[0]} and no model.pkl; give the folder that training wrote")
    bases, spinful = _dataset_info(folder / "src/dataset_info.json")
    targets = _targets(folder / "src/target_blocks.json", bases)
    out = _output_irreps(targets, bases, spinful)
    options = _options(folder / "src/train.ini")
    state = read_weights(path)
    reach = gaussian_reach(path, state, "basis")
    where, arguments = _arguments(folder)
    if arguments is None:
        where = folder / "src/train.ini"
        arguments = _derived(where, options, out, spinful, reach)
    irreps = {name: _irreps(where, name, arguments) for name in IRREPS}
    _check_irreps(where, irreps, out)
    n_blocks, r_max = _numbers(where, arguments)
    if not np.isclose(reach, r_max, rtol=1e-5):
        raise CheckpointError(
            f"{path}: its Gaussians end at {reach:g} angstrom, {where} has r_max = {r_max:g}; weights and src/ are of "
            "different networks"
        )
    node_updates, edge_updates = _updates(irreps, n_blocks, len(bases))
    check_weights(path, state, [*node_updates, *edge_updates], len(bases), out)
    convention = convention_of(path, state)
    if e3nn is not None:
        convention = stated_convention(path, convention, e3nn)
    if convention is None:
        if spinful or max(map(max, bases.values())) > 1:
            raise CheckpointError(
                f"{path}: nothing tells the version of e3nn, on which signs of H depend; such a network is unknown"
            )
        convention = Convention(table=False, element=True)
    return DeepHE3Checkpoint(
        folder, bases, spinful, targets, reach, gaussian_reach(path, state, "distance_expansion"),
        node_updates, edge_updates, out, state, convention,
    )  # fmt: skip


def _updates(
    irreps: Mapping[str, Irreps], n_blocks: int, n_species: int
) -> tuple[tuple[Update, ...], tuple[Update, ...]]:
    node, edge, sh = irreps["irreps_embed_node"], irreps["irreps_edge_init"], irreps["irreps_sh"]
    nodes, edges = [], []
    for block in range(n_blocks):
        name = "mid" if block < n_blocks - 1 else "post"
        product = Product((node, node, edge), sh, irreps[f"irreps_{name}_node"])
        nodes.append(Update(f"node_update_blocks.{block}", node, product, n_species))
        node = product.features
        product = Product((node, node, edge), sh, irreps[f"irreps_{name}_edge"])
        edges.append(Update(f"edge_update_blocks.{block}", edge, product, n_species**2))
        edge = product.features
    return tuple(nodes), tuple(edges)


# -- texts


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: is missing; copy src/ of the training folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON ({_short(error)}); copy src/ of the training folder") from None


def _dataset_info(path: Path) -> tuple[dict[int, tuple[int, ...]], bool]:
    """l of the shells of every element, and whether there is spin."""
    try:
        entries = _json(path)
        spinful, numbers, shells = entries["spinful"], entries["index_to_Z"], entries["orbital_types"]
        bases = {_whole(z): tuple(_whole(l) for l in degrees) for z, degrees in zip(numbers, shells, strict=True)}
    except (KeyError, TypeError, IndexError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{path}: expected spinful, index_to_Z and orbital_types ({_short(error)}); copy src/ of the training"
        ) from None
    if not isinstance(spinful, bool):
        raise CheckpointError(f"{path}: expected true or false for spinful, got {spinful!r}; copy src/ of the training")
    if list(bases) != sorted(bases) or not bases or min(bases) < 1 or max(bases) >= len(chemical_symbols):
        raise CheckpointError(f"{path}: expected ascending atomic numbers as index_to_Z, got {list(bases)}")
    for z, degrees in bases.items():
        if not degrees or not all(0 <= l <= 5 for l in degrees):
            raise CheckpointError(f"{path}: expected the l (0 to 5) of every shell of {chemical_symbols[z]}")
    return bases, spinful


def _targets(path: Path, bases: Mapping[int, tuple[int, ...]]) -> tuple[Target, ...]:
    """Which pair of shells every output is for; together they must give all of H."""
    try:
        targets = tuple(dict(_target_pair(*item) for item in entry.items()) for entry in _json(path))
        degrees = [{(bases[a][s], bases[b][t]) for (a, b), (s, t) in target.items()} for target in targets]
    except (AttributeError, KeyError, TypeError, IndexError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f'{path}: expected a list of {{"Z Z": [shell, shell]}} of the elements and shells of dataset_info.json '
            f"({_short(error)}); copy src/ of the training folder"
        ) from None
    for n, found in enumerate(degrees):
        if len(found) != 1:
            raise CheckpointError(
                f"{path}: shell pairs of target {n} have different l; copy src/ of the training folder"
            )
    listed = [(pair, shells) for target in targets for pair, shells in target.items()]
    wanted = {
        ((a, b), (s, t)) for a in bases for b in bases for s in range(len(bases[a])) for t in range(len(bases[b]))
    }
    if len(listed) != len(set(listed)) or set(listed) != wanted:
        raise CheckpointError(
            f"{path}: expected all {len(wanted)} pairs of shells once, got {len(set(listed) & wanted)}; networks for a "
            "part of H (target_blocks_type other than all) cannot be imported"
        )
    return targets


def _target_pair(key: str, shells: Sequence[int]) -> tuple[tuple[int, int], tuple[int, int]]:
    (a, b), (s, t) = key.split(), shells
    return (int(a), int(b)), (_whole(s), _whole(t))


def _options(path: Path) -> dict[str, str] | None:
    """The network options of train.ini; None without the file."""
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=("#", ";"), strict=False)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, configparser.Error) as error:
        raise CheckpointError(f"{path}: not an ini file ({_short(error)}); copy src/ of the training folder") from None
    options = dict(parser["network"]) if parser.has_section("network") else {}
    options = {name: value for name, value in options.items() if value.strip()}
    for name in ("ignore_parity", "only_ij"):
        if options.pop(name, "false").strip().lower() not in ("false", "no", "off", "0"):
            raise CheckpointError(f"{path}: expected {name} = False; networks with it cannot be imported")
    if "spherical_basis_irreps" in options:
        raise CheckpointError(f"{path}: networks with spherical_basis_irreps cannot be imported")
    return options


def _arguments(folder: Path) -> tuple[Path, dict[str, Any] | None]:
    """What the network was built with, from the first text that is there."""
    path = folder / "src/build_model.py"
    if path.is_file():
        arguments = _call_literals(path)
    else:
        path = folder / "src/build_model_args.json"
        if not path.is_file():
            return path, None
        arguments = _json(path)
        if not isinstance(arguments, dict):
            raise CheckpointError(f"{path}: expected a JSON object; copy src/ of the training folder")
    for name, value in FIXED.items():
        if arguments.pop(name, None) is not value:
            raise CheckpointError(f"{path}: expected {name} = {value}; other networks cannot be imported")
    unknown = set(arguments) - {*IRREPS, *SPECIES, "num_block", "r_max"}
    if unknown:
        raise CheckpointError(f"{path}: unknown argument {min(unknown)}; this variant of DeepH-E3 cannot be imported")
    return path, arguments


def _call_literals(path: Path) -> dict[str, Any]:
    """Literal keyword arguments of the call in a Python text; nothing is executed."""
    try:
        with warnings.catch_warnings():  # of odd escapes in strings
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and len(node.keywords) > 1]
        return {word.arg or "**": ast.literal_eval(word.value) for word in calls[0].keywords}
    except (OSError, SyntaxError, ValueError, TypeError, IndexError, RecursionError, MemoryError) as error:
        raise CheckpointError(
            f"{path}: expected a call with an argument a line, name=value ({_short(error)}); copy src/ of the training"
        ) from None


def _derived(
    where: Path, options: Mapping[str, str] | None, out: Irreps, spinful: bool, r_max: float
) -> dict[str, Any]:
    """What the program builds with these options."""
    if options is None:
        raise CheckpointError(
            f"{where}: neither build_model.py nor train.ini is there; copy src/ of the training folder"
        )
    unknown = set(options) - set(DEFAULTS)
    if unknown:
        raise CheckpointError(f"{where}: unknown option {min(unknown)}; add build_model.py of the training folder")
    values = DEFAULTS | dict(options)
    try:
        sh = Irreps.spherical_harmonics(min(int(values["spherical_harmonics_lmax"]), L_MAX + 1))
        mid, n_blocks = Irreps(values["irreps_mid"]), int(values["num_blocks"])
    except (ValueError, IndexError, AssertionError) as error:
        raise CheckpointError(f"{where}: options of the network do not make sense ({_short(error)})") from None
    post_edge = Irreps(sorted(out, key=lambda entry: (entry.ir.l, entry.ir.p))).simplify()
    made = {ir for _, a in mid for _, b in sh for ir in a * b}
    # 0o outputs, which only spin has, need a pseudovector to be made from; what others add is not repeated here
    extra = Irreps([(mid.count("1o"), "1e")]) if Irrep("0o") in post_edge and Irrep("0o") not in made else Irreps("")
    made |= {ir for mul, a in extra if mul for _, b in sh for ir in a * b}
    if spinful and any(entry.ir not in made for entry in post_edge):
        raise CheckpointError(f"{where}: what nodes need for all outputs with spin is known to build_model.py; add it")
    return {
        "irreps_embed_node": values["irreps_embed"],
        "irreps_edge_init": values["irreps_embed"],
        "irreps_sh": sh,
        "irreps_mid_node": mid,
        "irreps_post_node": mid + extra,
        "irreps_out_node": "1x0e",
        "irreps_mid_edge": mid,
        "irreps_post_edge": post_edge,
        "irreps_out_edge": out,
        "num_block": n_blocks,
        "r_max": r_max,
    }


def _output_irreps(targets: Sequence[Target], bases: Mapping[int, tuple[int, ...]], spinful: bool) -> Irreps:
    """Of all outputs: for each target every L; with spin then L x 1, and the whole again for imaginary parts."""
    out: list[tuple[int, tuple[int, int]]] = []
    for target in targets:
        (a, b), (row, column) = next(iter(target.items()))
        l1, l2 = bases[a][row], bases[b][column]
        degrees = list(range(abs(l1 - l2), l1 + l2 + 1))
        if spinful:
            degrees += [J for L in degrees for J in range(abs(L - 1), L + 2)]
        out += [(1, (J, (-1) ** (l1 + l2))) for J in degrees]
    return Irreps(out * 2 if spinful else out)


def _numbers(where: Path, arguments: Mapping[str, Any]) -> tuple[int, float]:
    """Number of blocks and r_max."""
    n_blocks, r_max = arguments.get("num_block"), arguments.get("r_max")
    if not isinstance(n_blocks, int) or not 1 <= n_blocks <= 1000:
        raise CheckpointError(f"{where}: expected num_block = 1, 2, ..., got {n_blocks!r}; copy src/ from the training")
    if not isinstance(r_max, int | float) or not 0 < r_max < 1e6:
        raise CheckpointError(f"{where}: expected r_max > 0 angstrom, got {r_max!r}; copy src/ from the training")
    return n_blocks, float(r_max)


def _irreps(where: Path, name: str, arguments: Mapping[str, Any]) -> Irreps:
    try:
        irreps = Irreps(arguments[name])
    except (KeyError, ValueError, TypeError, IndexError, AssertionError):
        raise CheckpointError(
            f"{where}: expected irreps as {name}, got {arguments.get(name)!r}; copy src/ of the training folder"
        ) from None
    return Irreps([entry for entry in irreps if entry.mul])


def _check_irreps(where: Path, irreps: Mapping[str, Irreps], out: Irreps) -> None:
    """That this is a network of the kind we know."""
    embed, sh = irreps["irreps_embed_node"], irreps["irreps_sh"]
    for name, found in irreps.items():
        if found and found.lmax > L_MAX:
            raise CheckpointError(f"{where}: {name}: expected l up to {L_MAX}, got {found.lmax}; it has no table")
    if len(embed) != 1 or embed[0].ir != Irrep("0e") or embed != irreps["irreps_edge_init"]:
        raise CheckpointError(f"{where}: expected scalars, the same for nodes and edges, as embedding, got {embed}")
    if not sh or sh != Irreps.spherical_harmonics(sh.lmax):
        raise CheckpointError(f"{where}: expected 1x0e+1x1o+1x2e+... as irreps_sh, got {sh}")
    if irreps["irreps_mid_node"] != irreps["irreps_mid_edge"]:
        raise CheckpointError(f"{where}: nodes and edges with different irreps_mid cannot be imported")
    for name in ("irreps_mid_node", "irreps_post_node", "irreps_post_edge"):
        kinds = [ir for _, ir in irreps[name]]
        if Irrep("0e") not in kinds or len(set(kinds)) != len(kinds):
            raise CheckpointError(f"{where}: {name} = {irreps[name]}: expected 0e, and every irrep at most once")
    if irreps["irreps_out_edge"] != out:
        raise CheckpointError(
            f"{where}: irreps_out_edge does not fit target_blocks.json and dataset_info.json; these files are of "
            "different networks"
        )


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"expected a whole number, got {value!r}")
    return value


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
