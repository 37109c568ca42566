"""All checks of one structure, in their order."""

import numpy as np

from ase_hybridham.check.basis import check_basis
from ase_hybridham.check.conventions import check_conventions
from ase_hybridham.check.energies import check_energies
from ase_hybridham.check.geometry import check_geometry
from ase_hybridham.check.operators import check_operators
from ase_hybridham.check.report import Report
from ase_hybridham.check.spin import check_spin
from ase_hybridham.system import LCAOSystem

__all__ = ["check_system"]


def check_system(system: LCAOSystem) -> Report:
    """What a structure's data show about themselves.

    Parameters
    ----------
    system : LCAOSystem
        Whatever made it; with H, S or both. Checks that lack something are skipped and say what.

    Returns
    -------
    Report
        One finding for each check. `Report.failed` is empty for data that can be used.
    """
    # numbers that overflow, or an S that is zero, have failed a check of their own
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return Report(
            (
                *check_operators(system),
                *check_geometry(system),
                *check_conventions(system),
                *check_basis(system),
                *check_spin(system),
                *check_energies(system),
            )
        )
