"""Where do computed structures wait for training? The data set: one HDF5 file.

Layout, schema 1::

    /                    attributes: format, schema, spin
    basis, splits, provenance       JSON texts
    structures/NAME/     attributes: fermi_level, electrons (NaN if unknown), potential_reference, provenance, digest
        numbers (n,)  positions (n, 3)  cell (3, 3)  pbc (3,)
        pairs (P, 5)                i, j, R in the order of `PairList`
        hamiltonian (n_operators, M)    eV, blocks one after the other, raw as computed
        overlap (M,)                without spin; may be absent

NAME is percent-encoded, so that a name may contain a slash. HDF5 cannot promise that a file survives a kill while it
is written; therefore nothing is ever written into a data set in place: a copy is extended and renamed over it.
"""

from ase_hybridham.store.reading import DataSet, StructureHead, is_data_set, names_data_set, read_structure
from ase_hybridham.store.writing import append_systems, random_splits, set_basis, set_splits, set_valences

__all__ = [
    "DataSet",
    "StructureHead",
    "append_systems",
    "is_data_set",
    "names_data_set",
    "random_splits",
    "read_structure",
    "set_basis",
    "set_splits",
    "set_valences",
]
