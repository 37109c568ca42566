"""Errors of a Hamiltonian, as every table and log has them.

Per structure the mean of |H_pred - H_DFT| over all elements of all blocks of DFT's pair list (a pair the
model lacks counts with its whole value). Gauge-free: after the best H -> H + mu S is taken off, which moves all
levels alike and changes no physics. The rms of a block, other than its MAE, does not depend on how the structure is
turned.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from ase_hybridham.system import PairBlocks
from ase_hybridham.system.orbital_map import shell_names

__all__ = ["BlockError", "HamiltonianError", "block_rms", "differences", "hamiltonian_error", "worst_block"]


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


@dataclass(frozen=True)
class BlockError:
    """The error of one block.

    Parameters
    ----------
    structure : str
    atoms, symbols : pair of int, pair of str
    shift : three int
        R of the second atom.
    distance : float
        Angstrom; 0 on-site.
    rms, reference_rms : float
        Of the error and of DFT's block, over its elements, meV.
    shells : pair of str
        Those between which the rms is largest.
    shells_rms : float
        That rms, meV.
    largest : float
        Largest element of the error, meV.
    """

    structure: str
    atoms: tuple[int, int]
    symbols: tuple[str, str]
    shift: tuple[int, int, int]
    distance: float
    rms: float
    reference_rms: float
    shells: tuple[str, str]
    shells_rms: float
    largest: float

    def to_dict(self) -> dict[str, object]:
        """Plain JSON types, keys with their unit."""
        units = {"distance": "A"} | dict.fromkeys(("rms", "reference_rms", "shells_rms", "largest"), "meV")
        return {f"{key}_{units[key]}" if key in units else key: value for key, value in asdict(self).items()}


def differences(
    predicted: PairBlocks | Sequence[PairBlocks], reference: PairBlocks | Sequence[PairBlocks]
) -> tuple[PairBlocks, ...]:
    """predicted - reference in meV on the pairs of the reference, operator by operator."""
    pairs = zip(_operators(predicted), _operators(reference), strict=True)
    return tuple(r.with_values(1e3 * _on_pairs(h, r)) for h, r in pairs)


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
    errors = differences(predicted, reference)
    n_onsite = errors[0].offsets[errors[0].pairs.n_atoms]
    values = [error.values for error in errors]
    size = _parts(np.concatenate(values))
    onsite = _parts(np.concatenate([v[:n_onsite] for v in values]))
    hopping = _parts(np.concatenate([v[n_onsite:] for v in values]))
    shift = gauge_free = None
    if overlap is not None:
        shift, freed = without_shift(errors, overlap)
        gauge_free = float(_parts(np.concatenate([error.values for error in freed])).mean())
    return HamiltonianError(
        mae=float(size.mean()),
        onsite_mae=float(onsite.mean()),
        hopping_mae=float(hopping.mean()) if len(hopping) else 0.0,
        rms=float(np.sqrt((size**2).mean())),
        max=float(size.max()),
        gauge_free_mae=gauge_free,
        shift=shift,
        splitting_mae=float(np.abs(values[0] - values[1]).mean()) if len(values) == 2 else None,
    )


def without_shift(errors: Sequence[PairBlocks], overlap: PairBlocks) -> tuple[float, tuple[PairBlocks, ...]]:
    """mu of the best mu S, one for all operators, and the errors without it; units are those of the errors."""
    S = (overlap.to_spinor() if errors[0].spinor else overlap).values
    shift = float(np.mean([(error.values.real @ S) / (S @ S) for error in errors]))
    return shift, tuple(error.with_values(error.values - shift * S) for error in errors)


def block_rms(operators: Sequence[PairBlocks]) -> NDArray[np.float64]:
    """rms over the elements of each block, of both operators if there are two; shape (n_pairs,)."""
    squares = np.mean([_squares(h) for h in operators], axis=0)
    return np.sqrt(np.add.reduceat(squares, operators[0].offsets[:-1]) / np.diff(operators[0].offsets))


def worst_block(structure: str, errors: Sequence[PairBlocks], reference: Sequence[PairBlocks]) -> BlockError:
    """The block whose rms error is largest.

    Parameters
    ----------
    structure : str
        Its name.
    errors : sequence of PairBlocks
        See `differences`.
    reference : sequence of PairBlocks
        DFT's operators, eV.
    """
    rms, pairs, basis = block_rms(errors), errors[0].pairs, errors[0].basis
    p = int(np.argmax(rms))
    rows, columns = (basis[int(pairs.numbers[atom])] for atom in (pairs.i[p], pairs.j[p]))
    squares = np.mean([np.abs(error.block(p)) ** 2 for error in errors], axis=0)
    if np.iscomplexobj(errors[0].values):
        squares = squares.reshape(2, rows.size, 2, columns.size).mean(axis=(0, 2)) / 2
    of_shells = np.array([[squares[a, b].mean() for b in columns.slices] for a in rows.slices])
    a, b = np.unravel_index(np.argmax(of_shells), of_shells.shape)
    return BlockError(
        structure=structure,
        atoms=(int(pairs.i[p]), int(pairs.j[p])),
        symbols=(chemical_symbols[rows.number], chemical_symbols[columns.number]),
        shift=tuple(pairs.shifts[p].tolist()),
        distance=float(pairs.distances[p]),
        rms=float(rms[p]),
        reference_rms=1e3 * float(np.sqrt(np.mean([_squares(h, p).mean() for h in reference]))),
        shells=(shell_names(rows)[a], shell_names(columns)[b]),
        shells_rms=float(np.sqrt(of_shells[a, b])),
        largest=float(max(_parts(error.block(p).ravel()).max() for error in errors)),
    )


def _operators(blocks: PairBlocks | Sequence[PairBlocks]) -> tuple[PairBlocks, ...]:
    return (blocks,) if isinstance(blocks, PairBlocks) else tuple(blocks)


def _on_pairs(predicted: PairBlocks, reference: PairBlocks) -> NDArray:
    """predicted - reference on the pairs of the reference."""
    same = predicted.pairs is reference.pairs
    return (predicted if same else predicted.on_pairs(reference.pairs)).values - reference.values


def _parts(values: NDArray) -> NDArray:
    """Absolute values; real and imaginary parts count separately."""
    return np.abs(values.view(values.real.dtype) if np.iscomplexobj(values) else values)


def _squares(blocks: PairBlocks, p: int | None = None) -> NDArray:
    """Mean square of the one or two numbers of every element, of all blocks or of one."""
    values = blocks.values if p is None else blocks.block(p)
    return np.abs(values) ** 2 / (2 if np.iscomplexobj(values) else 1)
