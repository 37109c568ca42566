"""Errors of a Hamiltonian, as every table and log has them.

Per structure the mean of |H_pred - H_DFT| over all elements of all blocks of DFT's pair list (a pair the
model lacks counts with its whole value). Gauge-free: after the best H -> H + mu S is taken off, which moves all
levels alike and changes no physics.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ase_hybridham.system import PairBlocks

__all__ = ["HamiltonianError", "hamiltonian_error"]


@dataclass(frozen=True)
class HamiltonianError:
    """Errors of one structure in meV.

    Parameters
    ----------
    mae, onsite_mae, hopping_mae : float
        Mean absolute errors over all elements, on-site blocks, hoppings.
    rms, max : float
    gauge_free_mae : float or None
        MAE without the best mu S; None without overlap.
    shift : float or None
        mu in meV, positive if the prediction lies too high.
    splitting_mae : float or None
        MAE of H_up - H_down; None but for collinear spin.
    """

    mae: float
    onsite_mae: float
    hopping_mae: float
    rms: float
    max: float
    gauge_free_mae: float | None
    shift: float | None
    splitting_mae: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        """Plain JSON types, keys with their unit."""
        return {f"{key}_meV": value for key, value in asdict(self).items()}


def hamiltonian_error(
    predicted: PairBlocks | Sequence[PairBlocks],
    reference: PairBlocks | Sequence[PairBlocks],
    overlap: PairBlocks | None = None,
) -> HamiltonianError:
    """Errors of a prediction on the pairs of the reference.

    Parameters
    ----------
    predicted, reference : PairBlocks, or sequences of them
        eV, in the same basis: one operator, or up and down, whose elements count alike.
    overlap : PairBlocks, optional
        On the pairs of the reference; for the gauge-free error, whose mu both spins share.
    """
    operators = _operators(reference)
    differences = [1e3 * _on_pairs(h, r) for h, r in zip(_operators(predicted), operators, strict=True)]
    n_onsite = operators[0].offsets[operators[0].pairs.n_atoms]
    size = _parts(np.concatenate(differences))
    onsite = _parts(np.concatenate([difference[:n_onsite] for difference in differences]))
    hopping = _parts(np.concatenate([difference[n_onsite:] for difference in differences]))
    shift = gauge_free = None
    if overlap is not None:
        S = (overlap.to_spinor() if operators[0].spinor else overlap).values
        shift = float(np.mean([(difference.real @ S) / (S @ S) for difference in differences]))
        gauge_free = float(_parts(np.concatenate([difference - shift * S for difference in differences])).mean())
    return HamiltonianError(
        mae=float(size.mean()),
        onsite_mae=float(onsite.mean()),
        hopping_mae=float(hopping.mean()) if len(hopping) else 0.0,
        rms=float(np.sqrt((size**2).mean())),
        max=float(size.max()),
        gauge_free_mae=gauge_free,
        shift=shift,
        splitting_mae=float(np.abs(differences[0] - differences[1]).mean()) if len(differences) == 2 else None,
    )


def _operators(blocks: PairBlocks | Sequence[PairBlocks]) -> tuple[PairBlocks, ...]:
    return (blocks,) if isinstance(blocks, PairBlocks) else tuple(blocks)


def _on_pairs(predicted: PairBlocks, reference: PairBlocks) -> np.ndarray:
    """predicted - reference on the pairs of the reference."""
    same = predicted.pairs is reference.pairs
    return (predicted if same else predicted.on_pairs(reference.pairs)).values - reference.values


def _parts(values: np.ndarray) -> np.ndarray:
    """Absolute values; real and imaginary parts count separately."""
    return np.abs(values.view(values.real.dtype) if np.iscomplexobj(values) else values)
