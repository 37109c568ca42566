"""Rows of runs to tables and pictures: mean and standard deviation over seeds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from study import VARIANTS

from ase_hybridham.plot import new_axes, save_figure

TITLES = {
    "stage1": "stage 1",
    "control": "stage 1, trained on for as long",
    **{key: variant.title for key, variant in VARIANTS.items()},
    **{f"{key}-stage1": "stage 1 of the next row" for key, variant in VARIANTS.items() if variant.own_stage1},
}
ORDER = ["stage1", "control"]
for key, variant in VARIANTS.items():
    ORDER += [f"{key}-stage1", key] if variant.own_stage1 else [key]


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a results file; none if there is none."""
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []


def merged(rows: Sequence[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows with another, in place of the one of the same variant and seed."""
    others = [r for r in rows if (r["variant"], r["seed"]) != (row["variant"], row["seed"])]
    return [*others, row]


@dataclass(frozen=True)
class Table:
    """The paper's table.

    Parameters
    ----------
    title : str
    rows : sequence of dict
        One per run: variant, seed, tests -> errors in meV.
    """

    title: str
    rows: Sequence[dict[str, Any]]

    @property
    def variants(self) -> list[str]:
        """Those there are, in the order of the table; points of a curve last."""
        found = {row["variant"] for row in self.rows}
        return [key for key in ORDER if key in found] + sorted(found - set(ORDER), key=lambda k: float(k.split("-")[1]))

    @property
    def tests(self) -> list[str]:
        """Names of the test sets."""
        return list(self.rows[0]["tests"])

    def values(self, variant: str, test: str, figure: str) -> dict[int, float]:
        """Seed -> error in meV."""
        return {row["seed"]: row["tests"][test][figure] for row in self.rows if row["variant"] == variant}

    def ratio(self, variant: str, test: str, figure: str, to: str = "control") -> float | None:
        """Mean over the seeds both have of the error against that of another variant."""
        mine, other = self.values(variant, test, figure), self.values(to, test, figure)
        common = [mine[seed] / other[seed] for seed in mine if seed in other]
        return float(np.mean(common)) if common else None

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Heading and rows: errors as mean ± standard deviation over seeds, and the ratio to the control."""
        heading = ["meV"]
        for test in self.tests:
            heading += [f"{test} MAE_all", "MAE_cha", "/ control"]
        body = []
        for variant in self.variants:
            line = [TITLES.get(variant, variant)]
            for test in self.tests:
                line += [spread(self.values(variant, test, figure)) for figure in ("mae_all", "mae_cha")]
                ratio = self.ratio(variant, test, "mae_all")
                line.append("" if ratio is None else f"{ratio:.2f}")
            body.append(line)
        return heading, body

    def plateau(self) -> float | None:
        """By how much more training lowers stage 1's validation error, mean over seeds."""
        valid = {(row["variant"], row["seed"]): row["valid_meV"] for row in self.rows}
        gains = [1 - v / valid["stage1", seed] for (key, seed), v in valid.items() if key == "control"]
        return float(np.mean(gains)) if gains else None

    def markdown(self) -> str:
        """The table as in docs."""
        heading, body = self.cells()
        lines = [f"{self.title}: {self.cost()}", ""]
        lines += [f"| {' | '.join(line)} |" for line in (heading, ["---"] * len(heading), *body)]
        return "\n".join(lines)

    def cost(self) -> str:
        """Seeds, CPU time, and how near the plateau stage 1 is."""
        seeds = {row["seed"] for row in self.rows}
        total = sum({(r["variant"].removesuffix("-stage1"), r["seed"]): r["cpu_s"] for r in self.rows}.values())
        gain = self.plateau()
        more = "" if gain is None else f"; as much time again lowers stage 1's validation error by {100 * gain:.0f} %"
        return f"{len(seeds)} seed{'s' * (len(seeds) != 1)}, {total / 60:.0f} CPU minutes{more}"

    def latex(self) -> str:
        """The table for a paper."""
        heading, body = self.cells()
        lines = [" & ".join(line).replace("_", r"\_").replace("±", r"$\pm$") + r" \\" for line in (heading, *body)]
        columns = "l" + "r" * (len(heading) - 1)
        head = [f"% {self.title}: {self.cost()}", rf"\begin{{tabular}}{{{columns}}}", r"\hline", lines[0], r"\hline"]
        return "\n".join([*head, *lines[1:], r"\hline", r"\end{tabular}", ""])

    def figure(self, path: Path) -> None:
        """Errors of every variant on every test set, points for seeds."""
        axes = new_axes(6.4, 0.6 + 0.32 * len(self.variants))
        for number, test in enumerate(self.tests):
            for place, variant in enumerate(self.variants):
                values = list(self.values(variant, test, "mae_all").values())
                axes.plot(values, [place] * len(values), "o", color=f"C{number}", markersize=4, alpha=0.7)
            axes.plot([], [], "o", color=f"C{number}", label=test)
        axes.set_yticks(range(len(self.variants)), [TITLES.get(key, key) for key in self.variants])
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlabel("MAE_all (meV)")
        axes.legend(frameon=False)
        save_figure(axes, path)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        means = {
            variant: {
                test: {
                    figure: float(np.mean(list(self.values(variant, test, figure).values())))
                    for figure in ("mae_all", "mae_cha")
                }
                for test in self.tests
            }
            for variant in self.variants
        }
        summary = {"title": self.title, "cost": self.cost(), "plateau_gain": self.plateau()}
        return {**summary, "means": means, "rows": list(self.rows)}


def spread(values: dict[int, float]) -> str:
    """Mean ± standard deviation, of one seed the value."""
    numbers = list(values.values())
    mean = float(np.mean(numbers))
    digits = max(0, 2 - int(np.floor(np.log10(mean)))) if mean > 0 else 2
    if len(numbers) == 1:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {np.std(numbers, ddof=1):.{digits}f}"
