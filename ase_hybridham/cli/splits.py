"""--split: shares, or a JSON file that says which structure is for what."""

import json
from collections.abc import Mapping
from pathlib import Path

from ase_hybridham.errors import FormatError

__all__ = ["Index", "parse_fractions"]


class Index:
    """A JSON file that says which structure is for what.

    Parameters
    ----------
    path : str
        Either a list of objects with `id`, `split` and perhaps `valence_electrons`, or an object
        split -> list of names. An id is the name of a structure or its path, or the end of one of these after a slash.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise FormatError(f"{path}: not JSON ({error}); expected a list of structures with their splits") from None
        try:
            if isinstance(content, dict):
                content = [{"id": name, "split": split} for split, names in content.items() for name in names]
            self.split = {str(entry["id"]): str(entry["split"]) for entry in content}
            electrons = {str(entry["id"]): entry.get("valence_electrons") for entry in content}
            self.electrons = {name: float(count) for name, count in electrons.items() if count is not None}
        except (TypeError, KeyError, ValueError, AttributeError):
            raise FormatError(f"{path}: expected a list of objects with id and split, or split -> names") from None

    def ids(self, structures: Mapping[str, str]) -> dict[str, str]:
        """Name -> the id that means this structure, for those that have one.

        Parameters
        ----------
        structures : mapping
            Name -> source, a file or folder, empty if unknown.

        Raises
        ------
        ValueError
            If an id is the end of several names and none of them itself.
        """
        meant: dict[str, list[str]] = {}
        for name, source in structures.items():
            entry = self._id_of(name, source)
            if entry is not None:
                meant.setdefault(entry, []).append(name)
        found = {}
        for entry, names in meant.items():
            whole = [name for name in names if entry in (name, structures[name])]
            if len(whole or names) > 1:
                several = " and ".join((whole or names)[:3])
                raise ValueError(f"{self.path}: id {entry} means {several}; write longer ends of the names")
            found[(whole or names)[0]] = entry
        return found

    def _id_of(self, name: str, source: str) -> str | None:
        for full in (name, source):
            parts = full.split("/")
            for start in range(len(parts)):
                end = "/".join(parts[start:])
                if end in self.split:
                    return end
        return None

    def splits(self, structures: Mapping[str, str]) -> dict[str, list[str]]:
        """Split -> names of the structures of a data set that belong to it.

        Parameters
        ----------
        structures : mapping
            Name -> source, empty if unknown.
        """
        found: dict[str, list[str]] = {split: [] for split in dict.fromkeys(self.split.values())}
        for name, entry in self.ids(structures).items():
            found[self.split[entry]].append(name)
        if not any(found.values()):
            raise ValueError(
                f"{self.path}: lists none of the structures, such as {next(iter(structures))}; "
                "its ids must be their names"
            )
        return found


def parse_fractions(spec: str) -> dict[str, float]:
    """Split -> share, of a word like ``train=0.8,val=0.1,test=0.1``.

    Raises
    ------
    ValueError
        If it is no such word.
    """
    try:
        return {split.strip(): float(share) for split, share in (part.split("=") for part in spec.split(","))}
    except ValueError:
        raise ValueError(f"--split: expected train=0.8,val=0.1,test=0.1 or a JSON file, got {spec!r}") from None
