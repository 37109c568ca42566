"""Files like OpenMX's .pao, written from the golden radial functions."""

from pathlib import Path

import numpy as np

from ase_hybridham.system import AtomBasis
from tests.overlap.radial_data import NAMES, openmx_basis

OPENMX = {symbol: name.partition("-")[0] for symbol, name in NAMES.items()}  # file without suffix


def pao_text(atom: AtomBasis, *, number: float | None = None, extra: int = 2) -> str:
    """What OpenMX's program for atoms would write: the functions of an atom, then others that are not asked for.

    Parameters
    ----------
    atom : AtomBasis
        With radial functions, in order of l.
    number : float, optional
        AtomSpecies, if it should not be that of the atom.
    extra : int
        Functions of every l after those of the atom, at least.
    """
    radials = [shell.radial for shell in atom.shells]
    mesh, most = radials[0].mesh, max(map(atom.degrees.count, atom.degrees)) + extra
    lines = [
        "*****  contraction coefficients, which nobody reads  *****",
        f"AtomSpecies   {atom.number if number is None else number}",
        f"total.electron  {atom.number - 0.5}",
        f"valence.electron   {atom.valence}  # of the pseudopotential",
        f"grid.num.output  {len(mesh)}   # default=2000",
        f"radial.cutoff.pao   {radials[0].cutoff}    # default=5.0 (Bohr)",
        "radial.cutoff.pao   1.0   # the first of equal ones counts",
        f"PAO.Lmax  {max(atom.degrees)}",
        f"PAO.Mul  {most}",
    ]
    for l in sorted(set(atom.degrees)):
        own = [shell.radial.values for shell in atom.shells if shell.l == l]
        own += [np.cos(mesh)] * (most - len(own))
        rows = np.column_stack([np.log(mesh), mesh, *own])
        lines.append(f"<pseudo.atomic.orbitals.L={l}")
        lines += ["  ".join(f"{value:.17g}" for value in row) for row in rows]
        lines.append(f"pseudo.atomic.orbitals.L={l}>")
    return "\n".join(lines) + "\n"


def pao_folder(folder: Path, *symbols: str) -> Path:
    """A folder with the files of some elements, all that there are without any."""
    folder.mkdir(parents=True, exist_ok=True)
    for symbol in symbols or OPENMX:
        (folder / f"{OPENMX[symbol]}.pao").write_text(pao_text(openmx_basis(symbol)[symbol]))
    return folder
