"""Tables of the papers, as data. ``source`` names the paper and table."""

from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).parent


def read(name: str) -> pd.DataFrame:
    """A published table, every cell as the text that was printed."""
    return pd.read_csv(FOLDER / f"{name}.csv", dtype=str, keep_default_na=False)
