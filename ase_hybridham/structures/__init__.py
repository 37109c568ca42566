"""Which structures are worth computing? Makers of training sets."""

from ase_hybridham.structures.fingerprint import distance_fingerprint, farthest_of
from ase_hybridham.structures.independence import DistanceRow, Independence, independence
from ase_hybridham.structures.layers import Layers, layers_of
from ase_hybridham.structures.sampling import random_graphene
from ase_hybridham.structures.shapes import supercell_shapes
from ase_hybridham.structures.twisted import twisted_bilayer
from ase_hybridham.structures.variations import Variation, Varied, variations

__all__ = [
    "DistanceRow",
    "Independence",
    "Layers",
    "Variation",
    "Varied",
    "distance_fingerprint",
    "farthest_of",
    "independence",
    "layers_of",
    "random_graphene",
    "supercell_shapes",
    "twisted_bilayer",
    "variations",
]
