"""Twisted bilayers and stacks of any layers whose lattices have a common cell, exactly or nearly.

The upper layer is turned clockwise against the lower, seen from above. Letters: m, n of b1 and b2, lattice vectors at
60 degrees of a hexagonal layer; M, N, A, B, F as in `coincidence`.
"""

from collections.abc import Sequence
from math import gcd, radians, sqrt

import numpy as np
from ase import Atoms
from ase.build.supercells import lattice_points_in_supercell
from numpy.typing import NDArray

from ase_hybridham.structures.coincidence import Twist, common_cells, misfit
from ase_hybridham.structures.sampling import LATTICE_CONSTANT
from ase_hybridham.structures.sheets import Sheet

__all__ = ["hexagonal_twist", "twisted_bilayer", "twisted_stack", "twists"]

SPACING = 3.35  # angstrom, of graphite
VACUUM = 12.65  # angstrom
WINDOW, LEAST_WINDOW = 0.02, 0.02  # share of the distance to a multiple of 30 degrees; degrees


def twisted_bilayer(
    m: int, n: int, *, layer: Atoms | None = None, spacing: float = SPACING, height: float | None = None
) -> Atoms:
    """The common cell of two hexagonal layers, one turned until n b1 + m b2 of one is m b1 + n b2 of the other.

    The cosine of the angle is (m^2 + 4mn + n^2) / 2(m^2 + mn + n^2): 21.8 degrees for (1, 2), 13.2 for (2, 3). There
    are 2 (m^2 + mn + n^2) cells of the layer. With the b1 and b2 of graphene two atoms are above each other at the
    origin.

    Parameters
    ----------
    m, n : int
        0 < m < n, without a common divisor.
    layer : ase.Atoms, optional
        Any hexagonal layer, several atoms thick or not; graphene by default.
    spacing : float
        From the highest atoms of a layer to the lowest of the next, angstrom.
    height : float, optional
        Of the cell, angstrom; by default 12.65 more than the layers are thick.

    Returns
    -------
    ase.Atoms
        pbc (True, True, False), in the middle of the cell; the first cell vector along x.

    Raises
    ------
    ValueError
        If m and n are others, the layer is not hexagonal, or the cell is too low.
    """
    layer = _graphene() if layer is None else layer
    return twisted_stack(hexagonal_twist(m, n, layer), layer, spacing=spacing, height=height)


def hexagonal_twist(m: int, n: int, layer: Atoms | None = None) -> Twist:
    """The twist of `twisted_bilayer`.

    Raises
    ------
    ValueError
        If m and n are not as there, or the layer is not hexagonal.
    """
    if not 0 < m < n or gcd(m, n) > 1:
        raise ValueError(f"twisted bilayer: expected 0 < m < n without a common divisor, got {m} and {n}")
    sheet = Sheet.of(_graphene() if layer is None else layer)
    if (to_sixty := sheet.hexagonal) is None:
        a, b = np.linalg.norm(sheet.lattice, axis=1)
        raise ValueError(f"layer: expected a hexagonal cell for m and n, got lengths {a:.4f}, {b:.4f}; give an angle")
    # the second vector is the first one turned by 120 degrees
    lower, upper = (np.array([[p, q], [-p - q, p]]) @ to_sixty for p, q in ((n, m), (m, n)))
    rotation, strain = misfit((lower @ sheet.lattice)[None], (upper @ sheet.lattice)[None])
    n_atoms = 2 * (m * m + m * n + n * n) * len(sheet.numbers)
    return Twist(lower, upper, float(rotation[0]), 0.0, float(strain[0]), n_atoms)


