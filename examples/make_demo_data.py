"""The structures of the data set that ships with the package; the command line then computes it.

    python examples/make_demo_data.py
    hybridham dft graphene_train.xyz -o demo_graphene.h5 --k-length 8.5 --compact --split train
    hybridham dft graphene_val.xyz -o demo_graphene.h5 --k-length 8.5 --compact --split val

LDA, 100 hartree, cells of 12 angstrom height, 4 x 4 k-points a primitive cell (folded in the
larger ones): about 4 minutes on one core.
"""

from collections.abc import Iterator

import ase.io
import numpy as np
from ase import Atoms

from ase_hybridham.structures import random_graphene

# layers, primitive cells along both vectors, structures for training, for validation
KINDS = [
    (1, (1, 1), 8, 1),
    (2, (1, 1), 20, 3),
    (1, (2, 2), 10, 2),
    (2, (2, 1), 10, 2),
]


def structures(seed: int, column: int) -> Iterator[Atoms]:
    """Random cells of every kind; `column` of KINDS says how many."""
    rng = np.random.default_rng(seed)
    for kind in KINDS:
        layers, repeat = kind[:2]
        for _ in range(kind[column]):
            yield random_graphene(rng, layers, repeat=repeat)


if __name__ == "__main__":
    for split, seed, column in (("train", 0, 2), ("val", 1, 3)):
        made = list(structures(seed, column))
        ase.io.write(f"graphene_{split}.xyz", made)
        print(f"graphene_{split}.xyz: {len(made)} structures, {sum(map(len, made))} atoms")
