"""The parameters of a DeepH-E3 checkpoint: what they belong to, and reading them without executing anything.

Features are lists of irreps in DeepH-E3's own order, channels of one irrep side by side.
"""

import gzip
import io
import pickle
import re
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from e3nn.o3 import Irrep, Irreps
from numpy.typing import NDArray

from ase_hybridham.errors import CheckpointError
from ase_hybridham.symmetry import clebsch_gordan

__all__ = [
    "L_MAX",
    "Convention",
    "Product",
    "Update",
    "check_weights",
    "convention_of",
    "gaussian_reach",
    "read_weights",
    "stated_convention",
]

SCALAR = Irrep("0e")
SYMBOL = re.compile(r"_compiled_main_(out|right|left_right)\._w3j_(\d+)_(\d+)_(\d+)$")
# e3nn before 0.5 comes with a table of 3j symbols up to here, made without a rule for signs: these and their
# permutations have the opposite sign of e3nn 0.5 and later, which is ours
L_MAX = 11
FLIPPED = {(1, l, l) for l in range(2, L_MAX + 1)} | {
    (3, 4, 6), (3, 5, 7), (3, 6, 8), (3, 7, 9), (3, 8, 10), (3, 9, 11),
    (4, 4, 5), (4, 5, 6), (4, 6, 7), (4, 7, 8), (4, 8, 9), (4, 9, 10), (4, 10, 11),
    (5, 5, 5), (5, 6, 6), (5, 6, 10), (5, 7, 7), (5, 7, 11), (5, 8, 8), (5, 9, 9), (5, 10, 10), (5, 11, 11),
    (6, 6, 9), (6, 7, 10), (6, 8, 11), (7, 7, 9), (7, 8, 10), (7, 9, 11),
    (8, 8, 9), (8, 9, 10), (8, 10, 11), (9, 9, 9), (9, 10, 10), (9, 11, 11),
}  # fmt: skip


@dataclass(frozen=True)
class Convention:
    """What the version of e3nn makes of the same weights.

    Parameters
    ----------
    table : bool
        Whether 3j symbols are those of the table, as before 0.5.
    element : bool
        Whether a path counts by its rows among those into the same output, as from 0.4.0 on; else all count alike.
    """

    table: bool
    element: bool

    @property
    def versions(self) -> str:
        """Of e3nn."""
        return ("0.4" if self.table else "0.5 or later") if self.element else "0.3.5"

    def sign(self, l1: int, l2: int, l3: int) -> int:
        """Sign of a 3j symbol against ours."""
        return -1 if self.table and _is_flipped(l1, l2, l3) else 1


def _is_flipped(*degrees: int) -> bool:
    return tuple(sorted(degrees)) in FLIPPED


@dataclass(frozen=True)
class Product:
    """The tensor product of one convolution: inputs side by side, times harmonics, to features and gates.

    Parameters
    ----------
    inputs : tuple of Irreps
        Of atom i, of atom j, of the pair.
    harmonics : Irreps
        Of the edge.
    requested : Irreps
        Features wanted; those that no path reaches are left out.
    """

    inputs: tuple[Irreps, Irreps, Irreps]
    harmonics: Irreps
    requested: Irreps

    @cached_property
    def features(self) -> Irreps:
        """What comes out after the gate: scalars, then all others."""
        kinds = {ir for irreps in self.inputs for _, ir in irreps}
        made = {ir for a in kinds for _, b in self.harmonics for ir in a * b}
        kept = [entry for entry in self.requested if entry.ir in made]
        return Irreps([e for e in kept if e.ir.l == 0] + [e for e in kept if e.ir.l > 0])

    @cached_property
    def n_gates(self) -> int:
        """One for every channel of l > 0."""
        return sum(entry.mul for entry in self.features if entry.ir.l > 0)

    @cached_property
    def outputs(self) -> tuple[tuple[Irrep, int], ...]:
        """What the product itself gives, irreps and their columns; the gates follow the even scalars."""
        rows = [(e.ir, e.mul + (self.n_gates if e.ir == SCALAR else 0)) for e in self.features]
        return tuple(sorted(rows, key=lambda row: (row[0].l, row[0].p)))

    @cached_property
    def paths(self) -> tuple[tuple[int, int, Irrep, int, Irrep, int], ...]:
        """(input, rows, irrep, l of the harmonic, irrep made, columns) of every path, in the order of their weights."""
        return tuple(
            (place, mul, ir1, ir2.l, ir, columns)
            for place, irreps in enumerate(self.inputs)
            for mul, ir1 in irreps
            for _, ir2 in self.harmonics
            for ir, columns in self.outputs
            if ir in ir1 * ir2
        )


