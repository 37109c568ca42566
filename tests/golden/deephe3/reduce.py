"""Makes `expected.h5` of a recording: python reduce.py RECORDING OUT (folder, and the file).

RECORDING has checkpoint/ and structure/, and golden.h5 where features were recorded too.
"""

import json
import sys
from pathlib import Path

import h5py
import numpy as np

# component m = -l .. l <- DeepH's order
OPENMX = {0: [0], 1: [1, 2, 0], 2: [2, 4, 0, 3, 1]}
N_HOPPINGS = 10


def main(recording: Path, out: Path) -> None:
    info = json.loads((recording / "checkpoint/src/dataset_info.json").read_text())
    degrees = dict(zip(info["index_to_Z"], info["orbital_types"], strict=True))
    if not (recording / "golden.h5").is_file():
        return blocks_alone(recording / "structure", out, degrees, info["spinful"])
    with (
        h5py.File(recording / "golden.h5") as full,
        h5py.File(recording / "structure/hamiltonians_pred.h5") as blocks,
        h5py.File(out, "w") as small,
    ):
        keys, numbers = full["input/edge_key"][:], full["input/atomic_numbers"][:]
        onsite = (keys[:, :3] == 0).all(1) & (keys[:, 3] == keys[:, 4])
        hoppings = np.random.default_rng(0).choice(np.flatnonzero(~onsite), N_HOPPINGS, replace=False)
        rows = np.sort(np.concatenate([np.flatnonzero(onsite), hoppings]))
        for name in ("atomic_numbers", "positions", "lattice"):
            small[name] = full[f"input/{name}"][:]
        small["pairs"], small["rows"] = keys.astype(np.int16), rows
        for name, values in full["block"].items():
            kind, block = name.split("_")[0], name.split(".")[1]
            small[f"{kind}s.{block}"] = values[:] if kind == "node" else values[:][rows]
        small["out"] = full["top/lin_edge"][:][rows]
        for row in rows.tolist():
            i, j = (order(degrees[numbers[atom - 1]], info["spinful"]) for atom in keys[row, 3:])
            small[f"blocks/{row}"] = blocks[str(keys[row].tolist())][:][np.ix_(i, j)]


def blocks_alone(structure: Path, out: Path, degrees: dict[int, list[int]], spinful: bool) -> None:
    numbers, positions, lattice = (
        np.loadtxt(structure / f"{name}.dat") for name in ("element", "site_positions", "lat")
    )
    with h5py.File(structure / "hamiltonians_pred.h5") as blocks, h5py.File(out, "w") as small:
        small["atomic_numbers"], small["positions"], small["lattice"] = numbers.astype(int), positions.T, lattice.T
        small["pairs"] = np.array([json.loads(key) for key in blocks], dtype=np.int16)
        for row, (key, block) in enumerate(blocks.items()):
            i, j = (order(degrees[int(numbers[atom - 1])], spinful) for atom in json.loads(key)[3:])
            small[f"blocks/{row}"] = block[:][np.ix_(i, j)]


def order(degrees: list[int], spinful: bool) -> list[int]:
    """Rows of DeepH's block in our order."""
    out, start = [], 0
    for l in degrees:
        out += [start + k for k in OPENMX[l]]
        start += 2 * l + 1
    return out + [start + k for k in out] if spinful else out


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
