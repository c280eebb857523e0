"""How far verdicts of paired timing can be believed, by what ``lossbench noise`` sampled."""

from collections.abc import Sequence

import pandas as pd

from lossbench.bench.comparing.trust import DRAWS, SITTINGS, comparisons, coverage, judge
from lossbench.bench.records.kinds import NOISE
from lossbench.reports.naming import implementation, loss_title
from lossbench.reports.section import Column, Section

ALIKE = [
    *("machine", "loss", "variant", "implementation", "options", "products", "contender"),
    *("batch", "dim", "dtype", "inputs", "noise_pass"),
    *("noise_slowdown", "noise_neighbour"),
]


def build(records: pd.DataFrame) -> Sequence[Section]:
    """A section for each machine: a row for each case, alone and beside a neighbour.

    Args:
        records: records of ``lossbench noise``.

    Raises:
        ValueError: there are none.
    """
    rows = records[(records["pass"] == NOISE) & (records["status"] == "ok")]
    if rows.empty:
        raise ValueError("nothing was compared with itself; run lossbench noise first")
    return [_section(str(machine), own) for machine, own in rows.groupby("machine", sort=False)]


def _section(machine: str, rows: pd.DataFrame) -> Section:
    kinds = [own for _, own in rows.groupby(ALIKE, sort=False)]
    columns = {
        "loss": Column("loss", left=True),
        "implementation": Column("by", left=True),
        "shape": Column("N x D", left=True),
        "beside": Column("beside it", left=True),
        "comparisons": Column("comparisons"),
        "false": Column("false claims"),
        "slowdown": Column("slower by", "{:.0%}".format),
        "found": Column("found"),
        **{f"held_{n}": Column(f"{n} rounds hold", "{:.1%}".format) for n in SITTINGS},
    }
    first = rows.iloc[0]
    notes = [
        f"{machine}. A call was timed in turn with itself, with itself again, and with a copy that "
        "is slowed down. False claims: how often the same call was said to be FASTER or SLOWER. "
        "Found: how often the slowed copy was said to be SLOWER, of as many comparisons, in at "
        f"most {first['noise_processes']:.0f} processes of {first['noise_rounds']:.0f} rounds. "
        f"Rounds hold: of {DRAWS:,} comparisons of the call with itself, drawn from these samples, "
        "how many have a 95% interval that holds the true ratio."
    ]
    return Section("Verdicts on what is known", pd.DataFrame(map(_row, kinds)), columns, notes)


def _row(own: pd.DataFrame) -> dict[str, object]:
    first = own.iloc[0]
    compared = comparisons(own.to_dict("records"), int(first["noise_processes"]))
    found = judge(compared)
    held = {f"held_{rounds}": coverage(compared, rounds) for rounds in SITTINGS}
    return {
        "loss": loss_title(first),
        "implementation": implementation(first),
        "shape": f"{first['batch']} x {first['dim']}",
        "beside": "a busy neighbour" if first["noise_neighbour"] else "nothing",
        "comparisons": found.comparisons,
        "false": found.false_claims,
        "slowdown": first["noise_slowdown"],
        "found": found.found,
        **held,
    }
