"""Settings by name: ``loss.name`` of a loss, ``loss.implementation.name`` of an implementation."""

from typing import Any


def owner(name: str, given: Any) -> tuple[str, str, str]:
    """Loss, implementation ("" for any) and setting that ``loss[.implementation].setting`` names.

    Args:
        name: of the setting.
        given: its value, for the error.

    Raises:
        ValueError: another form.
    """
    *of, setting = name.split(".")
    if not (setting and len(of) in (1, 2)):
        raise ValueError(f"--set needs loss.name=value, got '{name}={given}'")
    return of[0], "".join(of[1:]), setting


def value(given: Any) -> Any:
    """A value as it is, and text as the number that it is: 2 and 2.0 are one setting."""
    if isinstance(given, bool):
        return given
    try:
        number = float(given)
    except (TypeError, ValueError):
        return given
    return int(number) if number.is_integer() else number
