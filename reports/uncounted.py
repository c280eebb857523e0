"""What tables say of work that is not counted: the operations, by name."""

import pandas as pd

from lossbench.reports.naming import loss_title


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
