"""What a self-supervised loss really costs: the losses, and what counts and measures them.

``lossbench.losses`` and ``lossbench.kernels`` are for training scripts; ``lossbench.run``,
``count``, ``predict``, ``pretrain``, ``load``, ``table``, ``figure`` and ``compare`` do what the
commands do, see ``docs/python.md``. Nothing is imported before it is used.
"""

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lossbench.python import compare, count, figure, load, predict, pretrain, run, table

PACKAGES = ("bench", "kernels", "losses", "reports")
__all__ = ["compare", "count", "figure", "load", "predict", "pretrain", "run", "table"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in __all__:
        return getattr(importlib.import_module("lossbench.python"), name)
    if name in PACKAGES:
        return importlib.import_module(f"lossbench.{name}")
    raise AttributeError(f"module 'lossbench' has no attribute {name!r}")


def _version() -> str:
    try:
        return metadata.version("lossbench")
    except metadata.PackageNotFoundError:
        return "not installed"


def __dir__() -> list[str]:
    return [*globals(), "__version__", *PACKAGES, *__all__]
