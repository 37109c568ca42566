"""Chebyshev polynomials of distances."""

import torch
from torch import Tensor

__all__ = ["chebyshev_rows"]


def chebyshev_rows(distance: Tensor, reach: Tensor, degree: int) -> Tensor:
    """T_0 .. T_degree of distances (E,) within `reach` (2,), beyond which they stay what they are at its ends.

    Shape (E, degree + 1).
    """
    low, high = reach
    x = ((2.0 * distance - low - high) / (high - low)).clamp(-1.0, 1.0)
    polynomials = [torch.ones_like(x), x]
    for _ in range(2, degree + 1):
        polynomials.append(2.0 * x * polynomials[-1] - polynomials[-2])
    return torch.stack(polynomials, dim=1)
