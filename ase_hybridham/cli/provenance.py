"""How structures were computed, counted over a data set."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

__all__ = ["MUST_AGREE", "mixed", "provenance_counts"]

# what makes another Hamiltonian of the same atoms; k-points and cutoffs of grids should not
MUST_AGREE = ("xc", "basis", "pseudopotential", "paw_data_sets", "hubbard_u", "spin_orbit", "predicted")


def provenance_counts(provenances: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Key -> value as text -> number of structures; an entry that is itself a mapping is ``key.inner``."""
    counts: dict[str, dict[str, int]] = {}
    for provenance in provenances:
        for key, value in _flat(provenance):
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


def _flat(provenance: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in provenance.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", content) for inner, content in value.items())
        else:
            yield key, value
