"""The script that calls us, which every child process imports again before it can work."""

import ast
import sys
from pathlib import Path
from types import FrameType


def check_guarded() -> None:
    """Refuse a script that would run itself again in every child process, before one is started.

    Notebooks, interactive sessions and modules of a package are not imported again.

    Raises:
        RuntimeError: the script calls us outside an ``if __name__ == "__main__":`` block.
    """
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    frame = _module_frame(vars(main))
    if file is None or frame is None or not Path(file).is_file():
        return
    if not _is_guarded(Path(file), frame.f_lineno):
        raise RuntimeError(
            f"{file}, line {frame.f_lineno}: cases are measured in processes of their own, which "
            'import this script again: put what it does under  if __name__ == "__main__":'
        )


def _module_frame(space: dict[str, object]) -> FrameType | None:
    """The running frame of a module's own code, if that is what calls us."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals is space and frame.f_code.co_name == "<module>":
            return frame
        frame = frame.f_back
    return None


def _is_guarded(file: Path, line: int) -> bool:
    """Whether a line of a file stands in a block that only the script itself runs."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):  # no Python source: nothing can be said of it
        return True
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and _asks(node.test)]
    bodies = [(node.body[0].lineno, node.body[-1].end_lineno or line) for node in blocks]
    return any(first <= line <= last for first, last in bodies)


def _asks(test: ast.expr) -> bool:
    """Whether a condition is about ``__name__``."""
    return any(isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(test))
