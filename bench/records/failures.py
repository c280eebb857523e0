"""What an exception says about a case."""

import re
from collections.abc import Callable, Mapping
from typing import Any


class MisbehaviourError(ValueError):
    """What is wrong with a third party's loss, in one line."""


OUT_OF_BUDGET = "not measured: the budget was spent"
"""Reason of a record that is not there for want of time."""
_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "bad_alloc")
_UNSUPPORTED = ("not implemented for", "No working C++ compiler")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, on whatever device."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY)


def is_broken(record: Mapping[str, Any]) -> bool:
    """Whether a record says that the process that made it can use its GPU no more."""
    return record["status"] == "error" and "CUDA error" in record["reason"]


def is_limit(record: Mapping[str, Any]) -> bool:
    """Whether a record says that a case does not fit a GPU: a result, as a time is one.

    Nobody else is in a GPU's memory, as may be in a CPU's.
    """
    return record["status"] == "oom" and record["device"] == "cuda"


def describe_failure(error: Exception) -> dict[str, Any]:
    """``status`` and ``reason`` of a case that raised ``error``."""
    if isinstance(error, MisbehaviourError):
        return {"status": "invalid", "reason": str(error)}
    message = (str(error).strip() or type(error).__name__).splitlines()[0]
    status = "error"
    if is_out_of_memory(error):
        status = "oom"
        asked = re.search(r"tried to allocate (\d+) bytes", str(error))
        if asked:
            message = f"{int(asked[1]) / 1e9:.1f} GB more did not fit in memory"
    elif isinstance(error, NotImplementedError) or any(s in str(error) for s in _UNSUPPORTED):
        status = "unsupported"
    return {"status": status, "reason": f"{type(error).__name__}: {message}"}


def guarded(work: Callable[..., dict[str, Any]], *arguments: Any, **options: Any) -> dict[str, Any]:
    """What ``work`` returns, or what its failure says: a case that fails is a row."""
    try:
        return work(*arguments, **options)
    except Exception as error:
        return describe_failure(error)
