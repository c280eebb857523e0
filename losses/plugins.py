"""Modules of others that register losses, implementations or kernels by our decorators.

An installed package names its module in the entry-point group ``lossbench.losses``; any other is
named by ``--plugin package.module``, which child processes know from the environment.
"""

import os
import warnings
from collections.abc import Iterable
from importlib import metadata

from lossbench.losses.outside import import_module

GROUP = "lossbench.losses"
VARIABLE = "LOSSBENCH_PLUGINS"


class PluginWarning(UserWarning):
    """An installed plugin that cannot be imported; the message says which and why."""


def load() -> None:
    """Import all plugins: those that are installed and those that the environment names."""
    for entry in metadata.entry_points(group=GROUP):
        try:
            entry.load()
        except Exception as error:  # whatever a plugin raises: others go on without it
            warnings.warn(PluginWarning(f"plugin {entry.name} left out: {error}"), stacklevel=2)
    for module in _named():
        import_module(module, "plugin")


def use(modules: Iterable[str]) -> None:
    """Import plugins, here and in the child processes that are started from here.

    Raises:
        ValueError: one cannot be imported.
    """
    for module in modules:
        import_module(module, "plugin")
        os.environ[VARIABLE] = ",".join(dict.fromkeys([*_named(), module]))


def _named() -> list[str]:
    return [name for name in os.environ.get(VARIABLE, "").split(",") if name]
