"""hybridham info: what a data set, a structure or a checkpoint holds."""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_hybridham.errors import CheckpointError

if TYPE_CHECKING:
    from ase_hybridham.store import DataSet
    from ase_hybridham.system import Basis, Decay, DecayRow, LCAOSystem

SAMPLE = 50  # structures whose matrices are read for the table of distances
BAR = 40  # characters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a data set, one structure of it (data.h5:NAME), another program's file or folder, "
        "or a checkpoint (file or name)",
    )
    parser.add_argument("--format", help="format of another program's file, where it should not be recognised")
    parser.add_argument("-o", "--output", type=Path, metavar="PICTURE", help="draw |H| against distance (.png, .pdf)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the content as text or JSON, and perhaps draw it."""
    from ase_hybridham.cli.source import kind_of

    if args.format is None and kind_of(args.source) == "checkpoint":
        from ase_hybridham.model.checkpoint import read_metadata

        if args.output:
            raise ValueError(f"{args.source}: a checkpoint holds no matrices; --output draws those of data")
        metadata = read_metadata(args.source)
        try:
            told = json.dumps(_without_numbers(metadata)) if args.json else _checkpoint_text(args.source, metadata)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise CheckpointError(f"{args.source}: damaged checkpoint ({error}); train or copy it again") from error
        print(told)
        return 0
    content, hamiltonian, overlap = _content(args.source, args.format)
    if args.output:
        from ase_hybridham.plot import plot_hamiltonian_decay, save_figure

        save_figure(plot_hamiltonian_decay(hamiltonian, overlap), args.output)
    text = _data_set_text if content["kind"] == "dataset" else _system_text
    print(json.dumps(content) if args.json else "\n".join([*text(content), *_decay_text(content)]))
    return 0


def describe(data: "DataSet") -> dict[str, Any]:
    """Plain JSON types: structures, elements, basis, splits, energies, provenance, and H against distance."""
    return _describe(data)[0]


def _content(source: str, format: str | None) -> "tuple[dict[str, Any], Decay, Decay | None]":
    """What a source holds in plain JSON types, and its statistics."""
    from ase_hybridham.cli.naming import only_structure
    from ase_hybridham.io import read_system
    from ase_hybridham.store import DataSet, is_data_set, names_data_set, read_structure

    path = Path(source)
    if format is None and names_data_set(source):
        if is_data_set(path) or ":" not in source:
            with DataSet(path) as data:
                return _describe(data)
        return _describe_system(source, read_structure(source))
    return _describe_system(source, read_system(path if format else only_structure(path), format))


def _describe(data: "DataSet") -> "tuple[dict[str, Any], Decay, Decay | None]":
    import numpy as np

    from ase_hybridham.cli.provenance import provenance_counts

    structures = [data.atoms(name) for name in data]
    heads = [data.head(name) for name in data]
    symbols = [symbol for atoms in structures for symbol in atoms.symbols]
    places = np.unique(np.linspace(0, len(data) - 1, SAMPLE).astype(int)).tolist() if len(data) else []
    tables, hamiltonian, overlap = _matrices(data[data.names[at]] for at in places)
    references: dict[str, int] = {}
    for head in heads:
        references[head.potential_reference] = references.get(head.potential_reference, 0) + 1
    content = {
        "kind": "dataset",
        "path": str(data.path),
        "structures": len(data),
        "atoms": _range([len(atoms) for atoms in structures]),
        "pairs": _range([head.n_pairs for head in heads]),
        "elements": _elements(data.basis, symbols),
        "orthogonal": data.basis.orthogonal,
        "spin": data.spin,
        "compact": sum(head.compact for head in heads),
        "splits": {split: len(names) for split, names in data.splits.items()},
        "in_no_split": len(data) - sum(map(len, data.splits.values())),
        "fermi_eV": _range([head.fermi_level for head in heads if head.fermi_level is not None]),
        "potential_references": references,
        "provenance": data.provenance,
        "computed": provenance_counts(head.provenance for head in heads),
        "content_hash": data.content_hash(),
        "sampled": len(places),
        **tables,
    }
    return content, hamiltonian, overlap


def _describe_system(source: str, system: "LCAOSystem") -> "tuple[dict[str, Any], Decay, Decay | None]":
    tables, hamiltonian, overlap = _matrices([system])
    content = {
        "kind": "system",
        "path": source,
        "formula": system.atoms.get_chemical_formula(),
        "atoms": len(system.atoms),
        "periodic": system.atoms.pbc.tolist(),
        "cell_angstrom": system.atoms.cell.array.tolist(),
        "pairs": len(system.pairs),
        "orbitals": system.n_orbitals,
        "elements": _elements(system.basis, list(system.atoms.symbols)),
        "orthogonal": system.basis.orthogonal,
        "spin": system.spin,
        "fermi_eV": system.fermi_level,
        "electrons": system.electrons,
        "potential_reference": system.potential_reference,
        "provenance": dict(system.provenance),
        "sampled": 1,
        **tables,
    }
    return content, hamiltonian, overlap


def _elements(basis: "Basis", symbols: Sequence[str]) -> dict[str, Any]:
    return {
        symbol: {
            "atoms": symbols.count(symbol),
            "orbitals": atom.size,
            "shells": list(atom.degrees),
            "valence": atom.valence,
            "cutoff_angstrom": atom.cutoff,
            "radial_functions": _program({shell.radial.rule if shell.radial else None for shell in atom.shells}),
        }
        for symbol, atom in basis.atoms.items()
    }


def _program(rules: "set[str | None]") -> str | None:
    """By whose rule the radial functions of an element are integrated; None if it lacks one."""
    return None if None in rules else "/".join(sorted(rule for rule in rules if rule))


def _matrices(systems: "Iterable[LCAOSystem]") -> "tuple[dict[str, Any], Decay, Decay | None]":
    """Statistics of |H| and |S| against distance, as tables and as they are."""
    from ase_hybridham.system import Decay

    hamiltonian, overlap = Decay(), Decay()
    for system in systems:
        hamiltonian = sum(map(Decay.of, system.hamiltonian), hamiltonian)
        if system.overlap is not None:
            overlap += Decay.of(system.overlap)
    tables = {
        "hamiltonian": _table(hamiltonian.rows(), "_eV"),
        "overlap": _table(overlap.rows(), ""),
        "element_pairs": {name: _table(hamiltonian.rows(name), "_eV") for name in hamiltonian.pairs},
    }
    return tables, hamiltonian, overlap if overlap.pairs else None


def _table(rows: "Sequence[DecayRow]", unit: str) -> list[dict[str, Any]]:
    names = {
        "start": "from_angstrom",
        "end": "to_angstrom",
        "elements": "elements",
        "mean": f"mean{unit}",
        "low": f"low{unit}",
        "median": f"median{unit}",
        "high": f"high{unit}",
        "largest": f"max{unit}",
    }
    return [{names[key]: value for key, value in asdict(row).items()} for row in rows]


def _range(values: list[Any]) -> list[Any] | None:
    return [min(values), max(values)] if values else None


# -- text


def _data_set_text(content: Mapping[str, Any]) -> list[str]:
    from ase_hybridham.cli.provenance import counted, provenance_text

    precision = f", {content['compact']} in single precision" if content["compact"] else ""
    splits = {**content["splits"], **({"in none": content["in_no_split"]} if content["in_no_split"] else {})}
    lines = [
        f"{content['path']}: {content['structures']} structures, spin {content['spin']}{precision}",
        f"atoms {_between(content['atoms'])}, pairs {_between(content['pairs'])}",
        *_element_text(content),
        f"splits: {', '.join(f'{split} {count}' for split, count in splits.items()) if content['splits'] else 'none'}",
        f"Fermi level {_between(content['fermi_eV'], '.3f')} eV",
        f"zero of energy: {counted(content['potential_references'])}",
    ]
    lines += provenance_text(content["computed"])
    made = {key: value for key, value in content["provenance"].items() if not isinstance(value, Mapping)}
    lines += [f"{key.replace('_', ' ')}: {_word(value)}" for key, value in made.items()]
    return [*lines, f"content {content['content_hash'][:16]}"]


def _system_text(content: Mapping[str, Any]) -> list[str]:
    axes = "".join(axis for axis, is_periodic in zip("abc", content["periodic"], strict=True) if is_periodic)
    fermi, electrons = content["fermi_eV"], content["electrons"]
    return [
        f"{content['path']}: {content['formula']}, spin {content['spin']}, periodic along {axes or 'no axis'}",
        f"atoms {content['atoms']}, pairs {content['pairs']}, orbitals {content['orbitals']}",
        *_element_text(content),
        f"Fermi level {'unknown' if fermi is None else f'{fermi:.3f} eV'}, "
        f"electrons {'unknown' if electrons is None else f'{electrons:g}'}",
        f"zero of energy: {content['potential_reference']}",
        *(f"{key}: {_word(value)}" for key, value in content["provenance"].items() if value is not None),
    ]


def _element_text(content: Mapping[str, Any]) -> list[str]:
    lines = []
    for symbol, atom in content["elements"].items():
        shells = f"{atom['orbitals']} orbitals ({''.join('spdfghi'[l] for l in atom['shells'])})"
        valence = "unknown" if atom["valence"] is None else f"{atom['valence']:g}"
        cutoff = "unknown" if atom["cutoff_angstrom"] is None else f"{atom['cutoff_angstrom']:.3f} A"
        lines.append(f"{symbol}: {atom['atoms']} atoms, {shells}, valence {valence}, radius {cutoff}")
    programs = {symbol: atom["radial_functions"] for symbol, atom in content["elements"].items()}
    return [*lines, _overlap_text(programs, content["orthogonal"])]


def _overlap_text(programs: Mapping[str, str | None], orthogonal: bool) -> str:
    """Whether S of any structure follows from the radial functions; element -> whose they are."""
    if orthogonal:
        return "S is 1 by definition of the orbitals"
    known = [f"{symbol} ({program})" for symbol, program in programs.items() if program]
    lacking = [symbol for symbol, program in programs.items() if not program]
    if not lacking:
        return f"S of any structure can be computed: radial functions of {', '.join(known)}"
    only = f", only of {', '.join(known)}" if known else ""
    return f"S of other structures cannot be computed: no radial functions of {', '.join(lacking)}{only}"


def _decay_text(content: Mapping[str, Any]) -> list[str]:
    from math import log10

    everything = content.get("structures", 1)
    which = f"{content['sampled']} of {everything} structures, evenly chosen" if content["sampled"] < everything else ""
    which = which or f"{everything} structure{'s' * (everything != 1)}"
    quantity, unit, name = ("hamiltonian", "_eV", "|H| in eV")
    if not content["hamiltonian"]:
        quantity, unit, name = ("overlap", "", "|S|")
    lines = [f"mean (bar, a decade for {BAR // 8} marks), median and largest {name}, {which}:"]
    for entry in content[quantity]:
        label = "on-site" if not entry["to_angstrom"] else f"{entry['from_angstrom']:.1f}-{entry['to_angstrom']:.1f} A"
        mean, median, largest = (entry[f"{key}{unit}"] for key in ("mean", "median", "max"))
        decades = log10(min(max(mean, 1e-7), 1e9)) + 6  # from 1e-6
        bar = "#" * max(0, min(BAR, round(decades * BAR / 8)))
        lines.append(f"{label:>12} {mean:9.1e} {median:9.1e} {largest:9.1e} {bar}")
    return lines


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _rule(shell: Mapping[str, Any]) -> str | None:
    """Of a shell in the metadata of a checkpoint."""
    return shell["samples"]["rule"] if "samples" in shell else "gaussian" if "gaussians" in shell else None


def _without_numbers(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a checkpoint without the samples of radial functions, which are long."""
    atoms = []
    for atom in metadata["basis"]["atoms"]:
        shells = [dict(shell) for shell in atom["shells"]]
        for shell in (shell for shell in shells if "samples" in shell):
            shell["samples"] = {k: v for k, v in shell["samples"].items() if k not in ("mesh", "values")}
        atoms.append({key: value for key, value in atom.items() if key != "meshes"} | {"shells": shells})
    return {**metadata, "basis": {**metadata["basis"], "atoms": atoms}}


def _checkpoint_text(source: str, metadata: dict[str, Any]) -> str:
    from ase_hybridham.cli.card import card_text, coverage_text

    stage1, stage2 = metadata["config"]["stage1"], metadata["config"]["stage2"]
    lines = [f"{source}: {'both stages' if metadata['hybrid'] else 'stage 1 only'}, spin {metadata['spin']}"]
    programs: dict[str, str | None] = {}
    for atom in metadata["basis"]["atoms"]:
        shells = "".join("spdfghi"[shell["l"]] for shell in atom["shells"])
        lines.append(f"{atom['symbol']}: {shells}, valence {atom['valence']}")
        programs[atom["symbol"]] = _program({_rule(shell) for shell in atom["shells"]})
    lines.append(_overlap_text(programs, metadata["basis"]["orthogonal"]))
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
    if coverage := metadata.get("coverage"):
        lines += coverage_text(coverage)
    if card := metadata.get("card"):
        lines += card_text(card)
    return "\n".join(lines)


def _between(ends: list[float] | None, form: str = "") -> str:
    if ends is None:
        return "unknown"
    low, high = (f"{end:{form}}" for end in ends)
    return low if low == high else f"{low} to {high}"