@dataclass(frozen=True)
class Update:
    """One update of nodes or of edges.

    Parameters
    ----------
    prefix : str
        How the names of its parameters begin.
    before : Irreps
        The features that it updates.
    product : Product
        `product.features` are the features after the update.
    n_types : int
        Elements, or pairs of elements.
    """

    prefix: str
    before: Irreps
    product: Product
    n_types: int

    @property
    def after(self) -> Irreps:
        """Features after the update."""
        return self.product.features

    def shapes(self, n_gaussians: int, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every parameter."""
        n_channels = self.after.num_irreps
        scalars = [(irreps.count(SCALAR),) for irreps in (self.before, self.after)]
        yield "lin_pre.weight", _linear(self.before, self.before)
        yield "lin_pre.bias", scalars[0]
        for number, (_, rows, _, _, _, columns) in enumerate(self.product.paths):
            yield f"conv.tp.weights1.{number}", (rows, columns)
            yield f"conv.tp.weights2.{number}", (1, columns)
        sizes = (n_gaussians, width, width, n_channels)
        for layer in range(3):
            yield f"conv.fc.{2 * layer}.weight", (sizes[layer + 1], sizes[layer])
            yield f"conv.fc.{2 * layer}.bias", (sizes[layer + 1],)
        yield "lin_post.weight", _linear(self.after, self.after)
        yield "lin_post.bias", scalars[1]
        yield "sc.weight", (self.n_types * _linear(self.before, self.after)[0],)
        yield "norm.weight", (n_channels,)
        yield "norm.bias", scalars[1]
        if self.before != self.after:
            yield "skip_connect.sc.weight", _linear(self.before, self.after)


def _linear(before: Irreps, after: Irreps) -> tuple[int, ...]:
    return (sum(a.mul * b.mul for a in before for b in after if a.ir == b.ir),)


def read_weights(path: Path) -> dict[str, NDArray[np.float64]]:
    """Tensors of the state dict in a file of torch.save, by name.

    Raises
    ------
    CheckpointError
        If the file is damaged, holds anything but tensors and plain types, or numbers that are not finite.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        with warnings.catch_warnings():  # of pickles that torch did not write; they fail below
            warnings.simplefilter("ignore")
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: damaged, or holds more than tensors and plain types, which is never executed; save its "
            "state_dict alone"
        ) from None
    except (OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, zlib.error) as error:
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(f"{path}: not a file of torch.save ({reason}); copy it again") from None
    entries = loaded.get("state_dict") if isinstance(loaded, Mapping) else None
    if not isinstance(entries, Mapping):
        raise CheckpointError(f"{path}: expected a mapping with state_dict, as DeepH-E3 saves it")
    state = {}
    for name, tensor in entries.items():
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point() or tensor.layout != torch.strided:
            raise CheckpointError(f"{path}: expected real numbers as {name}; copy the file again")
        state[str(name)] = tensor.detach().double().numpy()
        if not np.isfinite(state[str(name)]).all():
            raise CheckpointError(f"{path}: {name} is not finite; take a checkpoint from before training went wrong")
    return state


def gaussian_reach(path: Path, state: Mapping[str, NDArray], name: str) -> float:
    """Where evenly spaced Gaussians end, angstrom."""
    try:
        centers, width = state[f"{name}.offsets"], state[f"{name}.width"]
    except KeyError as error:
        raise CheckpointError(f"{path}: {error.args[0]} is missing; copy the file again") from None
    n = centers.size
    reach = float(centers.ravel()[-1]) if n > 1 else 0.0
    if np.float32(reach) == reach:  # a file in single precision: 7.2, not 7.199999809
        reach = float(f"{reach:.7g}")
    even = np.linspace(0.0, reach, n).reshape(centers.shape)
    if reach <= 0 or np.abs(centers - even).max() > 1e-5 * reach or np.abs(width * (n - 1) / reach - 1).max() > 1e-4:
        raise CheckpointError(
            f"{path}: {name} is not at least two even Gaussians that begin at 0; such a network is unknown"
        )
    return reach


