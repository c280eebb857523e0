"""The script that calls us, which every child process imports again before it can work."""

import ast
import multiprocessing
import sys
import threading
from pathlib import Path
from types import FrameType

GUARD = 'put what it does under  if __name__ == "__main__":'


def check_guarded() -> None:
    """Refuse a script that would run itself again in every child process, before one is started.

    Notebooks, interactive sessions and modules of a package are not imported again.

    Raises:
        RuntimeError: the script calls us outside an ``if __name__ == "__main__":`` block, has no
            file that a child process can import, or is a process that may have no children.
    """
    if multiprocessing.current_process().daemon:
        raise RuntimeError(
            "cases are measured in processes of their own, which a worker of a multiprocessing "
            "pool may not start: call lossbench from the main process"
        )
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is None:
        return
    if not Path(file).is_file():
        raise RuntimeError(
            f"cases are measured in processes of their own, which cannot import {file}: save the "
            "script as a file"
        )
    frame = _module_frame(vars(main))
    if frame is not None and not _is_guarded(Path(file), frame.f_lineno):
        raise RuntimeError(
            f"{file}, line {frame.f_lineno}: cases are measured in processes of their own, which "
            f"import this script again: {GUARD}"
        )


def _module_frame(space: dict[str, object]) -> FrameType | None:
    """The running frame of a module's own code: it calls us, or waits for a thread that does."""
    main_thread = threading.main_thread().ident or 0
    for start in (sys._getframe(), sys._current_frames().get(main_thread)):
        frame = start
        while frame is not None:
            if frame.f_globals is space and frame.f_code.co_name == "<module>":
                return frame
            frame = frame.f_back
    return None


def _is_guarded(file: Path, line: int) -> bool:
    """Whether a line of a file belongs to a condition on ``__name__``, however it is written."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):  # no Python source: nothing can be said of it
        return True
    kinds = (ast.If, ast.IfExp, ast.BoolOp)
    conditions = [node for node in ast.walk(tree) if isinstance(node, kinds) and _asks(node)]
    return any(node.lineno <= line <= (node.end_lineno or line) for node in conditions)


def _asks(node: ast.If | ast.IfExp | ast.BoolOp) -> bool:
    """Whether what a node does depends on ``__name__``."""
    test = node.values[0] if isinstance(node, ast.BoolOp) else node.test
    return any(isinstance(each, ast.Name) and each.id == "__name__" for each in ast.walk(test))
