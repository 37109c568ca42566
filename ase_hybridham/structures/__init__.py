"""Which structures are worth computing? Makers of training sets."""

from ase_hybridham.structures.coincidence import Twist, best_twist
from ase_hybridham.structures.environments import EnvironmentCoverage, cover, environment_coverage, small_relative
from ase_hybridham.structures.fingerprint import distance_fingerprint, environment_fingerprints, farthest_of
from ase_hybridham.structures.independence import DistanceRow, Independence, independence
from ase_hybridham.structures.layers import Layers, layers_of
from ase_hybridham.structures.primitive import primitive_cell
from ase_hybridham.structures.sampling import random_graphene
from ase_hybridham.structures.shapes import supercell_shapes
from ase_hybridham.structures.twisted import hexagonal_twist, twisted_bilayer, twisted_stack, twists
from ase_hybridham.structures.variations import Variation, Varied, variations

__all__ = [
    "DistanceRow",
    "EnvironmentCoverage",
    "Independence",
    "Layers",
    "Twist",
    "Variation",
    "Varied",
    "best_twist",
    "cover",
    "distance_fingerprint",
    "environment_coverage",
    "environment_fingerprints",
    "farthest_of",
    "hexagonal_twist",
    "independence",
    "layers_of",
    "primitive_cell",
    "random_graphene",
    "small_relative",
    "supercell_shapes",
    "twisted_bilayer",
    "twisted_stack",
    "twists",
    "variations",
]
