"""Checkpoint folders as DeepH-E3 writes them, of random networks, and what the outputs of a network mean."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from e3nn import o3
from e3nn.o3 import Irrep, Irreps
from numpy.typing import NDArray

from tests.model.deephe3_reference import DeepHE3Reference, ordered, reachable, sign

Bases = Mapping[int, Sequence[int]]
Target = dict[tuple[int, int], tuple[int, int]]


def all_targets(bases: Bases) -> list[Target]:
    """Targets of the option "all": shell pairs of the same (l, n; l, n) in all element pairs share one."""
    labels: dict[tuple, Target] = {}
    for a in sorted(bases):
        for b in sorted(bases):
            for row, l1 in enumerate(bases[a]):
                for column, l2 in enumerate(bases[b]):
                    label = (l1, list(bases[a][:row]).count(l1), l2, list(bases[b][:column]).count(l2))
                    labels.setdefault(label, {})[a, b] = (row, column)
    return list(labels.values())


def target_irreps(targets: list[Target], bases: Bases, spinful: bool) -> Irreps:
    """One entry per irrep of every target; with spin the whole list stands twice (real, imaginary)."""
    out: list[tuple[int, tuple[int, int]]] = []
    for target in targets:
        (a, b), (row, column) = next(iter(target.items()))
        l1, l2 = bases[a][row], bases[b][column]
        degrees = list(range(abs(l1 - l2), l1 + l2 + 1))
        if spinful:
            degrees += [J for L in degrees for J in range(abs(L - 1), L + 2)]
        out += [(1, (L, (-1) ** (l1 + l2))) for L in degrees]
    return Irreps(out * 2 if spinful else out)


def three_j(l1: int, l2: int, l3: int, normalization: str) -> NDArray:
    """3j symbols of norm 1."""
    table = o3.wigner_3j(l1, l2, l3, dtype=torch.float64).numpy()
    return table * sign(l1, l2, l3) if normalization == "path035" else table


def blocks_from_outputs(
    out: NDArray,
    pairs: Sequence[tuple[int, int]],
    bases: Bases,
    *,
    spinful: bool = False,
    normalization: str = "path035",
) -> list[NDArray]:
    """Blocks of every edge, in the order m = -l .. l, from outputs (n_edges, dim) and atomic numbers of i and j."""
    targets = all_targets(bases)
    size = out.shape[1] // 2 if spinful else out.shape[1]
    values = out[:, :size] + 1j * out[:, size:] if spinful else out
    blocks = [_empty(bases, a, b, spinful) for a, b in pairs]
    start = 0
    for target in targets:
        dim = target_irreps([target], bases, False).dim * (4 if spinful else 1)
        part, start = values[:, start : start + dim], start + dim
        for e, (a, b) in enumerate(pairs):
            if (a, b) in target:
                row, column = target[a, b]
                here = _block(part[e], bases[a][row], bases[b][column], spinful, normalization)
                blocks[e][..., _orbitals(bases[a], row), _orbitals(bases[b], column)] = here
    assert start == size
    if spinful:
        return [block.transpose(0, 2, 1, 3).reshape(2 * block.shape[2], -1) for block in blocks]
    return blocks


def _empty(bases: Bases, a: int, b: int, spinful: bool) -> NDArray:
    n_i, n_j = (sum(2 * l + 1 for l in bases[z]) for z in (a, b))
    return np.zeros((2, 2, n_i, n_j), complex) if spinful else np.zeros((n_i, n_j))


def _orbitals(degrees: Sequence[int], shell: int) -> slice:
    start = sum(2 * l + 1 for l in degrees[:shell])
    return slice(start, start + 2 * degrees[shell] + 1)


def _block(v: NDArray, l1: int, l2: int, spinful: bool, normalization: str) -> NDArray:
    """(2 l1+1, 2 l2+1), or with leading spin axes (2, 2, ..)."""
    degrees = range(abs(l1 - l2), l1 + l2 + 1)
    size = (2 * l1 + 1) * (2 * l2 + 1)
    tables = [three_j(l1, l2, L, normalization) for L in degrees]
    orbital = np.concatenate(tables, axis=2)
    if not spinful:
        return orbital @ v
    scalar, start, vector = v[:size], size, []
    for L in degrees:
        here = np.zeros((2 * L + 1, 3), complex)
        for J in range(abs(L - 1), L + 2):
            here += three_j(L, 1, J, normalization) @ v[start : start + 2 * J + 1]
            start += 2 * J + 1
        vector.append(here)
    assert start == len(v)
    y, z, x = np.concatenate(vector).T
    spins = np.array([[scalar + z, -1j * y + x], [1j * y + x, scalar - z]]) / math.sqrt(2)
    return np.einsum("abk,stk->stab", orbital, spins)


def build_arguments(
    bases: Bases, irreps_mid: str, *, embed: int = 8, lmax: int = 4, n_blocks: int = 3, r_max: float = 6.0,
    spinful: bool = False,
) -> dict[str, object]:  # fmt: skip
    """Arguments of `DeepHE3Reference` as DeepH-E3 derives them from its options."""
    out = target_irreps(all_targets(bases), bases, spinful)
    mid, post = Irreps(irreps_mid), ordered(out)
    sh = Irreps.spherical_harmonics(lmax)
    post_node = mid
    if spinful and Irrep("0o") in post and Irrep("0o") not in reachable(post, mid, sh):
        post_node = mid + Irreps([(mid.count("1o"), "1e")])
    return {
        "num_species": len(bases),
        "irreps_embed_node": f"{embed}x0e",
        "irreps_edge_init": f"{embed}x0e",
        "irreps_sh": str(sh),
        "irreps_mid_node": str(mid),
        "irreps_post_node": str(post_node),
        "irreps_out_node": "1x0e",
        "irreps_mid_edge": str(mid),
        "irreps_post_edge": str(post),
        "irreps_out_edge": str(out),
        "num_block": n_blocks,
        "r_max": r_max,
    }


SWITCHES = {"use_sc": True, "no_parity": False, "use_sbf": False, "only_ij": False, "if_sort_irreps": False}


def arguments_of(folder: Path) -> dict[str, object]:
    """Arguments of `DeepHE3Reference` that a folder with build_model_args.json tells."""
    arguments = json.loads((folder / "src/build_model_args.json").read_text())
    return {name: value for name, value in arguments.items() if name not in SWITCHES}


def write_folder(
    folder: Path, net: DeepHE3Reference, arguments: Mapping[str, object], bases: Bases, spinful: bool = False
) -> Path:
    """The folder that training would have left."""
    (folder / "src").mkdir(parents=True)
    # 3j symbols as e3nn has them, which old ones have with other signs
    old = net.normalization == "path035"
    state = {name: tensor for name, tensor in net.state_dict().items() if not (old and "_w3j_" in name)}
    torch.save({"epoch": 3, "val_loss": 0.1, "state_dict": state}, folder / "best_model.pkl")
    lines = [f"    {name}={value!r}," for name, value in {**arguments, **SWITCHES}.items()]
    text = ["from e3_network import Network", "net = Network(", *lines, ")", ""]
    (folder / "src/build_model.py").write_text("\n".join(text))
    info = {"spinful": spinful, "index_to_Z": sorted(bases), "orbital_types": [list(bases[z]) for z in sorted(bases)]}
    (folder / "src/dataset_info.json").write_text(json.dumps(info))
    targets = [{f"{a} {b}": list(t) for (a, b), t in target.items()} for target in all_targets(bases)]
    (folder / "src/target_blocks.json").write_text(json.dumps(targets))
    embed, mid, r_max = (arguments[name] for name in ("irreps_embed_node", "irreps_mid_node", "r_max"))
    options = {
        "cutoff_radius": r_max,
        "spherical_harmonics_lmax": Irreps(arguments["irreps_sh"]).lmax,
        "irreps_embed": embed,
        "irreps_mid": mid,
        "num_blocks": arguments["num_block"],
    }
    network = "\n".join(f"{name} = {value}" for name, value in options.items())
    (folder / "src/train.ini").write_text(f"[target]\ntarget_blocks_type = all\n\n[network]\n{network}\n")
    return folder
