"""What an exception says about a case."""

import re
from typing import Any

_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "bad_alloc")
_UNSUPPORTED = ("not implemented for",)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, on whatever device."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY)


def describe_failure(error: Exception) -> dict[str, Any]:
    """``status`` and ``reason`` of a case that raised ``error``."""
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
