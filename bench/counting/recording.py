"""Launches of kernels written down instead of run, as if on a GPU that need not be here."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from lossbench.kernels import configs
from lossbench.kernels.configs import Config
from lossbench.kernels.language import INSTALLED, INTERPRETED

CAN_RECORD = INSTALLED and not INTERPRETED
"""Kernels that are plain functions, or run in the interpreter, are not launched."""


Note = Callable[[Any, dict[str, Any], tuple[int, ...]], None]


@contextmanager
def recorded(config: Config, note: Note) -> Iterator[None]:
    """Tell ``note`` of each launch: the kernel, its arguments by name, and its grid.

    Args:
        config: how tiles are made.
        note: is told.
    """
    from triton.runtime.jit import JITFunction

    def record(kernel: Any, *positional: Any, grid: Any, warmup: bool, **named: Any) -> None:
        arguments = {**dict(zip(kernel.arg_names, positional, strict=False)), **named}
        note(kernel, arguments, grid)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(JITFunction, "run", record))
        stack.enter_context(configs.using(config))
        stack.enter_context(mock.patch("lossbench.kernels.ops.why_unsupported", return_value=None))
        yield


@contextmanager
def watched(note: Callable[[str, list[Any]], None]) -> Iterator[None]:
    """Tell ``note`` the name and the arguments of each launch, which is made: third parties'.

    Args:
        note: is told.
    """
    if not INSTALLED:
        yield
        return
    from triton.runtime.interpreter import GridExecutor
    from triton.runtime.jit import JITFunction

    launch, interpret = JITFunction.run, GridExecutor.__call__

    def run(kernel: Any, *positional: Any, **named: Any) -> Any:
        note(kernel.__name__, [*positional, *named.values()])
        return launch(kernel, *positional, **named)

    def call(executor: Any, *positional: Any, **named: Any) -> Any:
        note(executor.fn.__name__, [*positional, *named.values()])
        return interpret(executor, *positional, **named)

    with (
        mock.patch.object(JITFunction, "run", run),
        mock.patch.object(GridExecutor, "__call__", call),
    ):
        yield
