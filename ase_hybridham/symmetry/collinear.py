"""Direct sum of the two blocks of collinear spin: their mean, then their splitting.

Up and down are two spinless operators, so that nothing new turns; but their difference is ten to a thousand times
smaller than either, and a network that gave both would drown it in its error. As components of their own, mean
and splitting get scales of their own.
"""

from functools import cached_property
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from ase_hybridham.symmetry.coupling import DirectSum, DoubledDirectSum

__all__ = ["CollinearDirectSum"]


class CollinearDirectSum(DoubledDirectSum):
    """Direct sum of a pair of blocks, up and down: the parts of (up + down) / sqrt(2), then of (up - down) / sqrt(2).

    Orthonormal: |up|^2 + |down|^2 = |h|^2.

    Parameters
    ----------
    rows, columns : tuple of int
        l of the shells of the two atoms.
    """

    @cached_property
    def half(self) -> DirectSum:
        """The direct sum of one spin."""
        return DirectSum(self.rows, self.columns)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Spins, and rows and columns of a block."""
        return 2, *self.half.shape

    def to_sum(self, blocks: NDArray) -> NDArray:
        """Components of blocks up and down, shape (..., 2, n_i, n_j) -> (..., size); keeps the dtype and the norm."""
        if blocks.shape[-3:] != self.shape:
            raise ValueError(f"blocks: expected (..., 2, {self.shape[1]}, {self.shape[2]}), got {blocks.shape}")
        up, down = np.moveaxis(self.half.to_sum(blocks), -2, 0)
        return np.concatenate([up + down, up - down], axis=-1) * sqrt(0.5)

    def to_blocks(self, components: NDArray) -> NDArray:
        """Blocks up and down, shape (..., size) -> (..., 2, n_i, n_j); inverse of `to_sum`."""
        mean, splitting = self.halves(components)
        return self.half.to_blocks(np.stack([mean + splitting, mean - splitting], axis=-2)) * sqrt(0.5)
