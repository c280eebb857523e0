"""Tables, one file each: ``build(records)`` returns the sections of the table named by the file."""

import importlib
import pkgutil
from collections.abc import Callable, Sequence

import pandas as pd

from reports.section import Section

Build = Callable[[pd.DataFrame], Sequence[Section]]


def names() -> list[str]:
    """Names of all tables."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def builder(name: str) -> Build:
    """The function that builds a table.

    Raises:
        ValueError: unknown table; the known ones are listed.
    """
    if name not in names():
        from losses import pick  # imports torch, which a report does not need

        pick("table", name, names())
    return importlib.import_module(f"{__name__}.{name}").build
