"""The pages of the repository, and what is in them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("*.md", "docs/**/*.md", "kernels/*.md")
PAGES = sorted(path for folder in FOLDERS for path in ROOT.glob(folder))
LINKED = [*PAGES, *sorted(ROOT.glob("reports/results/**/*.md"))]
"""Those beside the runs say how each was made, once, on its machine."""
NEEDS = ("a GPU", "a cluster", "your data")
"""What a command may need that is not here: it ends with the comment ``# needs a GPU``."""
OBVIOUS = {"file:": "your data", "package.module": "your data", "--suite gpu": "a GPU"}
"""What a command of README's table needs, by what it says."""
_INLINE = re.compile(r"`((?:lossbench|lossreport) [^`]+)`")
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!`)\[[^]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Command:
    """A command of a page.

    Attributes:
        page: that it stands on.
        words: program and arguments.
        needs: one of ``NEEDS``, or "".
    """

    page: Path
    words: tuple[str, ...]
    needs: str

    def __str__(self) -> str:
        return f"{self.page.name}: {' '.join(self.words)}"


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """Code of a language, block by block."""
    found = []
    for indent, said, code in _BLOCK.findall(page.read_text()):
        if said == language:
            found.append("\n".join(line.removeprefix(indent) for line in code.splitlines()))
    return found


def commands(page: Path) -> Iterator[Command]:
    """Commands of a page's shell blocks, and of the table of README."""
    if page.name == "README.md":
        rows = [row for row in page.read_text().splitlines() if row.startswith("|")]
        for text in _INLINE.findall("\n".join(rows)):
            needs = [need for sign, need in OBVIOUS.items() if sign in text]
            yield Command(page, tuple(shlex.split(text)), "".join(needs))
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    for line in lines:
        needs = [need for need in NEEDS if line.rstrip().endswith(f"# needs {need}")]
        for part in line.split("&&"):
            words = shlex.split(part, comments=True)
            if words:
                yield Command(page, tuple(words), "".join(needs))


def links(page: Path) -> set[str]:
    """Targets of links that are not on the web."""
    text = _BLOCK.sub("", page.read_text())
    return {link for link in _LINK.findall(text) if "://" not in link}


def anchors(page: Path) -> set[str]:
    """What a link may point to on a page: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", _BLOCK.sub("", page.read_text()), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}
