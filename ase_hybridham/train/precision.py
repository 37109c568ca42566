"""How exactly products of matrices are computed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

__all__ = ["Precision", "products_in"]

Precision = Literal["float32", "tf32", "bf16"]


@contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """Let CUDA round the factors of float32 products to TF32 while the block runs, unless float32 is asked for."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision != "float32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
