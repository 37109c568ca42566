"""Where S of a structure comes from: somebody gives it, or the radial functions of the basis tell it.

In this order: S that is given (of one geometry, or a function for any), the radial functions that the model carries,
those of a folder of basis files. Where none of them is there, that is an error: S is never zero, nor 1 unless the
basis is orthogonal.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ase import Atoms

from ase_hybridham.errors import OverlapError
from ase_hybridham.io import attach_radial_functions, read_system
from ase_hybridham.io.basis_files import basis_names
from ase_hybridham.overlap import check_overlap, overlap_from_basis
from ase_hybridham.overlap.given import difference_from_basis
from ase_hybridham.store import names_data_set, read_structure
from ase_hybridham.system import Basis, PairBlocks, PairList

__all__ = ["OverlapFunction", "OverlapSource", "find_overlap", "read_overlap"]

logger = logging.getLogger(__name__)

OverlapFunction = Callable[[Atoms, Basis, PairList], PairBlocks]
DIFFERENT = 1e-4  # more than single precision and rounded positions make of S


@dataclass(frozen=True, eq=False)
class OverlapSource:
    """S of any structure of a basis.

    Parameters
    ----------
    basis : Basis
        Of H, with the radial functions that are known.
    given : PairBlocks or callable, optional
        S of one geometry, or ``given(atoms, basis, pairs) -> PairBlocks``.
    """

    basis: Basis
    given: PairBlocks | OverlapFunction | None = None

    @property
    def is_known(self) -> bool:
        """Whether there is an S to be had."""
        return self.given is not None or self.basis.orthogonal or self.basis.has_radial_functions()

    def of(self, atoms: Atoms, pairs: PairList | None = None) -> PairBlocks | None:
        """S of a structure; None where it is 1 by definition.

        Parameters
        ----------
        atoms : ase.Atoms
        pairs : PairList, optional
            By default those within the radii of the basis. An S that is given for one geometry keeps its own.

        Raises
        ------
        OverlapError
            If there is no S, or that which is given does not belong to the atoms.
        """
        if isinstance(self.given, PairBlocks):
            check_overlap(self.given, atoms, self.basis)
            self._compare(self.given, atoms)
            return self.given
        if self.given is None and self.basis.orthogonal:
            return None
        if not self.is_known:
            raise OverlapError(
                "overlap: the model's basis has no radial functions to compute S from; give basis_dir= (the folder of "
                "its basis files, such as C6.0.pao), or overlap= (of these atoms: a DeepH folder, a .scfout, "
                "data.h5:NAME, PairBlocks; or a function)"
            )
        if pairs is None:
            pairs = PairList.from_atoms(atoms, self.basis.cutoffs())
        if self.given is None:
            return overlap_from_basis(atoms, self.basis, pairs)
        made = self.given(atoms, self.basis, pairs)
        check_overlap(made, atoms, self.basis)
        return made

    def _compare(self, given: PairBlocks, atoms: Atoms) -> None:
        """Tell if S is not that of the basis: it may be of another, whose shells have the same l."""
        if not self.basis.has_radial_functions():
            return
        difference = difference_from_basis(given, atoms, self.basis)
        if difference > DIFFERENT:
            logger.warning(
                "overlap: the S that is given differs by up to %.1e from that of the model's radial functions; "
                "it is used, but is it of these atoms, and of the basis the model was trained on?",
                difference,
            )


def find_overlap(
    basis: Basis,
    *,
    overlap: PairBlocks | str | Path | OverlapFunction | None = None,
    basis_dir: str | Path | None = None,
    names: Mapping[str, str] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> OverlapSource:
    """The source of S for a basis.

    Parameters
    ----------
    basis : Basis
        Of the model.
    overlap : optional
        PairBlocks, a function, or what `read_overlap` reads.
    basis_dir : str or Path, optional
        Folder of basis files, for a basis without radial functions; one that has them keeps its own.
    names : mapping, optional
        Element -> name in that folder, such as ``"C6.0-s2p2d1"``; by default those of the provenance.
    provenance : mapping, optional
        Of the model or of a system.

    Raises
    ------
    FormatError
        If a file is missing, broken or ambiguous.
    OverlapError
        If the file that is given holds no S, or there are names and no folder.
    """
    if names is not None and not isinstance(names, Mapping):
        raise OverlapError(f'basis_names: expected a mapping like {{"C": "C6.0-s2p2d1"}}, got {names!r}')
    if names and basis_dir is None:
        raise OverlapError(f"basis_names: {', '.join(names.values())}: names of files in a folder; give basis_dir= too")
    if basis_dir is not None:
        basis = _with_files(basis, basis_dir, names, provenance or {})
    given = read_overlap(overlap) if isinstance(overlap, (str, Path)) else overlap
    return OverlapSource(basis, given)


def read_overlap(source: str | Path) -> PairBlocks:
    """The S of ``data.h5:NAME`` or of anything `io.read_system` reads, such as a DeepH folder or a .scfout.

    Raises
    ------
    FormatError
        If it cannot be read.
    OverlapError
        If it holds no S.
    """
    found = (read_structure(source) if names_data_set(source) else read_system(source)).overlap
    if found is None:
        raise OverlapError(f"{source}: holds no overlap; give a file or folder with S")
    return found


def _with_files(basis: Basis, folder: str | Path, names: Mapping[str, str] | None, told: Mapping[str, Any]) -> Basis:
    """The basis with the functions of a folder, unless it has its own; then they are only compared."""
    calculation = told.get("structure", told)  # a checkpoint keeps that of a training structure
    found = attach_radial_functions(basis, folder, {**basis_names(calculation), **(names or {})}, calculation)
    if not basis.has_radial_functions():
        # H is known as far as it was trained, which may be less far than S reaches
        radii = {symbol: atom.cutoff or found[symbol].cutoff for symbol, atom in basis.atoms.items()}
        return replace(found, atoms={s: replace(found[s], cutoff=radius) for s, radius in radii.items()})
    for symbol, atom in basis.atoms.items():
        if [shell.radial for shell in atom.shells] != [shell.radial for shell in found[symbol].shells]:
            logger.warning("%s: the functions of %s are not those of the model, whose own are used", folder, symbol)
    return basis
