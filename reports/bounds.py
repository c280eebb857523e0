"""Bounds of the headline steps before the kernels were changed, and now."""

from pathlib import Path

import pandas as pd

_PASSES = {"step": "with gradient", "forward": "value alone"}
_KEYS = ["triton", "N", "D", "pass"]
_STEP = "step"
"""What a row of a whole step has in place of a kernel's name."""


def table(path: Path, capability: str) -> str:
    """Bounds of a compute capability, as Markdown.

    Args:
        path: what ``lossbench audit --bounds --out`` wrote.
        capability: such as "90".

    Raises:
        ValueError: a file that cannot be read, or without that capability.
    """
    try:
        found = pd.read_csv(path, dtype={"triton": str, "cc": str})
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    found = found[found["cc"] == capability]
    if found.empty:
        raise ValueError(f"{path} has no bounds of compute capability {capability!r}")
    rows = []
    for key, step in found.groupby(_KEYS, sort=False):
        triton, batch, dim, pass_ = map(str, key)
        row = {"triton": triton, "N": batch, "D": dim, "pass": _PASSES[pass_]}
        for state in ("before", "now"):
            row |= _state(state, step[step["state"] == state])
        rows.append(row)
    frame = pd.DataFrame(rows).sort_values("triton", kind="stable", ascending=False)
    return str(frame.to_markdown(index=False, disable_numparse=True)) + "\n"


def _state(state: str, step: pd.DataFrame) -> dict[str, str]:
    """The share of a step, and of its kernels that make products."""
    whole = step[step["kernel"] == _STEP]["share"]
    made = step[(step["kernel"] != _STEP) & step["share"].notna()]
    # of launches of one kernel, those that do the most
    most = made.assign(work=made["launches"] * made["tiles"]).sort_values("work", ascending=False)
    kernels = [
        f"{row['kernel']} {row['share']:.0%} ({row['limit']})"
        for _, row in most.drop_duplicates("kernel").iterrows()
    ]
    return {
        f"{state}: step": f"{whole.iloc[0]:.0%}" if len(whole) else "-",
        f"{state}: products by": ", ".join(kernels) or ("cuBLAS" if len(whole) else "-"),
    }
