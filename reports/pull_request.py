"""A comparison as a comment on a pull request: what got worse, then the rest, folded."""

from collections.abc import Sequence

import pandas as pd

from lossbench.reports.compare import GATES, Side
from lossbench.reports.comparison import digits
from lossbench.reports.naming import megabytes, milliseconds
from lossbench.reports.section import Column, Section, render
from lossbench.reports.side_by_side import label_cases

FORM = "github"
"""Name of the form, beside those of ``section.FORMS``."""


def render_comment(
    sides: Sequence[Side],
    found: Sequence[pd.DataFrame],
    sections: Sequence[Section],
    lines: Sequence[str],
) -> str:
    """Markdown that GitHub shows.

    Args:
        sides: the runs, the first of which is the base.
        found: what ``compare.pair`` found for each of the others.
        sections: all that there is to show.
        lines: what gates say.
    """
    worse = _worse(sides, found)
    counts = ", ".join(f"{sum(worse['what'] == gate)} {gate}" for gate in GATES)
    compared = sum(int(of_side["ratio"].notna().sum()) for of_side in found)
    parts = [f"### lossbench: {counts} (of {compared} cases)"]
    if len(worse):
        columns = {
            "case": Column("case", left=True),
            "what": Column("what", left=True),
            "old": Column("before"),
            "new": Column("now"),
            "interval": Column("95%"),
        }
        parts.append(render([Section("Worse", worse, columns)], "markdown").strip())
    parts += [f"- {line}" for line in lines]
    cases = render(sections, "markdown").strip()
    parts.append(f"<details><summary>All cases</summary>\n\n{cases}\n\n</details>")
    return "\n\n".join(parts) + "\n"


def _worse(sides: Sequence[Side], found: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """A row for each case and gate that it fails."""
    labels, _ = label_cases(sides)
    rows = []
    for side, of_side in zip(sides[1:], found, strict=True):
        for gate in GATES:
            for case in of_side.index[of_side[gate].astype(bool)]:
                old, new = sides[0].rows.loc[case], side.rows.loc[case]
                name = f"{labels.at[case, 'who']} {labels.at[case, 'in_full']}".strip()
                said = _said(gate, old, new, of_side.loc[case])
                rows.append({"case": name, "what": gate, **said})
    return pd.DataFrame(rows, columns=["case", "what", "old", "new", "interval"])


def _said(gate: str, old: pd.Series, new: pd.Series, found: pd.Series) -> dict[str, str]:
    if gate == "slower":
        interval = f"{digits(found['low'])}-{digits(found['high'])}x"
        return {
            "old": f"{milliseconds(old['median_ms'])} ms",
            "new": f"{milliseconds(new['median_ms'])} ms",
            "interval": interval,
        }
    if gate == "bigger":
        return {
            "old": f"{megabytes(old['peak_bytes'])} MB",
            "new": f"{megabytes(new['peak_bytes'])} MB",
        }
    if new["status"] != "ok":
        return {"old": "ok", "new": f"{new['status']}: {new['reason']}"}
    return {
        "old": f"error {old['gradient_error']:.0e}",
        "new": f"error {new['gradient_error']:.0e}",
    }
