"""Random variations of any crystal, for training sets: supercells, strained, layers slid, every atom displaced.

In the order they are applied: layers move as wholes, the cell is repeated to one of several shapes and strained, and
every atom of the supercell is displaced by itself. Structure n of a seed is the same however many are made.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.build import make_supercell
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from ase_hybridham.structures.layers import Layers, layers_of, without_vacuum
from ase_hybridham.structures.shapes import supercell_shapes

__all__ = ["Variation", "Varied", "variations"]

TRIES = 100


@dataclass(frozen=True)
class Variation:
    """How structures differ from the crystal they are made of.

    Parameters
    ----------
    atoms : tuple of 2 int
        Fewest and most atoms of a supercell.
    displacement : tuple of 2 float
        Of every structure the standard deviation of all coordinates is drawn between these, angstrom.
    strain : float
        Every component of the symmetric strain along the periodic axes is uniform within plus and minus this.
    slide : bool
        Layers are shifted along each other, by any vector of their plane.
    spacing : tuple of 2 float
        What is added to each distance of neighboring layers is drawn between these, angstrom.
    nearest : float
        Atoms must not be nearer than this share of the sum of their covalent radii.
    """

    atoms: tuple[int, int] = (8, 18)
    displacement: tuple[float, float] = (0.02, 0.06)
    strain: float = 0.01
    slide: bool = True
    spacing: tuple[float, float] = (-0.15, 0.25)
    nearest: float = 0.7

    def __post_init__(self) -> None:
        for name, floor in (("atoms", 1.0), ("displacement", 0.0), ("spacing", -np.inf)):
            low, high = getattr(self, name)
            if not (np.isfinite([low, high]).all() and floor <= low <= high):
                at_least = f" from {floor:g} on" if np.isfinite(floor) else ""
                raise ValueError(f"{name}: expected two ascending numbers{at_least}, got {low:g} and {high:g}")
        if not 0 <= self.strain < 0.5:
            raise ValueError(f"strain: expected a number from 0 to 0.5, got {self.strain:g}")
        if not 0 <= self.nearest < 1:
            raise ValueError(f"nearest: expected a number from 0 to 1, got {self.nearest:g}")


@dataclass(frozen=True)
class Varied:
    """A structure that was made.

    Parameters
    ----------
    atoms : ase.Atoms
        Without a calculator.
    shape : array of int, shape (3, 3)
        Cell vectors of the supercell before strain, in those of the crystal.
    rejected : int
        Draws that were thrown away because atoms came too near.
    """

    atoms: Atoms
    shape: NDArray[np.int64]
    rejected: int


def variations(atoms: Atoms, n: int, variation: Variation | None = None, *, seed: int = 0) -> Iterator[Varied]:
    """Structures around a crystal, one after the other.

    Parameters
    ----------
    atoms : ase.Atoms
        Any elements and pbc; an axis with vacuum stays as it is, whatever pbc says (`without_vacuum`). Sizes of
        supercells take turns, and so do the shapes of a size.
    n : int
    variation : Variation, optional
    seed : int
        Structure k depends on it and k alone.

    Raises
    ------
    ValueError
        At the first structure if the crystal itself cannot be used: no atoms, atoms upon each other, no cell of that
        size; at any if its atoms stay too near in 100 draws.
    """
    variation = variation or Variation()
    _check(atoms, n, variation)
    crystal = without_vacuum(atoms)
    layers = layers_of(crystal)
    shapes = _by_size(supercell_shapes(crystal, *variation.atoms))
    for k in range(n):
        turn, size = divmod(k, len(shapes))
        shape = shapes[size][turn % len(shapes[size])]
        rng = np.random.default_rng([seed, k])
        for rejected in range(TRIES):
            made = _drawn(crystal, layers, shape, variation, rng)
            if (problem := _too_near(made, variation.nearest)) is None:
                made.pbc = atoms.pbc
                yield Varied(made, shape, rejected)
                break
        else:
            raise ValueError(f"structure {k}: in {TRIES} draws atoms came too near, {problem}; displace or strain less")


def _by_size(shapes: list[NDArray[np.int64]]) -> list[list[NDArray[np.int64]]]:
    found: dict[int, list[NDArray[np.int64]]] = {}
    for shape in shapes:
        found.setdefault(round(np.linalg.det(shape)), []).append(shape)
    return list(found.values())


def _drawn(
    crystal: Atoms, layers: Layers | None, shape: NDArray[np.int64], variation: Variation, rng: np.random.Generator
) -> Atoms:
    moved = crystal if layers is None else _moved_layers(crystal, layers, variation, rng)
    made = make_supercell(moved, shape)
    strain = rng.uniform(-variation.strain, variation.strain, size=(3, 3))
    vectors = made.cell.array[np.asarray(made.pbc)]
    inside = np.linalg.pinv(vectors) @ vectors if len(vectors) else np.zeros((3, 3))  # projects on the periodic axes
    deformation = np.eye(3) + inside @ (0.5 * (strain + strain.T)) @ inside
    made.set_cell(made.cell.array @ deformation)
    width = rng.uniform(*variation.displacement)
    made.positions = made.positions @ deformation + rng.normal(scale=width, size=(len(made), 3))
    return made


def _moved_layers(crystal: Atoms, layers: Layers, variation: Variation, rng: np.random.Generator) -> Atoms:
    """Every layer moved as a whole, from the lowest up; of a periodic stack the cell follows."""
    made, count = crystal.copy(), len(layers.members)
    slides = rng.uniform(size=(count, 2)) @ layers.lattice * variation.slide
    gaps = np.zeros(count)
    gaps[: layers.n_gaps] = rng.uniform(*variation.spacing, size=layers.n_gaps)
    shifts = np.outer(np.cumsum(gaps) - gaps, layers.normal)
    if layers.period is None:
        shifts += slides - 0.5 * gaps.sum() * layers.normal  # the middle stays
    else:
        # the next copy of the lowest layer closes the last gap, and slides as the others do
        step = gaps.sum() * layers.normal + slides[0]
        shifts[1:] += slides[1:]
        shifts += np.outer(layers.stack, step)
        made.set_cell(made.cell.array + np.outer(made.cell.array @ layers.normal / layers.period, step))
    for members, positions, shift in zip(layers.members, layers.positions, shifts, strict=True):
        made.positions[members] = positions + shift
    return made


def _too_near(atoms: Atoms, nearest: float) -> str | None:
    """Words on the worst of pairs that are too near; None if there is none."""
    radii = nearest * covalent_radii[atoms.numbers]
    i, j, distances = neighbor_list("ijd", atoms, radii)
    if not len(i):
        return None
    worst = int(np.argmin(distances / (radii[i] + radii[j])))
    pair = f"{atoms.symbols[int(i[worst])]}-{atoms.symbols[int(j[worst])]}"
    return f"{pair} {distances[worst]:.2f} angstrom where {radii[i[worst]] + radii[j[worst]]:.2f} are allowed"


def _check(atoms: Atoms, n: int, variation: Variation) -> None:
    if n < 1:
        raise ValueError(f"n: expected a positive number of structures, got {n}")
    if not len(atoms):
        raise ValueError("structure: it holds no atom")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise ValueError("structure: expected finite positions and cell vectors")
    vectors = atoms.cell.array[np.asarray(atoms.pbc)]
    if len(vectors) and np.linalg.matrix_rank(vectors, tol=1e-3) < len(vectors):
        raise ValueError("structure: its periodic axes have no independent cell vectors; set the cell or pbc")
    if (problem := _too_near(atoms, variation.nearest)) is not None:
        raise ValueError(f"structure: atoms too near before anything is varied, {problem}; mend it or lower nearest")