def twists(
    lower: Atoms,
    upper: Atoms | None = None,
    *,
    angle: float,
    angle_tolerance: float | None = None,
    strain: float = 0.005,
    max_atoms: int = 20_000,
) -> list[Twist]:
    """Common cells of two layers of any lattices near an angle, smallest first; `best_twist` takes one of them.

    None is left out unless another is, by a quarter at most, no larger, no farther from the angle and no more strained.

    Parameters
    ----------
    lower, upper : ase.Atoms
        A cell of each layer; the upper is of the same kind by default.
    angle : float
        Between the first cell vectors, degrees; the upper layer is turned clockwise.
    angle_tolerance : float, optional
        Degrees; by default 2 % of the distance to the nearest multiple of 30, and at least 0.02.
    strain : float
        Largest principal strain by which the lattices may differ.
    max_atoms : int
        Of one layer of each.

    Raises
    ------
    ValueError
        If there is none; the message says what to allow.
    """
    sheets = Sheet.of(lower), Sheet.of(lower if upper is None else upper)
    if not (np.isfinite(angle) and abs(angle) <= 360):
        raise ValueError(f"angle: expected degrees from -360 to 360, got {angle:g}")
    if angle_tolerance is None:
        angle_tolerance = max(LEAST_WINDOW, WINDOW * abs(angle - 30 * round(angle / 30)))
    for name, value, most in (("angle tolerance", angle_tolerance, 30.0), ("strain", strain, 0.2)):
        if not 0 <= value <= most:
            raise ValueError(f"{name}: expected a number from 0 to {most:g}, got {value:g}")
    counts = (len(sheets[0].numbers), len(sheets[1].numbers))
    if max_atoms < sum(counts):
        raise ValueError(f"max_atoms: expected at least {sum(counts)}, a cell of each layer, got {max_atoms}")
    found = common_cells(
        sheets[0].lattice,
        sheets[1].lattice,
        angle,
        angle_tolerance=angle_tolerance,
        strain=strain,
        # strain may make a cell of one layer larger than that of the other
        max_area=max_atoms / sum(n / sheet.area for n, sheet in zip(counts, sheets, strict=True)) * (1 + strain) ** 2,
        atoms=counts,
    )
    found = [twist for twist in found if twist.n_atoms <= max_atoms]
    if not found:
        raise ValueError(
            f"angle: no common cell of at most {max_atoms} atoms within {angle_tolerance:.3g} degrees of {angle:g} and "
            f"a strain of {strain:g}; allow more atoms, angle or strain"
        )
    return found


