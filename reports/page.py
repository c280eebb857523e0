"""Tables from run files, and pages whose tables are generated in place.

A generated block of a page stands between two comments, the first of which says what it is:

    <!-- lossreport table efficiency results/nvidia-h200/efficiency.jsonl -->
    ...
    <!-- end -->
"""

import re
from collections.abc import Sequence
from pathlib import Path

from reports import tables
from reports.records import load
from reports.section import FORMS, render

_BLOCK = re.compile(r"(<!-- lossreport table (\S+) (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def make_table(name: str, runs: Sequence[Path], form: str) -> str:
    """A table as text.

    Args:
        name: one of ``tables.names()``.
        runs: run files.
        form: one of ``FORMS``.

    Raises:
        ValueError: an unknown name, or a run file that is missing, damaged or of another suite.
    """
    build = tables.builder(name)
    if form not in FORMS:
        raise ValueError(f"unknown format {form!r}; known: {', '.join(sorted(FORMS))}")
    return render(build(load(runs)), form)


def refresh(text: str, folder: Path) -> str:
    """A page with every generated block made anew; paths are relative to ``folder``."""

    def fill(block: re.Match[str]) -> str:
        start, name, runs, end = block.groups()
        made = make_table(name, [folder / run for run in runs.split()], "markdown")
        return f"{start}\n{made}\n{end}"

    return _BLOCK.sub(fill, text)
