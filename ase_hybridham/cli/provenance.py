"""How structures were computed, counted over a data set."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

__all__ = ["MUST_AGREE", "counted", "mixed", "provenance_counts", "provenance_text"]

# what makes another Hamiltonian of the same atoms; k-points and cutoffs of grids should not
MUST_AGREE = ("xc", "basis", "pseudopotential", "pseudopotentials", "paw_data_sets", "hubbard_u", "spin_orbit")
# told first
IMPORTANT = ("code", "xc", "basis", "pseudopotential", "pseudopotentials", "k_mesh", "energy_cutoff_Ry", "ke_cutoff")
MOST_VALUES = 4


def provenance_counts(provenances: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Key -> value as text -> number of structures. An entry that has entries gives ``key.inner``; null is left out."""
    counts: dict[str, dict[str, int]] = {}
    for provenance in provenances:
        for key, value in _flat(provenance):
            if value is None:
                continue
            word = value if isinstance(value, str) else json.dumps(value)
            entry = counts.setdefault(key, {})
            entry[word] = entry.get(word, 0) + 1
    return counts


def mixed(counts: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """One line for every key in which the structures of one data set should agree and do not."""
    for key, values in counts.items():
        if len(values) > 1 and key.split(".")[0] in MUST_AGREE:
            told = ", ".join(f"{value} ({count})" for value, count in sorted(values.items(), key=lambda v: -v[1]))
            yield f"the structures differ in {key}: {told}; one network cannot learn both"


def provenance_text(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """One line for every key but the source: the most frequent values, or from where to where they reach."""
    known = [key for key in counts if key != "source"]
    lines = []
    for key in sorted(known, key=lambda key: IMPORTANT.index(k) if (k := key.split(".")[0]) in IMPORTANT else 99):
        values = counts[key]
        numbers = _numbers(values)
        if len(values) > MOST_VALUES and numbers:
            lines.append(f"{key}: {min(numbers):g} to {max(numbers):g} ({sum(values.values())})")
        else:
            lines.append(f"{key}: {counted(values)}")
    return lines


def counted(counts: Mapping[str, int]) -> str:
    """Values with their numbers of structures, the most frequent first; how many they are where they are many."""
    ordered = sorted(counts.items(), key=lambda entry: -entry[1])
    if len(ordered) > MOST_VALUES and ordered[0][1] == 1:
        return f"{len(ordered)} values"
    more = f" and {len(ordered) - MOST_VALUES} more" if len(ordered) > MOST_VALUES else ""
    return ", ".join(f"{value} ({count})" for value, count in ordered[:MOST_VALUES]) + more


def _numbers(words: Iterable[str]) -> list[float]:
    """The words as numbers; none if one is not."""
    try:
        return [float(word) for word in words]
    except ValueError:
        return []


def _flat(provenance: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in provenance.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", content) for inner, content in value.items())
        else:
            yield key, value
