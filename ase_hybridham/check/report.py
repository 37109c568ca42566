"""What the checks found: one finding a check, a report a structure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Finding", "Report", "Verdict"]

Verdict = Literal["ok", "skipped", "note", "warning", "failed"]
# from good to bad: the verdict of a report is the worst of its findings
SEVERITY: Mapping[str, int] = {"skipped": 0, "ok": 1, "note": 2, "warning": 3, "failed": 4}


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Parameters
    ----------
    name : str
        The check, e.g. ``"overlap covariance"``.
    verdict : {"ok", "skipped", "note", "warning", "failed"}
        `note`: a property of the data that a person should know; `warning`: unusual, look at it;
        `failed`: the data are wrong.
    message : str
        What was found, one line.
    figure : float, optional
        What was measured.
    unit : str
        Of the figure.
    limit : float, optional
        Where the check fails, or warns if it never fails.
    advice : str
        What to do; empty if nothing.
    """

    name: str
    verdict: Verdict
    message: str
    figure: float | None = None
    unit: str = ""
    limit: float | None = None
    advice: str = ""


@dataclass(frozen=True)
class Report:
    """The findings about one structure.

    Parameters
    ----------
    findings : tuple of Finding
        In the order of the checks.
    """

    findings: tuple[Finding, ...]

    @property
    def failed(self) -> list[Finding]:
        """The findings that show the data to be wrong."""
        return [finding for finding in self.findings if finding.verdict == "failed"]

    @property
    def warnings(self) -> list[Finding]:
        """The findings a person should look at."""
        return [finding for finding in self.findings if finding.verdict == "warning"]

    @property
    def worst(self) -> Verdict:
        """The worst verdict of all findings."""
        return max((finding.verdict for finding in self.findings), key=SEVERITY.__getitem__, default="ok")

    def __getitem__(self, name: str) -> Finding:
        """The finding of a check.

        Raises
        ------
        KeyError
            If no check of this name was made.
        """
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(f"no check {name!r}, only {', '.join(finding.name for finding in self.findings)}")

    def summary(self) -> str:
        """One line: what failed, else what to look at, else that all is well."""
        bad = self.failed or self.warnings
        if not bad:
            done = sum(finding.verdict != "skipped" for finding in self.findings)
            return f"ok ({done} checks)"
        return "; ".join(_sentence(finding) for finding in bad)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"verdict": self.worst, "findings": [asdict(finding) for finding in self.findings]}


def _sentence(finding: Finding) -> str:
    advice = f"; {finding.advice}" if finding.advice else ""
    return f"{finding.name} {finding.verdict}: {finding.message}{advice}"
