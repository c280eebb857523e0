"""What is said of results that beat a calibrated ceiling."""

import pandas as pd


def raised(rows: pd.DataFrame) -> list[str]:
    """A sentence on the rows whose ceiling was raised to them; none if there are none."""
    by = pd.to_numeric(rows["ceiling_raised"], errors="coerce")
    beaten = by[by > 0]
    if beaten.empty:
        return []
    who = "One result" if len(beaten) == 1 else f"{len(beaten)} results"
    return [
        f"{who} beat the calibrated ceiling, by up to {beaten.max():.1%}: there the ceiling was "
        "raised to the result, which so reaches 100% of it."
    ]
