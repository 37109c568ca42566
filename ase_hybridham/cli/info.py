"""hybridham info: what a data set or a checkpoint holds."""

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase_hybridham.store import DataSet

BIN = 0.5  # angstrom
SAMPLE = 50  # structures whose matrices are read for the table of distances
BAR = 40  # characters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="DATA|CKPT", help="a data set, or a checkpoint (file or name)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the content as text or JSON."""
    from ase_hybridham.cli.source import kind_of

    kind = kind_of(args.source)
    if kind == "system":
        raise ValueError(
            f"{args.source}: expected a data set or a checkpoint; `hybridham convert` makes a data set of it"
        )
    if kind == "checkpoint":
        from ase_hybridham.model.checkpoint import read_metadata

        metadata = read_metadata(args.source)
        print(json.dumps(metadata) if args.json else _checkpoint_text(args.source, metadata))
        return 0
    from ase_hybridham.store import DataSet

    with DataSet(args.source) as data:
        content = describe(data)
    print(json.dumps(content) if args.json else _text(content))
    return 0


def describe(data: "DataSet") -> dict[str, Any]:
    """Plain JSON types: structures, elements, basis, splits, energies, and H against distance."""
    import numpy as np

    structures = [data.atoms(name) for name in data]
    levels = [level for level in map(data.fermi_level, data) if level is not None]
    symbols = np.concatenate([atoms.get_chemical_symbols() for atoms in structures]) if structures else np.array([])
    return {
        "kind": "dataset",
        "path": str(data.path),
        "structures": len(data),
        "atoms": _range([len(atoms) for atoms in structures]),
        "elements": {
            symbol: {
                "atoms": int((symbols == symbol).sum()),
                "orbitals": atom.size,
                "shells": list(atom.degrees),
                "valence": atom.valence,
                "cutoff_angstrom": atom.cutoff,
            }
            for symbol, atom in data.basis.atoms.items()
        },
        "spin": data.spin,
        "splits": {split: len(names) for split, names in data.splits.items()},
        "fermi_eV": _range(levels),
        "provenance": data.provenance,
        "content_hash": data.content_hash(),
        **_matrices(data),
    }


def _matrices(data: "DataSet") -> dict[str, Any]:
    """Pairs, zeros of energy, and |H| in bins of distance, over at most SAMPLE structures."""
    import numpy as np

    chosen = (
        [data.names[at] for at in np.unique(np.linspace(0, len(data) - 1, SAMPLE).astype(int))] if len(data) else []
    )
    references: dict[str, int] = {}
    pairs = []
    total: dict[int, list[float]] = {}  # bin -> elements, sum, largest
    for name in chosen:
        system = data[name]
        pairs.append(len(system.pairs))
        references[system.potential_reference] = references.get(system.potential_reference, 0) + 1
        # bin 0 is on-site, bin n holds distances from (n - 1) BIN to n BIN
        bins = np.where(system.pairs.distances > 0, 1 + (system.pairs.distances // BIN).astype(int), 0)
        for blocks in system.hamiltonian:
            element_bins = np.repeat(bins, np.diff(blocks.offsets))
            size = np.abs(blocks.values)
            for at in np.unique(bins).tolist():
                inside = size[element_bins == at]
                entry = total.setdefault(at, [0.0, 0.0, 0.0])
                total[at] = [entry[0] + len(inside), entry[1] + float(inside.sum()), max(entry[2], float(inside.max()))]
    table = [
        {
            "from_angstrom": max(at - 1, 0) * BIN,
            "to_angstrom": at * BIN,
            "elements": int(count),
            "mean_eV": summed / count,
            "max_eV": largest,
        }
        for at, (count, summed, largest) in sorted(total.items())
    ]
    return {"sampled": len(chosen), "pairs": _range(pairs), "potential_references": references, "hamiltonian": table}


def _range(values: list[Any]) -> list[Any] | None:
    return [min(values), max(values)] if values else None


def _text(content: dict[str, Any]) -> str:
    from math import log10

    lines = [
        f"{content['path']}: {content['structures']} structures, spin {content['spin']}",
        f"atoms {_between(content['atoms'])}, pairs {_between(content['pairs'])}",
    ]
    for symbol, atom in content["elements"].items():
        shells = f"{atom['orbitals']} orbitals ({''.join('spdfghi'[l] for l in atom['shells'])})"
        valence = "unknown" if atom["valence"] is None else f"{atom['valence']:g}"
        cutoff = "unknown" if atom["cutoff_angstrom"] is None else f"{atom['cutoff_angstrom']:.3f} A"
        lines.append(f"{symbol}: {atom['atoms']} atoms, {shells}, valence {valence}, radius {cutoff}")
    splits = ", ".join(f"{split} {count}" for split, count in content["splits"].items())
    lines.append(f"splits: {splits or 'none'}")
    lines.append(f"Fermi level {_between(content['fermi_eV'], '.3f')} eV")
    lines.append(
        f"zero of energy: {', '.join(f'{key} ({count})' for key, count in content['potential_references'].items())}"
    )
    lines.append(f"content {content['content_hash'][:16]}")
    lines.append(f"mean (bar, a decade for {BAR // 8} marks) and largest |H| in eV, {content['sampled']} structures:")
    for entry in content["hamiltonian"]:
        label = "on-site" if not entry["to_angstrom"] else f"{entry['from_angstrom']:.1f}-{entry['to_angstrom']:.1f} A"
        decades = log10(max(entry["mean_eV"], 1e-7)) + 6  # from 1e-6 eV
        bar = "#" * max(0, min(BAR, round(decades * BAR / 8)))
        lines.append(f"{label:>12} {entry['mean_eV']:10.2e} {entry['max_eV']:10.2e} {bar}")
    return "\n".join(lines)


def _checkpoint_text(source: str, metadata: dict[str, Any]) -> str:
    stage1, stage2 = metadata["config"]["stage1"], metadata["config"]["stage2"]
    lines = [f"{source}: {'both stages' if metadata['hybrid'] else 'stage 1 only'}, spin {metadata['spin']}"]
    for atom in metadata["basis"]["atoms"]:
        shells = "".join("spdfghi"[shell["l"]] for shell in atom["shells"])
        radial = "with" if all("gaussians" in shell for shell in atom["shells"]) else "without"
        lines.append(f"{atom['symbol']}: {shells}, valence {atom['valence']}, {radial} radial functions")
    lines.append(f"stage 1: {stage1['irreps']}, {stage1['n_blocks']} blocks")
    if stage2 is not None:
        form = f"frame {stage2['frame']}, width {stage2['width']}, {stage2['n_groups']} x {stage2['n_blocks']} blocks"
        lines.append(f"stage 2: {form}")
    range_of = "longest pair" if stage1.get("envelope", True) else "no cutoff of pairs, Gaussians up to"
    lines.append(f"{range_of} {metadata['reach']:.3f} A, zero of energy: {metadata['potential_reference']}")
    for name, value in metadata["metrics"].items():
        lines.append(f"{name.removesuffix('_meV').replace('_', ' ')}: {value:.3f} meV")
    data = metadata["provenance"].get("data", {})
    if data:
        lines.append(f"trained on {data.get('n_train')} structures of data set {str(data.get('hash'))[:16]}")
    return "\n".join(lines)


def _between(ends: list[float] | None, form: str = "") -> str:
    if ends is None:
        return "unknown"
    low, high = (f"{end:{form}}" for end in ends)
    return low if low == high else f"{low} to {high}"
