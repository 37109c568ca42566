"""A trained network in one file.

`.hham` is a safetensors container: the tensors of both stages and of their target scales, and JSON
metadata with everything needed to build the network (schema, config, domain with basis and radial
functions) and to judge it (provenance, metrics). Loading executes nothing.
"""

import copy
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ase_hybridham.errors import CheckpointError
from ase_hybridham.files import written_atomically
from ase_hybridham.model.card import ModelCard
from ase_hybridham.model.cascade import Cascade, Domain, Stage
from ase_hybridham.model.config import ModelConfig
from ase_hybridham.model.coverage import Coverage
from ase_hybridham.model.gradient import block_derivatives
from ase_hybridham.model.neighborhoods import ALONE, Processes
from ase_hybridham.system import Basis, PairBlocks, PairList
from ase_hybridham.system.lcao import PotentialReference, SpinKind

__all__ = [
    "SUFFIX",
    "Precision",
    "TrainedModel",
    "find_model",
    "load_model",
    "read_metadata",
    "save_model",
    "select_device",
]

logger = logging.getLogger(__name__)

SUFFIX, SCHEMA = ".hham", 2
Precision = Literal["float32", "float16"]
BULK = 4000  # numbers: the few large weights are 4/5 of a network and bear rounding; read-outs and norms do not
PROBE_VALUES, PROBE_TOLERANCE = 8, 1e-6
MODELS_VARIABLE = "HYBRIDHAM_MODELS"
PACKAGED = Path(__file__).parent.parent / "data"
# what building a network from metadata that make no sense may raise
DAMAGE = (SafetensorError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass
class TrainedModel:
    """A network with what is known of it.

    Parameters
    ----------
    cascade : Cascade
    potential_reference : str
        Zero of energy of the training set.
    provenance : mapping
        Data set hash, code, functional, k-mesh: plain JSON types.
    metrics : mapping
        Errors on the validation and test sets, as training found them.
    card : ModelCard, optional
        Of a model for other people.
    scratch : str or Path, optional
        Folder for temporary files that hold what a prediction else keeps in memory of every pair.
    progress : bool, optional
        Whether predictions show a bar on stderr; by default those that take more than a GB of memory.
    """

    cascade: Cascade
    potential_reference: PotentialReference = "unknown"
    provenance: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    card: ModelCard | None = None
    scratch: str | Path | None = None
    progress: bool | None = None
    _warned: bool = field(default=False, init=False, repr=False, compare=False)

    @property
    def basis(self) -> Basis:
        """Orbitals of H, with radial functions if the training data had them."""
        return self.cascade.domain.basis

    @property
    def spin(self) -> SpinKind:
        """Of H: none, collinear (two operators, up and down) or spinor."""
        return self.cascade.domain.spin

    def hamiltonian(
        self,
        atoms: Atoms,
        pairs: PairList | None = None,
        stage: Stage | None = None,
        *,
        hermitian: bool = True,
        processes: Processes = ALONE,
        out: Sequence[NDArray] | None = None,
    ) -> tuple[PairBlocks, ...]:
        """H in eV of a structure, as `LCAOSystem` takes it: one operator, or up and down.

        Parameters
        ----------
        atoms : ase.Atoms
        pairs : PairList, optional
            By default all pairs within the orbital radii of the basis.
        stage : {"mean", "stage1", "hybrid"}, optional
            The hybrid if stage 2 has been trained, else stage 1.
        hermitian : bool
            Exactly Hermitian (default), or as the network gives it: imported ones may give H that is not Hermitian.
        processes, out
            As in `Cascade.hamiltonian`.

        Raises
        ------
        CheckpointError
            If the network does not know an element, or two elements that are neighbors here never were in training.
        ValueError
            As `Cascade.hamiltonian` does.
        """
        known = self._known_pairs(atoms, pairs)
        operators = self.cascade.hamiltonian(
            known, stage, processes=processes, out=out, scratch=self.scratch, progress=self.progress
        )
        return tuple(h.hermitian_part() for h in operators) if hermitian and not self.cascade.streams else operators

    def predict(
        self,
        atoms: Atoms,
        pairs: PairList | None = None,
        stage: Stage | None = None,
        *,
        spin: int | None = None,
        hermitian: bool = True,
    ) -> PairBlocks:
        """One operator of `hamiltonian`, whose arguments it takes.

        Parameters
        ----------
        spin : {0, 1}, optional
            Up or down, for collinear spin, where there is no default.

        Raises
        ------
        CheckpointError
            As `hamiltonian` does.
        ValueError
            If there are two operators and `spin` does not say which, or there is none of this number.
        """
        index = self._operator(spin)
        return self.hamiltonian(atoms, pairs, stage, hermitian=hermitian)[index]

    def derivatives(
        self,
        atoms: Atoms,
        displacements: ArrayLike,
        pairs: PairList | None = None,
        stage: Stage | None = None,
        *,
        spin: int | None = None,
    ) -> list[PairBlocks]:
        """dH/ds at s = 0 for atoms at r + s u, exact, on fixed pairs; one entry for every u.

        Parameters
        ----------
        atoms : ase.Atoms
        displacements : array, shape (n, n_atoms, 3)
            u: polarization vectors in angstrom, say, or velocities, for which s is the time. Atoms move with their
            periodic images; the cell stays.
        pairs, stage, spin
            As in `predict`.

        Returns
        -------
        list of n PairBlocks
            Exactly Hermitian, in eV times the unit of u per angstrom.

        Raises
        ------
        CheckpointError
            As `predict` does.
        ValueError
            As `predict` does, or if displacements have another shape or are not finite.
        """
        index = self._operator(spin)
        operators = block_derivatives(self.cascade, self._known_pairs(atoms, pairs), displacements, stage)
        return [of_spins[index] for of_spins in operators]

    def gradient(
        self,
        atoms: Atoms,
        indices: Sequence[int] | None = None,
        pairs: PairList | None = None,
        stage: Stage | None = None,
        *,
        spin: int | None = None,
    ) -> list[list[PairBlocks]]:
        """dH/dR of single atoms in eV/angstrom: entry [n][x] is for atom indices[n] along x, y, z.

        An atom moves with all its periodic images (wave vector 0); displace an atom of a supercell for others.

        Parameters
        ----------
        atoms : ase.Atoms
        indices : sequence of int, optional
            Atoms; by default all, in order. Each of the 3 n results takes the memory of one H.
        pairs, stage, spin
            As in `predict`.

        Raises
        ------
        CheckpointError, ValueError
            As `predict` does.
        IndexError
            If there is no such atom.
        """
        moved = np.arange(len(atoms))[slice(None) if indices is None else list(indices)]
        displacements = np.zeros((len(moved), 3, len(atoms), 3))
        for n, atom in enumerate(moved):
            displacements[n, :, atom] = np.eye(3)
        flat = self.derivatives(atoms, displacements.reshape(-1, len(atoms), 3), pairs, stage, spin=spin)
        return [flat[3 * n : 3 * n + 3] for n in range(len(moved))]

    def outside(self, atoms: Atoms, pairs: PairList | None = None) -> list[str]:
        """In which respects a structure lies outside of the training set, in words; see `Coverage`.

        Empty if in none, or if the checkpoint does not know its training set.
        """
        coverage = self.cascade.domain.coverage
        if coverage is None:
            return []
        return coverage.outside(PairList.from_atoms(atoms, self.basis.cutoffs()) if pairs is None else pairs)

    def _operator(self, spin: int | None) -> int:
        """Which operator of `hamiltonian` is meant."""
        n_operators = self.cascade.vocabulary.n_operators
        if n_operators == 2 and spin is None:
            raise ValueError("spin: this model predicts two operators; give spin=0 (up) or 1, or call hamiltonian()")
        if spin not in (None, *range(n_operators)):
            raise ValueError(f"spin: expected {' or '.join(map(str, range(n_operators)))}, got {spin!r}")
        return spin or 0

    def _known_pairs(self, atoms: Atoms, pairs: PairList | None) -> PairList:
        """The pairs, if the network knows their elements; a word, once, if it knows them from other surroundings."""
        self.cascade.vocabulary.species_of(atoms.get_atomic_numbers())
        pairs = PairList.from_atoms(atoms, self.basis.cutoffs()) if pairs is None else pairs
        strangers = self.cascade.scale1.never_met(pairs)
        if strangers is not None:
            raise CheckpointError(
                f"model: no {chemical_symbols[strangers[0]]}-{chemical_symbols[strangers[1]]} pair was in its training "
                "set, the structure has some; train on data where these elements meet"
            )
        if not self._warned and (strange := self.outside(atoms, pairs)):
            self._warned = True
            more = f", and {len(strange) - 1} more" if len(strange) > 1 else ""
            logger.warning("model: not trained for %s%s; expect larger errors (said once)", strange[0], more)
        return pairs


def save_model(path: str | Path, model: TrainedModel, precision: Precision | None = None) -> None:
    """Write a checkpoint, atomically.

    Parameters
    ----------
    path : str or Path
    model : TrainedModel
    precision : {"float32", "float16"}, optional
        Of the weights in the file, whose network is that of the rounded weights; by default that of the model.
        float16 is for weights of thousands of numbers, all others are float32.

    Raises
    ------
    ValueError
        If a weight is too large for float16.
    """
    tensors, cascade = _tensors(model.cascade, precision), model.cascade
    if precision is not None:
        cascade = copy.deepcopy(cascade)
        cascade.load_state_dict(tensors)
    coverage = cascade.domain.coverage
    metadata = {
        "schema": SCHEMA,
        "config": cascade.config.model_dump(by_alias=True),
        "basis": cascade.domain.basis.to_dict(),
        "reach": cascade.domain.reach,
        "n_neighbors": cascade.domain.n_neighbors,
        "spin": cascade.domain.spin,
        "time_reversal": cascade.domain.time_reversal,
        "coverage": None if coverage is None else coverage.to_dict(),
        "hybrid": cascade.hybrid,
        "potential_reference": model.potential_reference,
        "provenance": dict(model.provenance),
        "metrics": dict(model.metrics),
        "card": None if model.card is None else model.card.model_dump(mode="json"),
        "probe": _probe(cascade),
    }
    with written_atomically(path) as temporary:
        save_file(tensors, temporary, metadata={"hybridham": json.dumps(metadata)})


def _tensors(cascade: Cascade, precision: Precision | None) -> dict[str, torch.Tensor]:
    """The state as it is stored."""
    if precision not in (None, *get_args(Precision)):
        raise ValueError(f"precision: expected {' or '.join(get_args(Precision))}, got {precision!r}")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in cascade.state_dict().items()}
    if precision is None:
        return tensors
    tensors = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    large = [name for name, weight in cascade.named_parameters() if weight.numel() >= BULK]
    for name in large if precision == "float16" else []:
        tensors[name] = tensors[name].half()
        if not torch.isfinite(tensors[name]).all():
            raise ValueError(f"{name}: has weights too large for float16; store float32")
    return tensors


