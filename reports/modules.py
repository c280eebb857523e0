"""Tables and figures are modules, one file each, found by their file names."""

import importlib
import pkgutil
from collections.abc import Collection
from types import ModuleType


def names(package: ModuleType) -> list[str]:
    """Names of the modules of a package."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def load(package: ModuleType, kind: str, name: str) -> ModuleType:
    """A module of a package.

    Raises:
        ValueError: there is none of that name; the known ones are listed.
    """
    pick(kind, name, names(package))
    return importlib.import_module(f"{package.__name__}.{name}")


def pick(kind: str, name: str, known: Collection[str]) -> None:
    """Refuse a name that is not known, as ``losses.pick`` does.

    Raises:
        ValueError: unknown; the known ones are listed.
    """
    if name not in known:
        from lossbench import losses  # imports torch, which a report may not need

        losses.pick(kind, name, known)
