"""Are these data what they say? Checks of physics and conventions of one structure, each with its verdict."""

from ase_hybridham.check.report import Finding, Report, Verdict
from ase_hybridham.check.system import check_system

__all__ = ["Finding", "Report", "Verdict", "check_system"]