def find_model(name: str | Path) -> Path:
    """The checkpoint file of a path or of the name of a model.

    Names are looked up in the folder that HYBRIDHAM_MODELS names and among the models that come with the package.

    Raises
    ------
    CheckpointError
        If there is no such file and no such model.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        raise CheckpointError(f"{name}: expected a {SUFFIX} file, got a folder")
    if path.suffix == SUFFIX or path.name != str(name):
        raise CheckpointError(f"{name}: no such file; `hybridham train` makes checkpoints")
    folders = [Path(os.environ[MODELS_VARIABLE])] if os.environ.get(MODELS_VARIABLE) else []
    folders.append(PACKAGED)
    for folder in folders:
        candidate = folder / f"{name}{SUFFIX}"
        if candidate.is_file():
            return candidate
    known = sorted({p.stem for folder in folders for p in folder.glob(f"*{SUFFIX}")})
    raise CheckpointError(
        f"{name}: no such file, and no model of this name (known: {', '.join(known) or 'none'}); "
        f"give a {SUFFIX} file, or set {MODELS_VARIABLE} to the folder of your models"
    )


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of a checkpoint file or named model, without its tensors.

    Raises
    ------
    CheckpointError
        If it is not a checkpoint, or of another schema.
    """
    path = find_model(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})["hybridham"])
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of this package; `hybridham train` makes one") from error
    if not isinstance(metadata, dict):
        raise CheckpointError(f"{path}: damaged checkpoint (its metadata are no mapping); train or copy it again")
    if metadata.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{path}: expected checkpoint schema {SCHEMA}, got {metadata.get('schema')}; use another version"
        )
    return cast(dict[str, Any], metadata)


