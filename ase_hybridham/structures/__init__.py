"""Which structures are worth computing? Makers of training sets."""

from ase_hybridham.structures.sampling import random_graphene

__all__ = ["random_graphene"]
