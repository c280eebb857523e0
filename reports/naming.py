"""What a record is called in a table."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from lossbench.bench.records.numbers import billions

Row = pd.Series | Mapping[Any, Any]


def each(rows: pd.DataFrame, describe: Callable[[pd.Series], object]) -> pd.Series:
    """What ``describe`` says of each row, even of none."""
    return pd.Series([describe(row) for _, row in rows.iterrows()], index=rows.index, dtype=object)


def letter(number: int) -> str:
    """A, B, ..., Z, AA, AB, ...: which of several runs or machines."""
    last = chr(ord("A") + number % 26)
    return last if number < 26 else letter(number // 26 - 1) + last


def loss_title(row: Row) -> str:
    """Title of the loss, with the hyperparameters that are not as published."""
    title = row["title"] if isinstance(row["title"], str) else row["loss"]
    settings = [_setting(text) for text in str(row["variant"]).split(",") if text]
    return " ".join([str(title), *settings])


def _setting(text: str) -> str:
    """A setting that is a word speaks for itself."""
    value = text.partition("=")[2]
    return value.replace("_", " ") if value.replace("_", "").isalpha() else text


def implementation(row: Row) -> str:
    """Name of the implementation, with its options and precision; of ``auto``, what it chose."""
    chosen, options = row.get("chosen"), row.get("options")
    name = str(row["implementation"])
    if name == "auto" and isinstance(chosen, str):
        name = f"auto: {chosen}"
    return " ".join([name, *(text for text in (options, row.get("products")) if text)])


def milliseconds(value: float) -> str:
    """Three digits or more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}" if value >= 10 else f"{value:.3f}"


def gmacs(value: float) -> str:
    """10^9 multiply-adds."""
    return billions(value, decimals=2)


def megabytes(value: float) -> str:
    """Bytes as MB of 10^6."""
    return f"{value / 1e6:,.0f}" if value >= 1e7 else f"{value / 1e6:.1f}"


def shape(row: pd.Series) -> str:
    """N x D of one evaluation, and what is not as usual."""
    unusual = [row["dtype"]] if row["dtype"] != "float32" else []
    unusual += [f"{row['inputs']} inputs"] if row["inputs"] != "random" else []
    return ", ".join([f"N = {row['loss_batch']}, D = {row['dim']}", row["pass"], *unusual])