def _probe(cascade: Cascade) -> list[float]:
    """What the network says of one small cluster of its elements, eV: tells whether two versions are one function."""
    numbers = cascade.vocabulary.numbers
    atoms = Atoms([*numbers, numbers[0]], [(0.4 * n, 1.1 * (n % 2), 1.2 * n) for n in range(len(numbers) + 1)])
    pairs = PairList.from_atoms(atoms, cascade.domain.reach)
    operators = copy.deepcopy(cascade).to(device="cpu", dtype=torch.float64).hamiltonian(pairs)
    H = np.concatenate([h.values.view(np.float64) for h in operators])
    return [float(np.linalg.norm(H)), *H[:: max(1, len(H) // PROBE_VALUES)][:PROBE_VALUES].tolist()]


def select_device(device: str) -> torch.device:
    """A torch device; "auto" is CUDA where it exists.

    Raises
    ------
    ValueError
        If the device is unknown or not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device: expected auto, cpu or an available accelerator, got {device!r}") from error


def load_model(
    path: str | Path,
    device: str = "auto",
    dtype: str = "float64",
    *,
    scratch: str | Path | None = None,
    progress: bool | None = None,
) -> TrainedModel:
    """A trained network, ready to predict.

    Parameters
    ----------
    path : str or Path
        Checkpoint file, or the name of a model.
    device : str
        "auto", "cpu", "cuda", ...
    dtype : str
        "float64" (default: eigenvalues of a nearly singular S feel single precision) or "float32".
    scratch, progress
        As in `TrainedModel`.

    Raises
    ------
    CheckpointError
        If the file is not a valid checkpoint.
    """
    path = find_model(path)
    metadata = read_metadata(path)
    try:
        config = ModelConfig(**metadata["config"])
        domain = Domain(
            Basis.from_dict(metadata["basis"]),
            metadata["reach"],
            metadata["n_neighbors"],
            metadata["spin"],
            metadata.get("time_reversal", True),
            Coverage.from_dict(metadata["coverage"]) if metadata.get("coverage") else None,
        )
        cascade = Cascade(config, domain)
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        cascade.load_state_dict(tensors)
        for name, tensor in tensors.items():  # unused knots of a target scale lie at infinity
            if not torch.isfinite(tensor).all() and not (name.endswith(".knots") and not tensor.isnan().any()):
                raise ValueError(f"{name} is not finite")
        provenance, metrics = dict(metadata["provenance"]), dict(metadata["metrics"])
        card = ModelCard(**metadata["card"]) if metadata.get("card") else None
        model = TrainedModel(
            cascade, metadata["potential_reference"], provenance, metrics, card, scratch=scratch, progress=progress
        )
        same = np.allclose(_probe(cascade), metadata["probe"], rtol=PROBE_TOLERANCE, atol=PROBE_TOLERANCE)
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: damaged checkpoint ({reason}); train or copy it again") from error
    if not same:
        raise CheckpointError(f"{path}: written by another version, whose network differs; use that one or train again")
    cascade.to(device=select_device(device), dtype=getattr(torch, dtype)).eval().requires_grad_(False)
    return model
