"""A titled table with its notes, and its forms: terminal, Markdown, CSV, JSON, LaTeX."""

import html
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pandas as pd

Format = Callable[[Any], str]
MISSING = "-"
_INFINITE = (float("inf"), float("-inf"))
COLUMNS = 80
_NUMBER = re.compile(r"(-?[\d,]+\.?\d*)(%?x?)")
LONGEST = 7
"""Letters of a number that fits nowhere else as a power of ten, such as 1.0e+24."""
FITS = ((16, 2, None), (16, 1, None), (12, 1, None), (9, 1, None), (9, 1, LONGEST))
"""Width at which text wraps in the terminal, spaces between columns, and letters of a number, the
airiest first: the numbers, which are never cut, should fit in 80 columns."""


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
        marks: (row, column) of a cell without a value -> letter of the note that says why.
    """

    title: str
    frame: pd.DataFrame
    columns: dict[str, Column]
    notes: Sequence[str] = field(default_factory=tuple)
    marks: Mapping[tuple[int, str], str] = field(default_factory=dict)

    def select(self, names: Sequence[str]) -> "Section":
        """The same table with some of its columns, by their names or headers, in that order."""
        by_header = {column.header: name for name, column in self.columns.items()}
        found = [each if each in self.columns else by_header.get(each) for each in names]
        chosen = {name: self.columns[name] for name in found if name}
        return replace(self, columns=chosen, frame=self.frame[list(chosen)])

    def text(self, longest: int | None = None) -> pd.DataFrame:
        """The table as it is shown; numbers of more than ``longest`` letters as powers of ten."""
        columns = [
            [
                _cell(value, column.format, longest) + self._mark(row, name)
                for row, value in enumerate(self.frame[name])
            ]
            for name, column in self.columns.items()
        ]
        headers = [column.header for column in self.columns.values()]  # may repeat
        return pd.DataFrame(list(zip(*columns, strict=True)), columns=headers, dtype=str)

    def _mark(self, row: int, name: str) -> str:
        letter = self.marks.get((row, name))
        return f" [{letter}]" if letter else ""


def _cell(value: Any, form: Format, longest: int | None) -> str:
    if pd.isna(value):
        return MISSING
    text = form(value)
    number = _NUMBER.fullmatch(text)  # not the value: a format may scale it
    if longest is None or len(text) <= longest or not number:
        return text
    return f"{float(number[1].replace(',', '')):.1e}{number[2]}"


class Sections(Sequence[Section]):
    """The sections of a table, which show themselves in a notebook and as text.

    Args:
        sections: in order.
    """

    def __init__(self, sections: Sequence[Section]) -> None:
        self._sections = list(sections)

    def __getitem__(self, index: Any) -> Any:
        return self._sections[index]

    def __len__(self) -> int:
        return len(self._sections)

    def text(self) -> str:
        """As ``lossreport`` prints them: at most 80 columns wherever the numbers allow."""
        return render(self, "terminal")

    def markdown(self) -> str:
        """Tables of Markdown."""
        return render(self, "markdown")

    def latex(self) -> str:
        """A LaTeX table for each section."""
        return render(self, "latex")

    def csv(self) -> str:
        """One sheet at full precision; column ``section`` says which table a row belongs to."""
        return render(self, "csv")

    def json(self) -> str:
        """Titles, notes and rows at full precision."""
        return render(self, "json")

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return _html(self)


def check_form(form: str) -> None:
    """Before anything is read.

    Raises:
        ValueError: not one of ``FORMS``.
    """
    if form not in FORMS:
        raise ValueError(f"unknown format {form!r}; known: {', '.join(sorted(FORMS))}")


def render(sections: Sequence[Section], form: str) -> str:
    """All sections as text in one of ``FORMS``."""
    return FORMS[form](sections)


def _terminal(sections: Sequence[Section]) -> str:
    """Aligned text. Prose is wrapped at 80 columns; tables break their headers, never a number."""
    return "\n\n".join("\n".join(_lines(section)) for section in sections) + "\n"


def _lines(section: Section) -> list[str]:
    """A section without rich, which takes thirty times as long for a long table."""
    tables = (_table(section, *fit) for fit in FITS)
    table: list[str] = []
    for table in tables:
        if max(map(len, table)) <= COLUMNS:
            break
    return [section.title, *table, *(textwrap.fill(note, COLUMNS) for note in section.notes)]


def _table(section: Section, text_width: int, gap: int, longest: int | None) -> list[str]:
    text = section.text(longest)
    left = [column.left for column in section.columns.values()]
    rows = [
        [
            _wrap(cell, text_width) if is_text else [cell]
            for cell, is_text in zip(row, left, strict=True)
        ]
        for row in text.itertuples(index=False, name=None)
    ]
    headers = [
        _break(header, _widest(row[index] for row in rows))
        for index, header in enumerate(text.columns)
    ]
    height = max(map(len, headers), default=0)
    rows.insert(0, [[""] * (height - len(lines)) + lines for lines in headers])
    widths = [_widest(row[index] for row in rows) for index in range(len(left))]
    return [
        (" " * gap).join(map(_align, cells, widths, left)).rstrip()
        for row in rows
        for cells in zip_longest(*row, fillvalue="")
    ]


def _wrap(cell: str, width: int) -> list[str]:
    """Lines of a cell, one at least."""
    return textwrap.wrap(cell, width) or [cell]


def _widest(cells: Iterable[list[str]]) -> int:
    return max((len(line) for lines in cells for line in lines), default=0)


def _align(cell: str, width: int, left: bool) -> str:
    return cell.ljust(width) if left else cell.rjust(width)


def _break(header: str, width: int) -> list[str]:
    """Break a header between words so that it is no wider than what stands below it."""
    widest = max([1, width, *map(len, header.split())])
    return textwrap.wrap(header, widest, break_long_words=False) or [""]


def _markdown(sections: Sequence[Section]) -> str:
    parts = []
    for section in sections:
        align = ["left" if column.left else "right" for column in section.columns.values()]
        table = section.text().to_markdown(index=False, disable_numparse=True, colalign=align)
        parts.append("\n\n".join([f"**{section.title}**", table, *section.notes]))
    return "\n\n".join(parts) + "\n"


def _html(sections: Sequence[Section]) -> str:
    parts = []
    for section in sections:
        text = section.text()
        align = ["left" if column.left else "right" for column in section.columns.values()]
        styles: Any = [
            {"selector": f".col{number}", "props": f"text-align: {side}"}
            for number, side in enumerate(align)
        ]
        text.columns = pd.RangeIndex(len(text.columns))  # headers may repeat
        styler = text.style.hide(axis="index").set_table_styles(styles)
        styler = styler.format(escape="html").relabel_index(
            [html.escape(column.header) for column in section.columns.values()], axis="columns"
        )
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in section.notes)
        parts.append(f"<h4>{html.escape(section.title)}</h4>\n{styler.to_html()}{notes}")
    return "\n".join(parts) + "\n"


def _csv(sections: Sequence[Section]) -> str:
    """All tables in one sheet at full precision; ``section`` says which one a row belongs to."""
    frames = [section.frame.assign(section=section.title) for section in sections]
    table = pd.concat(frames, ignore_index=True).convert_dtypes()
    return table[["section", *table.columns.drop("section")]].to_csv(index=False)


def _json(sections: Sequence[Section]) -> str:
    """Lists of ``title``, ``notes``, ``rows`` at full precision; null is missing or infinite."""
    content = []
    for section in sections:
        rows = section.frame.convert_dtypes().to_dict("records")
        rows = [{name: _or_null(value) for name, value in row.items()} for row in rows]
        content.append({"title": section.title, "notes": list(section.notes), "rows": rows})
    return json.dumps(content, indent=1, default=str, allow_nan=False) + "\n"


def _or_null(value: Any) -> Any:
    return None if value is pd.NA or value != value or value in _INFINITE else value


def _latex(sections: Sequence[Section]) -> str:
    """A table of the package booktabs for each section: a short caption, notes below the table."""
    parts = ["% needs \\usepackage{booktabs}\n"]
    for section in sections:
        align = "".join("l" if column.left else "r" for column in section.columns.values())
        escaped = section.text().rename(columns=_escape).map(_escape)
        table = escaped.to_latex(
            index=False,
            column_format=align,
            caption=_escape(section.title),
            label=f"tab:{_slug(section.title)}",
            position="t",
        )
        end = "\\end{table}\n"
        notes = [_escape(note) for note in section.notes]
        below = "\\par\\smallskip\\footnotesize\n" + "\n\n".join(notes) + "\n" if notes else ""
        parts.append(table.removesuffix(end) + below + end)
    return "\n".join(parts)


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _escape(text: str) -> str:
    return _MARK.sub(r"\\textsuperscript{\1}", text.translate(_ESCAPED))


_MARK = re.compile(r" ?\[([a-z]{1,2})\]")
_ESCAPED = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%#_{}$"},
        "\\": r"\textbackslash{}",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "×": r"$\times$",
    }
)


FORMS: dict[str, Callable[[Sequence[Section]], str]] = {
    "terminal": _terminal,
    "markdown": _markdown,
    "csv": _csv,
    "json": _json,
    "latex": _latex,
}
SUFFIXES = {".md": "markdown", ".csv": "csv", ".json": "json", ".tex": "latex"}


def form_of(path: Path) -> str:
    """The form that a file's name asks for; of another file that of a terminal."""
    return SUFFIXES.get(path.suffix, "terminal")
