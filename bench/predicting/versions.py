"""Tables in a Markdown file, one for each version of Triton."""

import re

_HEADING = "## triton "
_SECTION = re.compile(rf"^{_HEADING}(\S+)\n\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)


def section(text: str, version: str) -> str | None:
    """The table of a version, None if there is none.

    Args:
        text: of the file.
        version: of Triton.
    """
    found = {name: table.rstrip("\n") + "\n" for name, table in _SECTION.findall(text)}
    return found.get(version)


def replaced(text: str, version: str, table: str) -> str:
    """A file with the table of a version replaced, or with one more.

    Args:
        text: of the file.
        version: of Triton.
        table: lines that end in a newline.
    """
    made = f"{_HEADING}{version}\n\n{table}"
    if section(text, version) is None:
        return f"{text.rstrip()}\n\n{made}".lstrip()
    return _SECTION.sub(
        lambda found: made + _gap(found, text) if found[1] == version else found[0], text
    )


def _gap(found: "re.Match[str]", text: str) -> str:
    """Between a section and the next."""
    return "\n" if found.end() < len(text) else ""