def twisted_stack(
    twist: Twist,
    lower: Atoms,
    upper: Atoms | None = None,
    *,
    pattern: str = "AB",
    spacing: float | Sequence[float] = SPACING,
    shifts: Sequence[Sequence[float]] | None = None,
    share: float = 0.5,
    strain: Sequence[float] = (0.0, 0.0, 0.0),
    height: float | None = None,
) -> Atoms:
    """Layers on a common cell, from the lowest up.

    Parameters
    ----------
    twist : Twist
    lower, upper : ase.Atoms
        Those the twist was found for; the upper is of the same kind by default.
    pattern : str
        A the lower crystal as it is, B the upper one turned: AB a bilayer, ABA a trilayer whose middle is turned, AABB
        two bilayers.
    spacing : float or sequence of float
        From the highest atoms of a layer to the lowest of the next, angstrom; all, or each.
    shifts : sequence of 2 floats for each layer, optional
        In the lattice vectors of that layer.
    share : float
        Of the strain between the lattices that B takes; A takes the rest.
    strain : 3 floats
        xx, yy, xy of the whole; x is the first vector of the common cell.
    height : float, optional
        Of the cell, angstrom; by default 12.65 more than the layers are thick.

    Returns
    -------
    ase.Atoms
        pbc (True, True, False), in the middle of the cell; the array `tags` numbers the layers.

    Raises
    ------
    ValueError
        If an argument has another shape or range.
    """
    n_layers = len(pattern)
    if not n_layers or set(pattern) - {"A", "B"}:
        raise ValueError(f"pattern: expected letters A and B, got {pattern!r}")
    sheets = {"A": Sheet.of(lower), "B": Sheet.of(lower if upper is None else upper)}
    gaps = np.asarray(spacing, dtype=float).ravel().tolist() * (n_layers - 1 if np.ndim(spacing) == 0 else 1)
    if len(gaps) != n_layers - 1 or not all(0 < gap < np.inf for gap in gaps):
        raise ValueError(f"spacing: expected one positive number or {n_layers - 1}, got {spacing}")
    moved = np.zeros((n_layers, 2)) if shifts is None else np.asarray(shifts, dtype=float)
    if moved.shape != (n_layers, 2) or not np.isfinite(moved).all():
        raise ValueError(f"shifts: expected {n_layers} times two numbers for {pattern}, got shape {moved.shape}")
    if not 0 <= share <= 1:
        raise ValueError(f"share: expected a number from 0 to 1, got {share:g}")
    matrices = {"A": twist.lower, "B": twist.upper}
    plane = _common_cell(matrices["A"] @ sheets["A"].lattice, matrices["B"] @ sheets["B"].lattice, share)
    plane = plane @ _strained(strain)

    thickness = sum(sheets[kind].thickness for kind in pattern) + sum(gaps)
    cell = np.zeros((3, 3))
    cell[:2, :2], cell[2, 2] = plane, thickness + VACUUM if height is None else height
    if not thickness < cell[2, 2] < np.inf:
        raise ValueError(f"height: expected more than the {thickness:.2f} A of the layers, got {height:g}")
    bottom, parts = 0.5 * (cell[2, 2] - thickness), []
    for kind, shift, gap in zip(pattern, moved, [*gaps, 0.0], strict=True):
        parts.append(_placed(sheets[kind], matrices[kind], shift, plane, bottom))
        bottom += sheets[kind].thickness + gap
    numbers = [np.tile(sheets[kind].numbers, round(np.linalg.det(matrices[kind]))) for kind in pattern]
    tags = np.repeat(np.arange(n_layers), [len(part) for part in parts])
    return Atoms(np.concatenate(numbers), np.concatenate(parts), cell=cell, pbc=(True, True, False), tags=tags)


def _graphene() -> Atoms:
    b1, b2 = LATTICE_CONSTANT * np.array([[1.0, 0.0, 0.0], [0.5, sqrt(0.75), 0.0]])
    return Atoms("C2", [np.zeros(3), (b1 + b2) / 3], cell=[b1, b2, np.zeros(3)], pbc=(True, True, False))


def _common_cell(ours: NDArray[np.float64], theirs: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Rows of the cell between M A and the turned N B, with the first along x."""
    rotation, _ = misfit(ours[None], theirs[None])
    c, s = np.cos(radians(rotation[0])), np.sin(radians(rotation[0]))
    cell = share * ours + (1 - share) * theirs @ np.array([[c, -s], [s, c]])
    x = cell[0] / np.linalg.norm(cell[0])
    return cell @ np.array([[x[0], -x[1]], [x[1], x[0]]])


def _strained(strain: Sequence[float]) -> NDArray[np.float64]:
    if len(strain) != 3 or not np.all(np.abs(strain) < 0.5):
        raise ValueError(f"strain: expected xx, yy and xy, each between -0.5 and 0.5, got {strain}")
    xx, yy, xy = strain
    return np.array([[1 + xx, xy], [xy, 1 + yy]])


def _placed(
    sheet: Sheet, matrix: NDArray[np.int64], shift: NDArray[np.float64], plane: NDArray[np.float64], bottom: float
) -> NDArray[np.float64]:
    """Positions of all cells of a layer in the common one, inside of it."""
    supercell = np.eye(3, dtype=np.int64)
    supercell[:2, :2] = matrix
    cells = lattice_points_in_supercell(supercell)[:, :2]
    scaled = (cells[:, None] + (sheet.scaled + shift) @ np.linalg.inv(matrix)).reshape(-1, 2)
    flat = ((scaled + 1e-7) % 1.0 - 1e-7) @ plane
    return np.column_stack([flat, np.tile(sheet.heights + bottom, len(cells))])
