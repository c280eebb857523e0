"""What commands take and what run files hold, as Markdown: made from the code that reads them."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import typer

from lossbench.bench.records import fields, kinds

PARTS = {
    "First line: the run": fields.HEADER,
    "Its environment": fields.FACT,
    "Other lines: a record each": fields.RECORD,
}
OPTIONS = "Options"
"""Group of the options that are in none."""


def commands() -> str:
    """Every command of ``lossbench`` and ``lossreport``, with its options."""
    from lossbench.bench.interface.cli import app as bench
    from lossbench.reports.cli import app as reports

    apps = {"lossbench": bench, "lossreport": reports}
    parts = [
        _command(f"{program} {name}", command)
        for program, app in apps.items()
        for name, command in _commands(app).items()
    ]
    return "\n\n".join(parts) + "\n"


def run_files() -> str:
    """What must stand in the lines of a run file."""
    return "\n\n".join(f"## {title}\n\n{_kinds(kinds)}" for title, kinds in PARTS.items()) + "\n"


def _commands(app: typer.Typer) -> Mapping[str, Any]:
    group: Any = typer.main.get_command(app)
    found: Mapping[str, Any] = group.commands
    return found


def _command(name: str, command: Any) -> str:
    parts = [f"## {name}", inspect.cleandoc(command.help or "")]
    takes = [each for each in command.params if each.name != "help"]
    panels = dict.fromkeys(_panel(each) for each in takes)
    parts += [_panel_table(panel, [e for e in takes if _panel(e) == panel]) for panel in panels]
    example = [line for line in (command.epilog or "").split("\n\n")[1:] if line]
    parts += ["\n".join(["```bash", *map(_marked, example), "```"])] if example else []
    return "\n\n".join(parts)


def _marked(command: str) -> str:
    """An example with what it needs that is not everywhere."""
    needs = {"--gpu": "", "file:": "your data", "imagefolder:": "your data", "tune": "a GPU"}
    of = [need for sign, need in needs.items() if need and sign in command]
    return f"{command}  # needs {of[0]}" if of else command


def _panel(parameter: Any) -> str:
    return str(getattr(parameter, "rich_help_panel", None) or OPTIONS)


def _panel_table(panel: str, parameters: Iterable[Any]) -> str:
    rows = pd.DataFrame([_parameter(each) for each in parameters], columns=[panel, ""])
    return rows.to_markdown(index=False, disable_numparse=True)


def _parameter(parameter: Any) -> tuple[str, str]:
    flags = ", ".join(each for each in parameter.opts if each.startswith("-"))
    name = flags or str(parameter.metavar or parameter.name).upper()
    says = (parameter.help or "").strip()
    shown = parameter.default not in (None, "", False, (), []) and "default:" not in says
    default = f" Default: {parameter.default}." if flags and shown else ""
    return f"`{name}`", f"{says}{default}".replace("|", "\\|")


def _kinds(kinds: Mapping[str, kinds.Kind]) -> str:
    """Fields that must be of a kind stand together."""
    names: dict[str, list[str]] = {}
    for name, kind in kinds.items():
        names.setdefault(kind.says, []).append(f"`{name}`")
    rows = [(", ".join(of), says) for says, of in names.items()]
    table = pd.DataFrame(rows, columns=["fields", "each must be"])
    return table.to_markdown(index=False, disable_numparse=True)
