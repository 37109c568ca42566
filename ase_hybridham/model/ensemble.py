"""Several networks as one: their mean prediction, and how far they are apart.

Networks that were trained from other random weights, or on other halves of the data, agree where the data determine H
and differ where they do not: the spread tells where a prediction is doubtful, without any reference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_hybridham.errors import CheckpointError
from ase_hybridham.model.cascade import Stage
from ase_hybridham.model.checkpoint import TrainedModel, load_model
from ase_hybridham.system import Basis, LCAOSystem, PairBlocks, PairList
from ase_hybridham.system.lcao import PotentialReference, SpinKind

__all__ = ["Ensemble", "Spread", "load_ensemble", "spread_of"]


@dataclass(frozen=True, eq=False)
class Spread:
    """How far the members of an ensemble are apart on one structure; no rotation of the structure changes it.

    Parameters
    ----------
    blocks : array, shape (n_pairs,)
        rms over the elements of each block of their standard deviation over the members, eV.
    structure : float
        The same over all elements, eV.
    """

    blocks: NDArray[np.float64]
    structure: float


class Ensemble:
    """Networks of one basis and spin, whose mean is predicted. The calculator takes one where it takes a model.

    Parameters
    ----------
    models : sequence of TrainedModel
        One or more.

    Raises
    ------
    CheckpointError
        If they are of different elements, orbitals, spins or numbers of stages.
    ValueError
        If there is none.
    """

    def __init__(self, models: Sequence[TrainedModel]) -> None:
        if not models:
            raise ValueError("ensemble: expected one model or more, got none")
        self.models = tuple(models)
        first = self.models[0]
        for n, other in enumerate(self.models[1:], start=2):
            for what, ours, theirs in (
                ("elements", sorted(first.basis.atoms), sorted(other.basis.atoms)),
                ("spin", first.spin, other.spin),
                ("a second stage", first.cascade.hybrid, other.cascade.hybrid),
            ):
                if ours != theirs:
                    raise CheckpointError(f"ensemble: model 1 has {what} {ours}, model {n} {theirs}; leave one out")
            if not first.basis.same_orbitals(other.basis):
                raise CheckpointError(f"ensemble: models 1 and {n} have different orbitals; leave one out")

    def __len__(self) -> int:
        return len(self.models)

    @property
    def basis(self) -> Basis:
        """Orbitals of H, those of the first model; radii are the largest of all."""
        basis = self.models[0].basis
        for model in self.models[1:]:
            basis = basis.merged(model.basis)
        return basis

    @property
    def spin(self) -> SpinKind:
        """Of H: none, collinear (two operators, up and down) or spinor."""
        return self.models[0].spin

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What `stage` may be."""
        return ("mean", "stage1", "hybrid") if self.models[0].cascade.hybrid else ("mean", "stage1")

    @property
    def potential_reference(self) -> PotentialReference:
        """Zero of energy of the training sets; unknown if they differ."""
        references = {model.potential_reference for model in self.models}
        return references.pop() if len(references) == 1 else "unknown"

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What is the same for all members."""
        first, *others = (model.provenance for model in self.models)
        return {key: value for key, value in first.items() if all(o.get(key) == value for o in others)}

    def members(
        self, atoms: Atoms, pairs: PairList | None = None, stage: Stage | None = None, *, hermitian: bool = True
    ) -> list[tuple[PairBlocks, ...]]:
        """H of every member, as `TrainedModel.hamiltonian` gives it, all on the same pairs.

        Raises
        ------
        CheckpointError
            As `TrainedModel.hamiltonian` does.
        """
        if pairs is None and len(self.models) > 1:
            self.models[0].cascade.vocabulary.species_of(atoms.get_atomic_numbers())
            pairs = PairList.from_atoms(atoms, self.basis.cutoffs())
        return [model.hamiltonian(atoms, pairs, stage, hermitian=hermitian) for model in self.models]

    def hamiltonian(
        self, atoms: Atoms, pairs: PairList | None = None, stage: Stage | None = None, *, hermitian: bool = True
    ) -> tuple[PairBlocks, ...]:
        """Mean of the members' H in eV: one operator, or up and down; arguments as `TrainedModel.hamiltonian`."""
        return mean_of(self.members(atoms, pairs, stage, hermitian=hermitian))

    def predict(self, atoms: Atoms, pairs: PairList | None = None, stage: Stage | None = None) -> PairBlocks:
        """The only operator of `hamiltonian`.

        Raises
        ------
        ValueError
            If there are two.
        """
        (hamiltonian,) = self.hamiltonian(atoms, pairs, stage)
        return hamiltonian

    def deviations(self, system: LCAOSystem, stage: Stage | None = None) -> list[tuple[PairBlocks, ...]]:
        """H of every member minus their mean, eV, on the pairs of a system: what `solve.band_errors` takes.

        Raises
        ------
        CheckpointError
            As `members` does.
        """
        members = self.members(system.atoms, system.pairs, stage)
        mean = mean_of(members)
        return [tuple(h - m for h, m in zip(operators, mean, strict=True)) for operators in members]

    def spread(
        self,
        atoms: Atoms,
        pairs: PairList | None = None,
        stage: Stage | None = None,
        *,
        overlap: PairBlocks | None = None,
    ) -> Spread:
        """How far the members are apart, see `spread_of`; `overlap` must stand on `pairs`.

        Raises
        ------
        ValueError
            If there is one member only.
        """
        return spread_of(self.members(atoms, pairs, stage), overlap)


def mean_of(members: Sequence[Sequence[PairBlocks]]) -> tuple[PairBlocks, ...]:
    """Mean over members of each operator."""
    operators = zip(*members, strict=True)
    return tuple(blocks[0].with_values(np.mean([b.values for b in blocks], axis=0)) for blocks in operators)


def spread_of(members: Sequence[Sequence[PairBlocks]], overlap: PairBlocks | None = None) -> Spread:
    """How far predictions of one structure are apart.

    Parameters
    ----------
    members : sequence of sequences of PairBlocks
        Operators of every member, on the same pairs, eV; up and down count alike.
    overlap : PairBlocks, optional
        Without spin. If given, H + mu S is taken for H: of every member the best mu is taken off first.

    Raises
    ------
    ValueError
        If there is one member only.
    """
    if len(members) < 2:
        raise ValueError("spread: expected an ensemble of two models or more, got one")
    blocks = members[0][0]
    values = np.array([[h.values for h in operators] for operators in members])
    deviations = values - values.mean(axis=0)
    if overlap is not None:
        S = (overlap.to_spinor() if blocks.spinor else overlap).values
        shifts = (deviations.real @ S).mean(axis=1) / (S @ S)
        deviations = deviations - shifts[:, None, None] * S
    # real and imaginary parts are numbers of their own, as in every error
    parts = 2 if np.iscomplexobj(deviations) else 1
    variance = (np.abs(deviations) ** 2).sum(axis=0).mean(axis=0) / ((len(members) - 1) * parts)
    means = np.add.reduceat(variance, blocks.offsets[:-1]) / np.diff(blocks.offsets)
    return Spread(np.sqrt(means), float(np.sqrt(variance.mean())))


def load_ensemble(paths: Sequence[str | Path], device: str = "auto", dtype: str = "float64") -> Ensemble:
    """The ensemble of checkpoint files or named models; arguments and errors as `load_model`."""
    return Ensemble([load_model(path, device, dtype) for path in paths])