def check_weights(
    path: Path,
    state: Mapping[str, NDArray],
    updates: Sequence[Update],
    n_species: int,
    out: Irreps,
) -> None:
    """That names and shapes are those of a network of these updates.

    Raises
    ------
    CheckpointError
        If not; the message names the parameter.
    """
    width = state.get(f"{updates[0].prefix}.conv.fc.0.bias", np.empty(0)).size
    expected: dict[str, tuple[int, ...]] = {
        "embedding.weight": (n_species * updates[0].before.dim,),
        "distance_expansion.offsets": (updates[0].before.dim,),
        "lin_edge.weight": _linear(updates[-1].after, out),
        "lin_edge.bias": (out.count(SCALAR),),
    }
    for update in updates:
        expected |= {f"{update.prefix}.{name}": s for name, s in update.shapes(state["basis.offsets"].size, width)}
    for name, shape in expected.items():
        if name not in state:
            raise CheckpointError(f"{path}: {name} is missing; weights and src/ are of different networks")
        if state[name].shape != shape:
            raise CheckpointError(
                f"{path}: {name}: expected shape {shape}, got {state[name].shape}; weights and src/ are of different "
                "networks"
            )
    known = ("basis.", "distance_expansion.", "lin_node.")  # lin_node is no part of H
    for name, values in state.items():
        other = name in expected or name.startswith(known) or name.endswith(".output_mask") or SYMBOL.search(name)
        if not other and values.size:
            raise CheckpointError(f"{path}: unknown parameter {name}; this variant of DeepH-E3 cannot be imported")


def convention_of(path: Path, state: Mapping[str, NDArray]) -> Convention | None:
    """The version of e3nn by its 3j symbols, which lie beside the weights.

    None if nothing tells 0.4.2 from 0.5; then the features are the same in both. Without any symbol it is 0.3.5,
    which DeepH-E3 asks for; so is 0.4.0 or 0.4.1, whose files look alike.

    Raises
    ------
    CheckpointError
        If a symbol is one of no version, or they are of several.
    """
    element, table = set(), set()
    for name, values in state.items():
        found = SYMBOL.search(name)
        if found:
            degrees = tuple(int(l) for l in found.groups()[1:])
            sign = _sign_of_symbol(path, name, values, degrees)
            if _is_flipped(*degrees):
                table.add(sign < 0)
            if found[1] != "right":  # 0.4.2 gave the other function another name
                element.add(found[1] != "out")
    if len(element) > 1 or len(table) > 1:
        raise CheckpointError(f"{path}: its 3j symbols are of several versions of e3nn; copy the file again")
    if not table and True in element:
        return None
    return Convention(table=False not in table, element=True in element)


def stated_convention(path: Path, found: Convention | None, version: str) -> Convention:
    """The convention of a version that somebody names, where the symbols allow it.

    Raises
    ------
    CheckpointError
        If it is no version, or its symbols look otherwise.
    """
    if not re.fullmatch(r"\d+\.\d+(\.\d+)?", version):
        raise CheckpointError(f"e3nn: expected a version like 0.4.1, got {version!r}")
    numbers = tuple(int(number) for number in version.split("."))
    wanted = Convention(table=numbers < (0, 5), element=numbers >= (0, 4))
    # files of 0.4.0 and 0.4.1 look like those of 0.3.5; some look like those of any later version
    looks = Convention(table=True, element=False) if numbers < (0, 4, 2) else wanted
    if (looks != found) if found is not None else (numbers < (0, 4, 2)):
        raise CheckpointError(f"{path}: its 3j symbols are not those of e3nn {version}; leave the version out")
    return wanted


def _sign_of_symbol(path: Path, name: str, values: NDArray, degrees: tuple[int, ...]) -> int:
    """Sign of a 3j symbol against ours; its factor depends on who uses it."""
    if max(degrees) > L_MAX or values.shape != tuple(2 * l + 1 for l in degrees):
        raise CheckpointError(f"{path}: {name}: expected a 3j symbol of l up to {L_MAX}, got shape {values.shape}")
    ours = clebsch_gordan(*degrees)
    norm, product = float(np.linalg.norm(values) * np.linalg.norm(ours)), float(np.sum(values * ours))
    sign = 1 if product > 0 else -1
    if not norm or abs(product) < (1 - 1e-5) * norm or (sign < 0 and not _is_flipped(*degrees)):
        raise CheckpointError(f"{path}: {name} is the 3j symbol of no version of e3nn; such a network is unknown")
    return sign
