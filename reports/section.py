"""A titled table with its notes, and its four forms: terminal, Markdown, CSV, LaTeX."""

import io
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

Format = Callable[[Any], str]
MISSING = "-"
TEXT_WIDTH = 16
"""Longer text wraps in the terminal, so that the numbers beside it fit in 80 columns."""


@dataclass(frozen=True)
class Column:
    """How one column is shown.

    Attributes:
        header: what stands above it, with the unit.
        format: value to text; missing values are shown as a dash.
        left: align to the left (text) rather than the right (numbers).
    """

    header: str
    format: Format = str
    left: bool = False


@dataclass(frozen=True)
class Section:
    """A table and what the reader must know to read it.

    Attributes:
        title: one line.
        frame: the values, at full precision.
        columns: how each column of ``frame`` is shown, in order.
        notes: sentences below the table.
    """

    title: str
    frame: pd.DataFrame
    columns: dict[str, Column]
    notes: Sequence[str] = field(default_factory=tuple)

    def text(self) -> pd.DataFrame:
        """The table as it is shown."""
        columns = [
            [MISSING if pd.isna(value) else column.format(value) for value in self.frame[name]]
            for name, column in self.columns.items()
        ]
        headers = [column.header for column in self.columns.values()]  # may repeat
        return pd.DataFrame(list(zip(*columns, strict=True)), columns=headers, dtype=str)


def render(sections: Sequence[Section], form: str) -> str:
    """All sections as text in one of ``FORMS``."""
    return FORMS[form](sections)


def _terminal(sections: Sequence[Section]) -> str:
    """Aligned text. Prose is wrapped at 80 columns; tables break their headers, never a number."""
    from rich.console import Console
    from rich.table import Table

    buffer = io.StringIO()
    console = Console(file=buffer, width=10_000)
    for section in sections:
        text = section.text()
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
        for index, column in enumerate(section.columns.values()):
            justify: Literal["left", "right"] = "left" if column.left else "right"
            width = max([0, *text.iloc[:, index].map(len)])
            widest = min(width, TEXT_WIDTH) if column.left else width
            header = _break(column.header, widest)
            table.add_column(header, justify=justify, max_width=TEXT_WIDTH if column.left else None)
        for row in text.itertuples(index=False):
            table.add_row(*row)
        console.print(section.title)
        console.print(table)
        for note in section.notes:
            console.print(textwrap.fill(note, width=80))
        console.print()
    lines = (line.rstrip() for line in buffer.getvalue().splitlines())
    return "\n".join(lines).rstrip() + "\n"


def _break(header: str, width: int) -> str:
    """Break a header between words so that it is no wider than what stands below it."""
    widest = max([1, width, *map(len, header.split())])
    return "\n".join(textwrap.wrap(header, widest, break_long_words=False))


def _markdown(sections: Sequence[Section]) -> str:
    parts = []
    for section in sections:
        align = ["left" if column.left else "right" for column in section.columns.values()]
        table = section.text().to_markdown(index=False, disable_numparse=True, colalign=align)
        parts.append("\n\n".join([f"**{section.title}**", table, *section.notes]))
    return "\n\n".join(parts) + "\n"


def _csv(sections: Sequence[Section]) -> str:
    """All tables in one sheet at full precision; ``section`` says which one a row belongs to."""
    frames = [section.frame.assign(section=section.title) for section in sections]
    table = pd.concat(frames, ignore_index=True).convert_dtypes()
    return table[["section", *table.columns.drop("section")]].to_csv(index=False)


def _latex(sections: Sequence[Section]) -> str:
    parts = []
    for section in sections:
        align = "".join("l" if column.left else "r" for column in section.columns.values())
        escaped = section.text().rename(columns=_escape).map(_escape)
        caption = _escape(" ".join([section.title + ".", *section.notes]))
        parts.append(escaped.to_latex(index=False, column_format=align, caption=caption))
    return "\n".join(parts)


def _escape(text: str) -> str:
    for character in "&%#_":
        text = text.replace(character, f"\\{character}")
    return text.replace("^", r"\textasciicircum{}").replace("×", r"$\times$")


FORMS: dict[str, Callable[[Sequence[Section]], str]] = {
    "terminal": _terminal,
    "markdown": _markdown,
    "csv": _csv,
    "latex": _latex,
}
