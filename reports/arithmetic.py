"""What losses compute: matrix products and all else, and by name what of it is not counted."""

import pandas as pd

from lossbench.bench.records.numbers import amount
from lossbench.reports.naming import each, gmacs, implementation, loss_title
from lossbench.reports.section import Column, Section


def note(rows: pd.DataFrame, field: str = "gmacs") -> list[str]:
    """A sentence for the footer of a table that shows counts, if some are not known.

    Args:
        rows: records.
        field: the count that is shown.
    """
    unknown = rows[rows[field].isna() & (rows["uncounted"] != "")]
    found = {(loss_title(row), row["uncounted"]): None for _, row in unknown.iterrows()}
    said = "; ".join(f"{title}: {names}" for title, names in found)
    return [f"Not counted, so - stands there: {said}."] if said else []


def section(title: str, rows: pd.DataFrame) -> Section:
    """A table of all arithmetic of the records that know it, as old ones do not.

    Args:
        title: of the table.
        rows: records of one shape and pass.
    """
    known = rows[rows["elementwise"].notna() | (rows["uncounted"] != "")]
    frame = pd.DataFrame(
        {
            "loss": each(known, loss_title),
            "implementation": each(known, implementation),
            "loss_batch": known["loss_batch"],
            "gmacs": known["gmacs"] / known["evaluations"],
            "elementwise": known["elementwise"],
            "transcendentals": known["transcendentals"],
        }
    )
    columns = {
        "loss": Column("loss", left=True),
        "implementation": Column("by", left=True),
        "loss_batch": Column("batch"),
        "gmacs": Column("GMACs", gmacs),
        "elementwise": Column("other operations", amount),
        "transcendentals": Column("exp, log, roots", amount),
    }
    notes = [
        "Of one evaluation. Other operations: additions, multiplications and the like beside "
        "matrix products, by the formula; exponentials, logarithms and roots, which take several "
        "times as long, are apart.",
        *note(known, "elementwise"),
    ]
    return Section(title, frame, columns, notes)
