"""Errors of a Hamiltonian, as every table and log has them.

Per structure the mean of |H_pred - H_DFT| over all elements of all blocks of DFT's pair list (a pair the
model lacks counts with its whole value). Gauge-free: after the best H -> H + mu S is taken off, which moves all
levels alike and changes no physics.
"""

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
    """

    mae: float
    onsite_mae: float
    hopping_mae: float
    rms: float
    max: float
    gauge_free_mae: float | None
    shift: float | None

    def to_dict(self) -> dict[str, float | None]:
        """Plain JSON types, keys with their unit."""
        return {f"{key}_meV": value for key, value in asdict(self).items()}


def hamiltonian_error(
    predicted: PairBlocks, reference: PairBlocks, overlap: PairBlocks | None = None
) -> HamiltonianError:
    """Errors of a prediction on the pairs of the reference.

    Parameters
    ----------
    predicted, reference : PairBlocks
        eV, in the same basis.
    overlap : PairBlocks, optional
        On the pairs of the reference; for the gauge-free error.
    """
    on_reference = predicted if predicted.pairs is reference.pairs else predicted.on_pairs(reference.pairs)
    difference = 1e3 * (on_reference.values - reference.values)
    size = _parts(difference)
    n_onsite = len(_parts(difference[: reference.offsets[reference.pairs.n_atoms]]))
    shift = gauge_free = None
    if overlap is not None:
        S = (overlap.to_spinor() if reference.spinor else overlap).values
        shift = float((difference.real @ S) / (S @ S))
        gauge_free = float(_parts(difference - shift * S).mean())
    return HamiltonianError(
        mae=float(size.mean()),
        onsite_mae=float(size[:n_onsite].mean()),
        hopping_mae=float(size[n_onsite:].mean()) if len(size) > n_onsite else 0.0,
        rms=float(np.sqrt((size**2).mean())),
        max=float(size.max()),
        gauge_free_mae=gauge_free,
        shift=shift,
    )


def _parts(values: np.ndarray) -> np.ndarray:
    """Absolute values; real and imaginary parts count separately."""
    return np.abs(values.view(values.real.dtype) if np.iscomplexobj(values) else values)
